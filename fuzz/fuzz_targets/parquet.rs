#![no_main]

#[path = "../../tests/formats/feed.rs"]
mod feed;

// The library catches panics of the parquet crate, which the fuzzer's own hook would count as
// findings. Those that are not caught still end the run.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |data: &[u8]| feed::parquet(data)
);
