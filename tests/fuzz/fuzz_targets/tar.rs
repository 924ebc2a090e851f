//! See `image::fuzzing::tar`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| image::fuzzing::tar(data));
