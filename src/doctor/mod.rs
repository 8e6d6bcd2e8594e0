//! What `trailhound doctor` makes of an installation: plain facts in, findings out. Pure.
//!
//! `aws::installation` gathers the facts; what could not be gathered is a fact of its own ([`Unknown`]). Each finding says
//! what was found and, unless it is in order, how to mend it.

pub mod bucket;
pub mod caller;
pub mod key;
pub mod policy;
pub mod queue;
pub mod round_trip;
pub mod table;
pub mod topic;
pub mod trail;

use std::fmt;

use serde::Serialize;

use crate::alert::quoted;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// Alerts are lost, or will be.
    Problem,
    /// Nothing was found out.
    Skipped,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
            Self::Skipped => "skipped",
        }
    }
}

/// One line of the report. Its texts may hold what others wrote: show them only escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked: a name that stays the same from release to release.
    pub check: &'static str,
    /// Which of several, such as a bucket's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    pub status: Status,
    pub found: String,
    /// A command, or what to do: on one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn new(check: &'static str, status: Status, found: impl Into<String>, mend: Option<String>) -> Self {
        Self { check, on: None, status, found: found.into(), mend }
    }

    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, found, None)
    }

    pub fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(check, Status::Warning, found, Some(mend.into()))
    }

    pub fn problem(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(check, Status::Problem, found, Some(mend.into()))
    }

    /// `because` follows "skipped, because".
    pub fn skipped(check: &'static str, because: impl Into<String>) -> Self {
        Self::new(check, Status::Skipped, because, None)
    }

    #[must_use]
    pub fn on(mut self, name: &str) -> Self {
        self.on = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn mended_by(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// What could not be found out: a missing permission skips the check, anything else is a problem.
    #[must_use]
    pub fn unknown(check: &'static str, unknown: &Unknown) -> Self {
        match unknown {
            Unknown::Denied { action, on } => Self::skipped(check, unknown.to_string()).mended_by(grant(action, on)),
            Unknown::Missing(detail) => {
                Self::problem(check, detail.clone(), "make it, or correct its name in the configuration")
            }
            Unknown::Credentials(detail) => Self::problem(
                check,
                detail.clone(),
                "aws sts get-caller-identity must work where the doctor runs: sign in, or name a profile with AWS_PROFILE",
            ),
            Unknown::Failed(detail) => Self::problem(
                check,
                detail.clone(),
                "look at the network between here and AWS (endpoints, proxy), then ask again",
            ),
        }
    }
}

/// The statement to add to the operator's policy.
fn grant(action: &str, on: &str) -> String {
    let resource = if on.starts_with("arn:") { on } else { "*" };
    let statement = serde_json::json!({ "Effect": "Allow", "Action": action, "Resource": resource });
    format!("add to the policy of the role that runs the doctor: {statement}")
}

/// Why a fact is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// An IAM action is missing, as `service:Action`, on this ARN or name.
    Denied { action: String, on: String },
    /// What was asked about does not exist, in the service's words.
    Missing(String),
    /// The credentials are absent, expired or refused.
    Credentials(String),
    /// No answer, or one that cannot be used.
    Failed(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { action, on } => write!(f, "{action} on {on} is denied"),
            Self::Missing(detail) | Self::Credentials(detail) | Self::Failed(detail) => f.write_str(detail),
        }
    }
}

/// A fact, or why it is not known.
pub type Looked<T> = Result<T, Unknown>;

/// The option that names the region of an ARN, to be put after a command: whoever pastes it may be configured for another.
fn in_region(arn: &str) -> String {
    let region = Arn::parse(arn).map(|arn| arn.region).filter(|region| !region.is_empty());
    region.map(|region| format!(" --region {}", quoted(region))).unwrap_or_default()
}

/// `arn:partition:service:region:account:resource`, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    pub partition: &'a str,
    pub service: &'a str,
    pub region: &'a str,
    pub account: &'a str,
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut part = || parts.next();
        (part()? == "arn").then_some(())?;
        Some(Self { partition: part()?, service: part()?, region: part()?, account: part()?, resource: part()? })
    }
}

fn plural(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// Seconds as people say them.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => plural(seconds, "second"),
        120..7_200 => plural(seconds / 60, "minute"),
        7_200..172_800 => plural(seconds / 3_600, "hour"),
        _ => plural(seconds / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one finding of a check.
    pub(super) fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        let found: Vec<_> = findings.iter().filter(|finding| finding.check == check).collect();
        assert_eq!(found.len(), 1, "{check} in {findings:#?}");
        found[0]
    }

    /// Its status, and that text and mending hold these words.
    #[track_caller]
    pub(super) fn assert_finding(findings: &[Finding], check: &str, status: Status, words: &[&str]) {
        let finding = of(findings, check);
        let text = format!("{} {}", finding.found, finding.mend.as_deref().unwrap_or_default());
        assert_eq!(finding.status, status, "{finding:#?}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in {finding:#?}");
        }
    }

    #[test]
    fn what_is_denied_names_the_action_and_the_statement_that_grants_it() {
        let queue = "arn:aws:sqs:eu-west-1:111122223333:trail".to_owned();
        let denied = Unknown::Denied { action: "sqs:GetQueueAttributes".to_owned(), on: queue };
        let finding = Finding::unknown("queue", &denied);
        assert_eq!(finding.status, Status::Skipped);
        assert_eq!(
            finding.mend.as_deref(),
            Some(
                "add to the policy of the role that runs the doctor: {\"Effect\":\"Allow\",\"Action\":\
                 \"sqs:GetQueueAttributes\",\"Resource\":\"arn:aws:sqs:eu-west-1:111122223333:trail\"}"
            )
        );
        let failed = Finding::unknown("queue", &Unknown::Failed("no answer in time".to_owned()));
        assert_eq!((failed.status, failed.found.as_str()), (Status::Problem, "no answer in time"));
    }

    #[test]
    fn a_word_for_the_shell_stays_one() {
        assert_eq!(quoted("arn:aws:sqs:eu-west-1:111122223333:trail"), "arn:aws:sqs:eu-west-1:111122223333:trail");
        assert_eq!(quoted("a; rm -rf $HOME"), "'a; rm -rf $HOME'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn arns_are_read_in_parts() {
        let arn = Arn::parse("arn:aws-cn:sns:cn-north-1:111122223333:alerts:0a1b").unwrap();
        assert_eq!((arn.partition, arn.region, arn.resource), ("aws-cn", "cn-north-1", "alerts:0a1b"));
        assert_eq!(Arn::parse("alerts"), None);
        assert_eq!(Arn::parse("arn:aws:sns"), None);
    }
}
