//! The connections of a circuit that cost nothing: what is written into a residual channel is there for every later reader of it.

use serde::{Serialize, Serializer};

use crate::circuits::file::Circuit;
use crate::circuits::nodes::{Node, NodeKind};

/// What writes a residual channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    /// The embedding of the token at the same position.
    Embedding,
    /// An `attn.resid_delta` or `mlp.resid_delta`.
    Node(Node),
}

/// What reads a residual channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// An `attn.act_in` or `mlp.act_in`.
    Node(Node),
    /// The logits.
    Unembedding,
}

/// A residual channel from one writer to one later reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ResidualPath {
    /// The channel.
    pub channel: usize,
    /// What writes it; in JSON `embedding` or the node.
    pub from: Writer,
    /// What reads it; in JSON the node or `unembedding`.
    pub to: Reader,
}

impl Serialize for Writer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Embedding => serializer.serialize_str("embedding"),
            Self::Node(node) => node.serialize(serializer),
        }
    }
}

impl Serialize for Reader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Node(node) => node.serialize(serializer),
            Self::Unembedding => serializer.serialize_str("unembedding"),
        }
    }
}

/// All residual paths of a circuit, by channel, writer and reader. The embedding writes the channels that the circuit lists it for, as the
/// unembedding reads those that it is listed for.
pub fn residual_paths(circuit: &Circuit) -> Vec<ResidualPath> {
    let mut paths = Vec::new();
    for channel in channels(circuit) {
        let users = users(circuit, channel);
        for (position, user) in users.iter().enumerate() {
            let Some(from) = user.writer() else { continue };
            let readers = users[position + 1..].iter().filter_map(|user| user.reader());
            paths.extend(readers.map(|to| ResidualPath { channel, from, to }));
        }
    }
    paths
}

/// Something at a residual channel, in the order of the forward pass.
#[derive(Hash, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum User {
    Embedding,
    Node(Node),
    Unembedding,
}

impl User {
    pub(super) fn writer(self) -> Option<Writer> {
        match self {
            Self::Embedding => Some(Writer::Embedding),
            Self::Node(node) => matches!(node.kind, NodeKind::AttnOut | NodeKind::MlpOut).then_some(Writer::Node(node)),
            Self::Unembedding => None,
        }
    }

    pub(super) fn reader(self) -> Option<Reader> {
        match self {
            Self::Embedding => None,
            Self::Node(node) => matches!(node.kind, NodeKind::AttnIn | NodeKind::MlpIn).then_some(Reader::Node(node)),
            Self::Unembedding => Some(Reader::Unembedding),
        }
    }
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
fn users(circuit: &Circuit, channel: usize) -> Vec<User> {
    let nodes = circuit.nodes.iter().map(crate::circuits::file::NodeEntry::node);
    let nodes = nodes.filter(|&node| circuit.model.residual_channel(node) == Some(channel)).map(User::Node);
    let embedding = circuit.embeddings.iter().any(|entry| entry.channel == channel).then_some(User::Embedding);
    let unembedding = circuit.unembeddings.iter().any(|entry| entry.channel == channel).then_some(User::Unembedding);
    let mut users: Vec<_> = embedding.into_iter().chain(nodes).chain(unembedding).collect();
    users.sort_unstable();
    users
}

/// A thread along each channel, from its first writer to its last reader: each pair of neighbours on it.
pub(super) fn threads(circuit: &Circuit) -> Vec<(usize, User, User)> {
    let mut links = Vec::new();
    for channel in channels(circuit) {
        let users = users(circuit, channel);
        let first = users.iter().position(|user| user.writer().is_some());
        let last = users.iter().rposition(|user| user.reader().is_some());
        if let (Some(first), Some(last)) = (first, last)
            && first < last
        {
            links.extend(users[first..=last].windows(2).map(|pair| (channel, pair[0], pair[1])));
        }
    }
    links
}
