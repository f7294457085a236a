//! Whether weights fit a configuration, found out from their names and shapes alone.

use std::collections::BTreeMap;

use super::{Kind, ModelConfig, Parameters};
use crate::files::{TensorInfo, TensorSource};
use crate::{Error, Result};

/// Checks that the tensors `entries` are those of a model of `config`, before any of their numbers
/// is read.
///
/// May be absent: `final_logits_bias` and, with LayerNorm, the biases of `ln_p1` and `ln_p2` (all
/// zeros then). May be there although unused: the unembedding of a model that ties it, and what
/// [`is_buffer`] knows.
///
/// # Errors
/// [`Error::Mismatch`] naming the first parameter, in the model's order, that is missing or of
/// another shape, or a tensor that no such model has.
pub fn check_shapes(config: &ModelConfig, entries: &BTreeMap<String, TensorInfo>) -> Result<()> {
    check(config, entries, &BTreeMap::new())
}

/// As [`check_shapes`], of a source that knows what else its file holds.
///
/// # Errors
/// Those of [`check_shapes`]; a parameter that is there, but is no tensor of floats, is said to be
/// of the wrong type.
pub fn check_weights(config: &ModelConfig, source: &dyn TensorSource) -> Result<()> {
    check(config, source.entries(), &source.others())
}

fn check(
    config: &ModelConfig,
    entries: &BTreeMap<String, TensorInfo>,
    others: &BTreeMap<String, String>,
) -> Result<()> {
    config.validate()?;
    // A layer has more than one parameter, so that this bounds what a wrong configuration can make
    // us list below.
    if config.n_layer > entries.len() {
        let (layers, held) = (config.n_layer, entries.len());
        return Err(Error::Mismatch(format!(
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
                return Err(Error::Mismatch(message));
            }
            Some(_) => {}
            None if others.contains_key(name) => {
                let found = others.get(name).map_or("", String::as_str);
                return Err(Error::Mismatch(format!(
                    "{name} is of the wrong type ({found}): floats of 16, 32 or 64 bits are needed"
                )));
            }
            None if may_be_absent(name, *kind) => {}
            None => {
                let name = format!("{name} {shape:?}");
                return Err(Error::MissingTensor { holder: "the file of weights".into(), name });
            }
        }
    }
    let known: std::collections::HashSet<&str> = shapes.iter().map(|(name, _, _)| name.as_str()).collect();
    match entries.keys().find(|name| !known.contains(name.as_str()) && !is_buffer(name)) {
        Some(name) => Err(Error::Mismatch(format!("the weights hold {name}, which this configuration does not have"))),
        None => Ok(()),
    }
}

pub(crate) const EMBEDDING: &str = "transformer.wte.weight";
pub(crate) const UNEMBEDDING: &str = "lm_head.weight";

/// Returns an error if the configuration says that the unembedding is the embedding, and `source`
/// holds two that differ. Reads both.
///
/// # Errors
/// [`Error::Mismatch`] naming both, and those of reading.
pub fn check_tied(config: &ModelConfig, source: &dyn TensorSource) -> Result<()> {
    let both = [EMBEDDING, UNEMBEDDING].iter().all(|name| source.entries().contains_key(*name));
    if !config.tied_unembed || !both {
        return Ok(());
    }
    let (embedding, unembedding) = (source.read(EMBEDDING)?, source.read(UNEMBEDDING)?);
    let same = |(a, b): (&f32, &f32)| a == b || a.to_bits() == b.to_bits();
    let differing = embedding.data.iter().zip(&unembedding.data).filter(|pair| !same(*pair)).count();
    match differing {
        0 => Ok(()),
        n => Err(Error::Mismatch(format!(
            "tied_unembed is true, but {UNEMBEDDING} differs from {EMBEDDING} in {n} of {} numbers: set tied_unembed to \
             false if the model has an unembedding of its own, or remove {UNEMBEDDING}",
            embedding.data.len()
        ))),
    }
}

/// Whether `name` is `transformer.h.<layer>.attn.bias`: the causal mask that some published code
/// keeps among the weights.
pub fn is_buffer(name: &str) -> bool {
    let layer = name.strip_prefix("transformer.h.").and_then(|rest| rest.strip_suffix(".attn.bias"));
    layer.is_some_and(|layer| !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a parameter that files leave out is all zeros.
fn may_be_absent(name: &str, kind: Kind) -> bool {
    let of_positions = name.ends_with(".ln_p1.bias") || name.ends_with(".ln_p2.bias");
    kind == Kind::LogitsBias || (kind == Kind::NormBias && of_positions)
}
