//! Circuit files: written and read, damaged, shown, drawn, and held to their schema.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use gossamer::Error;
use gossamer::circuits::color::separation;
use gossamer::circuits::{
    ActivationRange, Annotations, Circuit, Counts, EdgeEntry, Node, NodeEntry, NodeKind, PairDifference, PrunedEdge,
    ResidualUser, TokenWeight, TokenWeights, dot, edges_csv, json, nodes_csv, residual_paths, show, svg,
};
use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("../../docs/circuit-example.json");
const SCHEMA: &str = include_str!("../../schema/circuit.schema.json");

pub fn example() -> Circuit {
    serde_json::from_str(EXAMPLE).expect("the example is a circuit")
}

/// The example without its first edge.
fn with_pruned_edge() -> Circuit {
    let mut circuit = example();
    let EdgeEntry { from, to, weight, .. } = circuit.edges.remove(0);
    circuit.pruned_edges.push(PrunedEdge { from, to, weight, value: -0.25 });
    circuit.version = Circuit::version_for(&circuit.nodes, &circuit.pruned_edges);
    counted(circuit)
}

/// What `load` says about a file of these contents.
fn load(contents: &[u8]) -> gossamer::Result<Circuit> {
    let folder = tempfile::tempdir().unwrap();
    load_at(&folder.path().join("quotes.json"), contents)
}

fn load_at(path: &Path, contents: &[u8]) -> gossamer::Result<Circuit> {
    fs::write(path, contents).unwrap();
    let loaded = Circuit::load(path);
    if let Err(error) = &loaded {
        assert!(matches!(error, Error::File { path: named, .. } if named == path), "{error}");
    }
    loaded
}

/// A circuit of many nodes; `seed` decides which.
fn large(nodes: usize, seed: u64) -> Circuit {
    let mut circuit = example();
    circuit.model.n_layer = 4;
    let mut state = seed;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut chosen = BTreeSet::new();
    while chosen.len() < nodes {
        let kind = NodeKind::ALL[draw(9)];
        let index = draw(circuit.model.width(kind));
        let layer = draw(4);
        chosen.insert(Node { layer: (kind != NodeKind::FinalResid).then_some(layer), kind, index });
    }
    let entry = |&node: &Node| NodeEntry {
        clean: ActivationRange { min: -1.0, mean: 0.1, max: 2.0 },
        ..NodeEntry::new(node, &circuit.model)
    };
    circuit.nodes = chosen.iter().map(entry).collect();
    circuit.version = Circuit::version_for(&circuit.nodes, &circuit.pruned_edges);
    let joined = |from: &Node, to: &Node| {
        let to_reads = match to.kind {
            NodeKind::AttnQ | NodeKind::AttnK | NodeKind::AttnV => NodeKind::AttnIn,
            NodeKind::AttnOut => NodeKind::AttnV,
            NodeKind::MlpNeuron => NodeKind::MlpIn,
            NodeKind::MlpOut => NodeKind::MlpNeuron,
            NodeKind::AttnIn | NodeKind::MlpIn | NodeKind::FinalResid => return false,
        };
        from.layer == to.layer && from.kind == to_reads && (from.index + to.index).is_multiple_of(5)
    };
    let pairs = chosen.iter().flat_map(|from| chosen.iter().map(move |to| (*from, *to)));
    let edges = pairs.filter(|(from, to)| joined(from, to));
    circuit.edges = edges.map(|(from, to)| EdgeEntry { from, to, weight: -0.5, effect: 0.0 }).collect();
    circuit.biases.clear();
    counted(circuit)
}

fn counted(mut circuit: Circuit) -> Circuit {
    circuit.counts = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
    circuit
}

fn empty() -> Circuit {
    let mut circuit = example();
    circuit.nodes.clear();
    circuit.edges.clear();
    circuit.biases.clear();
    circuit.embeddings.clear();
    circuit.unembeddings.clear();
    counted(circuit)
}

#[test]
fn a_circuit_written_and_read_is_the_same_and_so_are_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let mut circuit = example();
    circuit.save(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), EXAMPLE, "the example is as `save` writes it");
    // Numbers of all sizes, whose shortest decimals are long.
    let mut bits = 0x3fd5_5555_5555_5555_u64;
    for edge in &mut circuit.edges {
        bits = bits.rotate_left(7) ^ 0x0123_4567_89ab_cdef;
        edge.weight = f64::from_bits(bits & 0xbfff_ffff_ffff_ffff);
        edge.effect = f64::from(edge.weight as f32);
    }
    circuit.calibration.shift = -0.0;
    circuit.task.clean = "\u{0}<&>\"'\u{1f980}\n".into();
    for circuit in [circuit, empty(), large(300, 1)] {
        circuit.save(&path).unwrap();
        let first = fs::read(&path).unwrap();
        let loaded = Circuit::load(&path).unwrap();
        assert_eq!(loaded, circuit);
        loaded.save(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
    }
}

#[test]
fn tables_have_a_line_for_each_node_and_edge() {
    let circuit = example();
    let rows = |text: &str| {
        let rows = text.lines().map(|line| line.split(',').map(String::from).collect()).collect::<Vec<Vec<String>>>();
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
        rows
    };
    let nodes = rows(&nodes_csv(&circuit));
    assert_eq!(nodes.len(), circuit.nodes.len() + 1);
    for (row, entry) in nodes[1..].iter().zip(&circuit.nodes) {
        let field = |name: &str| &row[nodes[0].iter().position(|column| column == name).unwrap()];
        assert_eq!(field("node"), &entry.node().to_string());
        assert_eq!(field("tau").parse::<f64>().unwrap(), entry.tau);
        assert_eq!(field("counterfactual_max").parse::<f64>().unwrap(), entry.counterfactual.max);
        assert_eq!(field("head"), &entry.head.map(|head| head.to_string()).unwrap_or_default());
        let bias = circuit.biases.iter().find(|bias| bias.node == entry.node()).map(|bias| bias.value.to_string());
        assert_eq!(field("bias"), &bias.unwrap_or_default());
    }
    let edges = rows(&edges_csv(&circuit));
    assert_eq!(edges[0], ["source", "target", "weight", "effect"]);
    for (row, edge) in edges[1..].iter().zip(&circuit.edges) {
        assert_eq!((&row[0], &row[1]), (&edge.from.to_string(), &edge.to.to_string()));
        assert_eq!((row[2].parse(), row[3].parse()), (Ok(edge.weight), Ok(edge.effect)));
    }
    assert_eq!(edges.len(), circuit.edges.len() + 1);
    // In no layer.
    assert!(nodes_csv(&large(300, 1)).contains(",final_resid,,final_resid,"));
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quotes.json");
    for end in 0..EXAMPLE.trim_end().len() {
        assert!(load_at(&path, &EXAMPLE.as_bytes()[..end]).is_err(), "cut after {end} bytes");
    }
    load(EXAMPLE.trim_end().as_bytes()).expect("whole but for the last line's end");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let damages = [
        ("/version", json!(4), "version 4; this program reads version 1 to 3"),
        ("/version", json!(null), "no `version`"),
        ("/version", json!("1"), "not a circuit file"),
        ("/nodes/0/index", json!(36), "node 0.mlp.act_in[36]: the site has 36 channels"),
        ("/nodes/0/layer", json!(2), "the model has 2 layers"),
        ("/nodes/0/kind", json!("attn_mix"), "attn_mix"),
        ("/nodes/0/site", json!("0.mlp.post_act"), "`0.mlp.post_act`, not `0.mlp.act_in`"),
        ("/nodes/9/head", json!(2), "head and channel"),
        ("/nodes/0/channel", json!(5), "head and channel"),
        ("/nodes/0/mean", json!(null), "not a circuit file"),
        ("/nodes/0/positive/min", json!(9.0), "positive.min 9 is above"),
        ("/edges/0/from", json!("0.mlp.act_in[6]"), "0.mlp.act_in[6] is not among the nodes"),
        ("/edges/0/to", json!("1.attn.v[6]"), "no weight joins these"),
        ("/edges/0/to", json!("0.mlp.hidden[6]"), "`0.mlp.hidden[6]` is no node"),
        ("/edges/1/from", json!("0.mlp.act_in[5]"), "is listed twice"),
        ("/biases/0/node", json!("0.mlp.act_in[17]"), "have none"),
        ("/biases/0/node", json!("0.mlp.post_act[1]"), "not among the nodes"),
        ("/embeddings/0/channel", json!(32), "channel 32; the residual stream has 32"),
        ("/losses/test/accuracy_model", json!(1.5), "between 0 and 1"),
        ("/counts/edges", json!(8), "counts.edges is 8, but 9 are listed"),
        ("/counts/layers/0/edges", json!(8), "counts.layers"),
        ("/model/n_layer", json!(1_000_000_000), "model.n_layer"),
        ("/model/d_head", json!(0), "the site has 0 channels"),
    ];
    for (place, value, complaint) in damages {
        let mut damaged: Value = serde_json::from_str(EXAMPLE).unwrap();
        *damaged.pointer_mut(place).expect(place) = value;
        let said = load(damaged.to_string().as_bytes()).expect_err(place).to_string();
        assert!(said.contains(complaint), "{place}: {said}");
    }
    let mut last = large(300, 1);
    assert_eq!(last.version, 2);
    last.version = 1;
    assert!(Circuit::from_json(last.to_json().as_bytes()).unwrap_err().contains("its nodes as version 2"));
    let infinite = EXAMPLE.replacen("\"tau\": ", "\"tau\": 1e999, \"was\": ", 1);
    assert!(load(infinite.as_bytes()).unwrap_err().to_string().contains("out of range"));
    for bytes in [&b""[..], b"[]", b"\x93NUMPY", b"{\"version\": 1}", b"{\"version\": 1}{}"] {
        assert!(load(bytes).unwrap_err().to_string().contains("not a circuit file"), "{bytes:?}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let places: [fn(&mut Circuit) -> &mut f64; 6] = [
            |c| &mut c.nodes[3].mean,
            |c| &mut c.nodes[3].counterfactual.max,
            |c| &mut c.edges[2].weight,
            |c| &mut c.biases[0].value,
            |c| &mut c.unembeddings[0].tokens[1].weight,
            |c| &mut c.losses.train.ablated,
        ];
        for (i, place) in places.into_iter().enumerate() {
            let mut circuit = example();
            *place(&mut circuit) = value;
            let said = circuit.save(&path).expect_err("not finite").to_string();
            assert!(said.contains("a.json") && said.contains(&value.to_string()), "place {i}: {said}");
            assert!(!path.exists());
        }
    }
}

#[test]
fn fields_of_later_programs_are_passed_over() {
    let later = EXAMPLE.replacen("\"layer\": 0", "\"layer\": 0, \"kurtosis\": 3.5", 1);
    assert_eq!(load(later.as_bytes()).unwrap(), example());
}

#[test]
fn nodes_are_read_as_they_are_written_and_no_other_way() {
    for kind in NodeKind::ALL {
        let node = Node { layer: (kind != NodeKind::FinalResid).then_some(12), kind, index: 340 };
        assert_eq!(node.to_string().parse::<Node>().unwrap(), node);
    }
    for text in [
        "",
        "3",
        "3.attn",
        "3.attn.q",
        "3.attn.q[]",
        "3.attn.q[1",
        "03.attn.q[1]",
        "3.resid_in[1]",
        "3.final_resid[1]",
        "final_resid",
        "3.attn.q[+1]",
        "3.attn.q[1]]",
        " 3.attn.q[1]",
    ] {
        assert!(text.parse::<Node>().unwrap_err().to_string().contains("is no node"), "{text:?}");
    }
}

#[test]
fn residual_paths_join_every_writer_to_every_later_reader_of_its_channel() {
    for seed in 0..5 {
        let mut circuit = large(200, seed);
        circuit.embeddings = (0..32).step_by(3).map(|channel| TokenWeights { channel, tokens: vec![] }).collect();
        circuit.unembeddings = (0..32).step_by(4).map(|channel| TokenWeights { channel, tokens: vec![] }).collect();
        // The definition, word for word: half a layer is attention or MLP, reading comes before
        // writing.
        let mut want = BTreeSet::new();
        let time = |n: &Node| (n.layer.unwrap_or(usize::MAX), matches!(n.kind, NodeKind::MlpIn | NodeKind::MlpOut));
        for channel in 0..32 {
            let nodes = circuit.nodes.iter().map(NodeEntry::node).filter(|n| n.index == channel);
            let (mut from, mut to) = (vec![], vec![]);
            for node in nodes {
                match node.kind {
                    NodeKind::AttnIn | NodeKind::MlpIn | NodeKind::FinalResid => to.push(node),
                    NodeKind::AttnOut | NodeKind::MlpOut => from.push(node),
                    _ => {}
                }
            }
            for w in &from {
                let later = to.iter().filter(|r| time(r) > time(w));
                want.extend(later.map(|r| (channel, ResidualUser::Node(*w), ResidualUser::Node(*r))));
            }
            if channel % 3 == 0 {
                want.extend(to.iter().map(|r| (channel, ResidualUser::Embedding, ResidualUser::Node(*r))));
            }
            if channel % 4 == 0 {
                want.extend(from.iter().map(|w| (channel, ResidualUser::Node(*w), ResidualUser::Unembedding)));
            }
            if channel % 12 == 0 {
                want.insert((channel, ResidualUser::Embedding, ResidualUser::Unembedding));
            }
        }
        let got = residual_paths(&circuit);
        assert!(got.len() > 20);
        assert_eq!(got.len(), want.len());
        assert_eq!(got.into_iter().map(|p| (p.channel, p.from, p.to)).collect::<BTreeSet<_>>(), want);
    }
}

#[test]
fn shown_text_has_every_node_edge_bias_and_token() {
    let circuit = example();
    let text = show(&circuit);
    for edge in &circuit.edges {
        let line = format!("{} --({:+.3}, {:+.3})--> {}", edge.from, edge.weight, edge.effect, edge.to);
        assert_eq!(text.matches(&line).count(), 1, "{line}\n{text}");
    }
    for entry in &circuit.nodes {
        assert!(text.contains(&format!("    [{}]", entry.index)), "{}", entry.node());
    }
    for part in [
        "13 nodes, 9 edges (11 with biases)",
        "then `')` (id 71)",
        "    │     print(\"hello\n",
        "bias +0.900",
        "reads position channel 2",
        "reads channel 21, written by 0.mlp.resid_delta[21]",
        "channel 28 is read by unembedding",
        "target `')` -1.600",
        "(head 1, channel 2)",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(show(&empty()).contains("0 nodes, 0 edges"));
    assert!(show(&large(300, 3)).lines().all(|line| line.chars().count() <= 130));
}

/// The elements of well-formed XML: name, attributes and text directly within. Panics where it is
/// not.
pub fn elements(xml: &str) -> Vec<(String, BTreeMap<String, String>, String)> {
    let entity = regex::Regex::new("&(?:amp|lt|gt|quot|#39);").unwrap();
    let plain = |text: &str| {
        let rest = entity.replace_all(text, "");
        assert!(!rest.contains(['<', '&']), "unescaped: {text:?}");
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        text.replace("&#39;", "'").replace("&amp;", "&")
    };
    assert!(
        !xml.contains(|c: char| c.is_control() && c != '\n' || c == '\u{ffff}'),
        "a character that XML cannot hold"
    );
    let tag = regex::Regex::new(r#"^<(/?)([a-z]+)((?: [a-zA-Z:-]+="[^"<]*")*)\s*(/?)>"#).unwrap();
    let attribute = regex::Regex::new(r#" ([a-zA-Z:-]+)="([^"<]*)""#).unwrap();
    let (mut found, mut open, mut rest) = (Vec::new(), Vec::<usize>::new(), xml);
    while !rest.is_empty() {
        if let Some(parts) = tag.captures(rest) {
            if &parts[1] == "/" {
                let opened: usize = open.pop().expect("something to close");
                let (name, ..): &(String, _, _) = &found[opened];
                assert_eq!(name, &parts[2]);
            } else {
                let mut attributes = BTreeMap::new();
                for a in attribute.captures_iter(&parts[3]) {
                    assert!(attributes.insert(a[1].to_string(), plain(&a[2])).is_none(), "{} twice", &a[1]);
                }
                found.push((parts[2].to_string(), attributes, String::new()));
                if parts[4].is_empty() {
                    open.push(found.len() - 1);
                }
            }
            rest = &rest[parts[0].len()..];
        } else {
            let end = rest.find('<').unwrap_or(rest.len());
            assert!(end > 0, "no tag: {}", rest.lines().next().unwrap_or(""));
            let text = plain(&rest[..end]);
            match open.last() {
                Some(&i) => found[i].2.push_str(&text),
                None => assert!(text.trim().is_empty(), "text outside: {text:?}"),
            }
            rest = &rest[end..];
        }
    }
    assert!(open.is_empty());
    found
}

#[test]
fn drawings_are_well_formed_with_each_node_and_edge_once() {
    let mut hostile = example();
    hostile.task.description = "</title>]]> <script>&\"'\u{1b}\u{ffff}\n".into();
    hostile.task.name = "a<b&\"c\"".repeat(40);
    hostile.embeddings[0].tokens[0] = TokenWeight { id: 3, text: "<&\"\u{0}".into(), weight: -1.0 };
    for circuit in [example(), hostile, empty(), large(40, 7), large(300, 8)] {
        let drawn = svg(&circuit);
        let elements = elements(&drawn);
        let with = |key: &str| elements.iter().filter_map(|(_, a, _)| a.get(key).cloned()).collect::<Vec<_>>();
        let nodes = with("data-node");
        let want: Vec<_> = circuit.nodes.iter().map(|entry| entry.node().to_string()).collect();
        assert_eq!((nodes.len(), BTreeSet::from_iter(nodes)), (want.len(), BTreeSet::from_iter(want)));
        let edges: Vec<_> = with("data-from").into_iter().zip(with("data-to")).collect();
        let want: Vec<_> = circuit.edges.iter().map(|e| (e.from.to_string(), e.to.to_string())).collect();
        assert_eq!((edges.len(), BTreeSet::from_iter(edges)), (want.len(), BTreeSet::from_iter(want)));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "a place that is no number");
        assert_no_overlaps(&elements, circuit.nodes.len());
    }
}

/// A circuit of a chain `act_in → post_act → resid_delta` and one more neuron, whose ablations change
/// the loss by `deltas` and `effects`.
pub fn weighed(deltas: [f64; 4], effects: [f64; 3]) -> Circuit {
    let mut circuit = example();
    let name = |text: &str| text.parse::<Node>().unwrap();
    let [read, neuron, other, write] =
        ["0.mlp.act_in[3]", "0.mlp.post_act[1]", "0.mlp.post_act[2]", "0.mlp.resid_delta[4]"].map(name);
    let entry = |(node, ablation_delta)| NodeEntry { ablation_delta, ..NodeEntry::new(node, &circuit.model) };
    circuit.nodes = [read, neuron, other, write].into_iter().zip(deltas).map(entry).collect();
    let edge = |((from, to), effect)| EdgeEntry { from, to, weight: 1.0, effect };
    circuit.edges = [(read, neuron), (read, other), (neuron, write)].into_iter().zip(effects).map(edge).collect();
    circuit.biases.clear();
    let tokens = |channel| TokenWeights { channel, tokens: circuit.embeddings[0].tokens.clone() };
    (circuit.embeddings, circuit.unembeddings) = (vec![tokens(3)], vec![tokens(4)]);
    counted(circuit)
}

#[test]
fn a_threshold_leaves_out_what_changes_the_loss_by_less() {
    let circuit = weighed([0.5, 0.2, -0.04, 0.05], [0.3, 0.03, 0.01]);
    let part = circuit.above_threshold(0.05).unwrap();
    let names = |circuit: &Circuit| circuit.nodes.iter().map(|entry| entry.node().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&part), ["0.mlp.act_in[3]", "0.mlp.post_act[1]", "0.mlp.resid_delta[4]"]);
    assert_eq!(part.edges.iter().map(|edge| edge.effect).collect::<Vec<_>>(), [0.3]);
    assert_eq!((part.embeddings.len(), part.unembeddings.len()), (1, 1));
    assert!(svg(&part).contains("shown: 3 nodes, 1 edge") && show(&part).contains("shown: 3 nodes, 1 edge"));
    assert!(!svg(&circuit).contains("shown:"));
    // Without the node that writes channel 4, nothing is left to read from there.
    assert!(circuit.above_threshold(0.1).unwrap().unembeddings.is_empty());
    assert_eq!(circuit.above_threshold(0.0).unwrap(), circuit);
}

#[test]
fn labels_and_groups_are_drawn_and_exported() {
    let mut circuit = weighed([0.5; 4], [0.1; 3]);
    let annotations: Annotations = serde_json::from_value(json!({
        "version": 1,
        "labels": {"0.mlp.post_act[1]": "quote <neuron>", "embedding[3]": "quotes", "7.attn.q[1]": "not drawn"},
        "groups": {"reads": ["0.mlp.act_in[3]", "embedding[3]"], "writes": ["0.mlp.resid_delta[4]"]},
    }))
    .unwrap();
    circuit.annotations = Some(annotations.clone());
    let drawn = svg(&circuit);
    let elements = elements(&drawn);
    let class = |name: &str| elements.iter().filter(|(_, a, _)| a.get("class").is_some_and(|c| c == name)).count();
    assert_eq!((class("label"), class("group")), (2, 3));
    assert!(drawn.contains("quote &lt;neuron&gt;") && drawn.contains(">writes</text>") && !drawn.contains("not drawn"));
    assert_eq!(Circuit::from_json(json(&circuit).as_bytes()).unwrap().annotations, Some(annotations));
}

#[test]
fn annotations_are_read_next_to_the_circuit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quotes.json");
    assert_eq!(example().with_annotations_of(&path).unwrap(), example(), "its own stay");
    let mut annotations = Annotations::default();
    annotations.labels.insert("0.mlp.act_in[5]".into(), "opening".into());
    annotations.save(&Annotations::path(&path)).unwrap();
    assert_eq!(example().with_annotations_of(&path).unwrap().annotations, Some(annotations));
    let far = "{\"version\": 1, \"offsets\": {\"a\": [2e6, 0]}}";
    for wrong in ["{", "{\"version\": 7}", "{\"version\": 1, \"labels\": 3}", far] {
        fs::write(Annotations::path(&path), wrong).unwrap();
        let error = example().with_annotations_of(&path).unwrap_err().to_string();
        assert!(error.contains("quotes.annotations.json"), "{error}");
    }
}

#[test]
fn a_threshold_needs_measured_effects_and_something_above_it() {
    let refused = |circuit: Circuit, least: f64| circuit.above_threshold(least).unwrap_err().to_string();
    assert!(refused(weighed([0.0; 4], [0.0; 3]), 0.1).contains("not measured"));
    assert!(refused(weighed([0.5; 4], [0.0; 3]), 0.6).contains("the most is 0.5"));
    for least in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(refused(weighed([0.5; 4], [0.1; 3]), least).contains("threshold"));
    }
}

#[test]
fn fills_say_how_prompts_differ_at_the_last_token_or_else_where_they_differ_most() {
    let mut entry = NodeEntry { difference: None, ..example().nodes[0].clone() };
    entry.clean = ActivationRange { min: 0.0, mean: 1.0, max: 4.0 };
    entry.counterfactual = ActivationRange { min: 0.0, mean: 0.5, max: 2.0 };
    assert_eq!(separation(&entry), 0.125);
    entry.difference = Some(PairDifference { last: -2.0, largest: 3.0 });
    assert_eq!(separation(&entry), -0.5);
    entry.difference = Some(PairDifference { last: -0.05, largest: 3.0 });
    assert_eq!(separation(&entry), 0.75);
}

#[test]
fn bars_are_as_long_as_the_loss_changes() {
    let drawn = svg(&weighed([0.8, 0.2, -0.4, 0.0], [0.1; 3]));
    let bars = elements(&drawn).into_iter().filter(|(_, a, _)| a.get("class").is_some_and(|c| c == "importance"));
    let widths: Vec<f64> = bars.map(|(_, a, _)| a["width"].parse().unwrap()).collect();
    // Those of the nodes, by row from the bottom and from left to right, then those of the legend.
    let largest = widths.iter().copied().fold(0.0, f64::max);
    let mut shares: Vec<f64> = widths[..4].iter().map(|width| width / largest).collect();
    shares.sort_by(f64::total_cmp);
    for (share, want) in shares.iter().zip([0.0, 0.25, 0.5, 1.0]) {
        assert!((share - want).abs() < 0.01, "{shares:?}");
    }
}

/// Nodes' boxes lie within the picture and apart from each other.
fn assert_no_overlaps(elements: &[(String, BTreeMap<String, String>, String)], nodes: usize) {
    let number = |attributes: &BTreeMap<String, String>, key: &str| attributes[key].parse::<f64>().unwrap();
    let (width, height) = (number(&elements[0].1, "width"), number(&elements[0].1, "height"));
    let groups = elements.windows(3).filter(|w| w[0].1.contains_key("data-node"));
    let boxes: Vec<_> = groups.map(|w| ["x", "y", "width", "height"].map(|key| number(&w[2].1, key))).collect();
    assert_eq!(boxes.len(), nodes);
    for (i, [x, y, w, h]) in boxes.iter().enumerate() {
        assert!(*x >= 0.0 && *y >= 0.0 && x + w <= width && y + h <= height);
        for [other_x, other_y, ..] in &boxes[..i] {
            assert!((x - other_x).abs() >= *w || (y - other_y).abs() >= *h, "boxes {i} overlap");
        }
    }
}

#[test]
fn drawings_do_not_depend_on_the_order_in_the_file() {
    let circuit = large(60, 5);
    let mut shuffled = circuit.clone();
    shuffled.nodes.reverse();
    shuffled.edges.rotate_left(7);
    shuffled.embeddings.reverse();
    for draw in [svg, dot, show, json] {
        assert_eq!(draw(&circuit), draw(&shuffled));
    }
}

#[test]
fn the_picture_in_the_documentation_is_of_the_example() {
    let drawn = svg(&example());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/circuit-example.svg");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), drawn, "run the tests with UPDATE_DOCS=1");
}

#[test]
fn graphs_name_each_node_and_edge_once_in_quotes_that_close() {
    let mut circuit = example();
    circuit.task.description = "a \"quoted\" \\ thing\n".into();
    circuit.unembeddings[0].tokens[0].text = "\\\"\n".into();
    let string = regex::Regex::new(r#""(?:[^"\\\n]|\\.)*""#).unwrap();
    for circuit in [circuit, empty(), large(300, 2)] {
        let graph = dot(&circuit);
        for entry in &circuit.nodes {
            assert_eq!(graph.matches(&format!("\"{}\" [label=", entry.node())).count(), 1);
        }
        for edge in &circuit.edges {
            assert_eq!(graph.matches(&format!("\"{}\" -> \"{}\" [color", edge.from, edge.to)).count(), 1);
        }
        assert_eq!(graph.matches("style=dashed").count(), residual_paths(&circuit).len());
        let rest = string.replace_all(&graph, "");
        assert!(!rest.contains('"') && !rest.contains('\\'), "{rest}");
        for (open, close) in [('{', '}'), ('[', ']')] {
            assert_eq!(rest.matches(open).count(), rest.matches(close).count());
        }
    }
}

#[test]
fn exported_json_is_the_circuit_with_its_residual_paths() {
    let exported = json(&example());
    assert_eq!(load(exported.as_bytes()).unwrap(), example());
    let exported: Value = serde_json::from_str(&exported).unwrap();
    let paths = exported["residual_paths"].as_array().unwrap();
    assert_eq!(paths.len(), 5);
    assert!(paths.contains(&json!({"channel": 17, "from": "embedding", "to": "0.mlp.act_in[17]"})));
    assert!(paths.contains(&json!({"channel": 28, "from": "1.attn.resid_delta[28]", "to": "unembedding"})));
}

/// Holds a value to the parts of JSON Schema that ours uses, and notes which definitions were met.
/// Fields and properties must be the same.
fn conforms(value: &Value, rule: &Value, root: &Value, place: &str, met: &mut BTreeSet<String>) -> Result<(), String> {
    if let Some(reference) = rule["$ref"].as_str() {
        met.insert(reference.into());
        let target = root.pointer(reference.trim_start_matches('#')).ok_or(format!("no {reference}"))?;
        return conforms(value, target, root, place, met);
    }
    let known = ["$schema", "title", "description", "type", "required", "properties", "items", "minimum", "maximum"];
    for key in rule.as_object().ok_or(format!("{place}: no rule"))?.keys() {
        if !known.contains(&key.as_str())
            && !["pattern", "enum", "const", "$defs", "additionalProperties"].contains(&key.as_str())
        {
            return Err(format!("{place}: this checker does not know {key}"));
        }
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    let fine = match &rule["type"] {
        Value::Null => true,
        Value::String(name) => is(name),
        names => names.as_array().is_some_and(|names| names.iter().any(|name| name.as_str().is_some_and(is))),
    };
    let number = value.as_f64();
    let fine = fine
        && rule["const"].as_u64().is_none_or(|only| value.as_u64() == Some(only))
        && rule["enum"].as_array().is_none_or(|all| all.contains(value))
        && rule["minimum"].as_f64().is_none_or(|least| number.is_none_or(|n| n >= least))
        && rule["maximum"].as_f64().is_none_or(|most| number.is_none_or(|n| n <= most))
        && rule["pattern"]
            .as_str()
            .is_none_or(|p| regex::Regex::new(p).unwrap().is_match(value.as_str().unwrap_or("")));
    if !fine {
        return Err(format!("{place}: {value}"));
    }
    if let (Some(others), Some(fields)) = (rule.get("additionalProperties"), value.as_object()) {
        fields.iter().try_for_each(|(name, field)| conforms(field, others, root, &format!("{place}.{name}"), met))?;
    }
    if let (Some(properties), Some(fields)) = (rule["properties"].as_object(), value.as_object()) {
        let names = |keys: Vec<&str>| keys.into_iter().map(String::from).collect::<BTreeSet<_>>();
        let fields_named = names(fields.keys().map(String::as_str).collect());
        let required = names(rule["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect());
        let all = names(properties.keys().map(String::as_str).collect());
        if !required.is_subset(&fields_named) || !fields_named.is_subset(&all) {
            return Err(format!("{place}: fields {fields_named:?}, properties {all:?}"));
        }
        for (name, field) in fields {
            conforms(field, &properties[name], root, &format!("{place}/{name}"), met)?;
        }
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        if !rule["items"].is_null() {
            conforms(item, &rule["items"], root, &format!("{place}/{i}"), met)?;
        }
    }
    Ok(())
}

#[test]
fn pruned_edges_are_kept_and_checked() {
    let circuit = with_pruned_edge();
    assert_eq!(load(circuit.to_json().as_bytes()).unwrap(), circuit);
    assert!(circuit.to_json().contains("\"value\": -0.25"));
    assert!(show(&circuit).contains("8 edges (10 with biases), without 1 pruned edge"), "{}", show(&circuit));
    let refused = |change: &dyn Fn(&mut Circuit), why: &str| {
        let mut damaged = circuit.clone();
        change(&mut damaged);
        let said = load(damaged.to_json().as_bytes()).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    };
    refused(&|damaged| damaged.version = 2, "version 2; this program writes");
    refused(&|damaged| damaged.pruned_edges.push(damaged.pruned_edges[0]), "is listed twice");
    refused(&|damaged| damaged.pruned_edges[0].to = damaged.pruned_edges[0].from, "no weight joins these");
}

#[test]
fn the_schema_says_what_is_written() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let check = |text: &str, met: &mut BTreeSet<String>| {
        conforms(&serde_json::from_str(text).unwrap(), &schema, &schema, "", met)
    };
    let mut met = BTreeSet::new();
    check(EXAMPLE, &mut met).unwrap();
    check(&json(&example()), &mut met).unwrap();
    check(&large(300, 4).to_json(), &mut met).unwrap();
    check(&with_pruned_edge().to_json(), &mut met).unwrap();
    let definitions = schema["$defs"].as_object().unwrap().keys().map(|name| format!("#/$defs/{name}")).collect();
    assert_eq!(met, definitions, "every definition is used");
    // It refuses, too.
    for (right, wrong) in [
        ("\"version\": 1", "\"version\": 4"),
        ("\"tau\":", "\"tao\":"),
        ("\"0.mlp.act_in[17]\"", "\"0.mlp.act_in[017]\""),
        ("\"kind\": \"mlp_in\"", "\"kind\": \"mlp\""),
        ("\"head\": null", "\"head\": \"none\""),
    ] {
        assert!(EXAMPLE.contains(right));
        assert!(check(&EXAMPLE.replacen(right, wrong, 1), &mut met).is_err(), "{wrong}");
    }
}
