//! Matchers to be used again.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Matcher, RuleSet};

/// How many are kept: more than run at once on most machines.
const KEPT: usize = 8;

/// What a matcher learns of a rule set is worth the more the smaller the objects are: it is kept from one to the next, as
/// long as the rules stay. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Matchers {
    free: Arc<Mutex<Vec<Matcher>>>,
}

impl Matchers {
    /// One for these rules. Those for others are of no use any more.
    #[must_use]
    pub fn take(&self, rules: &Arc<RuleSet>) -> Matcher {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(matcher) = free.pop() {
            if matcher.is_for(rules) {
                return matcher;
            }
        }
        Matcher::new(Arc::clone(rules))
    }

    /// For whoever comes next, without anything of the records that it saw.
    pub fn give_back(&self, mut matcher: Matcher) {
        matcher.forget_records();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(matcher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str =
        r#"[{"id": "a", "severity": "LOW", "eventName": "A", "unless": [{"reason": "r", "errorCode": "E"}]}]"#;

    fn rules(text: &str) -> Arc<RuleSet> {
        Arc::new(RuleSet::parse(text).unwrap())
    }

    #[test]
    fn a_matcher_is_used_again_for_the_same_rules_only() {
        let (matchers, first) = (Matchers::default(), rules(RULES));
        let mut matcher = matchers.take(&first);
        assert_eq!(matcher.matches(br#"{"eventName":"A"}"#).len(), 1);
        matchers.give_back(matcher);
        // Equal is not the same: a reload may change what a name in a list stands for.
        let second = rules(&RULES.replace("\"A\"", "\"B\""));
        let mut other = matchers.take(&second);
        assert_eq!(other.matches(br#"{"eventName":"A"}"#).len(), 0);
        assert_eq!(other.matches(br#"{"eventName":"B"}"#).len(), 1);
        matchers.give_back(other);
        assert_eq!(matchers.take(&first).matches(br#"{"eventName":"A"}"#).len(), 1);
    }

    #[test]
    fn what_one_object_held_is_not_told_of_the_next() {
        let (matchers, rules) = (Matchers::default(), rules(RULES));
        let mut matcher = matchers.take(&rules);
        assert_eq!(matcher.matches(br#"{"eventName":"A","errorCode":"E"}"#).len(), 0);
        matchers.give_back(matcher);
        assert_eq!(matchers.take(&rules).take_suppressed(), []);
    }

    #[test]
    fn no_more_are_kept_than_can_be_used() {
        let (matchers, rules) = (Matchers::default(), rules(RULES));
        let taken: Vec<_> = (0..KEPT + 3).map(|_| matchers.take(&rules)).collect();
        for matcher in taken {
            matchers.give_back(matcher);
        }
        assert_eq!(matchers.free.lock().unwrap().len(), KEPT);
    }
}
