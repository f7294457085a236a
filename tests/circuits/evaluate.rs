//! The evaluation of circuits, on a model whose circuit is known by construction: the right one
//! passes every check, and each wrong one fails those that should expose it.

use gossamer::circuits::evaluate::{Evaluation, EvaluationPairs, EvaluationPlan};
use gossamer::circuits::search::CircuitSearch;
use gossamer::circuits::{Ablation, CalibrationKind, Layout, Node, Nodes};
use gossamer::device::Device;
use gossamer::model::Model;
use gossamer::observer::Observer;
use gossamer::text::tokenizer::Tokenizer;

use crate::checkpoint::tokenizer;
use crate::common::devices;
use crate::oracle;
use crate::prune::{PLANTED, SECOND, nodes, pairs, planted, with_routes};

const CHANCE: f64 = std::f64::consts::LN_2;

fn question() -> EvaluationPairs {
    let (train, test) = (pairs(24, 5), pairs(24, 6));
    EvaluationPairs { task: "quotes".into(), variant: 0, train, test, target_loss: 0.15 }
}

fn keep(layout: &Layout, nodes: &[Node]) -> Vec<bool> {
    let mut keep = vec![false; layout.len()];
    nodes.iter().for_each(|&node| keep[layout.number(node).unwrap()] = true);
    keep
}

fn evaluate(model: &Model, nodes: Nodes, kept: &[Node], plan: &EvaluationPlan, tokenizer: &Tokenizer) -> Evaluation {
    let keep = keep(&nodes.layout, kept);
    let search = CircuitSearch { model, nodes, tokenizer };
    search.evaluate_pairs(&keep, &question(), plan, &Observer::default()).unwrap()
}

/// The names of the checks that do not hold.
fn failed(evaluation: &Evaluation) -> Vec<&'static str> {
    evaluation.checks.iter().filter(|check| !check.holds).map(|check| check.name).collect()
}

#[test]
fn the_planted_circuit_passes_every_check_with_every_ablation() {
    let tokenizer = tokenizer();
    for device in devices() {
        let model = planted(&device);
        for ablation in Ablation::ALL {
            let plan = EvaluationPlan { ablation, ..EvaluationPlan::default() };
            let found = evaluate(&model, nodes(&model), &PLANTED, &plan, &tokenizer);
            let name = format!("{} on {}", ablation.name(), device.describe());
            assert_eq!(failed(&found), [""; 0], "{name}: {:#?}", found.checks);
            assert_eq!(found.checks.len(), 7, "{name}");
            assert_eq!((found.nodes, found.edges, found.pairs), (3, 2, [24, 24]), "{name}");
            assert_eq!(found.calibrated.test.circuit.accuracy, 1.0, "{name}");
            assert_eq!(found.interchange_accuracy, 1.0, "{name}");
            assert!((found.calibrated.test.complement.loss - CHANCE).abs() < 1e-3, "{name}");
            assert!((found.completeness.unwrap() - 1.0).abs() < 2e-2, "{name}: {:?}", found.completeness);
            // Every part carries the answer alone: it is a chain.
            for node in &found.minimality.nodes {
                assert_eq!((node.interchange_in_circuit, node.interchange_in_model), (1.0, 1.0), "{name} {node:?}");
                assert!(node.delta > 0.3, "{name} {node:?}");
            }
            for edge in &found.minimality.edges {
                assert!(edge.interchange_in_circuit == 1.0 && edge.delta > 0.3, "{name} {edge:?}");
            }
        }
    }
}

#[test]
fn a_circuit_without_one_of_its_nodes_is_neither_sufficient_nor_better_than_chance() {
    let (model, tokenizer) = (planted(&Device::cpu()), tokenizer());
    for missing in 0..3 {
        let kept: Vec<Node> =
            PLANTED.into_iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, n)| n).collect();
        let found = evaluate(&model, nodes(&model), &kept, &EvaluationPlan::default(), &tokenizer);
        assert!((found.calibrated.test.circuit.loss - CHANCE).abs() < 1e-3);
        let failed = failed(&found);
        assert!(failed.contains(&"sufficient") && failed.contains(&"minimal"), "{failed:?}");
        // What is left still carries all of the answer in the model: it is needed there.
        assert!(!failed.contains(&"necessary") && !failed.contains(&"interchange"), "{failed:?}");
    }
}

#[test]
fn a_circuit_of_other_nodes_fails_what_it_should() {
    let (model, tokenizer) = (planted(&Device::cpu()), tokenizer());
    let others = PLANTED.map(|node| Node { index: if node.index == 7 { 4 } else { 7 }, ..node });
    let found = evaluate(&model, nodes(&model), &others, &EvaluationPlan::default(), &tokenizer);
    let failed = failed(&found);
    for name in ["sufficient", "necessary", "interchange", "minimal"] {
        assert!(failed.contains(&name), "{name} should fail: {failed:?}");
    }
    assert!(found.faithfulness.unwrap().abs() < 1e-3 && found.completeness.unwrap().abs() < 0.2);
    assert_eq!(found.interchange_accuracy, 0.0);
}

#[test]
fn one_of_two_circuits_is_not_necessary() {
    let (model, tokenizer) = (with_routes(&Device::cpu(), &[PLANTED, SECOND]), tokenizer());
    let found = evaluate(&model, nodes(&model), &PLANTED, &EvaluationPlan::default(), &tokenizer);
    let failed_alone = failed(&found);
    assert!(failed_alone.contains(&"necessary") && !failed_alone.contains(&"sufficient"), "{failed_alone:?}");
    let both = [PLANTED, SECOND].concat();
    let found = evaluate(&model, nodes(&model), &both, &EvaluationPlan::default(), &tokenizer);
    assert!(!failed(&found).contains(&"necessary"), "{:?}", failed(&found));
}

#[test]
fn a_spare_node_is_known_by_its_delta() {
    let (model, tokenizer) = (planted(&Device::cpu()), tokenizer());
    let spare = Node { layer: Some(0), index: 3, ..PLANTED[1] };
    let kept = [&PLANTED[..], &[spare]].concat();
    let found = evaluate(&model, nodes(&model), &kept, &EvaluationPlan::default(), &tokenizer);
    assert_eq!(failed(&found), ["minimal"]);
    let delta = |node| found.minimality.nodes.iter().find(|report| report.node == node).unwrap().delta;
    assert!(delta(spare).abs() < 1e-3 && delta(PLANTED[1]) > 0.3);
}

#[test]
fn nothing_is_done_for_answers_that_a_coin_decides() {
    let (model, tokenizer) = (planted(&Device::cpu()), tokenizer());
    let found = evaluate(&model, nodes(&model), &PLANTED, &EvaluationPlan::default(), &tokenizer);
    let nonsense = found.controls.nonsense_task;
    assert!(nonsense.loss > 0.6 && (0.2..0.8).contains(&nonsense.accuracy), "{nonsense:?}");
    assert!(found.controls.random_circuits.iter().all(|score| score.loss > 0.5), "{:?}", found.controls);
    assert!(found.controls.random_weights.unwrap().loss > 0.5);
}

/// The same interchange in float64 loops: the nodes' values at each position from the other prompt.
#[test]
fn interchange_and_zero_ablation_agree_with_float64_loops() {
    let (model, tokenizer) = (planted(&Device::cpu()), tokenizer());
    let (state, layout) = (model.parameters.to_host().unwrap(), Layout::new(&model.config));
    let kept = keep(&layout, &PLANTED);
    let run = |prompt: &[u32], edit: oracle::Edit| {
        let logits = oracle::forward(&model.config, &state, prompt, edit);
        let last = &logits[logits.len() - model.config.vocab_size..];
        last.to_vec()
    };
    let mut losses = [0.0; 2];
    let question = question();
    for pair in &question.test {
        let prompts =
            [(&pair.clean, pair.target, pair.alternative), (&pair.counterfactual, pair.alternative, pair.target)];
        for (at, (prompt, right, wrong)) in prompts.into_iter().enumerate() {
            let mut donor = std::collections::BTreeMap::new();
            run(prompts[1 - at].0, &mut |site, values| _ = donor.insert(site.to_string(), values.to_vec()));
            let ablated = |replace: &dyn Fn(&str, usize) -> f64| {
                let logits = run(prompt, &mut |site, values| {
                    let Some(block) = site.parse().ok().and_then(|site| layout.block(site)) else { return };
                    for (i, x) in values.iter_mut().enumerate() {
                        if !kept[block.start + i % block.width] {
                            *x = replace(site, i);
                        }
                    }
                });
                logits[right as usize] - logits[wrong as usize]
            };
            for (sum, z) in losses.iter_mut().zip([ablated(&|_, _| 0.0), ablated(&|site, i| donor[site][i])]) {
                *sum += (-z).exp().ln_1p() / (2 * question.test.len()) as f64;
            }
        }
    }
    for (ablation, want) in [Ablation::Zero, Ablation::Interchange].into_iter().zip(losses) {
        let plan = EvaluationPlan {
            ablation,
            calibration: CalibrationKind::None,
            controls: 0,
            parts: false,
            ..EvaluationPlan::default()
        };
        let found = evaluate(&model, nodes(&model), &PLANTED, &plan, &tokenizer);
        let got = found.uncalibrated.test.circuit.loss;
        assert!((got - want).abs() < 1e-5, "{}: {got}, by hand {want}", ablation.name());
        assert_eq!(found.calibrated, found.uncalibrated);
        assert!(found.controls.random_circuits.is_empty() && found.controls.random_weights.is_none());
    }
}
