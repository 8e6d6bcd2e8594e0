//! What the fuzz targets of `fuzz/` check, a file for each target, and the seeds that they start from. `cargo test` runs
//! every check over its seeds, so that neither can rot.
//!
//! A check panics where a property does not hold. It takes any bytes.

pub mod notification;
pub mod pattern_matching;
pub mod prefilter;
pub mod record_stream;
pub mod rule_loading;

use std::fs;
use std::path::{Path, PathBuf};

pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
    /// Made from the fixtures of the tree.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: [Target; 5] = [
    Target { name: "notification", check: notification::check, seeds: notification::seeds },
    Target { name: "record_stream", check: record_stream::check, seeds: record_stream::seeds },
    Target { name: "rule_loading", check: rule_loading::check, seeds: rule_loading::seeds },
    Target { name: "pattern_matching", check: pattern_matching::check, seeds: pattern_matching::seeds },
    Target { name: "prefilter", check: prefilter::check, seeds: prefilter::seeds },
];

/// The repository, seen from the crate that is built: trailhound's or `fuzz`.
fn repository() -> PathBuf {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = crate_root.ancestors().find(|folder| folder.join("tests/fixtures").is_dir());
    found.expect("the fixtures are in the tree").to_owned()
}

fn read(path: &str) -> Vec<u8> {
    fs::read(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The example messages, in the order of their names.
fn messages() -> Vec<Vec<u8>> {
    let folder = fs::read_dir(repository().join("tests/fixtures/notifications")).expect("a folder of fixtures");
    let mut files: Vec<_> = folder.map(|file| file.expect("a fixture").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a fixture")).collect()
}

/// Of the fixture of patterns: each line is a pattern and an event.
fn patterns() -> Vec<(String, String)> {
    let text = String::from_utf8(read("tests/fixtures/patterns/generated.jsonl")).expect("a text");
    let pair = |line: &str| {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case");
        (case["pattern"].to_string(), case["event"].to_string())
    };
    text.lines().map(pair).collect()
}

/// Nothing that ends a line, moves a cursor or turns the direction of writing.
fn assert_one_line(text: &str) {
    let odd = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(odd), "not one plain line: {text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_binary_and_seeds_on_which_its_check_holds() {
        let manifest = String::from_utf8(read("fuzz/Cargo.toml")).unwrap();
        for target in TARGETS {
            let main = String::from_utf8(read(&format!("fuzz/fuzz_targets/{}.rs", target.name))).unwrap();
            assert!(main.contains(&format!("fuzzing::{}::check(data)", target.name)), "{}", target.name);
            assert!(manifest.contains(&format!("fuzz_targets/{}.rs", target.name)), "{}", target.name);
            let seeds = (target.seeds)();
            assert!(seeds.len() >= 20, "{} has {} seeds", target.name, seeds.len());
            for seed in seeds {
                (target.check)(&seed);
            }
        }
    }
}
