//! Where and as whom calls are made, and whether the clock is right.

use super::{Arn, Finding, Looked, span};

const REGION: &str = "region";
const CREDENTIALS: &str = "credentials";
const CLOCK: &str = "clock";

/// AWS refuses signatures that are older, or newer, than this.
const REFUSED: u64 = 300;

/// Beyond this a clock is not synchronised.
const DRIFTING: u64 = 30;

/// Who the credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub account: String,
    pub arn: String,
}

/// The region in force, and those of the queue and the topic.
#[derive(Clone, Copy, Debug)]
pub struct Regions<'a> {
    /// `None`: nothing names one.
    pub own: Option<&'a str>,
    /// Where it comes from.
    pub origin: &'a str,
    /// Of the queue's URL; `None` where it tells none.
    pub queue: Option<&'a str>,
    /// Of the topic's ARN.
    pub topic: Option<&'a str>,
}

#[must_use]
pub fn region(regions: &Regions<'_>) -> Finding {
    let Regions { own, origin, queue, topic } = *regions;
    let Some(own) = own else {
        return Finding::problem(REGION, "no region is configured", "export AWS_REGION=eu-west-1 (the queue's region)");
    };
    let others: Vec<String> = [("the queue", queue), ("the topic", topic)]
        .into_iter()
        .filter_map(|(what, region)| Some((what, region.filter(|region| *region != own)?)))
        .map(|(what, region)| format!("{what} is in {region}"))
        .collect();
    if others.is_empty() {
        return Finding::ok(REGION, format!("{own}, from {origin}; queue and topic are there too"));
    }
    Finding::warning(
        REGION,
        format!("{own}, from {origin}, where the table is looked for; {}", others.join(", ")),
        "if the table is in the queue's region too, set AWS_REGION to that",
    )
}

#[must_use]
pub fn credentials(caller: &Looked<Caller>, queue_arn: Option<&str>, topic_arn: Option<&str>) -> Finding {
    let caller = match caller {
        Ok(caller) => caller,
        Err(unknown) => return Finding::unknown(CREDENTIALS, unknown),
    };
    let elsewhere: Vec<String> = [("the queue", queue_arn), ("the topic", topic_arn)]
        .into_iter()
        .filter_map(|(what, arn)| Some((what, Arn::parse(arn?)?.account)))
        .filter(|(_, account)| !account.is_empty() && *account != caller.account)
        .map(|(what, account)| format!("{what} belongs to {account}"))
        .collect();
    let found = format!("account {}, {}", caller.account, caller.arn);
    if elsewhere.is_empty() {
        return Finding::ok(CREDENTIALS, found);
    }
    Finding::warning(
        CREDENTIALS,
        format!("{found}; {}", elsewhere.join(", ")),
        "ask with a role of the account that the daemon runs in, unless its resources are meant to be in several accounts",
    )
}

/// `ahead`: by how many seconds the local clock is ahead of AWS's; `None` where no answer told the time.
#[must_use]
pub fn clock(ahead: Option<i64>) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::skipped(CLOCK, "no answer of AWS told the time");
    };
    let off = ahead.unsigned_abs();
    let mend = "synchronise it: timedatectl set-ntp true, or chronyc makestep";
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    match off {
        ..=DRIFTING => Finding::ok(CLOCK, format!("within {DRIFTING} seconds of AWS's")),
        _ if off <= REFUSED => Finding::warning(CLOCK, format!("{} {direction} AWS's", span(off)), mend),
        _ => Finding::problem(
            CLOCK,
            format!("{} {direction} AWS's, which refuses signatures from {} on", span(off), span(REFUSED)),
            mend,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Status, Unknown};

    #[test]
    fn a_region_is_told_with_its_origin_and_those_of_queue_and_topic() {
        let judged = |own, queue, topic| region(&Regions { own, origin: "AWS_REGION", queue, topic });
        let here = Some("eu-west-1");
        assert_eq!(judged(here, here, here).status, Status::Ok);
        assert_eq!(judged(here, None, None).status, Status::Ok);
        let apart = judged(here, Some("us-east-1"), here);
        assert_eq!(apart.status, Status::Warning);
        assert!(apart.found.contains("the queue is in us-east-1") && !apart.found.contains("the topic"), "{apart:?}");
        assert_eq!(judged(None, here, here).status, Status::Problem);
    }

    #[test]
    fn credentials_of_another_account_are_told() {
        let caller = Ok(Caller {
            account: "111122223333".to_owned(),
            arn: "arn:aws:sts::111122223333:assumed-role/Operator/ada".to_owned(),
        });
        let queue = Some("arn:aws:sqs:eu-west-1:111122223333:trail");
        assert_eq!(credentials(&caller, queue, None).status, Status::Ok);
        let foreign = credentials(&caller, queue, Some("arn:aws:sns:eu-west-1:444455556666:alerts"));
        assert_eq!(foreign.status, Status::Warning);
        assert!(foreign.found.ends_with("; the topic belongs to 444455556666"), "{foreign:?}");
        let refused = credentials(&Err(Unknown::Credentials("ExpiredToken".to_owned())), None, None);
        assert_eq!((refused.status, refused.found.as_str()), (Status::Problem, "ExpiredToken"));
    }

    #[test]
    fn a_clock_that_is_off_is_told_before_aws_refuses_it() {
        for (ahead, status, words) in [
            (Some(0), Status::Ok, "within 30 seconds"),
            (Some(-30), Status::Ok, "within"),
            (Some(31), Status::Warning, "31 seconds ahead of"),
            (Some(-300), Status::Warning, "5 minutes behind"),
            (Some(301), Status::Problem, "5 minutes ahead of"),
            (Some(i64::MIN), Status::Problem, "behind"),
            (None, Status::Skipped, "no answer"),
        ] {
            let finding = clock(ahead);
            assert_eq!(finding.status, status, "{ahead:?}");
            assert!(finding.found.contains(words), "{finding:?}");
        }
    }
}
