use std::path::Path;

use crate::Result;
use crate::formats::Pretrained;
use crate::text::sequences::{sequences_of, token_file};
use crate::text::source::Source;

/// What a model is to continue.
#[derive(Clone, Copy, Debug)]
pub enum Prompt<'a> {
    /// A text, for which the model needs a tokenizer.
    Text {
        /// The text.
        text: &'a str,
        /// Whether special tokens that it spells out become those tokens.
        special: bool,
    },
    /// Token ids.
    Ids(&'a [u32]),
}

impl Prompt<'_> {
    /// The tokens, for `model`.
    pub(crate) fn tokens(&self, model: &Pretrained) -> Result<Vec<u32>> {
        match *self {
            Self::Text { text, special } => model.encode(text, special),
            Self::Ids(ids) => Ok(ids.to_vec()),
        }
    }
}

/// The tokens that a model is run on.
#[derive(Clone, Copy, Debug)]
pub enum TokenSource<'a> {
    /// A prompt.
    Prompt(Prompt<'a>),
    /// The tensor `tokens`, (T) or (B, T), of a safetensors file.
    File(&'a Path),
    /// Text, cut into sequences of the model's `block_size`.
    Text {
        /// Text; generated Python if it names none.
        data: &'a Source,
        /// Tokens at most, but at least one sequence.
        max_tokens: usize,
    },
}

impl TokenSource<'_> {
    /// The sequences, for `model`.
    pub(crate) fn sequences(&self, model: &Pretrained) -> Result<Vec<Vec<u32>>> {
        match *self {
            Self::Prompt(prompt) => Ok(vec![prompt.tokens(model)?]),
            Self::File(path) => token_file(path),
            Self::Text { data, max_tokens } => {
                sequences_of(data, model.tokenizer()?, model.model.config.block_size, max_tokens)
            }
        }
    }
}

impl Pretrained {
    /// Sequences of the model's `block_size`, of files and folders, or of generated Python if there
    /// are none.
    pub(crate) fn sequences(&self, data: &Source, max_tokens: usize) -> Result<Vec<Vec<u32>>> {
        TokenSource::Text { data, max_tokens }.sequences(self)
    }
}
