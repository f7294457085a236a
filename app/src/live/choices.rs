//! What a person chose about prompts, nodes and bridges: all of it can be undone and is saved.

use std::collections::BTreeMap;

use gossamer::bridges::{Channel, ModelName, Ratio, Recipe};
use gossamer::circuits::Node;
use gossamer::model::{Action, Channels, Edit, EditSites, Positions};
use serde::{Deserialize, Serialize};

/// What becomes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// Its mean: it is ablated.
    Mean,
    /// This number.
    Value(f32),
}

/// What is done to a node while a prompt runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// What becomes of it.
    pub becomes: Becomes,
    /// At which token, from 0; at every one if none.
    pub at: Option<usize>,
}

impl Setting {
    /// The intervention that does this to `node`.
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

/// How channels of a sparse model are said to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// To what they are in another prompt.
    #[default]
    Counterfactual,
    /// By hand, at some positions.
    Positions,
}

/// What a person chose in the bridge's tab, as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Steer {
    /// The channel, such as `3.attn.act_in[17]`; the first of the circuit's that will do if none.
    pub channel: Option<String>,
    /// How it changes.
    pub by: By,
    /// The other prompt; the task's negative one if none.
    pub counterfactual: Option<String>,
    /// Positions as in an [`Edit`]; empty: all.
    pub positions: String,
    /// `=`, `+=` or `*=`.
    pub change: String,
    /// What it is set to, or what is added, or what it is multiplied by.
    pub value: f32,
    /// What the change is multiplied by.
    pub strength: f64,
    /// Draws of random channels.
    pub random: usize,
    /// Seeds them.
    pub seed: u64,
    /// Which way the scale of decoders goes.
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
    /// The recipe of this, for a prompt and the sparse model. Channel and counterfactual are there.
    ///
    /// # Errors
    /// What cannot be read, and the form that can.
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

    /// The choices that a recipe was made of, with its prompt; nothing for recipes of several channels, which this window does not make.
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

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choices {
    /// The prompt of both tabs; the task's positive one if none.
    pub prompt: Option<String>,
    /// What is done to nodes.
    pub settings: BTreeMap<Node, Setting>,
    /// What is done through the bridge.
    pub steer: Steer,
}

impl Choices {
    /// The interventions that all settings amount to.
    pub fn edits(&self) -> Vec<Edit> {
        self.settings.iter().map(|(&node, setting)| setting.edit(node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_the_interventions_that_commands_take() {
        let mut choices = Choices::default();
        let mut set = |node: &str, becomes, at| choices.settings.insert(node.parse().unwrap(), Setting { becomes, at });
        set("0.attn.q[3]", Becomes::Mean, None);
        set("1.mlp.post_act[9]", Becomes::Value(-0.5), Some(4));
        let edits: Vec<String> = choices.edits().iter().map(ToString::to_string).collect();
        assert_eq!(edits, ["0.attn.q[3]=mean", "1.mlp.post_act[9]@4=-0.5"]);
        let text = serde_json::to_string(&choices).unwrap();
        assert_eq!(serde_json::from_str::<Choices>(&text).unwrap(), choices);
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
        for (wrong, told) in [
            (Steer { channel: Some("0.attn.q[3]".into()), ..Steer::default() }, "such as 3.attn.act_in[17]"),
            (Steer { positions: "the last".into(), ..by_hand }, "positions are"),
        ] {
            let error = wrong.recipe("x", &sparse).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
