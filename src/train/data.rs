//! From a run's settings to token sequences.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::config::{DataConfig, RunConfig, other_vocabulary};
use crate::observer::Observer;
use crate::text::cache::Tokens;
use crate::text::corpus::Corpus;
use crate::text::python;
use crate::text::stream::{StreamSettings, TokenStream};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Bytes of text that a tokenizer is trained on at most.
const TOKENIZER_SAMPLE: u64 = 10_000_000;

/// A run's tokenizer and tokens.
pub struct RunData {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Training and validation tokens; of a stream its first shard.
    pub corpus: Corpus,
    /// What makes further shards, if the data is a stream.
    pub stream: Option<TokenStream>,
}

impl RunData {
    /// The sequences of optimizer step `step` (see [`batches`]). Of a stream they are drawn from the
    /// shard that follows from the number of tokens in all steps before, so that each shard is read
    /// about once; waits until there is that shard.
    ///
    /// # Errors
    /// Those of [`batches`] and of [`TokenStream::shard`].
    pub fn batches(&self, config: &RunConfig, step: u64, observer: &Observer) -> Result<Vec<Vec<u32>>> {
        match (&self.stream, config.data.shard_tokens) {
            (Some(stream), Some(shard_tokens)) => {
                let shard = u128::from(step) * u128::from(config.tokens_per_step()) / u128::from(shard_tokens);
                let shard = u64::try_from(shard).unwrap_or(u64::MAX);
                batches(config, &*stream.shard(shard, observer)?, step)
            }
            _ => batches(config, &self.corpus.train, step),
        }
    }
}

/// The tokenizer that a new run of `config` uses: loaded if the settings name one, else trained on
/// the data.
pub(crate) fn tokenizer(config: &RunConfig, observer: &Observer) -> Result<Tokenizer> {
    let vocab_size = config.model.vocab_size;
    let tokenizer = match &config.data.tokenizer {
        Some(path) => Tokenizer::load(path)?,
        None if config.data.paths.is_empty() => {
            let mut bytes = 0;
            let documents = generated(config)?.take_while(|document| {
                bytes += document.len() as u64;
                bytes <= TOKENIZER_SAMPLE
            });
            Tokenizer::train(documents.collect::<Vec<_>>().into_iter(), vocab_size, observer)?
        }
        None => {
            let source = config.data.source();
            let documents = match config.data.shard_tokens {
                None => source.sample(TOKENIZER_SAMPLE, observer)?,
                // Of a stream, not all is to be read before training begins.
                Some(_) => source.head(TOKENIZER_SAMPLE, observer)?,
            };
            Tokenizer::train(documents.into_iter(), vocab_size, observer)?
        }
    };
    match tokenizer.vocab_size() == vocab_size {
        true => Ok(tokenizer),
        false => Err(other_vocabulary(vocab_size, tokenizer.vocab_size())),
    }
}

fn generated(config: &RunConfig) -> Result<impl Iterator<Item = String> + Send + use<>> {
    /// How many are generated at once, on all threads.
    const BLOCK: u64 = 256;
    let (seed, count) = (config.run.seed, config.data.generated_documents);
    let document = python::generator(config.data.generated_version)?;
    Ok((0..count.div_ceil(BLOCK)).flat_map(move |block| {
        let indices = block * BLOCK..count.min((block + 1) * BLOCK);
        indices.into_par_iter().map(|index| document(seed, index)).collect::<Vec<_>>()
    }))
}

/// Tokenises the data of a run, or finds it in `cache`.
///
/// # Errors
/// Those of reading and caching, [`Error::Config`] where there is too little data for the settings,
/// and [`Error::Stopped`].
pub fn prepare(config: &RunConfig, tokenizer: Tokenizer, cache: &Path, observer: &Observer) -> Result<RunData> {
    prepare_as(true, config, tokenizer, cache, observer)
}

/// As [`prepare`]; unless `maker`, shards of a stream are those that another process makes.
pub(crate) fn prepare_as(
    maker: bool,
    config: &RunConfig,
    tokenizer: Tokenizer,
    cache: &Path,
    observer: &Observer,
) -> Result<RunData> {
    let fraction = config.data.val_fraction;
    let stream = match config.data.shard_tokens {
        Some(shard_tokens) => {
            let settings = StreamSettings { shard_tokens, val_fraction: fraction, maker };
            Some(TokenStream::open(&config.data.source(), &tokenizer, cache, &settings, observer)?)
        }
        None => None,
    };
    let corpus = match (&stream, config.data.paths.is_empty()) {
        (Some(stream), _) => stream.first()?,
        (None, true) => {
            let DataConfig { generated_version, generated_documents, .. } = config.data;
            let key = format!("python {generated_version} {} {generated_documents}", config.run.seed);
            Corpus::from_documents(generated(config)?, &tokenizer, cache, fraction, &key, observer)?
        }
        (None, false) => Corpus::prepare(&config.data.source(), &tokenizer, cache, fraction, observer)?,
    };
    let length = config.model.block_size;
    if corpus.train.len() < length {
        return Err(Error::config(
            "model.block_size",
            format!("a sequence is {length} tokens, but the training data has only {}", corpus.train.len()),
        ));
    }
    if corpus.validation.len() < 2 {
        return Err(Error::config("data.val_fraction", "holds out fewer than two tokens; there is too little data"));
    }
    Ok(RunData { tokenizer, corpus, stream })
}

/// The sequences of optimizer step `step`, one list of `batch_size · block_size` tokens a
/// micro-batch. They depend on the seed and the step alone, so that a resumed run reads what it
/// would have read.
///
/// # Errors
/// Those of reading the tokens.
pub fn batches(config: &RunConfig, tokens: &Tokens, step: u64) -> Result<Vec<Vec<u32>>> {
    let length = config.model.block_size;
    let mut rng = ChaCha8Rng::seed_from_u64(config.run.seed);
    // The streams of the initial weights are counted from below.
    rng.set_stream(u64::MAX - step);
    (0..config.train.accumulate)
        .map(|_| {
            let mut batch = vec![0; config.train.batch_size * length];
            for sequence in batch.chunks_mut(length) {
                tokens.copy_into(rng.random_range(0..=tokens.len() - length), sequence)?;
            }
            Ok(batch)
        })
        .collect()
}

/// Sequences of held-out data, evenly spread: as many as `run.eval_sequences` or as there are, each
/// `block_size` tokens or, of less data, all of it.
///
/// # Errors
/// Those of reading the tokens.
pub fn held_out(config: &RunConfig, tokens: &Tokens) -> Result<Vec<Vec<u32>>> {
    let length = config.model.block_size.min(tokens.len());
    let available = tokens.len() / length;
    let count = config.run.eval_sequences.min(available);
    (0..count)
        .map(|i| {
            let start = i * available / count * length;
            tokens.get(start..start + length)
        })
        .collect()
}
