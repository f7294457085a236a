//! Tiny models of every variant of the configuration.

use std::collections::BTreeMap;

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{Batch, Model, ModelConfig, Parameters};
use rand::RngExt;

use crate::common::{normal, rng};

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
        ("positions beside, layer norm", r#""d_pos_emb": 5"#),
        ("positions beside, no norm biases", r#""d_pos_emb": 3, "ln_bias": false"#),
        ("positions beside, rms norm", r#""d_pos_emb": 4, "rms_norm": true"#),
        ("fixed bigrams", r#""enable_bigram_table": true, "learnable_bigram_table": false"#),
        ("learned bigrams", r#""enable_bigram_table": true, "learnable_bigram_table": true, "tied_unembed": false"#),
        ("three layers", r#""n_layer": 3, "rms_norm": true, "sink": true, "d_pos_emb": 2, "n_head": 4"#),
    ]
    .map(|(name, fields)| (name, config(fields)))
    .into()
}

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

/// A model with [`random_state`].
pub fn random_model(config: &ModelConfig, seed: u64, device: &Device) -> Model {
    let parameters = Parameters::from_host(config, random_state(config, seed), device).unwrap();
    Model { config: config.clone(), parameters, device: device.clone() }
}

/// Three random sequences of six tokens.
pub fn batch(config: &ModelConfig, device: &Device) -> Batch {
    let mut rng = rng(99);
    let tokens: Vec<u32> = (0..18).map(|_| rng.random_range(0..config.vocab_size as u32)).collect();
    Batch::new(device, config, &tokens, 3).unwrap()
}
