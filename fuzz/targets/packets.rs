#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| schema_backup::fuzzing::packets(data));
