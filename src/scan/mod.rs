//! `trailhound scan`: log files of any kind through the daemon's decoder and rules, with nothing written anywhere.
//!
//! Files are read by as many threads as there are cores, and what they hold is told in their order: the same input gives
//! the same output. [`Ledger`] says what the daemon's table and topic would hold after them.

mod ledger;
mod room;
mod source;

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;

pub use self::ledger::{Ledger, Told, ToldAlert};
pub use self::room::{Hold, Room};
pub use self::source::{find, give_file, is_archive};
use crate::alert::{DetectedEvent, Source, SourceObject, detected_event};
use crate::cloudtrail::{DecodeError, Decoder, Documents, Input, Limits, Output, Plain, Step};
use crate::rules::{Detection, Matcher, RuleSet, Suppressed, Wanted};

/// How much of a file is read at once.
const CHUNK: usize = 256 * 1024;

/// How much of a file's text is looked at to know its shape.
const HEAD: usize = 4 * 1024;

/// What was found and is not yet told, for each file, in steps of the decoder; and how many files are begun ahead.
const STEPS_AHEAD: usize = 16;
const FILES_AHEAD: usize = 64;

/// How often a wait looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What to scan with.
#[derive(Clone)]
pub struct Scan {
    pub rules: Arc<RuleSet>,
    pub limits: Limits,
    /// Only these matches; all without it.
    pub wanted: Option<Wanted>,
    pub threads: usize,
}

/// A file to be read.
pub struct Work {
    /// As a person knows it.
    pub name: String,
    /// Where it is in S3.
    pub object: Option<SourceObject>,
    pub body: Body,
}

/// The bytes of a file.
pub enum Body {
    File(PathBuf),
    /// In memory, as long as it has room there.
    Bytes(Bytes, Hold),
    /// Read once, from the beginning to the end.
    Stream(Box<dyn Read + Send>),
    /// It cannot be read, because of this.
    Failed(String),
}

/// What a file holds, in order.
pub enum Found {
    Events(Vec<DetectedEvent>),
    End(FileEnd),
}

/// How a file ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileEnd {
    /// Records that were evaluated.
    pub records: u64,
    /// Records, or documents, that could not be read.
    pub unreadable: u64,
    /// What was wrong with it; the first of these things.
    pub problem: Option<String>,
    /// Matches that exceptions withheld.
    pub suppressed: Vec<Suppressed>,
}

/// Figures of a scan that runs.
#[derive(Debug, Default)]
pub struct Figures {
    pub bytes: AtomicU64,
    /// Set it, and the scan ends soon.
    pub stop: AtomicBool,
}

/// Takes one file after another; a break when nobody wants more.
pub type Give<'a> = &'a mut dyn FnMut(Work) -> ControlFlow<()>;

/// A file and where to send what it holds.
type Order = (Work, SyncSender<Found>);

impl Scan {
    /// Reads these files and tells what they hold, file by file in their order, until `each` breaks or the figures say stop.
    /// `works` runs on a thread of its own, which is left behind where it stands when the scan ends early.
    pub fn run(
        self,
        works: impl FnOnce(Give<'_>) -> ControlFlow<()> + Send + 'static,
        figures: &Arc<Figures>,
        mut each: impl FnMut(&str, Found) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let threads = self.threads.max(1);
        let (orders, taken) = sync_channel::<Order>(threads);
        let (names, ordered) = sync_channel::<(String, Receiver<Found>)>(FILES_AHEAD);
        std::thread::spawn(move || {
            let _early = works(&mut |work| {
                let (sender, receiver) = sync_channel(STEPS_AHEAD);
                if names.send((work.name.clone(), receiver)).is_err() || orders.send((work, sender)).is_err() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
        });
        let taken = Arc::new(Mutex::new(taken));
        let scan = Arc::new(self);
        for _ in 0..threads {
            let (scan, taken, figures) = (Arc::clone(&scan), Arc::clone(&taken), Arc::clone(figures));
            std::thread::spawn(move || {
                let mut matcher = Matcher::only(Arc::clone(&scan.rules), scan.wanted.clone());
                loop {
                    let next = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((work, sender)) = next else { return };
                    let Work { object, body, .. } = work;
                    let mut reading = Reading { scan: &scan, object, sender: &sender, figures: &figures, begun: 0 };
                    if reading.run(body, &mut matcher).is_break() {
                        return;
                    }
                }
            });
        }
        let stopped = |figures: &Figures| figures.stop.load(Ordering::Relaxed);
        while let Some((name, found)) = next(&ordered, || stopped(figures))? {
            while let Some(found) = next(&found, || stopped(figures))? {
                each(&name, found)?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The next thing that is sent; `None` at the end, a break when it is to stop.
fn next<T>(receiver: &Receiver<T>, stop: impl Fn() -> bool) -> ControlFlow<(), Option<T>> {
    loop {
        if stop() {
            return ControlFlow::Break(());
        }
        match receiver.recv_timeout(LOOK) {
            Ok(it) => return ControlFlow::Continue(Some(it)),
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Continue(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// One file on a thread.
struct Reading<'a> {
    scan: &'a Scan,
    object: Option<SourceObject>,
    sender: &'a SyncSender<Found>,
    figures: &'a Figures,
    /// Records before this one were told already.
    begun: u64,
}

impl Reading<'_> {
    /// A break when nobody listens any more.
    fn run(&mut self, body: Body, matcher: &mut Matcher) -> ControlFlow<()> {
        let mut end = match self.read(body, matcher) {
            Ok(end) => end,
            Err(Unread::Gone) => return ControlFlow::Break(()),
            Err(Unread::Io(error)) => FileEnd { problem: Some(error.to_string()), ..FileEnd::default() },
        };
        end.suppressed = matcher.take_suppressed();
        self.send(Found::End(end))
    }

    fn read(&mut self, body: Body, matcher: &mut Matcher) -> Result<FileEnd, Unread> {
        match body {
            Body::Failed(why) => Ok(FileEnd { problem: Some(why), ..FileEnd::default() }),
            Body::Stream(stream) => self.documents(stream, matcher),
            Body::Bytes(bytes, _hold) => self.read_again(&|| Ok(io::Cursor::new(bytes.clone())), matcher),
            Body::File(path) => self.read_again(&|| File::open(&path), matcher),
        }
    }

    /// Log files go through the decoder that the daemon has. What is none, or is several in one, is read as documents.
    fn read_again<R: Read>(
        &mut self,
        open: &dyn Fn() -> io::Result<R>,
        matcher: &mut Matcher,
    ) -> Result<FileEnd, Unread> {
        if begins_as_log(open()?, self.scan.limits) {
            let (end, error) = self.decode(open()?, matcher)?;
            match error {
                Some(DecodeError::BadJson { .. } | DecodeError::NoRecords) => {
                    // A second time from the beginning: what exceptions withheld is counted then.
                    let _again = matcher.take_suppressed();
                    self.begun = end.records.saturating_add(end.unreadable);
                    let second = self.documents(open()?, matcher)?;
                    if second.problem.is_none() {
                        return Ok(second);
                    }
                    Ok(FileEnd { problem: error.map(|error| error.to_string()).or(second.problem.clone()), ..second })
                }
                _ => Ok(end),
            }
        } else {
            self.documents(open()?, matcher)
        }
    }

    fn decode(&self, mut source: impl Read, matcher: &mut Matcher) -> Result<(FileEnd, Option<DecodeError>), Unread> {
        let mut decoder = Decoder::new(self.scan.limits);
        let (mut input, mut output) = (Input::default(), Output::default());
        let (mut failed, mut buffer) = (None, vec![0; CHUNK]);
        loop {
            let step = decoder.step(&mut input, matcher, &mut output);
            self.tell(std::mem::take(&mut output.detections))?;
            match step {
                Ok(Step::Yield) => {}
                Ok(Step::End) => break,
                Ok(Step::NeedInput) => {
                    let read = read_some(&mut source, &mut buffer)?;
                    self.figures.bytes.fetch_add(read as u64, Ordering::Relaxed);
                    let bytes = buffer.get(..read).unwrap_or_default();
                    input = Input { bytes: Bytes::copy_from_slice(bytes), last: read == 0 };
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let problem =
            failed.as_ref().map(ToString::to_string).or_else(|| output.problems.first().map(ToString::to_string));
        let records = decoder.progress().records;
        let unreadable = output.problem_count;
        let end = FileEnd { records: records.saturating_sub(unreadable), unreadable, problem, suppressed: Vec::new() };
        Ok((end, failed))
    }

    fn documents(&self, source: impl Read, matcher: &mut Matcher) -> Result<FileEnd, Unread> {
        let mut text = Plain::new(source, self.scan.limits);
        let (mut documents, mut buffer) = (Documents::default(), vec![0; CHUNK]);
        let mut failed = None;
        loop {
            let read = match read_some(&mut text, &mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    failed = Some(error.to_string());
                    break;
                }
            };
            self.figures.bytes.fetch_add(read as u64, Ordering::Relaxed);
            let mut found = Vec::new();
            documents.feed(buffer.get(..read).unwrap_or_default(), &mut |index, raw| {
                let rules = matcher.matches(raw);
                if !rules.is_empty() {
                    found.push(Detection { index, raw: Bytes::copy_from_slice(raw), rules });
                }
            });
            self.tell(found)?;
        }
        let end = documents.finish();
        Ok(FileEnd {
            records: end.records,
            unreadable: end.unreadable,
            problem: failed.or(end.first_problem),
            suppressed: Vec::new(),
        })
    }

    fn tell(&self, detections: Vec<Detection>) -> Result<(), Unread> {
        let now = OffsetDateTime::UNIX_EPOCH;
        let new = detections.into_iter().filter(|detection| detection.index >= self.begun);
        let events: Vec<_> = new
            .map(|detection| {
                let source = Source { object: self.object.clone(), index: detection.index };
                detected_event(&detection, source, now, self.scan.rules.hash())
            })
            .collect();
        if events.is_empty() {
            return Ok(());
        }
        match self.send(Found::Events(events)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Unread::Gone),
        }
    }

    fn send(&self, found: Found) -> ControlFlow<()> {
        if self.sender.send(found).is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Why a file was not read to its end.
enum Unread {
    /// Nobody listens any more.
    Gone,
    Io(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// As much as comes at once.
fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Whether the text begins as a log file of CloudTrail does: with `{"Records": [`. What is too short to tell, or damaged, is
/// judged by the decoder.
fn begins_as_log(source: impl Read, limits: Limits) -> bool {
    let mut head = Vec::with_capacity(HEAD);
    if Plain::new(source, limits).take(HEAD as u64).read_to_end(&mut head).is_err() && head.is_empty() {
        return true;
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head).trim_ascii_start();
    if text.is_empty() {
        return true;
    }
    let key = text.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    key.and_then(|text| text.strip_prefix(b"\"Records\"")).is_some_and(|text| text.trim_ascii_start().starts_with(b":"))
}
