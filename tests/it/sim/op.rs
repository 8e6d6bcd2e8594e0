//! What happens to a world: the operations, lists of them from a seed, and their text.

use std::fmt;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A log object with the events `first..first + count` arrives, and its notification.
    Deliver {
        first: u32,
        count: u32,
    },
    /// The second trail delivers the same events in another object, in the opposite order.
    SecondTrail {
        first: u32,
        count: u32,
    },
    /// One message names two objects: one with these events, and another.
    Bundle {
        first: u32,
        count: u32,
        other: Other,
    },
    /// One event arrives through EventBridge, in the message itself.
    EventBridge {
        event: u32,
    },
    /// So many events, each in a message of its own.
    Burst {
        first: u32,
        count: u32,
    },
    /// The body of the message that was sent so many messages ago arrives once more.
    Again {
        back: usize,
    },
    /// A message that nobody can read.
    Poison,
    /// The oldest process dies where it stands.
    Crash,
    /// Whoever makes the next but `after` call of a kind dies in it, or soon after it.
    DieIn {
        call: Call,
        after: u32,
        how: Death,
    },
    /// The oldest process is told to stop; another takes its place at once.
    Stop,
    /// One more process joins.
    Join,
    /// The next `count` calls of a kind fail.
    Fail {
        call: Call,
        count: u32,
        how: Failure,
    },
    /// In the next call of a kind, only these entries of its batch fail, a bit for each.
    FailEntries {
        call: Call,
        which: u32,
    },
    /// The next call of a kind does its work and its answer is lost.
    LoseAnswer {
        call: Call,
    },
    /// The next `count` calls of a kind hang until they are given up; `done` says whether they did their work.
    Hang {
        call: Call,
        count: u32,
        done: bool,
    },
    /// The next call of a kind takes so much longer.
    Slow {
        call: Call,
        milliseconds: u64,
    },
    /// Every call of a service fails for so long.
    Outage {
        service: Service,
        seconds: u64,
        how: Failure,
    },
    /// Every call of a service hangs for so long.
    Standstill {
        service: Service,
        seconds: u64,
    },
    /// All but every fourth call of a service fail for so long.
    Throttling {
        service: Service,
        seconds: u64,
    },
    /// The bucket denies every object for so long.
    Deny {
        seconds: u64,
    },
    /// The next body breaks off after so many bytes.
    Break {
        after: u64,
    },
    /// The next body stands still after so many bytes.
    Stall {
        after: u64,
    },
    /// The next body ends after so many bytes as if that were all.
    Cut {
        after: u64,
    },
    /// Another object takes the place of the next one that is opened when so many of its bytes were read.
    Replace {
        after: u64,
    },
    /// A call of a kind refuses this event for good, for ever.
    Refuse {
        call: Call,
        event: u32,
    },
    /// The lease of the message held longest runs out, or of every one.
    EndLeases {
        every: bool,
    },
    /// The rules that change are reloaded in these modes: by every process, or only by the oldest.
    Reload {
        any_key: Rule,
        any_stop: Rule,
        all: bool,
    },
    /// Every process is told to reload a file that holds no rules.
    ReloadNonsense,
    Wait {
        milliseconds: u64,
    },
}

/// The second object of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// The same events, in the opposite order.
    Copy,
    /// It is not there.
    Missing,
    /// It ends in the middle, and always did.
    Damaged,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The call did nothing.
    Before,
    /// The call did its work and was not answered.
    After,
    /// The call was answered, and every task that can run had so many turns.
    Soon(u32),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Throttled, or answered by 503.
    Down,
    /// As configured, the call cannot work: something is denied or missing, or credentials have expired.
    Config,
    /// The key is denied with which what is asked for is encrypted.
    Key,
    /// What is asked for is refused for good. Of SNS and DynamoDB only.
    Refused,
}

/// The mode of a rule that changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Absent,
    Alert,
    Shadow,
}

/// Calls that can be in trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Open,
    Publish,
    Record,
    Cross,
    Settle,
    Renew,
    Mark,
    Receive,
    Extend,
    Delete,
    Survey,
    CheckObjects,
    CheckTopic,
    CheckTable,
}

/// What fails or hangs together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Service {
    S3,
    Sns,
    DynamoDb,
    Sqs,
}

/// `Debug` as it stands in the source, so that a printed list can be pasted.
macro_rules! written_out {
    ($($name:ident: $($variant:ident)*;)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => concat!(stringify!($name), "::", stringify!($variant)),)*
                })
            }
        }
    )*};
}

written_out! {
    Other: Copy Missing Damaged;
    Failure: Down Config Key Refused;
    Rule: Absent Alert Shadow;
    Call: Open Publish Record Cross Settle Renew Mark Receive Extend Delete Survey CheckObjects CheckTopic CheckTable;
    Service: S3 Sns DynamoDb Sqs;
}

impl fmt::Debug for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before => f.write_str("Death::Before"),
            Self::After => f.write_str("Death::After"),
            Self::Soon(turns) => write!(f, "Death::Soon({turns})"),
        }
    }
}

impl Call {
    /// Those that the work on messages makes.
    pub const OF_WORK: [Self; 10] = [
        Self::Open,
        Self::Publish,
        Self::Record,
        Self::Cross,
        Self::Settle,
        Self::Renew,
        Self::Mark,
        Self::Receive,
        Self::Extend,
        Self::Delete,
    ];
    const ALL: [Self; 14] = [
        Self::Open,
        Self::Publish,
        Self::Record,
        Self::Cross,
        Self::Settle,
        Self::Renew,
        Self::Mark,
        Self::Receive,
        Self::Extend,
        Self::Delete,
        Self::Survey,
        Self::CheckObjects,
        Self::CheckTopic,
        Self::CheckTable,
    ];

    pub fn operation(self) -> &'static str {
        match self {
            Self::Open => "s3:GetObject",
            Self::Publish => "sns:PublishBatch",
            Self::Record => "dynamodb:PutItem",
            Self::Cross => "dynamodb:UpdateItem#cross",
            Self::Settle => "dynamodb:UpdateItem#settle",
            Self::Renew => "dynamodb:UpdateItem",
            Self::Mark => "dynamodb:UpdateItem#mark",
            Self::Receive => "sqs:ReceiveMessage",
            Self::Extend => "sqs:ChangeMessageVisibility",
            Self::Delete => "sqs:DeleteMessageBatch",
            Self::Survey => "sqs:GetQueueAttributes",
            Self::CheckObjects => "s3:HeadBucket",
            Self::CheckTopic => "sns:GetTopicAttributes",
            Self::CheckTable => "dynamodb:DescribeTable",
        }
    }
}

impl Service {
    const ALL: [Self; 4] = [Self::S3, Self::Sns, Self::DynamoDb, Self::Sqs];

    pub fn prefix(self) -> &'static str {
        match self {
            Self::S3 => "s3:",
            Self::Sns => "sns:",
            Self::DynamoDb => "dynamodb:",
            Self::Sqs => "sqs:",
        }
    }
}

/// The list of a seed.
pub fn random_list(seed: u64) -> Vec<Op> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut list = vec![Op::Deliver { first: 0, count: 1 + random.u32(..40) }];
    if random.bool() {
        list.insert(0, Op::Join);
    }
    // In one world of four nothing happens that could excuse a repeated alert or a receive more; few promises can be
    // broken there without being seen.
    let calm = random.u8(..4) == 0;
    for _ in 0..4 + random.usize(..14) {
        list.push(match random.u8(..10) {
            0..4 => arrival(&mut random),
            4..8 if !calm => trouble(&mut random),
            4..8 => calm_trouble(&mut random),
            8 => Op::Wait { milliseconds: random.u64(..60_000) },
            _ => Op::Wait { milliseconds: random.u64(..2_000) },
        });
    }
    list
}

fn arrival(random: &mut fastrand::Rng) -> Op {
    let (first, count) = (random.u32(..20), 1 + random.u32(..40));
    match random.u8(..12) {
        0 | 1 => Op::Deliver { first, count },
        2..5 => Op::SecondTrail { first, count },
        5 | 6 => Op::Bundle { first, count, other: pick(random, &[Other::Copy, Other::Missing, Other::Damaged]) },
        7 => Op::EventBridge { event: first },
        8 => Op::Burst { first, count: 1 + random.u32(..12) },
        9 | 10 => Op::Again { back: random.usize(..3) },
        _ => Op::Poison,
    }
}

fn trouble(random: &mut fastrand::Rng) -> Op {
    let work = random.u8(..8) != 0;
    let call = pick(random, if work { &Call::OF_WORK[..] } else { &Call::ALL });
    let service = pick(random, &Service::ALL);
    let seconds = 1 + random.u64(..300);
    let how = pick(random, &[Failure::Down, Failure::Down, Failure::Config, Failure::Key]);
    match random.u8(..24) {
        0 => Op::Crash,
        1..5 => {
            let how = match random.u8(..4) {
                0 => Death::Before,
                1 => Death::After,
                _ => Death::Soon(random.u32(..12)),
            };
            Op::DieIn { call, after: random.u32(..4), how }
        }
        5 | 6 => Op::Stop,
        7 => Op::Join,
        8 => Op::Fail { call, count: pick(random, &[1, 2, 3, 5, 30]), how },
        9 => Op::FailEntries { call: pick(random, &[Call::Publish, Call::Delete]), which: random.u32(..1024) },
        10..12 => Op::LoseAnswer { call },
        12 | 13 => Op::Hang { call, count: 1 + random.u32(..3), done: random.bool() },
        14 => Op::Slow { call, milliseconds: random.u64(..20_000) },
        15 => Op::Outage { service, seconds, how },
        16 => Op::Standstill { service, seconds },
        17 => Op::Throttling { service, seconds },
        18 => Op::Cut { after: 1 + random.u64(..1000) },
        19 if random.bool() => Op::Deny { seconds: 1 + seconds / 10 },
        20 if random.bool() => {
            let call = pick(random, &[Call::Publish, Call::Record, Call::Renew, Call::Mark]);
            Op::Refuse { call, event: random.u32(..40) }
        }
        20 => {
            let service = pick(random, &[Service::Sns, Service::DynamoDb]);
            Op::Outage { service, seconds, how: Failure::Refused }
        }
        19 => Op::EndLeases { every: random.bool() },
        _ => calm_trouble(random),
    }
}

/// Troubles that must neither repeat an alert nor cost a receive.
fn calm_trouble(random: &mut fastrand::Rng) -> Op {
    let service = pick(random, &[Service::S3, Service::Sns]);
    let how = pick(random, &[Failure::Down, Failure::Config]);
    let quiet = [
        Call::Open,
        Call::Publish,
        Call::Record,
        Call::Cross,
        Call::Settle,
        Call::Renew,
        Call::CheckObjects,
        Call::CheckTable,
    ];
    let call = pick(random, &quiet);
    let count = 1 + random.u32(..6);
    match random.u8(..12) {
        0 | 1 => Op::Join,
        2 if random.u8(..4) == 0 => Op::Replace { after: random.u64(..3000) },
        2 => Op::Break { after: random.u64(..3000) },
        3 => Op::Stall { after: random.u64(..3000) },
        4 => Op::Fail { call, count, how },
        5 => Op::FailEntries { call: Call::Publish, which: random.u32(..1024) },
        6 => Op::Hang { call, count: 1 + count / 3, done: false },
        7 => Op::Outage { service, seconds: 1 + random.u64(..300), how },
        8 => Op::Hang { call: Call::Extend, count: 1, done: random.bool() },
        9 => Op::ReloadNonsense,
        _ => {
            let modes = [Rule::Absent, Rule::Alert, Rule::Shadow];
            Op::Reload { any_key: pick(random, &modes), any_stop: pick(random, &modes), all: random.bool() }
        }
    }
}

fn pick<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

/// The list as a test's source; its name is to be told what it shows.
pub fn paste(seed: u64, list: &[Op]) -> String {
    let lines: Vec<_> = list.iter().map(|op| format!("        Op::{op:?},\n")).collect();
    let lines = lines.concat();
    format!("#[test]\nfn seed_{seed}() {{\n    let list = [\n{lines}    ];\n    check({seed}, &list);\n}}\n")
}
