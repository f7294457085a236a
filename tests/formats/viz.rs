//! Published circuits, written byte by byte in the layout that their visualiser reads.

use std::path::{Path, PathBuf};

use gossamer::Error;
use std::collections::BTreeMap;

use gossamer::circuits::collect::node_statistics;
use gossamer::circuits::{Circuit, Node, NodeEntry, NodeKind, dot, residual_paths, show, svg};
use gossamer::device::Device;
use gossamer::formats::torch::TorchFile;
use gossamer::formats::viz::{Measurements, save_payload};
use gossamer::formats::{OpenedCircuit, Payload};
use gossamer::model::{Model, ModelConfig};
use gossamer::observer::Observer;

use super::feed;
use super::pickled::{Py, archive, floats, longs, payload};

const PATH: &str = "/x/viz/csp_yolo2/bracket_counting/prune_v4/k_optim/viz_data.pt";

#[track_caller]
fn read(value: &Py) -> Payload {
    Payload::new(&TorchFile::from_bytes(PATH, archive(value)).unwrap()).unwrap()
}

fn node(text: &str) -> Node {
    text.parse().unwrap()
}

#[test]
fn a_whole_payload() {
    let payload = read(&payload());
    assert_eq!(payload.missing, [] as [&str; 0]);
    let circuit = &payload.circuit;
    assert_eq!((circuit.task.name.as_str(), circuit.model.path.as_str()), ("bracket_counting", "csp_yolo2"));
    assert_eq!(payload.model.as_deref(), Some(Path::new("/x/models/csp_yolo2")));
    assert_eq!((circuit.model.n_layer, circuit.model.d_mlp, circuit.model.d_head), (2, 16, 4));
    assert_eq!(circuit.settings, serde_json::json!({ "k_coef": 0.001, "steps": 500 }));
    assert_eq!((payload.loss, payload.circuit_loss, payload.total_nodes), (Some(0.01), Some(0.15), Some(144)));
    assert_eq!(payload.curve, [(0.0, 1.5), (10.0, 0.5)]);
    // A node's loss is halved, a sublayer's is not.
    assert_eq!(payload.sublayers, [("0.mlp".to_string(), 0.5), ("1.attn".to_string(), 0.25)]);

    // What was put in, with half the difference to 0.3; nodes in order.
    let want = [
        ("0.mlp.act_in[3]", 0.1),
        ("0.mlp.post_act[2]", -0.025),
        ("0.mlp.post_act[9]", 0.2),
        ("0.mlp.resid_delta[1]", 0.3),
        ("1.attn.act_in[1]", 0.4),
        ("1.attn.v[6]", 0.025),
        ("1.attn.resid_delta[0]", 0.005),
    ];
    assert_eq!(circuit.nodes.len(), want.len());
    for (entry, (name, delta)) in circuit.nodes.iter().zip(want) {
        assert_eq!(entry.node(), node(name));
        assert!((entry.ablation_delta - delta).abs() < 1e-7, "{name}: {}", entry.ablation_delta);
    }
    let value = circuit.nodes.iter().find(|entry| entry.node() == node("1.attn.v[6]")).unwrap();
    assert_eq!((value.head, value.channel), (Some(1), Some(2)));

    let edges: Vec<_> =
        circuit.edges.iter().map(|e| (e.from.to_string(), e.to.to_string(), e.weight, e.effect)).collect();
    let edge = |from: &str, to: &str, effect: f64| (from.to_string(), to.to_string(), effect, effect);
    assert_eq!(
        edges,
        [
            edge("0.mlp.act_in[3]", "0.mlp.post_act[2]", -0.25),
            edge("0.mlp.act_in[3]", "0.mlp.post_act[9]", 0.5),
            edge("0.mlp.post_act[9]", "0.mlp.resid_delta[1]", 0.125),
            edge("1.attn.act_in[1]", "1.attn.v[6]", 2.0),
            edge("1.attn.v[6]", "1.attn.resid_delta[0]", 0.75),
        ]
    );
    let [bias] = circuit.biases.as_slice() else { panic!("{:?}", circuit.biases) };
    assert_eq!((bias.node, bias.value), (node("0.mlp.resid_delta[1]"), -1.0));
}

#[test]
fn prompts_lose_their_padding_and_their_activations_are_summed_up() {
    let payload = read(&payload());
    assert_eq!(payload.prompts, [[vec![5, 6, 7], vec![5, 6]], [vec![5, 9, 7], vec![5, 9]]]);
    let known = |name: &str| payload.statistics.nodes.iter().find(|known| known.node == node(name)).unwrap();
    // Row i has 5i + first to 5i + first + 4, of which as many count as the prompt has tokens.
    let set = &known("0.mlp.act_in[3]").clean;
    assert_eq!((set.count, set.min, set.max, set.mean), (5, 1.0, 7.0, (1.0 + 2.0 + 3.0 + 6.0 + 7.0) / 5.0));
    let set = &known("0.mlp.act_in[3]").counterfactual;
    assert_eq!((set.count, set.min, set.max), (5, -17.0, -11.0));
    let set = known("0.mlp.act_in[3]").difference.as_ref().unwrap();
    assert_eq!((set.count, set.min, set.max), (5, 1.0 + 11.0, 7.0 + 17.0));
    let entry = &payload.circuit.nodes[0];
    assert_eq!((entry.clean.mean, entry.counterfactual.max), (3.8, -11.0));
    assert_eq!(known("1.attn.act_in[1]").clean.count, 0, "nothing was saved of it");

    let corpus = &known("0.mlp.post_act[9]").corpus;
    assert_eq!(corpus.quantiles.iter().map(|q| q.quantile).collect::<Vec<_>>(), [0.001, 0.1]);
    let [bottom] = corpus.quantiles[0].bottom.snippets.as_slice() else { panic!() };
    assert_eq!((bottom.position, bottom.tokens.as_slice(), bottom.activations[1]), (1, &[1, 2, 3][..], -2.0));
    // Of a long text, 50 tokens around the position.
    let [top] = corpus.quantiles[0].top.snippets.as_slice() else { panic!() };
    assert_eq!(
        (top.start, top.tokens.len(), top.tokens[top.position], top.activations[top.position]),
        (30, 50, 60, 3.75)
    );
    assert_eq!((known("0.mlp.post_act[9]").low, known("0.mlp.post_act[9]").high), (-2.0, 79.0 / 16.0));
}

#[test]
fn what_is_missing_is_told_and_the_rest_is_there() {
    for key in ["circuit_data", "samples", "num_total_nodes", "prune_config", "all_loss", "importances"] {
        let mut less = payload();
        less.remove(key);
        let read = read(&less);
        // Without circuit_data, the nodes are those that edges join: here the same.
        assert_eq!(read.circuit.nodes.len(), 7, "{key}");
        let reported = ["circuit_data", "samples", "importances"].contains(&key);
        assert_eq!(!read.missing.is_empty(), reported, "{key}: {:?}", read.missing);
    }
    for key in [
        "beeg_model_config",
        "loss",
        "interv_loss",
        "layer_interv_losses",
        "ch_interv_losses",
        "pair_data",
        "task_samples",
    ] {
        let mut less = payload();
        less.at("importances").remove(key);
        let read = read(&less);
        assert_eq!((read.circuit.nodes.len(), read.missing.is_empty()), (7, false), "{key}");
        assert_eq!(read.circuit.edges.len(), if key == "pair_data" { 0 } else { 5 }, "{key}");
    }
    let mut other = payload();
    *other.at("circuit_data").at("1.attn.v") = longs(&[6, 100, -1]);
    let read_ = read(&other);
    assert_eq!(read_.circuit.nodes.len(), 7);
    assert!(
        read_.missing.iter().any(|what| what.contains("1 nodes that a model of that shape")),
        "{:?}",
        read_.missing
    );
    assert!(read_.missing.contains(&"1 of circuit_data was not understood and omitted: 1.attn.v[-1].".to_string()));

    let mut odd = payload();
    *odd.at("importances").at("pair_data") =
        Py::List(vec![Py::Int(3), Py::List(vec![floats(&[1.0])]), Py::List(vec![])]);
    assert!(
        read(&odd)
            .missing
            .iter()
            .any(|what| what.starts_with("2 of pair_data were not understood and omitted: ?, a tensor"))
    );
    let mut odd = payload();
    *odd.at("importances").at("loss") = Py::Float(f64::NAN);
    assert_eq!(read(&odd).loss, None);
}

#[test]
fn damage_and_other_files_are_errors_that_name_the_file() {
    let open = |bytes: Vec<u8>| TorchFile::from_bytes(PATH, bytes).and_then(|file| Payload::new(&file).map(drop));
    let message = |bytes: Vec<u8>| match open(bytes) {
        Err(Error::File { path, message }) if path == Path::new(PATH) => message,
        other => panic!("{other:?}"),
    };
    let whole = archive(&payload());
    assert!(open(whole.clone()).is_ok());
    assert!(message(archive(&floats(&[1.0]))).contains("neither circuit_data"));
    assert!(message(whole[..whole.len() / 2].to_vec()).contains("zip"));
    // More numbers than were saved.
    let short = archive(&Py::Dict(vec![(
        Py::Str("circuit_data"),
        Py::Dict(vec![(Py::Str("0.attn.q"), Py::Longs(vec![9], vec![1]))]),
    )]));
    assert!(message(short).contains("reaches beyond"));
    // Any byte of it may change: a payload or an error, never a panic.
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] = damaged[at].wrapping_add(1 + (at % 200) as u8);
        feed::viz(&damaged);
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/viz").join(name)
}

/// Two files that torch wrote in the published layout; their numbers counted with torch.
#[test]
fn nodes_of_the_final_residual_stream_and_biases_are_kept() {
    let opened = OpenedCircuit::open(fixture("final.pt")).unwrap();
    assert_eq!(opened.missing(), [] as [&str; 0]);
    let circuit = &opened.circuit;
    assert_eq!((circuit.counts.nodes, circuit.counts.edges, circuit.biases.len()), (89, 134, 0));
    let last: Vec<_> = circuit.nodes.iter().filter(|entry| entry.kind == NodeKind::FinalResid).collect();
    assert_eq!(last.len(), 5);
    assert!(circuit.nodes.ends_with(&last.iter().map(|&entry| entry.clone()).collect::<Vec<_>>()));
    let payload = opened.payload.as_ref().unwrap();
    let known = payload.statistics.nodes.iter().find(|known| known.node == last[0].node()).unwrap();
    assert_eq!((known.clean.count, known.corpus.quantiles.len()), (16, 4));
    // They are drawn, listed and written like others.
    let name = last[0].node().to_string();
    assert!(name.starts_with("final_resid["), "{name}");
    for text in [svg(circuit), dot(circuit), show(circuit)] {
        assert!(text.contains(&name) || text.contains(&name["final_resid".len()..]), "{text}");
    }
    assert!(residual_paths(circuit).iter().any(|path| path.to.to_string().starts_with("final_resid[")));
    assert_eq!(Circuit::from_json(circuit.to_json().as_bytes()).as_ref(), Ok(circuit));
    assert_eq!(circuit.version, 2);

    let opened = OpenedCircuit::open(fixture("bias.pt")).unwrap();
    assert_eq!(opened.missing(), [] as [&str; 0]);
    let circuit = &opened.circuit;
    assert_eq!((circuit.counts.nodes, circuit.counts.edges, circuit.biases.len()), (84, 134, 64));
    assert_eq!(circuit.version, 1);
}

#[test]
fn what_others_write_otherwise_loses_nothing() {
    let whole = read(&payload()).circuit;
    let mut odd = payload();
    // The ids of sources end in that of the biases, without a row for it.
    let Py::List(pairs) = odd.at("importances").at("pair_data") else { panic!() };
    let Py::List(pair) = &mut pairs[1] else { panic!() };
    pair[0] = Py::Floats(vec![2, 1], vec![0.125, 0.0]);
    // Fields that are null, tokens and ids as floats.
    odd.at("importances").at("beeg_model_config").push("sink", Py::None);
    *odd.at("circuit_data").at("1.attn.v") = floats(&[6.0]);
    let Py::Tuple(samples) = odd.at("importances").at("task_samples") else { panic!() };
    let Py::Longs(shape, ids) = samples[0].clone() else { panic!() };
    samples[0] = Py::Floats(shape, ids.into_iter().map(|id| id as f32).collect());
    let read_ = read(&odd);
    assert_eq!(read_.missing, [] as [&str; 0]);
    assert_eq!((&read_.circuit.nodes, &read_.circuit.edges), (&whole.nodes, &whole.edges));
    assert_eq!(read_.circuit.biases, []);
    assert_eq!(read_.prompts, read(&payload()).prompts);
    assert_eq!(read_.circuit.model.n_layer, 2);

    // An edge without effect is there if the file says that it is.
    let Py::List(pairs) = payload().at("importances").at("pair_data").clone() else { panic!() };
    let Py::List(mut pair) = pairs[0].clone() else { panic!() };
    pair[0] = Py::Floats(vec![1, 2], vec![1.0, 1.0]);
    let Py::List(effects) = odd.at("importances").at("pair_data") else { panic!() };
    let Py::List(effect) = &mut effects[0] else { panic!() };
    effect[0] = Py::Floats(vec![1, 2], vec![0.5, 0.0]);
    odd.at("importances").push("pair_data_connections", Py::List(vec![Py::List(pair)]));
    let edges = read(&odd).circuit.edges;
    assert_eq!(edges.len(), whole.edges.len());
    assert_eq!(edges.iter().filter(|edge| edge.effect == 0.0).count(), 1);
}

#[test]
fn a_circuit_that_is_written_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("viz_data.pt");
    let circuit = Circuit::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/circuit-example.json")).unwrap();
    let circuit = circuit.normalised();
    let reference = &circuit.model;
    let config = ModelConfig {
        block_size: 12,
        vocab_size: 40,
        n_layer: reference.n_layer,
        n_head: reference.n_head,
        d_head: Some(reference.d_head),
        d_model: reference.d_model,
        d_mlp: Some(reference.d_mlp),
        d_pos_emb: Some(reference.d_pos_emb),
        ..ModelConfig::default()
    };
    let model = Model::new(config.clone(), 3, &Device::cpu()).unwrap();
    let nodes: Vec<Node> = circuit.nodes.iter().map(NodeEntry::node).collect();
    let sequence = |seed: u32, length: u32| (0..length).map(|i| 1 + (seed + 7 * i) % 39).collect::<Vec<u32>>();
    let corpus: Vec<_> = (0..9).map(|seed| sequence(seed, 12)).collect();
    let prompts = [vec![sequence(1, 6), sequence(2, 4)], vec![sequence(3, 6), sequence(4, 4)]];
    let sets = [&corpus[..], &prompts[0][..], &prompts[1][..]];
    let statistics = node_statistics(&model, &nodes, sets, 0, &Observer::default()).unwrap();
    let activation = |n: usize| prompts.iter().flatten().map(move |p| vec![n as f32 - 0.5; p.len()]).collect();
    let known = Measurements {
        config: Some(&config),
        statistics: &statistics,
        prompts: prompts.clone(),
        activations: nodes.iter().enumerate().map(|(n, &node)| (node, activation(n))).collect(),
        sublayers: BTreeMap::from([("0.attn".to_string(), 0.25)]),
    };
    save_payload(&path, &circuit, &known).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    save_payload(&path, &circuit, &known).unwrap();
    assert_eq!(bytes, std::fs::read(&path).unwrap());

    let payload = Payload::open(&path).unwrap();
    assert_eq!(payload.missing, [] as [&str; 0]);
    assert_eq!(payload.circuit, circuit);
    assert_eq!(payload.prompts, prompts);
    assert_eq!(payload.sublayers.len(), 1);
    assert!((payload.sublayers[0].1 - 0.25).abs() < 1e-12);
    for ((n, read), put) in payload.statistics.nodes.iter().enumerate().zip(&statistics) {
        assert_eq!((read.node, read.clean.count, read.clean.min), (put.node, 10, n as f32 - 0.5));
        let snippets = |known: &gossamer::circuits::statistics::NodeStatistics| {
            let ends = known.corpus.quantiles.iter().flat_map(|q| [q.bottom.clone(), q.top.clone()]);
            let all = ends.flat_map(|end| end.snippets).map(|s| (s.tokens, s.activations, s.position));
            all.collect::<Vec<_>>()
        };
        assert_eq!(snippets(read), snippets(put));
    }

    // The published parts alone say the same of nodes, edges, effects and losses.
    let key = b"gossamer_circuit".as_slice();
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    let mut published = bytes.clone();
    published[at] = b'G';
    let payload = Payload::new(&TorchFile::from_bytes(&path, published).unwrap()).unwrap();
    let names = |circuit: &Circuit| circuit.nodes.iter().map(NodeEntry::node).collect::<Vec<_>>();
    assert_eq!(names(&payload.circuit), names(&circuit));
    let effects = |circuit: &Circuit| {
        circuit.edges.iter().map(|edge| (edge.from, edge.to, edge.effect as f32)).collect::<Vec<_>>()
    };
    assert_eq!(effects(&payload.circuit), effects(&circuit));
    for (read, put) in payload.circuit.nodes.iter().zip(&circuit.nodes) {
        assert!((read.ablation_delta - put.ablation_delta).abs() < 1e-12, "{}", put.node());
    }
    assert!((payload.circuit.losses.train.circuit - circuit.losses.train.circuit).abs() < 1e-12);
    assert!((payload.loss.unwrap() - circuit.losses.train.model).abs() < 1e-12);

    // A circuit file that says something else than the published parts is not believed.
    let mut other = bytes.clone();
    let name = circuit.nodes[0].node().to_string();
    let site = format!("\"site\": \"{}\"", circuit.nodes[0].site);
    let from = bytes.windows(site.len()).position(|window| window == site.as_bytes()).unwrap();
    let index = format!("\"index\": {}", circuit.nodes[0].index);
    let at = from + bytes[from..].windows(index.len()).position(|window| window == index.as_bytes()).unwrap();
    other[at + index.len() - 1] ^= 1;
    let payload = Payload::new(&TorchFile::from_bytes(&path, other).unwrap()).unwrap();
    assert!(payload.missing.iter().any(|what| what.contains("is ignored")), "{name}: {:?}", payload.missing);
    assert!(payload.circuit.model.hash.is_empty());
}
