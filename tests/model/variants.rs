//! Tiny models of every variant of the configuration.

use std::collections::BTreeMap;

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{Batch, Model, ModelConfig, Parameters};
use rand::RngExt;

use crate::common::{normal, rng};
use crate::oracle;

/// A configuration from the fields that differ from a tiny two-layer GPT-2.
pub fn config(fields: &str) -> ModelConfig {
    let base = r#""block_size": 7, "vocab_size": 19, "n_layer": 2, "n_head": 2, "d_model": 12, "d_mlp": 20"#;
    let mut all: serde_json::Map<_, _> = serde_json::from_str(&format!("{{{base}}}")).unwrap();
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!("{{{fields}}}")).unwrap();
    if fields.contains_key("n_mlp") {
        all.remove("d_mlp");
    }
    all.extend(fields);
    let config: ModelConfig = serde_json::from_value(all.into()).unwrap();
    config.validate().unwrap();
    config
}

/// Every variant without AbsTopK, whose choices jump; the golden cases have it.
pub fn smooth() -> Vec<(&'static str, ModelConfig)> {
    [
        ("plain", r#""afrac": null, "d_head": null"#),
        ("no bias in norms", r#""ln_bias": false"#),
        ("no bias in linears", r#""bias": false"#),
        ("no bias at all", r#""bias": false, "ln_bias": false"#),
        ("rms norm, untied", r#""rms_norm": true, "tied_unembed": false"#),
        ("untied", r#""tied_unembed": false"#),
        ("relu", r#""activation_type": "relu""#),
        ("relu everywhere", r#""activation_type": "relu", "residual_activation_type": "relu""#),
        ("sinks", r#""sink": true"#),
        ("wide heads", r#""d_head": 9, "n_head": 3"#),
        ("narrow heads with sinks", r#""d_head": 1, "n_head": 5, "sink": true, "bias": false"#),
        ("n_mlp", r#""n_mlp": 5"#),
        ("default mlp", r#""d_mlp": null, "n_layer": 1"#),
        ("concatenated positions, layer norm", r#""d_pos_emb": 5"#),
        ("concatenated positions, no norm biases", r#""d_pos_emb": 3, "ln_bias": false"#),
        ("concatenated positions, rms norm", r#""d_pos_emb": 4, "rms_norm": true"#),
        ("fixed bigrams", r#""enable_bigram_table": true, "learnable_bigram_table": false"#),
        ("learned bigrams", r#""enable_bigram_table": true, "learnable_bigram_table": true, "tied_unembed": false"#),
        ("gpt2", r#""activation_type": "gelu_tanh", "ln_eps": 0.01"#),
        ("gpt2, scaled by layer", r#""scale_attn_by_inverse_layer_idx": true, "scale_attn_weights": false"#),
        (
            "gpt neo",
            r#""activation_type": "gelu_tanh", "scale_attn_weights": false,
            "n_layer": 3, "attention_layers": "global,local", "window_size": 3"#,
        ),
        ("local with sinks", r#""sink": true, "attention_layers": "local", "window_size": 1, "rms_norm": true"#),
        ("three layers", r#""n_layer": 3, "rms_norm": true, "sink": true, "d_pos_emb": 2, "n_head": 4"#),
    ]
    .map(|(name, fields)| (name, config(fields)))
    .into()
}

/// Variants with AbsTopK: at each place alone, at all of them, and with what goes along in
/// published models.
pub fn sparse() -> Vec<(String, ModelConfig)> {
    let all = "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out,resid_post_attn,resid_post_mlp";
    let mut places: Vec<(String, &str, &str)> = all.split(',').map(|place| (place.into(), place, "0.3")).collect();
    places.push(("resid_pre".into(), "resid_pre", "0.3"));
    places.push(("resid_pre and after the MLP".into(), "resid_pre,resid_post_mlp", "0.4"));
    places.push(("everywhere".into(), all, "0.5"));
    places.push(("with spaces, rounded down".into(), " attn_v , mlp_neuron", "0.99"));
    let mut variants: Vec<_> = places
        .into_iter()
        .map(|(name, places, afrac)| (name, config(&format!(r#""afrac": {afrac}, "afrac_loctypes": "{places}""#))))
        .collect();
    variants
        .push(("at least 2".into(), config(&format!(r#""afrac": 0.01, "min_topk": 2, "afrac_loctypes": "{all}""#))));
    variants.push(("as published".into(), as_published()));
    variants
}

/// Every variant, [`smooth`] and [`sparse`].
pub fn every() -> Vec<(String, ModelConfig)> {
    smooth().into_iter().map(|(name, config)| (name.to_string(), config)).chain(sparse()).collect()
}

/// As the published models: RMSNorm, sinks, concatenated positions, a bigram table, AbsTopK
/// everywhere.
pub fn as_published() -> ModelConfig {
    config(
        r#""rms_norm": true, "sink": true, "d_pos_emb": 4, "enable_bigram_table": true, "tied_unembed": false,
           "afrac": 0.5, "afrac_loctypes":
           "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out,resid_post_attn,resid_post_mlp""#,
    )
}

/// Choices of AbsTopK decided by more than this are the same in float32.
pub const SURE: f64 = 2e-5;

/// Random numbers for every parameter: none at its neutral value, where a wrong rule could hide.
pub fn random_state(config: &ModelConfig, seed: u64) -> BTreeMap<String, HostTensor> {
    let mut rng = rng(seed);
    Parameters::shapes(config)
        .into_iter()
        .map(|(name, _, shape)| {
            let mut data = normal(&mut rng, shape.iter().product());
            let norm = name.contains(".ln_") && name.ends_with("weight");
            data.iter_mut().for_each(|v| *v = if norm { 1.0 + 0.3 * *v } else { 0.4 * *v });
            (name, HostTensor { shape, data })
        })
        .collect()
}

/// `batch` random sequences of `length` tokens, one after the other.
pub fn prompts(config: &ModelConfig, seed: u64, batch: usize, length: usize) -> Vec<u32> {
    let mut rng = rng(seed);
    (0..batch * length).map(|_| rng.random_range(0..config.vocab_size as u32)).collect()
}

/// A [`random_state`] with which no choice of AbsTopK on these prompts is a close one.
pub fn clear_state<'a>(
    config: &ModelConfig,
    prompts: impl Iterator<Item = &'a [u32]> + Clone,
) -> BTreeMap<String, HostTensor> {
    let states = (0..20).map(|seed| random_state(config, seed));
    let mut clear =
        states.filter(|state| prompts.clone().all(|tokens| oracle::sites(config, state, tokens).1.margin > SURE));
    clear.next().expect("close choices with every seed")
}

/// A model with [`random_state`].
pub fn random_model(config: &ModelConfig, seed: u64, device: &Device) -> Model {
    let parameters = Parameters::from_host(config, random_state(config, seed), device).unwrap();
    Model { config: config.clone(), parameters, device: device.clone() }
}

/// Three random sequences of six tokens.
pub fn batch(config: &ModelConfig, device: &Device) -> Batch {
    Batch::new(device, config, &prompts(config, 99, 3, 6), 3).unwrap()
}
