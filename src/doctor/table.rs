//! The table of detected events.

use serde_json::json;

use super::{Finding, Looked, in_region, quoted};

const TABLE: &str = "table";
const KEYS: &str = "table-keys";
const INDEX: &str = "table-index";
const TTL: &str = "table-ttl";
const BACKUP: &str = "table-backup";

/// The attribute by which items expire.
const EXPIRES: &str = "ExpiresAt";

/// The index for reading by time.
const BY_DAY: &str = "ByDay";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFacts {
    pub name: String,
    pub arn: String,
    /// `ACTIVE`, `CREATING`, ...
    pub status: String,
    pub keys: Vec<Key>,
    pub indexes: Vec<Index>,
    /// Whether it is paid by request.
    pub on_demand: bool,
    /// The attribute of its TTL; `None` where it is off.
    pub ttl: Looked<Option<String>>,
    /// Whether it can be restored to any second of the last days.
    pub recovery: Looked<bool>,
}

/// A key attribute: its name, its type (`S`, `N`, `B`) and its kind (`HASH`, `RANGE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    pub kind: String,
    pub type_name: String,
}

impl Key {
    fn told(keys: &[Self]) -> String {
        let told: Vec<String> =
            keys.iter().map(|key| format!("{} ({}, {})", key.name, key.type_name, key.kind)).collect();
        told.join(" and ")
    }

    fn are(keys: &[Self], wanted: [&str; 2]) -> bool {
        let [hash, range] = wanted;
        let is = |name: &str, kind: &str| {
            keys.iter().any(|key| key.name == name && key.kind == kind && key.type_name == "S")
        };
        keys.len() == 2 && is(hash, "HASH") && is(range, "RANGE")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub name: String,
    pub status: String,
    pub keys: Vec<Key>,
}

#[must_use]
pub fn table(facts: &Looked<TableFacts>) -> Vec<Finding> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(unknown) => {
            let mut findings = vec![Finding::unknown(TABLE, unknown)];
            findings.extend([KEYS, INDEX, TTL].map(|check| Finding::skipped(check, "the table is not known")));
            return findings;
        }
    };
    vec![exists(facts), keys(facts), index(facts), ttl(facts), backup(facts)]
}

fn exists(facts: &TableFacts) -> Finding {
    let paid = if facts.on_demand { "paid by request" } else { "with provisioned capacity" };
    let TableFacts { name, status, .. } = facts;
    match status.as_str() {
        "ACTIVE" | "UPDATING" => Finding::ok(TABLE, format!("{name} is {status}, {paid}")),
        _ => Finding::problem(
            TABLE,
            format!("{name} is {status}"),
            format!(
                "aws dynamodb wait table-exists --table-name {}{}; a table that is archived or whose key is gone must be restored",
                quoted(name),
                in_region(&facts.arn)
            ),
        ),
    }
}

fn keys(facts: &TableFacts) -> Finding {
    if Key::are(&facts.keys, ["EventId", "Timestamp"]) {
        return Finding::ok(KEYS, "EventId and Timestamp");
    }
    Finding::problem(
        KEYS,
        format!(
            "the table has the keys {}, and needs EventId (S, HASH) and Timestamp (S, RANGE)",
            Key::told(&facts.keys)
        ),
        "keys cannot be changed: make another table (deploy/terraform/table.tf) and name it in store.table",
    )
}

/// What README and Terraform have the index hold.
const PROJECTED: [&str; 7] = ["Severity", "Rules", "EventName", "EventSource", "AccountId", "AwsRegion", "Actor"];

fn index(facts: &TableFacts) -> Finding {
    let Some(index) = facts.indexes.iter().find(|index| index.name == BY_DAY) else {
        let update = json!([{ "Create": {
            "IndexName": BY_DAY,
            "KeySchema": [
                { "AttributeName": "Day", "KeyType": "HASH" },
                { "AttributeName": "Timestamp", "KeyType": "RANGE" },
            ],
            "Projection": { "ProjectionType": "INCLUDE", "NonKeyAttributes": PROJECTED },
        }}]);
        return Finding::warning(
            INDEX,
            format!(
                "the table has no index {BY_DAY}: alerts work, reading events by time (trailhound events) does not"
            ),
            format!(
                "aws dynamodb update-table --table-name {} --attribute-definitions AttributeName=Day,AttributeType=S \
                 AttributeName=Timestamp,AttributeType=S --global-secondary-index-updates {}{}",
                quoted(&facts.name),
                quoted(&update.to_string()),
                in_region(&facts.arn)
            ),
        );
    };
    if !Key::are(&index.keys, ["Day", "Timestamp"]) {
        return Finding::problem(
            INDEX,
            format!(
                "{BY_DAY} has the keys {}, and needs Day (S, HASH) and Timestamp (S, RANGE)",
                Key::told(&index.keys)
            ),
            "delete the index and make it again as in deploy/terraform/table.tf",
        );
    }
    if !matches!(index.status.as_str(), "ACTIVE" | "UPDATING") {
        return Finding::warning(
            INDEX,
            format!("{BY_DAY} is {}", index.status),
            "wait: it is filled in the background",
        );
    }
    Finding::ok(INDEX, format!("{BY_DAY} is {}", index.status))
}

fn ttl(facts: &TableFacts) -> Finding {
    let command = format!(
        "aws dynamodb update-time-to-live --table-name {} --time-to-live-specification Enabled=true,AttributeName={EXPIRES}{}",
        quoted(&facts.name),
        in_region(&facts.arn)
    );
    match &facts.ttl {
        Err(unknown) => Finding::unknown(TTL, unknown),
        Ok(Some(attribute)) if attribute == EXPIRES => Finding::ok(TTL, format!("items expire by {EXPIRES}")),
        Ok(Some(other)) => Finding::problem(
            TTL,
            format!("items expire by {other}, and trailhound writes {EXPIRES}: the table grows for ever"),
            format!("disable it first (AWS takes up to an hour), then: {command}"),
        ),
        Ok(None) => Finding::problem(TTL, "items never expire: the table grows for ever", command),
    }
}

fn backup(facts: &TableFacts) -> Finding {
    match facts.recovery {
        Err(ref unknown) => Finding::unknown(BACKUP, unknown),
        Ok(true) => Finding::ok(BACKUP, "can be restored to a point in time"),
        Ok(false) => Finding::warning(
            BACKUP,
            "cannot be restored to a point in time: what somebody deletes is gone",
            format!(
                "aws dynamodb update-continuous-backups --table-name {} --point-in-time-recovery-specification \
                 PointInTimeRecoveryEnabled=true{}",
                quoted(&facts.name),
                in_region(&facts.arn)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::assert_finding;
    use crate::doctor::{Status, Unknown};

    fn key(name: &str, kind: &str, type_name: &str) -> Key {
        Key { name: name.to_owned(), kind: kind.to_owned(), type_name: type_name.to_owned() }
    }

    fn facts() -> TableFacts {
        let timestamp = key("Timestamp", "RANGE", "S");
        TableFacts {
            name: "events".to_owned(),
            arn: "arn:aws:dynamodb:eu-west-1:111122223333:table/events".to_owned(),
            status: "ACTIVE".to_owned(),
            keys: vec![key("EventId", "HASH", "S"), timestamp.clone()],
            indexes: vec![Index {
                name: "ByDay".to_owned(),
                status: "ACTIVE".to_owned(),
                keys: vec![key("Day", "HASH", "S"), timestamp],
            }],
            on_demand: true,
            ttl: Ok(Some("ExpiresAt".to_owned())),
            recovery: Ok(true),
        }
    }

    fn judged(change: impl FnOnce(&mut TableFacts)) -> Vec<Finding> {
        let mut facts = facts();
        change(&mut facts);
        table(&Ok(facts))
    }

    #[test]
    fn a_table_in_order_has_no_complaints() {
        let findings = judged(|_| {});
        assert!(findings.iter().all(|finding| finding.status == Status::Ok), "{findings:#?}");
    }

    #[test]
    fn keys_must_be_exactly_those() {
        for keys in [
            vec![key("EventId", "HASH", "S")],
            vec![key("EventId", "HASH", "S"), key("Timestamp", "RANGE", "N")],
            vec![key("Timestamp", "HASH", "S"), key("EventId", "RANGE", "S")],
            vec![key("Id", "HASH", "S"), key("Timestamp", "RANGE", "S")],
        ] {
            let told = Key::told(&keys);
            let findings = judged(|facts| facts.keys = keys);
            assert_finding(&findings, KEYS, Status::Problem, &[&told, "EventId (S, HASH)", "make another table"]);
        }
    }

    #[test]
    fn index_ttl_state_and_backup_are_judged() {
        assert_finding(&judged(|facts| facts.status = "ARCHIVED".to_owned()), TABLE, Status::Problem, &["ARCHIVED"]);
        assert_finding(
            &judged(|facts| facts.indexes.clear()),
            INDEX,
            Status::Warning,
            &["update-table", "ByDay", " --region eu-west-1"],
        );
        assert_finding(&judged(|facts| facts.indexes[0].keys.truncate(1)), INDEX, Status::Problem, &["Day (S, HASH)"]);
        let filling = judged(|facts| facts.indexes[0].status = "CREATING".to_owned());
        assert_finding(&filling, INDEX, Status::Warning, &["wait"]);
        let off = judged(|facts| facts.ttl = Ok(None));
        assert_finding(
            &off,
            TTL,
            Status::Problem,
            &["update-time-to-live --table-name events", "ExpiresAt --region eu-west-1"],
        );
        assert_finding(&judged(|facts| facts.ttl = Ok(Some("ttl".to_owned()))), TTL, Status::Problem, &["by ttl"]);
        assert_finding(&judged(|facts| facts.recovery = Ok(false)), BACKUP, Status::Warning, &["point-in-time"]);
        let gone = table(&Err(Unknown::Missing("no such table".to_owned())));
        assert_finding(&gone, TABLE, Status::Problem, &["no such table"]);
        assert_finding(&gone, TTL, Status::Skipped, &[]);
    }
}
