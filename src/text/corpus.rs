//! Corpora: documents tokenized once, split into training and validation, kept in a cache.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::{TokenWriter, Tokens, VERSION};
use super::encode::Sink;
pub(crate) use super::source::fingerprint;
pub use super::source::{Documents, SkippedDocuments, Source};
use super::tokenizer::Tokenizer;
use crate::files::{Lock, create_folder, hex, lock_name, sweep_own};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};

/// Bytes of documents held in memory at a time, approximately.
const CHUNK: usize = 4 << 20;

/// Tokenized documents, each followed by the end-of-text token.
///
/// A hash of its text decides whether a document belongs to training or validation, so copies of a
/// document are on the same split. If there are two different documents, both sides have one. A
/// single document is split by position: validation is its end.
#[derive(Debug)]
pub struct Corpus {
    /// The tokens to train on.
    pub train: Tokens,
    /// The tokens to evaluate on.
    pub validation: Tokens,
    /// Counts of what was read.
    pub statistics: CorpusStatistics,
    /// Whether the corpus came from the cache.
    pub cached: bool,
    /// Identifies documents, tokenizer and split: the same key means the same tokens.
    pub key: String,
}

/// The contents of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CorpusStatistics {
    /// Documents that were tokenized.
    pub documents: u64,
    /// Their size in bytes of UTF-8.
    pub bytes: u64,
    /// Tokens of both sides, with one end-of-text token per document.
    pub tokens: u64,
    /// SkippedDocuments documents by reason.
    pub skipped: SkippedDocuments,
    /// Occurrences of [`END_OF_TEXT`](super::tokenizer::END_OF_TEXT) that separated documents in the files.
    pub separators: u64,
}

impl Corpus {
    /// Reads, tokenizes and splits `source`, or reuses the corpus of the same contents, tokenizer
    /// and fraction in the folder `cache_dir`, which is created if necessary. About `val_fraction`
    /// of the documents become validation.
    ///
    /// Memory grows with the largest document (for one in a `.jsonl` file up to three times its
    /// text), not with the corpus.
    ///
    /// # Errors
    /// Returns [`Error::Io`] for what cannot be read or written, [`Error::File`] for a file of
    /// unknown kind, [`Error::Config`] for a fraction outside 0..1, [`Error::Data`] if there are no
    /// documents or the files change meanwhile, [`Error::Tokenizer`] if there is no end-of-text
    /// token, the errors of [`Tokenizer::encode`], and [`Error::Stopped`].
    pub fn prepare(
        source: &Source,
        tokenizer: &Tokenizer,
        cache_dir: impl AsRef<Path>,
        val_fraction: f64,
        observer: &Observer,
    ) -> Result<Self> {
        let files = source.files()?;
        let contents = fingerprint(&files, &source.text_field, observer)?;
        let cache = CorpusCache::new(cache_dir.as_ref(), ["files", &contents], tokenizer, val_fraction)?;
        cache.open_or(observer, || {
            let size = files.iter().filter_map(|file| Some(std::fs::metadata(file.path().ok()?).ok()?.len())).sum();
            let mut documents = Documents::of(files, &source.text_field, *observer);
            let mut splits = cache.fill(&mut documents, Some(size), observer)?;
            splits.statistics.skipped = documents.skipped();
            splits.statistics.separators = documents.separators();
            if documents.fingerprint() != contents {
                return Err(Error::Data("the corpus changed while it was read".into()));
            }
            if splits.statistics.documents == 0 {
                return Err(Error::Data(source.no_documents(&splits.statistics.skipped)));
            }
            Ok(splits)
        })
    }

    /// As [`Corpus::prepare`], for documents from anywhere. `key` must contain everything that
    /// determines them (a generator with its name, version, seed and count): `documents` are not
    /// read if the cache has a corpus of this key, tokenizer and fraction.
    ///
    /// # Errors
    /// Returns the errors of [`Corpus::prepare`].
    pub fn from_documents(
        documents: impl IntoIterator<Item = String>,
        tokenizer: &Tokenizer,
        cache_dir: impl AsRef<Path>,
        val_fraction: f64,
        key: &str,
        observer: &Observer,
    ) -> Result<Self> {
        let cache = CorpusCache::new(cache_dir.as_ref(), ["documents", key], tokenizer, val_fraction)?;
        cache.open_or(observer, || {
            let mut empty = 0;
            let mut documents =
                documents.into_iter().inspect(|document| empty += u64::from(document.is_empty())).map(Ok);
            let mut splits = cache.fill(&mut documents, None, observer)?;
            drop(documents);
            splits.statistics.skipped.empty = empty;
            match splits.statistics.documents {
                0 => Err(Error::Data(format!("no documents in `{key}`"))),
                _ => Ok(splits),
            }
        })
    }
}

/// The files of one corpus in the cache.
pub(super) struct CorpusCache<'a> {
    folder: &'a Path,
    tokenizer: &'a Tokenizer,
    end_of_text: u32,
    val_fraction: f64,
    pub(super) key: String,
}

/// Training (index 0) and validation (index 1) while they are written.
struct Splits {
    writers: [TokenWriter; 2],
    /// The hash and the number of tokens of every document.
    documents: [Vec<(u64, u64)>; 2],
    statistics: CorpusStatistics,
    /// The approximate number of bytes, if it is known.
    total: Option<u64>,
}

impl Splits {
    fn add(&mut self, split: usize, hash: u64, tokens: usize, bytes: usize) {
        self.documents[split].push((hash, tokens as u64));
        self.statistics.documents += 1;
        self.statistics.bytes += bytes as u64;
    }

    /// Reports progress, with `more` bytes of a document that is not finished.
    fn report(&self, more: usize, observer: &Observer) -> Result<()> {
        let done = self.statistics.bytes + more as u64;
        observer.advance(&Stage { name: "tokenizing", done, total: self.total, unit: "bytes" })
    }
}

/// The hash that decides a document's split.
pub(super) fn hash_of(text: &str) -> u64 {
    Sha256::digest(text).iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// The next documents, of about [`CHUNK`] bytes together. The last one may be much larger: it is
/// returned apart, since its tokens may not fit into memory.
pub(super) fn read_chunk(
    documents: &mut impl Iterator<Item = Result<String>>,
) -> Result<(Vec<String>, Option<String>)> {
    let (mut chunk, mut size) = (Vec::new(), 0);
    while let Some(document) = if size < CHUNK { documents.next() } else { None } {
        let document = document?;
        if !document.is_empty() {
            size += document.len();
            chunk.push(document);
        }
    }
    let large = chunk.pop_if(|last| last.len() >= CHUNK);
    Ok((chunk, large))
}

impl<'a> CorpusCache<'a> {
    pub(super) fn new(
        folder: &'a Path,
        contents: [&str; 2],
        tokenizer: &'a Tokenizer,
        val_fraction: f64,
    ) -> Result<Self> {
        if !(val_fraction > 0.0 && val_fraction < 1.0) {
            let message = format!("is {val_fraction}, must be above 0 and below 1");
            return Err(Error::config("val_fraction", message));
        }
        let mut digest = Sha256::new();
        for part in [contents[0], contents[1], &tokenizer.hash(), &val_fraction.to_string(), &VERSION.to_string()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Self::with_key(folder, tokenizer, val_fraction, &hex(&digest.finalize()))
    }

    /// As [`CorpusCache::new`], for a key that it gave.
    pub(super) fn with_key(folder: &'a Path, tokenizer: &'a Tokenizer, val_fraction: f64, key: &str) -> Result<Self> {
        let end_of_text = tokenizer.expect_end_of_text()?;
        Ok(Self { folder, tokenizer, end_of_text, val_fraction, key: key.into() })
    }

    fn paths(&self) -> [PathBuf; 2] {
        ["train", "validation"].map(|split| self.folder.join(format!("{}.{split}.tokens", self.key)))
    }

    fn open(&self, cached: bool) -> Result<Option<Corpus>> {
        let [train, validation] = self.paths();
        let (Some((train, mut statistics)), Some((validation, rest))) =
            (Tokens::open(&train)?, Tokens::open(&validation)?)
        else {
            return Ok(None);
        };
        statistics.tokens += rest.tokens;
        Ok(Some(Corpus { train, validation, statistics, cached, key: self.key.clone() }))
    }

    fn open_or(&self, observer: &Observer, build: impl FnOnce() -> Result<Splits>) -> Result<Corpus> {
        // Temporary files that cannot be removed do no harm.
        let _ = sweep_own(self.folder);
        if let Some(corpus) = self.open(true)? {
            return Ok(corpus);
        }
        create_folder(self.folder)?;
        let _lock = Lock::wait(lock_name(self.folder, &self.key), || observer.check())?;
        // Another process may have written it meanwhile.
        if let Some(corpus) = self.open(true)? {
            return Ok(corpus);
        }
        let splits = self.balance(build()?)?;
        for writer in splits.writers {
            writer.finish(&splits.statistics)?;
        }
        let damaged =
            || Error::file(self.folder, "the corpus just written here cannot be read back: the disk may be faulty");
        self.open(false)?.ok_or_else(damaged)
    }

    fn writers(&self) -> Result<[TokenWriter; 2]> {
        let [train, validation] = self.paths();
        let vocab = self.tokenizer.vocab_size();
        Ok([TokenWriter::create(&train, vocab)?, TokenWriter::create(&validation, vocab)?])
    }

    fn fill(
        &self,
        documents: &mut impl Iterator<Item = Result<String>>,
        total: Option<u64>,
        observer: &Observer,
    ) -> Result<Splits> {
        let (documents_of, statistics) = ([Vec::new(), Vec::new()], CorpusStatistics::default());
        let mut splits = Splits { writers: self.writers()?, documents: documents_of, statistics, total };
        loop {
            let (chunk, large) = read_chunk(documents)?;
            if chunk.is_empty() && large.is_none() {
                return Ok(splits);
            }
            let encoded: Vec<(u64, Vec<u32>)> = chunk
                .par_iter()
                .map(|text| observer.check().and_then(|()| self.encode(text)))
                .collect::<Result<_>>()?;
            for (text, (hash, ids)) in chunk.iter().zip(encoded) {
                let split = self.split(hash);
                splits.writers[split].push(&ids)?;
                splits.add(split, hash, ids.len(), text.len());
            }
            splits.report(0, observer)?;
            if let Some(text) = large {
                self.encode_large(&text, &mut splits, observer)?;
            }
        }
    }

    pub(super) fn split(&self, hash: u64) -> usize {
        // The conversion saturates for a fraction that rounds up to 1.
        usize::from(hash < (self.val_fraction * 2f64.powi(64)) as u64)
    }

    pub(super) fn encode(&self, text: &str) -> Result<(u64, Vec<u32>)> {
        let mut ids = self.tokenizer.encode(text)?;
        ids.push(self.end_of_text);
        Ok((hash_of(text), ids))
    }

    /// Passes the tokens of a document and the one that ends it to `sink`, part by part.
    pub(super) fn encode_into(&self, text: &str, sink: Sink) -> Result<()> {
        self.tokenizer.encode_parts(text, sink)?;
        sink(&[self.end_of_text], 0)
    }

    /// Tokenizes a document part by part.
    fn encode_large(&self, text: &str, splits: &mut Splits, observer: &Observer) -> Result<()> {
        observer.check()?;
        let hash = hash_of(text);
        let split = self.split(hash);
        let before = splits.writers[split].len();
        let mut bytes = 0;
        self.encode_into(text, &mut |ids, length| {
            splits.writers[split].push(ids)?;
            bytes += length;
            splits.report(bytes, observer)
        })?;
        splits.add(split, hash, (splits.writers[split].len() - before) as usize, text.len());
        splits.report(0, observer)
    }

    /// If one split is empty, moves to it the document whose hash is closest to it.
    fn balance(&self, splits: Splits) -> Result<Splits> {
        let Some(empty) = splits.writers.iter().position(|writer| writer.len() == 0) else { return Ok(splits) };
        let Splits { writers: [train, validation], documents: [in_train, in_validation], statistics, total } = splits;
        let (full, documents) = if empty == 0 { (validation, in_validation) } else { (train, in_train) };
        let hashes = documents.iter().map(|&(hash, _)| hash);
        let chosen = if empty == 0 { hashes.max() } else { hashes.min() };
        let runs: Vec<(u64, usize)> = if documents.iter().any(|&(hash, _)| Some(hash) != chosen) {
            documents.iter().map(|&(hash, len)| (len, if Some(hash) == chosen { empty } else { 1 - empty })).collect()
        } else {
            // There are at least two tokens: a document is not empty, and end-of-text follows.
            let end = ((full.len() as f64 * self.val_fraction).round() as u64).clamp(1, full.len() - 1);
            vec![(full.len() - end, 0), (end, 1)]
        };
        let mut writers = self.writers()?;
        full.scatter(&runs, &mut writers)?;
        Ok(Splits { writers, documents: [Vec::new(), Vec::new()], statistics, total })
    }
}
