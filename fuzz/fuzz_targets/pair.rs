// SPDX-License-Identifier: MIT OR Apache-2.0
//! libFuzzer entry of [`holdfast_fuzz::bodies::pair`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    holdfast_fuzz::bodies::pair(data);
});
