//! Whether weights fit a configuration, found out from their names and shapes alone.

use std::collections::BTreeMap;

use super::{Kind, ModelConfig, Parameters};
use crate::files::TensorInfo;
use crate::{Error, Result};

/// Checks that the tensors `entries` are those of a model of `config`, before any of their numbers is read.
///
/// May be absent: `final_logits_bias` and, with LayerNorm, the biases of `ln_p1` and `ln_p2` (all zeros then). May be there although unused: the
/// unembedding of a model that ties it, and what [`is_buffer`] knows.
///
/// # Errors
/// [`Error::Text`] naming the first parameter, in the model's order, that is missing or of another shape, or a tensor that no such model has.
pub fn check_shapes(config: &ModelConfig, entries: &BTreeMap<String, TensorInfo>) -> Result<()> {
    config.validate()?;
    // A layer has more than one parameter, so that this bounds what a wrong configuration can make us list below.
    if config.n_layer > entries.len() {
        let (layers, held) = (config.n_layer, entries.len());
        return Err(Error::Text(format!(
            "the configuration says {layers} layers, but the weights hold only {held} tensors"
        )));
    }
    let mut shapes = Parameters::shapes(config);
    if config.tied_unembed && entries.contains_key(UNEMBEDDING) {
        shapes.push((UNEMBEDDING.into(), Kind::Embedding, vec![config.vocab_size, config.d_model]));
    }
    for (name, kind, shape) in &shapes {
        match entries.get(name) {
            Some(info) if &info.shape != shape => {
                let found = &info.shape;
                let message = format!("{name} has shape {found:?}, but the configuration says {shape:?}");
                return Err(Error::Text(message));
            }
            Some(_) => {}
            None if may_be_absent(name, *kind) => {}
            None => return Err(Error::Text(format!("the weights lack {name} {shape:?}"))),
        }
    }
    let known: std::collections::HashSet<&str> = shapes.iter().map(|(name, _, _)| name.as_str()).collect();
    match entries.keys().find(|name| !known.contains(name.as_str()) && !is_buffer(name)) {
        Some(name) => Err(Error::Text(format!("the weights hold {name}, which this configuration does not have"))),
        None => Ok(()),
    }
}

const UNEMBEDDING: &str = "lm_head.weight";

/// Whether `name` is `transformer.h.<layer>.attn.bias`: the causal mask that some published code keeps among the weights.
pub fn is_buffer(name: &str) -> bool {
    let layer = name.strip_prefix("transformer.h.").and_then(|rest| rest.strip_suffix(".attn.bias"));
    layer.is_some_and(|layer| !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a parameter that files leave out is all zeros.
fn may_be_absent(name: &str, kind: Kind) -> bool {
    let of_positions = name.ends_with(".ln_p1.bias") || name.ends_with(".ln_p2.bias");
    kind == Kind::LogitsBias || (kind == Kind::NormBias && of_positions)
}
