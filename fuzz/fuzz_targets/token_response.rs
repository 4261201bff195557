#![no_main]

use tokencache_fuzz::{short, token_response::check};

libfuzzer_sys::fuzz_target!(init: short::run_if_asked(check), |input: &[u8]| check(input));
