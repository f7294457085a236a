//! Circuits of every size by one ranking of the nodes: loss against nodes and edges (method:
//! section 4).

use serde::Serialize;

use super::prune::{self, SearchSettings};
use super::search::{CircuitSearch, OnStep, Ranking};
use super::tasks::{Split, Task, question_name};
use super::{Calibration, LogitDiffs, TaskBatch, graph};
use crate::Result;
use crate::observer::{Observer, Stage};

/// What is measured.
#[derive(Clone, Debug)]
pub struct CurvePlan {
    /// The settings of the ranking. Their seed is the first one.
    pub settings: SearchSettings,
    /// How nodes are ranked.
    pub ranking: Ranking,
    /// Rankings, each with another seed.
    pub seeds: u64,
    /// Losses on the train pairs that the smallest circuits are chosen by.
    pub targets: Vec<f64>,
}

/// The first nodes of a ranking, as a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The seed of the ranking and of the pairs.
    pub seed: u64,
    /// The loss on train pairs that it was chosen by, if by any.
    pub target: Option<f64>,
    /// Nodes.
    pub nodes: usize,
    /// Nonzero weights between them.
    pub edges: usize,
    /// The calibrated task loss on train pairs, in nats.
    pub train_loss: f64,
    /// The task loss on held-out pairs, with the train pairs' calibration.
    pub loss: f64,
    /// The same without calibration.
    pub uncalibrated: f64,
    /// The accuracy on held-out pairs, without calibration.
    pub accuracy: f64,
    /// The loss of the complement on held-out pairs, with its train pairs' calibration.
    pub ablated: f64,
    /// As [`Evaluation::faithfulness`](super::evaluate::Evaluation::faithfulness).
    pub faithfulness: Option<f64>,
}

/// What one ranking after another gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The task.
    pub task: String,
    /// Which of the task's answers the tokenizer takes, from 0.
    pub variant: usize,
    /// The whole model's task loss on held-out pairs, by seed.
    pub model_loss: Vec<f64>,
    /// By seed, then by number of nodes.
    pub points: Vec<CurvePoint>,
    /// By seed, then by target; targets that not even all nodes reach are missing.
    pub targets: Vec<CurvePoint>,
}

/// The numbers of nodes that are measured: 1, 2, 3, 4, 6, 8, 12 and so on, and all.
pub fn sizes(all: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..usize::BITS)
        .flat_map(|bit| [1usize.checked_shl(bit), 3usize.checked_shl(bit)])
        .flatten()
        .filter(|size| (1..all).contains(size))
        .collect();
    sizes.push(all);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

impl CircuitSearch<'_> {
    /// Ranks the nodes once for every seed, and measures the first nodes of each ranking.
    ///
    /// # Errors
    /// Those of the settings, the pairs and the forward pass, and [`Error::Stopped`](crate::Error::Stopped).
    pub fn curve(&self, task: &Task, plan: &CurvePlan, on_step: &OnStep, observer: &Observer) -> Result<Curve> {
        let task = &task.clone().for_tokenizer(self.tokenizer)?;
        let all = vec![true; self.nodes.layout.len()];
        let edges: Vec<[usize; 2]> = {
            let number = |node| self.nodes.layout.number(node).unwrap_or_default();
            let graph = graph(self.model, &self.nodes.layout, &all)?;
            graph.edges.iter().map(|edge| [number(edge.from), number(edge.to)]).collect()
        };
        let mut curve = Curve { task: String::new(), variant: 0, model_loss: vec![], points: vec![], targets: vec![] };
        for seed in (0..plan.seeds).map(|seed| plan.settings.seed.wrapping_add(seed)) {
            // Whether a target can be reached is known at the end.
            let settings = SearchSettings { seed, target_loss: 1e3, ..plan.settings.clone() };
            let scores = self.rank(task, &settings, plan.ranking, on_step)?;
            let order = prune::rank_nodes(&scores);
            let (pairs, train) = self.eval_pairs(task, Split::Train, &settings)?;
            let (_, test) = self.eval_pairs(task, Split::Test, &settings)?;
            curve.variant = pairs.variant;
            curve.task = question_name(&task.name, pairs.variant, task.context);
            let ranked = Ranked::new(self, &settings, (order, &edges), [train, test])?;
            curve.model_loss.push(ranked.model.loss(Calibration::default()));
            let sizes = sizes(ranked.order.len());
            let total = (sizes.len() + plan.targets.len()) as u64;
            let stage = |done| Stage { name: "measuring circuits", done, total: Some(total), unit: "sizes" };
            for (done, nodes) in (0..).zip(sizes) {
                observer.advance(&stage(done))?;
                curve.points.push(ranked.point(nodes, None)?);
            }
            for (done, &target) in (total..).zip(&plan.targets) {
                observer.advance(&stage(done - plan.targets.len() as u64))?;
                let weights = self.weights();
                let scorer = self.scorer(&weights, &ranked.pairs[0], &settings);
                if let Some(nodes) = prune::bisect(&scorer, &ranked.order, target)? {
                    curve.targets.push(ranked.point(nodes, Some(target))?);
                }
            }
        }
        Ok(curve)
    }
}

/// The nodes in order, with all that their measurement needs.
struct Ranked<'a> {
    search: &'a CircuitSearch<'a>,
    settings: &'a SearchSettings,
    order: Vec<usize>,
    /// For every edge, the number of first nodes that have it, in ascending order.
    edges: Vec<usize>,
    /// Of the train and the test split.
    pairs: [TaskBatch; 2],
    /// On held-out pairs.
    model: LogitDiffs,
    /// The mean logit difference of a circuit without nodes, on held-out pairs.
    empty: f64,
}

impl<'a> Ranked<'a> {
    fn new(
        search: &'a CircuitSearch,
        settings: &'a SearchSettings,
        (order, edges): (Vec<usize>, &[[usize; 2]]),
        pairs: [TaskBatch; 2],
    ) -> Result<Self> {
        let mut position = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &n)| position[n] = at);
        let mut edges: Vec<usize> = edges.iter().map(|&[from, to]| position[from].max(position[to]) + 1).collect();
        edges.sort_unstable();
        let none = search.answers(&pairs[1], &vec![false; order.len()])?;
        let (model, empty) = (none.model, none.circuit.mean());
        Ok(Self { search, settings, order, edges, pairs, model, empty })
    }

    fn point(&self, nodes: usize, target: Option<f64>) -> Result<CurvePoint> {
        let keep = prune::keep_first(&self.order, nodes);
        let [train, test] = [self.search.answers(&self.pairs[0], &keep)?, self.search.answers(&self.pairs[1], &keep)?];
        let kind = self.settings.calibration;
        let (calibration, plain) = (train.circuit.calibrate(kind), Calibration::default());
        let (model, empty) = (self.model.mean(), self.empty);
        Ok(CurvePoint {
            seed: self.settings.seed,
            target,
            nodes,
            edges: self.edges.partition_point(|&first| first <= nodes),
            train_loss: train.circuit.loss(calibration),
            loss: test.circuit.loss(calibration),
            uncalibrated: test.circuit.loss(plain),
            accuracy: test.circuit.accuracy(plain),
            ablated: test.complement.loss(train.complement.calibrate(kind)),
            faithfulness: (model > empty).then(|| (test.circuit.mean() - empty) / (model - empty)),
        })
    }
}
