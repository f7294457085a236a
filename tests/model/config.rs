//! The published configuration: every field loads, unknown ones are reported, wrong ones are named.

use std::path::Path;

use gossamer::model::{
    Activation, AttentionLayers, ConfigFile, ModelConfig, ResidualActivation, SiteKind, TopkSites, parse_config,
};

fn read(json: &str) -> gossamer::Result<(ModelConfig, Vec<String>)> {
    serde_json::from_str::<ConfigFile>(json).unwrap().into_config()
}

/// Every field of the method's table, none at its default.
const ALL: &str = r#"{
    "block_size": 256, "vocab_size": 2048, "n_layer": 8, "n_head": 64, "d_head": 16, "d_model": 1000, "d_mlp": 77,
    "bias": false, "ln_bias": false, "rms_norm": true, "activation_type": "relu", "residual_activation_type": "relu",
    "afrac": 0.25, "afrac_loctypes": "attn_in,resid_post_mlp", "tied_unembed": false, "enable_bigram_table": true,
    "learnable_bigram_table": true, "d_pos_emb": 32, "sinusoidal_cat_pos_emb": true, "dropout_cat_pos_emb": true,
    "dropout": 0.1, "grad_checkpointing": true, "flash": false, "debug_nans": true, "enable_sparse_kernels": true,
    "tokenizer_name": "tinypython_2k", "sink": true, "ln_eps": 0.001, "scale_attn_weights": false,
    "scale_attn_by_inverse_layer_idx": true, "attention_layers": "global,local", "window_size": 9, "min_topk": 2
}"#;

#[test]
fn every_field_loads() {
    let want = ModelConfig {
        block_size: 256,
        vocab_size: 2048,
        n_layer: 8,
        n_head: 64,
        d_head: Some(16),
        d_model: 1000,
        d_mlp: Some(77),
        bias: false,
        ln_bias: false,
        rms_norm: true,
        activation_type: Activation::Relu,
        residual_activation_type: ResidualActivation::Relu,
        afrac: Some(0.25),
        afrac_loctypes: TopkSites("attn_in,resid_post_mlp".into()),
        tied_unembed: false,
        enable_bigram_table: true,
        learnable_bigram_table: true,
        d_pos_emb: Some(32),
        sink: true,
        ln_eps: 0.001,
        scale_attn_weights: false,
        scale_attn_by_inverse_layer_idx: true,
        attention_layers: AttentionLayers("global,local".into()),
        window_size: Some(9),
        min_topk: 2,
        sinusoidal_cat_pos_emb: true,
        dropout_cat_pos_emb: true,
        dropout: 0.1,
        grad_checkpointing: true,
        flash: false,
        debug_nans: true,
        enable_sparse_kernels: true,
        tokenizer_name: Some("tinypython_2k".into()),
    };
    assert_eq!(read(ALL).unwrap(), (want.clone(), vec![]));
    want.validate().unwrap();
    let again = serde_json::to_string(&want).unwrap();
    assert_eq!(read(&again).unwrap(), (want.clone(), vec![]));
    assert_eq!(toml::from_str::<ModelConfig>(&toml::to_string(&want).unwrap()).unwrap(), want);
}

#[test]
fn absent_and_null_fields_take_the_published_defaults() {
    let (config, _) = read("{}").unwrap();
    assert_eq!((config.block_size, config.vocab_size, config.n_layer), (1024, 50304, 12));
    assert_eq!((config.n_head, config.d_model, config.head_width(), config.mlp_width()), (12, 768, 64, 3072));
    assert_eq!((config.bias, config.ln_bias, config.rms_norm, config.tied_unembed), (true, true, false, true));
    assert_eq!(config.activation_type, Activation::Gelu);
    assert_eq!(config.residual_activation_type, ResidualActivation::Identity);
    assert_eq!((config.enable_bigram_table, config.learnable_bigram_table, config.sink), (false, false, false));
    assert_eq!((config.input_width(), config.topk(SiteKind::AttnIn)), (768, None));
    let nulls = r#"{"d_head": null, "d_mlp": null, "afrac": null, "d_pos_emb": null, "tokenizer_name": null}"#;
    assert_eq!(read(nulls).unwrap().0, config);
    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(read(&again).unwrap(), (config.clone(), vec![]));
    assert_eq!(toml::from_str::<ModelConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn null_is_the_default_of_every_field() {
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(ALL).unwrap();
    let nulls: serde_json::Map<_, _> = all.keys().map(|name| (name.clone(), serde_json::Value::Null)).collect();
    assert_eq!(read(&serde_json::Value::Object(nulls).to_string()).unwrap(), (ModelConfig::default(), vec![]));
    assert_eq!(read(r#"{"d_mlp": null, "n_mlp": null, "sink": null}"#).unwrap().0, ModelConfig::default());
}

#[test]
fn numbers_out_of_range_are_named() {
    for (field, value) in
        [("dropout", "1"), ("dropout", "-0.1"), ("dropout", "1e999"), ("afrac", "-1"), ("d_pos_emb", "16777217")]
    {
        let text = format!("{{\"{field}\": {value}}}");
        let error = parse_config(Path::new("config.json"), text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(field) || error.contains("out of range"), "{text}: {error}");
    }
    assert!(ModelConfig { dropout: f64::NAN, ..ModelConfig::default() }.validate().is_err());
}

#[test]
fn older_files_say_n_mlp() {
    assert_eq!(read(r#"{"n_mlp": 40}"#).unwrap().0.mlp_width(), 40);
    assert_eq!(read(r#"{"n_mlp": null, "d_model": 24}"#).unwrap().0.mlp_width(), 96);
    assert_eq!(read(r#"{"n_mlp": 40, "d_mlp": null}"#).unwrap().0.mlp_width(), 40);
    assert_eq!(read(r#"{"n_mlp": 40, "d_mlp": 48}"#).unwrap().0.mlp_width(), 48);
}

#[test]
fn abs_topk_keeps_the_floor_where_it_is_listed() {
    use SiteKind::{AttnIn, AttnOut, MlpIn, MlpNeuron, MlpOut};
    let fields = r#""afrac": 0.26, "afrac_loctypes": "attn_in, mlp_neuron", "d_model": 10, "n_head": 1, "d_mlp": 100"#;
    let (config, _) = read(&format!("{{{fields}}}")).unwrap();
    assert_eq!((config.topk(AttnIn), config.topk(MlpNeuron)), (Some(2), Some(26)));
    assert_eq!(config.topk(AttnOut), None);
    let (default, _) = read(r#"{"afrac": 0.5, "d_model": 4, "n_head": 1}"#).unwrap();
    // As in the published class.
    let listed = [AttnIn, AttnOut, MlpIn, MlpOut];
    assert!(listed.iter().all(|&kind| default.topk(kind) == Some(2)));
    assert!(SiteKind::all().filter(|kind| !listed.contains(kind)).all(|kind| default.topk(kind).is_none()));
}

#[test]
fn unknown_fields_are_reported_not_refused() {
    let (config, unknown) = read(r#"{"n_layer": 3, "moe": {"experts": 8}, "alibi": null}"#).unwrap();
    assert_eq!((config.n_layer, unknown), (3, vec!["alibi".to_string(), "moe".to_string()]));
}

#[test]
fn wrong_kinds_are_named() {
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(ALL).unwrap();
    assert_eq!(all.len(), 33);
    for (name, value) in all {
        let mut wrong = vec![serde_json::json!(["x"]), serde_json::json!({"a": 1})];
        wrong.push(if value.is_string() { 3.into() } else { "many".into() });
        if value.is_u64() {
            wrong.extend([serde_json::json!(-1), serde_json::json!(1.5)]);
        }
        for wrong in wrong {
            let error = read(&serde_json::json!({ &name: wrong }).to_string()).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")), "{name} = {wrong}: {error}");
        }
    }
}

#[test]
fn impossible_values_are_named() {
    for (json, named) in [
        (r#"{"n_layer": 0}"#, "n_layer"),
        (r#"{"n_head": 0}"#, "n_head"),
        (r#"{"d_head": 0}"#, "d_head"),
        (r#"{"d_mlp": 0}"#, "d_mlp"),
        (r#"{"d_pos_emb": 0}"#, "d_pos_emb"),
        (r#"{"vocab_size": 0}"#, "vocab_size"),
        (r#"{"block_size": 100000000}"#, "block_size"),
        (r#"{"n_head": 7}"#, "n_head"),
        (r#"{"afrac": 0}"#, "afrac"),
        (r#"{"afrac": 1.5}"#, "afrac"),
        (r#"{"afrac_loctypes": "attn_in,attn"}"#, "`attn`"),
        (r#"{"enable_bigram_table": true, "vocab_size": 70000}"#, "enable_bigram_table"),
        (r#"{"attention_layers": "global,lokal"}"#, "`lokal`"),
        (r#"{"attention_layers": "local"}"#, "window_size"),
        (r#"{"window_size": 0}"#, "window_size"),
        (r#"{"ln_eps": 0}"#, "ln_eps"),
        (r#"{"activation_type": "gelu_old"}"#, "activation_type"),
        (r#"{"n_layer": "two"}"#, "n_layer"),
        (r#"[1]"#, "folder/config.json"),
        (r#"{"n_layer": 1"#, "folder/config.json"),
    ] {
        let error = parse_config(Path::new("folder/config.json"), json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("folder/config.json"), "{json}: {error}");
    }
}

/// Published loaders fail on a field that they do not know.
#[test]
fn fields_that_the_published_code_does_not_know_are_written_only_where_they_say_something() {
    let own = [
        "ln_eps",
        "scale_attn_weights",
        "scale_attn_by_inverse_layer_idx",
        "attention_layers",
        "window_size",
        "min_topk",
    ];
    let written = |config: &ModelConfig| serde_json::to_value(config).unwrap();
    let default = written(&ModelConfig::default());
    assert!(own.iter().all(|name| default.get(name).is_none()), "{default}");
    assert_eq!(default.as_object().unwrap().len(), 27);
    let all = written(&read(ALL).unwrap().0);
    assert!(own.iter().all(|name| all.get(name).is_some()), "{all}");
}

#[test]
fn what_the_published_code_cannot_express_is_named() {
    let obstacles = |json: &str| {
        let all = read(json).unwrap().0.published_obstacles();
        all.into_iter().map(|(field, value)| format!("{field} = {value}")).collect::<Vec<_>>().join("; ")
    };
    for (harmless, named) in [
        (r#"{"attention_layers": "global,local", "window_size": 1024}"#, ""),
        (r#"{"ln_eps": 0.1, "rms_norm": true}"#, ""),
        (r#"{"afrac": 0.5, "min_topk": 1}"#, ""),
        (r#"{"afrac_loctypes": "resid_pre", "min_topk": 9}"#, ""),
        (r#"{"scale_attn_by_inverse_layer_idx": true, "n_layer": 1}"#, ""),
        (r#"{"attention_layers": "global,local", "window_size": 1023}"#, "attention_layers = global,local"),
        (r#"{"ln_eps": 1e-6}"#, "ln_eps = 1e-6"),
        (r#"{"afrac": 0.001, "min_topk": 1}"#, "min_topk = 1"),
        (r#"{"afrac": 0.5, "afrac_loctypes": "resid_pre"}"#, "afrac_loctypes = resid_pre"),
        (r#"{"scale_attn_weights": false}"#, "scale_attn_weights = false"),
        (r#"{"scale_attn_by_inverse_layer_idx": true}"#, "scale_attn_by_inverse_layer_idx = true"),
        (r#"{"activation_type": "gelu_tanh", "ln_eps": 0.5}"#, "activation_type = gelu_tanh; ln_eps = 5e-1"),
    ] {
        assert_eq!(obstacles(harmless), named, "{harmless}");
    }
    assert_eq!(obstacles("{}"), "");
}

#[test]
fn the_residual_stream_is_selected_where_its_sites_are_named() {
    let kept = |sites: &str| {
        let fields =
            format!(r#"{{"afrac": 0.5, "afrac_loctypes": "{sites}", "d_model": 4, "n_head": 1, "n_layer": 2}}"#);
        let config = read(&fields).unwrap().0;
        config.validate().unwrap();
        (0..config.residual_sites()).map(|number| u8::from(config.residual_topk(number) == Some(2))).collect::<Vec<_>>()
    };
    assert_eq!(kept("attn_in"), [0, 0, 0, 0, 0]);
    assert_eq!(kept("resid_pre"), [1, 0, 1, 0, 0]);
    assert_eq!(kept("resid_post_attn"), [0, 1, 0, 1, 0]);
    assert_eq!(kept("resid_post_mlp"), [0, 0, 1, 0, 1]);
    assert_eq!(kept("resid_pre,resid_post_mlp"), [1, 0, 1, 0, 1]);
}
