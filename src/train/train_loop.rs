//! The steps of a run one after the other, and what happens between them.

use std::time::{Duration, Instant};

use super::checkpoint;
use super::config::RunConfig;
use super::data::RunData;
use super::metrics::{self, Metrics};
use super::run::{Event, Run, StepProgress, Trainable, nonzeros};
use super::step::{StepNumbers, Trainer};
use crate::model::{Batch, LossOutput, NoHooks, Weights};
use crate::observer::Observer;
use crate::tape::Tape;
use crate::{Error, Result};

/// Steps between two checks that all ranks still have the same weights.
const COMPARE_EVERY: u64 = 250;
/// What the loss on held-out data is called in the metrics.
const VALIDATION: &str = "validation_loss";

/// The numbers of a step, and further ones by name.
type Numbers = (StepNumbers, Vec<(String, f64)>);

pub(super) struct TrainLoop<'a> {
    pub(super) run: &'a Run<'a>,
    /// This rank's share.
    pub(super) rank_config: &'a RunConfig,
    pub(super) data: &'a RunData,
    pub(super) held_out: &'a [Vec<u32>],
}

/// What the loop remembers from step to step.
struct LoopState<R> {
    /// Steps done at the last checkpoint.
    saved: u64,
    /// Records not read back yet.
    pending: Vec<R>,
    last: Option<Numbers>,
    /// Norms of every parameter at the last step, if they are due.
    norms: Vec<(String, f64)>,
    validation: Option<f64>,
    /// Time in steps so far, and how much of it, at which step, at the last line of metrics.
    spent: Duration,
    logged: (u64, Duration),
}

impl TrainLoop<'_> {
    /// Trains until all is done or a stop is requested, logs, evaluates and saves. Without
    /// `metrics`, for ranks that only compute, it only trains. Returns the time spent in steps.
    pub(super) fn run<L: Trainable>(
        &self,
        trainee: &mut L,
        mut metrics: Option<&mut Metrics>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Duration> {
        let (steps, run) = (self.run.config.train.steps, &self.run.config.run);
        let first = trainee.trainer().steps_done();
        let mut state = LoopState {
            saved: first,
            pending: Vec::new(),
            last: None,
            norms: Vec::new(),
            validation: None,
            spent: Duration::ZERO,
            logged: (first, Duration::ZERO),
        };
        if let Some(metrics) = metrics.as_deref_mut() {
            state.validation = self.evaluate_missed(trainee.trainer(), metrics)?;
        }
        while trainee.trainer().steps_done() < steps {
            let started = Instant::now();
            if !self.step(trainee, &mut state)? {
                if trainee.trainer().steps_done() > state.saved {
                    self.save(trainee, watch)?;
                }
                break;
            }
            let done = trainee.trainer().steps_done();
            let mut stop = self.run.observer.check().is_err();
            self.read_back(trainee, &mut state, &mut stop)?;
            state.spent += started.elapsed();
            let save = self.due(run.checkpoint_every, done);
            if save || stop || self.due(COMPARE_EVERY, done) {
                self.assert_ranks_agree(trainee)?;
            }
            if let Some(metrics) = metrics.as_deref_mut() {
                self.log(trainee.trainer(), &mut state, metrics, &mut stop, watch)?;
                if save || stop {
                    self.save(trainee, watch)?;
                    state.saved = done;
                }
            }
            if stop {
                break;
            }
        }
        Ok(state.spent)
    }

    /// Does a step. False if it was given up; the numbers of the steps before it are then checked.
    fn step<L: Trainable>(&self, trainee: &mut L, state: &mut LoopState<L::Record>) -> Result<bool> {
        let batches = self.data.batches(&self.run.config, trainee.trainer().steps_done(), &self.observer());
        let stepped = batches.and_then(|batches| {
            trainee.step(&self.run.communicator.scatter(batches, self.rank_config), &self.observer())
        });
        match stepped {
            Ok(record) => {
                state.pending.push(record);
                Ok(true)
            }
            Err(Error::Stopped) => {
                state.pending.drain(..).try_for_each(|record| trainee.numbers(&record).map(drop))?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the numbers of the last steps where they are needed. `stop` becomes true if any rank
    /// is to stop.
    fn read_back<L: Trainable>(&self, trainee: &L, state: &mut LoopState<L::Record>, stop: &mut bool) -> Result<()> {
        let (run, done) = (&self.run.config.run, trainee.trainer().steps_done());
        let every = [run.log_every, run.checkpoint_every, run.eval_every, run.norms_every];
        let due = every.iter().any(|&every| self.due(every, done));
        // Reading waits for the device, which is why it is put off; but nothing is saved unseen.
        if self.norms_due(done)
            && let Some(record) = state.pending.last()
        {
            state.norms = trainee.trainer().norms(trainee.step_record(record))?;
        }
        if due || *stop || self.run.device.is_cpu() || self.run.communicator.size() > 1 {
            for record in state.pending.drain(..) {
                let numbers = trainee.numbers(&record)?;
                state.last = Some(self.average(numbers, stop)?);
            }
        }
        Ok(())
    }

    /// Evaluates and writes a line of metrics, where either is due.
    fn log<R>(
        &self,
        trainer: &Trainer,
        state: &mut LoopState<R>,
        metrics: &mut Metrics,
        stop: &mut bool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let (config, done) = (&self.run.config, trainer.steps_done());
        let mut evaluated = None;
        if self.due(config.run.eval_every, done) {
            match evaluate(trainer, self.rank_config, self.held_out, &self.observer()) {
                Ok(loss) => evaluated = Some(loss),
                // Done when the run continues.
                Err(Error::Stopped) => *stop = true,
                Err(error) => return Err(error),
            }
            state.validation = evaluated.or(state.validation);
        }
        if !self.due(config.run.log_every, done) && !self.due(config.run.eval_every, done) && !self.norms_due(done) {
            return Ok(());
        }
        let Some((numbers, more)) = &state.last else { return Ok(()) };
        let progress = self.progress(trainer, *numbers, state.validation, (state.spent, state.logged))?;
        state.logged = (done, state.spent);
        let mut values = vec![
            ("loss", numbers.loss),
            ("lr", numbers.lr),
            ("density", numbers.density),
            ("embed_density", numbers.embed_density),
            ("grad_rms", numbers.grad_rms),
            ("nonzeros", progress.nonzeros as f64),
            ("tokens", (done * config.tokens_per_step()) as f64),
            ("tokens_per_second", progress.tokens_per_second),
        ];
        values.extend(more.iter().map(|(name, value)| (name.as_str(), *value)));
        let norms = std::mem::take(&mut state.norms);
        values.extend(norms.iter().map(|(name, value)| (name.as_str(), *value)));
        values.extend(evaluated.map(|v| (VALIDATION, v)));
        metrics.log(done, &values)?;
        watch(Event::Step(&progress));
        Ok(())
    }

    /// Whether something is due after `done` steps that is done every so many, and after the last
    /// one.
    fn due(&self, every: u64, done: u64) -> bool {
        done == self.run.config.train.steps || (every > 0 && done.is_multiple_of(every))
    }

    /// Whether norms of every parameter belong to the metrics after `done` steps.
    fn norms_due(&self, done: u64) -> bool {
        let every = self.run.config.run.norms_every;
        every > 0 && self.due(every, done)
    }

    /// Who may stop this rank in the middle of something. Of several, none can: the others would
    /// wait for it.
    fn observer(&self) -> Observer<'_> {
        if self.run.communicator.size() == 1 { self.run.observer } else { Observer::default() }
    }

    /// The evaluation after the last step that was logged, if it was cut off when the run was
    /// stopped.
    fn evaluate_missed(&self, trainer: &Trainer, metrics: &mut Metrics) -> Result<Option<f64>> {
        let done = trainer.steps_done();
        if done == 0 || !self.due(self.run.config.run.eval_every, done) {
            return Ok(None);
        }
        let logged = metrics::read(&self.run.folder)?;
        if logged.last().is_none_or(|line| line.step != done || line.has(VALIDATION)) {
            return Ok(None);
        }
        match evaluate(trainer, self.rank_config, self.held_out, &self.observer()) {
            Ok(loss) => {
                metrics.amend(done, VALIDATION, loss)?;
                Ok(Some(loss))
            }
            // The steps after it are not begun either.
            Err(Error::Stopped) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn save(&self, trainee: &impl Trainable, watch: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        self.check_sound(trainee.trainer())?;
        let (corpus, tokenizer) = (&self.data.corpus.key, self.data.tokenizer.hash());
        let path = checkpoint::save(&self.run.folder, trainee, (corpus, &tokenizer), &self.run.config)?;
        watch(Event::Saved(&path));
        Ok(())
    }

    /// The numbers of a step as all ranks together have them; whether any of them is to stop, all
    /// are.
    fn average(&self, own: Numbers, stop: &mut bool) -> Result<Numbers> {
        let (mut numbers, mut more) = own;
        let mut all = vec![f64::from(u8::from(*stop)), numbers.loss];
        all.extend(more.iter().map(|(_, value)| value));
        let mean = self.run.communicator.mean(&all)?;
        (*stop, numbers.loss) = (mean[0] > 0.0, mean[1]);
        more.iter_mut().zip(&mean[2..]).for_each(|((_, value), mean)| *value = *mean);
        Ok((numbers, more))
    }

    /// Returns an error unless all ranks have the same weights.
    pub(super) fn assert_ranks_agree(&self, trainee: &impl Trainable) -> Result<()> {
        let communicator = &self.run.communicator;
        match communicator.size() {
            1 => Ok(()),
            _ => communicator
                .assert_all_equal(&format!("weights after step {}", trainee.trainer().steps_done()), &trainee.hash()?),
        }
    }

    /// Returns an error if the weights of the last update lead to no finite loss. Only the next
    /// step would notice, after they had been saved and had pushed out a good checkpoint.
    fn check_sound(&self, trainer: &Trainer) -> Result<()> {
        evaluate(trainer, self.rank_config, &self.held_out[..1.min(self.held_out.len())], &Observer::default())
            .map(drop)
    }

    fn progress(
        &self,
        trainer: &Trainer,
        numbers: StepNumbers,
        validation: Option<f64>,
        (spent, logged): (Duration, (u64, Duration)),
    ) -> Result<StepProgress> {
        let (step, steps) = (trainer.steps_done(), self.run.config.train.steps);
        let seconds = (spent - logged.1).as_secs_f64().max(1e-9) / (step - logged.0).max(1) as f64;
        Ok(StepProgress {
            step,
            steps,
            numbers,
            validation,
            nonzeros: nonzeros(&trainer.model)?.0,
            tokens_per_second: self.run.config.tokens_per_step() as f64 / seconds,
            left: Duration::try_from_secs_f64(seconds * (steps - step) as f64).unwrap_or(Duration::MAX),
        })
    }
}

/// Mean loss in nats of the sequences' predictions, or [`Error::Stopped`]. Where it is not finite,
/// that is an error that names the first site.
pub(super) fn evaluate(
    trainer: &Trainer,
    config: &RunConfig,
    sequences: &[Vec<u32>],
    observer: &Observer,
) -> Result<f64> {
    let model = &trainer.model;
    let weights = Weights::constant(model, trainer.compressed());
    let (mut sum, mut predictions) = (0.0, 0);
    for chunk in sequences.chunks(config.train.batch_size) {
        let batch = Batch::new(&model.device, &config.model, &chunk.concat(), chunk.len())?;
        let LossOutput { loss, .. } = model.forward_loss(&mut Tape::new(), &weights, &batch, &mut { *observer })?;
        let loss = loss.value().read()?;
        let finite = model.check_finite("loss", &loss, &weights, &batch, &mut NoHooks);
        finite.map_err(|error| of_held_out(error, trainer.steps_done()))?;
        sum += loss.iter().map(|&loss| f64::from(loss)).sum::<f64>() * batch.predictions() as f64;
        predictions += batch.predictions();
    }
    Ok(sum / predictions as f64)
}

/// What training says of a number that is not finite.
fn of_held_out(error: Error, step: u64) -> Error {
    match error {
        Error::NonFiniteSite { site, value, .. } => {
            Error::NonFinite { step, tensor: format!("loss on held-out data (first of all {site})"), value }
        }
        other => other,
    }
}
