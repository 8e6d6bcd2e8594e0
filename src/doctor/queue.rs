//! The queue, its dead-letter queue, and who may send to it.

use serde_json::{Map, Value, json};

use super::key::{self, KeyFacts};
use super::policy::{Principal, Request, Verdict, evaluate};
use super::{Arn, Finding, Looked, in_region, plural, quoted, span};

const QUEUE: &str = "queue";
const VISIBILITY: &str = "queue-visibility";
const POLL: &str = "queue-poll";
const RETENTION: &str = "queue-retention";
const ENCRYPTION: &str = "queue-key";
const REDRIVE: &str = "queue-redrive";
const DEAD: &str = "dead-letters";
const DEAD_RETENTION: &str = "dead-letters-retention";
const POLICY: &str = "queue-policy";

const SEND: &str = "sqs:SendMessage";

/// Below this a heartbeat that is late by one call loses the message.
const SHORT_VISIBILITY: u64 = 30;

/// A long weekend.
const MIN_RETENTION: u64 = 4 * 86_400;

/// Fewer receives than this and a deployment or two make a dead letter of a good message.
const FEW_RECEIVES: u64 = 3;

/// What the queue that we deploy allows.
const DEPLOYED_RECEIVES: u64 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    pub url: String,
    pub arn: String,
    /// Seconds.
    pub visibility: u64,
    /// Seconds.
    pub retention: u64,
    pub visible: u64,
    pub in_flight: u64,
    pub encryption: Encryption,
    /// The attribute's JSON.
    pub redrive_policy: Option<String>,
    /// The attribute's JSON.
    pub policy: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    None,
    /// With SQS's own keys.
    Sqs,
    /// With a key of KMS: its id, ARN or alias, and what it is.
    Kms {
        id: String,
        key: Looked<KeyFacts>,
    },
}

/// The attribute `RedrivePolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    pub target_arn: String,
    pub max_receive_count: u64,
}

impl Redrive {
    /// Reads the attribute; AWS takes the number as a text too.
    #[must_use]
    pub fn parse(policy: &str) -> Option<Self> {
        let policy: Value = serde_json::from_str(policy).ok()?;
        let count = policy.get("maxReceiveCount")?;
        Some(Self {
            target_arn: policy.get("deadLetterTargetArn")?.as_str()?.to_owned(),
            max_receive_count: count.as_u64().or_else(|| count.as_str()?.parse().ok())?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterFacts {
    pub url: String,
    /// Seconds.
    pub retention: u64,
    pub visible: u64,
    pub in_flight: u64,
}

/// What the configuration asks of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// `queue.wait`, in seconds.
    pub wait: u64,
    /// `queue.visibility`, in seconds.
    pub visibility: Option<u64>,
}

/// Who sends to the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    Bucket {
        name: String,
        /// The account that it belongs to, where that is known.
        owner: Option<String>,
    },
    /// By its ARN.
    Topic(String),
    EventBridge,
}

impl Sender {
    fn service(&self) -> &'static str {
        match self {
            Self::Bucket { .. } => "s3.amazonaws.com",
            Self::Topic(_) => "sns.amazonaws.com",
            Self::EventBridge => "events.amazonaws.com",
        }
    }

    fn arn(&self, partition: &str) -> Option<String> {
        match self {
            Self::Bucket { name, .. } => Some(format!("arn:{partition}:s3:::{name}")),
            Self::Topic(arn) => Some(arn.clone()),
            Self::EventBridge => None,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Bucket { name, .. } => name,
            Self::Topic(arn) => arn,
            Self::EventBridge => "EventBridge",
        }
    }

    /// What the request of this sender says, for a policy.
    fn with_context<T>(&self, partition: &str, then: impl FnOnce(&[(&str, Option<&str>)]) -> T) -> T {
        let arn = self.arn(partition);
        let account = match self {
            Self::Bucket { owner, .. } => owner.as_deref(),
            Self::Topic(arn) => Arn::parse(arn).map(|arn| arn.account),
            Self::EventBridge => None,
        };
        let mut context = vec![
            ("aws:SecureTransport", Some("true")),
            ("aws:PrincipalIsAWSService", Some("true")),
            ("aws:PrincipalServiceName", Some(self.service())),
            ("aws:ViaAWSService", Some("false")),
        ];
        // A service asks for itself: it has none of what identities and networks have.
        context.extend(
            ["aws:PrincipalOrgID", "aws:PrincipalArn", "aws:PrincipalAccount", "aws:SourceVpc", "aws:SourceVpce"]
                .map(|key| (key, None)),
        );
        context.extend(arn.as_deref().map(|arn| ("aws:SourceArn", Some(arn))));
        context.extend(account.map(|account| ("aws:SourceAccount", Some(account))));
        then(&context)
    }
}

/// The queue itself. `dead` is what its redrive policy names.
#[must_use]
pub fn queue(facts: &Looked<QueueFacts>, dead: Option<&Looked<DeadLetterFacts>>, wants: Wants) -> Vec<Finding> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(unknown) => {
            let mut findings = vec![Finding::unknown(QUEUE, unknown)];
            findings.extend(
                [VISIBILITY, RETENTION, ENCRYPTION, REDRIVE, DEAD, POLICY]
                    .map(|check| Finding::skipped(check, "the queue's attributes are not known")),
            );
            return findings;
        }
    };
    let mut findings = vec![exists(facts), visibility(facts, wants), poll(wants), retention(facts), encryption(facts)];
    findings.extend(redrive(facts, dead));
    findings
}

fn exists(facts: &QueueFacts) -> Finding {
    if is_fifo(facts) {
        return Finding::problem(
            QUEUE,
            format!("{} is a FIFO queue, which no bucket and no standard topic can send to", facts.arn),
            "make a standard queue: trailhound needs no order, and takes each event once anyway",
        );
    }
    let (waiting, held) = (plural(facts.visible, "message"), facts.in_flight);
    Finding::ok(QUEUE, format!("{}; {waiting} waiting, {held} in work", facts.arn))
}

fn is_fifo(facts: &QueueFacts) -> bool {
    facts.arn.strip_suffix(".fifo").is_some()
}

fn set(facts: &QueueFacts, name: &str, value: &str) -> String {
    let attributes = json!({ name: value }).to_string();
    let (url, attributes, region) = (quoted(&facts.url), quoted(&attributes), in_region(&facts.arn));
    format!("aws sqs set-queue-attributes --queue-url {url} --attributes {attributes}{region}")
}

fn visibility(facts: &QueueFacts, wants: Wants) -> Finding {
    let (seconds, whose) = match wants.visibility {
        Some(seconds) => (seconds, "queue.visibility of the configuration"),
        None => (facts.visibility, "the queue's own"),
    };
    if seconds < SHORT_VISIBILITY {
        return Finding::warning(
            VISIBILITY,
            format!("messages come back after {} unless the heartbeat is in time ({whose})", span(seconds)),
            set(facts, "VisibilityTimeout", "120"),
        );
    }
    Finding::ok(VISIBILITY, format!("{} ({whose}); the heartbeat extends it", span(seconds)))
}

/// The daemon says with each receive how long to wait: the queue's own setting means nothing.
fn poll(wants: Wants) -> Finding {
    if wants.wait == 0 {
        return Finding::warning(
            POLL,
            "queue.wait is 0: the daemon asks over and over, and pays for each request",
            "set queue.wait to \"20s\"",
        );
    }
    Finding::ok(POLL, format!("long polls of {} (queue.wait)", span(wants.wait)))
}

fn retention(facts: &QueueFacts) -> Finding {
    if facts.retention < MIN_RETENTION {
        return Finding::warning(
            RETENTION,
            format!("messages are lost after {}: an outage may take longer", span(facts.retention)),
            set(facts, "MessageRetentionPeriod", "604800"),
        );
    }
    Finding::ok(RETENTION, format!("messages are kept for {}", span(facts.retention)))
}

fn encryption(facts: &QueueFacts) -> Finding {
    let Encryption::Kms { id, key } = &facts.encryption else {
        return match facts.encryption {
            Encryption::Sqs => Finding::ok(ENCRYPTION, "encrypted with SQS's own keys"),
            _ => Finding::warning(ENCRYPTION, "the queue is not encrypted", set(facts, "SqsManagedSseEnabled", "true")),
        };
    };
    let managed = id.ends_with("alias/aws/sqs") || key.as_ref().is_ok_and(|key| key.managed);
    if managed {
        return Finding::problem(
            ENCRYPTION,
            format!(
                "encrypted with AWS's key {id}, whose policy lets neither S3 nor EventBridge nor SNS in: nothing arrives"
            ),
            set(facts, "SqsManagedSseEnabled", "true"),
        );
    }
    key::works(ENCRYPTION, key)
}

fn redrive(facts: &QueueFacts, dead: Option<&Looked<DeadLetterFacts>>) -> Vec<Finding> {
    let example = json!({
        "deadLetterTargetArn": format!("{}-dead-letters", facts.arn),
        "maxReceiveCount": DEPLOYED_RECEIVES,
    });
    let mend = set(facts, "RedrivePolicy", &example.to_string());
    let redrive = match facts.redrive_policy.as_deref().map(Redrive::parse) {
        Some(Some(redrive)) => redrive,
        read => {
            let found = if read.is_some() { "its redrive policy cannot be read" } else { "it has no redrive policy" };
            let found = format!("{found}: a message that cannot be read comes back until it is lost");
            return vec![
                Finding::problem(REDRIVE, found, format!("make a dead-letter queue, then: {mend}")),
                Finding::skipped(DEAD, "no redrive policy names a dead-letter queue"),
            ];
        }
    };
    let Redrive { target_arn, max_receive_count } = redrive;
    let receives = plural(max_receive_count, "receive");
    let first = if max_receive_count < FEW_RECEIVES {
        let policy = json!({ "deadLetterTargetArn": target_arn, "maxReceiveCount": DEPLOYED_RECEIVES });
        Finding::warning(
            REDRIVE,
            format!("{receives} make a dead letter: a process that dies once or twice loses good messages that way"),
            set(facts, "RedrivePolicy", &policy.to_string()),
        )
    } else {
        Finding::ok(REDRIVE, format!("after {receives} to {target_arn}"))
    };
    let mut findings = vec![first];
    match dead {
        None => findings.push(Finding::skipped(DEAD, "nobody looked")),
        Some(Err(unknown)) => findings.push(Finding::unknown(DEAD, unknown).on(&target_arn)),
        Some(Ok(dead)) => {
            let count = dead.visible.saturating_add(dead.in_flight);
            findings.push(if count == 0 {
                Finding::ok(DEAD, format!("{target_arn} is empty"))
            } else {
                let records = "the records in what they name were not evaluated";
                let found = format!("{} in {target_arn}: {records}", plural(count, "message"));
                Finding::warning(DEAD, found, "trailhound dlq why")
            });
            if dead.retention <= facts.retention {
                let (kept, queue) = (span(dead.retention), span(facts.retention));
                let found = format!(
                    "dead letters are lost {kept} after they were first sent, which is not longer than on the queue ({queue})"
                );
                let command = format!(
                    "aws sqs set-queue-attributes --queue-url {} --attributes MessageRetentionPeriod=1209600{}",
                    quoted(&dead.url),
                    in_region(&target_arn)
                );
                findings.push(Finding::warning(DEAD_RETENTION, found, command));
            } else {
                findings
                    .push(Finding::ok(DEAD_RETENTION, format!("dead letters are kept for {}", span(dead.retention))));
            }
        }
    }
    findings
}

/// Whether a sender may send: by the queue's policy, and by that of the key.
#[must_use]
pub fn sender(facts: &QueueFacts, sender: &Sender) -> Vec<Finding> {
    let partition = Arn::parse(&facts.arn).map_or("aws", |arn| arn.partition);
    let mut findings = vec![may_send(facts, sender, partition).on(sender.name())];
    if let Encryption::Kms { key: Ok(key), .. } = &facts.encryption
        && !key.managed
    {
        let service = sender.service();
        let usable = sender.with_context(partition, |context| key::lets_in(ENCRYPTION, key, service, context));
        findings.extend(usable.map(|finding| finding.on(sender.name())));
    }
    findings
}

fn may_send(facts: &QueueFacts, sender: &Sender, partition: &str) -> Finding {
    let service = sender.service();
    let statement = statement(facts, sender, partition);
    let Some(policy) = facts.policy.as_deref().filter(|policy| !policy.trim().is_empty()) else {
        let policy = json!({ "Version": "2012-10-17", "Statement": [statement] });
        let found = format!("the queue has no policy: {service} may not send");
        return Finding::problem(POLICY, found, set(facts, "Policy", &policy.to_string()));
    };
    let mend = format!("add to the queue's policy: {statement}");
    let verdict = sender.with_context(partition, |context| {
        let request = Request { principal: Principal::Service(service), action: SEND, resource: &facts.arn, context };
        evaluate(policy, &request)
    });
    match verdict {
        Err(why) => Finding::problem(POLICY, why, mend),
        Ok(Verdict::NotAllowed(near)) => {
            let near = if near.is_empty() { "no statement names it".to_owned() } else { near.join("; ") };
            Finding::problem(POLICY, format!("{service} may not send for {}: {near}", sender.name()), mend)
        }
        Ok(Verdict::Denied(statement)) => Finding::problem(
            POLICY,
            format!("{statement} denies {service} to send for {}", sender.name()),
            "except the service from that statement: \"Bool\": {\"aws:PrincipalIsAWSService\": \"false\"} as one more condition",
        ),
        Ok(Verdict::Unclear(why)) => {
            Finding::warning(POLICY, format!("{service} may send for {} if: {why}", sender.name()), mend)
        }
        Ok(Verdict::Allowed) => Finding::ok(POLICY, format!("{service} may send for {}", sender.name())),
    }
}

/// The statement that lets a sender in, and nobody else.
fn statement(facts: &QueueFacts, sender: &Sender, partition: &str) -> Value {
    let mut condition = Map::new();
    if let Some(arn) = sender.arn(partition) {
        condition.insert("ArnEquals".to_owned(), json!({ "aws:SourceArn": arn }));
    }
    match sender {
        Sender::Bucket { owner: Some(owner), .. } => {
            condition.insert("StringEquals".to_owned(), json!({ "aws:SourceAccount": owner }));
        }
        Sender::EventBridge => {
            let rules = match Arn::parse(&facts.arn) {
                Some(Arn { region, account, .. }) => format!("arn:{partition}:events:{region}:{account}:rule/*"),
                None => format!("arn:{partition}:events:*:*:rule/*"),
            };
            condition.insert("ArnLike".to_owned(), json!({ "aws:SourceArn": rules }));
        }
        _ => {}
    }
    json!({
        "Effect": "Allow",
        "Principal": { "Service": sender.service() },
        "Action": SEND,
        "Resource": facts.arn,
        "Condition": condition,
    })
}

/// Whether strangers may send: whoever can write to the queue chooses what is read.
#[must_use]
pub fn strangers(facts: &QueueFacts) -> Option<Finding> {
    const OPEN: &str = "queue-open";
    let policy = facts.policy.as_deref()?;
    let may = |principal, context: &[(&str, Option<&str>)]| {
        let request = Request { principal, action: SEND, resource: &facts.arn, context };
        evaluate(policy, &request) == Ok(Verdict::Allowed)
    };
    let foreign = [
        ("aws:SecureTransport", Some("true")),
        ("aws:SourceArn", None),
        ("aws:SourceAccount", None),
        ("aws:PrincipalOrgID", None),
        ("aws:PrincipalAccount", Some("stranger")),
        ("aws:PrincipalArn", Some("arn:aws:iam::stranger:root")),
        ("aws:PrincipalIsAWSService", Some("false")),
    ];
    if may(Principal::Stranger, &foreign) {
        return Some(Finding::warning(
            OPEN,
            "anybody may send to the queue, and so choose what the daemon reads",
            "name the senders in the queue's policy: a service as principal, and aws:SourceArn",
        ));
    }
    let service = |service, arn| {
        let context = [
            ("aws:SecureTransport", Some("true")),
            ("aws:SourceArn", Some(arn)),
            ("aws:SourceAccount", Some("stranger")),
            ("aws:PrincipalOrgID", None),
            ("aws:PrincipalIsAWSService", Some("true")),
            ("aws:SourceOrgID", Some("o-stranger")),
        ];
        may(Principal::Service(service), &context)
    };
    let open: Vec<&str> = [
        ("buckets", service("s3.amazonaws.com", "arn:aws:s3:::a-stranger's-bucket")),
        ("topics", service("sns.amazonaws.com", "arn:aws:sns:a-strange-region:stranger:topic")),
    ]
    .into_iter()
    .filter_map(|(what, open)| open.then_some(what))
    .collect();
    (!open.is_empty()).then(|| {
        Finding::warning(
            OPEN,
            format!("{} of every account may send to the queue", open.join(" and ")),
            "add a condition on aws:SourceArn or aws:SourceAccount to these statements of the queue's policy",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::assert_finding;
    use crate::doctor::{Status, Unknown};

    const ARN: &str = "arn:aws:sqs:eu-west-1:111122223333:trail";
    const WANTS: Wants = Wants { wait: 20, visibility: None };

    fn facts() -> QueueFacts {
        QueueFacts {
            url: "https://sqs.eu-west-1.amazonaws.com/111122223333/trail".to_owned(),
            arn: ARN.to_owned(),
            visibility: 120,
            retention: 7 * 86_400,
            visible: 0,
            in_flight: 0,
            encryption: Encryption::Sqs,
            redrive_policy: Some(format!(r#"{{"deadLetterTargetArn":"{ARN}-dead-letters","maxReceiveCount":10}}"#)),
            policy: Some(policy(&json!({ "ArnEquals": { "aws:SourceArn": "arn:aws:s3:::example-logs" } }))),
        }
    }

    fn policy(condition: &Value) -> String {
        json!({ "Statement": [{
            "Sid": "Bucket", "Effect": "Allow", "Principal": { "Service": "s3.amazonaws.com" },
            "Action": "sqs:SendMessage", "Resource": ARN, "Condition": condition,
        }]})
        .to_string()
    }

    fn dead() -> DeadLetterFacts {
        DeadLetterFacts { url: "https://sqs.example/dead".to_owned(), retention: 14 * 86_400, visible: 0, in_flight: 0 }
    }

    fn bucket() -> Sender {
        Sender::Bucket { name: "example-logs".to_owned(), owner: Some("111122223333".to_owned()) }
    }

    fn judged(change: impl FnOnce(&mut QueueFacts)) -> Vec<Finding> {
        let mut facts = facts();
        change(&mut facts);
        queue(&Ok(facts), Some(&Ok(dead())), WANTS)
    }

    #[test]
    fn a_queue_in_order_has_no_complaints() {
        let mut findings = judged(|_| {});
        findings.extend(sender(&facts(), &bucket()));
        assert!(findings.iter().all(|finding| finding.status == Status::Ok && finding.mend.is_none()), "{findings:#?}");
        assert_eq!(strangers(&facts()), None);
    }

    #[test]
    fn each_attribute_is_judged_and_mended_by_a_command() {
        let command = "aws sqs set-queue-attributes --queue-url https://sqs.eu-west-1.amazonaws.com/111122223333/trail";
        let findings = judged(|facts| facts.visibility = 10);
        assert_finding(&findings, VISIBILITY, Status::Warning, &[command, "10 seconds", "VisibilityTimeout"]);
        let findings = judged(|facts| facts.retention = 3_600);
        assert_finding(&findings, RETENTION, Status::Warning, &[command, "60 minutes"]);
        let findings = judged(|facts| facts.encryption = Encryption::None);
        assert_finding(&findings, ENCRYPTION, Status::Warning, &[command, "SqsManagedSseEnabled"]);
        let findings = judged(|facts| facts.arn = format!("{ARN}.fifo"));
        assert_finding(&findings, QUEUE, Status::Problem, &["FIFO"]);
        let findings = queue(&Ok(facts()), None, Wants { wait: 0, visibility: Some(10) });
        assert_finding(&findings, POLL, Status::Warning, &["queue.wait"]);
        assert_finding(&findings, VISIBILITY, Status::Warning, &["queue.visibility of the configuration"]);
    }

    #[test]
    fn redrive_needs_a_queue_and_room() {
        let findings = judged(|facts| facts.redrive_policy = None);
        assert_finding(&findings, REDRIVE, Status::Problem, &["no redrive policy", "RedrivePolicy", "maxReceiveCount"]);
        assert_finding(&findings, DEAD, Status::Skipped, &[]);
        let findings = judged(|facts| facts.redrive_policy = Some("{}".to_owned()));
        assert_finding(&findings, REDRIVE, Status::Problem, &["cannot be read"]);
        let two = format!(r#"{{"deadLetterTargetArn":"{ARN}-dead-letters","maxReceiveCount":"2"}}"#);
        let findings = judged(|facts| facts.redrive_policy = Some(two));
        assert_finding(&findings, REDRIVE, Status::Warning, &["2 receives", ":10}"]);
        let gone = Err(Unknown::Missing("the queue does not exist".to_owned()));
        let findings = queue(&Ok(facts()), Some(&gone), WANTS);
        assert_finding(&findings, DEAD, Status::Problem, &["does not exist"]);
    }

    #[test]
    fn dead_letters_are_told_with_the_tool_that_explains_them() {
        let full = DeadLetterFacts { visible: 3, in_flight: 1, retention: 7 * 86_400, ..dead() };
        let findings = queue(&Ok(facts()), Some(&Ok(full)), WANTS);
        assert_finding(&findings, DEAD, Status::Warning, &["4 messages", "trailhound dlq why"]);
        assert_finding(&findings, DEAD_RETENTION, Status::Warning, &["7 days", "MessageRetentionPeriod=1209600"]);
    }

    #[test]
    fn a_queue_that_cannot_be_read_skips_what_depends_on_it() {
        let denied = Unknown::Denied { action: "sqs:GetQueueAttributes".to_owned(), on: ARN.to_owned() };
        let findings = queue(&Err(denied), None, WANTS);
        assert!(findings.iter().all(|finding| finding.status == Status::Skipped), "{findings:#?}");
        assert_finding(&findings, QUEUE, Status::Skipped, &["sqs:GetQueueAttributes", ARN]);
    }

    #[test]
    fn who_may_not_send_is_told_with_the_statement_that_lets_it() {
        let judged = |policy: Option<String>, by: &Sender| sender(&QueueFacts { policy, ..facts() }, by);
        let findings = judged(None, &bucket());
        assert_finding(&findings, POLICY, Status::Problem, &["no policy", "set-queue-attributes", "aws:SourceAccount"]);
        let other = policy(&json!({ "ArnEquals": { "aws:SourceArn": "arn:aws:s3:::other-logs" } }));
        let findings = judged(Some(other), &bucket());
        assert_finding(
            &findings,
            POLICY,
            Status::Problem,
            &["statement \"Bucket\" asks for aws:SourceArn", "add to the queue's policy: {\"Effect\":\"Allow\""],
        );
        let topic = Sender::Topic("arn:aws:sns:eu-west-1:111122223333:objects".to_owned());
        let findings = sender(&facts(), &topic);
        assert_finding(&findings, POLICY, Status::Problem, &["no statement names it", "sns.amazonaws.com", ":objects"]);
        let findings = sender(&facts(), &Sender::EventBridge);
        assert_finding(&findings, POLICY, Status::Problem, &["arn:aws:events:eu-west-1:111122223333:rule/*"]);
        // Which account a bucket belongs to may not be known.
        let by_account = policy(&json!({ "StringEquals": { "aws:SourceAccount": "111122223333" } }));
        let stranger = Sender::Bucket { name: "example-logs".to_owned(), owner: None };
        let findings = judged(Some(by_account), &stranger);
        assert_finding(&findings, POLICY, Status::Warning, &["not known here"]);
    }

    #[test]
    fn the_key_must_let_the_sender_in_too() {
        let with = |id: &str, managed, policy: Option<&str>| QueueFacts {
            encryption: Encryption::Kms {
                id: id.to_owned(),
                key: Ok(KeyFacts {
                    arn: "arn:aws:kms:eu-west-1:111122223333:key/0a1b".to_owned(),
                    state: "Enabled".to_owned(),
                    managed,
                    policy: Ok(policy.map(str::to_owned)),
                }),
            },
            ..facts()
        };
        let findings = queue(&Ok(with("alias/aws/sqs", true, None)), Some(&Ok(dead())), WANTS);
        assert_finding(&findings, ENCRYPTION, Status::Problem, &["nothing arrives", "SqsManagedSseEnabled"]);
        let nobody = sender(&with("alias/trail", false, Some(r#"{"Statement": []}"#)), &bucket());
        assert_finding(&nobody, ENCRYPTION, Status::Problem, &["kms:GenerateDataKey", "s3.amazonaws.com"]);
        let allowed = r#"{"Statement": [{"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"},
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "*",
            "Condition": {"StringEquals": {"aws:SourceAccount": "111122223333"}}}]}"#;
        assert_finding(&sender(&with("alias/trail", false, Some(allowed)), &bucket()), ENCRYPTION, Status::Ok, &[]);
    }

    #[test]
    fn an_open_queue_is_told() {
        let open = |principal: Value, condition: Value| {
            let policy = json!({ "Statement": [{
                "Effect": "Allow", "Principal": principal, "Action": "sqs:*", "Resource": "*", "Condition": condition,
            }]});
            strangers(&QueueFacts { policy: Some(policy.to_string()), ..facts() }).map(|finding| finding.found)
        };
        let nothing = || json!({});
        assert!(open(json!("*"), nothing()).unwrap().starts_with("anybody"));
        assert!(open(json!({ "AWS": "*" }), nothing()).unwrap().starts_with("anybody"));
        let services = json!({ "Service": ["s3.amazonaws.com", "sns.amazonaws.com"] });
        assert!(open(services.clone(), nothing()).unwrap().starts_with("buckets and topics of every account"));
        let mine = json!({ "StringEquals": { "aws:SourceAccount": "111122223333" } });
        assert_eq!(open(services, mine.clone()), None);
        assert_eq!(open(json!("*"), mine), None);
        assert_eq!(open(json!({ "AWS": "arn:aws:iam::111122223333:root" }), nothing()), None);
    }
}
