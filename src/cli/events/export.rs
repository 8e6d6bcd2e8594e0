//! `trailhound events export`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::stream::StreamExt as _;
use serde_json::to_string;

use super::{Detail, EventReader, ExportArgs, ExportFormat, Failure, Order, Question, Range, unread};
use crate::alert::{shown, visible_json};
use crate::cli::output::{Format, Output, Progress, Unprinted};
use crate::events::{Document, Record, Stored};

/// So many events without a record are told by name.
const NAMED: usize = 10;

pub(super) async fn run(reader: &dyn EventReader, args: &ExportArgs, range: Range) -> Result<(), Unprinted> {
    let ExportFormat::Jsonl = args.format;
    let filter = args.which.filter();
    let question = Question { range, filter: &filter, order: Order::OldestFirst, detail: Detail::Whole };
    // A scan is exported as it comes: to sort whole records, all would be held.
    let mut found = if args.which.scan { question.by_scan(reader) } else { question.by_index(reader) };
    let mut to = match &args.output {
        Some(path) => Destination::File(Partial::create(path).map_err(Unprinted::Failed)?),
        None => Destination::Output(Output::new(Format::Jsonl)),
    };
    let progress = Progress::new("events", None);
    let (mut count, mut without) = (0_u64, Vec::new());
    let mut missing = 0_u64;
    while let Some(event) = found.next().await {
        let event = event.map_err(unread)?;
        if let Some(line) = line_of(&event, args.records).map_err(Unprinted::Failed)? {
            progress.around(|| to.line(&line))?;
        } else {
            missing = missing.saturating_add(1);
            if without.len() < NAMED {
                without.push(place_of(&event));
            }
        }
        count = count.saturating_add(1);
        progress.add(1);
    }
    drop(progress);
    to.finish().map_err(Unprinted::Failed)?;
    if missing > 0 {
        let named = without.join("\n  ");
        let text = format!(
            "{missing} of {count} events have no record in the table that could be exported; read them where they came from:\n  {named}"
        );
        return Err(Unprinted::Failed(Failure::Other(text)));
    }
    Ok(())
}

/// What is written of an event; `None` where only its record is wanted and there is none.
fn line_of(event: &Stored, only_record: bool) -> Result<Option<String>, Failure> {
    if only_record {
        return Ok(match event.record() {
            Record::Json(text) if text.starts_with('{') => Some(visible_json(text)),
            _ => None,
        });
    }
    let text = to_string(&Document::with_record(event));
    text.map(|text| Some(visible_json(text))).map_err(|error| Failure::at("cannot write an event as JSON", error))
}

fn place_of(event: &Stored) -> String {
    let id = shown(&event.key.event_id, 256);
    match event.source.as_ref().and_then(|source| Some((source.object.as_ref()?, source.index))) {
        Some((object, index)) => {
            let version = object.version_id.as_ref().map(|version| format!(", version {}", shown(version, 1024)));
            let (bucket, key) = (shown(&object.bucket, 256), shown(&object.key, 1024));
            format!("{id}: s3://{bucket}/{key}{}, record {index} from 0", version.unwrap_or_default())
        }
        None => format!("{id}: it came in a message"),
    }
}

enum Destination {
    Output(Output),
    File(Partial),
}

impl Destination {
    fn line(&mut self, text: &str) -> Result<(), Unprinted> {
        match self {
            Self::Output(output) => output.line(text),
            Self::File(file) => file.line(text).map_err(Unprinted::Failed),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Output(_) => Ok(()),
            Self::File(file) => file.finish(),
        }
    }
}

/// A file that bears its name only once it is complete; until then it has another beside it, and is removed when dropped.
struct Partial {
    file: BufWriter<File>,
    written: PathBuf,
    name: PathBuf,
}

impl Partial {
    fn create(name: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::at(format!("cannot write {}", name.display()), error);
        if name.metadata().is_ok_and(|found| !found.is_file()) {
            return Err(failed(&"it is there and no regular file: leave --output out, and redirect to it"));
        }
        let last = name.file_name().ok_or_else(|| failed(&"this names no file"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(last);
        // Not by the id of the process, which is 1 in each container.
        hidden.push(format!(".{:016x}.partial", fastrand::u64(..)));
        let written = name.with_file_name(hidden);
        // Records are nobody else's affair.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&written);
        let file = file.map_err(|error| failed(&error))?;
        Ok(Self { file: BufWriter::new(file), written, name: name.to_owned() })
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.file, "{text}").map_err(|error| self.failed(&error))
    }

    fn finish(mut self) -> Result<(), Failure> {
        let done = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        done.and_then(|()| std::fs::rename(&self.written, &self.name)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::at(format!("cannot write {}", self.name.display()), error)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Once it bears its name, there is nothing left to remove.
        let _ = std::fs::remove_file(&self.written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_there_once_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("may.jsonl");
        std::fs::write(&name, "an older export\n").unwrap();

        let mut dropped = Partial::create(&name).unwrap();
        dropped.line("{}").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop(dropped);
        assert_eq!(names(folder.path()), ["may.jsonl"]);
        assert_eq!(std::fs::read_to_string(&name).unwrap(), "an older export\n");

        let mut file = Partial::create(&name).unwrap();
        file.line("{}").unwrap();
        file.finish().unwrap();
        assert_eq!(names(folder.path()), ["may.jsonl"]);
        assert_eq!(std::fs::read_to_string(&name).unwrap(), "{}\n");
    }

    /// In a container each process has the same id.
    #[test]
    fn what_a_killed_process_left_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("may.jsonl");
        std::mem::forget(Partial::create(&name).unwrap());
        Partial::create(&name).unwrap().finish().unwrap();
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["/dev/null", folder.path().to_str().unwrap(), "/", "no-such-folder/x"] {
            let Err(failure) = Partial::create(Path::new(name)) else { panic!("{name}") };
            assert!(failure.to_string().starts_with(&format!("cannot write {name}: ")), "{failure}");
        }
    }
}
