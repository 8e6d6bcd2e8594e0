//! What is known of one rule, one key of values and one window of time: how many events, and which steps were told.
//!
//! A rule with a `group` does not alert for each event. The windows are buckets of event time, aligned to the epoch, and
//! each bucket of each key has a tracker. Storing an event and counting it in its trackers is one step, so that an event
//! counts once, however often it arrives. A count that reaches a step (1, 10, 100, ...) is told:
//!
//! 1. *Quiet*: the count reaches no step. The event's rule is settled as the event is counted; nothing is to be told.
//! 2. *Loud*: it reaches one, or one is due and not told yet. The event's rule stays unsettled, and whoever holds the
//!    event looks at the tracker: while a step is due, one claims it (as in [`crate::claim`]: a token, its length, the
//!    exact alert), publishes it and marks it told; the others wait for that. When nothing is due, the rule is settled.
//!
//! A claim is on one step, and its alert's id is that step's: once the step is told, the claim is spent. Steps are told
//! in order, each once, and again only with the same id.
//!
//! A rule with a `threshold`, a `sequence` or `first_seen` is counted in the same way, and a tracker holds its events
//! one by one ([`episodes`]). The steps are of the key as a whole and stand in its *head*, an item beside those of the
//! buckets: each episode that is told is one step, and so is each that is only remembered.

mod episodes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use self::episodes::{DAY, Due, due, is_within, told_with};
pub use self::episodes::{Entry, Span, episodes, room_for_one};
use crate::alert::{EventKey, hex, shown};
use crate::claim::{Claim, ClaimToken, ClaimedAlert};
use crate::rules::{Correlation, Group, Severity, Threshold, value_at};

/// What the ids of items begin with that are not events.
pub const RESERVED_PREFIX: &str = "trailhound#";

/// Where the head of a key stands, beside its buckets.
const HEAD: &str = "head";

/// Rules of one event that are counted; a transaction takes a hundred items, and a correlation may need two. Rules beyond
/// that alert by themselves.
pub const MAX_TRACKERS: usize = 49;

/// Names, and addresses, that a tracker counts by themselves; those beyond are counted together.
pub const MAX_SLOTS: usize = 16;

/// What is shown of a value of a key.
const MAX_VALUE_CHARS: usize = 256;

/// The years that RFC 3339 can tell.
const EARLIEST: &str = "0000-01-01T00:00:00Z";
const LATEST: &str = "9999-12-31T23:59:59Z";

/// What a tracker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrackerKind {
    /// The events of a group, of one bucket.
    Group,
    /// The events of a key of a correlation, of one bucket; or that key's head.
    Correlation,
    /// The keys of a rule's correlation, of one bucket.
    Keys,
    /// When a rule with `first_seen` began.
    Since,
}

impl TrackerKind {
    const ALL: [Self; 4] = [Self::Group, Self::Correlation, Self::Keys, Self::Since];

    fn word(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Correlation => "correlation",
            Self::Keys => "keys",
            Self::Since => "since",
        }
    }
}

/// Names a tracker: `<32 hexadecimal digits>@<the bucket's start>`, behind `correlation:` and the like where it is not of a
/// group. Buckets of one rule and key differ in their start only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackerId {
    kind: TrackerKind,
    digest: String,
    from: String,
}

impl fmt::Display for TrackerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != TrackerKind::Group {
            write!(f, "{}:", self.kind.word())?;
        }
        write!(f, "{}@{}", self.digest, self.from)
    }
}

impl TrackerId {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let named = TrackerKind::ALL
            .into_iter()
            .find_map(|kind| Some((kind, text.strip_prefix(kind.word())?.strip_prefix(':')?)));
        let (kind, text) = named.unwrap_or((TrackerKind::Group, text));
        let (digest, from) = text.split_once('@')?;
        Some(Self { kind, digest: digest.to_owned(), from: from.to_owned() })
    }

    /// The key of the tracker's item.
    #[must_use]
    pub fn key(&self) -> EventKey {
        EventKey { event_id: self.partition(), timestamp: self.from.clone() }
    }

    /// What the buckets of a key, and its head, have in common.
    #[must_use]
    pub fn partition(&self) -> String {
        format!("{RESERVED_PREFIX}{}#{}", self.kind.word(), self.digest)
    }

    /// The tracker whose item has this key.
    #[must_use]
    pub fn of_key(key: &EventKey) -> Option<Self> {
        let (word, digest) = key.event_id.strip_prefix(RESERVED_PREFIX)?.split_once('#')?;
        let kind = TrackerKind::ALL.into_iter().find(|kind| kind.word() == word)?;
        Some(Self { kind, digest: digest.to_owned(), from: key.timestamp.clone() })
    }

    #[must_use]
    pub fn kind(&self) -> TrackerKind {
        self.kind
    }

    /// Where the steps stand and are claimed: the tracker itself, or its key's head.
    #[must_use]
    pub fn steps(&self) -> Self {
        match self.kind {
            TrackerKind::Correlation => Self { from: HEAD.to_owned(), ..self.clone() },
            _ => self.clone(),
        }
    }

    /// Of a correlation, in windows of so many seconds: the bucket before, this one, and the one after.
    #[must_use]
    pub fn neighbours(&self, window: u64) -> [Self; 3] {
        let moved = |by: i64| {
            let from = self.start().map_or_else(|| self.from.clone(), |start| rfc3339(start.saturating_add(by)));
            Self { from, ..self.clone() }
        };
        let window = signed(window);
        [moved(window.saturating_neg()), self.clone(), moved(window)]
    }

    /// The bucket's seconds, in a window of so many.
    fn span(&self, window: u64) -> Span {
        let from = self.start().unwrap_or_default();
        Span { from, to: from.saturating_add(signed(window).saturating_sub(1)) }
    }

    /// The bucket's first second, in RFC 3339.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The first second after the bucket, in RFC 3339, of a window of so many seconds.
    #[must_use]
    pub fn to(&self, window: u64) -> String {
        self.start().map_or_else(|| LATEST.to_owned(), |start| rfc3339(start.saturating_add(signed(window))))
    }

    /// The same key's bucket before, in a window of so many seconds.
    #[must_use]
    pub fn previous(&self, window: u64) -> Option<Self> {
        let from = rfc3339(self.start()?.saturating_sub(signed(window)));
        (from != self.from).then(|| Self { from, ..self.clone() })
    }

    /// One of so many lanes, always the same: the buckets of one key share it.
    #[must_use]
    pub fn lane(&self, of: usize) -> usize {
        let number = self.digest.get(..4).and_then(|digits| usize::from_str_radix(digits, 16).ok());
        number.unwrap_or(0).checked_rem(of).unwrap_or(0)
    }

    fn start(&self) -> Option<i64> {
        OffsetDateTime::parse(&self.from, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
    }

    /// The id of the alert that tells a step: 32 hexadecimal digits of a SHA-256.
    #[must_use]
    pub fn alert_id(&self, step: u64) -> String {
        digest(["step", &self.digest, &self.from, &step.to_string()])
    }
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn rfc3339(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = time.and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| if seconds < 0 { EARLIEST } else { LATEST }.to_owned())
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep one list of parts from reading as another.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hex(hash.finalize().get(..16).unwrap_or_default())
}

/// One value of a key, for people: its path, and the value where the record has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    pub path: String,
    pub value: Option<String>,
}

/// What an event is to a tracker: everything that counting it there takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub tracker: TrackerId,
    pub rule: String,
    pub key: Vec<KeyPart>,
    /// In seconds.
    pub window: u64,
    /// When the event happened, to the second, in RFC 3339 and UTC: text that sorts as time does.
    pub at: String,
    pub name: Option<String>,
    pub address: Option<String>,
    /// Of a rule with a correlation.
    pub sighting: Option<Sighting>,
}

/// What an event is to a correlation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub correlation: Correlation,
    pub entry: Entry,
    /// Where the keys of the rule are counted.
    pub keys: TrackerId,
}

/// Finds the tracker of a record that matched a rule with a correlation. `steps` are those of a sequence that it met.
#[must_use]
pub fn sighting(
    rule: &str,
    correlation: &Correlation,
    steps: &[u8],
    record: &[u8],
    event_id: &str,
    (at, name, address): (OffsetDateTime, Option<&str>, Option<&str>),
) -> Membership {
    let meaning = serde_json::to_string(correlation).unwrap_or_default();
    let group = Group { by: correlation.by().to_vec(), window: correlation.window().to_owned() };
    let mut member = membership(rule, &group, record, at, name, address);
    let of_rule = digest(["correlation", rule, &meaning]);
    let seconds = at.unix_timestamp();
    let bit = |step: &u8| 1_u8.checked_shl(u32::from(*step)).unwrap_or_default();
    let entry = match correlation {
        Correlation::FirstSeen(_) => {
            Entry { at: seconds.div_euclid(DAY).saturating_mul(DAY), steps: 0, id: String::new(), value: None }
        }
        _ => Entry {
            at: seconds,
            steps: steps.iter().map(bit).fold(0, |all, bit| all | bit),
            id: digest([event_id]).get(..12).unwrap_or_default().to_owned(),
            value: match correlation {
                Correlation::Threshold(Threshold { distinct: Some(path), .. }) => value_at(record, path)
                    .map(|value| digest([value.as_str()]).get(..16).unwrap_or_default().to_owned()),
                _ => None,
            },
        },
    };
    let from = member.tracker.from.clone();
    let key = digest([of_rule.as_str(), &member.tracker.digest]);
    member.tracker = TrackerId { kind: TrackerKind::Correlation, digest: key, from: from.clone() };
    let keys = TrackerId { kind: TrackerKind::Keys, digest: of_rule, from };
    member.sighting = Some(Sighting { correlation: correlation.clone(), entry, keys });
    member
}

/// Finds the tracker of a record that matched a rule with a group.
#[must_use]
pub fn membership(
    rule: &str,
    group: &Group,
    record: &[u8],
    at: OffsetDateTime,
    name: Option<&str>,
    address: Option<&str>,
) -> Membership {
    let window = group.seconds();
    let values: Vec<_> = group.by.iter().map(|path| (path, value_at(record, path))).collect();
    let seconds = window.to_string();
    let mut parts = vec!["group", rule, &seconds];
    for (path, value) in &values {
        parts.extend([path.as_str(), if value.is_some() { "is" } else { "absent" }, value.as_deref().unwrap_or("")]);
    }
    let at = at.to_offset(UtcOffset::UTC).unix_timestamp();
    let length = signed(window).max(1);
    let from = rfc3339(at.div_euclid(length).saturating_mul(length));
    let shown_value = |json: String| {
        let text = serde_json::from_str::<String>(&json).unwrap_or(json);
        shown(&text, MAX_VALUE_CHARS)
    };
    Membership {
        tracker: TrackerId { kind: TrackerKind::Group, digest: digest(parts), from },
        rule: rule.to_owned(),
        key: values
            .into_iter()
            .map(|(path, value)| KeyPart { path: path.clone(), value: value.map(shown_value) })
            .collect(),
        window,
        at: rfc3339(at),
        name: name.map(str::to_owned),
        address: address.map(str::to_owned),
        sighting: None,
    }
}

/// What a tracker holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackerState {
    pub rule: String,
    pub key: Vec<KeyPart>,
    /// In seconds.
    pub window: u64,
    /// Events.
    pub count: u64,
    /// Up to this count nothing is to be told: one less than the next step.
    pub quiet: u64,
    /// The earliest and the latest event's time, as [`Membership::at`].
    pub first: String,
    pub last: String,
    /// Events by name and by address; those beyond [`MAX_SLOTS`] as `*`.
    pub names: BTreeMap<String, u64>,
    pub addresses: BTreeMap<String, u64>,
    pub claim: Option<Claim>,
    /// Seconds since the epoch: when the item may go.
    pub expires: u64,
    /// Of a correlation.
    pub correlated: Option<Correlated>,
}

/// What the trackers of a correlation hold. One bucket has its entries, the head what was told and claimed; put together,
/// there are the entries of a bucket and its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlated {
    pub correlation: Correlation,
    pub entries: BTreeSet<Entry>,
    pub told: Vec<Span>,
    /// What is claimed.
    pub pending: Option<Span>,
    /// Of `first_seen`: when the rule's first key was seen, where that is known.
    pub since: Option<i64>,
    /// The rule's own trackers, of the same bucket.
    pub keys: TrackerId,
}

impl Correlated {
    /// Where it is written down when the rule began.
    #[must_use]
    pub fn since_at(&self) -> TrackerId {
        TrackerId { kind: TrackerKind::Since, digest: self.keys.digest.clone(), from: EARLIEST.to_owned() }
    }
}

/// Where names and addresses beyond [`MAX_SLOTS`] are counted.
pub const OTHERS: &str = "*";

impl TrackerState {
    /// The next count that is told.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.quiet.saturating_add(1)
    }

    /// Whether a step was reached that is not told yet.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.count > self.quiet
    }
}

/// Up to which count nothing is to be told once this step was.
#[must_use]
pub fn quiet_after(step: u64) -> u64 {
    step.saturating_mul(10).saturating_sub(1)
}

/// What counting an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountKind {
    /// It is the first of its bucket.
    Opening,
    /// It reaches a step, or one is due.
    Loud,
    /// It reaches no step. That holds for as long as the count is below [`TrackerState::quiet`].
    Quiet,
    /// Of a correlation: it is beyond a limit, and not counted.
    Excess,
}

/// How an event is counted in one tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub membership: Membership,
    pub kind: CountKind,
    /// The entries of names and addresses that it counts in.
    pub name: Option<String>,
    pub address: Option<String>,
    /// It is earlier than all, or later.
    pub is_first: bool,
    pub is_last: bool,
}

impl Count {
    /// Decides how an event is counted in a tracker, `None` where there is none yet.
    #[must_use]
    pub fn decide(state: Option<&TrackerState>, membership: &Membership) -> Self {
        let slot = |wanted: &Option<String>, of: fn(&TrackerState) -> &BTreeMap<String, u64>| {
            let wanted = wanted.as_ref().filter(|text| !text.is_empty())?;
            let full = state.map(of).is_some_and(|there| !there.contains_key(wanted) && there.len() >= MAX_SLOTS);
            Some(if full { OTHERS.to_owned() } else { wanted.clone() })
        };
        Self {
            kind: match state {
                None => CountKind::Opening,
                Some(state) if state.count < state.quiet => CountKind::Quiet,
                Some(_) => CountKind::Loud,
            },
            name: slot(&membership.name, |state| &state.names),
            address: slot(&membership.address, |state| &state.addresses),
            is_first: state.is_none_or(|state| membership.at < state.first),
            is_last: state.is_none_or(|state| membership.at > state.last),
            membership: membership.clone(),
        }
    }

    /// Decides how an event is counted in its tracker, which is among these if it is known.
    #[must_use]
    pub fn decide_among(trackers: &BTreeMap<TrackerId, TrackerState>, membership: &Membership) -> Self {
        let state = trackers.get(&membership.tracker);
        let mut count = Self::decide(state, membership);
        if let Some(sighting) = &membership.sighting {
            let limits = sighting.correlation.limits();
            let is_full = |state: &TrackerState, limit: u32| state.count >= u64::from(limit);
            let told = |state: &TrackerState| {
                let mut there = state.correlated.iter();
                there.any(|there| is_within(&sighting.correlation, &there.told, sighting.entry.at))
            };
            count.kind = match state {
                None if trackers.get(&sighting.keys).is_some_and(|keys| is_full(keys, limits.max_keys)) => {
                    CountKind::Excess
                }
                None => CountKind::Opening,
                Some(state) if sighting.has_event_limit() && is_full(state, limits.max_events) => CountKind::Excess,
                // An episode with it is one that was told, whatever else comes.
                Some(state) if told(state) => CountKind::Quiet,
                Some(_) => CountKind::Loud,
            };
        }
        count
    }

    /// The tracker after it.
    #[must_use]
    pub fn applied(&self, before: Option<TrackerState>) -> TrackerState {
        let Membership { rule, key, window, at, sighting, .. } = &self.membership;
        let mut state = before.unwrap_or_else(|| TrackerState {
            rule: rule.clone(),
            key: key.clone(),
            window: *window,
            correlated: sighting.as_ref().map(Sighting::opened),
            ..TrackerState::default()
        });
        state.count = state.count.saturating_add(1);
        if let (Some(sighting), Some(correlated)) = (sighting, &mut state.correlated) {
            correlated.entries.insert(sighting.entry.clone());
        }
        if self.is_first {
            state.first.clone_from(at);
        }
        if self.is_last {
            state.last.clone_from(at);
        }
        for (slot, all) in [(&self.name, &mut state.names), (&self.address, &mut state.addresses)] {
            if let Some(slot) = slot {
                *all.entry(slot.clone()).or_default() += 1;
            }
        }
        state
    }
}

impl Sighting {
    /// Days are few: who comes every day has no more of them than the window is long.
    #[must_use]
    pub fn has_event_limit(&self) -> bool {
        !matches!(self.correlation, Correlation::FirstSeen(_))
    }

    fn opened(&self) -> Correlated {
        Correlated {
            correlation: self.correlation.clone(),
            entries: BTreeSet::new(),
            told: Vec::new(),
            pending: None,
            since: None,
            keys: self.keys.clone(),
        }
    }
}

/// A tracker of a correlation as a whole: its bucket with the entries of the neighbours, and what the head says. `None`
/// where the bucket is not there.
#[must_use]
pub fn whole(id: &TrackerId, of: impl Fn(&TrackerId) -> Option<TrackerState>) -> Option<TrackerState> {
    let mut state = of(id)?;
    let window = state.window;
    let correlated = state.correlated.as_mut()?;
    for neighbour in id.neighbours(window).iter().filter(|neighbour| *neighbour != id) {
        let Some(other) = of(neighbour) else { continue };
        correlated.entries.extend(other.correlated.into_iter().flat_map(|other| other.entries));
        for (all, more) in [(&mut state.names, other.names), (&mut state.addresses, other.addresses)] {
            for (name, count) in more {
                let slot = all.entry(name).or_default();
                *slot = slot.saturating_add(count);
            }
        }
    }
    if let Some(head) = of(&id.steps()) {
        state.quiet = head.quiet;
        state.claim = head.claim;
        if let Some(head) = head.correlated {
            correlated.told = head.told;
            correlated.pending = head.pending;
        }
    }
    correlated.since = of(&correlated.since_at()).and_then(|state| state.correlated?.since);
    Some(state)
}

/// Of a correlation: the bucket at which to look for what is claimed, where that is not this one. Who takes a claim over may
/// have come for another bucket of the key.
#[must_use]
pub fn elsewhere(id: &TrackerId, state: &TrackerState) -> Option<TrackerId> {
    let correlated = state.correlated.as_ref()?;
    let pending = correlated.pending?;
    let [before, _, after] = id.neighbours(state.window).map(|id| id.span(state.window));
    let (at, to) = match correlated.correlation {
        // What was seen is known for longer than there are events of it.
        Correlation::FirstSeen(_) => (pending.from, pending.from),
        _ => (pending.from.midpoint(pending.to), pending.to),
    };
    if before.from <= pending.from && to <= after.to {
        return None;
    }
    let length = signed(state.window).max(1);
    Some(TrackerId { from: rfc3339(at.div_euclid(length).saturating_mul(length)), ..id.clone() })
}

/// What the caller of [`crate::ports::AlertStore::cross`] brings.
#[derive(Clone, Copy, Debug)]
pub struct CrossAttempt<'a> {
    pub tracker: &'a TrackerId,
    /// Whose rule's events it counts, and how grave that is.
    pub rule: &'a str,
    pub severity: Severity,
    pub token: &'a ClaimToken,
    pub length: Duration,
    pub expired: Option<&'a ClaimToken>,
}

/// A step that is the caller's to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    pub tracker: TrackerId,
    pub step: u64,
    pub claim: Claim,
    /// The tracker as it was claimed.
    pub state: TrackerState,
    /// Of a first step: how many events the bucket before held; none where there was no such bucket.
    pub previous: Option<u64>,
}

/// The answer of [`crate::ports::AlertStore::cross`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crossed {
    /// Every step that was reached is told.
    Clear,
    /// The step is the caller's: publish exactly the claim's alert, then mark it.
    Claimed(Box<Crossing>),
    /// Somebody else is at it.
    Held(Claim),
}

/// What to do about a tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrossDecision {
    /// Nothing to write.
    Clear,
    /// Nothing to write: this claim is the caller's already.
    Claimed(Claim),
    /// Nothing to write.
    Held(Claim),
    /// Write this claim, if `Quiet` and `Claim` are as they were seen; of a correlation, on this span.
    Write(Claim, Option<Span>),
    /// Of a correlation: write that this is told, as one step more, if `Quiet` is as it was seen. Then decide again.
    Remember(Vec<Span>),
    /// Of `first_seen`: write that the rule began then, if it did not before. Then decide again.
    Begin(i64),
}

/// Decides who tells the next step of a tracker, `None` where there is none.
#[must_use]
pub fn decide_crossing(state: Option<&TrackerState>, attempt: CrossAttempt<'_>) -> CrossDecision {
    if let Some(state) = state
        && let Some(correlated) = &state.correlated
    {
        return decide_telling(state, correlated, attempt);
    }
    let Some(state) = state.filter(|state| state.is_due()) else { return CrossDecision::Clear };
    let alert_id = attempt.tracker.alert_id(state.step());
    // A claim on another step is spent: that step was told.
    let live = state.claim.as_ref().filter(|claim| claim.alert.alert_id == alert_id);
    let alert = match live {
        Some(claim) if claim.token == *attempt.token => return CrossDecision::Claimed(claim.clone()),
        Some(claim) if attempt.expired != Some(&claim.token) => return CrossDecision::Held(claim.clone()),
        Some(claim) => claim.alert.clone(),
        None => ClaimedAlert { alert_id, rules: [attempt.rule.to_owned()].into(), severity: attempt.severity },
    };
    CrossDecision::Write(Claim { token: attempt.token.clone(), length: attempt.length, alert }, None)
}

/// Decides who tells what is due in a bucket of a correlation.
fn decide_telling(state: &TrackerState, correlated: &Correlated, attempt: CrossAttempt<'_>) -> CrossDecision {
    let Correlated { correlation, entries, told, pending, since, .. } = correlated;
    let alert_id = attempt.tracker.steps().alert_id(state.step());
    let claim = |alert: ClaimedAlert, span: Option<Span>| {
        CrossDecision::Write(Claim { token: attempt.token.clone(), length: attempt.length, alert }, span)
    };
    let live = state.claim.as_ref().filter(|claim| claim.alert.alert_id == alert_id);
    if let Some(mine) = live.filter(|claim| claim.token == *attempt.token) {
        return CrossDecision::Claimed(mine.clone());
    }
    let due = due(correlation, entries, told, attempt.tracker.span(state.window));
    if due == Due::Nothing {
        return CrossDecision::Clear;
    }
    // One step of a key after another: what is told decides what is due.
    match live {
        Some(theirs) if attempt.expired != Some(&theirs.token) => return CrossDecision::Held(theirs.clone()),
        Some(theirs) => return claim(theirs.alert.clone(), *pending),
        None => {}
    }
    let episode = match due {
        Due::Nothing => return CrossDecision::Clear,
        Due::Remember(episode) => return CrossDecision::Remember(told_with(told, episode)),
        Due::Tell(episode) => episode,
    };
    if let Correlation::FirstSeen(_) = correlation {
        match since {
            Some(since) if *since <= episode.from => {
                // It is still learning who is usual.
                if episode.from < since.saturating_add(signed(state.window)) {
                    return CrossDecision::Remember(told_with(told, episode));
                }
            }
            _ => return CrossDecision::Begin(episode.from),
        }
    }
    let alert = ClaimedAlert { alert_id, rules: [attempt.rule.to_owned()].into(), severity: attempt.severity };
    claim(alert, Some(episode))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn group(by: &[&str], window: &str) -> Group {
        Group { by: by.iter().map(ToString::to_string).collect(), window: window.to_owned() }
    }

    fn of(group: &Group, record: &str, at: OffsetDateTime) -> Membership {
        membership("r", group, record.as_bytes(), at, Some("StopLogging"), Some("203.0.113.7"))
    }

    fn id(by: &[&str], record: &str) -> TrackerId {
        of(&group(by, "1h"), record, datetime!(2024-05-01 12:34:56 UTC)).tracker
    }

    fn member(at: &str, name: &str) -> Membership {
        Membership {
            tracker: TrackerId {
                kind: TrackerKind::Group,
                digest: "d".repeat(32),
                from: "2024-05-01T12:00:00Z".to_owned(),
            },
            rule: "r".to_owned(),
            key: Vec::new(),
            window: 3600,
            at: at.to_owned(),
            name: Some(name.to_owned()),
            address: None,
            sighting: None,
        }
    }

    #[test]
    fn buckets_are_aligned_to_the_epoch() {
        let from = |window: &str, at| of(&group(&["a"], window), "{}", at).tracker.from().to_owned();
        let at = datetime!(2024-05-01 12:34:56.789 UTC);
        assert_eq!(from("1h", at), "2024-05-01T12:00:00Z");
        assert_eq!(from("15m", at), "2024-05-01T12:30:00Z");
        assert_eq!(from("1d", at), "2024-05-01T00:00:00Z");
        assert_eq!(from("7d", at), "2024-04-25T00:00:00Z", "a Thursday, like the epoch");
        assert_eq!(from("1s", at), "2024-05-01T12:34:56Z");
        assert_eq!(from("1h", datetime!(2024-05-01 14:34 +2)), "2024-05-01T12:00:00Z");
        assert_eq!(from("1h", datetime!(1969-12-31 23:59:59 UTC)), "1969-12-31T23:00:00Z");
        // Longer than all of time.
        assert_eq!(from("999999d", datetime!(1969-12-31 23:59:59 UTC)), EARLIEST);
    }

    #[test]
    fn a_bucket_knows_its_neighbours() {
        let member = of(&group(&["a"], "1h"), "{}", datetime!(2024-05-01 12:34:56 UTC));
        assert_eq!(member.tracker.to(3600), "2024-05-01T13:00:00Z");
        let before = member.tracker.previous(3600).unwrap();
        let at = datetime!(2024-05-01 11:00 UTC);
        assert_eq!(before, of(&group(&["a"], "1h"), "{}", at).tracker, "one key, another bucket");
        let ends = TrackerId { kind: TrackerKind::Group, digest: String::new(), from: EARLIEST.to_owned() };
        assert_eq!(ends.previous(3600), None);
        assert_eq!(TrackerId { from: LATEST.to_owned(), ..ends }.to(3600), LATEST);
    }

    #[test]
    fn an_id_is_its_text_and_its_item() {
        let id = id(&["a"], "{}");
        assert_eq!(TrackerId::read(&id.to_string()), Some(id.clone()));
        assert_eq!(TrackerId::of_key(&id.key()), Some(id.clone()));
        assert!(id.key().event_id.starts_with(RESERVED_PREFIX) && id.key().event_id.len() < 64);
        assert_eq!(TrackerId::of_key(&EventKey { event_id: "e".to_owned(), timestamp: String::new() }), None);
    }

    #[test]
    fn a_key_is_what_the_record_says_at_its_paths() {
        let by = &["userIdentity.arn"][..];
        let alice = id(by, r#"{"userIdentity":{"arn":"alice"}}"#);
        assert_eq!(id(by, r#"{ "x": 1, "userIdentity": {"arn": "\u0061lice"}}"#), alice);
        assert_eq!(id(by, r#"{"userIdentity.arn":"alice"}"#), alice, "names with dots, as conditions read them");
        let others = [
            r#"{"userIdentity":{"arn":"bob"}}"#,
            r#"{"userIdentity":{"arn":""}}"#,
            r#"{"userIdentity":{"arn":["alice","bob"]}}"#,
            r#"{"userIdentity":{"arn":{"a":"alice"}}}"#,
            r#"{"userIdentity":{"arn":7}}"#,
            "{}",
        ];
        let mut all: Vec<_> = others.iter().map(|record| id(by, record)).collect();
        all.push(alice);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
        assert_eq!(id(by, r#"{"userIdentity":null}"#), id(by, "{}"), "null reads as absent");
        assert_eq!(id(by, r#"{"userIdentity":{"arn":null}}"#), id(by, "{}"));
        // Which path a value stands at matters.
        assert_ne!(id(&["a", "b"], r#"{"a":"x"}"#), id(&["a", "b"], r#"{"b":"x"}"#));
        // Each rule and window has its own.
        let at = datetime!(2024-05-01 12:00 UTC);
        assert_ne!(of(&group(by, "1h"), "{}", at).tracker, of(&group(by, "2h"), "{}", at).tracker);
        assert_ne!(membership("q", &group(by, "1h"), b"{}", at, None, None).tracker, id(by, "{}"));
    }

    #[test]
    fn a_key_is_shown_within_bounds() {
        let long = format!(r#"{{"a":"{}","b":[1,"x\n"]}}"#, "y".repeat(5000));
        let key = of(&group(&["a", "b", "c"], "1h"), &long, datetime!(2024-05-01 12:00 UTC)).key;
        let values: Vec<_> = key.iter().map(|part| part.value.as_deref()).collect();
        assert_eq!(values[0].unwrap().chars().count(), MAX_VALUE_CHARS);
        assert_eq!(&values[1..], [Some(r#"[1,"x\\n"]"#).map(|text| text.replace("\\\\", "\\")).as_deref(), None]);
    }

    #[test]
    fn names_beyond_the_limit_are_counted_together() {
        let mut state = None;
        for number in 0..40 {
            for _ in 0..2 {
                let member = member("2024-05-01T12:00:00Z", &format!("Name{number}"));
                let count = Count::decide(state.as_ref(), &member);
                state = Some(count.applied(state));
            }
        }
        let state = state.unwrap();
        assert_eq!((state.count, state.names.len()), (80, MAX_SLOTS + 1));
        assert_eq!((state.names["Name15"], state.names[OTHERS]), (2, 48));
    }

    fn crossing(state: Option<&TrackerState>, token: &str, expired: Option<&str>) -> CrossDecision {
        let tracker = member("", "").tracker;
        let (token, expired) = (ClaimToken(token.to_owned()), expired.map(|text| ClaimToken(text.to_owned())));
        let attempt = CrossAttempt {
            tracker: &tracker,
            rule: "r",
            severity: Severity::High,
            token: &token,
            length: LENGTH,
            expired: expired.as_ref(),
        };
        decide_crossing(state, attempt)
    }

    #[test]
    fn one_claims_a_step_that_is_due_and_others_wait_or_take_over() {
        let mut state = TrackerState { count: 12, quiet: 0, ..TrackerState::default() };
        let CrossDecision::Write(first, None) = crossing(Some(&state), "a", None) else { panic!() };
        assert_eq!(first.alert.alert_id, member("", "").tracker.alert_id(1));
        state.claim = Some(first.clone());
        assert_eq!(crossing(Some(&state), "a", None), CrossDecision::Claimed(first.clone()), "a lost answer");
        assert_eq!(crossing(Some(&state), "b", None), CrossDecision::Held(first.clone()));
        assert_eq!(crossing(Some(&state), "b", Some("z")), CrossDecision::Held(first.clone()));
        let CrossDecision::Write(taken, None) = crossing(Some(&state), "b", Some("a")) else { panic!() };
        assert_eq!((&taken.alert, taken.token.0.as_str()), (&first.alert, "b"));
        // Told: the claim is spent, and the next step is due already.
        state.quiet = quiet_after(1);
        let CrossDecision::Write(second, None) = crossing(Some(&state), "b", None) else { panic!() };
        assert_eq!(second.alert.alert_id, member("", "").tracker.alert_id(10));
        state.quiet = quiet_after(10);
        assert_eq!(crossing(Some(&state), "b", None), CrossDecision::Clear);
        assert_eq!(crossing(None, "b", None), CrossDecision::Clear);
    }

    proptest! {
        /// Quiet counts never reach a step, and the steps that are told are those that the count reached.
        #[test]
        fn the_steps_are_the_powers_of_ten(late in prop::collection::vec(any::<bool>(), 1..1500)) {
            let (mut state, mut told) = (None::<TrackerState>, Vec::new());
            let tell = |state: &mut Option<TrackerState>, told: &mut Vec<u64>| {
                while let Some(due) = state.as_mut().filter(|it| it.is_due()) {
                    told.push(due.step());
                    due.quiet = quiet_after(due.step());
                }
            };
            for is_late in &late {
                let count = Count::decide(state.as_ref(), &member("2024-05-01T12:00:00Z", "n"));
                let quiet = count.kind == CountKind::Quiet;
                state = Some(count.applied(state));
                prop_assert!(!(quiet && state.as_ref().unwrap().is_due()));
                if !is_late {
                    tell(&mut state, &mut told);
                }
            }
            tell(&mut state, &mut told);
            let count = late.len();
            let powers: Vec<u64> = (0..5).map(|power| 10_u64.pow(power)).filter(|step| *step <= count as u64).collect();
            prop_assert_eq!(told, powers);
        }

        #[test]
        fn the_first_and_the_last_are_exact_in_any_order(minutes in prop::collection::vec(0..60_u32, 1..40)) {
            let mut state = None;
            for minute in &minutes {
                let count = Count::decide(state.as_ref(), &member(&format!("2024-05-01T12:{minute:02}:00Z"), "n"));
                state = Some(count.applied(state));
            }
            let state = state.unwrap();
            prop_assert_eq!(state.first, format!("2024-05-01T12:{:02}:00Z", minutes.iter().min().unwrap()));
            prop_assert_eq!(state.last, format!("2024-05-01T12:{:02}:00Z", minutes.iter().max().unwrap()));
        }
    }
}
