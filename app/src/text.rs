//! Items as text.

use gossamer::circuits::labels::{signed, token, visible};
use gossamer::circuits::{ActivationRange, Circuit, EdgeEntry, NodeEntry, TokenWeights};

use crate::item::Item;

pub fn entry(circuit: &Circuit, item: Item) -> Option<&NodeEntry> {
    let Item::Node(node) = item else { return None };
    circuit.nodes.iter().find(|entry| entry.node() == node)
}

pub fn tokens(circuit: &Circuit, item: Item) -> Option<&TokenWeights> {
    let (list, channel) = match item {
        Item::Embedding(channel) => (&circuit.embeddings, channel),
        Item::Unembedding(channel) => (&circuit.unembeddings, channel),
        Item::Node(_) | Item::Group(_) => return None,
    };
    list.iter().find(|tokens| tokens.channel == channel)
}

pub fn title(circuit: &Circuit, item: Item) -> String {
    match item {
        Item::Node(node) => match circuit.model.head(node) {
            Some((head, channel)) => format!("{node}, head {head}, channel {channel}"),
            None => node.to_string(),
        },
        Item::Embedding(channel) => format!("embedding, residual channel {channel}"),
        Item::Unembedding(channel) => format!("unembedding, residual channel {channel}"),
        Item::Group(number) => {
            let name = circuit.annotations.as_ref().and_then(|annotations| annotations.group_name(number));
            name.map_or_else(|| "group".into(), |name| format!("group {}", visible(name)))
        }
    }
}

/// An item's numbers, one a line.
pub fn summary(circuit: &Circuit, item: Item) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(entry) = entry(circuit, item) {
        lines.push(format!("task loss when ablated {}", signed(entry.ablation_delta)));
        // Unknown of published circuits.
        if !circuit.model.hash.is_empty() {
            lines.push(format!("mean over text {}", signed(entry.mean)));
        }
        for (side, range) in [("clean", entry.clean), ("counterfactual", entry.counterfactual)] {
            if circuit.model.hash.is_empty() && range == ActivationRange::default() {
                continue;
            }
            let (mean, min, max) = (signed(range.mean), signed(range.min), signed(range.max));
            lines.push(format!("in {side} prompts {mean} ({min} to {max})"));
        }
        let bias = circuit.biases.iter().find(|bias| bias.node == entry.node());
        lines.extend(bias.map(|bias| format!("bias {}", signed(bias.value))));
    }
    if let Some(tokens) = tokens(circuit, item) {
        lines.extend(tokens.tokens.iter().take(8).map(|t| format!("{} {}", token(&t.text), signed(t.weight))));
    }
    lines
}

/// An edge's weight and effect; published circuits have only one number.
pub fn numbers(edge: &EdgeEntry) -> String {
    let (weight, effect) = (signed(edge.weight), signed(edge.effect));
    if edge.weight == edge.effect { format!("effect {effect}") } else { format!("weight {weight}, effect {effect}") }
}

/// Whether an item's name, label or tokens contain the searched text.
pub fn matches(circuit: &Circuit, item: Item, label: Option<&str>, search: &str) -> bool {
    let search = search.trim().to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&search);
    !search.is_empty()
        && (has(&title(circuit, item))
            || label.is_some_and(has)
            || tokens(circuit, item).is_some_and(|tokens| tokens.tokens.iter().any(|t| has(&t.text))))
}
