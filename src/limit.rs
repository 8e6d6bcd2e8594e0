//! How many alerts a minute leave this process: `alerting.max_per_minute`.
//!
//! The gravest go first: of a minute's alerts LOW may take half, MEDIUM three quarters, HIGH nine tenths, CRITICAL all. What is
//! beyond is held back until the minute ends; one alert then tells all of it, whichever messages it belongs to, and counts
//! towards the next minute. Whoever holds something back publishes that alert, or waits for whoever does.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::alert::Withheld;
use crate::env::lock;
use crate::rules::Severity;

const MINUTE: Duration = Duration::from_secs(60);

/// The limit of a process.
#[derive(Debug)]
pub struct Limit {
    /// 0: none.
    max: u32,
    state: Mutex<State>,
    /// One announces at a time.
    announcing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// When the minute began.
    since: Instant,
    sent: u32,
    held: BTreeMap<u64, Withheld>,
    /// What was announced, and SNS's id of that; until who held it looks.
    told: BTreeMap<u64, String>,
    next: u64,
}

impl Limit {
    #[must_use]
    pub fn new(max: u32) -> Self {
        let state = State { since: Instant::now(), sent: 0, held: BTreeMap::new(), told: BTreeMap::new(), next: 0 };
        Self { max, state: Mutex::new(state), announcing: tokio::sync::Mutex::default() }
    }

    /// 0 is no limit.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Whether an alert of this severity may go now; it is counted then.
    #[must_use]
    pub fn admits(&self, severity: Severity) -> bool {
        if self.max == 0 {
            return true;
        }
        let mut state = self.now();
        let share = match severity {
            Severity::Low => self.max.div_ceil(2),
            Severity::Medium => self.max.saturating_mul(3).div_ceil(4),
            Severity::High => self.max.saturating_mul(9).div_ceil(10),
            Severity::Critical => self.max,
        };
        let admits = state.sent < share;
        state.sent = state.sent.saturating_add(u32::from(admits));
        admits
    }

    fn now(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if state.since.elapsed() >= MINUTE {
            (state.since, state.sent) = (Instant::now(), 0);
        }
        state
    }

    /// Holds something back. It is announced with the others when the minute ends, unless the ticket is dropped before.
    #[must_use]
    pub fn hold(&self, withheld: Withheld) -> Ticket<'_> {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.held.insert(number, withheld);
        Ticket { limit: self, number }
    }

    /// When the minute ends.
    #[must_use]
    pub fn end(&self) -> Instant {
        let state = self.now();
        state.since.checked_add(MINUTE).unwrap_or(state.since)
    }

    /// Waits until nobody else announces.
    pub async fn lead(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.announcing.lock().await
    }

    /// All that is held back now.
    #[must_use]
    pub fn held(&self) -> BTreeMap<u64, Withheld> {
        lock(&self.state).held.clone()
    }

    /// Says that SNS accepted the announcement of these under this id.
    pub fn announced(&self, tickets: &BTreeMap<u64, Withheld>, sns_message_id: &str) {
        let mut state = self.now();
        state.sent = state.sent.saturating_add(1);
        for ticket in tickets.keys() {
            // Whoever gave up meanwhile does not ask.
            if state.held.remove(ticket).is_some() {
                state.told.insert(*ticket, sns_message_id.to_owned());
            }
        }
    }
}

/// Something that is held back.
#[derive(Debug)]
pub struct Ticket<'a> {
    limit: &'a Limit,
    number: u64,
}

impl Ticket<'_> {
    /// SNS's id of the announcement, once it was accepted.
    #[must_use]
    pub fn announced(&self) -> Option<String> {
        lock(&self.limit.state).told.get(&self.number).cloned()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.limit.state);
        state.held.remove(&self.number);
        state.told.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn withheld(id: &str) -> Withheld {
        Withheld {
            alert_id: id.to_owned(),
            event_id: id.to_owned(),
            event_time: None,
            event_name: None,
            account_id: None,
            severity: Severity::Low,
            rules: BTreeSet::from(["r".to_owned()]),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_gravest_have_the_last_of_a_minute() {
        let limit = Limit::new(10);
        let admitted = |severity| (0..20).filter(|_| limit.admits(severity)).count();
        let all = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical].map(admitted);
        assert_eq!(all, [5, 3, 1, 1]);
        tokio::time::advance(MINUTE).await;
        assert_eq!(admitted(Severity::Critical), 10);
        assert_eq!((0..100).filter(|_| Limit::new(0).admits(Severity::Low)).count(), 100, "no limit");
        assert!(Limit::new(1).admits(Severity::Low), "one is one for all");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_is_so_for_those_who_still_hold_it() {
        let limit = Limit::new(1);
        let (one, other) = (limit.hold(withheld("a")), limit.hold(withheld("b")));
        let held = limit.held();
        assert_eq!(held.len(), 2);
        drop(other);
        let late = limit.hold(withheld("c"));
        limit.announced(&held, "m-1");
        assert_eq!((one.announced().as_deref(), late.announced()), (Some("m-1"), None));
        assert_eq!(limit.held().len(), 1);
        assert!(!limit.admits(Severity::Critical), "the announcement counts");
        drop((one, late));
        assert!(lock(&limit.state).told.is_empty() && limit.held().is_empty());
    }
}
