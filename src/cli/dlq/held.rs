//! The messages that a command holds: each received once, kept invisible while it works, and given back at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use super::super::Failure;
use crate::aws::dead_letters::{BATCH, DeadLetter, DeadLetters};
use crate::env::{Phase, Stop, lock};
use crate::ports::{Fault, PortError, Receipt};

/// How long a message stays invisible if this process is killed.
const VISIBILITY: Duration = Duration::from_secs(300);
/// How long a receive waits: a long poll asks every server of SQS, so that an empty answer means an empty queue.
const WAIT: Duration = Duration::from_secs(1);
/// Receives that bring nothing but what was seen before, after which there is nothing else.
const REPEATS: u32 = 3;
/// Calls that give back in flight at once.
const CALLS: usize = 4;

/// What this command received of a dead-letter queue.
pub(super) struct Held<'a> {
    queue: &'a DeadLetters,
    stop: &'a Stop,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By message id, those to give back; of a message that came twice the receipt that is valid.
    receipts: BTreeMap<String, Receipt>,
    seen: BTreeSet<String>,
}

impl State {
    /// Gives those that were not seen before, and whether any of them is held only now.
    fn keep(&mut self, mut letters: Vec<DeadLetter>) -> (Vec<DeadLetter>, bool) {
        let mut more = false;
        letters.retain(|letter| {
            let id = &letter.message.message_id;
            more |= self.receipts.insert(id.clone(), letter.message.receipt.clone()).is_none();
            self.seen.insert(id.clone())
        });
        (letters, more)
    }
}

impl<'a> Held<'a> {
    pub(super) fn new(queue: &'a DeadLetters, stop: &'a Stop) -> Self {
        Self { queue, stop, state: Mutex::default() }
    }

    /// Up to `max` (1 to 10) messages that were not seen before. None: there are no more, or the command is to end.
    pub(super) async fn next(&self, max: usize) -> Result<Vec<DeadLetter>, Failure> {
        let mut repeats = 0;
        while repeats < REPEATS && !self.is_stopped() {
            // Never dropped: what it brings would be invisible, and nobody would give it back.
            let letters = self.queue.receive(max, WAIT, VISIBILITY).await.map_err(|error| self.failed(&error))?;
            if letters.is_empty() {
                break;
            }
            let (fresh, more) = lock(&self.state).keep(letters);
            if !fresh.is_empty() {
                return Ok(fresh);
            }
            repeats += u32::from(!more);
        }
        Ok(Vec::new())
    }

    /// Should this message come, it is not given by [`Self::next`]: it was sent by this command, and came back.
    pub(super) fn ignore(&self, id: String) {
        lock(&self.state).seen.insert(id);
    }

    /// Deletes messages that are held for good, ten at most. Each result is that of the message at its place.
    pub(super) async fn delete(&self, ids: &[String]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let receipts: Vec<Receipt> = {
            let state = lock(&self.state);
            ids.iter().filter_map(|id| state.receipts.get(id).cloned()).collect()
        };
        let results = self.queue.delete(&receipts).await?;
        let mut state = lock(&self.state);
        for (id, result) in ids.iter().zip(&results) {
            if result.is_ok() {
                state.receipts.remove(id);
            }
        }
        Ok(results)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.phase() >= Phase::Draining
    }

    pub(super) async fn stopped(&self) {
        self.stop.reached(Phase::Draining).await;
    }

    /// Keeps everything invisible until `work` ends, then gives back what was not deleted, however it ended. Only once no
    /// extension is in flight: it could come after.
    pub(super) async fn during<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let (working, ended) = oneshot::channel::<()>();
        let work = async {
            let done = work.await;
            drop(working);
            done
        };
        let (done, ()) = tokio::join!(work, self.extend(ended));
        let receipts: Vec<Receipt> = std::mem::take(&mut lock(&self.state).receipts).into_values().collect();
        let stuck = self.change_all(receipts, Duration::ZERO).await;
        if stuck > 0 {
            super::note(&format!(
                "{stuck} messages could not be given back to {}; they are visible again within {} minutes",
                self.queue.name(),
                VISIBILITY.as_secs() / 60
            ));
        }
        done
    }

    async fn extend(&self, mut ended: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                biased;
                _dropped = &mut ended => return,
                () = tokio::time::sleep(VISIBILITY / 3) => {}
            }
            let receipts = lock(&self.state).receipts.values().cloned().collect();
            // What cannot be extended becomes visible, which costs a receive at most.
            self.change_all(receipts, VISIBILITY).await;
        }
    }

    /// How many messages could not be changed. One that was deleted or is visible already needs no change.
    async fn change_all(&self, receipts: Vec<Receipt>, visibility: Duration) -> usize {
        let batches: Vec<Vec<Receipt>> = receipts.chunks(BATCH).map(<[Receipt]>::to_vec).collect();
        let changes = futures_util::stream::iter(batches).map(|batch| async move {
            match self.queue.change_visibility(&batch, visibility).await {
                Ok(results) => results
                    .iter()
                    .filter(|result| result.as_ref().is_err_and(|error| error.fault != Fault::LeaseLost))
                    .count(),
                Err(_) => batch.len(),
            }
        });
        changes.buffer_unordered(CALLS).fold(0, async |sum, stuck| sum + stuck).await
    }

    fn failed(&self, error: &PortError) -> Failure {
        Failure::at(format_args!("cannot receive from the dead-letter queue {}", self.queue.name()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQS may deliver a message twice; only the later receipt can give it back.
    #[test]
    fn a_message_that_comes_again_is_given_once_and_its_last_receipt_counts() {
        let mut state = State::default();
        let mut received = |letters: &[(&str, &str)]| -> Vec<String> {
            let letters = letters.iter().map(|(id, receipt)| DeadLetter::of(id, receipt)).collect();
            state.keep(letters).0.into_iter().map(|letter| letter.message.message_id).collect()
        };
        assert_eq!(received(&[("a", "1"), ("b", "2")]), ["a", "b"]);
        assert_eq!(received(&[("a", "3"), ("c", "4"), ("c", "5")]), ["c"]);
        assert!(!state.keep(vec![DeadLetter::of("a", "3")]).1, "nothing more is held by it");
        let receipts: Vec<_> = state.receipts.values().map(|receipt| receipt.0.as_str()).collect();
        assert_eq!(receipts, ["3", "2", "5"]);
    }
}
