//! Pruning on a model whose circuit is known by construction, and its parts.

use std::collections::BTreeMap;

use gossamer::circuits::local_search::{self, local_search};
use gossamer::circuits::prune::{self, CircuitScorer, SearchSettings};
use gossamer::circuits::search::CircuitSearch;
use gossamer::circuits::tasks::TokenPair;
use gossamer::circuits::{
    Calibration, CalibrationKind, EdgeAblation, Layout, LogitDiffs, Node, NodeKind, Nodes, PrunedEdge, TaskBatch,
    graph, prune_edges,
};
use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{Batch, Model, ModelConfig, NoHooks, Parameters, Recorder, Weights, means};
use rand::RngExt;

use crate::common::{devices, normal, rng};

/// Opens with a single or a double quote; the answers; letters are the tokens from 4 on.
const SINGLE: u32 = 0;
const DOUBLE: u32 = 1;
const TARGET: u32 = 2;
const ALTERNATIVE: u32 = 3;

/// What the planted circuit is made of: the quote's channel is read, carried by a value channel and
/// written where the unembedding reads it.
pub(crate) const PLANTED: [Node; 3] = route([0, 5, 2]);

/// Another way that the quote may take.
pub(crate) const SECOND: [Node; 3] = route([1, 6, 3]);

const fn route([read, value, written]: [usize; 3]) -> [Node; 3] {
    [
        Node { layer: Some(0), kind: NodeKind::AttnIn, index: read },
        Node { layer: Some(0), kind: NodeKind::AttnV, index: value },
        Node { layer: Some(0), kind: NodeKind::AttnOut, index: written },
    ]
}

/// One layer in which the quote is known only by channel 0, among other activity.
pub(crate) fn planted(device: &Device) -> Model {
    with_routes(device, &[PLANTED])
}

/// One layer in which the quote takes these routes and no other, among other activity.
pub(crate) fn with_routes(device: &Device, routes: &[[Node; 3]]) -> Model {
    let config = ModelConfig {
        block_size: 12,
        vocab_size: 12,
        n_layer: 1,
        n_head: 2,
        d_head: Some(4),
        d_model: 8,
        d_mlp: Some(16),
        rms_norm: true,
        tied_unembed: false,
        bias: false,
        ..ModelConfig::default()
    };
    let mut rng = rng(1);
    let mut state: BTreeMap<String, HostTensor> = BTreeMap::new();
    for (name, _, shape) in Parameters::shapes(&config) {
        let mut data = match name.as_str() {
            name if name.contains("ln_") => vec![1.0; shape[0]],
            name if name.contains("wpe") || name.contains("bias") => vec![0.0; shape.iter().product()],
            // Much that is not about quotes: the routes' channels are kept free of it below.
            _ => normal(&mut rng, shape.iter().product()).iter().map(|v| 0.3 * v).collect(),
        };
        let width = shape.last().copied().unwrap_or(1);
        let mut clear = |rows: &dyn Fn(usize) -> bool, columns: &dyn Fn(usize) -> bool| {
            for (i, v) in data.iter_mut().enumerate() {
                if rows(i / width) || columns(i % width) {
                    *v = 0.0;
                }
            }
        };
        let never = |_: usize| false;
        let quote = |c: usize| routes.iter().any(|[read, _, written]| c == read.index || c == written.index);
        let value = |c: usize| routes.iter().any(|[_, value, _]| c == value.index);
        match name.as_str() {
            "transformer.wte.weight" => {
                clear(&never, &quote);
                // Both quotes are alike in everything else.
                for c in 0..width {
                    data[DOUBLE as usize * width + c] = data[SINGLE as usize * width + c];
                }
                for [read, ..] in routes {
                    data[SINGLE as usize * width + read.index] = 3.0;
                    data[DOUBLE as usize * width + read.index] = -3.0;
                }
            }
            "transformer.h.0.attn.c_attn.weight" => {
                clear(&|row| row >= 16 && value(row - 16), &quote);
                routes.iter().for_each(|[read, value, _]| data[(16 + value.index) * width + read.index] = 2.0);
            }
            "transformer.h.0.attn.c_proj.weight" => {
                clear(&quote, &value);
                routes.iter().for_each(|[_, value, written]| data[written.index * width + value.index] = 4.0);
            }
            "transformer.h.0.mlp.c_fc.weight" => clear(&never, &quote),
            "transformer.h.0.mlp.c_proj.weight" => clear(&quote, &never),
            "lm_head.weight" => {
                clear(&never, &quote);
                for c in 0..width {
                    data[ALTERNATIVE as usize * width + c] = data[TARGET as usize * width + c];
                }
                for [.., written] in routes {
                    data[TARGET as usize * width + written.index] = 6.0;
                    data[ALTERNATIVE as usize * width + written.index] = -6.0;
                }
            }
            _ => {}
        }
        state.insert(name, HostTensor { shape, data });
    }
    let parameters = Parameters::from_host(&config, state, device).unwrap();
    Model { config, parameters, device: device.clone() }
}

pub(crate) fn pairs(count: usize, seed: u64) -> Vec<TokenPair> {
    let mut rng = rng(seed);
    (0..count)
        .map(|_| {
            let letters: Vec<u32> = (0..rng.random_range(2..6)).map(|_| rng.random_range(4..12)).collect();
            let prompt = |quote| [&[quote][..], &letters].concat();
            TokenPair {
                clean: prompt(SINGLE),
                counterfactual: prompt(DOUBLE),
                target: TARGET,
                alternative: ALTERNATIVE,
            }
        })
        .collect()
}

pub(crate) fn nodes(model: &Model) -> Nodes {
    let batches = (0..4).map(|i| {
        // Both quotes equally often at each position, so that means say nothing about the quote.
        let quotes = |p: &TokenPair, other: bool| {
            if other { (p.counterfactual[0], p.clean[0]) } else { (p.clean[0], p.counterfactual[0]) }
        };
        let sequence = |(at, p): (usize, &TokenPair)| {
            let (first, second) = quotes(p, at % 2 == 1);
            [first, 4, 5, second, 6, 7]
        };
        let tokens: Vec<u32> = pairs(8, 100 + i).iter().enumerate().flat_map(sequence).collect();
        Batch::new(&model.device, &model.config, &tokens, 8)
    });
    let means = means(model, batches, &model.config.sites(), true).unwrap();
    Nodes::new(Layout::new(&model.config), &means, &model.device).unwrap()
}

fn settings() -> SearchSettings {
    SearchSettings { steps: 60, lr: 2e-2, k_coef: 1e-2, target_loss: 0.1, ..SearchSettings::default() }
}

fn learn(model: &Model, weights: &Weights, nodes: &Nodes, settings: &SearchSettings) -> Vec<f32> {
    let mut task_batch = |i| TaskBatch::new(model, &pairs(16, i));
    prune::learn((model, weights), nodes, settings, &mut task_batch, &mut |_| {}).unwrap()
}

#[test]
fn a_planted_circuit_is_found_exactly() {
    for device in devices() {
        let model = planted(&device);
        let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
        let tau = learn(&model, &weights, &nodes, &settings());
        assert_eq!(tau, learn(&model, &weights, &nodes, &settings()), "the same seed gives the same bits");

        let task_batch = TaskBatch::new(&model, &pairs(32, 999)).unwrap();
        let scorer = CircuitScorer {
            model: (&model, &weights),
            nodes: &nodes,
            task_batch: &task_batch,
            calibration: Default::default(),
        };
        let k = prune::bisect(&scorer, &prune::rank_nodes(&tau), 0.1).unwrap().unwrap();
        let mut keep = prune::keep_first(&prune::rank_nodes(&tau), k);
        prune::greedy_prune(&scorer, &mut keep, 0.1).unwrap();
        let numbers: Vec<_> = PLANTED.iter().map(|node| nodes.layout.number(*node).unwrap()).collect();
        let found: Vec<_> = (0..keep.len()).filter(|&n| keep[n]).collect();
        assert_eq!(found, numbers, "{:?}", found.iter().map(|&n| nodes.layout.node(n)).collect::<Vec<_>>());
        assert!(scorer.loss(&keep).unwrap().0 <= 0.1);
        for n in found {
            keep[n] = false;
            assert!(scorer.loss(&keep).unwrap().0 > 0.1, "node {n} could have gone");
            keep[n] = true;
        }
        // Without it the model cannot tell the quotes apart.
        let rest: Vec<bool> = keep.iter().map(|kept| !kept).collect();
        let (chance, _) = scorer.loss(&rest).unwrap();
        assert!((chance - std::f64::consts::LN_2).abs() < 1e-5, "{chance}");

        let graph = graph(&model, &nodes.layout, &keep).unwrap();
        let ends: Vec<_> = graph.edges.iter().map(|e| (e.from, e.to, e.weight)).collect();
        assert_eq!(ends, [(PLANTED[0], PLANTED[1], 2.0), (PLANTED[1], PLANTED[2], 4.0)]);
        assert!(graph.biases.is_empty());
        // A cut edge carries its mean, which says nothing about the quote.
        for edge in graph.edges {
            let mut cut = EdgeAblation::new(&model, nodes.keep(&keep).unwrap(), edge).unwrap();
            let loss =
                task_batch.logit_diffs_at_once((&model, &weights), &mut cut).unwrap().calibrate(CalibrationKind::Scale);
            let answers = task_batch.logit_diffs_at_once((&model, &weights), &mut cut).unwrap();
            assert!(answers.loss(loss) > 0.5, "{} → {}: {}", edge.from, edge.to, answers.loss(loss));
        }
    }
}

#[test]
fn pruned_edges_leave_the_planted_circuit() {
    let model = planted(&Device::cpu());
    let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
    let task_batch = TaskBatch::new(&model, &pairs(32, 999)).unwrap();
    let calibration = CalibrationKind::default();
    let scorer = CircuitScorer { model: (&model, &weights), nodes: &nodes, task_batch: &task_batch, calibration };
    let mut keep = vec![true; nodes.layout.len()];
    let edges = nodes.graph(&model, &keep).unwrap().edges.len();
    let pruned = prune_edges(&scorer, &mut keep, 0.1).unwrap();
    let kept: Vec<_> = (0..keep.len()).filter(|&n| keep[n]).filter_map(|n| nodes.layout.node(n)).collect();
    assert_eq!(kept, PLANTED);
    // Those that were pruned went with their nodes.
    assert!(edges > 100 && pruned.is_empty(), "{edges} {pruned:?}");
}

#[test]
fn a_pruned_edge_that_carries_its_mean_is_an_ablated_one() {
    let model = with_routes(&Device::cpu(), &[PLANTED, SECOND]);
    let (weights, mut nodes) = (Weights::constant(&model, &[]), nodes(&model));
    let pairs = pairs(16, 999);
    let task_batch = TaskBatch::new(&model, &pairs).unwrap();
    let mut keep = vec![false; nodes.layout.len()];
    PLANTED.iter().chain(&SECOND).for_each(|&node| keep[nodes.layout.number(node).unwrap()] = true);
    let edge = nodes.graph(&model, &keep).unwrap().edges.into_iter().find(|edge| edge.from == SECOND[0]).unwrap();
    let mut ablated = EdgeAblation::new(&model, nodes.keep(&keep).unwrap(), edge).unwrap();
    let wanted = task_batch.logit_diffs_at_once((&model, &weights), &mut ablated).unwrap();

    let mut recorded = (nodes.keep(&keep).unwrap(), Recorder::default());
    task_batch.logit_diffs_at_once((&model, &weights), &mut recorded).unwrap();
    let read = recorded.1.values[&SECOND[0].site()].value().clone();
    let &[_, padded, width] = read.shape() else { panic!("{:?}", read.shape()) };
    let (values, mut sum, mut count) = (read.read().unwrap(), 0.0, 0.0);
    for (b, prompt) in pairs.iter().map(|p| &p.clean).chain(pairs.iter().map(|p| &p.counterfactual)).enumerate() {
        for t in 0..prompt.len() {
            sum += f64::from(values[(b * padded + t) * width + SECOND[0].index]);
            count += 1.0;
        }
    }
    let mut logit_diffs = |value: f64| {
        let pruned = PrunedEdge { from: edge.from, to: edge.to, weight: edge.weight.into(), value };
        nodes.prune_edges(&model, &[pruned]).unwrap();
        task_batch.logit_diffs((&model, &weights), &mut nodes.keep(&keep).unwrap()).unwrap().clean
    };
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart(&logit_diffs(sum / count), &wanted.clean) < 1e-4);
    assert!(apart(&logit_diffs(sum / count + 0.5), &wanted.clean) > 0.1);
}

/// The second route reads tokens 4 and 5, which are in the prompts of the first group only.
#[test]
fn what_holds_in_some_templates_only_is_not_chosen() {
    let mut model = with_routes(&Device::cpu(), &[PLANTED, SECOND]);
    let mut state = model.parameters.to_host().unwrap();
    let embedding = state.get_mut("transformer.wte.weight").unwrap();
    let read = SECOND[0].index;
    for (token, value) in [(SINGLE, 0.0), (DOUBLE, 0.0), (4, 3.0), (5, -3.0)] {
        embedding.data[token as usize * 8 + read] = value;
    }
    model.parameters = Parameters::from_host(&model.config, state, &model.device).unwrap();
    let mut groups = [pairs(24, 7), pairs(24, 8)];
    for pair in groups.iter_mut().flatten() {
        let other = |token: &mut u32| *token = if matches!(token, 4 | 5) { 6 } else { *token };
        pair.clean.iter_mut().chain(&mut pair.counterfactual).for_each(other);
    }
    for pair in &mut groups[0] {
        pair.clean.push(4);
        pair.counterfactual.push(5);
    }
    let nodes = nodes(&model);
    let numbers = |route: [Node; 3]| route.map(|node| nodes.layout.number(node).unwrap()).to_vec();
    let (planted, shortcut) = (numbers(PLANTED), numbers(SECOND));
    let mut scores = vec![-1.0; nodes.layout.len()];
    planted.iter().for_each(|&n| scores[n] = 2.0);
    shortcut.iter().for_each(|&n| scores[n] = 3.0);
    let tokenizer = crate::checkpoint::tokenizer();
    let search = CircuitSearch { model: &model, nodes: nodes.clone(), tokenizer: &tokenizer };
    let choose = |groups: &[Vec<TokenPair>; 2]| {
        let choice = search.choose_nodes(groups, 0.1, &settings(), &scores, true).unwrap().unwrap();
        ((0..choice.keep.len()).filter(|&n| choice.keep[n]).collect::<Vec<_>>(), choice.holds)
    };
    assert_eq!(choose(&[groups[0].clone(), Vec::new()]), (shortcut, true));
    assert_eq!(choose(&groups), (planted.clone(), false), "what the first group chose did not hold");
    groups.swap(0, 1);
    assert_eq!(choose(&groups), (planted, true));
}

#[test]
fn a_model_that_does_the_task_badly_sets_the_target() {
    let diffs = |right: usize, z: f64| {
        let side: Vec<f64> = (0..20).map(|at| if at < right { z } else { -z }).collect();
        LogitDiffs { clean: side.clone(), counterfactual: side }
    };
    let none = SearchSettings { calibration: CalibrationKind::None, ..SearchSettings::default() };
    // log(1 + exp(−4)) = 0.01815, log(1 + exp(4)) = 4.01815.
    assert_eq!(none.reachable(&diffs(20, 4.0)), Some(0.15));
    let loss = (19.0 * 0.018_149_927 + 4.018_149_927) / 20.0;
    assert!((none.reachable(&diffs(19, 4.0)).unwrap() - 1.5 * loss).abs() < 1e-8);
    assert_eq!(none.reachable(&diffs(17, 4.0)), None, "85 % are not enough");
    let strict = SearchSettings { target_factor: 0.0, ..none };
    assert_eq!(strict.reachable(&diffs(19, 4.0)), None);
}

#[test]
fn one_node_is_exchanged_for_two() {
    let model = planted(&Device::cpu());
    let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
    let task_batch = TaskBatch::new(&model, &pairs(32, 999)).unwrap();
    let scorer = CircuitScorer {
        model: (&model, &weights),
        nodes: &nodes,
        task_batch: &task_batch,
        calibration: Default::default(),
    };
    let planted: Vec<usize> = PLANTED.iter().map(|node| nodes.layout.number(*node).unwrap()).collect();
    // The second of the circuit is missing, two others are in its place.
    let others: Vec<usize> = (0..nodes.layout.len()).filter(|n| !planted.contains(n)).take(2).collect();
    let mut keep = vec![false; nodes.layout.len()];
    [planted[0], planted[2], others[0], others[1]].iter().for_each(|&n| keep[n] = true);
    let before = keep.clone();
    let replace_two = |keep: &mut [bool], pool: &[usize], most| {
        let nodes = |keep: &[bool]| keep.iter().filter(|kept| **kept).count();
        local_search::replace_two_by_one(&scorer, keep, pool, 0.1, &|keep| nodes(keep) <= most).unwrap()
    };
    assert!(!replace_two(&mut keep, &others, 9) && keep == before, "what it needs is not there");
    let all: Vec<usize> = (0..nodes.layout.len()).collect();
    assert!(!replace_two(&mut keep, &all, 2) && keep == before, "three are too many");
    assert!(replace_two(&mut keep, &all, 9));
    assert_eq!(all.iter().copied().filter(|&n| keep[n]).collect::<Vec<_>>(), planted);
    assert!(!replace_two(&mut keep, &all, 9), "three is the least");
}

#[test]
fn one_node_takes_the_place_of_another_where_that_is_smaller() {
    let routes = [PLANTED, route([0, 6, 2])];
    let model = with_routes(&Device::cpu(), &routes);
    let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
    let task_batch = TaskBatch::new(&model, &pairs(32, 999)).unwrap();
    let scorer = CircuitScorer {
        model: (&model, &weights),
        nodes: &nodes,
        task_batch: &task_batch,
        calibration: Default::default(),
    };
    let [first, second] = routes.map(|route| route.map(|node| nodes.layout.number(node).unwrap()));
    let kept = |keep: &[bool]| (0..keep.len()).filter(|&n| keep[n]).collect::<Vec<_>>();
    let all: Vec<usize> = (0..nodes.layout.len()).collect();
    let mut keep: Vec<bool> = all.iter().map(|n| first.contains(n)).collect();
    // Of the two ways, which are equally good, the first shall be the larger.
    let size = |keep: &[bool]| Some(usize::from(keep[first[1]]) + keep.iter().filter(|kept| **kept).count());
    assert!(local_search::replace_one(&scorer, &mut keep, &all, 0.1, &size).unwrap());
    assert_eq!(kept(&keep), second);
    assert!(!local_search::replace_one(&scorer, &mut keep, &all, 0.1, &size).unwrap() && kept(&keep) == second);

    // By nodes and edges they are equals: nothing is to be done, and what is too much goes.
    local_search(&scorer, &mut keep, &all, 0.1).unwrap();
    assert_eq!(kept(&keep), second);
    let spare = all.iter().find(|n| !first.contains(n) && !second.contains(n)).copied().unwrap();
    let mut large: Vec<bool> = all.iter().map(|n| *n == spare || first.contains(n) || second.contains(n)).collect();
    local_search(&scorer, &mut large, &all, 0.1).unwrap();
    assert!([first.to_vec(), second.to_vec()].contains(&kept(&large)), "{:?}", kept(&large));
}

#[test]
fn what_takes_two_routes_has_two_disjoint_circuits() {
    let model = with_routes(&Device::cpu(), &[PLANTED, SECOND]);
    let (weights, mut nodes) = (Weights::constant(&model, &[]), nodes(&model));
    let task_batch = TaskBatch::new(&model, &pairs(32, 999)).unwrap();
    let mut found = Vec::new();
    for _ in 0..2 {
        let tau = learn(&model, &weights, &nodes, &settings());
        let scorer = CircuitScorer {
            model: (&model, &weights),
            nodes: &nodes,
            task_batch: &task_batch,
            calibration: Default::default(),
        };
        let order = prune::rank_nodes(&tau);
        let k = prune::bisect(&scorer, &order, 0.1).unwrap().unwrap();
        let mut keep = prune::keep_first(&order, k);
        prune::greedy_prune(&scorer, &mut keep, 0.1).unwrap();
        let rest: Vec<bool> = keep.iter().map(|kept| !kept).collect();
        found.push(((0..keep.len()).filter(|&n| keep[n]).collect::<Vec<_>>(), scorer.loss(&rest).unwrap().0));
        nodes = nodes.excluding(&keep);
    }
    // One of them is not necessary while the other is there.
    let [(first, without_one), (second, without_both)] = &found[..] else { unreachable!("two circuits were sought") };
    let numbers = |route: [Node; 3]| route.map(|node| nodes.layout.number(node).unwrap()).to_vec();
    let mut both = [first.clone(), second.clone()];
    both.sort();
    assert_eq!(both, [numbers(PLANTED), numbers(SECOND)]);
    assert!(*without_one < 0.1, "{without_one}");
    assert!((without_both - std::f64::consts::LN_2).abs() < 1e-5, "{without_both}");
    let scorer = CircuitScorer {
        model: (&model, &weights),
        nodes: &nodes,
        task_batch: &task_batch,
        calibration: Default::default(),
    };
    let nothing = scorer.loss(&vec![true; nodes.layout.len()]).unwrap().0;
    assert!((nothing - std::f64::consts::LN_2).abs() < 1e-5, "there is no third: {nothing}");
}

/// 400 prompts: enough to be asked in several parts.
#[test]
fn prompts_in_parts_have_the_same_answers_and_losses_beyond_the_limit_are_known_early() {
    for device in devices() {
        let model = planted(&device);
        let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
        let task_batch = TaskBatch::new(&model, &pairs(200, 31)).unwrap();
        let scorer = CircuitScorer {
            model: (&model, &weights),
            nodes: &nodes,
            task_batch: &task_batch,
            calibration: Default::default(),
        };
        let mut rng = rng(17);
        let mut reached = [0, 0];
        for share in [0.0, 0.5, 0.9, 0.97, 1.0] {
            let keep: Vec<bool> = (0..nodes.layout.len()).map(|_| rng.random_bool(share)).collect();
            let gates = || nodes.keep(&keep).unwrap();
            let parts = task_batch.logit_diffs((&model, &weights), &mut gates()).unwrap();
            let whole = task_batch.logit_diffs_at_once((&model, &weights), &mut gates()).unwrap();
            let all = |answers: &LogitDiffs| [&answers.clean[..], &answers.counterfactual[..]].concat();
            for (part, whole) in all(&parts).iter().zip(all(&whole)) {
                assert!((part - whole).abs() <= 1e-5 * (1.0 + whole.abs()), "{part} {whole}");
            }
            let (loss, _) = scorer.loss(&keep).unwrap();
            for limit in [0.02, 0.1, 0.5, 0.69] {
                let within = scorer.within(&keep, limit).unwrap();
                assert_eq!(within, (loss <= limit).then_some(loss), "share {share}, limit {limit}");
                reached[usize::from(within.is_some())] += 1;
            }
        }
        assert!(reached[0] >= 5 && reached[1] >= 5, "{reached:?}");
        // Given up after the first part, where there are parts.
        let mut asked = 0;
        let some = task_batch.logit_diffs_while((&model, &weights), &mut NoHooks, |some| {
            asked += 1;
            assert!((1..400).contains(&(some.clean.len() + some.counterfactual.len())));
            false
        });
        assert_eq!((some.unwrap().is_none(), asked), (device.is_cpu(), usize::from(device.is_cpu())));
    }
}

#[test]
fn absent_nodes_are_never_kept() {
    for device in devices() {
        let model = planted(&device);
        let (weights, all) = (Weights::constant(&model, &[]), nodes(&model));
        let numbers = PLANTED.map(|node| all.layout.number(node).unwrap());
        let keep: Vec<bool> = (0..all.layout.len()).map(|n| n == numbers[1]).collect();
        let rest = all.excluding(&keep);
        assert_eq!(rest.excluded, keep);
        // Without one link of the chain no circuit remains, whatever the gates say.
        let task_batch = TaskBatch::new(&model, &pairs(32, 998)).unwrap();
        let loss = |nodes: &Nodes| {
            CircuitScorer { model: (&model, &weights), nodes, task_batch: &task_batch, calibration: Default::default() }
                .loss(&vec![true; keep.len()])
                .unwrap()
                .0
        };
        assert!(loss(&all) < 0.1, "{}", loss(&all));
        assert!((loss(&rest) - std::f64::consts::LN_2).abs() < 1e-5, "{}", loss(&rest));
        let open = vec![1.0; keep.len()];
        let step = prune::step((&model, &weights), &rest, &task_batch, &open, &settings()).unwrap();
        assert!((step.loss - loss(&rest)).abs() < 0.5 && step.gradient[numbers[1]] == 0.0);
        assert!(
            step.gradient.iter().enumerate().all(|(n, g)| n == numbers[1] || *g != 0.0),
            "the others have their price"
        );
        assert_eq!(all.excluding(&keep).excluding(&[true].repeat(keep.len())).excluded, vec![true; keep.len()]);
    }
}

#[test]
fn attribution_ranks_the_planted_nodes_first() {
    let model = planted(&Device::cpu());
    let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
    let task_batch = TaskBatch::new(&model, &pairs(32, 7)).unwrap();
    let open = vec![1.0; nodes.layout.len()];
    let free = SearchSettings { k_coef: 0.0, ..settings() };
    let step = prune::step((&model, &weights), &nodes, &task_batch, &open, &free).unwrap();
    let scores: Vec<f32> = step.gradient.iter().map(|g| g.abs() as f32).collect();
    let mut first: Vec<_> = prune::rank_nodes(&scores).into_iter().take(3).collect();
    first.sort_unstable();
    assert_eq!(first, PLANTED.map(|node| nodes.layout.number(node).unwrap()));
}

#[test]
fn a_target_out_of_reach_has_no_circuit() {
    let model = planted(&Device::cpu());
    let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
    let mut wrong = pairs(8, 3);
    wrong.iter_mut().for_each(|p| p.counterfactual = p.clean.clone());
    let task_batch = TaskBatch::new(&model, &wrong).unwrap();
    let scorer = CircuitScorer {
        model: (&model, &weights),
        nodes: &nodes,
        task_batch: &task_batch,
        calibration: Default::default(),
    };
    let order: Vec<_> = (0..nodes.layout.len()).collect();
    assert_eq!(prune::bisect(&scorer, &order, 0.1).unwrap(), None);
}

#[test]
fn affine_calibration_is_as_good_as_a_fine_grid() {
    let mut rng = rng(5);
    for _ in 0..40 {
        let (offset, noise) = (rng.random_range(-3.0..3.0), rng.random_range(0.1..2.0));
        let mut side = |sign: f64| -> Vec<f64> {
            (0..24).map(|_| 0.7 + sign * offset + noise * rng.random_range(-1.0..1.0)).collect()
        };
        let answers = LogitDiffs { clean: side(1.0), counterfactual: side(-1.0) };
        let found = answers.loss(answers.calibrate(CalibrationKind::Affine));
        let mut best = f64::INFINITY;
        for i in 1..80 {
            for j in -80..=80 {
                let c = Calibration { scale: f64::from(i) / 8.0, shift: f64::from(j) / 4.0 };
                best = best.min(answers.loss(c));
            }
        }
        assert!(found <= best + 2e-3, "{found} against {best}");
        assert!(found <= answers.loss(Calibration::default()));
    }
}

#[test]
fn scale_calibration_is_as_good_as_a_fine_grid_and_changes_no_answer() {
    let mut rng = rng(6);
    for _ in 0..40 {
        let (offset, noise) = (rng.random_range(-1.0..2.0), rng.random_range(0.1..3.0));
        let mut side = || (0..24).map(|_| offset + noise * rng.random_range(-1.0..1.0)).collect();
        let answers = LogitDiffs { clean: side(), counterfactual: side() };
        let found = answers.calibrate(CalibrationKind::Scale);
        assert_eq!(found.shift, 0.0);
        assert_eq!(answers.accuracy(found), answers.accuracy(Calibration::default()));
        let scales = (0..=7204).map(|i| 10f64.powf(f64::from(i) / 1000.0 - 6.0));
        let losses = scales.map(|scale| answers.loss(Calibration { scale, shift: 0.0 }));
        let best = losses.fold(f64::INFINITY, f64::min);
        assert!((Calibration::MIN_SCALE * 0.999..Calibration::MAX_SCALE * 1.001).contains(&found.scale), "{found:?}");
        assert!(answers.loss(found) <= best + 1e-9, "{} against {best}", answers.loss(found));
        assert_eq!(answers.calibrate(CalibrationKind::None), Calibration::default());
    }
}

/// The numbers of a circuit that answers "alternative" to every prompt.
#[test]
fn a_preference_for_one_answer_is_chance_by_scale_but_not_by_shift() {
    let right = |z: f64| LogitDiffs { clean: vec![-z - 0.0025; 32], counterfactual: vec![z - 0.0025; 32] };
    let answers = right(1.2574);
    let scale = answers.calibrate(CalibrationKind::Scale);
    assert!(answers.loss(scale) >= std::f64::consts::LN_2 && answers.accuracy(scale) == 0.5, "{scale:?}");
    let blind = LogitDiffs {
        clean: [vec![-1.2549; 22], vec![-1.2599; 10]].concat(),
        counterfactual: [vec![1.2599; 22], vec![1.2549; 10]].concat(),
    };
    let affine = blind.calibrate(CalibrationKind::Affine);
    let scale = blind.calibrate(CalibrationKind::Scale);
    assert!(blind.accuracy(affine) > 0.6, "a threshold between the two values: {affine:?}");
    assert!((blind.loss(scale) - std::f64::consts::LN_2).abs() < 1e-3, "{} {scale:?}", blind.loss(scale));
    assert!(affine.scale > 0.0 && affine.scale <= Calibration::MAX_SCALE, "{affine:?}");
    assert!(blind.loss(affine) < blind.loss(scale), "{affine:?}");
}

#[test]
fn impossible_settings_and_questions_are_refused() {
    let model = planted(&Device::cpu());
    for (name, bad) in [
        ("lr", SearchSettings { lr: 0.0, ..settings() }),
        ("lr", SearchSettings { lr: f64::NAN, ..settings() }),
        ("pairs", SearchSettings { pairs: 0, ..settings() }),
        ("beta2", SearchSettings { beta2: 1.0, ..settings() }),
        ("k_coef", SearchSettings { k_coef: -1.0, ..settings() }),
    ] {
        assert!(bad.validate().unwrap_err().to_string().contains(name));
    }
    assert!(TaskBatch::new(&model, &[]).is_err());
    let empty = TokenPair { clean: vec![], counterfactual: vec![1], target: 2, alternative: 3 };
    assert!(TaskBatch::new(&model, &[empty]).is_err());
    let long = TokenPair { clean: vec![4; 13], counterfactual: vec![1], target: 2, alternative: 3 };
    assert!(TaskBatch::new(&model, &[long]).is_err());
    let outside = TokenPair { clean: vec![4], counterfactual: vec![1], target: 2, alternative: 12 };
    assert!(TaskBatch::new(&model, &[outside]).is_err());
    let layout = Layout::new(&model.config);
    let missing = Nodes::new(layout, &BTreeMap::new(), &model.device).err().unwrap().to_string();
    assert!(missing.contains("0.attn.act_in"), "{missing}");
}
