//! What can be selected in a drawing.

use std::fmt;
use std::str::FromStr;

use gossamer::circuits::Node;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An item of the drawing. Its text form is `0.attn.q[3]`, `embedding[5]`, `unembedding[7]` or
/// `group[0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// A residual channel at the embedding.
    Embedding(usize),
    Node(Node),
    /// A residual channel at the unembedding.
    Unembedding(usize),
    /// All members of a group: its number, in the order of names.
    Group(usize),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding(channel) => write!(f, "embedding[{channel}]"),
            Self::Node(node) => node.fmt(f),
            Self::Unembedding(channel) => write!(f, "unembedding[{channel}]"),
            Self::Group(number) => write!(f, "group[{number}]"),
        }
    }
}

impl FromStr for Item {
    type Err = gossamer::Error;

    fn from_str(text: &str) -> gossamer::Result<Self> {
        let channel = |name: &str| text.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
        match (channel("embedding"), channel("unembedding"), channel("group")) {
            (Some(channel), ..) => Ok(Self::Embedding(channel)),
            (_, Some(channel), _) => Ok(Self::Unembedding(channel)),
            (.., Some(number)) => Ok(Self::Group(number)),
            (None, None, None) => text.parse().map(Self::Node),
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Item;

    #[test]
    fn text_forms_read_back() {
        for text in ["embedding[5]", "unembedding[7]", "group[0]", "0.attn.q[3]", "1.mlp.post_act[511]"] {
            assert_eq!(text.parse::<Item>().unwrap().to_string(), text);
        }
        for text in ["", "embedding[]", "embedding[-1]", "0.attn.q", "bedding[1]"] {
            assert!(text.parse::<Item>().is_err(), "{text}");
        }
    }
}
