//! `trailhound replay`: the past through the whole pipeline.
//!
//! In place, the daemon's own [`crate::app::run`] works on a queue in memory that has a message for each object. Otherwise
//! the messages go to the real queue, for the fleet to work on.

mod progress;
mod queue;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::json;

pub use self::progress::Resume;
pub use self::queue::{Outcome, ReplayQueue, Tally};
use crate::listing::Listed;
use crate::ports::PortError;

/// Sends messages to the queue of a fleet.
#[async_trait]
pub trait MessageSender: Send + Sync + 'static {
    /// Sends up to ten messages. The outer error is the call's; an inner one is that message's, in their order.
    async fn send(&self, bodies: &[String]) -> Result<Vec<Result<(), PortError>>, PortError>;
}

/// What a replay would read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Objects and bytes as stored, by account and region as their keys tell them.
    pub parts: BTreeMap<(String, String), Part>,
    /// Left out: done before, by the resume file.
    pub done: u64,
    /// Of these, older than the retention, where their events could alert again: not sent to a queue.
    pub too_old: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub objects: u64,
    pub bytes: u64,
    /// `YYYY-MM-DD`, of the first and the last object by its key.
    pub first: Option<String>,
    pub last: Option<String>,
}

impl Plan {
    pub fn add(&mut self, object: &Listed) {
        let file = object.key.rsplit('/').next().unwrap_or_default();
        let mut names = file.splitn(4, '_');
        let account = names.next().unwrap_or_default().to_owned();
        let region = names.nth(1).unwrap_or_default().to_owned();
        let part = self.parts.entry((account, region)).or_default();
        part.objects += 1;
        part.bytes += object.size;
        if let Some(day) = day(&object.key) {
            if part.first.as_ref().is_none_or(|first| day < *first) {
                part.first = Some(day.clone());
            }
            if part.last.as_ref().is_none_or(|last| day > *last) {
                part.last = Some(day);
            }
        }
    }

    #[must_use]
    pub fn objects(&self) -> u64 {
        self.parts.values().map(|part| part.objects).sum()
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.bytes).sum()
    }
}

/// The day in a log file's name: `<account>_CloudTrail_<region>_<YYYYMMDD>T<HHmm>Z_<unique>`.
#[must_use]
pub fn day(key: &str) -> Option<String> {
    let stamp = key.rsplit('/').next()?.split('_').nth(3)?;
    let date = stamp.get(..8).filter(|date| date.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
    Some(format!("{year}-{month}-{day}"))
}

/// The message that names an object: CloudTrail's own notification, whose keys are not encoded.
#[must_use]
pub fn message(bucket: &str, key: &str) -> String {
    json!({ "s3Bucket": bucket, "s3ObjectKey": [key] }).to_string()
}

/// What requests cost, in US dollars, by the public prices of us-east-1 (S3 Standard, SQS standard queues).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// GET requests at 0.40 for a million, and the LIST requests of the dry run at 5 for a million.
    pub s3: f64,
    /// Four requests for a message at 0.40 for a million: one to send it, its share of a receive, a heartbeat, its share of a
    /// delete. None in place.
    pub sqs: f64,
}

/// Of so many objects, which took so many pages to list.
#[must_use]
pub fn cost(objects: u64, pages: u64, through_the_queue: bool) -> Cost {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let million = |count: u64| count as f64 / 1e6;
    Cost {
        s3: million(objects) * 0.40 + million(pages) * 5.0,
        sqs: if through_the_queue { million(objects) * 4.0 * 0.40 } else { 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification;

    const KEY: &str = "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/05/01/111122223333_CloudTrail_eu-west-1_20260501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz";

    #[test]
    fn a_plan_counts_by_account_and_region() {
        let mut plan = Plan::default();
        plan.add(&Listed { key: KEY.to_owned(), size: 5 });
        plan.add(&Listed { key: KEY.replace("20260501T", "20260430T"), size: 7 });
        plan.add(&Listed { key: KEY.replace("eu-west-1", "us-east-1"), size: 1 });
        let part = &plan.parts[&("111122223333".to_owned(), "eu-west-1".to_owned())];
        assert_eq!((part.objects, part.bytes), (2, 12));
        assert_eq!((part.first.as_deref(), part.last.as_deref()), (Some("2026-04-30"), Some("2026-05-01")));
        assert_eq!((plan.objects(), plan.bytes(), plan.parts.len()), (3, 13, 2));
    }

    #[test]
    fn a_message_names_its_object_whatever_the_key() {
        for key in [KEY.to_owned(), KEY.replace("AWSLogs", "a+b c%2F\"é\u{1}")] {
            let parsed = notification::parse(&message("example-trail-logs", &key));
            assert_eq!(parsed.problems, []);
            assert_eq!((&*parsed.objects[0].bucket, &*parsed.objects[0].key), ("example-trail-logs", &*key));
        }
    }

    #[test]
    fn a_key_without_a_date_has_no_day() {
        for key in ["", "x", "AWSLogs/2026/05/01/a_b_c_d_e", "a_CloudTrail_b_2026é501T1205Z_x"] {
            assert_eq!(day(key), None, "{key}");
        }
    }
}
