//! The event names that CloudTrail records, by event source: what tells a misspelt rule from one that has yet to match.
//!
//! Three files of the tree hold the data, and each says where it is from: `event_names.txt` is generated from the API's
//! models, `cloudtrail.txt` corrects it by hand, and `iam_actions.txt` knows what is called otherwise in an IAM policy or
//! in the API.

use std::collections::BTreeMap;

use crate::rules::{TEST_EVENT, suggest, wildcard};

const EVENT_NAMES: &str = include_str!("event_names.txt");
const CLOUDTRAIL: &str = include_str!("cloudtrail.txt");
const IAM_ACTIONS: &str = include_str!("iam_actions.txt");

const SUFFIX: &str = ".amazonaws.com";

/// More edits make another name of it: many differ in their verb only.
const MAX_EDITS: usize = 2;

/// What people call a service (its name, its SDK's, its IAM prefix), and what it records under.
const ALIASES: &[(&str, &str)] = &[
    ("accessanalyzer", "access-analyzer"),
    ("amp", "aps"),
    ("api-gateway", "apigateway"),
    ("apigatewayv2", "apigateway"),
    ("aurora", "rds"),
    ("certificate-manager", "acm"),
    ("certificatemanager", "acm"),
    ("cloudcontrol", "cloudcontrolapi"),
    ("cloudwatch", "monitoring"),
    ("cloudwatch-events", "events"),
    ("cloudwatch-logs", "logs"),
    ("cloudwatchevents", "events"),
    ("cloudwatchlogs", "logs"),
    ("cognito", "cognito-idp"),
    ("console", "signin"),
    ("directory-service", "ds"),
    ("directoryservice", "ds"),
    ("docdb", "rds"),
    ("dynamodbstreams", "dynamodb"),
    ("efs", "elasticfilesystem"),
    ("elasticsearch", "es"),
    ("elb", "elasticloadbalancing"),
    ("elbv2", "elasticloadbalancing"),
    ("email", "ses"),
    ("emr", "elasticmapreduce"),
    ("eventbridge", "events"),
    ("iam-identity-center", "sso"),
    ("identity-center", "sso"),
    ("identitycenter", "sso"),
    ("keyspaces", "cassandra"),
    ("location", "geo"),
    ("login", "signin"),
    ("macie", "macie2"),
    ("msk", "kafka"),
    ("mwaa", "airflow"),
    ("neptune", "rds"),
    ("opensearch", "es"),
    ("opensearchserverless", "aoss"),
    ("parameter-store", "ssm"),
    ("pinpoint", "mobiletargeting"),
    ("prometheus", "aps"),
    ("rds-data", "rdsdata"),
    ("resourcegroupstaggingapi", "tagging"),
    ("s3-control", "s3"),
    ("s3control", "s3"),
    ("sesv2", "ses"),
    ("sfn", "states"),
    ("sso-admin", "sso"),
    ("sso-oidc", "sso-oauth"),
    ("step-functions", "states"),
    ("stepfunctions", "states"),
    ("systems-manager", "ssm"),
    ("systemsmanager", "ssm"),
    ("tag", "tagging"),
    ("vpc", "ec2"),
];

/// The table, parsed: build it once for all questions.
#[derive(Debug)]
pub struct EventNames {
    /// The names are sorted.
    by_source: BTreeMap<&'static str, Vec<&'static str>>,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Action {
    /// Of the service whose action it is; `None` for a service that records nothing.
    source: Option<&'static str>,
    service: &'static str,
    name: &'static str,
    event: Option<&'static str>,
}

/// An existing name that an unknown one resembles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// Differs in case only, which counts.
    Case(&'static str),
    /// At most two edits away.
    Spelling(&'static str),
}

/// What CloudTrail makes of an IAM action or an operation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    As { source: &'static str, name: &'static str },
    Never,
}

impl Default for EventNames {
    fn default() -> Self {
        Self::new()
    }
}

impl EventNames {
    #[must_use]
    pub fn new() -> Self {
        let mut by_source: BTreeMap<_, Vec<_>> =
            lines(EVENT_NAMES).map(|(source, names)| (source, names.split(' ').collect())).collect();
        for (sign, rest) in lines(CLOUDTRAIL) {
            let (source, names) = first_word(rest);
            let known = by_source.entry(source).or_default();
            if sign == "-" {
                known.retain(|known| !names.split(' ').any(|name| name == *known));
            } else {
                known.extend(names.split(' '));
                known.sort_unstable();
            }
        }
        let (source, name) = TEST_EVENT;
        by_source.insert(source, vec![name]);
        let mut table = Self { by_source, actions: Vec::new() };
        table.actions = lines(IAM_ACTIONS).map(|(service, rest)| table.action(service, rest)).collect();
        table
    }

    fn action(&self, service: &'static str, rest: &'static str) -> Action {
        let (name, event) = first_word(rest);
        Action { source: self.called(service), service, name, event: (event != "-").then_some(event) }
    }

    /// The event sources that have an event of exactly this name.
    #[must_use]
    pub fn sources_of(&self, name: &str) -> Vec<&'static str> {
        let has = |names: &[&str]| names.binary_search(&name).is_ok();
        self.by_source.iter().filter(|(_, names)| has(names)).map(|(source, _)| *source).collect()
    }

    #[must_use]
    pub fn has_source(&self, source: &str) -> bool {
        self.by_source.contains_key(source)
    }

    #[must_use]
    pub fn has(&self, source: &str, name: &str) -> bool {
        self.name(source, name).is_some()
    }

    fn name(&self, source: &str, name: &str) -> Option<&'static str> {
        let names = self.by_source.get(source)?;
        names.binary_search(&name).ok().and_then(|index| names.get(index)).copied()
    }

    /// Whether any event, of this source where one is given, fits a pattern of `*` and `?`.
    #[must_use]
    pub fn matches(&self, source: Option<&str>, pattern: &str) -> bool {
        match source {
            None => self.by_source.values().flatten().any(|name| wildcard::matches(pattern, name)),
            Some(source) => self
                .by_source
                .get(source)
                .is_some_and(|names| names.iter().any(|name| wildcard::matches(pattern, name))),
        }
    }

    /// The event, of one of these sources where some are given, that an unknown name was probably meant to be; nothing for
    /// a name that is known there.
    #[must_use]
    pub fn near(&self, sources: Option<&[&str]>, name: &str) -> Option<Near> {
        let Some(sources) = sources else {
            return near(name, || self.by_source.values().flatten().copied());
        };
        near(name, || sources.iter().filter_map(|source| self.by_source.get(source)).flatten().copied())
    }

    /// The event source that a wrong one was probably meant to be: an IAM prefix, the name of an SDK, a misspelling. Asked
    /// for `cloudwatch.amazonaws.com`, it answers with `monitoring.amazonaws.com` although a newer service records under
    /// the former.
    #[must_use]
    pub fn near_source(&self, source: &str) -> Option<&'static str> {
        let found = self
            .called(source)
            .or_else(|| suggest::nearest_within(MAX_EDITS, source, self.by_source.keys().copied()))?;
        (found != source).then_some(found)
    }

    /// What CloudTrail records for an IAM action or an operation of the API that is not the name of its event; the service
    /// may be given as a prefix (`s3:PutLifecycleConfiguration`), and this one counts. Without a service, the first that
    /// has such an action.
    #[must_use]
    pub fn recorded_as(&self, source: Option<&str>, action: &str) -> Option<Recorded> {
        let (service, name) = match action.split_once(':') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (source, action),
        };
        let found = service.and_then(|service| self.called(service));
        let listed = self.actions.iter().find(|known| {
            // As IAM has it.
            known.name.eq_ignore_ascii_case(name)
                && service.is_none_or(|service| known.service == service || (found.is_some() && known.source == found))
        });
        match (listed, found) {
            (Some(Action { event: None, .. }), _) => Some(Recorded::Never),
            (Some(Action { event: Some(event), source, .. }), _) => {
                source.map(|source| Recorded::As { source, name: event })
            }
            // The action's name is the event's, and only the prefix was too much.
            (None, Some(source)) if action != name => self.name(source, name).map(|name| Recorded::As { source, name }),
            (None, _) => None,
        }
    }

    /// The event source of a service that is called by another name, or by part of its own.
    fn called(&self, service: &str) -> Option<&'static str> {
        let service = service.to_ascii_lowercase();
        let service = service.strip_prefix("aws.").unwrap_or(&service);
        let service = [SUFFIX, ".amazonaws.com.cn", ".amazon.com"]
            .iter()
            .find_map(|suffix| service.strip_suffix(suffix))
            .unwrap_or(service);
        let alias = ALIASES.iter().find(|(alias, _)| *alias == service).map_or(service, |(_, name)| name);
        self.by_source.get_key_value(format!("{alias}{SUFFIX}").as_str()).map(|(source, _)| *source)
    }
}

/// The lines of a file of data, comments left out, as first word and rest.
fn lines(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(first_word)
}

fn first_word(line: &'static str) -> (&'static str, &'static str) {
    line.split_once(' ').unwrap_or((line, ""))
}

fn near<I: Iterator<Item = &'static str>>(name: &str, known: impl Fn() -> I) -> Option<Near> {
    if known().any(|candidate| candidate == name) {
        return None;
    }
    known().find(|candidate| candidate.eq_ignore_ascii_case(name)).map(Near::Case).or_else(|| {
        // In another case it would be a known name already.
        suggest::nearest_within(MAX_EDITS, name, known()).map(Near::Spelling)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::rules::DEFAULT_RULES;

    /// The rest of each line after `words` first words, as a list, under the first words.
    fn lists(text: &'static str, words: usize) -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
        lines(text)
            .map(|(first, rest)| {
                let mut all: Vec<_> = [first].into_iter().chain(rest.split(' ')).collect();
                let names = all.split_off(words);
                (all, names)
            })
            .collect()
    }

    fn sorted<T: Ord>(items: &[T]) -> bool {
        items.windows(2).all(|pair| pair[0] < pair[1])
    }

    fn as_event(source: &'static str, name: &'static str) -> Recorded {
        Recorded::As { source, name }
    }

    #[test]
    fn the_generated_file_is_sorted_and_plain() {
        let sources = lists(EVENT_NAMES, 1);
        assert!(sorted(&sources.iter().map(|(source, _)| source[0]).collect::<Vec<_>>()));
        assert!(sources.len() > 350);
        for (source, names) in sources {
            assert!(sorted(&names), "{source:?}");
        }
        assert!(EVENT_NAMES.len() < 600_000);
        let table = EventNames::new();
        for (source, names) in table.by_source.iter().filter(|(source, _)| **source != TEST_EVENT.0) {
            assert!(source.strip_suffix(SUFFIX).is_some_and(|name| !name.is_empty()), "{source}");
            assert!(!names.is_empty(), "{source}");
            for text in names.iter().chain([source]) {
                assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte)), "{text:?}");
            }
        }
    }

    #[test]
    fn a_correction_corrects_something_and_says_what_is_recorded_instead() {
        let generated: Vec<_> = lists(EVENT_NAMES, 1);
        let table = EventNames::new();
        let mut seen = BTreeSet::new();
        for (head, names) in lists(CLOUDTRAIL, 2) {
            assert!(sorted(&names), "{head:?}");
            let known = generated.iter().find(|(source, _)| source[0] == head[1]).map(|(_, names)| names);
            for name in names {
                assert!(seen.insert((head[1], name)), "{head:?} {name}: twice");
                let is_known = known.is_some_and(|known| known.contains(&name));
                match head[0] {
                    "+" => assert!(!is_known, "{head:?} {name}: is in event_names.txt"),
                    "-" => {
                        assert!(is_known, "{head:?} {name}: is not in event_names.txt");
                        assert!(table.recorded_as(Some(head[1]), name).is_some(), "{head:?} {name}");
                    }
                    sign => panic!("{sign}"),
                }
            }
        }
    }

    #[test]
    fn an_action_has_another_name_and_leads_to_an_event() {
        let actions = lists(IAM_ACTIONS, 2);
        assert!(sorted(&actions.iter().map(|(action, _)| action.clone()).collect::<Vec<_>>()));
        let table = EventNames::new();
        for (action, _) in actions {
            let prefixed = action.join(":");
            match table.recorded_as(None, &prefixed) {
                Some(Recorded::As { source, name }) => {
                    assert!(table.has(source, name), "{prefixed} -> {source} {name}");
                    assert!(!table.has(source, action[1]), "{prefixed} is an event itself");
                    assert_eq!(table.recorded_as(Some(source), action[1]), Some(as_event(source, name)));
                }
                Some(Recorded::Never) => assert!(table.sources_of(action[1]).is_empty(), "{prefixed}"),
                None => panic!("{prefixed}"),
            }
        }
    }

    #[test]
    fn what_cloudtrail_records_is_known() {
        let table = EventNames::new();
        for (source, names) in [
            ("account", "PutAlternateContact EnableRegion"),
            ("apigateway", "CreateRestApi CreateApi"),
            ("bedrock", "InvokeModel CreateAgent Retrieve"),
            ("cloudfront", "CreateFunction2020_05_31 CreateDistributionWithTags"),
            ("cloudshell", "CreateSession"),
            ("cloudtrail", "StopLogging DeleteTrail"),
            ("cognito-idp", "AdminInitiateAuth Token_POST"),
            ("config", "StopConfigurationRecorder"),
            ("dynamodb", "PutItem GetRecords"),
            ("ec2", "RunInstances SharedSnapshotCopyInitiated BidEvictedEvent"),
            ("ecr", "PutImage"),
            ("eks", "CreateAccessEntry"),
            ("elasticfilesystem", "DeleteMountTarget"),
            ("elasticloadbalancing", "DeleteLoadBalancer ModifyListener"),
            ("es", "CreateDomain CreateElasticsearchDomain"),
            ("events", "PutRule"),
            ("guardduty", "DeleteDetector"),
            ("iam", "AddRoleToInstanceProfile CreateAccessKey"),
            ("identitystore", "CreateGroupMembership"),
            ("kms", "ScheduleKeyDeletion DeleteKey RotateKey"),
            ("lambda", "CreateFunction20150331 UpdateFunctionCode20150331v2 Invoke CreateFunctionUrlConfig"),
            ("logs", "DeleteLogGroup"),
            ("macie2", "DisableMacie"),
            ("monitoring", "PutMetricAlarm"),
            ("organizations", "LeaveOrganization CreateAccountResult"),
            ("rdsdata", "ExecuteStatement"),
            (
                "s3",
                "PutBucketLifecycle DeleteBucketEncryption PutAccountPublicAccessBlock HeadBucket ListBuckets GetObject",
            ),
            ("s3express", "CreateSession"),
            ("secretsmanager", "GetSecretValue RotationFailed"),
            ("ses", "SendEmail DeleteIdentity CreateEmailIdentity"),
            ("signin", "ConsoleLogin CheckMfa SwitchRole GetSigninToken PasswordRecoveryRequested"),
            ("sso", "CreatePermissionSet AssociateDirectory GetRoleCredentials CreateToken"),
            ("sso-directory", "DisableExternalIdPConfigurationForDirectory AddMemberToGroup"),
            ("states", "UpdateStateMachine"),
            ("sts", "AssumeRole AssumeRoot GetCallerIdentity"),
            ("tagging", "TagResources"),
            ("waf-regional", "DeleteWebACL"),
            ("wafv2", "DeleteWebACL"),
        ] {
            let source = format!("{source}{SUFFIX}");
            assert!(table.has_source(&source), "{source}");
            for name in names.split(' ') {
                assert!(table.has(&source, name), "{source} {name}");
                assert!(table.sources_of(name).contains(&source.as_str()), "{source} {name}");
                assert_eq!(table.near(Some(&[&source]), name), None, "{source} {name}");
            }
        }
        for (source, name) in [
            ("s3", "PutBucketLifecycleConfiguration"),
            ("s3", "PutPublicAccessBlock"),
            ("lambda", "CreateFunction"),
            ("iam", "CreateTrail"),
            ("execute-api", "PostToConnection"),
        ] {
            assert!(!table.has(&format!("{source}{SUFFIX}"), name), "{source} {name}");
        }
        assert!(table.sources_of("CreatePolicy").contains(&"organizations.amazonaws.com"));
        assert!(table.sources_of("NoSuchEvent").is_empty());
    }

    #[test]
    fn the_default_rules_name_known_events_of_known_sources() {
        let texts = |value: &Value| match value {
            Value::Array(values) => values.iter().map(|value| value.as_str().unwrap().to_owned()).collect(),
            Value::String(text) => vec![text.clone()],
            _ => Vec::new(),
        };
        let table = EventNames::new();
        let file: Value = serde_json::from_str(DEFAULT_RULES).unwrap();
        let mut names = 0;
        for rule in file["events"].as_array().unwrap() {
            let sources = texts(&rule["eventSource"]);
            for source in &sources {
                assert!(table.has_source(source), "{source}");
            }
            for name in texts(&rule["eventName"]) {
                names += 1;
                let known = match &sources[..] {
                    [] => table.matches(None, &name),
                    sources => sources.iter().any(|source| table.matches(Some(source), &name)),
                };
                assert!(known, "{} {name}", rule["id"]);
            }
        }
        assert!(names > 50);
    }

    #[test]
    fn a_pattern_fits_an_event_or_none() {
        let table = EventNames::new();
        for (source, pattern, expected) in [
            (None, "UpdateFunctionCode*", true),
            (Some("lambda.amazonaws.com"), "UpdateFunctionCode????????v?", true),
            (Some("s3.amazonaws.com"), "UpdateFunctionCode*", false),
            (Some("s3.amazonaws.com"), "putbucket*", false),
            (Some("no-such.amazonaws.com"), "*", false),
            (None, "*NoSuchEvent*", false),
        ] {
            assert_eq!(table.matches(source, pattern), expected, "{source:?} {pattern}");
        }
    }

    #[test]
    fn a_near_name_is_suggested() {
        let table = EventNames::new();
        let iam: &[&str] = &["iam.amazonaws.com"];
        let several: &[&str] = &["no-such.amazonaws.com", "signin.amazonaws.com", "iam.amazonaws.com"];
        for (sources, name, expected) in [
            (Some(iam), "createaccesskey", Some(Near::Case("CreateAccessKey"))),
            (Some(iam), "CreateAccesKey", Some(Near::Spelling("CreateAccessKey"))),
            (Some(iam), "CreateAccessKeys", Some(Near::Spelling("CreateAccessKey"))),
            (Some(iam), "ConsoleLogin", None),
            (Some(several), "Consolelogin", Some(Near::Case("ConsoleLogin"))),
            (None, "ConsoleLogins", Some(Near::Spelling("ConsoleLogin"))),
            (None, "StopLoging", Some(Near::Spelling("StopLogging"))),
            (None, "StopLogging", None),
            (Some(&[]), "StopLoging", None),
            (None, "SomethingElseEntirely", None),
            (None, "", None),
        ] {
            assert_eq!(table.near(sources, name), expected, "{sources:?} {name}");
        }
    }

    #[test]
    fn a_service_is_recognised_by_its_other_names() {
        let table = EventNames::new();
        for (source, expected) in [
            ("iam", Some("iam")),
            ("IAM.amazonaws.com", Some("iam")),
            ("iam.amazon.com", Some("iam")),
            ("aws.ec2", Some("ec2")),
            ("ec2.amazonaws.com.cn", Some("ec2")),
            ("cloudwatch.amazonaws.com", Some("monitoring")),
            ("sesv2", Some("ses")),
            ("cloudtrial.amazonaws.com", Some("cloudtrail")),
            ("kms.amazonaws.com", None),
            ("example.com", None),
            ("", None),
        ] {
            let expected = expected.map(|name| format!("{name}{SUFFIX}"));
            assert_eq!(table.near_source(source).map(str::to_owned), expected, "{source}");
        }
        assert!(sorted(ALIASES));
        for (alias, name) in ALIASES {
            assert!(table.has_source(&format!("{name}{SUFFIX}")), "{name}");
            // Where both exist, people mean the older service.
            assert_eq!(table.has_source(&format!("{alias}{SUFFIX}")), *alias == "cloudwatch", "{alias}");
        }
    }

    #[test]
    fn an_action_is_recorded_under_its_events_name() {
        let table = EventNames::new();
        let lifecycle = Some(as_event("s3.amazonaws.com", "PutBucketLifecycle"));
        for (source, action, expected) in [
            (Some("s3.amazonaws.com"), "PutLifecycleConfiguration", lifecycle),
            (None, "PutLifecycleConfiguration", lifecycle),
            (None, "s3:PutLifecycleConfiguration", lifecycle),
            (Some("s3.amazonaws.com"), "s3:putlifecycleconfiguration", lifecycle),
            (Some("iam.amazonaws.com"), "PutLifecycleConfiguration", None),
            // The prefix counts more than the source.
            (Some("iam.amazonaws.com"), "s3:PutLifecycleConfiguration", lifecycle),
            (None, "s3:PutBucketLifecycleConfiguration", lifecycle),
            (None, "lambda:UpdateFunctionCode", Some(as_event("lambda.amazonaws.com", "UpdateFunctionCode20150331v2"))),
            (Some("lambda"), "InvokeFunction", Some(as_event("lambda.amazonaws.com", "Invoke"))),
            (None, "iam:CreateUser", Some(as_event("iam.amazonaws.com", "CreateUser"))),
            (None, "cloudwatch:PutMetricAlarm", Some(as_event("monitoring.amazonaws.com", "PutMetricAlarm"))),
            (None, "iam:PassRole", Some(Recorded::Never)),
            (None, "PassRole", Some(Recorded::Never)),
            (None, "rds-db:connect", Some(Recorded::Never)),
            (Some("s3.amazonaws.com"), "ReplicateObject", Some(Recorded::Never)),
            (None, "iam:*", None),
            (None, "nothing:CreateUser", None),
            (None, "CreateUser", None),
            (None, ":", None),
        ] {
            assert_eq!(table.recorded_as(source, action), expected, "{source:?} {action}");
        }
    }
}
