//! Which objects are done, in a file: a replay that was stopped goes on where it was.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// No name of an object is longer, however much of it is escaped: 63 bytes of bucket and 1,024 of key.
const MAX_LINE_BYTES: u64 = 16 * 1024;

/// How a line begins.
const BEGIN: &[u8] = b"\"s3://";

/// What is done. A line for each object, `s3://bucket/key` with JSON's escapes, written once it is settled.
#[derive(Debug, Default)]
pub struct Resume {
    done: HashSet<[u8; 16]>,
    /// `None` inside once a line could not be written: what would follow a part of a line could not be read again.
    file: Option<Mutex<Option<File>>>,
}

impl Resume {
    /// Reads the file, which may not be there yet, and goes on in it. A last line that a crash cut off is not done.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written, or that holds something else.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut done = HashSet::new();
        // Where the whole lines end.
        let mut length = 0;
        let mut cut = false;
        match File::open(path) {
            Ok(file) => {
                let mut lines = BufReader::new(file);
                let mut line = Vec::new();
                for number in 1.. {
                    line.clear();
                    let read = lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
                    if read == 0 {
                        break;
                    }
                    cut = !line.ends_with(b"\n");
                    if cut
                        && line.len() as u64 != MAX_LINE_BYTES
                        && (line.starts_with(BEGIN) || BEGIN.starts_with(&line))
                    {
                        break;
                    }
                    let Some(name) = serde_json::from_slice::<String>(&line).ok().filter(|_| !cut) else {
                        let message = format!("line {number} is not the name of an object: is it a resume file?");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                    };
                    done.insert(digest(&name));
                    length += read as u64;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if cut {
            file.set_len(length)?;
        }
        Ok(Self { done, file: Some(Mutex::new(Some(file))) })
    }

    #[must_use]
    pub fn is_done(&self, bucket: &str, key: &str) -> bool {
        !self.done.is_empty() && self.done.contains(&digest(&name(bucket, key)))
    }

    /// Writes down that an object is done.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn note(&self, bucket: &str, key: &str) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let line = format!("{}\n", serde_json::Value::from(name(bucket, key)));
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match file.as_mut() {
            Some(file) => file.write_all(line.as_bytes()),
            None => Err(io::Error::other("an earlier line could not be written")),
        };
        if written.is_err() {
            *file = None;
        }
        written
    }
}

fn name(bucket: &str, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

fn digest(name: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(Sha256::digest(name).get(..16).unwrap_or(&[0; 16]));
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_done_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resume");
        let resume = Resume::open(&path).unwrap();
        assert!(!resume.is_done("b", "k\n1"));
        resume.note("b", "k\n1").unwrap();
        resume.note("b", "k2").unwrap();
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        let resume = Resume::open(&path).unwrap();
        assert!(resume.is_done("b", "k\n1") && !resume.is_done("b", "k2"));
        resume.note("b", "k3").unwrap();
        // And it can be interrupted once more.
        let resume = Resume::open(&path).unwrap();
        assert!(resume.is_done("b", "k\n1") && !resume.is_done("b", "k2") && resume.is_done("b", "k3"));
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "dear diary\n").unwrap();
        assert!(Resume::open(&path).unwrap_err().to_string().contains("is it a resume file?"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary\n");
        // Also without an end of line, however long it is.
        for other in ["dear diary".to_owned(), format!("\"s3://{}", "x".repeat(1 << 20))] {
            std::fs::write(&path, &other).unwrap();
            assert!(Resume::open(&path).unwrap_err().to_string().contains("is it a resume file?"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
        }
    }

    #[test]
    fn without_a_file_nothing_is_done() {
        let resume = Resume::default();
        resume.note("b", "k").unwrap();
        assert!(!resume.is_done("b", "k"));
    }
}
