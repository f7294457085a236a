//! The nodes that circuits are made of: single channels of eight sites of every layer, and, in some
//! published circuits, of the final residual stream (method: section 4).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::files::serialize_as_text;
use crate::model::{ModelConfig, Site, SiteKind};
use crate::{Error, Result};

/// What kind of site a node is a channel of.
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
    /// The residual stream after the last layer, `final_resid`. Searches do not gate it; published
    /// circuits may.
    FinalResid,
}

impl NodeKind {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 9] = [
        Self::AttnIn,
        Self::AttnQ,
        Self::AttnK,
        Self::AttnV,
        Self::AttnOut,
        Self::MlpIn,
        Self::MlpNeuron,
        Self::MlpOut,
        Self::FinalResid,
    ];

    /// Those that every layer has, in the order of the forward pass.
    pub const IN_LAYER: [Self; 8] = {
        let [in_layer @ .., _] = Self::ALL;
        in_layer
    };

    /// The kind of a layer's site whose channels the nodes are; nothing for the final residual
    /// stream, which is in no layer.
    pub fn site(self) -> Option<SiteKind> {
        match self {
            Self::AttnIn => Some(SiteKind::AttnIn),
            Self::AttnQ => Some(SiteKind::AttnQ),
            Self::AttnK => Some(SiteKind::AttnK),
            Self::AttnV => Some(SiteKind::AttnV),
            Self::AttnOut => Some(SiteKind::AttnOut),
            Self::MlpIn => Some(SiteKind::MlpIn),
            Self::MlpNeuron => Some(SiteKind::MlpNeuron),
            Self::MlpOut => Some(SiteKind::MlpOut),
            Self::FinalResid => None,
        }
    }

    /// The site's name, within its layer if it is in one.
    pub fn name(self) -> &'static str {
        self.site().map_or("final_resid", SiteKind::name)
    }

    /// The published name of its mask.
    pub fn mask(self) -> &'static str {
        self.site().and_then(SiteKind::topk_name).unwrap_or_default()
    }

    /// The width of the site in models of `config`.
    pub fn width(self, config: &ModelConfig) -> usize {
        self.site().map_or(config.d_model, |site| site.width(config))
    }

    /// Whether its channels belong to heads.
    pub fn has_heads(self) -> bool {
        matches!(self, Self::AttnQ | Self::AttnK | Self::AttnV)
    }

    /// Whether it reads channels of the residual stream.
    pub fn reads_residual(self) -> bool {
        matches!(self, Self::AttnIn | Self::MlpIn | Self::FinalResid)
    }

    /// Whether it writes channels of the residual stream.
    pub fn writes_residual(self) -> bool {
        matches!(self, Self::AttnOut | Self::MlpOut)
    }
}

/// One channel of one site. Its text form is `3.mlp.post_act[17]` or `final_resid[17]`. Nodes are
/// ordered as the forward pass meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The layer, from 0; nothing for the final residual stream.
    pub layer: Option<usize>,
    /// The kind of its site.
    pub kind: NodeKind,
    /// The channel, from 0.
    pub index: usize,
}

impl Node {
    /// A channel of a site, if circuits have nodes there.
    pub fn at(site: Site, index: usize) -> Option<Self> {
        let kind = NodeKind::ALL.into_iter().find(|kind| kind.site() == site.kind())?;
        let layer = if let Site::Layer(layer, _) = site { Some(layer) } else { None };
        Some(Self { layer, kind, index })
    }

    /// The site whose channel it is.
    pub fn site(&self) -> Site {
        match (self.layer, self.kind.site()) {
            (Some(layer), Some(site)) => site.at(layer),
            _ => Site::FinalResid,
        }
    }
}

impl Ord for Node {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.site(), self.index).cmp(&(other.site(), other.index))
    }
}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.site(), self.index)
    }
}

impl FromStr for Node {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (site, index) = text.strip_suffix(']')?.split_once('[')?;
            let node = Self::at(site.parse().ok()?, index.parse().ok()?)?;
            (node.to_string() == text).then_some(node)
        };
        parse().ok_or_else(|| Error::Data(format!("`{text}` is no node; one is written like 3.mlp.post_act[17]")))
    }
}

serialize_as_text!(Node);

/// All nodes of one site: consecutive in the [`Layout`]'s numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteBlock {
    /// The layer; nothing for the final residual stream.
    pub layer: Option<usize>,
    /// The kind of site.
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

/// The nodes of a model that a circuit is chosen from, numbered in the order of the forward pass.
#[derive(Clone, Debug)]
pub struct Layout {
    blocks: Vec<SiteBlock>,
    len: usize,
}

impl Layout {
    /// The nodes of the layers of models of `config`: those that searches choose from.
    pub fn new(config: &ModelConfig) -> Self {
        let mut layout = Self { blocks: Vec::new(), len: 0 };
        for layer in 0..config.n_layer {
            NodeKind::IN_LAYER.into_iter().for_each(|kind| layout.push(Some(layer), kind, config));
        }
        layout
    }

    /// The same, and those of the final residual stream.
    pub fn with_final_resid(config: &ModelConfig) -> Self {
        let mut layout = Self::new(config);
        layout.push(None, NodeKind::FinalResid, config);
        layout
    }

    fn push(&mut self, layer: Option<usize>, kind: NodeKind, config: &ModelConfig) {
        let width = kind.width(config);
        let site = Node { layer, kind, index: 0 }.site();
        self.blocks.push(SiteBlock { layer, kind, site, start: self.len, width });
        self.len += width;
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
        let block = self.block(node.site())?;
        (node.index < block.width).then_some(block.start + node.index)
    }
}
