#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kms_client::fuzzing::run("client_name", data));
