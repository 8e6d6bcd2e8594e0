//! A queue in memory: a message for each object of a listing, visible again when its lease runs out or it is given back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::Resume;
use crate::deliver::Delivered;
use crate::env::{Phase, StopHandle, lock};
use crate::listing::Listed;
use crate::ports::{MessageQueue, PortError, QueueAttributes, Receipt, ReceivedMessage};

/// How often an object is tried that cannot be read.
const MAX_RECEIVES: u32 = 3;

const VISIBILITY: Duration = Duration::from_secs(60);

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By an earlier run.
    Before,
    Done,
    /// It could not be read or delivered; the log says why.
    Failed,
}

/// Figures of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub done: u64,
    pub failed: u64,
}

/// See the head of this module. Stops the process once every object is done or failed.
pub struct ReplayQueue {
    bucket: String,
    resume: Resume,
    stop: StopHandle,
    changed: Notify,
    objects: tokio::sync::Mutex<mpsc::Receiver<Listed>>,
    state: Mutex<State>,
    told: Box<Told>,
}

/// Hears what became of an object, by its key.
type Told = dyn Fn(&str, &Outcome) + Send + Sync;

#[derive(Default)]
struct State {
    /// In work or waiting, by the message's id.
    messages: BTreeMap<u64, Message>,
    /// The listing has ended.
    listed: bool,
    next: u64,
    tally: Tally,
    /// The resume file could not be written.
    broken: Option<std::io::Error>,
}

struct Message {
    key: String,
    visible_at: Instant,
    receives: u32,
}

impl ReplayQueue {
    /// Of the objects that a listing sends. `told` hears what became of each.
    #[must_use]
    pub fn new(
        bucket: &str,
        objects: mpsc::Receiver<Listed>,
        resume: Resume,
        stop: StopHandle,
        told: impl Fn(&str, &Outcome) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            bucket: bucket.to_owned(),
            resume,
            stop,
            changed: Notify::new(),
            objects: tokio::sync::Mutex::new(objects),
            state: Mutex::default(),
            told: Box::new(told),
        })
    }

    /// How far it is, and what was left undone when it stopped.
    #[must_use]
    pub fn tally(&self) -> (Tally, u64) {
        let state = lock(&self.state);
        (state.tally, state.messages.len() as u64)
    }

    /// Why the resume file could not be written, if so.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        lock(&self.state).broken.as_ref().map(ToString::to_string)
    }

    /// Messages that are visible now, up to `max`.
    fn take(&self, max: usize, visibility: Duration) -> Vec<ReceivedMessage> {
        let now = Instant::now();
        let mut taken = Vec::new();
        let mut failed = Vec::new();
        {
            let mut state = lock(&self.state);
            let visible: Vec<u64> =
                state.messages.iter().filter(|(_, it)| it.visible_at <= now).map(|(id, _)| *id).collect();
            for id in visible {
                let Some(message) = state.messages.get_mut(&id) else { continue };
                if message.receives >= MAX_RECEIVES {
                    failed.extend(state.messages.remove(&id).map(|message| message.key));
                    state.tally.failed += 1;
                    continue;
                }
                if taken.len() >= max {
                    break;
                }
                message.receives += 1;
                message.visible_at = now + visibility;
                taken.push(self.received(id, message));
            }
        }
        for key in failed {
            (self.told)(&key, &Outcome::Failed);
        }
        taken
    }

    fn received(&self, id: u64, message: &Message) -> ReceivedMessage {
        ReceivedMessage {
            message_id: format!("replay-{id}"),
            receipt: Receipt(format!("{id} {}", message.receives)),
            body: super::message(&self.bucket, &message.key),
            receive_count: message.receives,
            sent_at: None,
        }
    }

    /// Takes in as many objects as there is room for.
    async fn list(&self, room: usize) {
        // One poller at a time waits for the listing; the others look again soon.
        let Ok(mut objects) = self.objects.try_lock() else { return };
        for _ in 0..room {
            let listed = match objects.try_recv() {
                Ok(listed) => Some(listed),
                Err(mpsc::error::TryRecvError::Empty) => {
                    tokio::time::timeout(Duration::from_millis(100), objects.recv()).await.ok().flatten()
                }
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    lock(&self.state).listed = true;
                    None
                }
            };
            let Some(Listed { key, .. }) = listed else { return };
            if self.resume.is_done(&self.bucket, &key) {
                (self.told)(&key, &Outcome::Before);
                continue;
            }
            let mut state = lock(&self.state);
            let id = state.next;
            state.next += 1;
            state.messages.insert(id, Message { key, visible_at: Instant::now(), receives: 0 });
        }
    }

    fn is_over(&self) -> bool {
        let state = lock(&self.state);
        state.listed && state.messages.is_empty()
    }

    /// When the next message is visible.
    fn next_visible(&self) -> Option<Instant> {
        lock(&self.state).messages.values().map(|message| message.visible_at).min()
    }
}

/// The message and the receive that a receipt names.
fn named(receipt: &Receipt) -> Option<(u64, u32)> {
    let (id, receives) = receipt.0.split_once(' ')?;
    Some((id.parse().ok()?, receives.parse().ok()?))
}

#[async_trait]
impl MessageQueue for ReplayQueue {
    async fn attributes(&self) -> Result<QueueAttributes, PortError> {
        let waiting = lock(&self.state).messages.len() as u64;
        Ok(QueueAttributes {
            visibility_timeout: VISIBILITY,
            visible: waiting,
            in_flight: 0,
            delayed: 0,
            max_receive_count: Some(MAX_RECEIVES),
        })
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<ReceivedMessage>, PortError> {
        let until = Instant::now() + wait;
        loop {
            // What is done from here on could not be written down.
            if lock(&self.state).broken.is_some() {
                self.stop.advance(Phase::Draining);
                return Ok(Vec::new());
            }
            self.list(max).await;
            let taken = self.take(max, visibility);
            if !taken.is_empty() {
                return Ok(taken);
            }
            if self.is_over() {
                self.stop.advance(Phase::Draining);
                return Ok(Vec::new());
            }
            let now = Instant::now();
            if now >= until {
                return Ok(Vec::new());
            }
            // The listing is asked again soon in any case.
            let soon = now + Duration::from_millis(100);
            let next = self.next_visible().unwrap_or(until).min(until).clamp(now, soon);
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), PortError> {
        let Some((id, receives)) = named(receipt) else { return Ok(()) };
        let mut failed = None;
        {
            let mut state = lock(&self.state);
            if let Some(message) = state.messages.get_mut(&id).filter(|message| message.receives == receives) {
                message.visible_at = Instant::now() + visibility;
                // Put off for hours, until somebody has granted something: nobody waits here for so long.
                if visibility > VISIBILITY {
                    failed = state.messages.remove(&id);
                    state.tally.failed += 1;
                }
            }
        }
        if let Some(Message { key, .. }) = failed {
            (self.told)(&key, &Outcome::Failed);
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn delete(&self, delivered: &[Delivered]) -> Result<Vec<Result<(), PortError>>, PortError> {
        for one in delivered {
            let Some((id, _)) = named(one.receipt()) else { continue };
            let done = lock(&self.state).messages.remove(&id);
            let Some(Message { key, .. }) = done else { continue };
            let noted = self.resume.note(&self.bucket, &key);
            {
                let mut state = lock(&self.state);
                state.tally.done += 1;
                if let Err(error) = noted {
                    state.broken.get_or_insert(error);
                }
            }
            (self.told)(&key, &Outcome::Done);
        }
        self.changed.notify_one();
        Ok(delivered.iter().map(|_| Ok(())).collect())
    }
}
