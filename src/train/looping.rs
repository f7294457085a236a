//! The steps of a run one after the other, and what happens between them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::checkpoint;
use super::config::RunConfig;
use super::data::{self, RunData};
use super::metrics::Metrics;
use super::run::{Event, Learner, Progress, Run, nonzeros};
use super::step::{StepNumbers, Trainer};
use crate::model::{Batch, Weights};
use crate::tape::Tape;
use crate::{Error, Result};

/// Steps between two looks at whether all ranks still have the same weights.
const COMPARE_EVERY: u64 = 250;

/// The numbers of a step, and further ones by name.
type Numbers = (StepNumbers, Vec<(String, f64)>);

pub(super) struct Looping<'a> {
    pub(super) run: &'a Run<'a>,
    /// This rank's share.
    pub(super) own: &'a RunConfig,
    pub(super) data: &'a RunData,
    pub(super) held_out: &'a [Vec<u32>],
}

impl Looping<'_> {
    /// Trains until all is done or someone wants to stop, logs, evaluates and saves. Without `metrics`, for ranks that only
    /// compute, it only trains. Returns the time spent in steps.
    pub(super) fn until_done<L: Learner>(
        &self,
        learner: &mut L,
        mut metrics: Option<&mut Metrics>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Duration> {
        let config = &self.run.config;
        let (steps, run) = (config.train.steps, &config.run);
        let (mut spent, mut logged) = (Duration::ZERO, (learner.trainer().steps_done(), Duration::ZERO));
        let mut pending = Vec::new();
        let mut last: Option<Numbers> = None;
        let mut validation = None;
        while learner.trainer().steps_done() < steps {
            let started = Instant::now();
            let batches = data::batches(config, &self.data.corpus.train, learner.trainer().steps_done())?;
            pending.push(learner.step(&self.run.ranks.deal(batches, self.own))?);
            let done = learner.trainer().steps_done();
            let mut stop = self.run.stop.load(Ordering::Relaxed);
            let due = |every: u64| done == steps || (every > 0 && done.is_multiple_of(every));
            if due(run.log_every)
                || due(run.checkpoint_every)
                || due(run.eval_every)
                || stop
                || self.run.device.is_cpu()
                || self.run.ranks.size() > 1
            {
                // Reading waits for the device, which is why it is put off; but nothing is saved unseen.
                for record in pending.drain(..) {
                    let numbers = learner.numbers(&record)?;
                    last = Some(self.average(numbers, &mut stop)?);
                }
            }
            let save = due(run.checkpoint_every) || stop;
            spent += started.elapsed();
            if save || due(COMPARE_EVERY) {
                self.compare(learner)?;
            }
            let Some(metrics) = metrics.as_deref_mut() else { if stop { break } else { continue } };
            if due(run.eval_every) {
                validation = Some(evaluate(learner.trainer(), self.own, self.held_out)?);
            }
            if let (Some((numbers, more)), true) = (&last, due(run.log_every) || due(run.eval_every)) {
                let progress = self.progress(learner.trainer(), *numbers, validation, (spent, logged))?;
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
                values.extend(validation.filter(|_| due(run.eval_every)).map(|v| ("validation_loss", v)));
                metrics.log(done, &values)?;
                watch(Event::Step(&progress));
            }
            if save {
                self.check_sound(learner.trainer())?;
                let (corpus, tokenizer) = (&self.data.corpus.key, self.data.tokenizer.hash());
                let path = checkpoint::save(&self.run.folder, &*learner, corpus, &tokenizer, run.keep_checkpoints)?;
                watch(Event::Saved(&path));
            }
            if stop {
                break;
            }
        }
        Ok(spent)
    }

    /// The numbers of a step as all ranks together have them; whether any of them is to stop, all are.
    fn average(&self, own: Numbers, stop: &mut bool) -> Result<Numbers> {
        let (mut numbers, mut more) = own;
        let mut all = vec![f64::from(u8::from(*stop)), numbers.loss];
        all.extend(more.iter().map(|(_, value)| value));
        let mean = self.run.ranks.mean(&all)?;
        (*stop, numbers.loss) = (mean[0] > 0.0, mean[1]);
        more.iter_mut().zip(&mean[2..]).for_each(|((_, value), mean)| *value = *mean);
        Ok((numbers, more))
    }

    /// Complains if not all ranks have the same weights.
    pub(super) fn compare(&self, learner: &impl Learner) -> Result<()> {
        let ranks = &self.run.ranks;
        match ranks.size() {
            1 => Ok(()),
            _ => ranks.agree(&format!("weights after step {}", learner.trainer().steps_done()), &learner.hash()?),
        }
    }

    /// Complains if the weights of the last update lead to no finite loss. Only the next step would notice, after they had
    /// been saved and had pushed out a good checkpoint.
    fn check_sound(&self, trainer: &Trainer) -> Result<()> {
        evaluate(trainer, self.own, &self.held_out[..1.min(self.held_out.len())]).map(drop)
    }

    fn progress(
        &self,
        trainer: &Trainer,
        numbers: StepNumbers,
        validation: Option<f64>,
        (spent, logged): (Duration, (u64, Duration)),
    ) -> Result<Progress> {
        let (step, steps) = (trainer.steps_done(), self.run.config.train.steps);
        let seconds = (spent - logged.1).as_secs_f64().max(1e-9) / (step - logged.0).max(1) as f64;
        Ok(Progress {
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

/// Mean loss in nats of the sequences' predictions. Where it is not finite, that is an error that names the first site.
pub(super) fn evaluate(trainer: &Trainer, config: &RunConfig, sequences: &[Vec<u32>]) -> Result<f64> {
    let model = &trainer.model;
    let weights = Weights::constant(model, trainer.compressed());
    let (mut sum, mut predictions) = (0.0, 0);
    for chunk in sequences.chunks(config.train.batch_size) {
        let batch = Batch::new(&model.device, &config.model, &chunk.concat(), chunk.len())?;
        let (loss, ..) = model.loss(&mut Tape::new(), &weights, &batch, &mut ())?;
        let loss = loss.value().read()?;
        let finite = model.check_finite(("loss", &loss), &weights, &batch, &mut ());
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
