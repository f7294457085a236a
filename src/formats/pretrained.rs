//! A model ready to use, together with the tokenizer that it reads text with.

use std::path::Path;

use super::folder::{FindOptions, ModelFiles};
use crate::device::Device;
use crate::model::{Model, WeightFormat};
use crate::text::notation;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A model and its tokenizer.
pub struct Pretrained {
    /// The model.
    pub model: Model,
    /// The tokenizer, if the model comes with one.
    pub tokenizer: Option<Tokenizer>,
}

impl Model {
    /// Opens a model for inference, together with its tokenizer. `spec` is a path (a run, a
    /// checkpoint, a model folder, a file of weights) or a Hub id such as
    /// `openai/circuit-sparsity`. Matrices are kept sparse where that is faster. [`ModelFiles`]
    /// offers more choices: without network, another tokenizer, dense matrices.
    ///
    /// # Errors
    /// Those of [`ModelFiles::find`] and [`ModelFiles::pretrained`].
    pub fn from_pretrained(spec: impl AsRef<Path>, device: &Device) -> Result<Pretrained> {
        ModelFiles::find(spec, &FindOptions::default())?.pretrained(WeightFormat::Sparse, device)
    }
}

impl ModelFiles {
    /// The tokenizer, if there is one.
    ///
    /// # Errors
    /// Those of [`Tokenizer::load`].
    pub fn load_tokenizer(&self) -> Result<Option<Tokenizer>> {
        self.tokenizer.as_ref().map(Tokenizer::load).transpose()
    }

    /// Loads the tokenizer and the weights.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the tokenizer has more tokens than the model; those of
    /// [`Tokenizer::load`] and [`ModelFiles::load`].
    pub fn pretrained(&self, format: WeightFormat, device: &Device) -> Result<Pretrained> {
        let tokenizer = self.load_tokenizer()?;
        let model_size = self.config.vocab_size;
        if let Some(size) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|&size| size > model_size) {
            return Err(Error::Mismatch(format!(
                "the tokenizer has {size} entries, but the model only {model_size}: name the right one with --tokenizer"
            )));
        }
        Ok(Pretrained { model: self.load(format, device)?, tokenizer })
    }
}

impl Pretrained {
    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::Tokenizer(
                "the model comes without a tokenizer.json: name one with --tokenizer (the published models' is in \
                 openai/circuit-sparsity on the Hub)"
                    .into(),
            )
        })
    }

    /// A prompt's tokens: with `special`, special tokens spelled out in `prompt` become those
    /// tokens. An empty prompt becomes the end-of-text token, after which documents begin.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] without a tokenizer, or without an end-of-text token for an empty
    /// prompt; those of encoding.
    pub fn encode(&self, prompt: &str, special: bool) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        if prompt.is_empty() {
            return Ok(vec![tokenizer.expect_end_of_text()?]);
        }
        if special { tokenizer.encode_special(prompt) } else { tokenizer.encode(prompt) }
    }

    /// A token's text, as files hold it; without a tokenizer its id, such as `<512>`.
    pub(crate) fn token_text(&self, id: u32) -> String {
        self.tokenizer.as_ref().map_or_else(|| notation::unknown(id), |tokenizer| tokenizer.token_text(id))
    }

    /// A token between backticks, invisible characters escaped (see [`notation`]).
    pub fn show(&self, id: u32) -> String {
        notation::token(&self.token_text(id))
    }
}
