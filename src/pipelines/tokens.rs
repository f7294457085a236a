use std::path::{Path, PathBuf};

use crate::Result;
use crate::formats::Pretrained;
use crate::text::sequences::{sequences_of, token_file};
use crate::text::tokenizer::Tokenizer;

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
        /// TokenSource at most, but at least one sequence.
        max_tokens: usize,
    },
}

impl TokenSource<'_> {
    /// The sequences, for `model`.
    ///
    /// # Errors
    /// Returns the errors of reading and of encoding them.
    pub fn sequences(&self, model: &Pretrained) -> Result<Vec<Vec<u32>>> {
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
    /// Sequences of the model's `block_size`, of files and folders, or of generated Python if there are none.
    ///
    /// # Errors
    /// Returns the errors of [`TokenSource::sequences`].
    pub fn sequences(&self, data: &[PathBuf], max_tokens: usize) -> Result<Vec<Vec<u32>>> {
        TokenSource::Text { data, max_tokens }.sequences(self)
    }
}

/// Turns tokens into text while they are generated: a character may be spread over several tokens.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u8>,
}

impl<'a> TextStream<'a> {
    /// A stream without text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// The characters that `token` completes. Bytes that cannot become a character give replacement characters.
    pub fn push(&mut self, token: u32) -> String {
        let bytes = self.tokenizer.token_bytes(token);
        self.pending.extend(bytes.unwrap_or_else(|| self.tokenizer.token_text(token).into_bytes()));
        let incomplete = |&length: &usize| {
            let tail = self.pending.len().checked_sub(length).map(|start| std::str::from_utf8(&self.pending[start..]));
            matches!(tail, Some(Err(e)) if e.error_len().is_none() && e.valid_up_to() == 0)
        };
        let whole = self.pending.len() - (1..4).find(incomplete).unwrap_or(0);
        let ready: Vec<u8> = self.pending.drain(..whole).collect();
        String::from_utf8_lossy(&ready).into_owned()
    }

    /// The text of an incomplete last character.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}
