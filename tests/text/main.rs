//! Tokenizers, corpora and the bigram yardstick, against hand-made cases and naive counterparts.

mod bigram;
mod corpus;
mod formats;
#[cfg(all(feature = "hub", feature = "datasets"))]
mod hub;
mod kinds;
mod source;
mod stream;
mod tokenizer;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use gossamer::observer::Observer;
use gossamer::text::cache::Tokens;
use gossamer::text::tokenizer::Tokenizer;
use tempfile::TempDir;

const VOCAB: usize = 300;

fn documents(count: usize) -> Vec<String> {
    let words = ["alpha", "beta", "gamma", "delta", "épsilon"];
    let word = |n: usize| words[n % words.len()];
    (0..count).map(|n| format!("def {}_{n}(x):\n    return {} + {n}\n", word(n), word(n / 3))).collect()
}

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| Tokenizer::train(documents(100).into_iter(), VOCAB, &Observer::default()).unwrap())
}

fn write(folder: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, contents).unwrap();
    path
}

fn all(tokens: &Tokens) -> Vec<u32> {
    tokens.get(0..tokens.len()).unwrap()
}

/// The documents of one side, in order.
fn texts(tokens: &Tokens) -> Vec<String> {
    let ids = all(tokens);
    assert_eq!(ids.last(), Some(&(VOCAB as u32 - 1)), "a side ends with the end of a document");
    let documents = ids.split(|&id| id == VOCAB as u32 - 1).map(|ids| tokenizer().decode(ids).unwrap());
    documents.filter(|text| !text.is_empty()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
