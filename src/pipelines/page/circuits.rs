//! What a page has of circuits: `page.js` draws them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Page, html};
use crate::Result;
use crate::circuits::Circuit;
use crate::circuits::color::{Importance, Widths, separation};
use crate::circuits::labels::{bundle_text, group_text};
use crate::circuits::layout::{BoxContent, CircuitLayout, EdgeBundle, LineKind};
use crate::circuits::statistics::{Activations, End, NodeStatistics, Snippet};
use crate::formats::Pretrained;
use crate::pipelines::export::ExportRequest;
use crate::pipelines::{CircuitRequest, circuit_statistics};
use crate::text::notation::visible;

/// The largest page, in bytes: snippets are left out of larger ones.
const LARGEST: usize = 2_000_000;
/// Snippets at each end of a quantile, tried in turn until the page is small enough.
const SNIPPETS: [usize; 4] = [6, 3, 1, 0];
/// Tokens of a snippet before and after the one that it was chosen for.
const AROUND: usize = 12;
/// Pairs of prompts that are shown token by token.
const PAIRS: usize = 3;
/// Attention below this share is left out.
const LEAST: f32 = 0.005;

#[derive(Serialize)]
pub(super) struct PageCircuit<'a> {
    name: String,
    circuit: Circuit,
    /// Whether other programs found it, so that most measurements are missing.
    foreign: bool,
    layout: PageLayout,
    /// Whether the widths are by effect; otherwise by weight.
    by_effect: bool,
    /// Of the edges, 0 to 1.
    widths: Vec<f64>,
    /// Of the nodes, -1 to 1.
    separations: Vec<f64>,
    /// Of the nodes, 0 to 1.
    importances: Vec<f64>,
    /// Of the nodes, how wide and how dark their outlines are.
    outlines: Vec<(f64, f64)>,
    /// The change of the task loss from which on nodes and edges are shown at first.
    threshold: f64,
    /// The texts of tokens in snippets and prompts.
    tokens: BTreeMap<u32, String>,
    statistics: BTreeMap<String, PageStatistics>,
    prompts: &'a [PagePrompt],
}

#[derive(Serialize)]
struct PageLayout {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    rows: Vec<PageRow>,
    boxes: Vec<PageBox>,
    lines: Vec<PageLine>,
    frames: Vec<PageFrame>,
}

#[derive(Serialize)]
struct PageRow {
    name: &'static str,
    layer: Option<usize>,
    top: f64,
    bottom: f64,
}

#[derive(Serialize)]
struct PageBox {
    /// `node`, `embedding`, `unembedding` or `group`.
    kind: &'static str,
    /// The position in the circuit's list of these; of groups, in the order of names.
    at: usize,
    /// What the box of a collapsed group says.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    x: f64,
    top: f64,
    bottom: f64,
}

#[derive(Serialize)]
struct PageLine {
    /// The position in the circuit's edges, or nothing for a residual channel or a bundle.
    edge: Option<usize>,
    channel: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<PageBundle>,
    path: String,
}

/// The edges between a collapsed group and another box.
#[derive(Serialize)]
struct PageBundle {
    text: String,
    weight: f64,
    effect: f64,
    /// From 0 to 1.
    width: f64,
    /// Positions in the circuit's edges.
    edges: Vec<usize>,
}

#[derive(Serialize)]
struct PageFrame {
    head: usize,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

#[derive(Serialize)]
struct PageStatistics {
    low: f32,
    high: f32,
    corpus: PageActivations,
    clean: PageActivations,
    counterfactual: PageActivations,
}

#[derive(Serialize)]
struct PageActivations {
    count: u64,
    zeros: u64,
    min: f32,
    max: f32,
    mean: f32,
    std: f32,
    histogram: Vec<u64>,
    /// None for the prompts' sets.
    quantiles: Vec<PageQuantile>,
}

#[derive(Serialize)]
struct PageQuantile {
    quantile: f64,
    top: PageEnd,
    bottom: PageEnd,
}

#[derive(Serialize)]
struct PageEnd {
    value: f32,
    snippets: Vec<PageSnippet>,
}

#[derive(Serialize)]
struct PageSnippet {
    tokens: Vec<u32>,
    activations: Vec<f32>,
    position: usize,
}

/// A prompt, token by token, in the whole model.
#[derive(Serialize)]
struct PagePrompt {
    clean: bool,
    tokens: Vec<u32>,
    activations: BTreeMap<String, Vec<f32>>,
    attention: Vec<PageAttention>,
}

/// The pattern of a head: for each token those it attends to, with their shares.
#[derive(Serialize)]
struct PageAttention {
    layer: usize,
    head: usize,
    rows: Vec<Vec<(usize, f32)>>,
}

/// The page of `page` with these circuits, with as many snippets as it has room for.
pub(super) fn with_circuits(page: &Page, requests: &[ExportRequest]) -> Result<String> {
    let statistics = requests.iter().map(statistics).collect::<Result<Vec<_>>>()?;
    let prompts = requests.iter().map(prompts).collect::<Result<Vec<_>>>()?;
    let mut text = String::new();
    for most in SNIPPETS {
        let circuits: Vec<PageCircuit> = requests
            .iter()
            .zip(&statistics)
            .zip(&prompts)
            .map(|((request, statistics), prompts)| circuit(request, statistics, prompts, most))
            .collect();
        text = html(&Page { circuits: &circuits, ..*page })?;
        if text.len() <= LARGEST {
            return Ok(text);
        }
    }
    if let Some(request) = requests.first() {
        let size = text.len() as f64 / 1e6;
        (request.note)(format!("the page has {size:.1} MB, without snippets of text"));
    }
    Ok(text)
}

/// The model, if the circuit is a part of it: those on one page may be of several.
fn model<'a>(request: &ExportRequest<'a>) -> Option<&'a Pretrained> {
    request.model.filter(|model| request.circuit.circuit.check_part_of(&model.model).is_ok())
}

/// The statistics of a circuit's nodes: those of the file next to it, or measured in the model.
fn statistics(request: &ExportRequest) -> Result<Vec<NodeStatistics>> {
    let file = request.circuit.file.with_extension("statistics.json");
    if request.model.is_some() && model(request).is_none() {
        let name = request.circuit.file.display();
        (request.note)(format!("{name} is of another model: it is shown without text and prompts"));
    }
    match model(request) {
        Some(model)
            if request.measure
                && !file.exists()
                && request.circuit.payload.is_none()
                && can_measure(&request.circuit) =>
        {
            Ok(circuit_statistics(model, &request.circuit, 0, request.observer, request.note)?.nodes)
        }
        _ => request.statistics(),
    }
}

fn can_measure(request: &CircuitRequest) -> bool {
    !request.circuit.nodes.is_empty() && !request.circuit.is_foreign()
}

/// The first pairs of prompts in the model, if there is one.
fn prompts(request: &ExportRequest) -> Result<Vec<PagePrompt>> {
    let Some(model) = model(request) else { return Ok(Vec::new()) };
    let circuit = request.circuit.circuit;
    if circuit.nodes.is_empty() {
        return Ok(Vec::new());
    }
    let [clean, counterfactual] = request.circuit.prompts(model)?;
    let pairs = clean.into_iter().zip(counterfactual).take(PAIRS);
    let ids: Vec<Vec<u32>> = pairs.flat_map(|(clean, counterfactual)| [clean, counterfactual]).collect();
    let activations = request.activations(model, &ids)?;
    let mut heads: Vec<(usize, usize)> = circuit.nodes.iter().filter_map(|entry| entry.layer.zip(entry.head)).collect();
    heads.sort_unstable();
    heads.dedup();
    let attention = attention(model, &ids, &heads)?;
    let prompt = |(at, (tokens, attention)): (usize, (Vec<u32>, Vec<PageAttention>))| PagePrompt {
        clean: at % 2 == 0,
        tokens,
        activations: activations
            .iter()
            .map(|(node, prompts)| {
                (node.to_string(), prompts.get(at).into_iter().flatten().map(|&a| rounded(a)).collect())
            })
            .collect(),
        attention,
    };
    Ok(ids.into_iter().zip(attention).enumerate().map(prompt).collect())
}

/// The patterns of some heads, each a layer and its number, by prompt.
fn attention(model: &Pretrained, ids: &[Vec<u32>], heads: &[(usize, usize)]) -> Result<Vec<Vec<PageAttention>>> {
    let mut patterns: Vec<Vec<PageAttention>> = ids.iter().map(|_| Vec::new()).collect();
    for layer in heads.chunk_by(|a, b| a.0 == b.0) {
        let of_layer = model.model.attention(ids, layer[0].0)?;
        for (pattern, out) in of_layer.iter().zip(&mut patterns) {
            let length = pattern.shape[1];
            for &(layer, head) in layer {
                let all = &pattern.data[head * length * length..(head + 1) * length * length];
                let shares = |row: &[f32]| -> Vec<(usize, f32)> {
                    row.iter().enumerate().filter(|(_, a)| **a >= LEAST).map(|(at, &a)| (at, rounded(a))).collect()
                };
                out.push(PageAttention { layer, head, rows: all.chunks(length.max(1)).map(shares).collect() });
            }
        }
    }
    Ok(patterns)
}

/// What the page has of a circuit, with up to `most` snippets at each end of a quantile.
fn circuit<'a>(
    request: &ExportRequest,
    known: &[NodeStatistics],
    prompts: &'a [PagePrompt],
    most: usize,
) -> PageCircuit<'a> {
    let circuit = request.circuit.circuit.clone().normalised();
    let layout = CircuitLayout::new(&circuit);
    let (widths, importance) = (Widths::new(&circuit), Importance::new(&circuit));
    // Without a tokenizer, a snippet would be numbers.
    let model = model(request);
    let most = if model.is_some() { most } else { 0 };
    let statistics: BTreeMap<String, PageStatistics> =
        known.iter().map(|entry| (entry.node.to_string(), page_statistics(entry, most))).collect();
    let in_snippets = statistics.values().flat_map(|entry| &entry.corpus.quantiles);
    let in_snippets = in_snippets.flat_map(|q| q.top.snippets.iter().chain(&q.bottom.snippets));
    let ids = in_snippets.flat_map(|snippet| &snippet.tokens).chain(prompts.iter().flat_map(|prompt| &prompt.tokens));
    let text = |&id: &u32| Some((id, visible(&model?.token_text(id))));
    let tokens = ids.filter_map(text).collect();
    PageCircuit {
        name: circuit.task.question(),
        foreign: circuit.is_foreign(),
        layout: page_layout(&layout, &circuit, &widths),
        by_effect: widths.by_effect,
        widths: circuit.edges.iter().map(|edge| widths.of(edge)).collect(),
        separations: circuit.nodes.iter().map(separation).collect(),
        importances: circuit.nodes.iter().map(|entry| importance.of(entry)).collect(),
        outlines: circuit.nodes.iter().map(|entry| Importance::outline(importance.of(entry))).collect(),
        threshold: request.threshold.unwrap_or_default(),
        tokens,
        statistics,
        prompts,
        circuit,
    }
}

fn page_layout(layout: &CircuitLayout, circuit: &Circuit, widths: &Widths) -> PageLayout {
    let text = |number| {
        let frame = layout.groups.iter().find(|frame| frame.group == number)?;
        Some(group_text(circuit.annotations.as_ref()?.group_name(number)?, frame))
    };
    let boxes = layout.boxes.iter().filter_map(|node_box| {
        let (kind, at, text) = match node_box.content {
            BoxContent::Node(at) => ("node", at, None),
            BoxContent::Embedding(at) => ("embedding", at, None),
            BoxContent::Unembedding(at) => ("unembedding", at, None),
            BoxContent::Group(at) => ("group", at, text(at)),
            BoxContent::Bend => return None,
        };
        Some(PageBox { kind, at, text, x: node_box.x, top: node_box.top, bottom: node_box.bottom })
    });
    let lines = layout.lines.iter().map(|line| {
        let (edge, channel, bundle) = match line.kind {
            LineKind::Edge(at) => (Some(at), None, None),
            LineKind::Channel(channel) => (None, Some(channel), None),
            LineKind::Bundle(at) => (None, None, Some(page_bundle(&layout.bundles[at], widths))),
        };
        PageLine { edge, channel, bundle, path: layout.path(line) }
    });
    let frames = layout.frames.iter().map(|frame| {
        let row = &layout.rows[frame.row];
        PageFrame { head: frame.head, left: frame.left, right: frame.right, top: row.top, bottom: row.bottom }
    });
    let rows = layout.rows.iter();
    PageLayout {
        left: layout.left,
        top: layout.top,
        width: layout.width,
        height: layout.height,
        rows: rows
            .map(|row| PageRow { name: row.key.name(), layer: row.key.layer(), top: row.top, bottom: row.bottom })
            .collect(),
        boxes: boxes.collect(),
        lines: lines.collect(),
        frames: frames.collect(),
    }
}

fn page_bundle(bundle: &EdgeBundle, widths: &Widths) -> PageBundle {
    PageBundle {
        text: bundle_text(bundle),
        weight: bundle.sum.weight,
        effect: bundle.sum.effect,
        width: widths.of(&bundle.sum),
        edges: bundle.edges.clone(),
    }
}

fn page_statistics(entry: &NodeStatistics, most: usize) -> PageStatistics {
    PageStatistics {
        low: entry.low,
        high: entry.high,
        corpus: activations(&entry.corpus, most),
        clean: activations(&entry.clean, 0),
        counterfactual: activations(&entry.counterfactual, 0),
    }
}

fn activations(set: &Activations, most: usize) -> PageActivations {
    let end = |end: &End| PageEnd {
        value: rounded(end.value),
        snippets: end.snippets.iter().take(most).map(snippet).collect(),
    };
    let quantiles = set.quantiles.iter().take(if most > 0 { usize::MAX } else { 0 });
    PageActivations {
        count: set.count,
        zeros: set.zeros,
        min: rounded(set.min),
        max: rounded(set.max),
        mean: rounded(set.mean as f32),
        std: rounded(set.std as f32),
        histogram: set.histogram.clone(),
        quantiles: quantiles
            .map(|q| PageQuantile { quantile: q.quantile, top: end(&q.top), bottom: end(&q.bottom) })
            .collect(),
    }
}

fn snippet(snippet: &Snippet) -> PageSnippet {
    let first = snippet.position.saturating_sub(AROUND);
    let last = (snippet.position + AROUND + 1).min(snippet.tokens.len());
    PageSnippet {
        tokens: snippet.tokens[first..last].to_vec(),
        activations: snippet.activations[first..last].iter().map(|&a| rounded(a)).collect(),
        position: snippet.position - first,
    }
}

/// Three digits, which is more than a shade shows.
fn rounded(value: f32) -> f32 {
    format!("{value:.2e}").parse().unwrap_or(value)
}
