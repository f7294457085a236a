//! How far a circuit can be trusted: losses with any ablation, faithfulness, completeness,
//! minimality, interchange interventions, and controls that would expose a circuit that only seems
//! to do its task (method: section 4).

use std::cell::Cell;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::ablation::Ablation;
use super::prune;
use super::search::CircuitSearch;
use super::subject::{Subject, zeros};
use super::tasks::{Split, Task, TokenPair};
use super::{Calibration, CalibrationKind, Circuit, Edge, LogitDiffs, LossSet, Losses, Node, Nodes};
use crate::Result;
use crate::files::HostTensor;
use crate::model::{Model, Parameters};
use crate::observer::{Observer, Stage};

/// How a circuit is evaluated.
#[derive(Clone, Debug)]
pub struct EvaluationPlan {
    /// What nodes outside of the circuit are set to.
    pub ablation: Ablation,
    /// What is fitted to logit differences, on the train pairs alone.
    pub calibration: CalibrationKind,
    /// Pairs of each split; as many as it was found with, if not given.
    pub pairs: Option<usize>,
    /// Random circuits of equal size to compare it with. 0: no controls with other circuits and
    /// models.
    pub controls: usize,
    /// Whether every node and edge is examined.
    pub parts: bool,
    /// Decides random circuits, weights, donors and answers.
    pub seed: u64,
}

impl Default for EvaluationPlan {
    fn default() -> Self {
        Self {
            ablation: Ablation::Mean,
            calibration: CalibrationKind::Scale,
            pairs: None,
            controls: 10,
            parts: true,
            seed: 0,
        }
    }
}

/// A task loss in nats and an accuracy, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The mean of minus log softmax over the two answers; chance is log 2.
    pub loss: f64,
    /// The share of prompts whose correct answer is the more probable one.
    pub accuracy: f64,
}

/// Scores on the pairs of one split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Of the whole model.
    pub model: Score,
    /// Of the circuit alone.
    pub circuit: Score,
    /// Of the model without the circuit.
    pub complement: Score,
}

/// [`Scores`] on both splits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SplitScores {
    /// On train pairs, by which calibration is fitted.
    pub train: Scores,
    /// On held-out pairs.
    pub test: Scores,
}

/// The mean logit differences, correct minus incorrect answer, on held-out pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanLogitDiffs {
    /// Of the whole model.
    pub model: f64,
    /// Of the circuit alone.
    pub circuit: f64,
    /// Of the model without the circuit.
    pub complement: f64,
    /// Of a circuit without nodes.
    pub empty: f64,
}

/// What a node contributes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// The node.
    pub node: Node,
    /// By how much the circuit's held-out loss rises without it.
    pub delta: f64,
    /// The interchange accuracy of it alone, in the circuit.
    pub interchange_in_circuit: f64,
    /// The same in the whole model.
    pub interchange_in_model: f64,
}

/// What an edge contributes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EdgeReport {
    /// The node that is read.
    pub source: Node,
    /// The node that is written.
    pub target: Node,
    /// By how much the circuit's held-out loss rises without it: it carries the mean of what it
    /// would carry.
    pub delta: f64,
    /// The interchange accuracy of this path alone, in the circuit.
    pub interchange_in_circuit: f64,
}

/// What each part of the circuit contributes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Minimality {
    /// Of each node.
    pub nodes: Vec<NodeReport>,
    /// Of each edge.
    pub edges: Vec<EdgeReport>,
}

/// What should not do the task, on held-out pairs, each with its own calibration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Controls {
    /// Circuits with as many channels of each site, drawn at random, without the edges that the
    /// circuit does without.
    pub random_circuits: Vec<Score>,
    /// The circuit's nodes in the model with all weights shuffled within their tensors; nothing
    /// without controls.
    pub random_weights: Option<Score>,
    /// The circuit in a task whose answers are a coin's, the same for both prompts of a pair.
    pub nonsense_task: Score,
}

/// A condition that a circuit of the task should meet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it says, in words.
    pub claim: String,
    /// What was measured.
    pub value: f64,
    /// What it is compared with.
    pub limit: f64,
    /// Whether it holds.
    pub holds: bool,
}

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The task.
    pub task: String,
    /// Which of the task's answers the tokenizer takes, from 0.
    pub variant: usize,
    /// The hash of the model that it was evaluated in.
    pub model: String,
    /// What nodes outside of the circuit were set to.
    pub ablation: Ablation,
    /// What was fitted to logit differences.
    pub calibration: CalibrationKind,
    /// The circuit's calibration.
    pub circuit_calibration: Calibration,
    /// The complement's.
    pub complement_calibration: Calibration,
    /// Pairs of each split.
    pub pairs: [usize; 2],
    /// The circuit's nodes.
    pub nodes: usize,
    /// Its edges.
    pub edges: usize,
    /// Losses and accuracies of logits as they are.
    pub uncalibrated: SplitScores,
    /// Losses and accuracies after calibration. The model's are not calibrated.
    pub calibrated: SplitScores,
    /// What faithfulness and completeness are made of.
    pub mean_logit_diffs: MeanLogitDiffs,
    /// `(circuit − empty) / (model − empty)` of the mean logit differences: 1 for a circuit as sure
    /// as the model. Nothing if the model itself is no surer than the empty circuit.
    pub faithfulness: Option<f64>,
    /// `1 − (complement − empty) / (model − empty)`: 1 if nothing of the task remains without the
    /// circuit.
    pub completeness: Option<f64>,
    /// The share of held-out prompts for which the whole model gives the other prompt's answer once
    /// the circuit's nodes have their activations there.
    pub interchange_accuracy: f64,
    /// What each node and edge contributes.
    pub minimality: Minimality,
    /// What should not do the task.
    pub controls: Controls,
    /// What should hold for a circuit of the task.
    pub checks: Vec<Check>,
}

/// The least by which a node must raise the loss to count as needed, in nats.
pub const NEEDED: f64 = 0.01;
/// The least loss of what should not do the task, in nats; chance is 0.693.
pub const UNABLE: f64 = 0.6;
/// The least interchange accuracy of a circuit.
pub const INTERCHANGED: f64 = 0.9;
/// How much larger than the model's own a circuit's loss may be.
pub const FACTOR: f64 = 1.5;

/// What a circuit is evaluated on.
#[derive(Clone, Debug)]
pub struct EvaluationPairs {
    /// The name of the task and of what it asks ([`question_name`](super::tasks::question_name)).
    pub task: String,
    /// Which of the task's answers the tokenizer takes, from 0.
    pub variant: usize,
    /// Pairs that calibration is fitted on.
    pub train: Vec<TokenPair>,
    /// Held-out pairs.
    pub test: Vec<TokenPair>,
    /// The loss that the circuit should reach, in nats.
    pub target_loss: f64,
}

impl CircuitSearch<'_> {
    /// Evaluates a circuit, in its task or another one.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the model does not have the nodes, or the task
    /// is not built in; those of the pairs and of the forward pass, and [`Error::Stopped`](crate::Error::Stopped).
    pub fn evaluation(
        &self,
        circuit: &Circuit,
        task: Option<&Task>,
        plan: &EvaluationPlan,
        observer: &Observer,
    ) -> Result<Evaluation> {
        let mut settings = circuit.search_settings()?;
        settings.eval_pairs = plan.pairs.unwrap_or(settings.eval_pairs);
        settings.calibration = plan.calibration;
        let task = match task {
            Some(task) => task.clone().for_tokenizer(self.tokenizer)?,
            None => circuit.resolve_task(None, self.tokenizer)?,
        };
        let train = self.eval_pairs(&task, Split::Train, &settings)?.0;
        let test = self.eval_pairs(&task, Split::Test, &settings)?.0;
        let pairs = EvaluationPairs {
            task: task.question(),
            variant: train.variant,
            train: train.tokens,
            test: test.tokens,
            target_loss: settings.target_loss,
        };
        let search = self.pruning(&circuit.pruned_edges)?;
        search.evaluate_pairs(&circuit.keep(&self.nodes.layout)?, &pairs, plan, observer)
    }

    /// Evaluates a circuit, the nodes in `keep` without [pruned](Nodes::prune_edges) edges, on given
    /// pairs.
    ///
    /// # Errors
    /// Those of the forward pass, and [`Error::Stopped`](crate::Error::Stopped).
    pub fn evaluate_pairs(
        &self,
        keep: &[bool],
        pairs: &EvaluationPairs,
        plan: &EvaluationPlan,
        observer: &Observer,
    ) -> Result<Evaluation> {
        let graph = self.nodes.graph(self.model, keep)?;
        let keep = keep.to_vec();
        let progress = Progress::new(prune::kept_count(&keep) + graph.edges.len(), plan, observer);
        let subject = Subject::new(self, [&pairs.train, &pairs.test], (plan.ablation, plan.seed))?;
        let none = vec![false; keep.len()];
        let complement: Vec<bool> = keep.iter().map(|kept| !kept).collect();

        let mut answers = Vec::new();
        for keep in [None, Some(&keep), Some(&complement), Some(&none)] {
            answers.push(subject.both(keep.map(Vec::as_slice))?);
            progress.step()?;
        }
        let fitted: Vec<Calibration> = answers.iter().map(|[train, _]| train.calibrate(plan.calibration)).collect();
        let (circuit_calibration, complement_calibration) = (fitted[1], fitted[2]);
        let plain = Calibration::default();
        let scores = |split: usize, [of_circuit, of_complement]: [Calibration; 2]| Scores {
            model: Score::of(&answers[0][split], plain),
            circuit: Score::of(&answers[1][split], of_circuit),
            complement: Score::of(&answers[2][split], of_complement),
        };
        let both = |of| SplitScores { train: scores(0, of), test: scores(1, of) };
        let (uncalibrated, calibrated) = (both([plain; 2]), both([circuit_calibration, complement_calibration]));
        let [model, circuit_mean, complement_mean, empty] = [0, 1, 2, 3].map(|at| answers[at][1].mean());
        let share = |mean: f64| (model > empty).then(|| (mean - empty) / (model - empty));

        let interchange_accuracy = subject.interchange(None, &keep)?;
        progress.step()?;
        let loss = |answers: &LogitDiffs| answers.loss(circuit_calibration) - calibrated.test.circuit.loss;
        let minimality = match plan.parts {
            true => subject.minimality(&keep, &graph.edges, &loss, &progress)?,
            false => Minimality::default(),
        };
        let controls = self.controls(&subject, (&keep, &answers[1]), plan, &progress)?;
        let mut evaluation = Evaluation {
            task: pairs.task.clone(),
            variant: pairs.variant,
            model: self.model.hash()?,
            ablation: plan.ablation,
            calibration: plan.calibration,
            circuit_calibration,
            complement_calibration,
            pairs: [pairs.train.len(), pairs.test.len()],
            nodes: prune::kept_count(&keep),
            edges: graph.edges.len(),
            uncalibrated,
            calibrated,
            mean_logit_diffs: MeanLogitDiffs { model, circuit: circuit_mean, complement: complement_mean, empty },
            faithfulness: share(circuit_mean),
            completeness: share(complement_mean).map(|share| 1.0 - share),
            interchange_accuracy,
            minimality,
            controls,
            checks: Vec::new(),
        };
        evaluation.checks = evaluation.check(pairs.target_loss);
        Ok(evaluation)
    }

    fn controls(
        &self,
        subject: &Subject,
        (keep, answers): (&[bool], &[LogitDiffs; 2]),
        plan: &EvaluationPlan,
        progress: &Progress,
    ) -> Result<Controls> {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let score = |[train, test]: &[LogitDiffs; 2]| Score::of(test, train.calibrate(plan.calibration));
        let nonsense = score(&answers.each_ref().map(|diffs| diffs.with_random_answers(&mut rng)));
        let mut random_circuits = Vec::new();
        for _ in 0..plan.controls {
            let keep = random_circuit(&self.nodes, keep, &mut rng);
            random_circuits.push(score(&subject.both(Some(&keep))?));
            progress.step()?;
        }
        let mut random_weights = None;
        if plan.controls > 0 {
            let model = shuffled(self.model, &mut rng)?;
            // Its means over text are not known.
            let ablation = if plan.ablation == Ablation::Mean { Ablation::TaskMean } else { plan.ablation };
            let mut nodes = Nodes::new(self.nodes.layout.clone(), &zeros(&self.nodes.layout), &model.device)?;
            (nodes.excluded, nodes.stop) = (self.nodes.excluded.clone(), self.nodes.stop.clone());
            let other = CircuitSearch { model: &model, nodes, tokenizer: self.tokenizer };
            let subject = Subject::new(&other, subject.pairs, (ablation, plan.seed))?;
            random_weights = Some(score(&subject.both(Some(keep))?));
            progress.step()?;
        }
        Ok(Controls { random_circuits, random_weights, nonsense_task: nonsense })
    }
}

impl Score {
    fn of(answers: &LogitDiffs, calibration: Calibration) -> Self {
        Self { loss: answers.loss(calibration), accuracy: answers.accuracy(calibration) }
    }
}

impl Evaluation {
    /// The losses as a circuit file has them.
    pub fn losses(&self) -> Losses {
        let set = |calibrated: &Scores, plain: &Scores| LossSet {
            model: plain.model.loss,
            circuit: calibrated.circuit.loss,
            circuit_uncalibrated: plain.circuit.loss,
            ablated: calibrated.complement.loss,
            ablated_uncalibrated: Some(plain.complement.loss),
            ablated_calibration: Some(self.complement_calibration),
            accuracy_model: plain.model.accuracy,
            accuracy_circuit: calibrated.circuit.accuracy,
            accuracy_circuit_uncalibrated: Some(plain.circuit.accuracy),
            accuracy_ablated: calibrated.complement.accuracy,
            accuracy_ablated_uncalibrated: Some(plain.complement.accuracy),
        };
        let (calibrated, plain) = (&self.calibrated, &self.uncalibrated);
        Losses { train: set(&calibrated.train, &plain.train), test: set(&calibrated.test, &plain.test) }
    }

    /// What should hold for a circuit of the task, and whether it does.
    fn check(&self, target_loss: f64) -> Vec<Check> {
        let scores = &self.calibrated.test;
        let at_most = target_loss.max(FACTOR * scores.model.loss);
        let (circuit, without) = (scores.circuit.loss, scores.complement.loss);
        let mut checks = Vec::new();
        let mut check = |name, claim: &str, value: f64, limit: f64, holds| {
            checks.push(Check { name, claim: claim.into(), value, limit, holds });
        };
        check("sufficient", "the circuit alone does the task", circuit, at_most, circuit <= at_most);
        check("necessary", "the model without it does not", without, UNABLE, without >= UNABLE);
        let interchanged = self.interchange_accuracy;
        let claim = "with its activations of the other prompt, the model gives that prompt's answer";
        check("interchange", claim, interchanged, INTERCHANGED, interchanged >= INTERCHANGED);
        if let Some(least) = self.minimality.nodes.iter().map(|node| node.delta).min_by(f64::total_cmp) {
            check("minimal", "the loss rises without any of its nodes", least, NEEDED, least >= NEEDED);
        }
        let losses = self.controls.random_circuits.iter().map(|score| score.loss);
        if let Some(least) = losses.min_by(f64::total_cmp) {
            check("random_circuits", "it is better than random circuits of its size", circuit, least, circuit < least);
        }
        if let Some(Score { loss, .. }) = self.controls.random_weights {
            check("random_weights", "random weights do not do the task", loss, UNABLE, loss >= UNABLE);
        }
        let nonsense = self.controls.nonsense_task.loss;
        check("nonsense_task", "it does not do a task of random answers", nonsense, UNABLE, nonsense >= UNABLE);
        checks
    }
}

impl LogitDiffs {
    /// The same where a coin decides for each pair which answers are correct.
    fn with_random_answers(&self, rng: &mut ChaCha8Rng) -> Self {
        let mut other = self.clone();
        for (clean, counterfactual) in other.clean.iter_mut().zip(&mut other.counterfactual) {
            if rng.random::<bool>() {
                (*clean, *counterfactual) = (-*clean, -*counterfactual);
            }
        }
        other
    }
}

/// As many channels of each site as `keep` has, drawn at random from those that may be kept.
fn random_circuit(nodes: &Nodes, keep: &[bool], rng: &mut ChaCha8Rng) -> Vec<bool> {
    let mut random = vec![false; keep.len()];
    for block in nodes.layout.blocks() {
        let allowed: Vec<usize> = block.range().filter(|&n| !nodes.excluded[n]).collect();
        let count = block.range().filter(|&n| keep[n]).count();
        allowed.sample(rng, count).for_each(|&n| random[n] = true);
    }
    random
}

/// The model with the entries of every tensor in random order: the same densities and sizes of
/// weights, without what was learned.
fn shuffled(model: &Model, rng: &mut ChaCha8Rng) -> Result<Model> {
    let mut state = model.parameters.to_host()?;
    state.values_mut().for_each(|HostTensor { data, .. }| data.shuffle(rng));
    let parameters = Parameters::from_host(&model.config, state, &model.device)?;
    Ok(Model { config: model.config.clone(), parameters, device: model.device.clone() })
}

/// How much of an evaluation is done.
struct Progress<'a> {
    observer: &'a Observer<'a>,
    done: Cell<u64>,
    total: u64,
}

impl<'a> Progress<'a> {
    fn new(parts: usize, plan: &EvaluationPlan, observer: &'a Observer) -> Self {
        let parts = if plan.parts { parts } else { 0 };
        let controls = if plan.controls > 0 { plan.controls + 1 } else { 0 };
        Self { observer, done: 0.into(), total: (5 + parts + controls) as u64 }
    }

    fn step(&self) -> Result<()> {
        let done = (self.done.get() + 1).min(self.total);
        self.done.set(done);
        self.observer.advance(&Stage { name: "evaluating the circuit", done, total: Some(self.total), unit: "parts" })
    }
}

impl Subject<'_> {
    /// What each node and edge contributes. `rise` is by how much the loss is higher than the
    /// circuit's.
    fn minimality(
        &self,
        keep: &[bool],
        edges: &[Edge],
        rise: &dyn Fn(&LogitDiffs) -> f64,
        progress: &Progress,
    ) -> Result<Minimality> {
        let mut minimality = Minimality::default();
        for number in (0..keep.len()).filter(|&n| keep[n]) {
            let Some(node) = self.search.nodes.layout.node(number) else { continue };
            let (mut without, mut alone) = (keep.to_vec(), vec![false; keep.len()]);
            (without[number], alone[number]) = (false, true);
            minimality.nodes.push(NodeReport {
                node,
                delta: rise(&self.answers(Split::Test, Some(&without))?),
                interchange_in_circuit: self.interchange(Some(keep), &alone)?,
                interchange_in_model: self.interchange(None, &alone)?,
            });
            progress.step()?;
        }
        for edge in edges {
            minimality.edges.push(EdgeReport {
                source: edge.from,
                target: edge.to,
                delta: rise(&self.without_edge(keep, edge)?),
                interchange_in_circuit: self.interchange_edge(keep, edge)?,
            });
            progress.step()?;
        }
        Ok(minimality)
    }
}
