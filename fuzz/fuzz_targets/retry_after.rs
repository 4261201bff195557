#![no_main]

use tokencache_fuzz::{retry_after::check, short};

libfuzzer_sys::fuzz_target!(init: short::run_if_asked(check), |input: &[u8]| check(input));
