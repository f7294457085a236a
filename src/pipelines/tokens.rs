use std::path::{Path, PathBuf};

use crate::Result;
use crate::formats::Pretrained;
use crate::text::sequences::{sequences_of, token_file};

/// The tokens that a model is run on.
#[derive(Clone, Copy, Debug)]
pub enum TokenSource<'a> {
    /// A prompt, in which special tokens are read as such if `special`.
    Prompt {
        /// The prompt.
        text: &'a str,
        /// Whether special tokens that it spells out become those tokens.
        special: bool,
    },
    /// The tensor `tokens`, (T) or (B, T), of a safetensors file.
    File(&'a Path),
    /// Text, cut into sequences of the model's `block_size`.
    Text {
        /// Files and folders; generated Python if there are none.
        data: &'a [PathBuf],
        /// Tokens at most, but at least one sequence.
        max_tokens: usize,
    },
}

impl TokenSource<'_> {
    /// The sequences, for `model`.
    pub(crate) fn sequences(&self, model: &Pretrained) -> Result<Vec<Vec<u32>>> {
        match *self {
            Self::Prompt { text, special } => Ok(vec![model.encode(text, special)?]),
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
    pub(crate) fn sequences(&self, data: &[PathBuf], max_tokens: usize) -> Result<Vec<Vec<u32>>> {
        TokenSource::Text { data, max_tokens }.sequences(self)
    }
}
