//! The trails that write into the buckets.

use time::OffsetDateTime;

use super::key::{self, KeyFacts};
use super::{Finding, Looked, Unknown, quoted, span};

const TRAIL: &str = "trail";
const LOGGING: &str = "trail-logging";
const DELIVERY: &str = "trail-delivery";
const REGIONS: &str = "trail-regions";
const GLOBAL: &str = "trail-global-events";
const VALIDATION: &str = "trail-validation";
const EVENTS: &str = "trail-events";
const KEY: &str = "trail-key";

/// CloudTrail delivers about every five minutes where anything happens.
const LATE: u64 = 3_600;

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, as CloudTrail describes it")]
pub struct TrailFacts {
    pub name: String,
    pub arn: String,
    pub bucket: String,
    /// Of its keys, without the slash at the end.
    pub prefix: Option<String>,
    pub home_region: String,
    pub multi_region: bool,
    pub global_events: bool,
    pub validation: bool,
    pub organization: bool,
    /// The ARN of the topic that it announces files on.
    pub topic: Option<String>,
    /// The key that encrypts its files, as the trail names it, and what it is; `None` where it was not looked at.
    pub key_id: Option<String>,
    pub key: Option<Looked<KeyFacts>>,
    pub status: Looked<TrailStatus>,
    pub management: Looked<Management>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailStatus {
    pub logging: bool,
    pub delivered: Option<OffsetDateTime>,
    /// CloudTrail's word for why it could not deliver last, such as `AccessDenied`.
    pub error: Option<String>,
}

/// Which management events a trail records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Management {
    All {
        /// Sources that are left out, such as `kms.amazonaws.com`.
        without: Vec<String>,
    },
    /// `ReadOnly` or `WriteOnly`, or what an advanced selector asks.
    Some(String),
    None,
}

/// The trails that write into one of the buckets, or that were named. `asked` says which were looked for.
#[must_use]
pub fn trails(facts: &Looked<Vec<TrailFacts>>, asked: &str, now: OffsetDateTime) -> Vec<Finding> {
    let trails = match facts {
        Ok(trails) => trails,
        Err(unknown) => {
            let because = match unknown {
                Unknown::Denied { .. } => "trails cannot be listed",
                _ => "the trails are not known",
            };
            return vec![
                Finding::unknown(TRAIL, unknown),
                Finding::skipped(LOGGING, because),
                Finding::skipped(REGIONS, because),
                Finding::skipped(VALIDATION, because),
            ];
        }
    };
    if trails.is_empty() {
        return vec![
            Finding::warning(
                TRAIL,
                format!("no trail that this account and region can see {asked}"),
                "an organization's trail is seen by its members; one of another account is looked at there. Without any: \
                 deploy/terraform/trail.tf, or aws cloudtrail create-trail --is-multi-region-trail --enable-log-file-validation",
            ),
            Finding::skipped(LOGGING, "there is no trail to ask"),
        ];
    }
    let everywhere =
        |trail: &TrailFacts| trail.multi_region && trail.status.as_ref().is_ok_and(|status| status.logging);
    let covered = trails.iter().any(everywhere);
    let mut findings: Vec<Finding> =
        trails.iter().flat_map(|trail| one(trail, covered, now).into_iter().map(|it| it.on(&trail.name))).collect();
    if trails.len() > 1 {
        let names: Vec<&str> = trails.iter().map(|trail| trail.name.as_str()).collect();
        findings.push(Finding::ok(
            TRAIL,
            format!(
                "{} record the same events: each event alerts once, and is read and paid for several times",
                names.join(" and ")
            ),
        ));
    }
    findings
}

fn one(trail: &TrailFacts, covered: bool, now: OffsetDateTime) -> Vec<Finding> {
    let whose = if trail.organization { ", of the organization" } else { "" };
    let mut findings = vec![Finding::ok(TRAIL, format!("{} writes into {}{whose}", trail.arn, trail.bucket))];
    findings.extend(status(trail, now));
    findings.push(regions(trail, covered));
    findings.push(global(trail, covered));
    findings.push(if trail.validation {
        Finding::ok(VALIDATION, "log files can be validated")
    } else {
        Finding::warning(
            VALIDATION,
            "log files cannot be validated: nobody notices that one was changed or deleted",
            update(trail, "--enable-log-file-validation"),
        )
    });
    findings.push(events(trail));
    findings.extend(trail.key.as_ref().map(|key| key::works(KEY, key)));
    findings
}

fn update(trail: &TrailFacts, option: &str) -> String {
    let (name, region) = (quoted(&trail.arn), quoted(&trail.home_region));
    format!("aws cloudtrail update-trail --name {name} --region {region} {option}")
}

fn status(trail: &TrailFacts, now: OffsetDateTime) -> Vec<Finding> {
    let status = match &trail.status {
        Ok(status) => status,
        Err(unknown) => return vec![Finding::unknown(LOGGING, unknown)],
    };
    if !status.logging {
        let (name, region) = (quoted(&trail.arn), quoted(&trail.home_region));
        return vec![
            Finding::problem(
                LOGGING,
                "the trail is stopped: nothing is recorded",
                format!("aws cloudtrail start-logging --name {name} --region {region}"),
            ),
            Finding::skipped(DELIVERY, "the trail is stopped"),
        ];
    }
    let delivery = match (&status.error, status.delivered) {
        (Some(error), _) => Finding::problem(
            DELIVERY,
            format!("CloudTrail could not deliver into {}: {error}", trail.bucket),
            "look at the bucket's policy (cloudtrail.amazonaws.com: s3:GetBucketAcl, s3:PutObject) and at the key's",
        ),
        (None, None) => Finding::warning(
            DELIVERY,
            "nothing was delivered yet",
            "wait for a quarter of an hour; then look at the bucket's policy",
        ),
        (None, Some(delivered)) => {
            let ago = u64::try_from((now - delivered).whole_seconds()).unwrap_or(0);
            if ago > LATE {
                Finding::warning(
                    DELIVERY,
                    format!("nothing was delivered for {}", span(ago)),
                    "an account in use has a file every five minutes: look at the trail's events and the bucket's policy",
                )
            } else {
                Finding::ok(DELIVERY, format!("delivered {} ago", span(ago)))
            }
        }
    };
    vec![Finding::ok(LOGGING, "the trail is logging"), delivery]
}

fn regions(trail: &TrailFacts, covered: bool) -> Finding {
    if trail.multi_region {
        return Finding::ok(REGIONS, "records all regions");
    }
    let found = format!("records {} only", trail.home_region);
    if covered {
        return Finding::ok(REGIONS, format!("{found}; another trail records all regions"));
    }
    Finding::problem(
        REGIONS,
        format!("{found}: an attacker works where nobody looks"),
        update(trail, "--is-multi-region-trail"),
    )
}

fn global(trail: &TrailFacts, covered: bool) -> Finding {
    if trail.global_events || covered {
        return Finding::ok(GLOBAL, "events of global services (IAM, STS, CloudFront) are recorded");
    }
    Finding::problem(
        GLOBAL,
        "events of global services (IAM, STS, CloudFront) are not recorded",
        update(trail, "--include-global-service-events"),
    )
}

fn events(trail: &TrailFacts) -> Finding {
    let (name, region) = (quoted(&trail.arn), quoted(&trail.home_region));
    let mend = format!(
        "aws cloudtrail put-event-selectors --trail-name {name} --region {region} --event-selectors \
         ReadWriteType=All,IncludeManagementEvents=true # this replaces its selectors: keep those for data events"
    );
    match &trail.management {
        Err(unknown) => Finding::unknown(EVENTS, unknown),
        Ok(Management::All { without }) if without.is_empty() => Finding::ok(EVENTS, "all management events"),
        Ok(Management::All { without }) => {
            Finding::ok(EVENTS, format!("all management events but those of {}", without.join(" and ")))
        }
        Ok(Management::Some(which)) => Finding::warning(
            EVENTS,
            format!("management events, but only {which}: rules for the others match nothing"),
            mend,
        ),
        Ok(Management::None) => {
            Finding::problem(EVENTS, "no management events are recorded: nearly every rule matches nothing", mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::doctor::Status;
    use crate::doctor::tests::assert_finding;

    const NOW: OffsetDateTime = datetime!(2026-05-01 12:00 UTC);

    fn trail() -> TrailFacts {
        TrailFacts {
            name: "main".to_owned(),
            arn: "arn:aws:cloudtrail:eu-west-1:111122223333:trail/main".to_owned(),
            bucket: "example-logs".to_owned(),
            prefix: None,
            home_region: "eu-west-1".to_owned(),
            multi_region: true,
            global_events: true,
            validation: true,
            organization: false,
            topic: None,
            key_id: None,
            key: None,
            status: Ok(TrailStatus { logging: true, delivered: Some(datetime!(2026-05-01 11:56 UTC)), error: None }),
            management: Ok(Management::All { without: Vec::new() }),
        }
    }

    fn judged(change: impl FnOnce(&mut TrailFacts)) -> Vec<Finding> {
        let mut trail = trail();
        change(&mut trail);
        trails(&Ok(vec![trail]), "writes into example-logs", NOW)
    }

    #[test]
    fn a_trail_in_order_has_no_complaints() {
        let findings = judged(|_| {});
        assert!(findings.iter().all(|finding| finding.status == Status::Ok), "{findings:#?}");
        assert!(findings.iter().all(|finding| finding.on.as_deref() == Some("main")));
    }

    #[test]
    fn each_setting_of_a_trail_is_judged_and_mended_by_a_command() {
        let stopped = judged(|trail| trail.status.as_mut().unwrap().logging = false);
        assert_finding(
            &stopped,
            LOGGING,
            Status::Problem,
            &["start-logging --name arn:aws:cloudtrail:eu-west-1", "--region"],
        );
        assert_finding(&stopped, DELIVERY, Status::Skipped, &[]);
        let single = judged(|trail| trail.multi_region = false);
        assert_finding(&single, REGIONS, Status::Problem, &["eu-west-1 only", "--is-multi-region-trail"]);
        let local = judged(|trail| (trail.multi_region, trail.global_events) = (false, false));
        assert_finding(&local, GLOBAL, Status::Problem, &["--include-global-service-events"]);
        let unsigned = judged(|trail| trail.validation = false);
        assert_finding(&unsigned, VALIDATION, Status::Warning, &["--enable-log-file-validation"]);
        let nothing = judged(|trail| trail.management = Ok(Management::None));
        assert_finding(&nothing, EVENTS, Status::Problem, &["put-event-selectors", "IncludeManagementEvents=true"]);
        let half = judged(|trail| trail.management = Ok(Management::Some("WriteOnly".to_owned())));
        assert_finding(&half, EVENTS, Status::Warning, &["only WriteOnly"]);
    }

    #[test]
    fn deliveries_are_looked_at() {
        let delivery = |delivered, error: Option<&str>| {
            judged(|trail| {
                trail.status = Ok(TrailStatus { logging: true, delivered, error: error.map(str::to_owned) });
            })
        };
        assert_finding(
            &delivery(None, Some("AccessDenied")),
            DELIVERY,
            Status::Problem,
            &["AccessDenied", "s3:PutObject"],
        );
        assert_finding(&delivery(None, None), DELIVERY, Status::Warning, &["nothing was delivered yet"]);
        let old = delivery(Some(datetime!(2026-05-01 9:00 UTC)), None);
        assert_finding(&old, DELIVERY, Status::Warning, &["for 3 hours"]);
        assert_finding(
            &delivery(Some(datetime!(2026-05-01 12:03 UTC)), None),
            DELIVERY,
            Status::Ok,
            &["0 seconds ago"],
        );
    }

    #[test]
    fn one_trail_may_cover_for_another_and_several_are_told() {
        let local = TrailFacts { name: "local".to_owned(), multi_region: false, global_events: false, ..trail() };
        let findings = trails(&Ok(vec![local.clone(), trail()]), "", NOW);
        assert!(findings.iter().all(|finding| finding.status == Status::Ok), "{findings:#?}");
        assert!(findings.last().unwrap().found.starts_with("local and main record the same events"));
        // One that is stopped covers for nobody.
        let mut stopped = trail();
        stopped.status.as_mut().unwrap().logging = false;
        let findings = trails(&Ok(vec![local, stopped]), "", NOW);
        let single = findings.iter().find(|finding| finding.check == REGIONS).unwrap();
        assert_eq!(single.status, Status::Problem);
    }

    #[test]
    fn no_trail_is_told_with_what_was_looked_for() {
        let findings = trails(&Ok(Vec::new()), "writes into example-logs", NOW);
        assert_finding(&findings, TRAIL, Status::Warning, &["writes into example-logs"]);
        let denied = Unknown::Denied { action: "cloudtrail:DescribeTrails".to_owned(), on: "*".to_owned() };
        let findings = trails(&Err(denied), "", NOW);
        assert_finding(&findings, TRAIL, Status::Skipped, &["cloudtrail:DescribeTrails", "\"Resource\":\"*\""]);
    }
}
