//! Reads one log object: opens it, resumes a broken body where it stopped, drives the decoder, and has everything it
//! finds delivered before it reads on.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::alert::{Source, SourceObject, detected_event};
use crate::cloudtrail::{DecodeError, Decoder, Input, Output, RecordProblem, STEP_BYTES, Step};
use crate::context::{CHUNK_DEADLINE, Context};
use crate::deliver::Delivery;
use crate::env::Compute;
use crate::health::Dependency;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::notification::{InlineRecord, ObjectRef};
use crate::ports::{ErrorClass, Fault, ObjectBody, ObjectRequest, PortError};
use crate::retry::{Backoff, Interruption, Until, call_for_message, sleep};
use crate::rules::{Detection, Matcher, RuleSet};

/// Compressed bodies up to this size are decoded where they are, up to so many decoded bytes: the aim is half a
/// millisecond of work at most.
const INLINE: u64 = 8 * 1024;
const INLINE_STEP: u64 = 128 * 1024;
/// Chunks are gathered to this size before they are decoded.
const GATHER: usize = 128 * 1024;
/// Attempts at one object, without progress, after which it is its own fault if others could be read meanwhile.
const ATTEMPTS: u32 = 10;
/// How often a codec's stream that ends early in a complete body is read.
const READINGS: u32 = 2;

/// Proof that a part of a message was read to its end without a problem. Only this module can make one.
#[derive(Debug)]
pub struct Exhausted(());

/// Why an object was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// S3 says that this object cannot be read: it is missing, denied, or the request is invalid.
    #[error(transparent)]
    Refused(PortError),
    #[error("{0}")]
    Undecodable(#[from] DecodeError),
    /// Every recent object of its bucket is denied: not this object's fault, but nothing to hold a slot for either.
    #[error("{0}; so was every recent object of its bucket")]
    BucketDenied(PortError),
    #[error("{count} of its records cannot be read: {first}")]
    BadRecords { count: u64, first: RecordProblem },
    /// This object keeps failing while others can be read.
    #[error("{0}; other objects can be read meanwhile")]
    Alone(PortError),
    #[error("the decoder failed; this is a bug, please report it")]
    Bug,
    #[error("interrupted: {0:?}")]
    Interrupted(Interruption),
}

impl From<Interruption> for ObjectError {
    fn from(why: Interruption) -> Self {
        Self::Interrupted(why)
    }
}

impl ObjectError {
    /// The value of the metrics labels `outcome` and `reason`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(error) => match &error.fault {
                Fault::Missing => "missing",
                Fault::Denied { .. } => "denied",
                Fault::KmsDenied { .. } => "kms_denied",
                _ => "refused",
            },
            Self::BucketDenied(_) => "bucket_denied",
            Self::Undecodable(error) => error.reason(),
            Self::BadRecords { .. } => "bad_records",
            Self::Alone(_) => "unavailable",
            Self::Bug => "bug",
            Self::Interrupted(_) => "interrupted",
        }
    }
}

/// What reading needs to know, besides the object.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub context: &'a Context,
    pub lease: &'a Lease,
    /// The message that names what is read.
    pub message_id: &'a str,
    /// The one rule set of this message.
    pub rules: &'a Arc<RuleSet>,
}

impl Reader<'_> {
    /// Reads an object to its end.
    ///
    /// # Errors
    ///
    /// Why it was not. What was found before is delivered all the same, unless the work was interrupted.
    pub async fn object(&self, object: &ObjectRef, delivery: &mut Delivery) -> Result<Exhausted, ObjectError> {
        let span = tracing::info_span!("object", bucket = %escaped(&object.bucket), key = %escaped(&object.key));
        let started = Instant::now();
        let result = self.with_fallback(object, delivery).instrument(span).await;
        if result.is_ok() {
            self.context.health.object_read();
        }
        let metrics = &self.context.metrics;
        metrics.objects.with_label_values(&[result.as_ref().map_or_else(ObjectError::reason, |_| "ok")]).inc();
        metrics.object_duration.observe(started.elapsed().as_secs_f64());
        result
    }

    async fn with_fallback(&self, object: &ObjectRef, delivery: &mut Delivery) -> Result<Exhausted, ObjectError> {
        let first = self.readings(object, &object.key, delivery).await;
        match (&first, &object.fallback_key) {
            (Err(ObjectError::Refused(error)), Some(decoded))
                if matches!(error.fault, Fault::Missing | Fault::Denied { .. }) =>
            {
                match self.readings(object, decoded, delivery).await {
                    // The key as it stood in the message is what the user knows.
                    Err(ObjectError::Refused(_)) => first,
                    other => other,
                }
            }
            _ => first,
        }
    }

    async fn readings(&self, object: &ObjectRef, key: &str, delivery: &mut Delivery) -> Result<Exhausted, ObjectError> {
        let began = Instant::now();
        let mut backoff = Backoff::default();
        for reading in 1.. {
            let mut one = Reading::new(*self, object, key);
            match one.run(delivery).await {
                Err(Stumble::Changed(error)) => {
                    if reading >= ATTEMPTS && self.context.health.object_read_since(began) {
                        return Err(ObjectError::Alone(error));
                    }
                    tracing::info!(%error, "the object changed while it was read; reading it again");
                    sleep(backoff.pause(&self.context.env.random), Until::Held(self.lease)).await?;
                }
                // A body can be cut off at its source; a second reading tells that from an object that ends so.
                Err(Stumble::Failed(ObjectError::Undecodable(DecodeError::EndsEarly { .. }))) if reading < READINGS => {
                    tracing::info!("the compressed stream ends early; reading it again");
                }
                Err(Stumble::Failed(error)) => return Err(error),
                Ok(exhausted) => return Ok(exhausted),
            }
        }
        Err(ObjectError::Bug)
    }

    /// Evaluates the records that travelled in the message itself.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BadRecords`], when the others are delivered, or [`ObjectError::Interrupted`].
    pub async fn records(&self, records: &[InlineRecord], delivery: &mut Delivery) -> Result<Exhausted, ObjectError> {
        let limit = self.context.config.source.limits.max_record_bytes;
        let (mut raws, mut count, mut first) = (Vec::with_capacity(records.len()), 0, None);
        for (index, record) in (0..).zip(records) {
            if record.raw.len() > limit {
                count += 1;
                first.get_or_insert(RecordProblem::TooLarge { index, limit });
            } else {
                raws.push(record.raw.clone());
            }
        }
        let counter = &self.context.metrics.records;
        counter.with_label_values(&["unreadable"]).inc_by(count);
        counter.with_label_values(&["evaluated"]).inc_by(raws.len() as u64);
        let length = raws.iter().map(Bytes::len).sum();
        let mut matcher = self.context.matchers.take(self.rules);
        let judge = move || {
            let mut found = Vec::new();
            for raw in raws {
                let rules = matcher.matches(&raw);
                if !rules.is_empty() {
                    found.push(Detection { index: 0, raw, rules });
                }
            }
            (found, matcher)
        };
        let (found, mut matcher) = self.context.env.compute.run_for(length, judge).await;
        count_suppressed(&mut matcher, &self.context.metrics);
        self.context.matchers.give_back(matcher);
        self.deliver(found, None, None, delivery).await?;
        match first {
            Some(first) => Err(ObjectError::BadRecords { count, first }),
            None => Ok(Exhausted(())),
        }
    }

    async fn deliver(
        &self,
        detections: Vec<Detection>,
        object: Option<&SourceObject>,
        created_at: Option<OffsetDateTime>,
        delivery: &mut Delivery,
    ) -> Result<(), Interruption> {
        if detections.is_empty() {
            return Ok(());
        }
        let metrics = &self.context.metrics;
        let now = self.context.env.clock.now();
        let length = detections.iter().map(|one| one.raw.len()).sum();
        let (object, rules) = (object.cloned(), Arc::clone(self.rules));
        let read = move || {
            let event = |detection: Detection| {
                let source = Source { object: object.clone(), index: detection.index };
                detected_event(&detection, source, now, rules.hash())
            };
            detections.into_iter().map(event).collect::<Vec<_>>()
        };
        let events = self.context.env.compute.run_for(length, read).await;
        for event in &events {
            for rule in &event.rules {
                metrics.matches.with_label_values(&[&rule.id, rule.severity.as_str()]).inc();
            }
            self.context.journal.matched(now, event.rules.iter().map(|rule| rule.id.as_str()));
            if let Some(at) = event.facts.event_time {
                metrics.event_lag.observe((now - at).as_seconds_f64().max(0.0));
            }
            if let Some(at) = created_at {
                metrics.object_lag.observe((now - at).as_seconds_f64().max(0.0));
            }
        }
        delivery.deliver(self.context, self.lease, self.rules, events).await
    }
}

/// A name as a log may show it. Nearly all of them as they are, which is ten times as fast.
fn escaped(name: &str) -> Cow<'_, str> {
    let plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    if name.bytes().all(plain) { Cow::Borrowed(name) } else { Cow::Owned(name.escape_default().to_string()) }
}

/// Counts what exceptions withheld since the last call.
fn count_suppressed(matcher: &mut Matcher, metrics: &Metrics) {
    for withheld in matcher.take_suppressed() {
        let labels = [withheld.rule.id.as_str(), &withheld.exception.to_string()];
        metrics.suppressed.with_label_values(&labels).inc_by(withheld.count);
    }
}

/// Why a reading ended before the end.
enum Stumble {
    /// Another object stands in its place, or may: begin again.
    Changed(PortError),
    Failed(ObjectError),
}

impl<E: Into<ObjectError>> From<E> for Stumble {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The machine that moves between this task and the compute threads.
struct Machine {
    decoder: Decoder,
    input: Input,
    output: Output,
}

/// One reading of an object, from its first byte.
struct Reading<'a> {
    reader: Reader<'a>,
    request: ObjectRequest,
    source: SourceObject,
    created_at: Option<OffsetDateTime>,
    machine: Option<Box<Machine>>,
    /// Whether steps run on this task.
    inline: bool,
    /// Repeated opens and resumes, until bytes come again.
    attempts: u32,
    /// When the last of those attempts failed.
    last_failure: Option<Instant>,
    /// Whether others were read between that and the beginning of this attempt.
    others_read: bool,
    backoff: Backoff,
}

impl<'a> Reading<'a> {
    fn new(reader: Reader<'a>, object: &ObjectRef, key: &str) -> Self {
        let machine = Machine {
            decoder: Decoder::new(reader.context.config.source.limits),
            input: Input::default(),
            output: Output::default(),
        };
        Self {
            reader,
            request: ObjectRequest {
                bucket: object.bucket.clone(),
                key: key.to_owned(),
                version_id: object.version_id.clone(),
                region: object.region.clone(),
                start: 0,
                if_match: None,
            },
            source: SourceObject {
                bucket: object.bucket.clone(),
                key: key.to_owned(),
                version_id: object.version_id.clone(),
            },
            created_at: object.created_at,
            machine: Some(Box::new(machine)),
            inline: false,
            attempts: 0,
            last_failure: None,
            others_read: false,
            backoff: Backoff::default(),
        }
    }

    async fn run(&mut self, delivery: &mut Delivery) -> Result<Exhausted, Stumble> {
        let result = self.read(delivery).await;
        // What was found before an error is delivered; figures count for what was read.
        if let Some(machine) = &self.machine {
            let progress = machine.decoder.progress();
            let metrics = &self.reader.context.metrics;
            metrics.decompressed_bytes.inc_by(progress.decompressed_bytes);
            let unreadable = machine.output.problem_count;
            metrics.records.with_label_values(&["unreadable"]).inc_by(unreadable);
            metrics.records.with_label_values(&["evaluated"]).inc_by(progress.records.saturating_sub(unreadable));
        }
        result
    }

    async fn read(&mut self, delivery: &mut Delivery) -> Result<Exhausted, Stumble> {
        loop {
            let mut body = self.open().await?;
            if self.request.start == 0 {
                self.request.if_match.clone_from(&body.etag);
                self.inline = body.length.is_some_and(|length| length <= INLINE);
            }
            loop {
                match self.gather(&mut body).await? {
                    Gathered::Bytes { bytes, last } => {
                        if let Some(exhausted) = self.feed(bytes, last, delivery).await? {
                            return Ok(exhausted);
                        }
                    }
                    Gathered::Broken(bytes, error) => {
                        if !bytes.is_empty() && self.feed(bytes, false, delivery).await?.is_some() {
                            return Err(ObjectError::Bug.into());
                        }
                        self.reader.context.metrics.object_resumes.inc();
                        if self.request.if_match.is_none() {
                            // Without an entity tag nothing says that the rest belongs to the same object.
                            return Err(Stumble::Changed(error));
                        }
                        self.pause(error).await?;
                        break;
                    }
                }
            }
        }
    }

    /// Opens the body where reading stopped, as often as it takes.
    async fn open(&mut self) -> Result<ObjectBody, Stumble> {
        let Reader { context, lease, message_id, .. } = self.reader;
        let mut retrying = None;
        let mut holding = None;
        loop {
            if let Some(why) = lease.interruption() {
                return Err(why.into());
            }
            // Known before the attempt: one that hangs from an outage into its end proves nothing.
            self.others_read = self.last_failure.is_some_and(|at| context.health.object_read_since(at));
            let opening = context.ports.objects.open(&self.request);
            let error = match call_for_message(&context.env.stop, "s3:GetObject", opening).await {
                Ok(body) => {
                    if context.health.succeeded(Dependency::Objects) {
                        tracing::info!("objects can be read again");
                    }
                    context.health.object_opened(&self.request.bucket);
                    return Ok(body);
                }
                Err(error) => error,
            };
            match (&error.class, &error.fault) {
                (_, Fault::Changed) => {
                    context.health.succeeded(Dependency::Objects);
                    return Err(Stumble::Changed(error));
                }
                (ErrorClass::Permanent, Fault::Denied { .. } | Fault::KmsDenied { .. }) => {
                    context.health.succeeded(Dependency::Objects);
                    // What is not allowed is not asked for.
                    let expected = !context.config.source.allowed_buckets.is_empty();
                    if !context.health.object_denied(&self.request.bucket, expected, message_id, &error) {
                        return Err(ObjectError::Refused(error).into());
                    }
                    if holding.is_none() {
                        // The other half of the slots is for buckets that can be read.
                        holding = context.health.hold_denied(context.config.pipeline.concurrency / 2);
                        if holding.is_none() {
                            return Err(ObjectError::BucketDenied(error).into());
                        }
                        tracing::error!(
                            bucket = %self.request.bucket.escape_default(),
                            %error,
                            "every recent object of this bucket is denied; the message is held until one can be read"
                        );
                    }
                    retrying.get_or_insert_with(|| context.health.retrying(Dependency::Objects));
                    sleep(self.backoff.pause(&context.env.random), Until::Held(lease)).await?;
                }
                (ErrorClass::Permanent, fault) => {
                    context.health.succeeded(Dependency::Objects);
                    if *fault == Fault::Missing {
                        context.health.object_answered(&self.request.bucket);
                    }
                    return Err(ObjectError::Refused(error).into());
                }
                (ErrorClass::Transient | ErrorClass::Config, _) => {
                    if context.failed(Dependency::Objects, &error) {
                        tracing::warn!(class = ?error.class, %error, "an object cannot be opened, will be tried again");
                    }
                    retrying.get_or_insert_with(|| context.health.retrying(Dependency::Objects));
                    self.pause(error).await?;
                }
            }
        }
    }

    /// Waits before the next attempt, unless this object has had enough of them while others could be read.
    async fn pause(&mut self, error: PortError) -> Result<(), Stumble> {
        let Reader { context, lease, .. } = self.reader;
        self.last_failure = Some(Instant::now());
        self.attempts += 1;
        // Since the attempt before, not since the first: when an outage begins, others are still being read.
        if self.attempts >= ATTEMPTS && self.others_read {
            return Err(ObjectError::Alone(error).into());
        }
        tracing::debug!(%error, offset = self.request.start, "reading broke off, will be resumed");
        sleep(self.backoff.pause(&context.env.random), Until::Held(lease)).await?;
        Ok(())
    }

    /// The next bytes of the body, several chunks at once.
    async fn gather(&mut self, body: &mut ObjectBody) -> Result<Gathered, Stumble> {
        let mut gathered = BytesMut::new();
        loop {
            let next = tokio::select! {
                biased;
                why = self.reader.lease.interrupted() => return Err(why.into()),
                next = timeout(CHUNK_DEADLINE, body.chunks.next()) => next
                    .unwrap_or_else(|_| Err(PortError::timed_out("s3:GetObject", CHUNK_DEADLINE))),
            };
            match next {
                Ok(Some(chunk)) => {
                    let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                    self.request.start = self.request.start.saturating_add(length);
                    self.reader.context.metrics.compressed_bytes.inc_by(length);
                    self.attempts = 0;
                    self.last_failure = None;
                    self.backoff = Backoff::default();
                    if gathered.is_empty() && chunk.len() >= GATHER {
                        return Ok(Gathered::Bytes { bytes: chunk, last: false });
                    }
                    gathered.extend_from_slice(&chunk);
                    if gathered.len() >= GATHER {
                        return Ok(Gathered::Bytes { bytes: gathered.freeze(), last: false });
                    }
                }
                Ok(None) => return Ok(Gathered::Bytes { bytes: gathered.freeze(), last: true }),
                Err(error) if error.class == ErrorClass::Permanent => return Err(ObjectError::Refused(error).into()),
                Err(error) => return Ok(Gathered::Broken(gathered.freeze(), error)),
            }
        }
    }

    /// Decodes these bytes and delivers what they hold. `Some` at the end of a document without problems.
    async fn feed(&mut self, bytes: Bytes, last: bool, delivery: &mut Delivery) -> Result<Option<Exhausted>, Stumble> {
        let Some(machine) = &mut self.machine else {
            return Err(ObjectError::Bug.into());
        };
        machine.input = Input { bytes, last };
        loop {
            let step = self.step().await?;
            let Some(machine) = &mut self.machine else {
                return Err(ObjectError::Bug.into());
            };
            let detections = std::mem::take(&mut machine.output.detections);
            self.reader.deliver(detections, Some(&self.source), self.created_at, delivery).await?;
            match step? {
                // More than it looked like.
                Step::Yield => self.inline = false,
                Step::NeedInput => return Ok(None),
                Step::End => return self.end().map(Some),
            }
        }
    }

    /// One step of the decoder, away from the async threads unless the whole body is small; then a short one.
    async fn step(&mut self) -> Result<Result<Step, DecodeError>, Stumble> {
        let Some(mut machine) = self.machine.take() else {
            return Err(ObjectError::Bug.into());
        };
        let (compute, budget) =
            if self.inline { (&Compute::Inline, INLINE_STEP) } else { (&self.reader.context.env.compute, STEP_BYTES) };
        // For each step: as many are in use as steps run, however many objects are in work.
        let Reader { context, rules, .. } = self.reader;
        let mut matcher = context.matchers.take(rules);
        let ran = compute
            .run(move || {
                let Machine { decoder, input, output } = &mut *machine;
                let step = decoder.step_within(budget, input, &mut matcher, output);
                (machine, matcher, step)
            })
            .await;
        let Some((machine, mut matcher, step)) = ran else {
            return Err(ObjectError::Bug.into());
        };
        count_suppressed(&mut matcher, &context.metrics);
        context.matchers.give_back(matcher);
        self.machine = Some(machine);
        Ok(step)
    }

    fn end(&self) -> Result<Exhausted, Stumble> {
        let output = self.machine.as_ref().map(|machine| &machine.output);
        match output.and_then(|output| output.problems.first().map(|first| (output.problem_count, first))) {
            Some((count, first)) => Err(ObjectError::BadRecords { count, first: first.clone() }.into()),
            None => Ok(Exhausted(())),
        }
    }
}

enum Gathered {
    Bytes {
        bytes: Bytes,
        last: bool,
    },
    /// What came before the body broke off.
    Broken(Bytes, PortError),
}
