//! `gpt_neo` as Hugging Face's library writes it.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::gpt2::{ACTIVATIONS, check_common, check_heads};
use super::{Family, Origin};
use crate::model::{AttentionLayers, Kind, ModelConfig};

pub(super) const MODEL_TYPE: &str = "gpt_neo";

pub(super) const FAMILY: Family = Family { recognises, config, origin, is_buffer };

/// Fields that change training or heads for other tasks.
const IGNORED: &str = "attention_dropout embed_dropout resid_dropout classifier_dropout gradient_checkpointing \
     summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj";

fn recognises(whole: &Map<String, Value>) -> bool {
    whole.get("model_type").and_then(Value::as_str) == Some(MODEL_TYPE)
}

fn config(fields: &Fields) -> Result<ModelConfig, String> {
    check_common(fields)?;
    fields.ignore(IGNORED);
    // The library reads each by either name.
    let size = |name: &str, general: &str, default: usize| {
        Ok::<_, String>(fields.size(name)?.or(fields.size(general)?).unwrap_or(default))
    };
    let n_layer = size("num_layers", "num_hidden_layers", 24)?;
    let config = ModelConfig {
        vocab_size: fields.size("vocab_size")?.unwrap_or(50257),
        block_size: fields.size("max_position_embeddings")?.unwrap_or(2048),
        d_model: fields.size("hidden_size")?.unwrap_or(2048),
        n_layer,
        n_head: size("num_heads", "num_attention_heads", 16)?,
        d_mlp: fields.size("intermediate_size")?,
        activation_type: fields.one_of("activation_function", "gelu_new", ACTIVATIONS)?,
        ln_eps: fields.number("layer_norm_epsilon", 1e-5)?,
        scale_attn_weights: false,
        attention_layers: attention_layers(fields, n_layer)?,
        window_size: Some(fields.size("window_size")?.unwrap_or(256)),
        tied_unembed: fields.flag("tie_word_embeddings", true)?,
        ..ModelConfig::default()
    };
    check_heads("num_heads", "hidden_size", &config)?;
    Ok(config)
}

/// The kind of each layer's attention, from the list of them, or from the shorter list of repeated
/// parts. Where both are there, they must say the same.
fn attention_layers(fields: &Fields, n_layer: usize) -> Result<AttentionLayers, String> {
    let listed = fields.get("attention_layers").map(|value| words("attention_layers", value)).transpose()?;
    let repeated = fields.get("attention_types").map(|value| expand(value, n_layer)).transpose()?;
    let layers = match (listed, repeated) {
        (Some(listed), Some(repeated)) if listed != repeated => {
            return Err("`attention_layers` and `attention_types` differ".into());
        }
        (Some(layers), _) | (None, Some(layers)) => layers,
        (None, None) => (0..n_layer.min(10_000)).map(|layer| ["global", "local"][layer % 2].into()).collect(),
    };
    if layers.len() != n_layer {
        return Err(format!("`attention_layers` has {} entries for {n_layer} layers", layers.len()));
    }
    Ok(AttentionLayers(layers.join(",")))
}

/// `[[["global", "local"], 2]]`: global, local, global, local.
fn expand(value: &Value, n_layer: usize) -> Result<Vec<String>, String> {
    const FIELD: &str = "attention_types";
    let wrong = || format!("`{FIELD}` is not a list of [kinds, times]");
    let mut all = Vec::new();
    for part in value.as_array().ok_or_else(wrong)? {
        let [kinds, times] = part.as_array().map(Vec::as_slice).unwrap_or_default() else { return Err(wrong()) };
        let (kinds, times) = (words(FIELD, kinds)?, times.as_u64().ok_or_else(wrong)?);
        if (kinds.len() as u64).saturating_mul(times).saturating_add(all.len() as u64) > n_layer as u64 {
            return Err(format!("`{FIELD}` names more than the {n_layer} layers"));
        }
        (0..times).for_each(|_| all.extend_from_slice(&kinds));
    }
    Ok(all)
}

fn words(field: &str, value: &Value) -> Result<Vec<String>, String> {
    let word = |value: &Value| {
        let known = value.as_str().filter(|word| ["global", "local"].contains(word));
        known
            .map(str::to_string)
            .ok_or_else(|| format!("`{field}` has {value}; only \"global\" and \"local\" are known"))
    };
    value.as_array().ok_or_else(|| format!("`{field}` is not a list"))?.iter().map(word).collect()
}

fn origin(_: &Fields, name: &str, _: Kind) -> Origin {
    let of = |start: &str, part: &str| format!("{start}.attn.attention.{part}");
    match name.split_once(".attn.") {
        Some((start, "c_attn.weight")) => {
            Origin::Rows(["q_proj", "k_proj", "v_proj"].map(|part| of(start, &format!("{part}.weight"))).into())
        }
        Some((_, "c_attn.bias")) => Origin::Zeros,
        Some((start, rest)) => Origin::Tensor(of(start, &rest.replace("c_proj", "out_proj"))),
        None => Origin::Tensor(name.into()),
    }
}

/// The masks and what they are replaced by, in files of earlier versions.
fn is_buffer(name: &str) -> bool {
    let layer = name.strip_prefix("transformer.h.").and_then(|rest| rest.split_once('.'));
    layer.is_some_and(|(_, part)| part == "attn.attention.bias" || part == "attn.attention.masked_bias")
}
