//! Models written as the training program sparse_pretrain saves them: a nested `config.json` and a
//! plain state dict under names of its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::convert::StateDict;
use super::families::LOCATIONS;
use super::folder::ModelFiles;
use crate::files::TensorInfo;
use crate::model::{Activation, EMBEDDING, ModelConfig, ResidualActivation, SiteKind, UNEMBEDDING};
use crate::{Error, Result};

/// A tensor that it has none of.
const LOGITS_BIAS: &str = "final_logits_bias";

/// A model in the program's terms.
pub(super) struct Converted {
    /// The contents of `config.json`.
    pub(super) config: Map<String, Value>,
    /// The contents of `pytorch_model.bin`.
    pub(super) tensors: StateDict,
}

impl Converted {
    /// # Errors
    /// [`Error::Config`] naming what the program cannot express; those of reading.
    pub(super) fn new(files: &ModelFiles, entries: &BTreeMap<String, TensorInfo>) -> Result<Self> {
        if let Some((field, why)) = obstacle(&files.config) {
            return Err(Error::config(field, format!("{why}, which sparse_pretrain has no setting for")));
        }
        if entries.contains_key(LOGITS_BIAS) && files.weights.read(LOGITS_BIAS)?.data.iter().any(|bias| *bias != 0.0) {
            return Err(Error::config(LOGITS_BIAS, "is not zero, and sparse_pretrain has no such tensor"));
        }
        let positions = entries.get("transformer.wpe.weight").is_some();
        // Positions that are all zero are positions that are not there.
        let positions = positions && files.weights.read("transformer.wpe.weight")?.data.iter().any(|x| *x != 0.0);
        let left_out = |name: &str| {
            name == LOGITS_BIAS
                || (name == "transformer.wpe.weight" && !positions)
                || (name == UNEMBEDDING && files.config.tied_unembed)
        };
        let kept = entries.iter().filter(|(name, _)| !left_out(name));
        let mut tensors: StateDict = kept.map(|(name, info)| (renamed(name), (name.clone(), info.clone()))).collect();
        if files.config.tied_unembed
            && let Some(embedding) = entries.get(EMBEDDING)
        {
            tensors.insert(UNEMBEDDING.into(), (EMBEDDING.into(), embedding.clone()));
        }
        Ok(Self { config: nested(&files.config, positions), tensors })
    }
}

/// The field that the program cannot express, and what it says.
fn obstacle(config: &ModelConfig) -> Option<(&'static str, String)> {
    let topk_of_none = || {
        let sites = SiteKind::all().filter(|&kind| config.topk(kind) == Some(0));
        sites.map(|site| site.to_string()).next()
    };
    if config.d_pos_emb.is_some() {
        Some(("d_pos_emb", "positions are concatenated".into()))
    } else if config.residual_activation_type != ResidualActivation::Identity {
        Some(("residual_activation_type", "the residual stream has an activation function".into()))
    } else if config.attention_width() != config.d_model {
        Some((
            "d_head",
            format!("heads of {} make {} channels, not d_model", config.head_width(), config.attention_width()),
        ))
    } else if !config.rms_norm && !config.ln_bias {
        Some(("ln_bias", "norms have no biases".into()))
    } else if config.afrac.is_some() && config.min_topk > 1 {
        Some(("min_topk", format!("AbsTopK keeps at least {} entries", config.min_topk)))
    } else if let Some((field, value)) = config.published_obstacles().into_iter().find(|(field, _)| !shared(field)) {
        Some((field, format!("is {value}")))
    } else if let Some(site) =
        config.afrac.and_then(|_| config.afrac_loctypes.names().find(|name| location(name).is_none()))
    {
        Some(("afrac_loctypes", format!("AbsTopK applies at {site}")))
    } else {
        topk_of_none().map(|site| ("afrac", format!("AbsTopK keeps nothing at {site}")))
    }
}

/// Whether the program has what the field says and the published code has not.
fn shared(field: &str) -> bool {
    ["min_topk", "afrac_loctypes"].contains(&field)
}

/// The program's name of a site where AbsTopK applies.
fn location(name: &str) -> Option<&'static str> {
    LOCATIONS.iter().find(|(_, ours)| *ours == name).map(|(theirs, _)| *theirs)
}

fn nested(config: &ModelConfig, positions: bool) -> Map<String, Value> {
    let activation = match config.activation_type {
        Activation::Gelu => "gelu",
        Activation::Relu => "relu",
        // Refused above.
        Activation::GeluTanh => "gelu_tanh",
    };
    let sites: Vec<&str> = config.afrac_loctypes.names().filter_map(location).collect();
    let fields = json!({
        "model_config": {
            "n_layer": config.n_layer,
            "d_model": config.d_model,
            "n_ctx": config.block_size,
            "d_head": config.head_width(),
            "d_mlp": config.mlp_width(),
            "vocab_size": config.vocab_size,
            "use_rms_norm": config.rms_norm,
            "tie_embeddings": config.tied_unembed,
            "use_positional_embeddings": positions,
            "use_bigram_table": config.enable_bigram_table,
            "use_attention_sinks": config.sink,
            "activation": activation,
            "dropout": config.dropout,
            "use_bias": config.bias,
        },
        "sparsity_config": {
            "enable_activation_sparsity": config.afrac.is_some(),
            "activation_topk_fraction": config.afrac.unwrap_or(1.0),
            "activation_sparsity_locations": sites.join(","),
        },
        // The folder itself has the tokenizer.
        "training_config": { "tokenizer_name": config.tokenizer_name.as_deref().unwrap_or(".") },
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

/// The program's name of a tensor.
fn renamed(name: &str) -> String {
    let name = name.strip_prefix("transformer.").unwrap_or(name);
    let name = name.strip_prefix("h.").map_or_else(|| name.to_string(), |rest| format!("blocks.{rest}"));
    name.replace(".attn_imp.", ".attn_fn.")
}
