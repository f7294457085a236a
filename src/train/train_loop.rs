//! The steps of a run one after the other, and what happens between them.

use std::time::{Duration, Instant};

use super::checkpoint;
use super::config::RunConfig;
use super::data::{self, RunData};
use super::metrics::{self, Metrics};
use super::run::{Event, Run, StepProgress, Trainable, nonzeros};
use super::step::{StepNumbers, Trainer};
use crate::model::{Batch, LossOutput, NoHooks, Weights};
use crate::observer::Observer;
use crate::tape::Tape;
use crate::{Error, Result};

/// Steps between two looks at whether all ranks still have the same weights.
const COMPARE_EVERY: u64 = 250;
/// What the loss on held-out data is called in the metrics.
const VALIDATION: &str = "validation_loss";

/// The numbers of a step, and further ones by name.
type Numbers = (StepNumbers, Vec<(String, f64)>);

pub(super) struct TrainLoop<'a> {
    pub(super) run: &'a Run<'a>,
    /// This rank's share.
    pub(super) own: &'a RunConfig,
    pub(super) data: &'a RunData,
    pub(super) held_out: &'a [Vec<u32>],
}

impl TrainLoop<'_> {
    /// Trains until all is done or someone wants to stop, logs, evaluates and saves. Without `metrics`, for ranks that only
    /// compute, it only trains. Returns the time spent in steps.
    pub(super) fn run<L: Trainable>(
        &self,
        trainee: &mut L,
        mut metrics: Option<&mut Metrics>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Duration> {
        let config = &self.run.config;
        let (steps, run) = (config.train.steps, &config.run);
        let mut saved = trainee.trainer().steps_done();
        let (mut spent, mut logged) = (Duration::ZERO, (saved, Duration::ZERO));
        let mut pending = Vec::new();
        let mut last: Option<Numbers> = None;
        let mut validation = None;
        if let Some(metrics) = metrics.as_deref_mut() {
            validation = self.make_up(trainee.trainer(), metrics)?;
        }
        while trainee.trainer().steps_done() < steps {
            let started = Instant::now();
            let batches = data::batches(config, &self.data.corpus.train, trainee.trainer().steps_done())?;
            let record = match trainee.step(&self.run.communicator.scatter(batches, self.own), &self.observer()) {
                Ok(record) => record,
                Err(Error::Stopped) => {
                    for record in pending.drain(..) {
                        trainee.numbers(&record)?;
                    }
                    if trainee.trainer().steps_done() > saved {
                        self.save(trainee, watch)?;
                    }
                    break;
                }
                Err(error) => return Err(error),
            };
            pending.push(record);
            let done = trainee.trainer().steps_done();
            let mut stop = self.run.observer.check().is_err();
            let due = |every: u64| self.due(every, done);
            if due(run.log_every)
                || due(run.checkpoint_every)
                || due(run.eval_every)
                || stop
                || self.run.device.is_cpu()
                || self.run.communicator.size() > 1
            {
                // Reading waits for the device, which is why it is put off; but nothing is saved unseen.
                for record in pending.drain(..) {
                    let numbers = trainee.numbers(&record)?;
                    last = Some(self.average(numbers, &mut stop)?);
                }
            }
            spent += started.elapsed();
            if due(run.checkpoint_every) || stop || due(COMPARE_EVERY) {
                self.compare(trainee)?;
            }
            let Some(metrics) = metrics.as_deref_mut() else { if stop { break } else { continue } };
            let mut evaluated = None;
            if due(run.eval_every) {
                match evaluate(trainee.trainer(), self.own, self.held_out, &self.observer()) {
                    Ok(loss) => evaluated = Some(loss),
                    // Made up for when the run goes on.
                    Err(Error::Stopped) => stop = true,
                    Err(error) => return Err(error),
                }
                validation = evaluated.or(validation);
            }
            if let (Some((numbers, more)), true) = (&last, due(run.log_every) || due(run.eval_every)) {
                let progress = self.progress(trainee.trainer(), *numbers, validation, (spent, logged))?;
                logged = (done, spent);
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
                values.extend(evaluated.map(|v| (VALIDATION, v)));
                metrics.log(done, &values)?;
                watch(Event::Step(&progress));
            }
            if due(run.checkpoint_every) || stop {
                self.save(trainee, watch)?;
                saved = done;
            }
            if stop {
                break;
            }
        }
        Ok(spent)
    }

    /// Whether something is due after `done` steps that is done every so many, and after the last one.
    fn due(&self, every: u64, done: u64) -> bool {
        done == self.run.config.train.steps || (every > 0 && done.is_multiple_of(every))
    }

    /// Who may stop this rank in the middle of something. Of several, none can: the others would wait for it.
    fn observer(&self) -> Observer<'_> {
        if self.run.communicator.size() == 1 { self.run.observer } else { Observer::default() }
    }

    /// The evaluation after the last step that was logged, if it was cut off when the run was stopped.
    fn make_up(&self, trainer: &Trainer, metrics: &mut Metrics) -> Result<Option<f64>> {
        let done = trainer.steps_done();
        if done == 0 || !self.due(self.run.config.run.eval_every, done) {
            return Ok(None);
        }
        let logged = metrics::read(&self.run.folder)?;
        if logged.last().is_none_or(|line| line.step != done || line.has(VALIDATION)) {
            return Ok(None);
        }
        match evaluate(trainer, self.own, self.held_out, &self.observer()) {
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

    /// The numbers of a step as all ranks together have them; whether any of them is to stop, all are.
    fn average(&self, own: Numbers, stop: &mut bool) -> Result<Numbers> {
        let (mut numbers, mut more) = own;
        let mut all = vec![f64::from(u8::from(*stop)), numbers.loss];
        all.extend(more.iter().map(|(_, value)| value));
        let mean = self.run.communicator.mean(&all)?;
        (*stop, numbers.loss) = (mean[0] > 0.0, mean[1]);
        more.iter_mut().zip(&mean[2..]).for_each(|((_, value), mean)| *value = *mean);
        Ok((numbers, more))
    }

    /// Complains if not all ranks have the same weights.
    pub(super) fn compare(&self, trainee: &impl Trainable) -> Result<()> {
        let communicator = &self.run.communicator;
        match communicator.size() {
            1 => Ok(()),
            _ => communicator
                .assert_all_equal(&format!("weights after step {}", trainee.trainer().steps_done()), &trainee.hash()?),
        }
    }

    /// Complains if the weights of the last update lead to no finite loss. Only the next step would notice, after they had
    /// been saved and had pushed out a good checkpoint.
    fn check_sound(&self, trainer: &Trainer) -> Result<()> {
        evaluate(trainer, self.own, &self.held_out[..1.min(self.held_out.len())], &Observer::default()).map(drop)
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

/// Mean loss in nats of the sequences' predictions, or [`Error::Stopped`]. Where it is not finite, that is an error that names the first
/// site.
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
