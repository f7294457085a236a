//! A person's choices about a circuit.

use std::collections::{BTreeMap, BTreeSet};

use gossamer::circuits::{Annotations, Node, NodeKind};
use serde::{Deserialize, Serialize};

use crate::item::Item;
use crate::live::choices::{Becomes, LiveChoices, Setting};

/// The attention or the MLP of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sublayer {
    pub layer: usize,
    /// The MLP; otherwise the attention.
    pub mlp: bool,
}

impl Sublayer {
    /// Where a node is; nothing for the final residual stream.
    pub fn of(node: Node) -> Option<Self> {
        let mlp = matches!(node.kind, NodeKind::MlpIn | NodeKind::MlpNeuron | NodeKind::MlpOut);
        node.layer.map(|layer| Self { layer, mlp })
    }

    pub fn name(self) -> String {
        format!("layer {} {}", self.layer, if self.mlp { "MLP" } else { "attention" })
    }
}

/// How far a selection's connections are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trace {
    /// Only to its neighbors.
    #[default]
    #[serde(alias = "Neighbours")]
    Neighbors,
    Upstream,
    Downstream,
    Both,
}

impl Trace {
    pub const ALL: [(Self, &str); 4] = [
        (Self::Neighbors, "neighbors"),
        (Self::Upstream, "upstream"),
        (Self::Downstream, "downstream"),
        (Self::Both, "both ways"),
    ];
}

/// The choices that can be undone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Edits {
    pub hidden: BTreeSet<Item>,
    /// Items that thresholds do not hide; an edge between two of them, neither.
    pub pinned: BTreeSet<Item>,
    pub labels: BTreeMap<Item, String>,
    pub groups: BTreeMap<String, BTreeSet<Item>>,
    /// The names of groups that are drawn as one box.
    pub collapsed: BTreeSet<String>,
    /// How far groups were moved, by name: to the right and down, in units of the layout.
    pub offsets: BTreeMap<String, [f64; 2]>,
    pub live: LiveChoices,
}

impl Edits {
    /// Labels an item; an empty label removes it.
    pub fn label(&mut self, item: Item, label: &str) {
        match label.trim() {
            "" => drop(self.labels.remove(&item)),
            label => drop(self.labels.insert(item, label.into())),
        }
    }

    /// Moves an item into the group of that name; an empty name is no group. Empty groups are
    /// dropped.
    pub fn group(&mut self, item: Item, name: &str) {
        self.groups.values_mut().for_each(|items| items.retain(|&other| other != item));
        if !name.trim().is_empty() {
            self.groups.entry(name.trim().into()).or_default().insert(item);
        }
        self.groups.retain(|_, items| !items.is_empty());
        self.collapsed.retain(|name| self.groups.contains_key(name));
        self.offsets.retain(|name, _| self.groups.contains_key(name));
    }

    /// The name of the group of a number.
    pub fn group_name(&self, number: usize) -> Option<&str> {
        self.groups.keys().nth(number).map(String::as_str)
    }

    /// The group that an item is, or that it is in.
    pub fn group_at(&self, item: Item) -> Option<usize> {
        match item {
            Item::Group(number) => (number < self.groups.len()).then_some(number),
            item => self.group_of(item).map(|(number, _)| number),
        }
    }

    pub fn is_collapsed(&self, number: usize) -> bool {
        self.group_name(number).is_some_and(|name| self.collapsed.contains(name))
    }

    /// Draws a group as one box, or its members again.
    pub fn collapse(&mut self, number: usize) {
        let Some(name) = self.group_name(number).map(String::from) else { return };
        if !self.collapsed.remove(&name) {
            self.collapsed.insert(name);
        }
    }

    /// Moves a group, in units of the layout.
    pub fn move_group(&mut self, number: usize, by: [f64; 2]) {
        /// The farthest from a group's own place.
        const FARTHEST: f64 = 1e5;
        let Some(name) = self.group_name(number).map(String::from) else { return };
        let offset = self.offsets.entry(name).or_default();
        offset.iter_mut().zip(by).for_each(|(at, by)| *at = (*at + by).clamp(-FARTHEST, FARTHEST));
    }

    /// Moves a group back to its own place.
    pub fn put_back(&mut self, number: usize) {
        if let Some(name) = self.group_name(number).map(String::from) {
            self.offsets.remove(&name);
        }
    }

    /// Sets a node to its mean in prompts; lets one that is set be unchanged again.
    pub fn ablate(&mut self, item: Item) {
        let Item::Node(node) = item else { return };
        if self.live.settings.remove(&node).is_none() {
            self.live.settings.insert(node, Setting { becomes: Becomes::Mean, at: None });
        }
    }

    /// Removes a group; its members stay.
    pub fn dissolve(&mut self, number: usize) {
        if let Some(name) = self.group_name(number).map(String::from) {
            self.groups.remove(&name);
            self.collapsed.remove(&name);
            self.offsets.remove(&name);
        }
    }

    /// Hides all members of a group; shows them if all are hidden.
    pub fn hide_group(&mut self, number: usize) {
        let Some(members) = self.groups.values().nth(number) else { return };
        if members.is_subset(&self.hidden) {
            self.hidden.retain(|item| !members.contains(item));
        } else {
            self.hidden.extend(members);
        }
    }

    /// Whether all members of a group are in a set.
    pub fn has_all(&self, number: usize, items: &BTreeSet<Item>) -> bool {
        self.groups.values().nth(number).is_some_and(|members| members.is_subset(items))
    }

    /// Labels and groups, as whoever else opens the circuit gets them.
    pub fn annotations(&self) -> Annotations {
        let mut annotations = Annotations::default();
        annotations.labels = self.labels.iter().map(|(item, label)| (item.to_string(), label.clone())).collect();
        let names = |items: &BTreeSet<Item>| items.iter().map(ToString::to_string).collect();
        annotations.groups = self.groups.iter().map(|(name, items)| (name.clone(), names(items))).collect();
        (annotations.collapsed, annotations.offsets) = (self.collapsed.clone(), self.offsets.clone());
        annotations
    }

    /// Takes others' labels and groups, if there are none yet. Items that cannot be are left out.
    pub fn fill(&mut self, annotations: Option<Annotations>) {
        let Some(annotations) = annotations.filter(|_| self.labels.is_empty() && self.groups.is_empty()) else {
            return;
        };
        let item = |name: &String| name.parse().ok().filter(|item| !matches!(item, Item::Group(_)));
        for (name, label) in &annotations.labels {
            if let Some(item) = item(name) {
                self.label(item, label);
            }
        }
        for (name, items) in &annotations.groups {
            items.iter().filter_map(item).for_each(|item| self.group(item, name));
        }
        let known = |name: &String| self.groups.contains_key(name);
        let (collapsed, offsets) = (annotations.collapsed.into_iter(), annotations.offsets.into_iter());
        (self.collapsed, self.offsets) =
            (collapsed.filter(known).collect(), offsets.filter(|(name, _)| known(name)).collect());
    }

    /// The number and name of the group that an item is in.
    pub fn group_of(&self, item: Item) -> Option<(usize, &str)> {
        let mut groups = self.groups.iter().enumerate();
        groups.find_map(|(number, (name, items))| items.contains(&item).then_some((number, name.as_str())))
    }
}

/// The choices about one circuit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// The sublayer that is shown; everything if `None`.
    pub sublayer: Option<Sublayer>,
    /// Edges with less than this share of the largest effect are hidden: 0 to 1.
    pub threshold: f64,
    /// Nodes whose ablation changes the task loss by less than this share of the largest change are
    /// hidden: 0 to 1.
    pub node_threshold: f64,
    pub selected: Option<Item>,
    pub trace: Trace,
    pub timeline: bool,
    pub edits: Edits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_in_one_group_and_empty_groups_go() {
        let (a, b) = (Item::Embedding(1), Item::Unembedding(2));
        let mut edits = Edits::default();
        edits.group(a, "quotes");
        edits.group(b, " quotes ");
        edits.group(a, "strings");
        assert_eq!((edits.group_of(a), edits.group_of(b)), (Some((1, "strings")), Some((0, "quotes"))));
        edits.group(b, "");
        assert_eq!((edits.groups.len(), edits.group_of(a)), (1, Some((0, "strings"))));
        edits.label(a, " the quote ");
        edits.label(b, "  ");
        assert_eq!(edits.labels.values().collect::<Vec<_>>(), ["the quote"]);
    }

    #[test]
    fn choices_are_saved_with_names_for_items() {
        let mut view = View { threshold: 0.25, selected: Some(Item::Embedding(3)), ..View::default() };
        view.edits.pinned.insert("0.attn.q[3]".parse().unwrap());
        view.edits.label("1.mlp.post_act[9]".parse().unwrap(), "closes strings");
        let text = serde_json::to_string(&view).unwrap();
        assert!(text.contains(r#""1.mlp.post_act[9]":"closes strings""#), "{text}");
        assert_eq!(serde_json::from_str::<View>(&text).unwrap(), view);
        // What an older version did not save yet has its default.
        assert_eq!(serde_json::from_str::<View>("{}").unwrap(), View::default());
    }
}
