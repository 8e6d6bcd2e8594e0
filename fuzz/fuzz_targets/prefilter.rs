#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trailhound_fuzz::fuzzing::prefilter::check(data));
