//! The connections of a circuit through the residual stream: every later reader of a channel sees
//! what is written into it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::circuits::file::Circuit;
use crate::circuits::nodes::Node;

/// What reads or writes a residual channel, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResidualUser {
    /// The embedding of the token at the same position, which writes.
    Embedding,
    /// An `attn.resid_delta` or `mlp.resid_delta` writes, an `attn.act_in`, `mlp.act_in` or
    /// `final_resid` reads.
    Node(Node),
    /// The logits, which read.
    Unembedding,
}

impl ResidualUser {
    fn writes(self) -> bool {
        match self {
            Self::Node(node) => node.kind.writes_residual(),
            tokens => tokens == Self::Embedding,
        }
    }

    fn reads(self) -> bool {
        match self {
            Self::Node(node) => node.kind.reads_residual(),
            tokens => tokens == Self::Unembedding,
        }
    }
}

impl fmt::Display for ResidualUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("embedding"),
            Self::Node(node) => node.fmt(f),
            Self::Unembedding => f.write_str("unembedding"),
        }
    }
}

impl Serialize for ResidualUser {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A residual channel from one writer to one later reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ResidualPath {
    /// The channel.
    pub channel: usize,
    /// What writes it; in JSON `embedding` or the node.
    pub from: ResidualUser,
    /// What reads it; in JSON the node or `unembedding`.
    pub to: ResidualUser,
}

/// All residual paths of a circuit, by channel, writer and reader. The embedding writes the
/// channels that the circuit lists it for, as the unembedding reads those that it is listed for.
pub fn residual_paths(circuit: &Circuit) -> Vec<ResidualPath> {
    let mut paths = Vec::new();
    for channel in channels(circuit) {
        let users = users(circuit, channel);
        for (position, &from) in users.iter().enumerate().filter(|(_, user)| user.writes()) {
            let readers = users[position + 1..].iter().filter(|user| user.reads());
            paths.extend(readers.map(|&to| ResidualPath { channel, from, to }));
        }
    }
    paths
}

/// The residual channels that a circuit touches, in order.
fn channels(circuit: &Circuit) -> Vec<usize> {
    let tokens = circuit.embeddings.iter().chain(&circuit.unembeddings).map(|entry| entry.channel);
    let nodes = circuit.nodes.iter().filter_map(|entry| circuit.model.residual_channel(entry.node()));
    let mut channels: Vec<_> = tokens.chain(nodes).collect();
    channels.sort_unstable();
    channels.dedup();
    channels
}

/// What of the circuit is at `channel`, in the order of the forward pass.
fn users(circuit: &Circuit, channel: usize) -> Vec<ResidualUser> {
    let nodes = circuit.nodes.iter().map(crate::circuits::file::NodeEntry::node);
    let nodes = nodes.filter(|&node| circuit.model.residual_channel(node) == Some(channel)).map(ResidualUser::Node);
    let embedding = circuit.embeddings.iter().any(|entry| entry.channel == channel).then_some(ResidualUser::Embedding);
    let unembedding =
        circuit.unembeddings.iter().any(|entry| entry.channel == channel).then_some(ResidualUser::Unembedding);
    let mut users: Vec<_> = embedding.into_iter().chain(nodes).chain(unembedding).collect();
    users.sort_unstable();
    users
}

/// A thread along each channel, from its first writer to its last reader: each pair of neighbours
/// on it.
pub(super) fn threads(circuit: &Circuit) -> Vec<(usize, ResidualUser, ResidualUser)> {
    let mut links = Vec::new();
    for channel in channels(circuit) {
        let users = users(circuit, channel);
        let first = users.iter().position(|user| user.writes());
        let last = users.iter().rposition(|user| user.reads());
        if let (Some(first), Some(last)) = (first, last)
            && first < last
        {
            links.extend(users[first..=last].windows(2).map(|pair| (channel, pair[0], pair[1])));
        }
    }
    links
}
