//! Stopped in the middle of a step or of an evaluation, a run goes on to the same numbers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gossamer::device::Device;
use gossamer::model::Model;
use gossamer::observer::Observer;
use gossamer::train::communicator::Communicator;
use gossamer::train::config::RunConfig;
use gossamer::train::estimate::Estimate;
use gossamer::train::metrics;
use gossamer::train::run::{Run, TrainResult, Trainable};
use gossamer::train::step::{StepNumbers, StepRecord, Trainer};
use gossamer::{Error, Result};
use tempfile::tempdir;

use crate::common::devices;
use crate::tiny::{model, optimizer, schedule, sequences, trainer};

#[test]
fn a_step_that_is_given_up_leaves_everything_as_it_was() {
    for device in devices() {
        let mut trainee = trainer(&device, model(), optimizer(4), schedule());
        let mut other = trainer(&device, model(), optimizer(4), schedule());
        let stop = AtomicBool::new(true);
        for step in 0..4 {
            let batches = [sequences(&model(), step, 4).concat()];
            let stopped = Trainable::step(&mut trainee, &batches, &Observer::stopped_by(&stop));
            assert!(matches!(stopped, Err(Error::Stopped)), "step {step}");
            assert_eq!(trainee.steps_done(), step);
            Trainable::step(&mut trainee, &batches, &Observer::default()).unwrap();
            Trainable::step(&mut other, &batches, &Observer::default()).unwrap();
        }
        assert_eq!(trainee.model.hash().unwrap(), other.model.hash().unwrap());
    }
}

/// A training that is asked to stop once it has done so many steps, as late as can be: when their
/// numbers are read.
struct StoppedAfter<'a> {
    trainer: Trainer,
    step: u64,
    stop: &'a AtomicBool,
}

impl Trainable for StoppedAfter<'_> {
    type Record = StepRecord;

    fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    fn into_model(self) -> Model {
        self.trainer.model
    }

    fn step(&mut self, batches: &[Vec<u32>], observer: &Observer) -> Result<StepRecord> {
        Trainable::step(&mut self.trainer, batches, observer)
    }

    fn numbers(&self, record: &StepRecord) -> Result<(StepNumbers, Vec<(String, f64)>)> {
        self.stop.store(self.trainer.steps_done() == self.step, Ordering::Relaxed);
        Trainable::numbers(&self.trainer, record)
    }

    fn step_record<'a>(&self, record: &'a StepRecord) -> &'a StepRecord {
        record
    }

    fn hash(&self) -> Result<String> {
        Trainable::hash(&self.trainer)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        Trainable::save(&self.trainer, folder)
    }
}

/// Trains twelve steps with an evaluation every third, or until after step `step`.
fn execute(folder: &Path, step: u64, resume: bool) -> TrainResult {
    let mut config = RunConfig::preset("quickstart").unwrap();
    for setting in [
        "train.steps=12",
        "model.n_layer=1",
        "d_model=16",
        "n_head=2",
        "d_head=8",
        "block_size=16",
        "vocab_size=300",
        "d_mlp=32",
        "data.generated_documents=60",
        "data.val_fraction=0.1",
        "batch_size=4",
        "checkpoint_every=0",
        "log_every=1",
        "eval_every=3",
    ] {
        config.set(setting).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (cache, device, observer) = (folder.with_file_name("cache"), Device::cpu(), Observer::stopped_by(&stop));
    let run = Run { config, folder: folder.into(), cache, device, observer, communicator: Communicator::single() };
    let fresh = || Model::new(run.config.model.clone(), 3, &run.device);
    let trainee = |trainer, _: Option<&Path>| Ok(StoppedAfter { trainer, step, stop: &stop });
    run.execute_with(resume, Estimate::new(&run.config, &run.device).unwrap(), fresh, trainee, &mut |_| ()).unwrap()
}

#[test]
fn an_evaluation_that_is_cut_off_is_made_up_for() {
    let dir = tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let want = execute(&whole, 99, false);
    // In the middle, in the middle again, and at the very end.
    let mut resume = false;
    for step in [3, 9, 12] {
        let stopped = execute(&cut, step, resume);
        resume = true;
        assert_eq!((stopped.step, stopped.finished, stopped.validation), (step, step == 12, None));
        let logged = metrics::read(&cut).unwrap();
        assert_eq!(logged.last().map(|line| (line.step, line.has("validation_loss"))), Some((step, false)));
    }
    let got = execute(&cut, 99, true);
    assert_eq!(got.validation, want.validation);
    assert_eq!(got.model.hash().unwrap(), want.model.hash().unwrap());
    let lines = |run: &Path| {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let fields = |line: &str| line.split(',').filter(|f| !f.contains("per_second")).collect::<Vec<_>>().join(",");
        text.lines().map(fields).collect::<Vec<_>>()
    };
    assert_eq!(lines(&cut), lines(&whole));
}
