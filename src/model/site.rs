//! The named activations of a forward pass (method: section 1), in one table: names, order, widths,
//! and where AbsTopK applies.

use std::fmt;
use std::str::FromStr;

use regex::Regex;

use super::ModelConfig;
use crate::files::serialize_as_text;
use crate::{Error, Result};

/// A named activation `(B, T, width)`. Its text form is the published name: `3.mlp.post_act`,
/// `final_resid`. Sites are ordered as the forward pass reaches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// A site of a layer, counted from 0.
    Layer(usize, SiteKind),
    /// The residual stream after the last layer.
    FinalResid,
}

/// Where in a layer a site is, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SiteKind {
    /// The residual stream before attention.
    ResidIn,
    /// Attention's input: the normalized stream and, if concatenated, the positions.
    AttnIn,
    /// Queries of all heads.
    AttnQ,
    /// Keys of all heads.
    AttnK,
    /// Values of all heads.
    AttnV,
    /// Attention's weighted sums of values, of all heads.
    AttnY,
    /// What attention adds to the residual stream.
    AttnOut,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The MLP's input: the normalized stream and, if concatenated, the positions.
    MlpIn,
    /// The MLP's neurons after the activation function.
    MlpNeuron,
    /// What the MLP adds to the residual stream.
    MlpOut,
}

/// Kind, name within a layer, and the name that `afrac_loctypes` has for it: AbsTopK's result is
/// what the site shows. The stream after the MLP shows as the next layer's `resid_in`, or as
/// `final_resid`.
const TABLE: [(SiteKind, &str, Option<&str>); 11] = [
    (SiteKind::ResidIn, "resid_in", Some("resid_post_mlp")),
    (SiteKind::AttnIn, "attn.act_in", Some("attn_in")),
    (SiteKind::AttnQ, "attn.q", Some("attn_q")),
    (SiteKind::AttnK, "attn.k", Some("attn_k")),
    (SiteKind::AttnV, "attn.v", Some("attn_v")),
    (SiteKind::AttnY, "attn.y", None),
    (SiteKind::AttnOut, "attn.resid_delta", Some("attn_out")),
    (SiteKind::ResidMid, "resid_mid", Some("resid_post_attn")),
    (SiteKind::MlpIn, "mlp.act_in", Some("mlp_in")),
    (SiteKind::MlpNeuron, "mlp.post_act", Some("mlp_neuron")),
    (SiteKind::MlpOut, "mlp.resid_delta", Some("mlp_out")),
];

/// The name in `afrac_loctypes` of the residual stream before every attention: the embedding's, and
/// that after each MLP but the last.
pub(super) const RESID_PRE: &str = "resid_pre";

impl SiteKind {
    /// All kinds, in the order of the forward pass.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|&(kind, ..)| kind)
    }

    /// The name within a layer, such as `mlp.post_act`.
    pub(crate) fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The name in `afrac_loctypes`, such as `mlp_neuron`, if AbsTopK can apply there.
    pub(crate) fn topk_name(self) -> Option<&'static str> {
        TABLE[self as usize].2
    }

    /// The site of this kind in a layer.
    pub fn at(self, layer: usize) -> Site {
        Site::Layer(layer, self)
    }

    /// Channels of such a site.
    pub(crate) fn width(self, config: &ModelConfig) -> usize {
        match self {
            Self::AttnIn | Self::MlpIn => config.input_width(),
            Self::AttnQ | Self::AttnK | Self::AttnV | Self::AttnY => config.attention_width(),
            Self::MlpNeuron => config.mlp_width(),
            Self::ResidIn | Self::AttnOut | Self::ResidMid | Self::MlpOut => config.d_model,
        }
    }

    /// Whether its channels belong to heads.
    pub(crate) fn has_heads(self) -> bool {
        matches!(self, Self::AttnQ | Self::AttnK | Self::AttnV | Self::AttnY)
    }
}

impl Site {
    /// The kind of a layer's site.
    pub fn kind(self) -> Option<SiteKind> {
        match self {
            Self::Layer(_, kind) => Some(kind),
            Self::FinalResid => None,
        }
    }

    /// Channels of the site in models of `config`.
    pub fn width(self, config: &ModelConfig) -> usize {
        self.kind().map_or(config.d_model, |kind| kind.width(config))
    }
}

impl fmt::Display for SiteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer, kind) => f.pad(&format!("{layer}.{kind}")),
            Self::FinalResid => f.pad("final_resid"),
        }
    }
}

/// All names, for messages.
pub(super) fn site_names() -> String {
    let kinds: Vec<&str> = SiteKind::all().map(SiteKind::name).collect();
    format!("each layer has {} (as in 0.attn.q), and there is final_resid", kinds.join(", "))
}

fn unknown_site(name: &str) -> Error {
    Error::config(name, format!("no such site; {}", site_names()))
}

impl FromStr for SiteKind {
    type Err = Error;

    /// Returns [`Error::Config`] for an unknown name.
    fn from_str(text: &str) -> Result<Self> {
        Self::all().find(|kind| kind.name() == text).ok_or_else(|| unknown_site(text))
    }
}

impl FromStr for Site {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes. Returns [`Error::Config`] for anything else.
    fn from_str(text: &str) -> Result<Self> {
        if text == "final_resid" {
            return Ok(Self::FinalResid);
        }
        let parse = || {
            let (layer, kind) = text.split_once('.')?;
            Some(kind.parse::<SiteKind>().ok()?.at(layer.parse().ok()?))
        };
        parse().filter(|site| site.to_string() == text).ok_or_else(|| unknown_site(text))
    }
}

serialize_as_text!(Site);

impl ModelConfig {
    /// All sites, in the order of the forward pass.
    pub fn sites(&self) -> Vec<Site> {
        let layers = (0..self.n_layer).flat_map(|layer| SiteKind::all().map(move |kind| kind.at(layer)));
        layers.chain([Site::FinalResid]).collect()
    }

    /// The sites of some kinds in all layers, in the order of the forward pass.
    pub fn sites_of(&self, kinds: &[SiteKind]) -> Vec<Site> {
        self.sites().into_iter().filter(|site| site.kind().is_some_and(|kind| kinds.contains(&kind))).collect()
    }

    /// The sites whose names match a regular expression, in the order of the forward pass.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no regular expression, or one that matches no site.
    pub fn sites_matching(&self, pattern: &str) -> Result<Vec<Site>> {
        let wrong = |message| Error::config("sites", message);
        let regex = Regex::new(pattern).map_err(|e| wrong(format!("`{pattern}` is no regular expression: {e}")))?;
        let all = self.sites();
        let matching: Vec<Site> = all.iter().copied().filter(|site| regex.is_match(&site.to_string())).collect();
        if matching.is_empty() {
            let names: Vec<String> = all.iter().map(Site::to_string).collect();
            return Err(wrong(format!("no site matches `{pattern}`; there are {}", names.join(", "))));
        }
        Ok(matching)
    }

    /// How many sites the residual stream has: before every attention and MLP, and after the last
    /// layer.
    pub fn residual_sites(&self) -> usize {
        2 * self.n_layer + 1
    }

    /// The residual stream's site of that number: `resid_in` and `resid_mid` of each layer, then
    /// `final_resid`.
    pub fn residual_site(&self, number: usize) -> Site {
        match number {
            last if last >= 2 * self.n_layer => Site::FinalResid,
            even if even % 2 == 0 => SiteKind::ResidIn.at(even / 2),
            odd => SiteKind::ResidMid.at(odd / 2),
        }
    }

    /// How many entries of each row AbsTopK keeps at a site, or `None` if it does not apply there.
    /// For `ResidIn` this is the stream after the MLP; see [`ModelConfig::residual_topk`] too.
    pub fn topk(&self, kind: SiteKind) -> Option<usize> {
        self.topk_named(kind.topk_name()?, kind)
    }

    /// As [`ModelConfig::topk`], of the residual stream's site of that number.
    pub fn residual_topk(&self, number: usize) -> Option<usize> {
        if number % 2 == 1 {
            return self.topk(SiteKind::ResidMid);
        }
        let after_mlp = if number > 0 { self.topk(SiteKind::ResidIn) } else { None };
        let before_attention = || self.topk_named(RESID_PRE, SiteKind::ResidIn);
        after_mlp.or_else(|| if number < 2 * self.n_layer { before_attention() } else { None })
    }

    fn topk_named(&self, name: &str, kind: SiteKind) -> Option<usize> {
        let kept = self.published_topk(kind)?.max(self.min_topk);
        self.afrac_loctypes.contains(name).then_some(kept)
    }

    /// How many entries the published AbsTopK would keep at a site, wherever it applies.
    pub(super) fn published_topk(&self, kind: SiteKind) -> Option<usize> {
        Some((self.afrac? * kind.width(self) as f64).floor() as usize)
    }
}
