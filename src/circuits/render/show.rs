//! A circuit as text: the task, losses and sizes, then every node and every edge from the embedding
//! to the logits.

use super::labels::{count, part_shown, signed, token, visible, without_edges};
use super::residual::{ResidualPath, ResidualUser, residual_paths};
use crate::circuits::Calibration;
use crate::circuits::LossSet;
use crate::circuits::file::{ActivationRange, Circuit, NodeEntry, TokenWeights};
use crate::circuits::nodes::NodeKind;

/// Lines of text are at most about this long, where what they say can be cut.
const WIDTH: usize = 100;
/// Of a prompt, the last lines.
const PROMPT_LINES: usize = 8;

/// The circuit, edge by edge, about 100 columns wide.
///
/// An edge is written `from --(weight, effect)--> to`, where the effect is how much the task loss
/// rises when the edge alone is cut.
pub fn show(circuit: &Circuit) -> String {
    let circuit = circuit.clone().normalised();
    let paths = residual_paths(&circuit);
    let mut lines = Vec::new();
    header(&circuit, &mut lines);
    performance(&circuit, &mut lines);
    if !circuit.nodes.is_empty() {
        lines.extend([
            String::new(),
            "A node: its mean over pretraining data, its activations as mean (least…most), and the change of the"
                .into(),
            "task loss if it is ablated. An edge: from --(weight, change of the task loss if ablated)--> to.".into(),
            "Residual channels carry what is written into them to all later readers.".into(),
        ]);
    }
    embeddings(&circuit, &paths, &mut lines);
    let mut layers: Vec<_> = circuit.nodes.iter().map(|entry| entry.layer).collect();
    layers.dedup();
    for number in layers {
        layer(&circuit, &paths, number, &mut lines);
    }
    unembeddings(&circuit, &paths, &mut lines);
    lines.push(String::new());
    lines.join("\n")
}

fn header(circuit: &Circuit, lines: &mut Vec<String>) {
    let (task, model, counts) = (&circuit.task, &circuit.model, &circuit.counts);
    lines.push(format!("{}: {}", visible(&task.question()), visible(&task.description)));
    for (side, prompt, answer) in
        [("clean", &task.clean, &task.target), ("counterfactual", &task.counterfactual, &task.alternative)]
    {
        // Files of other programs may lack the answers.
        let known = !answer.text.is_empty();
        let then = if known { format!(", then {} (id {})", token(&answer.text), answer.id) } else { String::new() };
        lines.push(format!("\n  {side}{then}"));
        let all: Vec<_> = prompt.split('\n').collect();
        let hidden = all.len().saturating_sub(PROMPT_LINES);
        if hidden > 0 {
            lines.push(format!("    │ … {}", count(hidden, "line")));
        }
        lines.extend(all[hidden..].iter().map(|line| format!("    │ {}", visible(line))));
    }
    lines.extend([
        String::new(),
        format!("model  {}, {}", visible(&model.path), visible(&model.hash)),
        format!(
            "       {}, d_model {}, {} of {}, d_mlp {}",
            count(model.n_layer, "layer"),
            model.d_model,
            count(model.n_head, "head"),
            model.d_head,
            model.d_mlp
        ),
        format!(
            "size   {}, {} ({} with biases){}",
            count(counts.nodes, "node"),
            count(counts.edges, "edge"),
            counts.edges_with_biases,
            without_edges(circuit)
        ),
    ]);
    lines.extend(part_shown(circuit).map(|part| format!("       {part}")));
}

fn performance(circuit: &Circuit, lines: &mut Vec<String>) {
    if circuit.is_foreign() {
        // Those of other programs have no other losses.
        let LossSet { model, circuit, .. } = circuit.losses.train;
        let known = |loss: f64| if loss == 0.0 { "–".to_string() } else { format!("{loss:.4}") };
        lines.push(format!("\ntask loss  model {}, circuit {}", known(model), known(circuit)));
        return;
    }
    let row = |name: &str, cells: [String; 5]| {
        let [model, circuit, circuit_plain, ablated, ablated_plain] = cells;
        format!("{name:16}{model:>9}{circuit:>10}{circuit_plain:>14}{ablated:>22}{ablated_plain:>14}")
    };
    let heading = ["model", "circuit", "uncalibrated", "ablated (complement)", "uncalibrated"].map(String::from);
    lines.push(format!("\n{}", row("", heading)));
    for (name, set) in [("train pairs", &circuit.losses.train), ("held-out pairs", &circuit.losses.test)] {
        let loss = |loss: Option<f64>| loss.map_or("–".into(), |loss| format!("{loss:.4}"));
        let percent = |share: Option<f64>| share.map_or("–".into(), |share| format!("{:.1} %", 100.0 * share));
        let losses = [
            Some(set.model),
            Some(set.circuit),
            Some(set.circuit_uncalibrated),
            Some(set.ablated),
            set.ablated_uncalibrated,
        ];
        let accuracies = [
            Some(set.accuracy_model),
            Some(set.accuracy_circuit),
            set.accuracy_circuit_uncalibrated,
            Some(set.accuracy_ablated),
            set.accuracy_ablated_uncalibrated,
        ];
        lines.push(name.into());
        lines.push(row("  task loss", losses.map(loss)));
        lines.push(row("  accuracy", accuracies.map(percent)));
    }
    let Calibration { scale, shift } = circuit.calibration;
    let shift = if shift == 0.0 { String::new() } else { format!(", then {shift:+.4} for the target") };
    lines.push(format!("calibration: the circuit's logit differences × {scale:.4}{shift}"));
}

fn embeddings(circuit: &Circuit, paths: &[ResidualPath], lines: &mut Vec<String>) {
    if circuit.embeddings.is_empty() {
        return;
    }
    lines.push("\nembedding".into());
    for entry in &circuit.embeddings {
        lines.extend(wrapped("  ", &weights(entry), &format!(" → channel {}", entry.channel)));
        lines.extend(readers(paths, ResidualUser::Embedding, entry.channel));
    }
}

fn unembeddings(circuit: &Circuit, paths: &[ResidualPath], lines: &mut Vec<String>) {
    if circuit.unembeddings.is_empty() {
        return;
    }
    lines.push("\nunembedding".into());
    let (target, alternative) = (circuit.task.target.id, circuit.task.alternative.id);
    for entry in &circuit.unembeddings {
        lines.extend(wrapped(&format!("  channel {} → ", entry.channel), &weights(entry), ""));
        for (role, id) in [("target", target), ("alternative", alternative)] {
            if let Some(t) = entry.tokens.iter().find(|t| t.id == id) {
                lines.push(format!("      {role} {} {}", token(&t.text), signed(t.weight)));
            }
        }
        lines.extend(writers(circuit, paths, ResidualUser::Unembedding, entry.channel));
    }
}

fn layer(circuit: &Circuit, paths: &[ResidualPath], number: Option<usize>, lines: &mut Vec<String>) {
    lines.push(number.map_or("\nfinal residual stream".into(), |number| format!("\nlayer {number}")));
    for kind in NodeKind::ALL {
        let entries = circuit.nodes.iter().filter(|entry| entry.layer == number && entry.kind == kind);
        for (position, entry) in entries.enumerate() {
            if position == 0 {
                let columns = ["mean", "in clean prompts", "in counterfactual prompts", "loss change if ablated"];
                let [mean, clean, counterfactual, ablated] = columns;
                lines.push(format!("  {:22}{mean:>9}   {clean:26}{counterfactual:26}{ablated}", kind.name()));
            }
            lines.push(format!(
                "    {:20}{:>9}   {:26}{:26}{}",
                name(entry),
                signed(entry.mean),
                range(entry.clean),
                range(entry.counterfactual),
                signed(entry.ablation_delta)
            ));
            lines.extend(connections(circuit, paths, entry));
        }
    }
}

/// What a node reads at no cost, its bias, its edges, and who reads it at no cost.
fn connections(circuit: &Circuit, paths: &[ResidualPath], entry: &NodeEntry) -> Vec<String> {
    let node = entry.node();
    let mut lines = Vec::new();
    match circuit.model.residual_channel(node) {
        Some(channel) => lines.extend(writers(circuit, paths, ResidualUser::Node(node), channel)),
        None if node.kind.reads_residual() => {
            lines.push(format!("      reads position channel {}", node.index - circuit.model.d_model));
        }
        None => {}
    }
    for bias in circuit.biases.iter().filter(|bias| bias.node == node) {
        lines.push(format!("      bias {}", signed(bias.value)));
    }
    for edge in circuit.edges.iter().filter(|edge| edge.from == node) {
        let head = circuit.model.head(edge.to).map(|(head, channel)| format!("  (head {head}, channel {channel})"));
        let (weight, effect) = (signed(edge.weight), signed(edge.effect));
        lines.push(format!("      {node} --({weight}, {effect})--> {}{}", edge.to, head.unwrap_or_default()));
    }
    if let Some(channel) = circuit.model.residual_channel(node) {
        lines.extend(readers(paths, ResidualUser::Node(node), channel));
    }
    lines
}

/// Who reads what `from` writes into a channel.
fn readers(paths: &[ResidualPath], from: ResidualUser, channel: usize) -> Vec<String> {
    let paths = paths.iter().filter(|path| (path.channel, path.from) == (channel, from));
    let readers: Vec<_> = paths.map(|path| path.to.to_string()).collect();
    if readers.is_empty() { Vec::new() } else { wrapped(&format!("      channel {channel} is read by "), &readers, "") }
}

/// Who writes what `to` reads from a channel.
fn writers(circuit: &Circuit, paths: &[ResidualPath], to: ResidualUser, channel: usize) -> Vec<String> {
    let writers = paths.iter().filter(|path| (path.channel, path.to) == (channel, to)).map(|path| match path.from {
        ResidualUser::Embedding => {
            let entry = circuit.embeddings.iter().find(|entry| entry.channel == channel);
            let first = entry.and_then(|entry| entry.tokens.first());
            first.map_or("embedding".into(), |t| format!("embedding {} {} …", token(&t.text), signed(t.weight)))
        }
        other => other.to_string(),
    });
    let writers: Vec<_> = writers.collect();
    let reads = format!("      reads channel {channel}, written by ");
    match (to, writers.is_empty()) {
        (_, false) => wrapped(&reads, &writers, ""),
        // A node that only writes reads nothing.
        (ResidualUser::Node(node), true) if node.kind.reads_residual() => {
            vec![format!("      reads channel {channel}, which nothing else in the circuit writes")]
        }
        _ => Vec::new(),
    }
}

fn weights(entry: &TokenWeights) -> Vec<String> {
    entry.tokens.iter().map(|t| format!("{} {}", token(&t.text), signed(t.weight))).collect()
}

fn name(entry: &NodeEntry) -> String {
    match (entry.head, entry.channel) {
        (Some(head), Some(channel)) => format!("[{}] h{head} c{channel}", entry.index),
        _ => format!("[{}]", entry.index),
    }
}

fn range(range: ActivationRange) -> String {
    format!("{} ({}…{})", signed(range.mean), signed(range.min), signed(range.max))
}

/// The items with commas between, on as many lines as they need; those after the first are indented
/// by as much as `start`.
fn wrapped(start: &str, items: &[String], end: &str) -> Vec<String> {
    let indent = " ".repeat(start.chars().count());
    let mut lines = vec![start.to_string()];
    for (i, item) in items.iter().enumerate() {
        let item = if i + 1 < items.len() { format!("{item}, ") } else { format!("{item}{end}") };
        let last = lines.last().map_or(0, |line| line.chars().count());
        if i > 0 && last + item.chars().count() > WIDTH {
            lines.push(indent.clone());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(&item);
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_string()).collect()
}
