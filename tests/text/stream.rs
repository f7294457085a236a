//! Streams of tokens, against the corpus of the same documents as a whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gossamer::Error;
use gossamer::observer::Observer;
use gossamer::text::cache::Tokens;
use gossamer::text::corpus::{Corpus, Source};
use gossamer::text::stream::{StreamSettings, TokenStream};
use tempfile::TempDir;

use super::{all, documents, names, tokenizer, write};

const SHARD: u64 = 1000;

fn settings() -> StreamSettings {
    StreamSettings { shard_tokens: SHARD, val_fraction: 0.1, maker: true }
}

/// Lines with 300 documents, which are about nine shards.
fn source(folder: &TempDir) -> Source {
    let lines: Vec<_> = documents(300).iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
    Source::new([write(folder, "text.jsonl", lines.join("\n"))])
}

fn open(source: &Source, cache: &Path) -> TokenStream {
    TokenStream::open(source, tokenizer(), cache, &settings(), &Observer::default()).unwrap()
}

fn shard(stream: &TokenStream, number: u64) -> Vec<u32> {
    all(&stream.shard(number, &Observer::default()).unwrap())
}

#[test]
fn shards_are_the_corpus_over_and_over() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = source(&folder);
    let whole = Corpus::prepare(&source, tokenizer(), folder.path().join("whole"), 0.1, &Observer::default()).unwrap();
    let stream = open(&source, cache.path());
    let shards: Vec<Vec<u32>> = (0..25).map(|number| shard(&stream, number)).collect();
    for tokens in &shards {
        assert!((SHARD as usize..SHARD as usize + 60).contains(&tokens.len()), "{} tokens", tokens.len());
        assert_eq!(tokens.last(), tokenizer().end_of_text().as_ref(), "a shard ends with a document");
    }
    let train = all(&whole.train);
    let read = shards.concat();
    assert!(read.len() > 2 * train.len());
    assert!(read.iter().eq(train.iter().cycle().take(read.len())));
    // What the first shard holds out is held out of the whole, too.
    let first = stream.first().unwrap();
    assert_eq!(all(&first.train), shards[0]);
    assert!(!first.validation.is_empty() && all(&whole.validation).starts_with(&all(&first.validation)));
}

#[test]
fn any_shard_is_the_same_whatever_the_cache_has() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = source(&folder);
    let expected: Vec<Vec<u32>> = {
        let stream = open(&source, cache.path());
        (0..24).map(|number| shard(&stream, number)).collect()
    };
    // All of the cache, then with gaps, damaged, without its index, and nothing.
    let train = |number: &str| {
        let found = names(cache.path()).into_iter().find(|name| name.ends_with(&format!(".{number}.train.tokens")));
        cache.path().join(found.unwrap())
    };
    assert_eq!(shard(&open(&source, cache.path()), 23), expected[23]);
    fs::remove_file(train("7")).unwrap();
    fs::write(train("22"), "damaged").unwrap();
    let stream = open(&source, cache.path());
    assert_eq!((shard(&stream, 22), shard(&stream, 7)), (expected[22].clone(), expected[7].clone()));
    drop(stream);
    let index = names(cache.path()).into_iter().find(|name| name.ends_with(".shards.json")).unwrap();
    fs::remove_file(cache.path().join(index)).unwrap();
    fs::remove_file(train("23")).unwrap();
    assert_eq!(shard(&open(&source, cache.path()), 23), expected[23]);
    fs::remove_dir_all(cache.path()).unwrap();
    assert_eq!(shard(&open(&source, cache.path()), 17), expected[17]);
}

#[test]
fn two_streams_share_a_cache() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = source(&folder);
    let read = |numbers: Vec<u64>| {
        let stream = open(&source, cache.path());
        numbers.into_iter().map(|number| shard(&stream, number)).collect::<Vec<_>>()
    };
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| read((3..15).collect()));
        (read((0..12).collect()), other.join().unwrap())
    });
    assert_eq!(one[3..], two[..9]);
}

#[test]
fn few_shards_are_made_ahead_and_kept() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let stream = open(&source(&folder), cache.path());
    let held: Arc<Tokens> = stream.shard(1, &Observer::default()).unwrap();
    for number in 2..70 {
        shard(&stream, number);
    }
    let shards = names(cache.path()).iter().filter(|name| name.ends_with(".train.tokens")).count();
    assert!((33..=36).contains(&shards), "{shards}");
    // One in use stays readable where files in use can be removed.
    assert!(held.len() >= SHARD as usize);
}

#[test]
fn what_cannot_be_streamed_says_why() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let open = |source: &Source, settings: &StreamSettings, observer: &Observer| {
        TokenStream::open(source, tokenizer(), cache.path(), settings, observer).and_then(|stream| stream.first()).err()
    };
    let message = |source: &Source, settings| open(source, &settings, &Observer::default()).unwrap().to_string();
    let empty = Source::new([write(&folder, "empty.jsonl", "{\"x\": 1}\n")]);
    let said = message(&empty, settings());
    assert!(said.contains("no documents") && said.contains("1 skipped"), "{said}");
    let one = Source::new([write(&folder, "one.txt", "only one")]);
    let said = message(&one, StreamSettings { val_fraction: 1.0 - 1e-12, ..settings() });
    assert!(said.contains("val_fraction"), "{said}");
    let said = message(&one, StreamSettings { val_fraction: 1e-12, ..settings() });
    assert!(said.contains("holds out no document"), "{said}");
    let stop = AtomicBool::new(true);
    let stopped = open(&source(&folder), &settings(), &Observer::stopped_by(&stop));
    assert!(matches!(stopped, Some(Error::Stopped)), "{stopped:?}");
}
