//! The nodes that circuits are made of: single channels of eight sites of every layer (method:
//! section 4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::files::serialize_as_text;
use crate::model::{ModelConfig, Site, SiteKind};
use crate::{Error, Result};

/// The site of a node within its layer.
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

    /// The kind of site whose channels the nodes are.
    pub fn site(self) -> SiteKind {
        match self {
            Self::AttnIn => SiteKind::AttnIn,
            Self::AttnQ => SiteKind::AttnQ,
            Self::AttnK => SiteKind::AttnK,
            Self::AttnV => SiteKind::AttnV,
            Self::AttnOut => SiteKind::AttnOut,
            Self::MlpIn => SiteKind::MlpIn,
            Self::MlpNeuron => SiteKind::MlpNeuron,
            Self::MlpOut => SiteKind::MlpOut,
        }
    }

    /// The published name of its mask.
    pub fn mask(self) -> &'static str {
        self.site().topk_name().unwrap_or_default()
    }

    /// The width of the site in models of `config`.
    pub fn width(self, config: &ModelConfig) -> usize {
        self.site().width(config)
    }

    /// Whether its channels belong to heads.
    pub fn has_heads(self) -> bool {
        matches!(self, Self::AttnQ | Self::AttnK | Self::AttnV)
    }
}

/// One channel of one site. Its text form is `3.mlp.post_act[17]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// The layer, from 0.
    pub layer: usize,
    /// The site within the layer.
    pub kind: NodeKind,
    /// The channel, from 0.
    pub index: usize,
}

impl Node {
    /// The site whose channel it is.
    pub fn site(&self) -> Site {
        self.kind.site().at(self.layer)
    }
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
            let kind = NodeKind::ALL.into_iter().find(|kind| kind.site().name() == site)?;
            let node = Self { layer: layer.parse().ok()?, kind, index: index.parse().ok()? };
            (node.to_string() == text).then_some(node)
        };
        parse().ok_or_else(|| Error::Data(format!("`{text}` is no node; one is written like 3.mlp.post_act[17]")))
    }
}

serialize_as_text!(Node);

/// All nodes of one site: consecutive in the [`Layout`]'s numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteBlock {
    /// The layer.
    pub layer: usize,
    /// The site within the layer.
    pub kind: NodeKind,
    /// The site.
    pub site: Site,
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
                blocks.push(SiteBlock { layer, kind, site: kind.site().at(layer), start: len, width });
                len += width;
            }
        }
        Self { blocks, len }
    }

    /// The sites' nodes, in order.
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

    /// The nodes of the site of that name, if it has any.
    pub fn block(&self, site: Site) -> Option<&SiteBlock> {
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
