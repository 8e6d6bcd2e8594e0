// Being written: turns the struct in `mod.rs` into fields, a constructor `Metrics::new() -> Result<_, prometheus::Error>`
// that registers and zero-initialises all of them under the prefix `trailhound_`, and `Metrics::encode()`.
macro_rules! metrics {
    ($($t:tt)*) => {
        #[derive(Debug)]
        pub struct Metrics;
    };
}
