//! See `image::fuzzing::registries_conf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| image::fuzzing::registries_conf(data));
