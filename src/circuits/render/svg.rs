//! A circuit drawn: the embedding at the bottom, layers above it, a row for each site, the
//! unembedding at the top.

use super::color::{GROUPS, Importance, NEGATIVE, POSITIVE, RESIDUAL, Widths, grey, hex, separation, shade, sign};
use super::labels::{bundle_text, clipped, count, group_text, part_shown, signed, token, visible, without_edges};
use super::layout::{
    BOX, BoxContent, CircuitLayout, Connector, GROUP_BOX, GROUP_LABEL, GROUP_PAD, HeadFrame, LineKind, NodeBox,
    TOKEN_BOX, TOKEN_LINE, TOKENS,
};
use crate::circuits::file::{Circuit, NodeEntry, TokenWeight, TokenWeights};
use crate::circuits::nodes::NodeKind;
use crate::files::escape_xml;

const LEFT: f64 = 132.0;
const RIGHT: f64 = 36.0;
const HEADER: f64 = 132.0;
const LEGEND: f64 = 122.0;
/// The height of the legend's line of groups.
const GROUPS_LINE: f64 = 26.0;
/// The width of an answer with its label.
const ANSWER: f64 = 350.0;
const NARROWEST: f64 = 860.0;
const INK: &str = "#1f2328";
const QUIET: &str = "#636c76";

/// The circuit as a self-contained picture. Boxes and lines have tooltips.
///
/// Fill: whether a node is higher in clean (blue) or in counterfactual prompts (orange)
/// ([`separation`]). Outline and bar: by how much the task loss changes if it is ablated. Lines: blue
/// where the weight is positive, orange where it is negative, wider where cutting the edge costs more;
/// grey threads are residual channels.
pub fn svg(circuit: &Circuit) -> String {
    let circuit = circuit.clone().normalised();
    let layout = CircuitLayout::new(&circuit);
    let width = (LEFT + layout.width + RIGHT).max(NARROWEST);
    let groups = circuit.annotations.as_ref().is_some_and(|annotations| !annotations.groups.is_empty());
    let height = HEADER + layout.height + LEGEND + if groups { GROUPS_LINE } else { 0.0 };
    let left = ((width - layout.width) / 2.0).max(LEFT);
    let (widths, importance) = (Widths::new(&circuit), Importance::new(&circuit));
    let mut out = vec![
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
             {height:.0}\" font-family=\"Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"11\" \
             fill=\"{INK}\">"
        ),
        format!("<rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"#ffffff\"/>"),
    ];
    header(&circuit, width, &mut out);
    bands(&layout, width, &mut out);
    out.push(format!("<g transform=\"translate({:.1} {:.1})\">", left - layout.left, HEADER - layout.top));
    out.extend(layout.frames.iter().map(|frame| framed(frame, &layout)));
    for edges in [false, true] {
        let lines = layout.lines.iter().filter(|line| matches!(line.kind, LineKind::Edge(_)) == edges);
        out.extend(lines.map(|line| drawn(line, &layout, &circuit, &widths)));
    }
    for node_box in &layout.boxes {
        out.extend(annotated(node_box, &circuit));
        match node_box.content {
            BoxContent::Node(i) => out.push(node(node_box, &circuit.nodes[i], &circuit, &importance)),
            BoxContent::Embedding(i) => out.push(tokens(node_box, &circuit.embeddings[i], "embedding", &circuit)),
            BoxContent::Unembedding(i) => out.push(tokens(node_box, &circuit.unembeddings[i], "unembedding", &circuit)),
            BoxContent::Group(number) => out.push(group(node_box, number, &layout, &circuit)),
            BoxContent::Bend => {}
        }
    }
    out.push("</g>".into());
    legend(&widths, &importance, width, HEADER + layout.height, &mut out);
    group_legend(&circuit, HEADER + layout.height + LEGEND, &mut out);
    out.push("</svg>\n".into());
    out.join("\n")
}

fn header(circuit: &Circuit, width: f64, out: &mut Vec<String>) {
    let (task, counts, test) = (&circuit.task, &circuit.counts, &circuit.losses.test);
    let characters = ((width - 72.0) / 6.8) as usize;
    let line = |y: f64, style: &str, text: &str, characters: usize| {
        format!("<text x=\"36\" y=\"{y}\" {style}>{}</text>", escape_xml(&clipped(&visible(text), characters)))
    };
    out.push(line(44.0, "font-size=\"20\" font-weight=\"600\"", &task.question(), characters / 2));
    let quiet = format!("font-size=\"12\" fill=\"{QUIET}\"");
    out.push(line(65.0, &quiet, &task.description, characters));
    out.extend(
        part_shown(circuit)
            .map(|part| format!("<text x=\"{:.1}\" y=\"44\" text-anchor=\"end\" {quiet}>{part}</text>", width - 36.0)),
    );
    let mut size = format!(
        "{}, {} ({} with biases){} · task loss {:.3}, of the whole model {:.3}",
        count(counts.nodes, "node"),
        count(counts.edges, "edge"),
        counts.edges_with_biases,
        without_edges(circuit),
        test.circuit,
        test.model,
    );
    // Of a circuit that others published, it is not known.
    if !circuit.is_foreign() {
        size.push_str(&format!(", of the complement {:.3}", test.ablated));
    }
    out.push(line(85.0, &quiet, &size, characters));
    let answers =
        [("in clean prompts", &task.target, POSITIVE), ("in counterfactual prompts", &task.alternative, NEGATIVE)];
    for (x, (side, answer, color)) in [36.0, 36.0 + ANSWER].into_iter().zip(answers) {
        out.push(format!(
            "<text x=\"{x}\" y=\"106\" {quiet}>{side}</text><text x=\"{}\" y=\"106\" font-size=\"12\" font-family=\"monospace\" \
             font-weight=\"700\" fill=\"{}\">{}</text>",
            x + 164.0,
            hex(color),
            escape_xml(&clipped(&token(&answer.text), 24))
        ));
    }
}

/// The layers' backgrounds, and what each row is.
fn bands(layout: &CircuitLayout, width: f64, out: &mut Vec<String>) {
    for rows in layout.rows.chunk_by(|a, b| a.key.layer() == b.key.layer()) {
        if let (Some(layer), Some(top), Some(bottom)) = (rows[0].key.layer(), rows.last(), rows.first()) {
            let (y, height) = (HEADER - layout.top + top.top - 15.0, bottom.bottom - top.top + 30.0);
            let wide = width - 48.0;
            out.push(format!(
                "<rect x=\"24\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{height:.1}\" rx=\"10\" fill=\"#f5f7f9\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-weight=\"600\" fill=\"{QUIET}\">layer {layer}</text>",
                width - 34.0,
                y + 16.0
            ));
        }
        for row in rows {
            let y = HEADER - layout.top + f64::midpoint(row.top, row.bottom) + 4.0;
            out.push(format!("<text x=\"36\" y=\"{y:.1}\" fill=\"{QUIET}\">{}</text>", row.key.name()));
        }
    }
}

fn framed(frame: &HeadFrame, layout: &CircuitLayout) -> String {
    let HeadFrame { head, left, right, row } = *frame;
    let row = &layout.rows[row];
    // At the left, where no line leaves a box.
    format!(
        "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"8\" fill=\"#e6eaef\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"9.5\" fill=\"{QUIET}\">h{head}</text>",
        row.top - 2.0,
        right - left,
        row.bottom - row.top + 8.0,
        left + GROUP_PAD,
        row.top + GROUP_LABEL - 5.0,
    )
}

fn drawn(line: &Connector, layout: &CircuitLayout, circuit: &Circuit, widths: &Widths) -> String {
    let path = layout.path(line);
    match line.kind {
        LineKind::Edge(i) => {
            let edge = &circuit.edges[i];
            let title = format!(
                "{} → {}\nweight {}, effect when ablated {}",
                edge.from,
                edge.to,
                signed(edge.weight),
                signed(edge.effect)
            );
            format!(
                "<path class=\"edge\" data-from=\"{}\" data-to=\"{}\" d=\"{path}\" fill=\"none\" stroke=\"{}\" \
                 stroke-width=\"{:.2}\" stroke-opacity=\"0.85\" stroke-linecap=\"round\"><title>{title}</title></path>",
                edge.from,
                edge.to,
                hex(sign(edge.weight)),
                1.0 + 4.5 * widths.of(edge)
            )
        }
        LineKind::Bundle(i) => {
            let bundle = &layout.bundles[i];
            format!(
                "<path class=\"bundle\" d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{:.2}\" \
                 stroke-opacity=\"0.85\" stroke-linecap=\"round\"><title>{}</title></path>",
                hex(sign(bundle.sum.weight)),
                1.0 + 4.5 * widths.of(&bundle.sum),
                bundle_text(bundle)
            )
        }
        LineKind::Channel(channel) => format!(
            "<path class=\"residual\" d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1\">\
             <title>residual channel {channel}</title></path>",
            hex(RESIDUAL)
        ),
    }
}

fn node(node_box: &NodeBox, entry: &NodeEntry, circuit: &Circuit, importance: &Importance) -> String {
    let node = entry.node();
    let bias = circuit.biases.iter().find(|bias| bias.node == node);
    let head = entry.head.zip(entry.channel).map(|(head, channel)| format!(" (head {head}, channel {channel})"));
    let difference = entry.difference.map(|difference| {
        let (last, largest) = (signed(difference.last), signed(difference.largest));
        format!("\nclean − counterfactual {last} at the last token, at most {largest}")
    });
    let mut title = format!(
        "{node}{}\nmean {}\nclean prompts {} ({} to {})\ncounterfactual prompts {} ({} to {}){}\ntask loss if ablated {}",
        head.unwrap_or_default(),
        signed(entry.mean),
        signed(entry.clean.mean),
        signed(entry.clean.min),
        signed(entry.clean.max),
        signed(entry.counterfactual.mean),
        signed(entry.counterfactual.min),
        signed(entry.counterfactual.max),
        difference.unwrap_or_default(),
        signed(entry.ablation_delta)
    );
    let (left, top) = (node_box.x - BOX.0 / 2.0, node_box.top);
    let dot = bias.map(|bias| {
        title.push_str(&format!("\nbias {}", signed(bias.value)));
        let (x, y, color) = (left + BOX.0 - 6.0, top + 6.0, hex(sign(bias.value)));
        format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{color}\"/>")
    });
    let importance = importance.of(entry);
    format!(
        "<g class=\"node\" data-node=\"{node}\"><title>{title}</title>{}{}{}<text x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"middle\" font-weight=\"500\">{}</text></g>",
        outlined((left, top), importance, &hex(shade(separation(entry)))),
        bar((left, top), importance),
        dot.unwrap_or_default(),
        node_box.x,
        top + BOX.1 / 2.0 + 2.5,
        match entry.kind {
            NodeKind::AttnQ => format!("q {}", entry.index),
            NodeKind::AttnK => format!("k {}", entry.index),
            NodeKind::AttnV => format!("v {}", entry.index),
            _ => entry.index.to_string(),
        }
    )
}

/// A collapsed group: its name and how much is in it.
fn group(node_box: &NodeBox, number: usize, layout: &CircuitLayout, circuit: &Circuit) -> String {
    let (left, top, color) = (node_box.x - node_box.width() / 2.0, node_box.top, group_color(number));
    let name = circuit.annotations.as_ref().and_then(|annotations| annotations.group_name(number)).unwrap_or_default();
    let frame = layout.groups.iter().find(|frame| frame.group == number);
    let text = frame.map(|frame| group_text(name, frame)).unwrap_or_default();
    format!(
        "<g class=\"collapsed\"><title>{}</title><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{}\" height=\"{}\" rx=\"6\" \
         fill=\"{color}\" fill-opacity=\"0.14\" stroke=\"{color}\" stroke-width=\"2.5\"/><text x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"middle\" font-weight=\"600\">{}</text></g>",
        escape_xml(&visible(name)),
        GROUP_BOX.0,
        GROUP_BOX.1,
        node_box.x,
        top + GROUP_BOX.1 / 2.0 + 4.0,
        escape_xml(&text)
    )
}

/// The label of a box, above it, and a frame in the color of its group.
fn annotated(node_box: &NodeBox, circuit: &Circuit) -> Vec<String> {
    let Some(annotations) = &circuit.annotations else { return Vec::new() };
    let (item, (wide, high), top) = match node_box.content {
        BoxContent::Node(i) => (circuit.nodes[i].node().to_string(), BOX, node_box.top),
        BoxContent::Embedding(i) => {
            (format!("embedding[{}]", circuit.embeddings[i].channel), (BOX.0 + 14.0, TOKEN_BOX.1), node_box.top)
        }
        BoxContent::Unembedding(i) => (
            format!("unembedding[{}]", circuit.unembeddings[i].channel),
            (BOX.0 + 14.0, TOKEN_BOX.1),
            node_box.bottom - TOKEN_BOX.1,
        ),
        BoxContent::Group(_) | BoxContent::Bend => return Vec::new(),
    };
    let left = node_box.x - wide / 2.0;
    let frame = annotations.group_of(&item).map(|group| {
        format!(
            "<rect class=\"group\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"9\" fill=\"none\" \
             stroke=\"{}\" stroke-width=\"2.5\"/>",
            left - 4.0,
            top - 4.0,
            wide + 8.0,
            high + 8.0,
            group_color(group)
        )
    });
    // Above a node there is room at its right; lines leave it at its middle.
    let label = annotations.labels.get(&item).map(|label| {
        format!(
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" font-weight=\"600\">{}</text>",
            node_box.x + 5.0,
            top - 7.0,
            escape_xml(&clipped(&visible(label), 40))
        )
    });
    frame.into_iter().chain(label).collect()
}

fn group_color(number: usize) -> String {
    hex(GROUPS[number % GROUPS.len()])
}

/// The names of groups, each next to its color.
fn group_legend(circuit: &Circuit, top: f64, out: &mut Vec<String>) {
    let mut x = 36.0;
    for (number, name) in circuit.annotations.iter().flat_map(|annotations| annotations.groups.keys()).enumerate() {
        let name = clipped(&visible(name), 30);
        out.push(format!(
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"14\" height=\"12\" rx=\"3\" fill=\"none\" stroke=\"{}\" \
             stroke-width=\"2.5\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"{QUIET}\">{}</text>",
            top,
            group_color(number),
            x + 22.0,
            top + 10.0,
            escape_xml(&name)
        ));
        x += 44.0 + 6.2 * name.chars().count() as f64;
    }
}

/// A node's box at a position, with the outline of its importance.
fn outlined((left, top): (f64, f64), importance: f64, fill: &str) -> String {
    let (wide, dark) = Importance::outline(importance);
    format!(
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"{fill}\" stroke=\"{}\" \
         stroke-width=\"{wide:.2}\"/>",
        BOX.0,
        BOX.1,
        hex(grey(dark))
    )
}

/// A bar in that box, as long as its importance squared, which is in proportion to the loss.
fn bar((left, top): (f64, f64), importance: f64) -> String {
    let length = (BOX.0 - 8.0) * importance * importance;
    let (x, y) = (left + 4.0, top + BOX.1 - 4.5);
    format!(
        "<rect class=\"importance\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"2.5\" fill=\"{INK}\"/>"
    )
}

/// A residual channel at the embedding or unembedding, with the tokens that matter most for it.
fn tokens(node_box: &NodeBox, entry: &TokenWeights, side: &str, circuit: &Circuit) -> String {
    let answers = [circuit.task.target.id, circuit.task.alternative.id];
    let above = side == "unembedding";
    let mut listed: Vec<&TokenWeight> = entry.tokens.iter().collect();
    if above {
        // The two answers first: they are what the circuit decides about.
        listed.sort_by_key(|t| answers.iter().position(|&id| id == t.id).unwrap_or(answers.len()));
    }
    listed.truncate(TOKENS);
    let below = node_box.top + TOKEN_BOX.1;
    let (y, mut baseline) = match above {
        true => (
            node_box.bottom - TOKEN_BOX.1,
            node_box.bottom - TOKEN_BOX.1 - 5.0 - TOKEN_LINE * (listed.len() as f64 - 1.0),
        ),
        false => (node_box.top, below + 12.0),
    };
    let mut lines = String::new();
    for t in listed {
        let weight = if answers.contains(&t.id) { "700" } else { "400" };
        let style =
            format!("y=\"{baseline:.1}\" font-size=\"10\" font-weight=\"{weight}\" fill=\"{}\"", hex(sign(t.weight)));
        let text = escape_xml(&clipped(&visible(&t.text.replace(' ', "␣")), 8));
        lines.push_str(&format!(
            "<text x=\"{:.1}\" text-anchor=\"end\" font-family=\"monospace\" {style}>{text}</text>\
             <text x=\"{:.1}\" {style}>{:+.2}</text>",
            node_box.x + 2.0,
            node_box.x + 9.0,
            t.weight
        ));
        baseline += TOKEN_LINE;
    }
    let all: Vec<_> = entry.tokens.iter().map(|t| format!("{} {}", token(&t.text), signed(t.weight))).collect();
    let title = escape_xml(&format!("{side}, residual channel {}\n{}", entry.channel, all.join("\n")));
    let wide = BOX.0 + 14.0;
    format!(
        "<g class=\"{side}\"><title>{title}</title><rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{wide}\" height=\"{}\" rx=\"{}\" \
         fill=\"#ffffff\" stroke=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{QUIET}\">{}</text>\
         {lines}</g>",
        node_box.x - wide / 2.0,
        TOKEN_BOX.1,
        TOKEN_BOX.1 / 2.0,
        hex(RESIDUAL),
        node_box.x,
        y + TOKEN_BOX.1 / 2.0 + 4.0,
        entry.channel
    )
}

fn legend(widths: &Widths, importance: &Importance, width: f64, top: f64, out: &mut Vec<String>) {
    let y = top + 44.0;
    let measure = if widths.by_effect { "effect when ablated" } else { "size of the weight" };
    let shades: Vec<_> = (0..5)
        .map(|i| {
            let (x, fill) = (36 + 14 * i, hex(shade(f64::from(i) / 2.0 - 1.0)));
            format!("<rect x=\"{x}\" y=\"{:.1}\" width=\"14\" height=\"12\" fill=\"{fill}\"/>", y - 10.0)
        })
        .collect();
    let stroke = |x: f64, y: f64, color: &str, wide: f64| {
        format!("<path d=\"M{x:.1} {y:.1} h26\" stroke=\"{color}\" stroke-width=\"{wide}\" stroke-linecap=\"round\"/>")
    };
    let text = |x: f64, y: f64, text: &str| format!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{QUIET}\">{text}</text>");
    let (edges, lower) = (424.0, y + 22.0);
    out.push(format!("<path d=\"M24 {:.1} H{:.1}\" stroke=\"#e1e5ea\"/>{}", top + 24.0, width - 24.0, shades.concat()));
    out.push(format!(
        "<rect x=\"36\" y=\"{:.1}\" width=\"70\" height=\"12\" fill=\"none\" stroke=\"#57606a\" stroke-width=\"0.7\"/>",
        y - 10.0
    ));
    out.push(text(114.0, y, "higher in counterfactual … in clean prompts"));
    out.push(format!(
        "<circle cx=\"42\" cy=\"{:.1}\" r=\"2.6\" fill=\"{}\"/><circle cx=\"52\" cy=\"{:.1}\" r=\"2.6\" fill=\"{}\"/>{}",
        lower - 4.0,
        hex(NEGATIVE),
        lower - 4.0,
        hex(POSITIVE),
        text(114.0, lower, "the node has a bias below, above 0")
    ));
    out.push(stroke(edges, y - 4.0, &hex(NEGATIVE), 2.0) + &stroke(edges + 34.0, y - 4.0, &hex(POSITIVE), 5.0));
    out.push(text(edges + 74.0, y, &format!("negative, positive weight; width: {measure}")));
    out.push(stroke(edges, lower - 4.0, &hex(RESIDUAL), 1.0));
    out.push(text(edges + 74.0, lower, "the same residual channel"));
    if importance.largest > 0.0 {
        let boxes = [0.15, 0.6, 1.0].into_iter().zip([36.0, 90.0, 144.0]);
        let boxes = boxes.map(|(importance, x)| {
            outlined((x, lower + 10.0), importance, "#ffffff") + &bar((x, lower + 10.0), importance)
        });
        let most =
            format!("outline and bar: the change of the task loss if ablated, at most {:.3} nats", importance.largest);
        out.push(boxes.collect::<String>() + &text(202.0, lower + 26.0, &most));
    }
}
