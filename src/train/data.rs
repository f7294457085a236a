//! From a run's settings to token sequences.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::config::{DataConfig, RunConfig, other_vocabulary};
use crate::observer::Observer;
use crate::text::cache::Tokens;
use crate::text::corpus::{Corpus, Source};
use crate::text::python;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Bytes of text that a tokenizer is trained on at most.
const TOKENIZER_SAMPLE: u64 = 10_000_000;

/// A run's tokenizer and tokens.
pub struct RunData {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Training and validation tokens.
    pub corpus: Corpus,
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
            let documents = sample(&Source::new(&config.data.paths), TOKENIZER_SAMPLE, observer)?;
            Tokenizer::train(documents.into_iter(), vocab_size, observer)?
        }
    };
    match tokenizer.vocab_size() == vocab_size {
        true => Ok(tokenizer),
        false => Err(other_vocabulary(vocab_size, tokenizer.vocab_size())),
    }
}

/// Documents of about `max_bytes` to train a tokenizer on, spread evenly over `source`.
pub(crate) fn sample(source: &Source, max_bytes: u64, observer: &Observer) -> Result<Vec<String>> {
    source.sample(max_bytes, observer)
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
    let fraction = config.data.val_fraction;
    let corpus = match config.data.paths.is_empty() {
        true => {
            let DataConfig { generated_version, generated_documents, .. } = config.data;
            let key = format!("python {generated_version} {} {generated_documents}", config.run.seed);
            Corpus::from_documents(generated(config)?, &tokenizer, cache, fraction, &key, observer)?
        }
        false => {
            let source = Source::new(&config.data.paths);
            Corpus::prepare(&source, &tokenizer, cache, fraction, observer)?
        }
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
    Ok(RunData { tokenizer, corpus })
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
