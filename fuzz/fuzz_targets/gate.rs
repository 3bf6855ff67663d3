// SPDX-License-Identifier: MIT OR Apache-2.0
//! libFuzzer entry of [`holdfast_fuzz::bodies::gate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    holdfast_fuzz::bodies::gate(data);
});
