//! A circuit as a Graphviz graph.

use super::color::{Importance, RESIDUAL, Widths, grey, hex, separation, shade, sign};
use super::labels::{part_shown, signed, token};
use super::residual::{ResidualUser, residual_paths};
use crate::circuits::file::{Circuit, NodeEntry};
use crate::circuits::nodes::NodeKind;

/// The circuit as a Graphviz graph, for `dot -Tsvg`: layers from the bottom to the top, a rank for
/// each site. Solid edges are weights, dashed ones residual channels.
pub fn dot(circuit: &Circuit) -> String {
    let circuit = circuit.clone().normalised();
    let mut title = format!("{}: {}", circuit.task.question(), circuit.task.description);
    if let Some(part) = part_shown(&circuit) {
        title.push_str(&format!(" ({part})"));
    }
    let mut lines = vec![
        "digraph circuit {".to_string(),
        "  rankdir=BT;".into(),
        format!("  label={};", quoted(&title)),
        "  labelloc=t; fontname=\"Helvetica\";".into(),
        "  node [shape=box, style=\"rounded,filled\", fillcolor=\"#ffffff\", fontname=\"Helvetica\", fontsize=11];"
            .into(),
        "  edge [arrowsize=0.6];".into(),
    ];
    for (name, entries) in [("embedding", &circuit.embeddings), ("unembedding", &circuit.unembeddings)] {
        for entry in entries {
            let tokens = entry.tokens.iter().take(4).map(|t| format!("{} {}", token(&t.text), signed(t.weight)));
            let label: Vec<_> = [format!("{name} {}", entry.channel)].into_iter().chain(tokens).collect();
            let id = quoted(&format!("{name}[{}]", entry.channel));
            lines.push(format!("  {id} [shape=plaintext, style=\"\", label={}];", quoted(&label.join("\n"))));
        }
    }
    let mut layers: Vec<_> = circuit.nodes.iter().map(|entry| entry.layer).collect();
    layers.dedup();
    let importance = Importance::new(&circuit);
    for layer in layers {
        lines.extend(cluster(&circuit, layer, &importance));
    }
    let widths = Widths::new(&circuit);
    for edge in &circuit.edges {
        lines.push(format!(
            "  {} -> {} [color=\"{}\", penwidth={:.2}, tooltip={}];",
            quoted(&edge.from.to_string()),
            quoted(&edge.to.to_string()),
            hex(sign(edge.weight)),
            0.8 + 4.0 * widths.of(edge),
            quoted(&format!("weight {}, effect {}", signed(edge.weight), signed(edge.effect)))
        ));
    }
    for path in residual_paths(&circuit) {
        let [from, to] = [path.from, path.to].map(|user| match user {
            ResidualUser::Node(node) => node.to_string(),
            tokens => format!("{tokens}[{}]", path.channel),
        });
        let style = format!("style=dashed, arrowhead=none, color=\"{}\"", hex(RESIDUAL));
        let tooltip = quoted(&format!("residual channel {}", path.channel));
        lines.push(format!("  {} -> {} [{style}, tooltip={tooltip}];", quoted(&from), quoted(&to)));
    }
    lines.push("}\n".into());
    lines.join("\n")
}

/// The nodes of a layer, or of the final residual stream.
fn cluster(circuit: &Circuit, layer: Option<usize>, importance: &Importance) -> Vec<String> {
    let (name, label) = match layer {
        Some(layer) => (layer.to_string(), format!("layer {layer}")),
        None => ("final".into(), "final residual stream".into()),
    };
    let mut lines = vec![format!("  subgraph cluster_{name} {{"), format!("    label=\"{label}\"; color=\"#d0d5da\";")];
    let ranks: [&[NodeKind]; 7] = [
        &[NodeKind::AttnIn],
        &[NodeKind::AttnQ, NodeKind::AttnK, NodeKind::AttnV],
        &[NodeKind::AttnOut],
        &[NodeKind::MlpIn],
        &[NodeKind::MlpNeuron],
        &[NodeKind::MlpOut],
        &[NodeKind::FinalResid],
    ];
    for rank in ranks {
        let in_rank = |entry: &&NodeEntry| entry.layer == layer && rank.contains(&entry.kind);
        let nodes: Vec<_> = circuit.nodes.iter().filter(in_rank).map(|entry| drawn(entry, importance)).collect();
        if !nodes.is_empty() {
            lines.push("    { rank=same;".into());
            lines.extend(nodes);
            lines.push("    }".into());
        }
    }
    lines.push("  }".into());
    lines
}

fn drawn(entry: &NodeEntry, importance: &Importance) -> String {
    let mut label = format!("{}\n{}", entry.kind.name(), entry.index);
    if let (Some(head), Some(channel)) = (entry.head, entry.channel) {
        label.push_str(&format!(" (h{head} c{channel})"));
    }
    let tooltip = format!(
        "mean {}, clean {}, counterfactual {}, loss if ablated {}",
        signed(entry.mean),
        signed(entry.clean.mean),
        signed(entry.counterfactual.mean),
        signed(entry.ablation_delta)
    );
    let (wide, dark) = Importance::outline(importance.of(entry));
    format!(
        "      {} [label={}, fillcolor=\"{}\", color=\"{}\", penwidth={wide:.2}, tooltip={}];",
        quoted(&entry.node().to_string()),
        quoted(&label),
        hex(shade(separation(entry))),
        hex(grey(dark)),
        quoted(&tooltip)
    )
}

/// A quoted string for Graphviz, with its escape for line ends.
fn quoted(text: &str) -> String {
    let plain = text.replace('\0', "").replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", plain.replace('\r', "").replace('\n', "\\n"))
}
