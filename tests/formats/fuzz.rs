//! What fuzzing found, and a little of what it reached, once more on every run.

use std::fs;
use std::path::Path;

use super::feed;

fn each(target: &str, feed: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    for file in files {
        let bytes = fs::read(&file).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| feed(&bytes)) {
            eprintln!("with {}:", file.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn torch() {
    each("torch", feed::torch);
}

#[test]
fn foreign() {
    each("foreign", feed::foreign);
}

#[test]
fn viz() {
    each("viz", feed::viz);
}

#[test]
fn pickle() {
    each("pickle", feed::pickle);
}

#[test]
fn safetensors() {
    each("safetensors", feed::safetensors);
}

#[test]
fn config() {
    each("config", feed::config);
}

#[test]
fn index() {
    each("index", feed::index);
}

#[test]
fn nested_config() {
    each("nested_config", feed::nested_config);
}

#[test]
fn tokenizer() {
    each("tokenizer", feed::tokenizer);
}

#[test]
fn circuit() {
    each("circuit", feed::circuit);
}

#[test]
fn tasks() {
    each("tasks", feed::tasks);
}

#[test]
fn recipe() {
    each("recipe", feed::recipe);
}

#[test]
fn statistics() {
    each("statistics", feed::statistics);
}

#[test]
fn binary() {
    each("binary", feed::binary);
}

#[test]
fn bridge_file() {
    each("bridge_file", feed::bridge_file);
}

#[test]
fn means() {
    each("means", feed::means);
}

#[test]
fn token_cache() {
    each("token_cache", feed::token_cache);
}

#[test]
fn report() {
    each("report", feed::report);
}

#[test]
fn sweep() {
    each("sweep", feed::sweep);
}

#[test]
fn metrics() {
    each("metrics", feed::metrics);
}

#[test]
fn run_config() {
    each("run_config", feed::run_config);
}

#[test]
fn state() {
    each("state", feed::state);
}

#[test]
fn documents() {
    each("documents", feed::documents);
}

#[test]
fn csv() {
    each("csv", feed::csv);
}

#[cfg(feature = "datasets")]
#[test]
fn parquet() {
    each("parquet", feed::parquet);
}

#[test]
fn compressed() {
    each("compressed", feed::compressed);
}

#[test]
fn vocabulary() {
    each("vocabulary", feed::vocabulary);
}
