#![no_main]

#[path = "../../tests/formats/feed.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| feed::foreign(data));
