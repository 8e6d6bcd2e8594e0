//! The buckets of the log files: whether each file that arrives there is announced on the queue, and can be read.

use serde_json::json;

use super::key::{self, KeyFacts};
use super::queue::Sender;
use super::topic::Subscription;
use super::trail::TrailFacts;
use super::{Arn, Finding, Looked, Unknown, in_region, quoted};

const BUCKET: &str = "bucket";
const NOTIFICATION: &str = "bucket-notification";
const KEY: &str = "bucket-key";
const VERSIONS: &str = "bucket-versions";
const LOG: &str = "bucket-read";

/// What CloudTrail does when it delivers.
const CREATED: &str = "s3:ObjectCreated:Put";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketFacts {
    pub name: String,
    /// Where it is, where S3 says so; or why it is not there.
    pub region: Looked<Option<String>>,
    /// The account that it belongs to, where that is known.
    pub owner: Option<String>,
    pub notification: Looked<Notification>,
    /// The key of KMS that encrypts new objects, if there is one.
    pub key: Looked<Option<Looked<KeyFacts>>>,
    pub versioned: Looked<bool>,
    pub log: Looked<Log>,
}

/// What a bucket announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    pub targets: Vec<Target>,
    pub event_bridge: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Of a queue, a topic or a function.
    pub arn: String,
    /// Such as `s3:ObjectCreated:*`.
    pub events: Vec<String>,
    pub prefix: String,
    pub suffix: String,
}

impl Target {
    fn creates(&self) -> bool {
        self.events.iter().any(|event| match event.strip_suffix('*') {
            Some(start) => CREATED.starts_with(start),
            None => event == CREATED,
        })
    }

    fn takes(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && key.ends_with(&self.suffix)
    }
}

/// What came of reading one log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// None was found among the first keys.
    None,
    Opened(String),
    Closed {
        key: String,
        why: Unknown,
    },
}

/// A topic on the way from a bucket or a trail to the queue, and its subscriptions.
pub type TopicSubscriptions = (String, Looked<Vec<Subscription>>);

/// What is known beside the bucket itself.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    pub queue_arn: Option<&'a str>,
    pub topics: &'a [TopicSubscriptions],
    pub trails: &'a [TrailFacts],
    /// Whose log files are expected where no trail is known.
    pub account: Option<&'a str>,
}

/// Judges a bucket. The senders are those that the queue must let in.
#[must_use]
pub fn bucket(facts: &BucketFacts, around: Around<'_>) -> (Vec<Finding>, Vec<Sender>) {
    let (mut findings, senders) = judge(facts, around);
    for finding in &mut findings {
        finding.on = Some(facts.name.clone());
    }
    (findings, senders)
}

fn judge(facts: &BucketFacts, around: Around<'_>) -> (Vec<Finding>, Vec<Sender>) {
    let region = match &facts.region {
        Ok(region) => region.as_deref(),
        Err(unknown @ Unknown::Missing(_)) => {
            let gone = "the bucket does not exist";
            let findings = vec![
                Finding::unknown(BUCKET, unknown),
                Finding::skipped(NOTIFICATION, gone),
                Finding::skipped(LOG, gone),
            ];
            return (findings, Vec::new());
        }
        Err(_) => None,
    };
    let mut findings = vec![match (&facts.region, region) {
        (Err(unknown), _) => Finding::unknown(BUCKET, unknown),
        (_, Some(region)) => Finding::ok(BUCKET, format!("exists in {region}")),
        (_, None) => Finding::ok(BUCKET, "exists"),
    }];
    let (announced, senders) = notification(facts, region, around);
    findings.push(announced);
    findings.push(match &facts.key {
        Err(unknown) => Finding::unknown(KEY, unknown),
        Ok(None) => Finding::ok(KEY, "new objects are encrypted with S3's own keys"),
        Ok(Some(key)) => key::works(KEY, key),
    });
    findings.push(match facts.versioned {
        Err(ref unknown) => Finding::unknown(VERSIONS, unknown),
        Ok(true) => Finding::ok(VERSIONS, "versions are kept"),
        Ok(false) => Finding::warning(
            VERSIONS,
            "no versions are kept: a log file that is overwritten or deleted is gone",
            format!(
                "aws s3api put-bucket-versioning --bucket {} --versioning-configuration Status=Enabled",
                quoted(&facts.name)
            ),
        ),
    });
    findings.push(log(&facts.log));
    (findings, senders)
}

fn log(log: &Looked<Log>) -> Finding {
    match log {
        Err(unknown) => Finding::unknown(LOG, unknown),
        Ok(Log::None) => Finding::skipped(LOG, "no log file was found among the first keys"),
        Ok(Log::Opened(key)) => Finding::ok(LOG, format!("{key} can be read")),
        Ok(Log::Closed { key, why: Unknown::Denied { action, on } }) => {
            let mut finding = Finding::unknown(LOG, &Unknown::Denied { action: action.clone(), on: on.clone() });
            finding.found = format!("this role may not read {key}; the daemon's must ({action})");
            finding
        }
        Ok(Log::Closed { key, why }) => {
            Finding::problem(LOG, format!("{key} cannot be read: {why}"), "look at the bucket's policy and at the key")
        }
    }
}

/// The ways from a bucket to the queue.
#[derive(Default)]
struct Ways<'a> {
    /// Those that lead there, in words.
    told: Vec<String>,
    senders: Vec<Sender>,
    /// What S3 announces by them.
    takers: Vec<&'a Target>,
    /// What came near, and why it does not lead there.
    near: Vec<String>,
    /// What may lead there, but cannot be seen.
    unseen: Option<&'a Unknown>,
}

impl<'a> Ways<'a> {
    /// Whether what is published on a topic arrives on the queue; tells why it does not.
    fn lead(&mut self, topic: &str, queue: &str, topics: &'a [TopicSubscriptions]) -> bool {
        let subscriptions = match topics.iter().find(|(arn, _)| arn == topic) {
            Some((_, Ok(subscriptions))) => subscriptions,
            Some((_, Err(why))) => {
                self.near.push(format!("whether {topic} leads to the queue is not known: {why}"));
                self.unseen = Some(why);
                return false;
            }
            None => {
                self.near.push(format!("{topic} was not looked at"));
                return false;
            }
        };
        match subscriptions.iter().find(|one| one.protocol == "sqs" && one.endpoint == queue) {
            Some(one) if one.confirmed => return true,
            Some(_) => self.near.push(format!("the queue's subscription to {topic} is not confirmed")),
            None => self.near.push(format!("the queue is not subscribed to {topic}")),
        }
        false
    }

    /// A trail's own announcements name each of its files.
    fn of_trail(&mut self, topic: &str, queue: &str, topics: &'a [TopicSubscriptions]) {
        if self.lead(topic, queue, topics) {
            self.told.push(format!("the trail announces on {topic}"));
            self.senders.push(Sender::Topic(topic.to_owned()));
        }
    }

    fn of_bucket(&mut self, target: &'a Target, bucket: Sender, queue: &str, topics: &'a [TopicSubscriptions]) {
        let direct = target.arn == queue;
        if !direct && Arn::parse(&target.arn).is_none_or(|arn| arn.service != "sns") {
            return;
        }
        if !target.creates() {
            if direct {
                self.near.push(format!("the queue is told of {} only", target.events.join(", ")));
            }
            return;
        }
        if !direct && !self.lead(&target.arn, queue, topics) {
            return;
        }
        self.takers.push(target);
        let (sender, told) = if direct {
            (bucket, "S3 tells the queue".to_owned())
        } else {
            (Sender::Topic(target.arn.clone()), format!("S3 tells it by {}", target.arn))
        };
        if !self.senders.contains(&sender) {
            self.told.push(told);
            self.senders.push(sender);
        }
    }
}

/// Whether every log file is announced on the queue, and by whom.
fn notification(facts: &BucketFacts, region: Option<&str>, around: Around<'_>) -> (Finding, Vec<Sender>) {
    let Some(queue) = around.queue_arn else {
        return (Finding::skipped(NOTIFICATION, "the queue is not known"), Vec::new());
    };
    let of_trails: Vec<&TrailFacts> = around.trails.iter().filter(|trail| trail.bucket == facts.name).collect();
    let mut ways = Ways::default();
    for topic in of_trails.iter().filter_map(|trail| trail.topic.as_deref()) {
        ways.of_trail(topic, queue, around.topics);
    }
    let by_trail = !ways.told.is_empty();
    let usual = Sender::Bucket { name: facts.name.clone(), owner: facts.owner.clone() };
    let notification = match &facts.notification {
        Ok(notification) => notification,
        Err(_) if by_trail => return (Finding::ok(NOTIFICATION, ways.told.join(", ")), ways.senders),
        // Whoever cannot look assumes the usual way, so that the queue's policy is still judged.
        Err(unknown) => return (Finding::unknown(NOTIFICATION, unknown), vec![usual]),
    };
    for target in &notification.targets {
        ways.of_bucket(target, usual.clone(), queue, around.topics);
    }
    if !by_trail && !notification.event_bridge && !ways.takers.is_empty() {
        let keys = samples(&of_trails, around.account);
        if let Some(finding) = apart(region, queue, &ways.takers).or_else(|| hidden(facts, queue, &ways.takers, &keys))
        {
            return (finding, ways.senders);
        }
    }
    if notification.event_bridge && ways.told.is_empty() {
        let rules = format!("aws events list-rule-names-by-target --target-arn {}{}", quoted(queue), in_region(queue));
        let found =
            "S3 tells EventBridge; whether a rule sends \"Object Created\" on to the queue is not looked at here";
        return (Finding::ok(NOTIFICATION, found).mended_by(rules), vec![Sender::EventBridge]);
    }
    if ways.told.is_empty() {
        if let Some(unknown @ Unknown::Denied { .. }) = ways.unseen {
            return (Finding::unknown(NOTIFICATION, unknown), Vec::new());
        }
        let near = if ways.near.is_empty() { String::new() } else { format!(" ({})", ways.near.join("; ")) };
        let found = format!("nothing tells the queue of new log files{near}");
        return (Finding::problem(NOTIFICATION, found, mend(facts, queue)), vec![usual]);
    }
    if notification.event_bridge {
        ways.told.push("S3 tells EventBridge too".to_owned());
    }
    (Finding::ok(NOTIFICATION, ways.told.join(", ")), ways.senders)
}

/// S3 tells queues of its own region only; a topic may be subscribed to from elsewhere.
fn apart(region: Option<&str>, queue: &str, takers: &[&Target]) -> Option<Finding> {
    let there = Arn::parse(queue)?.region;
    let here = region?;
    if here == there || there.is_empty() || takers.iter().any(|target| target.arn != queue) {
        return None;
    }
    let found = format!("the bucket is in {here} and the queue in {there}: S3 announces within one region only");
    Some(Finding::problem(NOTIFICATION, found, "use EventBridge, a topic, or a queue in the bucket's region"))
}

/// Whether filters keep one of these keys from being announced.
fn hidden(facts: &BucketFacts, queue: &str, takers: &[&Target], keys: &[String]) -> Option<Finding> {
    let key = keys.iter().find(|key| !takers.iter().any(|target| target.takes(key)))?;
    let filters: Vec<String> =
        takers.iter().map(|target| format!("prefix \"{}\" and suffix \"{}\"", target.prefix, target.suffix)).collect();
    let found = format!("log files such as {key} are not announced: {}", filters.join("; "));
    Some(Finding::problem(NOTIFICATION, found, mend(facts, queue)))
}

/// Keys as CloudTrail makes them, in several regions.
fn samples(trails: &[&TrailFacts], account: Option<&str>) -> Vec<String> {
    let key = |prefix: &str, account: &str, region: &str| {
        format!(
            "{prefix}AWSLogs/{account}/CloudTrail/{region}/2026/01/31/{account}_CloudTrail_{region}_20260131T1200Z_\
             Example0123456789.json.gz"
        )
    };
    if trails.is_empty() {
        let regions = ["us-east-1", "eu-west-1"];
        return account.map(|account| regions.map(|region| key("", account, region)).to_vec()).unwrap_or_default();
    }
    trails
        .iter()
        // The organization's id in the keys of its trail is not told.
        .filter(|trail| !trail.organization)
        .filter_map(|trail| Some((trail, Arn::parse(&trail.arn)?.account)))
        .flat_map(|(trail, account)| {
            let prefix = trail.prefix.as_ref().map(|prefix| format!("{prefix}/")).unwrap_or_default();
            let others: &[&str] = if trail.multi_region { &["us-east-1", "eu-west-1"] } else { &[] };
            let regions = [trail.home_region.as_str()].into_iter().chain(others.iter().copied());
            regions.map(|region| key(&prefix, account, region)).collect::<Vec<_>>()
        })
        .collect()
}

fn mend(facts: &BucketFacts, queue: &str) -> String {
    let configuration = json!({ "QueueConfigurations": [{
        "Id": "trailhound",
        "QueueArn": queue,
        "Events": ["s3:ObjectCreated:*"],
        "Filter": { "Key": { "FilterRules": [{ "Name": "suffix", "Value": ".json.gz" }] } },
    }]});
    format!(
        "aws s3api put-bucket-notification-configuration --bucket {} --notification-configuration {} # this replaces the \
         whole configuration: keep what get-bucket-notification-configuration prints",
        quoted(&facts.name),
        quoted(&configuration.to_string())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;
    use crate::doctor::tests::assert_finding;
    use crate::doctor::trail::{Management, TrailStatus};

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:111122223333:trail";
    const TOPIC: &str = "arn:aws:sns:eu-west-1:111122223333:objects";

    fn target(arn: &str, event: &str, prefix: &str, suffix: &str) -> Target {
        Target {
            arn: arn.to_owned(),
            events: vec![event.to_owned()],
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
        }
    }

    fn facts(targets: Vec<Target>, event_bridge: bool) -> BucketFacts {
        BucketFacts {
            name: "example-logs".to_owned(),
            region: Ok(Some("eu-west-1".to_owned())),
            owner: Some("111122223333".to_owned()),
            notification: Ok(Notification { targets, event_bridge }),
            key: Ok(None),
            versioned: Ok(true),
            log: Ok(Log::Opened("AWSLogs/a.json.gz".to_owned())),
        }
    }

    fn trail(prefix: Option<&str>, topic: Option<&str>) -> TrailFacts {
        TrailFacts {
            name: "main".to_owned(),
            arn: "arn:aws:cloudtrail:eu-central-1:111122223333:trail/main".to_owned(),
            bucket: "example-logs".to_owned(),
            prefix: prefix.map(str::to_owned),
            home_region: "eu-central-1".to_owned(),
            multi_region: true,
            global_events: true,
            validation: true,
            organization: false,
            topic: topic.map(str::to_owned),
            key_id: None,
            key: None,
            status: Ok(TrailStatus { logging: true, delivered: None, error: None }),
            management: Ok(Management::None),
        }
    }

    fn subscribed(endpoint: &str, confirmed: bool) -> TopicSubscriptions {
        let one = Subscription { protocol: "sqs".to_owned(), endpoint: endpoint.to_owned(), confirmed };
        (TOPIC.to_owned(), Ok(vec![one]))
    }

    fn judged(
        facts: &BucketFacts,
        trails: &[TrailFacts],
        topics: &[TopicSubscriptions],
    ) -> (Vec<Finding>, Vec<Sender>) {
        bucket(facts, Around { queue_arn: Some(QUEUE), topics, trails, account: Some("111122223333") })
    }

    fn by_bucket() -> Vec<Sender> {
        vec![Sender::Bucket { name: "example-logs".to_owned(), owner: Some("111122223333".to_owned()) }]
    }

    #[test]
    fn each_way_to_the_queue_is_seen_with_its_sender() {
        for event in ["s3:ObjectCreated:*", "s3:ObjectCreated:Put", "s3:*"] {
            let (findings, senders) = judged(&facts(vec![target(QUEUE, event, "", ".json.gz")], false), &[], &[]);
            assert_finding(&findings, NOTIFICATION, Status::Ok, &["S3 tells the queue"]);
            assert_eq!(senders, by_bucket());
        }
        let by_topic = facts(vec![target(TOPIC, "s3:ObjectCreated:*", "", "")], false);
        let (findings, senders) = judged(&by_topic, &[], &[subscribed(QUEUE, true)]);
        assert_finding(&findings, NOTIFICATION, Status::Ok, &[TOPIC]);
        assert_eq!(senders, [Sender::Topic(TOPIC.to_owned())]);
        let (findings, senders) =
            judged(&facts(Vec::new(), false), &[trail(None, Some(TOPIC))], &[subscribed(QUEUE, true)]);
        assert_finding(&findings, NOTIFICATION, Status::Ok, &["the trail announces"]);
        assert_eq!(senders, [Sender::Topic(TOPIC.to_owned())]);
        let (findings, senders) = judged(&facts(Vec::new(), true), &[], &[]);
        assert_finding(&findings, NOTIFICATION, Status::Ok, &["EventBridge", "list-rule-names-by-target"]);
        assert_eq!(senders, [Sender::EventBridge]);
    }

    #[test]
    fn a_way_that_does_not_reach_the_queue_is_told_with_what_came_near() {
        let mend = "aws s3api put-bucket-notification-configuration --bucket example-logs";
        let (findings, senders) = judged(&facts(Vec::new(), false), &[], &[]);
        assert_finding(&findings, NOTIFICATION, Status::Problem, &["nothing tells the queue", mend]);
        // The queue's policy is judged all the same.
        assert_eq!(senders, by_bucket());
        let removed = facts(vec![target(QUEUE, "s3:ObjectRemoved:*", "", "")], false);
        assert_finding(&judged(&removed, &[], &[]).0, NOTIFICATION, Status::Problem, &["s3:ObjectRemoved:* only"]);
        let other = format!("{QUEUE}-other");
        let elsewhere = facts(vec![target(&other, "s3:ObjectCreated:*", "", "")], false);
        assert_finding(&judged(&elsewhere, &[], &[]).0, NOTIFICATION, Status::Problem, &[mend]);
        let by_topic = facts(vec![target(TOPIC, "s3:ObjectCreated:*", "", "")], false);
        for (topics, words) in [
            (vec![subscribed(&other, true)], "is not subscribed"),
            (vec![subscribed(QUEUE, false)], "not confirmed"),
            (Vec::new(), "not looked at"),
        ] {
            assert_finding(&judged(&by_topic, &[], &topics).0, NOTIFICATION, Status::Problem, &[words]);
        }
    }

    #[test]
    fn a_topic_that_cannot_be_seen_may_lead_to_the_queue() {
        let denied = Unknown::Denied { action: "sns:ListSubscriptionsByTopic".to_owned(), on: TOPIC.to_owned() };
        let by_topic = facts(vec![target(TOPIC, "s3:ObjectCreated:*", "", "")], false);
        let (findings, _) = judged(&by_topic, &[], &[(TOPIC.to_owned(), Err(denied))]);
        assert_finding(&findings, NOTIFICATION, Status::Skipped, &["sns:ListSubscriptionsByTopic", TOPIC]);
    }

    #[test]
    fn filters_that_hide_log_files_are_told() {
        let filtered =
            |prefix: &str, suffix: &str| facts(vec![target(QUEUE, "s3:ObjectCreated:*", prefix, suffix)], false);
        let trails = [trail(Some("org"), None)];
        for (prefix, suffix, status) in [
            ("", "", Status::Ok),
            ("org/AWSLogs/", ".json.gz", Status::Ok),
            ("org/AWSLogs/111122223333/CloudTrail/", "", Status::Ok),
            ("AWSLogs/", "", Status::Problem),
            ("org/AWSLogs/111122223333/CloudTrail/eu-central-1/", "", Status::Problem),
            ("", ".json", Status::Problem),
        ] {
            let (findings, _) = judged(&filtered(prefix, suffix), &trails, &[]);
            let words: &[&str] = if status == Status::Ok { &[] } else { &["log files such as org/AWSLogs/"] };
            assert_finding(&findings, NOTIFICATION, status, words);
        }
        // Two filters together may take everything.
        let both = ["eu-", "us-"].map(|region| {
            target(QUEUE, "s3:ObjectCreated:*", &format!("org/AWSLogs/111122223333/CloudTrail/{region}"), "")
        });
        assert_finding(&judged(&facts(both.to_vec(), false), &trails, &[]).0, NOTIFICATION, Status::Ok, &[]);
    }

    #[test]
    fn s3_announces_within_one_region_only() {
        let mut away = facts(vec![target(QUEUE, "s3:ObjectCreated:*", "", "")], false);
        away.region = Ok(Some("us-east-1".to_owned()));
        assert_finding(&judged(&away, &[], &[]).0, NOTIFICATION, Status::Problem, &["us-east-1", "one region only"]);
        // A topic of the bucket's region may tell a queue elsewhere.
        away.notification = facts(vec![target(TOPIC, "s3:ObjectCreated:*", "", "")], false).notification;
        assert_finding(&judged(&away, &[], &[subscribed(QUEUE, true)]).0, NOTIFICATION, Status::Ok, &[]);
    }

    #[test]
    fn a_bucket_is_judged_beside_what_it_announces() {
        let mut odd = facts(vec![target(QUEUE, "s3:ObjectCreated:*", "", "")], false);
        odd.versioned = Ok(false);
        let key = "AWSLogs/a.json.gz".to_owned();
        odd.log = Ok(Log::Closed { key: key.clone(), why: Unknown::Failed("InvalidObjectState".to_owned()) });
        let (findings, _) = judged(&odd, &[], &[]);
        assert_finding(&findings, VERSIONS, Status::Warning, &["put-bucket-versioning --bucket example-logs"]);
        assert_finding(&findings, LOG, Status::Problem, &["InvalidObjectState"]);
        let denied = Unknown::Denied { action: "kms:Decrypt".to_owned(), on: "arn:aws:kms:::key/1".to_owned() };
        odd.log = Ok(Log::Closed { key, why: denied });
        assert_finding(&judged(&odd, &[], &[]).0, LOG, Status::Skipped, &["kms:Decrypt", "the daemon's must"]);
        odd.region = Err(Unknown::Missing("NoSuchBucket".to_owned()));
        let (findings, senders) = judged(&odd, &[], &[]);
        assert_finding(&findings, BUCKET, Status::Problem, &["NoSuchBucket"]);
        assert_finding(&findings, NOTIFICATION, Status::Skipped, &[]);
        assert!(senders.is_empty());
    }
}
