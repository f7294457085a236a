//! The losses, accuracies and calibrations in a circuit file, recomputed from model, nodes and means
//! in float64 loops.

use gossamer::circuits::tasks::{self, Split, TokenPair};
use gossamer::circuits::{Calibration, Circuit, Layout, LossSet, Node, NodeKind, PrunedEdge, text_means};
use gossamer::device::Device;
use gossamer::model::ModelConfig;
use gossamer::observer::Observer;
use gossamer::text::source::Source;

use crate::checkpoint::{LOOK, circuit, tokenizer};
use crate::oracle;
use crate::variants::random_model;

/// Logit differences, correct minus incorrect, of all prompts.
type Diffs = Vec<f64>;

fn loss(diffs: &Diffs, scale: f64) -> f64 {
    diffs.iter().map(|z| (-scale * z).exp().ln_1p()).sum::<f64>() / diffs.len() as f64
}

fn accuracy(diffs: &Diffs) -> f64 {
    diffs.iter().filter(|z| **z > 0.0).count() as f64 / diffs.len() as f64
}

/// The best scale, by thirds of its logarithm.
fn best_scale(diffs: &Diffs) -> f64 {
    let (mut low, mut high) = (Calibration::MIN_SCALE.ln(), Calibration::MAX_SCALE.ln());
    for _ in 0..200 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if loss(diffs, a.exp()) < loss(diffs, b.exp()) { high = b } else { low = a }
    }
    low.exp()
}

#[test]
fn the_numbers_of_a_file_follow_from_model_nodes_and_means() {
    check(&[]);
}

#[test]
fn a_pruned_edge_is_a_weight_that_moved_into_the_bias() {
    let edge = |from: &str, to: &str, value| PrunedEdge {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        weight: 1.0,
        value,
    };
    check(&[
        edge("0.mlp.act_in[7]", "0.mlp.post_act[11]", 0.7),
        edge("0.attn.v[5]", "0.attn.resid_delta[7]", -0.4),
        edge("0.attn.act_in[2]", "0.attn.v[5]", 1.3),
    ]);
}

/// The matrix and the bias of an edge into these nodes, and the row: one layer, 16 channels.
fn parameter(to: Node) -> (&'static str, usize) {
    match to.kind {
        NodeKind::AttnV => ("attn.c_attn", 32 + to.index),
        NodeKind::AttnOut => ("attn.c_proj", to.index),
        NodeKind::MlpNeuron => ("mlp.c_fc", to.index),
        _ => panic!("{to} is not used here"),
    }
}

fn check(pruned: &[PrunedEdge]) {
    let config = ModelConfig {
        block_size: 64,
        vocab_size: 512,
        n_layer: 1,
        n_head: 2,
        d_model: 16,
        rms_norm: true,
        tied_unembed: false,
        ..ModelConfig::default()
    };
    let (tokenizer, model, folder) =
        (tokenizer(), random_model(&config, 6, &Device::cpu()), tempfile::tempdir().unwrap());
    let path = folder.path().join("circuit.json");
    let chosen = Circuit { pruned_edges: pruned.to_vec(), ..circuit(&model, &tokenizer) };
    let found = chosen.at_checkpoint(&model, &tokenizer, LOOK, Default::default()).unwrap();
    found.save(&path).unwrap();

    let file = Circuit::load(&path).unwrap();
    let (state, layout) = (model.parameters.to_host().unwrap(), Layout::new(&config));
    let mut without = state.clone();
    for edge in pruned {
        let (name, row) = parameter(edge.to);
        let name = |part: &str| format!("transformer.h.0.{name}.{part}");
        let weights = without.get_mut(&name("weight")).unwrap();
        let at = row * weights.shape[1] + edge.from.index;
        let weight = std::mem::take(&mut weights.data[at]);
        assert!(weight != 0.0);
        without.get_mut(&name("bias")).unwrap().data[row] += weight * edge.value as f32;
    }
    assert_eq!((file.version, file.pruned_edges.len()), (if pruned.is_empty() { 1 } else { 3 }, pruned.len()));
    assert!(file.edges.iter().all(|edge| pruned.iter().all(|gone| (gone.from, gone.to) != (edge.from, edge.to))));
    let means = folder.path().join("means");
    let source = Source::default();
    let means = text_means(&model, &tokenizer, &source, LOOK.mean_tokens, &means, &Observer::default()).unwrap();
    let keep = file.keep(&layout).unwrap();
    let diffs = |pairs: &[TokenPair], (state, ablates): (&_, &dyn Fn(usize) -> bool)| -> Diffs {
        let score = |prompt: &[u32], right: u32, wrong: u32| {
            let logits = oracle::forward(&config, state, prompt, &mut |site, values| {
                let site = site.parse().unwrap();
                let Some(block) = layout.block(site) else { return };
                for (i, x) in values.iter_mut().enumerate() {
                    if ablates(block.start + i % block.width) {
                        *x = f64::from(means[&site][i % block.width]);
                    }
                }
            });
            let last = &logits[logits.len() - config.vocab_size..];
            last[right as usize] - last[wrong as usize]
        };
        let clean = pairs.iter().map(|pair| score(&pair.clean, pair.target, pair.alternative));
        clean.chain(pairs.iter().map(|pair| score(&pair.counterfactual, pair.alternative, pair.target))).collect()
    };
    let task = tasks::find(&file.task.name).unwrap().for_tokenizer(&tokenizer).unwrap();
    let train = file.pairs(None, &tokenizer, config.block_size).unwrap().tokens;
    let test = tasks::batch(&task, Split::Test, 0x5eed_0002, 0, LOOK.pairs, &tokenizer, 64).unwrap().tokens;
    let parts: [(_, &dyn Fn(usize) -> bool); 3] =
        [(&state, &|_| false), (&without, &|n| !keep[n]), (&state, &|n| keep[n])];
    let [on_train, on_test] = [train, test].map(|pairs| parts.map(|part| diffs(&pairs, part)));
    let (circuit_scale, complement_scale) = (best_scale(&on_train[1]), best_scale(&on_train[2]));
    assert!((circuit_scale.ln() - file.calibration.scale.ln()).abs() < 1e-3, "{circuit_scale} {:?}", file.calibration);
    assert_eq!(file.calibration.shift, 0.0);
    assert!(!(0.9..=1.1).contains(&circuit_scale), "{circuit_scale} would tell nothing");
    for ([model, circuit, complement], set) in [(on_train, file.losses.train), (on_test, file.losses.test)] {
        let LossSet { ablated_calibration, .. } = set;
        let close = |name: &str, want: f64, got: f64| {
            assert!((want - got).abs() < 1e-5, "{name}: {got} in the file, {want} by hand");
        };
        close("model", loss(&model, 1.0), set.model);
        close("circuit", loss(&circuit, circuit_scale), set.circuit);
        close("circuit, uncalibrated", loss(&circuit, 1.0), set.circuit_uncalibrated);
        close("complement", loss(&complement, complement_scale), set.ablated);
        close("complement, uncalibrated", loss(&complement, 1.0), set.ablated_uncalibrated.unwrap());
        let scale = ablated_calibration.expect("it is in the file").scale;
        assert!((complement_scale.ln() - scale.ln()).abs() < 1e-3, "{complement_scale} {scale}");
        let accuracies = [set.accuracy_model, set.accuracy_circuit, set.accuracy_ablated];
        assert_eq!([model, circuit, complement].map(|diffs| accuracy(&diffs)), accuracies);
        assert_eq!(set.accuracy_circuit_uncalibrated, Some(set.accuracy_circuit));
        assert_eq!(set.accuracy_ablated_uncalibrated, Some(set.accuracy_ablated));
    }
}
