#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trailhound_fuzz::fuzzing::rule_loading::check(data));
