//! Word lists: what programs talk about.

use std::ops::Deref;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer};

/// A list of words, in the file with spaces between them.
#[derive(Default)]
pub(crate) struct Words(&'static [&'static str]);

impl Deref for Words {
    type Target = [&'static str];

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: &'static str = String::deserialize(deserializer)?.leak();
        Ok(Self(text.split(' ').collect::<Vec<_>>().leak()))
    }
}

/// One subject area. A document keeps to one, so that its names belong together.
#[derive(Deserialize)]
pub(crate) struct Domain {
    things: Words,
    /// Names of classes.
    pub(crate) classes: Words,
    /// Attributes that are integers.
    pub(crate) ints: Words,
    /// Attributes that are fractions.
    pub(crate) floats: Words,
    /// Attributes that are strings.
    pub(crate) strs: Words,
    /// Attributes that are true or false.
    pub(crate) flags: Words,
    /// What is done to the things.
    pub(crate) verbs: Words,
    /// Short strings: labels, keys and values.
    pub(crate) labels: Words,
}

impl Domain {
    /// Things, singular and plural.
    pub(crate) fn things(&self) -> &'static [[&'static str; 2]] {
        self.things.0.as_chunks().0
    }
}

/// The contents of `words.toml`.
#[derive(Default, Deserialize)]
pub(crate) struct Vocabulary {
    /// All subject areas.
    #[serde(rename = "domain")]
    pub(crate) domains: Vec<Domain>,
    pub(crate) ints: Words,
    pub(crate) floats: Words,
    pub(crate) strs: Words,
    pub(crate) bools: Words,
    pub(crate) int_lists: Words,
    pub(crate) str_lists: Words,
    pub(crate) grids: Words,
    pub(crate) sets: Words,
    pub(crate) dicts: Words,
    pub(crate) maps: Words,
    pub(crate) constants: Words,
    pub(crate) int_heads: Words,
    pub(crate) str_heads: Words,
    pub(crate) bool_heads: Words,
    pub(crate) list_heads: Words,
    pub(crate) adjectives: Words,
    pub(crate) plain_verbs: Words,
    pub(crate) file_stems_read: Words,
    pub(crate) file_stems_write: Words,
    pub(crate) file_reads: Words,
    pub(crate) file_writes: Words,
    pub(crate) file_ends: Words,
    pub(crate) copied: Words,
    pub(crate) collections: Words,
    pub(crate) elements: Words,
}

/// All words.
pub(crate) static WORDS: LazyLock<Vocabulary> =
    LazyLock::new(|| toml::from_str(include_str!("words.toml")).unwrap_or_default());
