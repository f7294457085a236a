//! Runs of the training program sparse_pretrain: `pytorch_model.bin`, and a configuration in
//! sections.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::{Family, Origin};
use crate::model::{Activation, Kind, ModelConfig, TopkSites};

pub(super) const FAMILY: Family = Family { recognises, config, origin, is_buffer };

const MODEL: &str = "model_config";

/// Numbers of position embeddings that are zero and in no file, at most: 1 GiB.
const MAX_ZEROS: usize = 1 << 28;

/// The names of its locations, and ours.
pub(in crate::formats) const LOCATIONS: [(&str, &str); 10] = [
    ("attn_in", "attn_in"),
    ("attn_q", "attn_q"),
    ("attn_k", "attn_k"),
    ("attn_v", "attn_v"),
    ("attn_out", "attn_out"),
    ("mlp_in", "mlp_in"),
    ("mlp_neuron", "mlp_neuron"),
    ("mlp_out", "mlp_out"),
    ("resid_pre", "resid_pre"),
    ("resid_mid", "resid_post_attn"),
];

/// A section of the published configuration's fields may have the same name, but none of these.
fn recognises(whole: &Map<String, Value>) -> bool {
    let own = ["n_ctx", "use_rms_norm", "use_attention_sinks", "use_bigram_table", "tie_embeddings"];
    let model = whole.get(MODEL).and_then(Value::as_object);
    model.is_some_and(|fields| own.iter().any(|name| fields.contains_key(*name)))
}

fn config(fields: &Fields) -> Result<ModelConfig, String> {
    let (model, sparsity) = (fields.section(MODEL)?, fields.section("sparsity_config")?);
    let training = fields.get("training_config").and_then(Value::as_object).cloned().unwrap_or_default();
    let size = |name: &str, default| Ok::<_, String>(model.size(name)?.unwrap_or(default));
    let (d_model, d_head) = (size("d_model", 1024)?, size("d_head", 16)?);
    if d_head == 0 || !d_model.is_multiple_of(d_head) {
        return Err(format!("`d_head` is {d_head}, which does not divide `d_model`, {d_model}"));
    }
    let (sink, flash) = (model.flag("use_attention_sinks", true)?, model.flag("use_flash_attention", true)?);
    if sink && !flash {
        let message = "`use_flash_attention` is false: the program then leaves out the sinks that `use_attention_sinks` adds; \
             set one of them to what was trained with";
        return Err(message.into());
    }
    fields.ignore_all();
    model.ignore("dropout");
    let vocab_size = model.size("vocab_size")?.ok_or("`vocab_size` is missing")?;
    let has_positions = model.flag("use_positional_embeddings", false)?;
    let block_size = size("n_ctx", 256)?;
    if !has_positions && block_size.saturating_mul(d_model) > MAX_ZEROS {
        return Err(format!("`n_ctx` is {block_size}: that many positions of `d_model`, {d_model}, cannot be held"));
    }
    let enable_bigram_table = model.flag("use_bigram_table", true)?;
    let config = ModelConfig {
        block_size,
        vocab_size,
        n_layer: size("n_layer", 8)?,
        n_head: d_model / d_head,
        d_head: Some(d_head),
        d_model,
        d_mlp: model.size("d_mlp")?,
        bias: model.flag("use_bias", true)?,
        rms_norm: model.flag("use_rms_norm", true)?,
        activation_type: model.one_of(
            "activation",
            "gelu",
            &[("gelu", Activation::Gelu), ("relu", Activation::Relu)],
        )?,
        afrac: match sparsity.flag("enable_activation_sparsity", true)? {
            true => Some(sparsity.number("activation_topk_fraction", 0.25)?),
            false => None,
        },
        afrac_loctypes: locations(&sparsity)?,
        min_topk: 1,
        tied_unembed: model.flag("tie_embeddings", false)?,
        enable_bigram_table,
        learnable_bigram_table: enable_bigram_table,
        sink,
        tokenizer_name: training.get("tokenizer_name").and_then(Value::as_str).map(str::to_string),
        ..ModelConfig::default()
    };
    let unknown = model.unused();
    if !unknown.is_empty() {
        tracing::warn!("{MODEL}: fields not known and ignored: {}", unknown.join(", "));
    }
    Ok(config)
}

/// Where AbsTopK applies. Names are compared as they stand: the program passes over unknown ones.
fn locations(sparsity: &Fields) -> Result<TopkSites, String> {
    const DEFAULT: &str = "attn_in,attn_out,mlp_in,mlp_out,mlp_neuron,attn_v,attn_k,attn_q";
    let names = sparsity.text("activation_sparsity_locations")?.unwrap_or(DEFAULT).split(',');
    let ours = |name: &str| LOCATIONS.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        if let Some(ours) = ours(name) { known.push(ours) } else { unknown.push(format!("`{name}`")) }
    }
    if !unknown.is_empty() {
        tracing::warn!("activation_sparsity_locations not known and ignored: {}", unknown.join(", "));
    }
    Ok(TopkSites(known.join(",")))
}

fn origin(fields: &Fields, name: &str, kind: Kind) -> Origin {
    let model = fields.section(MODEL).ok();
    let has_positions = model.and_then(|model| model.flag("use_positional_embeddings", false).ok()).unwrap_or(false);
    if kind == Kind::Position && !has_positions {
        return Origin::Zeros;
    }
    Origin::Tensor(name.replace("transformer.h.", "blocks.").replace(".attn_imp.", ".attn_fn."))
}

/// The causal masks of its plain attention.
fn is_buffer(name: &str) -> bool {
    name.starts_with("blocks.") && name.ends_with(".attn.causal_mask")
}
