//! The nodes that circuits are made of: single channels at eight places of every layer (method: section 4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::ModelConfig;
use crate::{Error, Result};

/// Where in a layer a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// What attention reads, `attn.act_in`.
    AttnIn,
    /// Queries, `attn.q`.
    AttnQ,
    /// Keys, `attn.k`.
    AttnK,
    /// Values, `attn.v`.
    AttnV,
    /// What attention writes, `attn.resid_delta`.
    AttnOut,
    /// What the MLP reads, `mlp.act_in`.
    MlpIn,
    /// The MLP's neurons, `mlp.post_act`.
    MlpNeuron,
    /// What the MLP writes, `mlp.resid_delta`.
    MlpOut,
}

impl NodeKind {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 8] = [
        Self::AttnIn,
        Self::AttnQ,
        Self::AttnK,
        Self::AttnV,
        Self::AttnOut,
        Self::MlpIn,
        Self::MlpNeuron,
        Self::MlpOut,
    ];

    /// The site's name within a layer.
    pub fn site(self) -> &'static str {
        match self {
            Self::AttnIn => "attn.act_in",
            Self::AttnQ => "attn.q",
            Self::AttnK => "attn.k",
            Self::AttnV => "attn.v",
            Self::AttnOut => "attn.resid_delta",
            Self::MlpIn => "mlp.act_in",
            Self::MlpNeuron => "mlp.post_act",
            Self::MlpOut => "mlp.resid_delta",
        }
    }

    /// The published name of its mask.
    pub fn mask(self) -> &'static str {
        match self {
            Self::AttnIn => "attn_in",
            Self::AttnQ => "attn_q",
            Self::AttnK => "attn_k",
            Self::AttnV => "attn_v",
            Self::AttnOut => "attn_out",
            Self::MlpIn => "mlp_in",
            Self::MlpNeuron => "mlp_neuron",
            Self::MlpOut => "mlp_out",
        }
    }

    /// How many channels a layer of `config` has there.
    pub fn width(self, config: &ModelConfig) -> usize {
        match self {
            Self::AttnIn | Self::MlpIn => config.input_width(),
            Self::AttnQ | Self::AttnK | Self::AttnV => config.attention_width(),
            Self::AttnOut | Self::MlpOut => config.d_model,
            Self::MlpNeuron => config.mlp_width(),
        }
    }

    /// Whether its channels belong to heads.
    pub fn has_heads(self) -> bool {
        matches!(self, Self::AttnQ | Self::AttnK | Self::AttnV)
    }
}

/// One channel of one place. Its text form is `3.mlp.post_act[17]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// The layer, from 0.
    pub layer: usize,
    /// The place in the layer.
    pub kind: NodeKind,
    /// The channel, from 0.
    pub index: usize,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}[{}]", self.layer, self.kind.site(), self.index)
    }
}

impl FromStr for Node {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (layer, rest) = text.split_once('.')?;
            let (site, index) = rest.strip_suffix(']')?.split_once('[')?;
            let kind = NodeKind::ALL.into_iter().find(|kind| kind.site() == site)?;
            let node = Self { layer: layer.parse().ok()?, kind, index: index.parse().ok()? };
            (node.to_string() == text).then_some(node)
        };
        parse().ok_or_else(|| Error::Text(format!("`{text}` is no node; one is written like 3.mlp.post_act[17]")))
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// All nodes of one place: consecutive in the [`Layout`]'s numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteBlock {
    /// The layer.
    pub layer: usize,
    /// The place in the layer.
    pub kind: NodeKind,
    /// The site's full name, `3.mlp.post_act`.
    pub site: String,
    /// The number of its first node.
    pub start: usize,
    /// How many nodes it has.
    pub width: usize,
}

impl SiteBlock {
    /// The numbers of its nodes.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.width
    }
}

/// All nodes of a model, numbered in the order of the forward pass.
#[derive(Clone, Debug)]
pub struct Layout {
    blocks: Vec<SiteBlock>,
    len: usize,
}

impl Layout {
    /// The nodes of models of `config`.
    pub fn new(config: &ModelConfig) -> Self {
        let (mut blocks, mut len) = (Vec::new(), 0);
        for layer in 0..config.n_layer {
            for kind in NodeKind::ALL {
                let width = kind.width(config);
                blocks.push(SiteBlock { layer, kind, site: format!("{layer}.{}", kind.site()), start: len, width });
                len += width;
            }
        }
        Self { blocks, len }
    }

    /// The places, in order.
    pub fn blocks(&self) -> &[SiteBlock] {
        &self.blocks
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place that a site's name names, if it holds nodes.
    pub fn block(&self, site: &str) -> Option<&SiteBlock> {
        self.blocks.iter().find(|block| block.site == site)
    }

    /// The node of that number, if there is one.
    pub fn node(&self, number: usize) -> Option<Node> {
        let block = self.blocks.iter().find(|block| block.range().contains(&number))?;
        Some(Node { layer: block.layer, kind: block.kind, index: number - block.start })
    }

    /// The node's number, if the model has it.
    pub fn number(&self, node: Node) -> Option<usize> {
        let block = self.blocks.iter().find(|block| (block.layer, block.kind) == (node.layer, node.kind))?;
        (node.index < block.width).then_some(block.start + node.index)
    }
}
