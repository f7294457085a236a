//! The tokens with the largest embedding and unembedding weights of a residual channel.

use super::{TokenWeight, TokenWeights};
use crate::Result;
use crate::files::{HostTensor, TensorSource};
use crate::model::ModelConfig;
use crate::text::notation;
use crate::text::tokenizer::Tokenizer;

/// Of the embedding and of the unembedding, both (V, d_model), the column `channel`: the `count`
/// largest weights that are not zero, largest first. The text of a token that the tokenizer does
/// not know is its number.
///
/// # Errors
/// Those of reading the tables; [`crate::Error::Shape`] if there is no such channel.
pub fn channel_tokens(
    config: &ModelConfig,
    weights: &dyn TensorSource,
    tokenizer: Option<&Tokenizer>,
    channel: usize,
    count: usize,
) -> Result<[TokenWeights; 2]> {
    let width = config.d_model;
    if channel >= width {
        let message = format!("channel {channel} of a residual stream of {width}");
        return Err(crate::Error::shape("channel_tokens", message));
    }
    let column = |table: HostTensor| {
        let mut column: Vec<(usize, f32)> =
            table.data.iter().skip(channel).step_by(width).copied().enumerate().filter(|(_, w)| *w != 0.0).collect();
        column.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        column.truncate(count);
        let token = |(id, weight): (usize, f32)| {
            let id = id as u32;
            let text = tokenizer.map_or_else(|| notation::unknown(id), |tokenizer| tokenizer.token_text(id));
            TokenWeight { id, text, weight: weight.into() }
        };
        TokenWeights { channel, tokens: column.into_iter().map(token).collect() }
    };
    let embedding = column(weights.read("transformer.wte.weight")?);
    let unembedding = if config.tied_unembed { embedding.clone() } else { column(weights.read("lm_head.weight")?) };
    Ok([embedding, unembedding])
}
