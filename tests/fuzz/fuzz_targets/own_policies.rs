#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kms_server::fuzzing::run("own_policies", data));
