//! `gpt2` as Hugging Face's library writes it.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::{Family, Origin};
use crate::formats::config::BOILERPLATE;
use crate::model::{Activation, Kind, ModelConfig};

pub(super) const MODEL_TYPE: &str = "gpt2";

pub(super) const FAMILY: Family = Family { recognises, config, origin, is_buffer };

/// The names of activation functions in Hugging Face's library that stand for ours.
pub(super) const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("relu", Activation::Relu),
];

/// Fields that change training, heads for other tasks, or the order of roundings.
const IGNORED: &str = "n_ctx attn_pdrop embd_pdrop resid_pdrop reorder_and_upcast_attn summary_activation \
     summary_first_dropout summary_proj_to_labels summary_type summary_use_proj predict_special_tokens";

fn recognises(whole: &Map<String, Value>) -> bool {
    whole.get("model_type").and_then(Value::as_str) == Some(MODEL_TYPE)
}

fn config(fields: &Fields) -> Result<ModelConfig, String> {
    check_common(fields)?;
    fields.ignore(IGNORED);
    fields.refuse_unless("add_cross_attention", |value| *value == Value::Bool(false))?;
    // The library reads each by either name.
    let size = |name: &str, general: &str, default: usize| {
        Ok::<_, String>(fields.size(name)?.or(fields.size(general)?).unwrap_or(default))
    };
    let config = ModelConfig {
        vocab_size: fields.size("vocab_size")?.unwrap_or(50257),
        block_size: size("n_positions", "max_position_embeddings", 1024)?,
        d_model: size("n_embd", "hidden_size", 768)?,
        n_layer: size("n_layer", "num_hidden_layers", 12)?,
        n_head: size("n_head", "num_attention_heads", 12)?,
        d_mlp: fields.size("n_inner")?,
        activation_type: fields.one_of("activation_function", "gelu_new", ACTIVATIONS)?,
        ln_eps: fields.number("layer_norm_epsilon", 1e-5)?,
        scale_attn_weights: fields.flag("scale_attn_weights", true)?,
        scale_attn_by_inverse_layer_idx: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
        tied_unembed: fields.flag("tie_word_embeddings", true)?,
        ..ModelConfig::default()
    };
    check_heads("n_head", "n_embd", &config)?;
    Ok(config)
}

/// Returns an error if a field of every configuration of the library says what cannot be computed.
pub(super) fn check_common(fields: &Fields) -> Result<(), String> {
    fields.ignore(BOILERPLATE);
    fields.refuse_unless("quantization_config", |_| false)?;
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    fields.refuse_unless("pruned_heads", |value| is_empty(value) || value.as_array().is_some_and(Vec::is_empty))
}

/// Returns an error unless the heads divide the width; `heads` and `width` are the fields' names.
pub(super) fn check_heads(heads: &str, width: &str, config: &ModelConfig) -> Result<(), String> {
    let ModelConfig { n_head, d_model, .. } = *config;
    match n_head > 0 && d_model.is_multiple_of(n_head) {
        true => Ok(()),
        false => Err(format!("`{heads}` is {n_head}, which does not divide `{width}`, {d_model}")),
    }
}

fn origin(_: &Fields, name: &str, kind: Kind) -> Origin {
    // A Conv1D holds (in, out).
    if matches!(kind, Kind::Hidden(_)) { Origin::Transposed(name.into()) } else { Origin::Tensor(name.into()) }
}

/// The causal masks and what they are replaced by, in files of earlier versions.
fn is_buffer(name: &str) -> bool {
    let layer = name.strip_prefix("transformer.h.").and_then(|rest| rest.split_once('.'));
    layer.is_some_and(|(_, part)| part == "attn.bias" || part == "attn.masked_bias")
}
