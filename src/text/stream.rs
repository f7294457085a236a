//! A corpus that is tokenized while a model trains on it.
//!
//! The documents of a source, read again from the beginning after the last one, are cut into shards
//! of a number of training tokens. Which documents are in which shard follows from the source, the
//! tokenizer and the settings, so that a run that continues finds the same tokens, whether they are
//! still in the cache or are made again. A thread makes a few shards ahead of the one in use.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::{TokenWriter, Tokens};
use super::corpus::{Corpus, CorpusCache, CorpusStatistics, hash_of, read_chunk};
use super::source::{Documents, Source, SourceFile};
use super::tokenizer::Tokenizer;
use crate::files::{Lock, create_folder, hex, lock_name, sweep_own, write_atomic};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};

/// Shards made ahead of the one in use.
const AHEAD: u64 = 2;

/// Shards in the cache. A run that goes back to earlier ones makes them again.
const KEPT: u64 = 32;

/// Bytes at either end of a file that identify it, with its length.
const ENDS: u64 = 1 << 16;

/// How long a thread waits before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long a thread may take to stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// Training tokens in shards, made by a thread.
pub struct TokenStream {
    shared: Arc<Shared>,
    shards: ShardFiles,
    thread: Option<JoinHandle<()>>,
}

/// What a stream is made of.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Training tokens in a shard; the document in which it ends is whole.
    pub shard_tokens: u64,
    /// Share of the documents held out.
    pub val_fraction: f64,
    /// Whether this process makes shards, or waits for those of another one.
    pub maker: bool,
}

/// What the thread and those who wait for it share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    /// Training tokens of the shard that is being made.
    tokens: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The shard in use.
    current: u64,
    ready: BTreeMap<u64, Arc<Tokens>>,
    error: Option<Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, or a little while.
    fn patient<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl TokenStream {
    /// Makes the first shard of `source`, or finds it in the folder `cache_dir`, and starts to make
    /// the next ones. The documents that the first shard holds out are the validation data.
    ///
    /// # Errors
    /// Those of [`Corpus::prepare`], and [`Error::Data`] if the first shard holds out nothing.
    pub fn open(
        source: &Source,
        tokenizer: &Tokenizer,
        cache_dir: impl AsRef<Path>,
        settings: &StreamSettings,
        observer: &Observer,
    ) -> Result<Self> {
        let files = source.files()?;
        let contents = format!("{} {}", identity(&files, &source.text_field)?, settings.shard_tokens);
        let cache = CorpusCache::new(cache_dir.as_ref(), ["stream", &contents], tokenizer, settings.val_fraction)?;
        let shards = ShardFiles { folder: cache_dir.as_ref().into(), key: cache.key };
        create_folder(&shards.folder)?;
        // Temporary files that cannot be removed do no harm.
        let _ = sweep_own(&shards.folder);
        let (stop, tokens) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), stop, tokens });
        let maker = Maker {
            shared: shared.clone(),
            source: source.clone(),
            files,
            tokenizer: tokenizer.clone(),
            settings: settings.clone(),
            shards: shards.clone(),
        };
        let shared_with_thread = shared.clone();
        let work = move || {
            let ended = maker.run();
            shared_with_thread.lock().error = ended.err();
            shared_with_thread.changed.notify_all();
        };
        let spawned = std::thread::Builder::new().name("tokenizing".into()).spawn(work);
        let thread = spawned.map_err(|error| Error::Request(format!("no thread to tokenize with: {error}")))?;
        // From here on, dropping it ends the thread.
        let stream = Self { shared, thread: Some(thread), shards };
        let total = Some(settings.shard_tokens);
        stream.wait(0, &|tokens| {
            observer.advance(&Stage { name: "tokenizing the first shard", done: tokens, total, unit: "tokens" })
        })?;
        Ok(stream)
    }

    /// The first shard, as a corpus; its key is that of all shards.
    ///
    /// # Errors
    /// Those of opening the files, and [`Error::Data`] if it holds out nothing.
    pub fn first(&self) -> Result<Corpus> {
        let again = || Error::file(&self.shards.folder, "the first shard, just written here, is gone or damaged");
        let (train, statistics) = self.shards.open(0)?.ok_or_else(again)?;
        let (validation, held_out) = Tokens::open(&self.shards.validation())?.ok_or_else(again)?;
        if validation.is_empty() {
            return Err(Error::Data(
                "the first shard holds out no document: raise data.val_fraction or data.shard_tokens".into(),
            ));
        }
        let statistics = CorpusStatistics { tokens: statistics.tokens + held_out.tokens, ..statistics };
        Ok(Corpus { train, validation, statistics, cached: false, key: self.shards.key.clone() })
    }

    /// The training tokens of a shard. Waits until they are made, and drops earlier ones.
    ///
    /// # Errors
    /// Those of making it, and [`Error::Stopped`].
    pub fn shard(&self, number: u64, observer: &Observer) -> Result<Arc<Tokens>> {
        self.wait(number, &|_| observer.check())
    }

    /// Waits for a shard. `watch` learns how many tokens of the one that is being made there are.
    fn wait(&self, number: u64, watch: &dyn Fn(u64) -> Result<()>) -> Result<Arc<Tokens>> {
        let mut state = self.shared.lock();
        if state.current != number {
            state.current = number;
            state.ready.retain(|&ready, _| (number..=number + AHEAD).contains(&ready));
            self.shared.changed.notify_all();
        }
        loop {
            if let Some(tokens) = state.ready.get(&number) {
                return Ok(tokens.clone());
            }
            if let Some(error) = state.error.take() {
                return Err(error);
            }
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(Error::Data("the tokenizing ended early".into()));
            }
            watch(self.shared.tokens.load(Ordering::Relaxed))?;
            state = self.shared.patient(state);
        }
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // A download cannot be given up: it ends with the process.
        let start = Instant::now();
        while !thread.is_finished() && start.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// The files of a stream in the cache.
#[derive(Clone)]
struct ShardFiles {
    folder: PathBuf,
    key: String,
}

impl ShardFiles {
    fn train(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}.{number}.train.tokens", self.key))
    }

    fn validation(&self) -> PathBuf {
        self.folder.join(format!("{}.validation.tokens", self.key))
    }

    /// How many documents there are to the end of each shard: where the next one begins.
    fn index(&self) -> PathBuf {
        self.folder.join(format!("{}.shards.json", self.key))
    }

    fn open(&self, number: u64) -> Result<Option<(Tokens, CorpusStatistics)>> {
        Tokens::open(&self.train(number))
    }

    /// The ends of the shards made so far, the first ones. One that is damaged is made anew.
    fn ends(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.index()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn save_ends(&self, ends: &[u64]) -> Result<()> {
        let (path, text) = (self.index(), serde_json::json!(ends).to_string());
        write_atomic(&path, |out| out.write_all(text.as_bytes()).map_err(|source| Error::io(&path, source)))
    }

    /// Removes the files of shards far from those in use.
    fn remove_old(&self, number: u64) {
        // The first one is needed whenever a run starts.
        for old in number.saturating_sub(2 * KEPT).max(1)..number.saturating_sub(KEPT) {
            // Another process may have it open, or have removed it.
            let _ = std::fs::remove_file(self.train(old));
        }
    }
}

/// What identifies the contents of files without reading all of them.
fn identity(files: &[SourceFile], field: &str) -> Result<String> {
    let mut digest = Sha256::new();
    for file in files {
        let part = match file {
            SourceFile::Remote(dataset, number) => dataset.identity(*number).into_bytes(),
            SourceFile::Local(path) => {
                let failed = |source| Error::io(path, source);
                let mut file = File::open(path).map_err(failed)?;
                let length = file.metadata().map_err(failed)?.len();
                let mut part = length.to_le_bytes().to_vec();
                part.extend(path.extension().unwrap_or_default().as_encoded_bytes());
                for start in [0, length.saturating_sub(ENDS)] {
                    file.seek(SeekFrom::Start(start)).map_err(failed)?;
                    file.by_ref().take(ENDS).read_to_end(&mut part).map_err(failed)?;
                }
                part
            }
        };
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.update(field);
    Ok(hex(&digest.finalize()))
}

/// Makes shards, on its own thread.
struct Maker {
    shared: Arc<Shared>,
    source: Source,
    files: Vec<SourceFile>,
    tokenizer: Tokenizer,
    settings: StreamSettings,
    shards: ShardFiles,
}

impl Maker {
    /// Makes what is wanted until it is to stop.
    fn run(&self) -> Result<()> {
        // Apart from the threads that train, which would otherwise wait for whole documents.
        let threads = rayon::current_num_threads();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| Error::Request(format!("no threads to tokenize with: {error}")))?;
        let cache =
            CorpusCache::with_key(&self.shards.folder, &self.tokenizer, self.settings.val_fraction, &self.shards.key)?;
        let mut reader = Reader::new(self);
        while let Some(number) = self.next() {
            let tokens = match self.shards.open(number)? {
                Some((tokens, _)) => Some(tokens),
                None if self.settings.maker => Some(pool.install(|| self.make(number, &cache, &mut reader))?),
                None => None,
            };
            let mut state = self.shared.lock();
            match tokens {
                Some(tokens) => drop(state.ready.insert(number, Arc::new(tokens))),
                None => state = self.shared.patient(state),
            }
            drop(state);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// The next shard that is wanted and not ready; nothing once it is to stop.
    fn next(&self) -> Option<u64> {
        let mut state = self.shared.lock();
        loop {
            if self.stopped() {
                return None;
            }
            let wanted = state.current..=state.current + AHEAD;
            match wanted.into_iter().find(|number| !state.ready.contains_key(number)) {
                Some(number) => return Some(number),
                None => state = self.shared.patient(state),
            }
        }
    }

    fn documents(&self) -> Documents<'static> {
        Documents::of(self.files.clone(), &self.source.text_field, Observer::default())
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<()> {
        if self.stopped() { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Makes a shard, after those before it whose ends are not known.
    fn make(&self, number: u64, cache: &CorpusCache, reader: &mut Reader) -> Result<Tokens> {
        let _lock = Lock::wait(lock_name(&self.shards.folder, &self.shards.key), || self.check())?;
        // Another process may have made it meanwhile.
        if let Some((tokens, _)) = self.shards.open(number)? {
            return Ok(tokens);
        }
        let mut ends = self.shards.ends();
        let known = (ends.len() as u64).min(number);
        ends.truncate(known as usize);
        let start = ends.last().copied().unwrap_or(0);
        reader.go_to(start)?;
        for made in known..=number {
            self.write(made, cache, reader)?;
            ends.push(reader.done);
            if ends.len() > self.shards.ends().len() {
                self.shards.save_ends(&ends)?;
            }
        }
        self.shards.remove_old(number);
        let damaged = || {
            let message = "the shard just written here cannot be read back: the disk may be faulty";
            Error::file(&self.shards.folder, message)
        };
        Ok(self.shards.open(number)?.ok_or_else(damaged)?.0)
    }

    /// Writes the shard that begins with the reader's next document. The first one also has the
    /// validation data.
    fn write(&self, number: u64, cache: &CorpusCache, reader: &mut Reader) -> Result<()> {
        let vocabulary = self.tokenizer.vocab_size();
        let mut train = TokenWriter::create(&self.shards.train(number), vocabulary)?;
        let mut held_out = match number {
            0 => Some(TokenWriter::create(&self.shards.validation(), vocabulary)?),
            _ => None,
        };
        let mut statistics = CorpusStatistics::default();
        while train.len() < self.settings.shard_tokens {
            self.check()?;
            let document = reader.next(cache)?;
            let first_pass = reader.pass == 0;
            statistics.documents += 1;
            statistics.bytes += document.bytes;
            let writer = match cache.split(document.hash) {
                0 => &mut train,
                _ => match held_out.as_mut().filter(|_| first_pass) {
                    Some(writer) => writer,
                    None => continue,
                },
            };
            match document.tokens {
                Encoded::Whole(ids) => writer.push(&ids)?,
                Encoded::Large(text) => cache.encode_into(&text, &mut |ids, _| {
                    self.check()?;
                    writer.push(ids)
                })?,
            }
            self.shared.tokens.store(train.len(), Ordering::Relaxed);
        }
        statistics.skipped = reader.documents.skipped();
        statistics.separators = reader.documents.separators();
        if let Some(writer) = held_out {
            writer.finish(&statistics)?;
        }
        train.finish(&statistics)?;
        self.shared.tokens.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// A document that was read.
struct Document {
    hash: u64,
    bytes: u64,
    tokens: Encoded,
}

enum Encoded {
    /// Its tokens, with the one that ends it.
    Whole(Vec<u32>),
    /// A text whose tokens may not fit into memory.
    Large(String),
}

/// The documents of a source, over and over.
struct Reader<'a> {
    maker: &'a Maker,
    documents: Documents<'static>,
    /// Documents that were read and not given out yet.
    queue: VecDeque<Document>,
    /// Documents given out.
    done: u64,
    /// How often the source was read to its end.
    pass: u64,
    /// Whether this pass gave a document to train on.
    useful: bool,
}

impl<'a> Reader<'a> {
    fn new(maker: &'a Maker) -> Self {
        let documents = maker.documents();
        Self { maker, documents, queue: VecDeque::new(), done: 0, pass: 0, useful: false }
    }

    /// Makes document `number` the next one, without tokenizing those before it.
    fn go_to(&mut self, number: u64) -> Result<()> {
        if self.done == number {
            return Ok(());
        }
        *self = Self::new(self.maker);
        while self.done < number {
            if self.done.is_multiple_of(1024) {
                self.maker.check()?;
            }
            match self.documents.next() {
                Some(document) => drop(document?),
                None => {
                    self.next_pass(self.done > 0)?;
                    // Whole passes give nothing new.
                    let pass = self.done;
                    let more = (number / pass).saturating_sub(1);
                    (self.done, self.pass) = (self.done + more * pass, self.pass + more);
                    continue;
                }
            }
            self.done += 1;
        }
        self.useful = true;
        Ok(())
    }

    fn next(&mut self, cache: &CorpusCache) -> Result<Document> {
        loop {
            if let Some(document) = self.queue.pop_front() {
                self.done += 1;
                self.useful |= cache.split(document.hash) == 0;
                return Ok(document);
            }
            let (chunk, large) = read_chunk(&mut self.documents)?;
            let encoded: Vec<Document> = chunk
                .par_iter()
                .map(|text| {
                    self.maker.check()?;
                    let (hash, ids) = cache.encode(text)?;
                    Ok(Document { hash, bytes: text.len() as u64, tokens: Encoded::Whole(ids) })
                })
                .collect::<Result<_>>()?;
            self.queue.extend(encoded);
            self.queue.extend(large.map(|text| Document {
                hash: hash_of(&text),
                bytes: text.len() as u64,
                tokens: Encoded::Large(text),
            }));
            if self.queue.is_empty() {
                self.next_pass(self.useful)?;
            }
        }
    }

    /// Begins again with the first document; an error if that would never give one to train on.
    fn next_pass(&mut self, useful: bool) -> Result<()> {
        if !useful {
            let skipped = self.documents.skipped();
            let nothing = self.maker.source.no_documents(&skipped);
            return Err(Error::Data(match self.done {
                0 => nothing,
                _ => "all documents are held out: lower data.val_fraction".into(),
            }));
        }
        (self.documents, self.useful) = (self.maker.documents(), false);
        self.pass += 1;
        Ok(())
    }
}
