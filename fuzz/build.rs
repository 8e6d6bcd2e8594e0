//! cargo-fuzz sets this itself; without it the crate is checked as it is fuzzed.

fn main() {
    println!("cargo::rustc-cfg=fuzzing");
}
