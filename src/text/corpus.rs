//! Corpora: documents tokenised once, split into training and validation, kept in a cache.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::{Tokens, VERSION, Writer};
pub(crate) use super::source::fingerprint;
pub use super::source::{Documents, Skipped, Source};
use super::tokenizer::{END_OF_TEXT, Tokenizer};
use crate::files::{Lock, create_folder, hex, lock_name, sweep_own};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};

/// About how many bytes of documents are held in memory at a time, tokens aside.
const CHUNK: usize = 4 << 20;

/// Tokenised documents, each followed by the end-of-text token.
///
/// A document belongs to training or validation by a hash of its text, so copies of a document are always on the same side. Both
/// sides hold at least one document where there are two different ones. A single document (or copies of a single one) is
/// split by position instead: validation is its end.
#[derive(Debug)]
pub struct Corpus {
    /// What models learn from.
    pub train: Tokens,
    /// What they are measured on.
    pub validation: Tokens,
    /// What was read.
    pub statistics: Statistics,
    /// Whether an earlier run had already done the work.
    pub cached: bool,
    /// Identifies documents, tokenizer and split; the same key means the same tokens.
    pub key: String,
}

/// What a corpus was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Documents that were tokenised.
    pub documents: u64,
    /// Their size in bytes of UTF-8.
    pub bytes: u64,
    /// Tokens on both sides together, one end-of-text per document included.
    pub tokens: u64,
    /// Documents that were skipped, by reason.
    pub skipped: Skipped,
    /// How many [`END_OF_TEXT`] in the files divided documents.
    pub separators: u64,
}

impl Corpus {
    /// Reads, tokenises and splits `source`, or reuses what an earlier call left in the folder `cache_dir` (created if need be)
    /// for the same contents, tokenizer and fraction. About `val_fraction` of the documents become validation.
    ///
    /// Works in pieces: memory does not grow with the corpus, only with its largest document, of which it holds the text (of one from a
    /// `.jsonl` file up to three times), whatever its shape.
    ///
    /// # Errors
    /// [`Error::Io`] for what cannot be read or written, [`Error::File`] for a file of unknown kind, [`Error::Config`] for a fraction outside
    /// 0..1, [`Error::Data`] when there are no documents, the files change meanwhile, or the tokenizer lacks an end-of-text token, those of
    /// [`Tokenizer::encode`], and [`Error::Stopped`].
    pub fn prepare(
        source: &Source,
        tokenizer: &Tokenizer,
        cache_dir: impl AsRef<Path>,
        val_fraction: f64,
        observer: &Observer,
    ) -> Result<Self> {
        let files = source.files()?;
        let contents = fingerprint(&files, observer)?;
        let cache = Cache::new(cache_dir.as_ref(), ["files", &contents], tokenizer, val_fraction)?;
        cache.open_or(observer, || {
            let size = files.iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).sum();
            let mut documents = Documents::of(files, *observer);
            let mut sides = cache.fill(&mut documents, Some(size), observer)?;
            sides.statistics.skipped = documents.skipped();
            sides.statistics.separators = documents.separators();
            if documents.fingerprint() != contents {
                return Err(Error::Data("the corpus changed while it was read".into()));
            }
            if sides.statistics.documents == 0 {
                return Err(Error::Data(source.nothing(&sides.statistics.skipped)));
            }
            Ok(sides)
        })
    }

    /// The same for documents from anywhere. `key` must say all that determines them (a generator's name, version, seed and count): where
    /// the cache holds a corpus of this key, tokenizer and fraction, `documents` is not even asked.
    pub fn from_documents(
        documents: impl IntoIterator<Item = String>,
        tokenizer: &Tokenizer,
        cache_dir: impl AsRef<Path>,
        val_fraction: f64,
        key: &str,
        observer: &Observer,
    ) -> Result<Self> {
        let cache = Cache::new(cache_dir.as_ref(), ["documents", key], tokenizer, val_fraction)?;
        cache.open_or(observer, || {
            let mut empty = 0;
            let mut documents =
                documents.into_iter().inspect(|document| empty += u64::from(document.is_empty())).map(Ok);
            let mut sides = cache.fill(&mut documents, None, observer)?;
            drop(documents);
            sides.statistics.skipped.empty = empty;
            match sides.statistics.documents {
                0 => Err(Error::Data(format!("no documents in `{key}`"))),
                _ => Ok(sides),
            }
        })
    }
}

/// One corpus's place in the cache.
struct Cache<'a> {
    folder: &'a Path,
    tokenizer: &'a Tokenizer,
    end_of_text: u32,
    val_fraction: f64,
    key: String,
}

/// Training (index 0) and validation (index 1) while they are written.
struct Sides {
    writers: [Writer; 2],
    /// Hash and number of tokens of every document.
    documents: [Vec<(u64, u64)>; 2],
    statistics: Statistics,
    /// About how many bytes there are, where that is known.
    total: Option<u64>,
}

impl Sides {
    fn add(&mut self, side: usize, hash: u64, tokens: usize, bytes: usize) {
        self.documents[side].push((hash, tokens as u64));
        self.statistics.documents += 1;
        self.statistics.bytes += bytes as u64;
    }

    /// Says how far the work is, with `more` bytes of a document that is not done.
    fn report(&self, more: usize, observer: &Observer) -> Result<()> {
        let done = self.statistics.bytes + more as u64;
        observer.advance(&Stage { name: "tokenizing", done, total: self.total, unit: "bytes" })
    }
}

/// What decides a document's side.
fn hash_of(text: &str) -> u64 {
    Sha256::digest(text).iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

impl<'a> Cache<'a> {
    fn new(folder: &'a Path, contents: [&str; 2], tokenizer: &'a Tokenizer, val_fraction: f64) -> Result<Self> {
        if !(val_fraction > 0.0 && val_fraction < 1.0) {
            let message = format!("is {val_fraction}, must be above 0 and below 1");
            return Err(Error::config("val_fraction", message));
        }
        let end_of_text = tokenizer.end_of_text().ok_or_else(|| {
            Error::Tokenizer(format!("the tokenizer has no token {END_OF_TEXT} to end documents with"))
        })?;
        let mut digest = Sha256::new();
        for part in [contents[0], contents[1], &tokenizer.hash(), &val_fraction.to_string(), &VERSION.to_string()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let key = hex(&digest.finalize());
        Ok(Self { folder, tokenizer, end_of_text, val_fraction, key })
    }

    fn paths(&self) -> [PathBuf; 2] {
        ["train", "validation"].map(|side| self.folder.join(format!("{}.{side}.tokens", self.key)))
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

    fn open_or(&self, observer: &Observer, build: impl FnOnce() -> Result<Sides>) -> Result<Corpus> {
        // What killed processes left may be anyone's; whatever cannot be removed is in nobody's way.
        let _ = sweep_own(self.folder);
        if let Some(corpus) = self.open(true)? {
            return Ok(corpus);
        }
        create_folder(self.folder)?;
        let _lock = Lock::wait(lock_name(self.folder, &self.key), || observer.check())?;
        // Another process may have made it meanwhile.
        if let Some(corpus) = self.open(true)? {
            return Ok(corpus);
        }
        let sides = self.balance(build()?)?;
        for writer in sides.writers {
            writer.finish(&sides.statistics)?;
        }
        let damaged = || Error::file(self.folder, "what was just written here cannot be read back; is the disk sound?");
        self.open(false)?.ok_or_else(damaged)
    }

    fn writers(&self) -> Result<[Writer; 2]> {
        let [train, validation] = self.paths();
        let vocab = self.tokenizer.vocab_size();
        Ok([Writer::create(&train, vocab)?, Writer::create(&validation, vocab)?])
    }

    /// Tokenises all `documents`.
    fn fill(
        &self,
        documents: &mut impl Iterator<Item = Result<String>>,
        total: Option<u64>,
        observer: &Observer,
    ) -> Result<Sides> {
        let (documents_of, statistics) = ([Vec::new(), Vec::new()], Statistics::default());
        let mut sides = Sides { writers: self.writers()?, documents: documents_of, statistics, total };
        loop {
            let (mut chunk, mut size) = (Vec::new(), 0);
            while let Some(document) = if size < CHUNK { documents.next() } else { None } {
                let document = document?;
                if !document.is_empty() {
                    size += document.len();
                    chunk.push(document);
                }
            }
            if chunk.is_empty() {
                return Ok(sides);
            }
            // A large one fills a chunk, and its tokens do not fit into memory; `chunk` is in order.
            let large = chunk.pop_if(|last| last.len() >= CHUNK);
            let encoded: Vec<(u64, Vec<u32>)> = chunk
                .par_iter()
                .map(|text| observer.check().and_then(|()| self.encode(text)))
                .collect::<Result<_>>()?;
            for (text, (hash, ids)) in chunk.iter().zip(encoded) {
                let side = self.side(hash);
                sides.writers[side].push(&ids)?;
                sides.add(side, hash, ids.len(), text.len());
            }
            sides.report(0, observer)?;
            if let Some(text) = large {
                self.encode_large(&text, &mut sides, observer)?;
            }
        }
    }

    fn side(&self, hash: u64) -> usize {
        // Saturates, as it should, for a fraction that rounds up to 1.
        usize::from(hash < (self.val_fraction * 2f64.powi(64)) as u64)
    }

    fn encode(&self, text: &str) -> Result<(u64, Vec<u32>)> {
        let mut ids = self.tokenizer.encode(text)?;
        ids.push(self.end_of_text);
        Ok((hash_of(text), ids))
    }

    /// Tokenises a document part by part.
    fn encode_large(&self, text: &str, sides: &mut Sides, observer: &Observer) -> Result<()> {
        observer.check()?;
        let hash = hash_of(text);
        let side = self.side(hash);
        let before = sides.writers[side].len();
        let mut bytes = 0;
        self.tokenizer.encode_parts(text, &mut |ids, length| {
            sides.writers[side].push(ids)?;
            bytes += length;
            sides.report(bytes, observer)
        })?;
        sides.writers[side].push(&[self.end_of_text])?;
        sides.add(side, hash, (sides.writers[side].len() - before) as usize, text.len());
        sides.report(0, observer)
    }

    /// Where chance left one side empty, moves the document there that was nearest to going there by itself.
    fn balance(&self, sides: Sides) -> Result<Sides> {
        let Some(empty) = sides.writers.iter().position(|writer| writer.len() == 0) else { return Ok(sides) };
        let Sides { writers: [train, validation], documents: [in_train, in_validation], statistics, total } = sides;
        let (full, documents) = if empty == 0 { (validation, in_validation) } else { (train, in_train) };
        let hashes = documents.iter().map(|&(hash, _)| hash);
        let chosen = if empty == 0 { hashes.max() } else { hashes.min() };
        let runs: Vec<(u64, usize)> = if documents.iter().any(|&(hash, _)| Some(hash) != chosen) {
            documents.iter().map(|&(hash, len)| (len, if Some(hash) == chosen { empty } else { 1 - empty })).collect()
        } else {
            // At least two tokens: a document is not empty and has an end.
            let end = ((full.len() as f64 * self.val_fraction).round() as u64).clamp(1, full.len() - 1);
            vec![(full.len() - end, 0), (end, 1)]
        };
        let mut writers = self.writers()?;
        full.deal(&runs, &mut writers)?;
        Ok(Sides { writers, documents: [Vec::new(), Vec::new()], statistics, total })
    }
}
