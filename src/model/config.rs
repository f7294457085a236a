//! The fields of `beeg_config.json`, with the defaults of the published code, and those by which
//! other people's models differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SiteKind;
use super::site::RESID_PRE;
use crate::ops::attention::AttentionOptions;
use crate::settings::{self, Setting, Takes, above, below, numeric, optional, within};
use crate::{Error, Result};

/// Activation function of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exact (erf) GELU.
    Gelu,
    /// GELU in its tanh form, GPT-2's `gelu_new`.
    #[serde(rename = "gelu_tanh")]
    GeluTanh,
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// Its name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
        }
    }
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

/// Which keys the attention of each layer sees, as a comma-separated list that is repeated until
/// there is a word for each layer: `global` for all keys up to the query's own, `local` for the last
/// `window_size` of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttentionLayers(pub String);

impl AttentionLayers {
    fn words(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.split(',').map(str::trim)
    }

    /// Whether the attention of a layer is local.
    fn is_local(&self, layer: usize) -> bool {
        let count = self.words().count().max(1);
        self.words().nth(layer % count) == Some("local")
    }
}

/// GPT-2's.
impl Default for AttentionLayers {
    fn default() -> Self {
        Self("global".into())
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
    Setting::other("activation_type", Takes::OneOf(&["gelu", "gelu_tanh", "relu"]), "of the MLP"),
    Setting::other("residual_activation_type", Takes::OneOf(&["identity", "relu"]), "after each sublayer's addition"),
    optional(numeric!(afrac, above(0.0, 1.0), "share of entries that AbsTopK keeps; none: no AbsTopK")),
    Setting::other("afrac_loctypes", Takes::Text("sites with commas between them"), "where AbsTopK applies"),
    numeric!(min_topk, Takes::Count(0, LARGEST), "entries that AbsTopK keeps at least; default 0"),
    Setting::other("tied_unembed", Takes::Flag, "the unembedding is the embedding"),
    Setting::other("enable_bigram_table", Takes::Flag, "a dense table of logits by the current token"),
    Setting::other("learnable_bigram_table", Takes::Flag, "whether that table is trained"),
    optional(numeric!(d_pos_emb, Takes::Count(1, LARGEST), "width of concatenated positions; none: added")),
    Setting::other("sink", Takes::Flag, "attention sinks"),
    numeric!(ln_eps, within(1e-30, 1e3), "epsilon of LayerNorm; default 1e-5"),
    Setting::other("scale_attn_weights", Takes::Flag, "attention divides by the root of a head's width; default true"),
    Setting::other(
        "scale_attn_by_inverse_layer_idx",
        Takes::Flag,
        "attention divides by the layer's number, from 1; default false",
    ),
    Setting::other(
        "attention_layers",
        Takes::Text("global and local with commas between them"),
        "attention of the layers in turn; default global",
    ),
    optional(numeric!(window_size, Takes::Count(1, LARGEST), "keys that local attention sees")),
    Setting::other("sinusoidal_cat_pos_emb", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("dropout_cat_pos_emb", Takes::Flag, "accepted in published files; not trained with"),
    numeric!(dropout, below(0.0, 1.0), "accepted in published files; not trained with"),
    Setting::other("grad_checkpointing", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("flash", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("debug_nans", Takes::Flag, "accepted in published files; not trained with"),
    Setting::other("enable_sparse_kernels", Takes::Flag, "accepted in published files; not trained with"),
    optional(Setting::other("tokenizer_name", Takes::Text("a name"), "accepted in published files; not trained with")),
];

/// A model's shapes and variants: the fields of the published `beeg_config.json`, and further ones
/// that the published code does not know. Those are written only where they differ from their
/// defaults, which are what it does.
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
    /// AbsTopK keeps `floor(afrac · width)` entries, but at least `min_topk`; absent: AbsTopK
    /// nowhere.
    pub afrac: Option<f64>,
    /// Where AbsTopK applies.
    pub afrac_loctypes: TopkSites,
    /// The fewest entries that AbsTopK keeps.
    #[serde(skip_serializing_if = "is_default")]
    pub min_topk: usize,
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
    /// What LayerNorm adds to the variance.
    #[serde(skip_serializing_if = "is_published_eps")]
    pub ln_eps: f64,
    /// Products of queries and keys are divided by the root of a head's width.
    #[serde(skip_serializing_if = "is_true")]
    pub scale_attn_weights: bool,
    /// Products of queries and keys are divided by the layer's number, counted from 1.
    #[serde(skip_serializing_if = "is_default")]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Which keys the attention of each layer sees.
    #[serde(skip_serializing_if = "is_default")]
    pub attention_layers: AttentionLayers,
    /// How many keys local attention sees, the last ones up to the query's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_size: Option<usize>,
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

/// The epsilon of the published code's LayerNorm.
const PUBLISHED_LN_EPS: f64 = 1e-5;

fn is_published_eps(eps: &f64) -> bool {
    *eps == PUBLISHED_LN_EPS
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
            min_topk: 0,
            tied_unembed: true,
            enable_bigram_table: false,
            learnable_bigram_table: false,
            d_pos_emb: None,
            sink: false,
            ln_eps: PUBLISHED_LN_EPS,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            attention_layers: AttentionLayers::default(),
            window_size: None,
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
        let is_known = |name: &str| name == "n_mlp" || MODEL_SETTINGS.iter().any(|setting| setting.name == name);
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

    /// How a layer attends.
    pub fn attention_options(&self, layer: usize) -> AttentionOptions {
        let usual = AttentionOptions::from(self.n_head);
        let of_layer = if self.scale_attn_by_inverse_layer_idx { 1.0 / (layer + 1) as f32 } else { 1.0 };
        let scale = match self.scale_attn_weights {
            true if of_layer == 1.0 => None,
            true => Some(usual.scale_of(self.head_width()) * of_layer),
            false => Some(of_layer),
        };
        let window = self.window_size.filter(|_| self.attention_layers.is_local(layer));
        AttentionOptions { scale, window, ..usual }
    }

    /// What of the model the published code cannot express, each a field and its value; nothing for
    /// a model that it computes as this crate does.
    pub fn published_obstacles(&self) -> Vec<(&'static str, String)> {
        let few = SiteKind::all().any(|kind| self.topk(kind).is_some_and(|k| Some(k) != self.published_topk(kind)));
        let local = |layer| self.attention_options(layer).window.is_some_and(|window| window < self.block_size);
        let obstacles = [
            (self.activation_type == Activation::GeluTanh, "activation_type", "gelu_tanh".to_string()),
            (!self.rms_norm && !is_published_eps(&self.ln_eps), "ln_eps", format!("{:e}", self.ln_eps)),
            (!self.scale_attn_weights, "scale_attn_weights", "false".into()),
            (
                self.scale_attn_by_inverse_layer_idx && self.n_layer > 1,
                "scale_attn_by_inverse_layer_idx",
                "true".into(),
            ),
            ((0..self.n_layer).any(local), "attention_layers", self.attention_layers.0.clone()),
            (few, "min_topk", self.min_topk.to_string()),
            (self.afrac.is_some() && self.afrac_loctypes.contains(RESID_PRE), "afrac_loctypes", RESID_PRE.into()),
        ];
        obstacles.into_iter().filter(|(is, ..)| *is).map(|(_, field, value)| (field, value)).collect()
    }

    /// The same model in the fields of the published code alone.
    ///
    /// # Errors
    /// [`Error::Config`] naming what it cannot express; see [`ModelConfig::published_obstacles`].
    pub fn as_published(&self) -> Result<Self> {
        let obstacles = self.published_obstacles();
        if !obstacles.is_empty() {
            let all: Vec<String> = obstacles.iter().map(|(field, value)| format!("{field} = {value}")).collect();
            let message = format!("the published code cannot express {}", all.join(", "));
            return Err(Error::config("model", message));
        }
        let default = Self::default();
        Ok(Self {
            min_topk: default.min_topk,
            ln_eps: default.ln_eps,
            scale_attn_weights: default.scale_attn_weights,
            scale_attn_by_inverse_layer_idx: default.scale_attn_by_inverse_layer_idx,
            attention_layers: default.attention_layers,
            window_size: default.window_size,
            ..self.clone()
        })
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
        let known: Vec<&str> = SiteKind::all().filter_map(SiteKind::topk_name).chain([RESID_PRE]).collect();
        if let Some(unknown) = self.afrac_loctypes.names().find(|name| !known.contains(name)) {
            return Err(Error::config("afrac_loctypes", format!("`{unknown}` is not one of {}", known.join(", "))));
        }
        if self.attention_layers.words().count() > 10_000 {
            return Err(Error::config("attention_layers", "names more than 10,000 layers"));
        }
        if let Some(unknown) = self.attention_layers.words().find(|word| !["global", "local"].contains(word)) {
            return Err(Error::config("attention_layers", format!("`{unknown}` is not one of global, local")));
        }
        if self.window_size.is_none() && self.attention_layers.words().any(|word| word == "local") {
            return Err(Error::config("window_size", "is needed: attention_layers names local ones"));
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
