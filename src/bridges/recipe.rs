//! How a dense model is steered after one prompt: as a file, and as a command.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ModelName;
use super::steer::{Change, Channel, Ratio, Steering};
use crate::files::versioned::{Versioned, load_and_save};
use crate::model::{Edit, expect_model};
use crate::settings::{Takes, within};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Draws of random channels at most.
pub const MAX_DRAWS: u64 = 10_000;

/// Strengths are at most this, either way.
pub const MAX_STRENGTH: f64 = 1e6;

/// Strengths of a change, in the order in which they are tried. The default is 0 to 1 in tenths.
#[derive(Clone, Debug, PartialEq)]
pub struct Strengths(pub Vec<f64>);

impl Default for Strengths {
    fn default() -> Self {
        Self((0..=10).map(|tenth| f64::from(tenth) / 10.0).collect())
    }
}

impl FromStr for Strengths {
    type Err = String;

    /// Reads `START:END:STEP`, or numbers with commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is neither START:END:STEP nor a list of numbers, each from -{MAX_STRENGTH} to {MAX_STRENGTH}"
            )
        };
        let numbers = |separator: char| -> Result<Vec<f64>, String> {
            let number = |part: &str| part.trim().parse().ok().filter(|v: &f64| v.abs() <= MAX_STRENGTH);
            text.split(separator).map(number).collect::<Option<_>>().ok_or_else(wrong)
        };
        if !text.contains(':') {
            return Ok(Self(numbers(',')?));
        }
        let &[start, end, step] = &numbers(':')?[..] else { return Err(wrong()) };
        // A tenth of a tenth is not exact; the end is meant to be among the strengths.
        let count = ((end - start) / step + 1e-9).floor();
        if !(0.0..10_000.0).contains(&count) {
            return Err(format!("`{text}` is no range of up to 10,000 strengths"));
        }
        // Multiples of a decimal step, rounded to what was meant.
        let at = |i: u32| ((start + f64::from(i) * step) * 1e9).round() / 1e9;
        Ok(Self((0..=count as u32).map(at).collect()))
    }
}

/// What is done to a dense model through bridges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The version of its file.
    pub version: u32,
    /// The sparse model that has the bridges next to it.
    pub sparse: ModelName,
    /// The text whose next token the dense model is asked for.
    pub prompt: String,
    /// The text that gives the channels their other values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterfactual: Option<String>,
    /// Channels of the sparse model that become what they are in the counterfactual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Channel>,
    /// Edits of the sparse model's channels, in place of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// What the change is multiplied by.
    pub strength: f64,
    /// Draws of random channels to compare with.
    pub random: usize,
    /// Seeds the draws.
    pub seed: u64,
    /// Which way the scale of decoders goes.
    pub ratio: Ratio,
}

/// What a dense model says of the token after a prompt: probabilities by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Unedited.
    pub plain: Vec<f64>,
    /// Steered.
    pub steered: Vec<f64>,
    /// The same amounts through random channels, the mean over the draws; nothing without draws.
    pub random: Option<Vec<f64>>,
}

impl Recipe {
    /// The version of the file that is written, and the only one that is read.
    pub const VERSION: u32 = 1;

    /// What it changes at full strength.
    ///
    /// # Errors
    /// [`Error::OtherModel`] if it is for another sparse model, [`Error::Request`] if there is
    /// nothing to steer by; otherwise those of [`Steering::edited`] and [`Steering::read`].
    pub fn change(&self, steering: &Steering, tokenizer: &Tokenizer) -> Result<Change> {
        // One that was not read from a file may say nothing.
        if !self.sparse.hash.is_empty() {
            let what = format!("the recipe for {}", self.sparse.path);
            expect_model(what, "sparse model", &self.sparse.hash, steering.sparse_hash()?)?;
        }
        let tokens = tokenizer.encode(&self.prompt)?;
        if tokens.is_empty() {
            return Err(Error::Request("the prompt is empty".into()));
        }
        let other = self.counterfactual.as_ref().map(|text| tokenizer.encode(text)).transpose()?;
        match (&self.edits[..], &other) {
            ([_, ..], _) => steering.edited(&tokens, &self.edits, other.as_deref()),
            ([], Some(other)) if !self.nodes.is_empty() => {
                let (here, there) = (steering.read(&tokens)?, steering.read(other)?);
                let mut change = Change::default();
                self.nodes.iter().for_each(|&channel| change.merge(here.towards(&there, channel)));
                Ok(change)
            }
            _ => Err(Error::Request(
                "say what to steer by: nodes (--node) with a --counterfactual, or edits (--set)".into(),
            )),
        }
    }

    /// What the dense model says without `change`, with it, and with the same amounts through
    /// random channels, at the recipe's strength. `tokens` are the prompt's, `change` is
    /// [`Recipe::change`]'s.
    ///
    /// # Errors
    /// Those of [`Steering::probabilities`].
    pub fn compare(&self, steering: &Steering, tokens: &[u32], change: &Change) -> Result<Comparison> {
        let channels: Vec<Channel> = change.amounts().map(|(channel, _)| channel).collect();
        let change = change.scaled(self.strength);
        let draws = steering.controls(&channels, self.random, self.seed);
        let random = draws.iter().map(|draw| draw.apply(&change));
        let changes: Vec<Change> = [Change::default(), change.clone()].into_iter().chain(random).collect();
        let mut all = steering.probabilities(tokens, &changes)?.into_iter();
        let (plain, steered) = (all.next().unwrap_or_default(), all.next().unwrap_or_default());
        let random = all.reduce(|mut sum, p| {
            sum.iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
            sum
        });
        let mean = |sum: Vec<f64>| sum.into_iter().map(|sum| sum / self.random as f64).collect();
        Ok(Comparison { plain, steered, random: random.map(mean) })
    }

    /// The command that does the same, for a POSIX shell: its first column is the unedited model.
    pub fn command(&self) -> String {
        let mut line = format!("gossamer steer {}", quoted(&self.sparse.path));
        // What begins with a dash would be read as an option.
        let between = |value: &str| if value.starts_with('-') { '=' } else { ' ' };
        let mut option = |name: &str, value: &str| line += &format!(" --{name}{}{}", between(value), quoted(value));
        option("prompt", &self.prompt);
        if let Some(text) = &self.counterfactual {
            option("counterfactual", text);
        }
        self.nodes.iter().for_each(|node| option("node", &node.to_string()));
        self.edits.iter().for_each(|edit| option("set", &edit.to_string()));
        let strength = if self.strength == 0.0 { "0".into() } else { format!("0,{}", self.strength) };
        option("strength", &strength);
        option("random", &self.random.to_string());
        option("seed", &self.seed.to_string());
        if self.ratio != Ratio::default() {
            option("ratio", "dense-over-sparse");
        }
        line
    }
}

load_and_save!(Recipe);

impl Versioned for Recipe {
    const WHAT: &'static str = "recipe for steering";
    const VERSION: u32 = Self::VERSION;

    fn check(&self) -> Result<(), String> {
        if self.nodes.is_empty() == self.edits.is_empty() {
            return Err("it has either nodes or edits to steer by".into());
        }
        if self.edits.is_empty() && self.counterfactual.is_none() {
            return Err("its nodes have no counterfactual to become like".into());
        }
        if self.random as u64 > MAX_DRAWS {
            return Err(format!("`random` is {}; {}", self.random, Takes::Count(0, MAX_DRAWS)));
        }
        match within(-MAX_STRENGTH, MAX_STRENGTH) {
            takes if takes.has(self.strength) => Ok(()),
            takes => Err(format!("`strength` is {}, not {takes}", self.strength)),
        }
    }
}

/// Text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/,:=@+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
