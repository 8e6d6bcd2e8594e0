//! The user's own log files.

use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use crate::notification::{Ignored, classify};

/// How deep folders are followed: deeper than any bucket's layout, and an end for links that lead in a circle.
const MAX_DEPTH: usize = 32;

/// Every `.json` and `.json.gz` file in a folder and below it, by the key that it gets: its path, if that is the key of
/// a CloudTrail file, otherwise one that is. Sorted by path.
pub(super) fn find(folder: &Path, now: OffsetDateTime) -> io::Result<Vec<(String, PathBuf)>> {
    let mut paths = Vec::new();
    gather(folder, 0, &mut paths)?;
    paths.sort();
    let keyed = paths.into_iter().enumerate().map(|(index, path)| {
        let relative = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        (key(&relative, index, now), path)
    });
    Ok(keyed.collect())
}

fn gather(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // A link to a folder may lead back here; a link to a file is read.
        if entry.file_type()?.is_dir() {
            if depth < MAX_DEPTH {
                gather(&path, depth + 1, paths)?;
            }
        } else if is_log(&path) && path.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_log(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    [".json", ".json.gz"].iter().any(|ending| name.ends_with(ending))
}

fn key(relative: &str, index: usize, now: OffsetDateTime) -> String {
    let known = matches!(classify(relative), Ok(_) | Err(Ignored::Digest));
    if known && relative.len() <= 1_024 {
        return relative.to_owned();
    }
    let day = now.format(format_description!("[year]/[month]/[day]")).unwrap_or_default();
    let minute = now.format(format_description!("[year][month][day]T[hour][minute]Z")).unwrap_or_default();
    let extension = if relative.to_ascii_lowercase().ends_with(".gz") { "json.gz" } else { "json" };
    let (account, region) = ("000000000000", "us-east-1");
    format!(
        "AWSLogs/{account}/CloudTrail/{region}/{day}/{account}_CloudTrail_{region}_{minute}_{index:016}.{extension}"
    )
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn log_files_are_found_below_the_folder_and_named_as_cloudtrail_does() {
        let folder = tempfile::tempdir().unwrap();
        let own = "logs/111122223333_CloudTrail_eu-west-1_20260301T1000Z_abcdefgh12345678.json.gz";
        for name in [own, "logs/deep/sample.JSON", "readme.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        let found = find(folder.path(), datetime!(2026-03-01 10:00 UTC)).unwrap();
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                own,
                "AWSLogs/000000000000/CloudTrail/us-east-1/2026/03/01/\
             000000000000_CloudTrail_us-east-1_20260301T1000Z_0000000000000001.json",
            ]
        );
        assert!(keys.iter().all(|key| classify(key).is_ok()));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        find(Path::new("/nowhere/at/all"), datetime!(2026-03-01 10:00 UTC)).unwrap_err();
    }
}
