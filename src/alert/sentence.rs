//! What happened, in one sentence: who did what, on what, where, and how it ended.

use super::told::{Record, Told};
use super::{Facts, Outcome, correlation, group};
use crate::cloudtrail::json;
use crate::tracker::Crossing;

/// How a text of others stands in the sentence: at most so many characters of it.
pub(super) type Mark = fn(&str, usize) -> String;

/// What is told of one text of others.
const MAX_CHARS: usize = 256;

/// What a call is about, by the parameter that names it; the first two that are there are told.
const TARGETS: [(&str, &str); 39] = [
    ("userName", "user"),
    ("roleName", "role"),
    ("groupName", "group"),
    ("instanceProfileName", "instance profile"),
    ("policyArn", "policy"),
    ("policyName", "policy"),
    ("bucketName", "bucket"),
    ("key", "object"),
    ("secretId", "secret"),
    ("functionName", "function"),
    ("keyId", "key"),
    ("groupId", "group"),
    ("instanceId", "instance"),
    ("snapshotId", "snapshot"),
    ("imageId", "image"),
    ("volumeId", "volume"),
    ("vpcId", "VPC"),
    ("routeTableId", "route table"),
    ("networkAclId", "network ACL"),
    ("tableName", "table"),
    ("queueUrl", "queue"),
    ("topicArn", "topic"),
    ("dBInstanceIdentifier", "database"),
    ("dBClusterIdentifier", "database cluster"),
    ("dBSnapshotIdentifier", "snapshot"),
    ("dBClusterSnapshotIdentifier", "snapshot"),
    ("service", "service"),
    ("cluster", "cluster"),
    ("clusterName", "cluster"),
    ("detectorId", "detector"),
    ("repositoryName", "repository"),
    ("stackName", "stack"),
    ("fileSystemId", "file system"),
    ("domainName", "domain"),
    ("documentName", "document"),
    ("roleArn", "role"),
    ("accountId", "account"),
    ("trailName", "trail"),
    ("name", ""),
];

/// The sentence, without a full stop in front of what follows: it ends with one.
pub(super) fn sentence(told: &Told<'_>, mark: Mark) -> String {
    let happened = happened(&told.event.facts, &told.record, mark);
    match told.crossing.and_then(|crossing| introduction(crossing, mark)) {
        Some(introduction) => format!("{introduction}: {happened}"),
        None => happened,
    }
}

/// How many events, of whom, within what time; nothing for a single one and for the first of a group.
fn introduction(crossing: &Crossing, mark: Mark) -> Option<String> {
    let of = group::short_key(crossing, mark);
    if let Some(correlated) = &crossing.state.correlated {
        return Some(correlation::introduction(correlated, &of, &group::window(crossing.state.window), mark));
    }
    let state = &crossing.state;
    (crossing.step > 1).then(|| format!("{} events since {} for {of}, such as this", state.count, state.first))
}

fn happened(facts: &Facts, record: &Record<'_>, mark: Mark) -> String {
    let name = facts.event_name.as_deref().map_or_else(|| "something unnamed".to_owned(), |name| mark(name, MAX_CHARS));
    let place = place(facts, mark);
    if record.is_insight() {
        let has_errors = record.text(&["insightDetails", "insightType"]).is_some_and(|kind| kind.contains("Error"));
        let of = if has_errors { "errors from" } else { "calls to" };
        let verb = match record.text(&["insightDetails", "state"]).as_deref() {
            Some("End") => "saw the end of an unusual rate of",
            _ => "saw an unusual rate of",
        };
        return format!("CloudTrail {verb} {of} {name}{place}.");
    }
    let who = who(facts, mark);
    if facts.event_name.as_deref() == Some("ConsoleLogin") {
        return match facts.outcome {
            Outcome::Success => format!("{who} signed in to the console{place}."),
            Outcome::Denied | Outcome::Failed => format!("{who} tried to sign in to the console{place}, and failed."),
        };
    }
    let target = target(record, mark).map(|target| format!(" on {target}")).unwrap_or_default();
    let is_of_service = record.text(&["eventType"]).as_deref() == Some("AwsServiceEvent");
    let verb = if is_of_service { "reported" } else { "called" };
    let end = match facts.outcome {
        Outcome::Success if is_of_service => String::new(),
        Outcome::Success => ", and it succeeded".to_owned(),
        Outcome::Denied => ", and was denied".to_owned(),
        Outcome::Failed => match &facts.error_code {
            Some(code) => format!(", and it failed with {}", mark(code, MAX_CHARS)),
            None => ", and it failed".to_owned(),
        },
    };
    format!("{who} {verb} {name}{target}{place}{end}.")
}

fn who(facts: &Facts, mark: Mark) -> String {
    if facts.user_identity_type.as_deref() == Some("Root") {
        return "The root user".to_owned();
    }
    let Some(actor) = facts.actor.as_deref() else { return "Somebody".to_owned() };
    // An ARN of the account that is named anyway is told by its end.
    let parts: Vec<&str> = actor.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, _, _, account, resource]
            if Some(*account) == facts.account_id.as_deref() && !resource.is_empty() =>
        {
            mark(resource, MAX_CHARS)
        }
        _ => mark(actor, MAX_CHARS),
    }
}

fn place(facts: &Facts, mark: Mark) -> String {
    let text = |text: &Option<String>| text.as_deref().map(|text| mark(text, 64));
    match (text(&facts.account_id), text(&facts.region)) {
        (Some(account), Some(region)) => format!(" in account {account}, {region}"),
        (Some(account), None) => format!(" in account {account}"),
        (None, Some(region)) => format!(" in {region}"),
        (None, None) => String::new(),
    }
}

/// What the call is about: by its parameters, else the first resource of the record.
fn target(record: &Record<'_>, mark: Mark) -> Option<String> {
    let mut named: Vec<(usize, String)> = json::members(record.get("requestParameters"))
        .filter_map(|member| {
            let at = TARGETS.iter().position(|(parameter, _)| json::key_is(member.key, parameter))?;
            let (_, noun) = TARGETS.get(at)?;
            let value = mark(&json::string(member.value).filter(|text| !text.is_empty())?, MAX_CHARS);
            Some((at, if noun.is_empty() { value } else { format!("{noun} {value}") }))
        })
        .collect();
    named.sort_by_key(|(at, _)| *at);
    if !named.is_empty() {
        let first: Vec<String> = named.into_iter().take(2).map(|(_, target)| target).collect();
        return Some(first.join(", "));
    }
    let instance = record.first_of(&["requestParameters", "instancesSet", "items"], &["instanceId"]);
    if let Some(instance) = instance {
        return Some(format!("instance {}", mark(&instance, MAX_CHARS)));
    }
    record.first_of(&["resources"], &["ARN"]).map(|arn| mark(&arn, MAX_CHARS))
}
