use std::collections::BTreeMap;
use std::path::Path;

use crate::Result;
use crate::files::{HostTensor, save_tensors};
use crate::model::Evaluation;
use crate::report::Report;

/// Describes the result of [`evaluate`](crate::model::evaluate).
///
/// # Errors
/// Returns an error if a number has no JSON form.
pub fn evaluation_report(result: &Evaluation) -> Result<Report> {
    let Evaluation { loss, predictions, kurtosis, channel_kurtosis, .. } = result;
    Ok(Report::of(result)?
        .fact("loss", *loss, format!("{loss:.6} nats per token, over {predictions} tokens"))
        .fact("kurtosis", *kurtosis, format!("{kurtosis:.2} of final_resid over each token's channels"))
        .fact("", *channel_kurtosis, format!("{channel_kurtosis:.2} over each channel's tokens (3 is normal)")))
}

impl Evaluation {
    /// Writes the loss of every token, (sequences, T - 1), as the tensor `losses` of a safetensors file.
    ///
    /// # Errors
    /// Returns [`crate::Error::Io`] if the file cannot be written.
    pub fn save_losses(&self, path: &Path) -> Result<()> {
        let shape = vec![self.losses.len(), self.losses.first().map_or(0, Vec::len)];
        let losses = HostTensor { shape, data: self.losses.concat() };
        save_tensors(path, &BTreeMap::from([("losses".to_string(), losses)]), None)
    }
}
