//! Binarisation: a circuit whose nodes each have two states only, and its losses (method: section
//! 4).
//!
//! A node's activation x becomes `high` where x ≥ threshold and `low` otherwise, at every position,
//! after the gates. Thresholds lie at a quarter, a half or three quarters of the way between two
//! levels. The published method trains them through annealed sigmoids; this one chooses them, which
//! needs no gradients: node by node in the order of the forward pass, it takes the step with the
//! least calibrated task loss, with the earlier nodes already binarised and the later ones
//! unchanged.
//!
//! The levels to choose from are the ends of the range of the node's activations, as they arrive
//! with the earlier nodes binarised: those over all positions of the pairs, and those at the
//! prompts' last positions, where the answer is read. If such a range contains zero, its two halves
//! from and to zero are levels too: AbsTopK sets a node that is off to zero, and a node of either
//! sign that is mostly off would otherwise be on everywhere. Every node still has two states.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::prune::CircuitScorer;
use super::search::CircuitSearch;
use super::tasks::{Split, Task};
use super::{Calibration, Circuit, LogitDiffs, Node};
use crate::files::versioned::{Versioned, finite, load_and_save};
use crate::model::{Hooks, Recorder, Site};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// The version of the file that this code writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Where thresholds lie between the levels; of equally good ones the first is taken.
pub const FRACTIONS: [f64; 3] = [0.5, 0.25, 0.75];

/// The step function that replaces a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinaryStep {
    /// The node.
    pub node: Node,
    /// What it becomes below the threshold.
    pub low: f32,
    /// What it becomes from the threshold on.
    pub high: f32,
    /// The threshold.
    pub threshold: f32,
    /// Where between the levels that is: one of [`FRACTIONS`].
    pub fraction: f64,
}

/// A circuit whose nodes are all binary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binary {
    /// [`VERSION`].
    pub version: u32,
    /// The hash of the model, as in the circuit file.
    pub model: String,
    /// The circuit's task.
    pub task: String,
    /// The nodes' steps, in the order of the forward pass.
    pub steps: Vec<BinaryStep>,
    /// For each step the task loss of the circuit with this step alone, calibrated anew.
    pub alone: Vec<f64>,
    /// The calibration of the binary circuit.
    pub calibration: Calibration,
    /// On the pairs that the circuit was chosen by.
    pub train: BinaryLoss,
    /// On pairs from other templates.
    pub test: BinaryLoss,
}

/// Task losses and accuracies (0 to 1) of a circuit and of its binary counterpart, each with its
/// own calibration from the train pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BinaryLoss {
    /// The loss of the circuit.
    pub circuit: f64,
    /// The loss of the binary circuit.
    pub binary: f64,
    /// The accuracy of the circuit.
    pub accuracy_circuit: f64,
    /// That of the binary circuit.
    pub accuracy_binary: f64,
}

/// Hooks that apply steps while a model runs.
pub struct BinarySteps(BTreeMap<Site, Vec<BinaryStep>>);

impl BinarySteps {
    /// Hooks that apply `steps`, of different nodes.
    pub fn new(steps: &[BinaryStep]) -> Self {
        let mut sites: BTreeMap<_, Vec<_>> = BTreeMap::new();
        steps.iter().for_each(|step| sites.entry(step.node.site()).or_default().push(*step));
        Self(sites)
    }
}

impl Hooks for BinarySteps {
    /// The value goes through the host, without gradients.
    fn on_activation(&mut self, _: &mut Tape, site: Site, value: Var) -> Result<Var> {
        let Some(steps) = self.0.get(&site) else { return Ok(value) };
        let tensor = value.value();
        let mut values = tensor.read()?;
        let width = tensor.shape().last().copied().unwrap_or(1).max(1);
        if let Some(step) = steps.iter().find(|step| step.node.index >= width) {
            return Err(Error::Mismatch(format!("the model has no node {}", step.node)));
        }
        for row in values.chunks_exact_mut(width) {
            for step in steps {
                let x = &mut row[step.node.index];
                *x = if *x >= step.threshold { step.high } else { step.low };
            }
        }
        Ok(Var::constant(tensor.device().upload("binary activations", tensor.shape(), &values)?))
    }
}

impl CircuitScorer<'_> {
    /// The answers of the nodes in `keep` alone, with `steps` applied.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn stepped(&self, keep: &[bool], steps: &[BinaryStep]) -> Result<LogitDiffs> {
        self.task_batch.logit_diffs(self.model, &mut (self.nodes.keep(keep)?, BinarySteps::new(steps)))
    }

    /// Chooses the steps of all nodes in `keep`.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn binarise(&self, keep: &[bool]) -> Result<Vec<BinaryStep>> {
        let mut steps = Vec::new();
        for number in (0..keep.len()).filter(|&n| keep[n]) {
            let Some(node) = self.nodes.layout.node(number) else { continue };
            let mut best: Option<(f64, BinaryStep)> = None;
            for step in candidates(node, &self.ranges_of(node, keep, &steps)?) {
                steps.push(step);
                let diffs = self.stepped(keep, &steps)?;
                steps.pop();
                let loss = diffs.loss(diffs.calibrate(self.calibration));
                if best.is_none_or(|(least, _)| loss < least) {
                    best = Some((loss, step));
                }
            }
            steps.extend(best.map(|(_, step)| step));
        }
        Ok(steps)
    }

    /// The ranges of a node's activations over all positions and over the prompts' last positions,
    /// with `steps` applied before it.
    fn ranges_of(&self, node: Node, keep: &[bool], steps: &[BinaryStep]) -> Result<[(f32, f32); 2]> {
        let mut sites = ((self.nodes.keep(keep)?, BinarySteps::new(steps)), Recorder::of([node.site()]));
        self.task_batch.logit_diffs_on_tape(self.model, &mut Tape::new(), &mut sites)?;
        let missing = || Error::Mismatch(format!("the model has no node {node}"));
        let value = sites.1.values.get(&node.site()).ok_or_else(missing)?;
        let values = value.value().read()?;
        let mut again = (self.nodes.keep(keep)?, BinarySteps::new(steps));
        self.task_batch.check_finite((&node.site().to_string(), &values), self.model, &mut again)?;
        let &[_, padded, width] = value.value().shape() else { return Err(missing()) };
        let mut ranges = [(f32::MAX, f32::MIN); 2];
        for (b, &length) in self.task_batch.lengths.iter().enumerate() {
            for t in 0..length {
                let x = values[(b * padded + t) * width + node.index] + 0.0;
                let counts = if t + 1 == length { &mut ranges[..] } else { &mut ranges[..1] };
                counts.iter_mut().for_each(|(low, high)| (*low, *high) = (low.min(x), high.max(x)));
            }
        }
        Ok(ranges)
    }
}

/// All steps that a node may take, the simplest first.
fn candidates(node: Node, ranges: &[(f32, f32)]) -> Vec<BinaryStep> {
    let (mut steps, mut seen) = (Vec::new(), BTreeSet::new());
    for &(low, high) in ranges {
        let halves = [(low, 0.0), (0.0, high)];
        let halves = if low < 0.0 && 0.0 < high { &halves[..] } else { &[] };
        for (low, high) in [(low, high)].into_iter().chain(halves.iter().copied()) {
            if seen.insert((low.to_bits(), high.to_bits())) {
                steps.extend(FRACTIONS.map(|fraction| {
                    let threshold = f64::from(low) + fraction * (f64::from(high) - f64::from(low));
                    BinaryStep { node, low, high, threshold: threshold as f32, fraction }
                }));
            }
        }
    }
    steps
}

impl CircuitSearch<'_> {
    /// Binarises a circuit on the pairs that it was chosen by, and evaluates it on those and on
    /// held-out ones. `task` is the circuit's task, if that is not built in.
    pub(crate) fn binarise(&self, circuit: &Circuit, task: Option<Task>) -> Result<Binary> {
        circuit.check_part_of(self.model)?;
        let search = self.pruning(&circuit.pruned_edges)?;
        let (keep, settings) = (circuit.keep(&self.nodes.layout)?, circuit.search_settings()?);
        let task = circuit.resolve_task(task, self.tokenizer)?;
        let (_, train) = self.eval_pairs(&task, Split::Train, &settings)?;
        let (_, test) = self.eval_pairs(&task, Split::Test, &settings)?;
        let weights = self.weights();
        let (choosing, held_out) =
            (search.scorer(&weights, &train, &settings), search.scorer(&weights, &test, &settings));

        let steps = choosing.binarise(&keep)?;
        let mut alone = Vec::new();
        for step in &steps {
            let diffs = choosing.stepped(&keep, &[*step])?;
            alone.push(diffs.loss(diffs.calibrate(settings.calibration)));
        }
        let circuit_calibration = choosing.logit_diffs(&keep)?.calibrate(settings.calibration);
        let calibration = choosing.stepped(&keep, &steps)?.calibrate(settings.calibration);
        let losses = |scorer: &CircuitScorer| -> Result<BinaryLoss> {
            let (circuit, binary) = (scorer.logit_diffs(&keep)?, scorer.stepped(&keep, &steps)?);
            Ok(BinaryLoss {
                circuit: circuit.loss(circuit_calibration),
                binary: binary.loss(calibration),
                accuracy_circuit: circuit.accuracy(circuit_calibration),
                accuracy_binary: binary.accuracy(calibration),
            })
        };
        let (train, test) = (losses(&choosing)?, losses(&held_out)?);
        let task = circuit.task.name.clone();
        Ok(Binary { version: VERSION, model: self.model.hash()?, task, steps, alone, calibration, train, test })
    }
}

load_and_save!(Binary);

impl Versioned for Binary {
    const WHAT: &'static str = "file of a binary circuit";
    const VERSION: u32 = VERSION;

    fn check(&self) -> Result<(), String> {
        if self.alone.len() != self.steps.len() {
            return Err(format!("{} losses of {} steps", self.alone.len(), self.steps.len()));
        }
        let mut nodes = BTreeSet::new();
        for (step, &alone) in self.steps.iter().zip(&self.alone) {
            let name = step.node;
            if !nodes.insert(name) {
                return Err(format!("node {name} is listed twice"));
            }
            for value in [step.low.into(), step.high.into(), step.threshold.into(), step.fraction, alone] {
                finite(&format!("a number of {name}"), value)?;
            }
            if !(step.low <= step.threshold && step.threshold <= step.high) {
                return Err(format!("{name}: the threshold is not between the levels"));
            }
        }
        finite("calibration.scale", self.calibration.scale)?;
        finite("calibration.shift", self.calibration.shift)?;
        for (name, set) in [("train", self.train), ("test", self.test)] {
            for value in [set.circuit, set.binary, set.accuracy_circuit, set.accuracy_binary] {
                finite(name, value)?;
            }
        }
        Ok(())
    }
}
