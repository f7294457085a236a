//! The checks of a circuit file: nodes that the model has, edges between nodes of the circuit,
//! finite numbers.

use std::collections::HashSet;

use super::PrunedEdge;
use super::annotations::Annotations;
use super::file::{Circuit, Counts, EdgeEntry, LossSet, NodeEntry, TokenWeights, VERSION};
use super::nodes::{Node, NodeKind};
use crate::files::versioned::finite;

/// More than any model has; damaged numbers must not allocate memory.
const MAX_LAYERS: usize = 10_000;

/// Returns what is wrong with a circuit, if anything is.
pub(super) fn check(circuit: &Circuit) -> Result<(), String> {
    let needed = Circuit::version_for(&circuit.nodes, &circuit.pruned_edges);
    if !(needed..=VERSION).contains(&circuit.version) {
        let version = circuit.version;
        return Err(format!("circuit of version {version}; this program writes its nodes as version {needed}"));
    }
    if circuit.model.n_layer > MAX_LAYERS {
        return Err(format!("model.n_layer is {}, more than {MAX_LAYERS}", circuit.model.n_layer));
    }
    let mut nodes = HashSet::new();
    for entry in &circuit.nodes {
        check_node(circuit, entry)?;
        if !nodes.insert(entry.node()) {
            return Err(format!("node {} is listed twice", entry.node()));
        }
    }
    for node in &circuit.excluded {
        if !circuit.model.has_layer(node) || node.index >= circuit.model.width(node.kind) {
            return Err(format!("excluded {node}: the model has no such node"));
        }
        if nodes.contains(node) {
            return Err(format!("node {node} is excluded and kept"));
        }
    }
    check_edges(circuit, &nodes)?;
    check_biases(circuit, &nodes)?;
    check_tokens("embeddings", &circuit.embeddings, circuit.model.d_model)?;
    check_tokens("unembeddings", &circuit.unembeddings, circuit.model.d_model)?;
    for (name, set) in [("train", &circuit.losses.train), ("test", &circuit.losses.test)] {
        check_losses(name, set)?;
    }
    finite("calibration.scale", circuit.calibration.scale)?;
    finite("calibration.shift", circuit.calibration.shift)?;
    circuit.annotations.as_ref().map_or(Ok(()), Annotations::check)?;
    check_counts(circuit)
}

fn check_node(circuit: &Circuit, entry: &NodeEntry) -> Result<(), String> {
    let (node, model) = (entry.node(), &circuit.model);
    if !model.has_layer(&node) {
        return Err(format!("node {node}: the model has {} layers", model.n_layer));
    }
    if node.index >= model.width(node.kind) {
        return Err(format!("node {node}: the site has {} channels", model.width(node.kind)));
    }
    let site = node.site().to_string();
    if entry.site != site {
        return Err(format!("node {node}: its `site` is `{}`, not `{site}`", entry.site));
    }
    let head = entry.head.zip(entry.channel);
    if head != model.head(node) || entry.head.is_some() != entry.channel.is_some() {
        let (got, want) = ((entry.head, entry.channel), model.head(node));
        return Err(format!("node {node}: head and channel are {got:?}; by its index they are {want:?}"));
    }
    finite(&format!("node {node}: mean"), entry.mean)?;
    finite(&format!("node {node}: tau"), entry.tau)?;
    finite(&format!("node {node}: ablation_delta"), entry.ablation_delta)?;
    for (name, range) in [("positive", entry.clean), ("negative", entry.counterfactual)] {
        for (part, value) in [("min", range.min), ("mean", range.mean), ("max", range.max)] {
            finite(&format!("node {node}: {name}.{part}"), value)?;
        }
        if range.min > range.max {
            return Err(format!("node {node}: {name}.min {} is above {name}.max {}", range.min, range.max));
        }
    }
    if let Some(difference) = entry.difference {
        finite(&format!("node {node}: difference.last"), difference.last)?;
        finite(&format!("node {node}: difference.largest"), difference.largest)?;
    }
    Ok(())
}

fn check_edges(circuit: &Circuit, nodes: &HashSet<Node>) -> Result<(), String> {
    let mut seen = HashSet::new();
    let numbers = |edge: &EdgeEntry| (edge.from, edge.to, [("weight", edge.weight), ("effect", edge.effect)]);
    let constants = |edge: &PrunedEdge| (edge.from, edge.to, [("weight", edge.weight), ("value", edge.value)]);
    for (from, to, numbers) in circuit.edges.iter().map(numbers).chain(circuit.pruned_edges.iter().map(constants)) {
        let name = format!("edge {from} to {to}");
        for end in [from, to] {
            if !nodes.contains(&end) {
                return Err(format!("{name}: {end} is not among the nodes"));
            }
        }
        if from.layer != to.layer || !has_matrix(from.kind, to.kind) {
            return Err(format!("{name}: no weight joins these"));
        }
        if !seen.insert((from, to)) {
            return Err(format!("{name} is listed twice"));
        }
        for (what, number) in numbers {
            finite(&format!("{name}: {what}"), number)?;
        }
    }
    Ok(())
}

/// Whether a layer has a matrix from one site to the other.
pub(crate) fn has_matrix(from: NodeKind, to: NodeKind) -> bool {
    use NodeKind::{AttnIn, AttnK, AttnOut, AttnQ, AttnV, MlpIn, MlpNeuron, MlpOut};
    matches!((from, to), (AttnIn, AttnQ | AttnK | AttnV) | (AttnV, AttnOut) | (MlpIn, MlpNeuron) | (MlpNeuron, MlpOut))
}

fn check_biases(circuit: &Circuit, nodes: &HashSet<Node>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for bias in &circuit.biases {
        let name = format!("bias of {}", bias.node);
        if !nodes.contains(&bias.node) {
            return Err(format!("{name}: the node is not among the nodes"));
        }
        if bias.node.kind.reads_residual() {
            return Err(format!("{name}: sites act_in and final_resid have none"));
        }
        if !seen.insert(bias.node) {
            return Err(format!("{name} is listed twice"));
        }
        finite(&name, bias.value)?;
    }
    Ok(())
}

fn check_tokens(list: &str, entries: &[TokenWeights], d_model: usize) -> Result<(), String> {
    let mut seen = HashSet::new();
    for entry in entries {
        let channel = entry.channel;
        if channel >= d_model {
            return Err(format!("{list}: channel {channel}; the residual stream has {d_model}"));
        }
        if !seen.insert(channel) {
            return Err(format!("{list}: channel {channel} is listed twice"));
        }
        for token in &entry.tokens {
            finite(&format!("{list}: channel {channel}, token {}: weight", token.id), token.weight)?;
        }
    }
    Ok(())
}

fn check_losses(name: &str, set: &LossSet) -> Result<(), String> {
    let values = [
        ("model", set.model),
        ("circuit", set.circuit),
        ("circuit_uncalibrated", set.circuit_uncalibrated),
        ("ablated", set.ablated),
        ("accuracy_model", set.accuracy_model),
        ("accuracy_circuit", set.accuracy_circuit),
        ("accuracy_ablated", set.accuracy_ablated),
    ];
    let uncalibrated = [
        ("ablated_uncalibrated", set.ablated_uncalibrated),
        ("accuracy_circuit_uncalibrated", set.accuracy_circuit_uncalibrated),
        ("accuracy_ablated_uncalibrated", set.accuracy_ablated_uncalibrated),
    ];
    let known = uncalibrated.into_iter().filter_map(|(part, value)| Some((part, value?)));
    for (part, value) in values.into_iter().chain(known) {
        finite(&format!("losses.{name}.{part}"), value)?;
        if part.starts_with("accuracy") && !(0.0..=1.0).contains(&value) {
            return Err(format!("losses.{name}.{part} is {value}; an accuracy is between 0 and 1"));
        }
    }
    if let Some(calibration) = set.ablated_calibration {
        finite(&format!("losses.{name}.ablated_calibration.scale"), calibration.scale)?;
        finite(&format!("losses.{name}.ablated_calibration.shift"), calibration.shift)?;
    }
    Ok(())
}

fn check_counts(circuit: &Circuit) -> Result<(), String> {
    let want = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
    let got = &circuit.counts;
    for (name, got, want) in [
        ("nodes", got.nodes, want.nodes),
        ("edges", got.edges, want.edges),
        ("edges_with_biases", got.edges_with_biases, want.edges_with_biases),
    ] {
        if got != want {
            return Err(format!("counts.{name} is {got}, but {want} are listed"));
        }
    }
    match got.layers == want.layers {
        true => Ok(()),
        false => Err("counts.layers does not agree with the nodes and edges listed".into()),
    }
}
