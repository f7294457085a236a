use std::collections::BTreeMap;
use std::path::Path;

use super::TokenSource;
use crate::files::{HostTensor, save_tensors};
use crate::formats::Pretrained;
use crate::model::{self, Evaluation};
use crate::observer::Observer;
use crate::report::Report;
use crate::{Error, Result};

/// What to evaluate a model on.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateRequest<'a> {
    /// The tokens.
    pub tokens: TokenSource<'a>,
    /// Sequences that run at once.
    pub batch_size: usize,
    /// Whether to keep the loss of every token.
    pub keep_losses: bool,
}

/// Measures a model's loss.
///
/// # Errors
/// Returns [`Error::Data`] if no sequence has two tokens, and the errors of reading the tokens and
/// of [`evaluate`](model::evaluate).
pub fn evaluate(model: &Pretrained, request: &EvaluateRequest, observer: &Observer) -> Result<Evaluation> {
    let sequences = request.tokens.sequences(model)?;
    if sequences.iter().all(|sequence| sequence.len() < 2) {
        let count = sequences.len();
        return Err(Error::Data(format!(
            "nothing to evaluate on: all {count} sequences have a single token, after which none follows"
        )));
    }
    model::evaluate(&model.model, &sequences, request.batch_size, request.keep_losses, observer)
}

impl Evaluation {
    /// Describes the evaluation.
    ///
    /// # Errors
    /// Returns an error if a number has no JSON form.
    pub fn report(&self) -> Result<Report> {
        let Self { loss, predictions, kurtosis, channel_kurtosis, .. } = self;
        Ok(Report::of(self)?
            .fact("loss", *loss, format!("{loss:.6} nats per token, over {predictions} tokens"))
            .fact("kurtosis", *kurtosis, format!("{kurtosis:.2} of final_resid over each token's channels"))
            .fact("", *channel_kurtosis, format!("{channel_kurtosis:.2} over each channel's tokens (3 is normal)")))
    }

    /// Writes the loss of every token, (sequences, T - 1), as the tensor `losses` of a safetensors
    /// file.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be written.
    pub fn save_losses(&self, path: &Path) -> Result<()> {
        let shape = vec![self.losses.len(), self.losses.first().map_or(0, Vec::len)];
        let losses = HostTensor { shape, data: self.losses.concat() };
        save_tensors(path, &BTreeMap::from([("losses".to_string(), losses)]), None)
    }
}
