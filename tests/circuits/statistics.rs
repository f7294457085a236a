//! Activation statistics against plain loops over recorded activations, and their file.

use std::collections::BTreeSet;
use std::fs;

use gossamer::circuits::collect::{RESERVOIR, node_statistics};
use gossamer::circuits::statistics::{Activations, BINS, End, QUANTILES, SNIPPETS, WINDOW};
use gossamer::circuits::{Circuit, Node, Statistics};
use gossamer::device::Device;
use gossamer::model::{Batch, Model, ModelConfig, Parameter, Parameters, Recorder, Weights};
use gossamer::observer::Observer;
use gossamer::tape::Tape;
use rand::RngExt;

use crate::common::{devices, rng};

const NODES: [&str; 6] = [
    "0.attn.act_in[3]",
    "0.attn.q[1]",
    "0.mlp.post_act[0]",
    "0.mlp.post_act[7]",
    "1.attn.resid_delta[2]",
    "1.mlp.post_act[5]",
];

fn tiny(device: &Device, block_size: usize) -> Model {
    let config = ModelConfig {
        block_size,
        vocab_size: 20,
        n_layer: 2,
        n_head: 2,
        d_head: Some(4),
        d_model: 8,
        d_mlp: Some(8),
        afrac: Some(0.5),
        ..ModelConfig::default()
    };
    let parameters = Parameters::initialise(&config, 3, device).unwrap();
    // Larger than at the usual start, so that activations are large against the tolerances below.
    let scaled = |p: &Parameter| {
        let mut tensor = p.read().unwrap();
        if !p.name.contains("ln_") {
            tensor.data.iter_mut().for_each(|v| *v *= 20.0);
        }
        (p.name.clone(), tensor)
    };
    let state = parameters.iter().map(scaled).collect();
    let parameters = Parameters::from_host(&config, state, device).unwrap();
    Model { config, parameters, device: device.clone() }
}

fn chosen() -> Vec<Node> {
    NODES.iter().map(|node| node.parse().unwrap()).collect()
}

/// Sequences of lengths from `shortest` to `longest`.
fn sequences(count: usize, shortest: usize, longest: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut rng = rng(seed);
    let mut one = || (0..rng.random_range(shortest..=longest)).map(|_| rng.random_range(0..20)).collect();
    (0..count).map(|_| one()).collect()
}

/// Every node's activations, sequence by sequence, each run alone.
fn recorded(model: &Model, set: &[Vec<u32>]) -> Vec<Vec<Vec<f32>>> {
    let weights = Weights::constant(model, &[]);
    let mut all = vec![Vec::new(); NODES.len()];
    for sequence in set {
        let batch = Batch::new(&model.device, &model.config, sequence, 1).unwrap();
        let mut recorder = Recorder::default();
        model.forward(&mut Tape::new(), &weights, &batch, &mut recorder).unwrap();
        for (node, values) in chosen().iter().zip(&mut all) {
            let site = recorder.values[&node.site()].value();
            let width = site.shape()[2];
            let data = site.read().unwrap();
            values.push((0..sequence.len()).map(|t| data[t * width + node.index]).collect());
        }
    }
    all
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * (1.0 + b.abs())
}

/// Panics unless `got` is what loops over `values` find.
fn check(what: &str, got: &Activations, set: &[Vec<u32>], values: &[Vec<f32>], (low, high): (f32, f32)) {
    let mut sorted: Vec<f64> = values.iter().flatten().map(|&v| f64::from(v)).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    assert_eq!(got.count, n as u64, "{what}");
    assert_eq!(got.zeros, sorted.iter().filter(|v| **v == 0.0).count() as u64, "{what}");
    let mean = sorted.iter().sum::<f64>() / n as f64;
    let std = (sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    assert!(near(got.mean, mean) && near(got.std, std), "{what}");
    assert!(near(got.min.into(), sorted[0]) && near(got.max.into(), sorted[n - 1]), "{what}");

    // Values within rounding of a border may count on either side of it.
    let width = f64::from(high - low) / BINS as f64;
    let mut reached = 0;
    for (i, &bin) in got.histogram.iter().enumerate() {
        reached += bin;
        let border = f64::from(low) + (i + 1) as f64 * width;
        let below = |slack: f64| sorted.iter().filter(|v| **v != 0.0 && **v < border + slack).count() as u64;
        let rest = if i + 1 == BINS { n as u64 - got.zeros } else { below(1e-5) };
        assert!((below(-1e-5)..=rest).contains(&reached), "{what}: bin {i}");
    }
    assert_eq!(reached + got.zeros, got.count, "{what}");

    assert_eq!(got.quantiles.len(), QUANTILES.len());
    for quantile in &got.quantiles {
        let rank = (quantile.quantile * (n - 1) as f64).floor() as usize;
        for (end, goal) in [(&quantile.bottom, sorted[rank]), (&quantile.top, sorted[n - 1 - rank])] {
            assert!(near(end.value.into(), goal), "{what}: {} is {}, not {goal}", quantile.quantile, end.value);
            check_snippets(what, end, set, values, goal);
        }
    }
}

fn check_snippets(what: &str, end: &End, set: &[Vec<u32>], values: &[Vec<f32>], goal: f64) {
    let distance = |v: f32| (f64::from(v) - goal).abs();
    let mut least: Vec<f64> =
        values.iter().map(|v| v.iter().map(|&v| distance(v)).fold(f64::INFINITY, f64::min)).collect();
    least.sort_by(f64::total_cmp);
    assert_eq!(end.snippets.len(), least.len().min(SNIPPETS), "{what}");
    let sequences: BTreeSet<_> = end.snippets.iter().map(|s| s.sequence).collect();
    assert_eq!(sequences.len(), end.snippets.len(), "{what}: one of each sequence");
    for (snippet, want) in end.snippets.iter().zip(least) {
        let (tokens, values) = (&set[snippet.sequence], &values[snippet.sequence]);
        let length = tokens.len().min(WINDOW);
        let window = snippet.start..snippet.start + length;
        assert_eq!(snippet.tokens, tokens[window.clone()], "{what}");
        assert_eq!(snippet.activations.len(), length, "{what}");
        for (got, want) in snippet.activations.iter().zip(&values[window]) {
            assert!(near((*got).into(), (*want).into()), "{what}");
        }
        let got = distance(values[snippet.start + snippet.position]);
        assert!((got - want).abs() < 1e-5, "{what}: {got} away from {goal}, not {want}");
        // In the middle, but at the ends.
        let middle = snippet.position == WINDOW / 2;
        assert!(middle || snippet.start == 0 || snippet.start + length == tokens.len(), "{what}");
    }
}

#[test]
fn statistics_are_those_of_plain_loops() {
    for device in devices() {
        let model = tiny(&device, 70);
        let sets = [sequences(19, 2, 70, 1), sequences(5, 3, 9, 2), sequences(3, 60, 70, 3)];
        let got = node_statistics(&model, &chosen(), [&sets[0], &sets[1], &sets[2]], 7, &Observer::default()).unwrap();
        assert_eq!(got.len(), NODES.len());
        assert!(got.iter().any(|node| node.corpus.zeros > 0 && node.corpus.active() > 0.0));
        for (at, set) in sets.iter().enumerate() {
            for (node, values) in got.iter().zip(recorded(&model, set)) {
                let what = format!("{} in set {at}", node.node);
                let activations = [&node.corpus, &node.clean, &node.counterfactual][at];
                assert!(node.low <= activations.min && activations.max <= node.high, "{what}");
                check(&what, activations, set, &values, (node.low, node.high));
            }
        }
        // Three pairs, of 3 to 9 tokens against 60 or more: the shorter prompts' tokens are what both have.
        let (clean, counterfactual) = (recorded(&model, &sets[1]), recorded(&model, &sets[2]));
        for ((node, clean), counterfactual) in got.iter().zip(clean).zip(counterfactual) {
            let apart = |(a, b): (&Vec<f32>, &Vec<f32>)| {
                let b = &b[b.len() - a.len()..];
                a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f32>>()
            };
            let values: Vec<Vec<f32>> = clean.iter().zip(&counterfactual).map(apart).collect();
            let set = node.difference.as_ref().unwrap();
            check(&format!("difference of {}", node.node), set, &sets[1][..3], &values, (set.min, set.max));
        }
        // The other way round, the longer prompts are cut to the shorter ones' length, and every sign turns.
        let turned = node_statistics(&model, &chosen(), [&[], &sets[2], &sets[1]], 7, &Observer::default()).unwrap();
        for (node, turned) in got.iter().zip(&turned) {
            let [a, b] = [node, turned].map(|node| node.difference.as_ref().unwrap());
            assert_eq!((a.count, a.zeros, a.min, a.max), (b.count, b.zeros, -b.max, -b.min), "{}", node.node);
            let end = &b.quantiles[0].top.snippets[0];
            let whole = &sets[2][end.sequence];
            assert!(whole[end.start..] == end.tokens && end.tokens.len() == sets[1][end.sequence].len());
        }
        let again =
            node_statistics(&model, &chosen(), [&sets[0], &sets[1], &sets[2]], 7, &Observer::default()).unwrap();
        assert_eq!(got, again);
        // Another seed takes other zeros, and nothing else changes.
        let mut other =
            node_statistics(&model, &chosen(), [&sets[0], &sets[1], &sets[2]], 8, &Observer::default()).unwrap();
        assert_ne!(got, other);
        for (other, got) in other.iter_mut().zip(&got) {
            for (other, got) in [(&mut other.corpus, &got.corpus), (&mut other.counterfactual, &got.counterfactual)] {
                other.quantiles.clone_from(&got.quantiles);
            }
            other.clean.quantiles.clone_from(&got.clean.quantiles);
            let quantiles = got.difference.as_ref().map(|set| set.quantiles.clone());
            if let (Some(set), Some(quantiles)) = (&mut other.difference, quantiles) {
                set.quantiles = quantiles;
            }
        }
        assert_eq!(got, other);
    }
}

#[test]
fn the_oracle_notices_errors() {
    let model = tiny(&Device::cpu(), 70);
    // A node of layer 1: those of layer 0 depend on the token alone, so that many values are equal.
    let set = sequences(12, 2, 70, 1);
    let got = &node_statistics(&model, &chosen(), [&set, &[], &[]], 0, &Observer::default()).unwrap()[4];
    let values = &recorded(&model, &set)[4];
    let passes = |damage: &dyn Fn(&mut Activations)| {
        let mut wrong = got.corpus.clone();
        damage(&mut wrong);
        let check = || check("planted", &wrong, &set, values, (got.low, got.high));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_ok()
    };
    assert!(passes(&|_| ()));
    assert!(!passes(&|a| a.mean += 1e-3));
    assert!(!passes(&|a| a.std *= 1.01));
    assert!(!passes(&|a| a.zeros += 1));
    assert!(!passes(&|a| a.histogram.rotate_left(9)));
    assert!(!passes(&|a| a.quantiles[2].top.value = a.quantiles[2].bottom.value));
    assert!(!passes(&|a| a.quantiles[1].top.snippets.swap(0, 7)));
    assert!(!passes(&|a| a.quantiles[0].bottom.snippets[3].tokens[0] ^= 1));
}

#[test]
fn large_corpora_are_sampled_for_quantiles_only() {
    let model = tiny(&Device::cpu(), 256);
    let set = sequences(RESERVOIR / 256 + 40, 256, 256, 4);
    let node = ["0.attn.q[1]".parse().unwrap()];
    let got = &node_statistics(&model, &node, [&set, &[], &[]], 1, &Observer::default()).unwrap()[0];
    let values = &recorded(&model, &set)[1];
    let mut sorted: Vec<f32> = values.concat();
    assert!(sorted.len() > RESERVOIR && got.corpus.count == sorted.len() as u64);
    sorted.sort_by(f32::total_cmp);
    for quantile in &got.corpus.quantiles {
        let share = |below: usize| below as f64 / sorted.len() as f64;
        let slack = 0.002 + 0.02 * quantile.quantile;
        for (value, rank) in [(quantile.bottom.value, quantile.quantile), (quantile.top.value, 1.0 - quantile.quantile)]
        {
            // Many values are zero: the rank is within those that are equal.
            let equal = share(sorted.partition_point(|v| *v < value))..share(sorted.partition_point(|v| *v <= value));
            assert!(equal.start - slack < rank && rank < equal.end + slack, "{rank} is not in {equal:?}");
        }
        assert_eq!(quantile.top.snippets.len(), SNIPPETS);
    }
    assert_eq!(got.clean, got.counterfactual);
    assert_eq!(got.difference, None, "there are no pairs");
    assert_eq!((got.clean.count, got.clean.histogram.len()), (0, BINS));
}

#[test]
fn what_cannot_be_measured_is_named() {
    let model = tiny(&Device::cpu(), 8);
    let said = |nodes: &[Node], set: &[Vec<u32>]| {
        node_statistics(&model, nodes, [set, &[], &[]], 0, &Observer::default()).map(|_| ()).unwrap_err().to_string()
    };
    let outside: Node = "2.attn.q[0]".parse().unwrap();
    assert!(said(&[outside], &[vec![1]]).contains("2.attn.q[0]"));
    said(&chosen(), &[vec![1; 9]]);
    said(&chosen(), &[vec![]]);
    said(&chosen(), &[vec![20]]);
    let circuit: Circuit = serde_json::from_str(include_str!("../../docs/circuit-example.json")).unwrap();
    let other =
        Statistics::measure(&model, &circuit, [&[], &[], &[]], 0, &Observer::default()).unwrap_err().to_string();
    assert!(other.contains(&circuit.model.hash) && other.contains(&model.hash().unwrap()), "{other}");
    assert!(node_statistics(&model, &[], [&[vec![1]], &[], &[]], 0, &Observer::default()).unwrap().is_empty());
}

#[test]
fn the_file_is_read_as_written_and_damage_is_named() {
    let model = tiny(&Device::cpu(), 70);
    let set = sequences(9, 2, 70, 1);
    let nodes = node_statistics(&model, &chosen(), [&set, &set[..2], &[]], 0, &Observer::default()).unwrap();
    let statistics = Statistics { version: 1, model: "sha256:0".into(), task: "quotes".into(), seed: 0, nodes };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quotes.statistics.json");
    statistics.save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let read = Statistics::load(&path).unwrap();
    assert_eq!(read, statistics);
    read.save(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);

    type Damage = fn(&mut Statistics);
    let damages: [(Damage, &str); 6] = [
        (|s| s.nodes[1].corpus.mean = f64::NAN, "0.attn.q[1]: corpus: mean"),
        (|s| s.nodes[0].counterfactual.histogram.truncate(9), "9 bins"),
        (|s| s.nodes[0].clean.count += 1, "add up"),
        (|s| s.nodes[0].corpus.quantiles.swap(0, 1), "quantiles"),
        (|s| s.nodes[0].corpus.quantiles[0].top.snippets[0].position = 99, "position 99"),
        (|s| s.nodes[0].corpus.quantiles[0].top.snippets[0].activations.truncate(1), "1 activations"),
    ];
    for (damage, what) in damages {
        let mut wrong = statistics.clone();
        damage(&mut wrong);
        let said = wrong.save(&path).unwrap_err().to_string();
        assert!(said.contains(what) && said.contains("quotes.statistics.json"), "{said}");
        // The same from a file that someone else wrote; a NaN becomes null there.
        fs::write(&path, serde_json::to_string(&wrong).unwrap()).unwrap();
        Statistics::load(&path).unwrap_err();
    }
    for (contents, what) in [("[", "not a statistics file"), ("[]", "no `version`"), ("{\"version\":9}", "version 9")] {
        fs::write(&path, contents).unwrap();
        let said = Statistics::load(&path).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
    }
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    Statistics::load(&path).unwrap_err();
}
