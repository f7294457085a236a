//! Published circuits, written byte by byte in the layout that their visualiser reads.

use std::path::Path;

use gossamer::Error;
use gossamer::circuits::Node;
use gossamer::formats::Payload;
use gossamer::formats::torch::TorchFile;

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

    let mut odd = payload();
    *odd.at("importances").at("pair_data") =
        Py::List(vec![Py::Int(3), Py::List(vec![floats(&[1.0])]), Py::List(vec![])]);
    assert!(read(&odd).missing.iter().any(|what| what.contains("pair_data was not understood")));
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
