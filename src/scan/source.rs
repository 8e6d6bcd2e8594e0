//! Files, folders and archives, one log file after another.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tar::Archive;
use zip::ZipArchive;

use super::{Body, Give, Room, Work};
use crate::alert::shown;
use crate::cloudtrail::{DecodeError, Limits, Plain, RATIO_FREE_BYTES};
use crate::notification::{Ignored, classify};

/// How deep folders are followed: deeper than any bucket's layout, and an end for links that lead in a circle.
const MAX_DEPTH: usize = 32;

/// What a log file's name ends with, and an archive's.
const LOGS: [&str; 9] =
    [".json", ".json.gz", ".json.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst"];
const TARS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];
const ZIP: &str = ".zip";

/// Where `ustar` stands in a tar file.
const TAR_MAGIC: usize = 257;

/// The log files and archives in a folder and below it, in the order of their paths. What is named otherwise is left out,
/// and so are CloudTrail's digests. A folder that cannot be read is among them, so that who reads it tells why.
#[must_use]
pub fn find(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if gather(folder, 0, &mut paths).is_err() {
        paths.push(folder.to_owned());
    }
    paths.sort();
    paths
}

fn gather(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // A link to a folder may lead back here; a link to a file is read, and one that leads nowhere is told.
        if entry.file_type()?.is_dir() {
            if depth >= MAX_DEPTH || gather(&path, depth + 1, paths).is_err() {
                paths.push(path);
            }
        } else if is_wanted(&path.to_string_lossy()) && path.metadata().map_or(true, |it| it.is_file()) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Whether a file that nobody named is read.
fn is_wanted(name: &str) -> bool {
    is_log(name) || is_archive(name)
}

fn is_log(name: &str) -> bool {
    ends_with_any(name, &LOGS) && classify(name) != Err(Ignored::Digest)
}

/// Whether a file's name is that of an archive.
#[must_use]
pub fn is_archive(name: &str) -> bool {
    ends_with_any(name, &TARS) || ends_with_any(name, &[ZIP])
}

fn ends_with_any(name: &str, endings: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Gives a file, or what is in it if it is an archive: that is held in this room.
pub fn give_file(path: &Path, limits: Limits, room: &Arc<Room>, give: Give<'_>) -> ControlFlow<()> {
    let name = path.display().to_string();
    let failed = |error: io::Error| Work { name: name.clone(), object: None, body: Body::Failed(error.to_string()) };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return give(failed(error)),
    };
    let kind = match kind(&file, &name, limits) {
        Ok(kind) => kind,
        Err(error) => return give(failed(error)),
    };
    let given = match kind {
        Kind::Pipe => return give(Work { name, object: None, body: Body::Stream(Box::new(file)) }),
        Kind::Log => return give(Work { name, object: None, body: Body::File(path.to_owned()) }),
        Kind::Tar => File::open(path).map(|file| give_tar(&name, file, limits, room, give)),
        Kind::Zip => File::open(path).map(|file| give_zip(&name, file, limits, room, give)),
    };
    match given {
        Ok(Ok(given)) => given,
        Ok(Err(error)) | Err(error) => give(failed(error)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Or a device: what is read from it is gone.
    Pipe,
    Log,
    Tar,
    Zip,
}

fn kind(mut file: &File, name: &str, limits: Limits) -> io::Result<Kind> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::other(format!("a folder that cannot be listed, or lies more than {MAX_DEPTH} deep")));
    }
    if !metadata.is_file() {
        return Ok(Kind::Pipe);
    }
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head)?;
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Ok(Kind::Zip);
    }
    if ends_with_any(name, &TARS) {
        return Ok(Kind::Tar);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut text = Vec::new();
    // What cannot be read is told by who reads it.
    let _read = Plain::new(file, limits).take(512).read_to_end(&mut text);
    let is_tar = text.get(TAR_MAGIC..).is_some_and(|text| text.starts_with(b"ustar"));
    Ok(if is_tar { Kind::Tar } else { Kind::Log })
}

fn give_tar(name: &str, file: File, limits: Limits, room: &Arc<Room>, give: Give<'_>) -> io::Result<ControlFlow<()>> {
    // A year of logs compresses as it likes.
    let mut archive = Archive::new(Plain::new(file, Limits { max_ratio: u64::MAX, ..limits }));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let kind = entry.header().entry_type();
        if (kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()) && is_log(&path) {
            let size = entry.size();
            let work = held(name, &path, size, limits, room, &mut entry);
            if give(work).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn give_zip(name: &str, file: File, limits: Limits, room: &Arc<Room>, give: Give<'_>) -> io::Result<ControlFlow<()>> {
    let mut archive = ZipArchive::new(file)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let path = entry.name().to_owned();
        if entry.is_file() && is_log(&path) {
            let size = entry.size();
            let most = entry.compressed_size().saturating_mul(limits.max_ratio).max(RATIO_FREE_BYTES);
            let work = if size > most {
                let why = DecodeError::RatioTooHigh { limit: limits.max_ratio }.to_string();
                Work { name: within(name, &path), object: None, body: Body::Failed(why) }
            } else {
                held(name, &path, size, limits, room, &mut entry)
            };
            if give(work).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A file in an archive, read into memory.
fn held(archive: &str, path: &str, size: u64, limits: Limits, room: &Arc<Room>, entry: &mut impl Read) -> Work {
    let limit = limits.max_compressed_bytes;
    let mut bytes = Vec::new();
    let body = if size > limit {
        Body::Failed(format!("more than {limit} bytes in an archive (source.max_compressed_bytes); take it out first"))
    } else {
        let hold = room.take(size);
        // One byte more than it should have shows that it has more.
        match entry.take(size.saturating_add(1)).read_to_end(&mut bytes) {
            Ok(read) if read as u64 > size => {
                Body::Failed(format!("more than the {size} bytes that the archive tells"))
            }
            Ok(_) => Body::Bytes(Bytes::from(bytes), hold),
            Err(error) => Body::Failed(error.to_string()),
        }
    };
    Work { name: within(archive, path), object: None, body }
}

/// The name of a file in an archive.
fn within(archive: &str, path: &str) -> String {
    format!("{archive}!{}", shown(path, 1024))
}
