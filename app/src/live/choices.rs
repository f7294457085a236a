//! A person's choices about prompts, nodes and bridges, which are undone and saved.

use std::collections::BTreeMap;

use gossamer::bridges::{Channel, ModelName, Ratio, Recipe};
use gossamer::circuits::Node;
use gossamer::circuits::labels::signed;
use gossamer::model::{Action, Channels, Edit, EditSites, Positions};
use serde::{Deserialize, Serialize};

/// The activation that a node is set to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// Its mean: the node is ablated.
    Mean,
    Value(f32),
}

/// An intervention on a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub becomes: Becomes,
    /// The token, from 0; every token if `None`.
    pub at: Option<usize>,
}

impl Setting {
    /// What becomes of the node, in words.
    pub fn text(self) -> String {
        let becomes = match self.becomes {
            Becomes::Mean => "ablated in prompts".into(),
            Becomes::Value(value) => format!("set to {} in prompts", signed(value.into())),
        };
        let at = self.at.map(|at| format!(", at token {at} only")).unwrap_or_default();
        becomes + &at
    }

    pub fn edit(self, node: Node) -> Edit {
        let action = match self.becomes {
            Becomes::Mean => Action::Mean,
            Becomes::Value(value) => Action::Set(value),
        };
        let positions = self.at.map(|at| Positions::At(at as i64)).into_iter().collect();
        let sites = EditSites::One(node.site());
        Edit { sites, channels: vec![Channels::Range(node.index, node.index + 1)], positions, action }
    }
}

/// How a channel changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// To its values in another prompt.
    #[default]
    Counterfactual,
    /// By hand, at some positions.
    Positions,
}

/// The choices of the bridge's tab, as they were written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Steer {
    /// The channel, such as `3.attn.act_in[17]`; the first one that the circuit offers if `None`.
    pub channel: Option<String>,
    pub by: By,
    /// The other prompt; the task's counterfactual one if `None`.
    pub counterfactual: Option<String>,
    /// Positions as in an [`Edit`]; empty: all.
    pub positions: String,
    /// `=`, `+=` or `*=`.
    pub change: String,
    /// The operand of `change`.
    pub value: f32,
    /// The factor of the change.
    pub strength: f64,
    /// The number of draws of random channels.
    pub random: usize,
    pub seed: u64,
    pub ratio: Ratio,
}

impl Default for Steer {
    fn default() -> Self {
        Self {
            channel: None,
            by: By::default(),
            counterfactual: None,
            positions: "-1".into(),
            change: "=".into(),
            value: 1.0,
            strength: 1.0,
            random: 8,
            seed: 0,
            ratio: Ratio::default(),
        }
    }
}

impl Steer {
    /// The recipe for a prompt and the sparse model. Returns an error if the channel or the
    /// positions do not parse.
    pub fn recipe(&self, prompt: &str, sparse: &ModelName) -> Result<Recipe, String> {
        let channel = self.channel.as_deref().unwrap_or_default().trim();
        let channel: Channel = channel.parse().map_err(|e: gossamer::Error| e.to_string())?;
        let mut recipe = Recipe {
            version: Recipe::VERSION,
            sparse: sparse.clone(),
            prompt: prompt.into(),
            counterfactual: None,
            nodes: Vec::new(),
            edits: Vec::new(),
            strength: self.strength,
            random: self.random,
            seed: self.seed,
            ratio: self.ratio,
        };
        match self.by {
            By::Counterfactual => {
                recipe.counterfactual = Some(self.counterfactual.clone().unwrap_or_default());
                recipe.nodes = vec![channel];
            }
            By::Positions => {
                let at = match self.positions.trim() {
                    "" => String::new(),
                    positions => format!("@{positions}"),
                };
                let edit = format!("{channel}{at}{}{}", self.change, self.value);
                recipe.edits = vec![edit.parse().map_err(|e: gossamer::Error| e.to_string())?];
            }
        }
        Ok(recipe)
    }

    /// A recipe's prompt and choices; `None` for recipes of several channels.
    pub fn of(recipe: &Recipe) -> Option<(String, Self)> {
        let mut steer = Self {
            strength: recipe.strength,
            random: recipe.random,
            seed: recipe.seed,
            ratio: recipe.ratio,
            ..Self::default()
        };
        match (&recipe.nodes[..], &recipe.edits[..]) {
            ([channel], []) => {
                steer.channel = Some(channel.to_string());
                steer.counterfactual.clone_from(&recipe.counterfactual);
            }
            ([], [edit]) => {
                let [Channels::Range(first, end)] = edit.channels[..] else { return None };
                steer.by = By::Positions;
                steer.channel = Some((end == first + 1).then(|| format!("{}[{first}]", edit.sites))?);
                steer.positions = edit.positions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                (steer.change, steer.value) = match edit.action {
                    Action::Set(value) => ("=".into(), value),
                    Action::Add(value) => ("+=".into(), value),
                    Action::Scale(value) => ("*=".into(), value),
                    Action::Mean | Action::Patch => return None,
                };
            }
            _ => return None,
        }
        Some((recipe.prompt.clone(), steer))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveChoices {
    /// The prompt of both tabs; the task's clean one if `None`.
    pub prompt: Option<String>,
    pub settings: BTreeMap<Node, Setting>,
    pub steer: Steer,
}

impl LiveChoices {
    pub fn edits(&self) -> Vec<Edit> {
        self.settings.iter().map(|(&node, setting)| setting.edit(node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_the_interventions_that_commands_take() {
        let mut choices = LiveChoices::default();
        let mut set = |node: &str, becomes, at| choices.settings.insert(node.parse().unwrap(), Setting { becomes, at });
        set("0.attn.q[3]", Becomes::Mean, None);
        set("1.mlp.post_act[9]", Becomes::Value(-0.5), Some(4));
        let edits: Vec<String> = choices.edits().iter().map(ToString::to_string).collect();
        assert_eq!(edits, ["0.attn.q[3]=mean", "1.mlp.post_act[9]@4=-0.5"]);
        let text = serde_json::to_string(&choices).unwrap();
        assert_eq!(serde_json::from_str::<LiveChoices>(&text).unwrap(), choices);
    }

    #[test]
    fn recipes_and_choices_lead_to_each_other() {
        let sparse = ModelName { path: "runs/a".into(), hash: "sha256:0".into() };
        let other = Some("x = 2".to_string());
        let channel = Some(" 0.mlp.act_in[3] ".to_string());
        let steer = Steer { channel, counterfactual: other, strength: 0.3, ..Steer::default() };
        let recipe = steer.recipe("x = 1", &sparse).unwrap();
        assert_eq!((recipe.nodes.len(), recipe.counterfactual.as_deref()), (1, Some("x = 2")));
        let by_hand = Steer { by: By::Positions, change: "+=".into(), positions: "-1,2:".into(), ..steer.clone() };
        let edits = by_hand.recipe("x = 1", &sparse).unwrap();
        assert_eq!(edits.edits[0].to_string(), "0.mlp.act_in[3]@-1,2:+=1");
        for recipe in [recipe, edits] {
            let (prompt, steer) = Steer::of(&recipe).unwrap();
            assert_eq!(steer.recipe(&prompt, &sparse).unwrap(), recipe);
        }
        for (wrong, expected) in [
            (Steer { channel: Some("0.attn.q[3]".into()), ..Steer::default() }, "such as 3.attn.act_in[17]"),
            (Steer { positions: "the last".into(), ..by_hand }, "positions are"),
        ] {
            let error = wrong.recipe("x", &sparse).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
