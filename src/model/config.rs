//! The fields of `beeg_config.json`, with the defaults of the published code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SiteKind;
use crate::settings::{self, Setting, Takes, above, below, numeric, optional};
use crate::{Error, Result};

/// Activation function of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exact (erf) GELU.
    Gelu,
    /// max(x, 0).
    Relu,
}

/// What is applied to the residual stream after each sublayer's addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResidualActivation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
}

/// Where AbsTopK applies, as the comma-separated list of the published configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopkSites(pub String);

impl TopkSites {
    /// The names listed.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').map(str::trim).filter(|name| !name.is_empty())
    }

    /// Whether `name` is listed.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names().any(|listed| listed == name)
    }
}

/// The published default.
impl Default for TopkSites {
    fn default() -> Self {
        Self("attn_in,attn_out,mlp_in,mlp_out".into())
    }
}

/// Sizes of tensors are at most this.
const LARGEST: u64 = 1 << 24;

/// What each field may be.
pub const MODEL_SETTINGS: &[Setting<ModelConfig>] = &[
    numeric!(block_size, Takes::Count(1, LARGEST), "longest sequence, in tokens"),
    numeric!(vocab_size, Takes::Count(1, LARGEST), "tokens; follows data.tokenizer"),
    numeric!(n_layer, Takes::Count(1, 10_000), "layers"),
    numeric!(n_head, Takes::Count(1, LARGEST), "attention heads in a layer"),
    optional(numeric!(d_head, Takes::Count(1, LARGEST), "width of a head; none: d_model / n_head")),
    numeric!(d_model, Takes::Count(1, LARGEST), "width of the residual stream"),
    optional(numeric!(d_mlp, Takes::Count(1, LARGEST), "width of the MLP; none: 4 d_model")),
    Setting::other("bias", Takes::Flag, "biases in the linear layers"),
    Setting::other("ln_bias", Takes::Flag, "biases in LayerNorm"),
    Setting::other("rms_norm", Takes::Flag, "RMSNorm instead of LayerNorm"),
    Setting::other("activation_type", Takes::OneOf(&["gelu", "relu"]), "of the MLP"),
    Setting::other("residual_activation_type", Takes::OneOf(&["identity", "relu"]), "after each sublayer's addition"),
    optional(numeric!(afrac, above(0.0, 1.0), "share of entries that AbsTopK keeps; none: no AbsTopK")),
    Setting::other("afrac_loctypes", Takes::Text("sites with commas between them"), "where AbsTopK applies"),
    Setting::other("tied_unembed", Takes::Flag, "the unembedding is the embedding"),
    Setting::other("enable_bigram_table", Takes::Flag, "a dense table of logits by the current token"),
    Setting::other("learnable_bigram_table", Takes::Flag, "whether that table is trained"),
    optional(numeric!(d_pos_emb, Takes::Count(1, LARGEST), "width of concatenated positions; none: added")),
    Setting::other("sink", Takes::Flag, "attention sinks"),
    Setting::other("sinusoidal_cat_pos_emb", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("dropout_cat_pos_emb", Takes::Flag, "accepted in published files; not trained with"),
    numeric!(dropout, below(0.0, 1.0), "accepted in published files; not trained with"),
    Setting::other("grad_checkpointing", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("flash", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("debug_nans", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("enable_sparse_kernels", Takes::Flag, "accepted in published files; not trained with"),
    optional(Setting::other("tokenizer_name", Takes::Text("a name"), "accepted in published files; not trained with")),
];

/// A model's shapes and variants: the fields of the published `beeg_config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Longest sequence, T at most.
    pub block_size: usize,
    /// Number of tokens, V.
    pub vocab_size: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// Attention heads in a layer, H.
    pub n_head: usize,
    /// Width of a head; absent: `d_model / n_head`.
    pub d_head: Option<usize>,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the MLP; absent: four times `d_model`. Older files call it `n_mlp`.
    #[serde(alias = "n_mlp")]
    pub d_mlp: Option<usize>,
    /// Biases in the linear layers.
    pub bias: bool,
    /// Biases in LayerNorm.
    pub ln_bias: bool,
    /// RMSNorm instead of LayerNorm.
    pub rms_norm: bool,
    /// Activation function of the MLP.
    pub activation_type: Activation,
    /// Applied to the residual stream after each sublayer.
    pub residual_activation_type: ResidualActivation,
    /// AbsTopK keeps `floor(afrac · width)` entries; absent: AbsTopK nowhere.
    pub afrac: Option<f64>,
    /// Where AbsTopK applies.
    pub afrac_loctypes: TopkSites,
    /// `lm_head.weight` is `transformer.wte.weight`.
    pub tied_unembed: bool,
    /// A dense V×V table whose row of the current token is added to the logits.
    pub enable_bigram_table: bool,
    /// Whether that table is trained.
    pub learnable_bigram_table: bool,
    /// Width of positions concatenated to every sublayer's input; absent: positions are added to
    /// the embedding.
    pub d_pos_emb: Option<usize>,
    /// A learned logit per head joins the softmax with a zero value.
    pub sink: bool,
    /// Without effect here.
    pub sinusoidal_cat_pos_emb: bool,
    /// Without effect here.
    pub dropout_cat_pos_emb: bool,
    /// Without effect here.
    pub dropout: f64,
    /// Without effect here.
    pub grad_checkpointing: bool,
    /// Without effect here.
    pub flash: bool,
    /// Without effect here.
    pub debug_nans: bool,
    /// Without effect here.
    pub enable_sparse_kernels: bool,
    /// The tokenizer's name in the published code; without effect here.
    pub tokenizer_name: Option<String>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            block_size: 1024,
            vocab_size: 50304,
            n_layer: 12,
            n_head: 12,
            d_head: None,
            d_model: 768,
            d_mlp: None,
            bias: true,
            ln_bias: true,
            rms_norm: false,
            activation_type: Activation::Gelu,
            residual_activation_type: ResidualActivation::Identity,
            afrac: None,
            afrac_loctypes: TopkSites::default(),
            tied_unembed: true,
            enable_bigram_table: false,
            learnable_bigram_table: false,
            d_pos_emb: None,
            sink: false,
            sinusoidal_cat_pos_emb: false,
            dropout_cat_pos_emb: false,
            dropout: 0.0,
            grad_checkpointing: false,
            flash: true,
            debug_nans: false,
            enable_sparse_kernels: false,
            tokenizer_name: None,
        }
    }
}

/// A configuration as other people's files hold it: fields unknown to us are set aside, not
/// refused.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfigFile(BTreeMap<String, serde_json::Value>);

impl ConfigFile {
    /// Splits the file into the configuration and the names of fields it does not know.
    ///
    /// # Errors
    /// [`Error::Config`] naming a known field whose value is of the wrong kind.
    pub fn into_config(mut self) -> Result<(ModelConfig, Vec<String>)> {
        let names: Vec<String> = self.0.keys().cloned().collect();
        // What is null is as if it were not there.
        self.0.retain(|_, value| !value.is_null());
        // Some files hold the new name and the old one.
        if self.0.contains_key("d_mlp") {
            self.0.remove("n_mlp");
        }
        let known = serde_json::to_value(ModelConfig::default()).unwrap_or_default();
        let is_known = |name: &str| known.get(name).is_some() || name == "n_mlp";
        let unknown = names.into_iter().filter(|name| !is_known(name)).collect();
        let mut fields = serde_json::Map::new();
        for (name, value) in self.0.into_iter().filter(|(name, _)| is_known(name)) {
            let one = serde_json::Map::from_iter([(name.clone(), value.clone())]);
            if let Err(error) = ModelConfig::deserialize(serde_json::Value::Object(one)) {
                return Err(Error::config(name, error.to_string()));
            }
            fields.insert(name, value);
        }
        let config = ModelConfig::deserialize(serde_json::Value::Object(fields))
            .map_err(|e| Error::config("model", e.to_string()))?;
        Ok((config, unknown))
    }
}

impl ModelConfig {
    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.d_head.unwrap_or(self.d_model / self.n_head.max(1))
    }

    /// Width of all heads together.
    pub fn attention_width(&self) -> usize {
        self.n_head * self.head_width()
    }

    /// Width of the MLP.
    pub fn mlp_width(&self) -> usize {
        self.d_mlp.unwrap_or_else(|| self.d_model.saturating_mul(4))
    }

    /// Width of what c_attn and c_fc read: the residual stream and, if concatenated, the positions.
    pub fn input_width(&self) -> usize {
        self.d_model + self.d_pos_emb.unwrap_or(0)
    }

    /// Checks that a model can be built.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field that makes it impossible.
    pub fn validate(&self) -> Result<()> {
        settings::check("", MODEL_SETTINGS, self)?;
        for (name, width) in [("d_head", self.head_width()), ("d_mlp", self.mlp_width())] {
            if width == 0 || width as u64 > LARGEST {
                return Err(Error::config(name, format!("would be {width}; {} is needed", Takes::Count(1, LARGEST))));
            }
        }
        if self.d_head.is_none() && !self.d_model.is_multiple_of(self.n_head) {
            return Err(Error::config(
                "n_head",
                format!("{} does not divide d_model {}; set d_head", self.n_head, self.d_model),
            ));
        }
        let known: Vec<&str> = SiteKind::all().filter_map(SiteKind::topk_name).collect();
        if let Some(unknown) = self.afrac_loctypes.names().find(|name| !known.contains(name)) {
            return Err(Error::config("afrac_loctypes", format!("`{unknown}` is not one of {}", known.join(", "))));
        }
        if self.enable_bigram_table && self.vocab_size > 65_536 {
            return Err(Error::config("enable_bigram_table", "a table of more than 65,536² entries"));
        }
        Ok(())
    }

    /// The same configuration with every field that only published training programs honour at its
    /// default.
    #[must_use]
    pub(crate) fn without_unused(&self) -> Self {
        let default = Self::default();
        Self {
            sinusoidal_cat_pos_emb: default.sinusoidal_cat_pos_emb,
            dropout_cat_pos_emb: default.dropout_cat_pos_emb,
            dropout: default.dropout,
            grad_checkpointing: default.grad_checkpointing,
            flash: default.flash,
            debug_nans: default.debug_nans,
            enable_sparse_kernels: default.enable_sparse_kernels,
            tokenizer_name: default.tokenizer_name,
            ..self.clone()
        }
    }

    /// Returns an error if a field is set that training would not honour, naming it.
    pub(crate) fn check_trainable(&self) -> Result<()> {
        let unused = [
            ("dropout", self.dropout != 0.0, "dropout", "0"),
            ("sinusoidal_cat_pos_emb", self.sinusoidal_cat_pos_emb, "sinusoidal positions", "false"),
            ("dropout_cat_pos_emb", self.dropout_cat_pos_emb, "dropout of positions", "false"),
            ("grad_checkpointing", self.grad_checkpointing, "gradient checkpointing", "false"),
            ("flash", !self.flash, "other attention kernel", "true"),
            ("debug_nans", self.debug_nans, "such mode; a loss that is not finite always ends it", "false"),
            ("enable_sparse_kernels", self.enable_sparse_kernels, "such switch; densities decide", "false"),
            ("tokenizer_name", self.tokenizer_name.is_some(), "tokenizers by name; data.tokenizer is a file", "none"),
        ];
        match unused.into_iter().find(|(_, set, ..)| *set) {
            Some((name, _, what, value)) => Err(Error::config(
                format!("model.{name}"),
                format!("would change nothing: training has no {what}. Set it to {value}"),
            )),
            None => Ok(()),
        }
    }
}
