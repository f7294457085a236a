//! The training loop: steps, metrics, evaluations, checkpoints, until done or asked to stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checkpoint;
use super::communicator::{Communication, Communicator};
use super::config::RunConfig;
use super::data::{self, RunData};
use super::estimate::Estimate;
use super::init::InitialModel;
use super::lock::RunLock;
use super::metrics::Metrics;
use super::step::{StepNumbers, StepRecord, Trainer};
use super::train_loop::{TrainLoop, evaluate};
use crate::device::Device;
use crate::files::{check_output_folder, clean_temporaries, write_atomic};
use crate::model::{Batch, Model, Sampling};
use crate::observer::Observer;
use crate::ops::count_nonzero;
use crate::text::bigram::Bigram;
use crate::text::cache::Tokens;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// What a run tells whoever watches it.
pub enum Event<'a> {
    /// The run is about to read its data.
    Planned(&'a Estimate, &'a Device),
    /// The data is ready.
    Data(&'a RunData),
    /// The run continues from a checkpoint with this many steps done.
    Resumed(u64),
    /// A logged step.
    Step(&'a StepProgress),
    /// A checkpoint was written.
    Saved(&'a Path),
    /// All steps are done and saved, or those that there was time for. What remains is measured.
    Trained,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
pub struct StepProgress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The last step's numbers.
    pub numbers: StepNumbers,
    /// The last evaluation's loss on held-out data, in nats.
    pub validation: Option<f64>,
    /// Weights of matrices that are not zero.
    pub nonzeros: u64,
    /// Tokens per second since the last logged step, evaluations and checkpoints aside.
    pub tokens_per_second: f64,
    /// Time left at that speed.
    pub left: Duration,
}

/// How a run ended.
pub struct TrainResult {
    /// The trained model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Whether all steps were done; otherwise the run was asked to stop.
    pub finished: bool,
    /// Loss on held-out data, if all steps were done and its measurement was not stopped.
    pub validation: Option<f64>,
    /// Loss of a smoothed bigram model, fitted on the training tokens, on the same held-out data.
    pub bigram: Option<f64>,
    /// Weights of matrices that are not zero, and how many there are.
    pub nonzeros: (u64, u64),
    /// Tokens per second over the steps of this process.
    pub tokens_per_second: f64,
    /// Time spent in those steps.
    pub spent: Duration,
    /// How much of it went into talking to other ranks, if there are any.
    pub communication: Option<Communication>,
}

/// What a run trains: a [`Trainer`], or one with more to train.
pub trait Trainable {
    /// What a step leaves to be read back when convenient.
    type Record;

    /// The training of the model.
    fn trainer(&self) -> &Trainer;

    /// The trained model, without what only training needs.
    fn into_model(self) -> Model;

    /// Does one step on the sequences of each micro-batch, one after the other, `block_size` tokens
    /// each. Given up in the middle, it leaves everything as it was.
    ///
    /// # Errors
    /// Those of the operations, and [`Error::Stopped`] once it is to stop.
    fn step(&mut self, batches: &[Vec<u32>], observer: &Observer) -> Result<Self::Record>;

    /// Reads a record back, waiting for the device: the numbers of the model's step, and further
    /// ones by their names in metrics.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step and what went wrong.
    fn numbers(&self, record: &Self::Record) -> Result<(StepNumbers, Vec<(String, f64)>)>;

    /// What a record says of the model's step.
    fn step_record<'a>(&self, record: &'a Self::Record) -> &'a StepRecord;

    /// What identifies the numbers that are trained, and those that they are trained against: the
    /// same on all ranks.
    ///
    /// # Errors
    /// Those of the device.
    fn hash(&self) -> Result<String>;

    /// Writes into the folder of a checkpoint what the model and its optimizer do not hold.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    fn save(&self, folder: &Path) -> Result<()>;
}

impl Trainable for Trainer {
    type Record = StepRecord;

    fn trainer(&self) -> &Trainer {
        self
    }

    fn into_model(self) -> Model {
        self.model
    }

    fn step(&mut self, batches: &[Vec<u32>], observer: &Observer) -> Result<StepRecord> {
        let (model, size) = (&self.model, self.optimizer.batch_size);
        let batches = batches.iter().map(|tokens| {
            observer.check()?;
            Batch::new(&model.device, &model.config, tokens, size)
        });
        let batches = batches.collect::<Result<Vec<_>>>()?;
        self.step_observed(&batches, observer)
    }

    fn numbers(&self, record: &StepRecord) -> Result<(StepNumbers, Vec<(String, f64)>)> {
        Ok((Trainer::numbers(self, record)?, Vec::new()))
    }

    fn step_record<'a>(&self, record: &'a StepRecord) -> &'a StepRecord {
        record
    }

    fn hash(&self) -> Result<String> {
        self.model.hash()
    }

    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// At the beginning of a new run.
    New,
    /// At the newest checkpoint of the run in the folder, or at its beginning if there is none.
    Newest,
    /// At the checkpoint of that many steps; later ones are set aside.
    Step(u64),
}

impl From<bool> for StartFrom {
    /// Whether a run is resumed.
    fn from(resume: bool) -> Self {
        if resume { Self::Newest } else { Self::New }
    }
}

/// A run and where it writes.
pub struct Run<'a> {
    /// All settings.
    pub config: RunConfig,
    /// The run's folder.
    pub folder: PathBuf,
    /// Where tokenised corpora are kept for other runs.
    pub cache: PathBuf,
    /// Where the model is trained.
    pub device: Device,
    /// Receives the progress of the data, and stops the run: the step under way is given up (with
    /// several ranks: done), and the ones before it are saved.
    pub observer: Observer<'a>,
    /// The processes that train together. All have the same settings, folder and cache; rank 0
    /// alone writes there.
    pub communicator: Communicator,
}

impl Run<'_> {
    /// Starts a new run, or continues the one in the folder. The folder is locked meanwhile.
    ///
    /// # Errors
    /// Anything that can go wrong, with what it was; what was saved stays. A new run refuses a
    /// folder that already holds one; both refuse one that another process is writing in.
    pub fn execute(&self, start: impl Into<StartFrom>, watch: &mut dyn FnMut(Event<'_>)) -> Result<TrainResult> {
        let fresh = || self.initial_model();
        let estimate = Estimate::new(&self.communicator.share(&self.config)?, &self.device)?;
        self.execute_with(start, estimate, fresh, |trainer, _| Ok(trainer), watch)
    }

    /// The model that training starts from.
    fn initial_model(&self) -> Result<Model> {
        let RunConfig { model, run, .. } = &self.config;
        match &run.init {
            Some(name) => InitialModel::find(name)?.load(model, &self.device),
            None => Model::new(model.clone(), run.seed, &self.device),
        }
    }

    /// As [`Run::execute`], with another trainee than the trainer alone, and its estimate. Training
    /// starts with the model that `fresh` gives; `trainee` is given the trainer and, where the run
    /// continues, the checkpoint's folder.
    ///
    /// # Errors
    /// Those of [`Run::execute`] and of `trainee`.
    pub fn execute_with<L: Trainable>(
        &self,
        start: impl Into<StartFrom>,
        estimate: Estimate,
        fresh: impl FnOnce() -> Result<Model>,
        trainee: impl FnOnce(Trainer, Option<&Path>) -> Result<L>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<TrainResult> {
        let start = start.into();
        self.communicator.assert_all_equal("settings", &self.config.to_toml()?)?;
        let own = self.communicator.share(&self.config)?;
        let estimate = estimate.on_each_of(&self.communicator)?;
        watch(Event::Planned(&estimate, &self.device));
        estimate.check(&self.device)?;
        let _lock = self.communicator.is_root().then(|| self.lock()).transpose()?;
        let data = self.data(start)?;
        self.communicator.assert_all_equal("data (documents, tokenizer or split)", &data.corpus.key)?;
        watch(Event::Data(&data));
        let (trainer, from) = self.trainer(start, &own, &data, fresh, watch)?;
        let mut trainee = trainee(trainer, from.as_deref())?;
        let first = trainee.trainer().steps_done();
        let root = self.communicator.is_root();
        let mut metrics = root.then(|| Metrics::open(&self.folder, Some(first + 1))).transpose()?;
        let held_out = data::held_out(&self.config, &data.corpus.validation)?;
        let train_loop = TrainLoop { run: self, rank_config: &own, data: &data, held_out: &held_out };
        train_loop.assert_ranks_agree(&trainee)?;
        let before = self.communicator.communication();
        let spent = train_loop.run(&mut trainee, metrics.as_mut(), watch)?;
        watch(Event::Trained);

        let communication = self.communicator.communication();
        let done = trainee.trainer().steps_done();
        let finished = done == self.config.train.steps;
        let validation = match (finished && root).then(|| evaluate(trainee.trainer(), &own, &held_out, &self.observer))
        {
            None | Some(Err(Error::Stopped)) => None,
            Some(loss) => Some(loss?),
        };
        let bigram = validation.map(|_| self.bigram_loss(&data, &held_out)).transpose()?;
        let checkpoint = checkpoint::folder(&self.folder).join(format!("step-{done}"));
        let model = trainee.into_model();
        let nonzeros = nonzeros(&model)?;
        let tokens = (done - first) * self.config.tokens_per_step();
        Ok(TrainResult {
            model,
            tokenizer: data.tokenizer,
            checkpoint,
            step: done,
            finished,
            validation,
            bigram,
            nonzeros,
            tokens_per_second: tokens as f64 / spent.as_secs_f64().max(1e-9),
            spent,
            communication: communication.zip(before).map(|(now, before)| now.since(before)),
        })
    }

    /// Locks the run's folder, once it can be written to: found out now, not after a tokenizer has
    /// been trained.
    fn lock(&self) -> Result<RunLock> {
        check_output_folder(&self.folder)?;
        RunLock::take(&self.folder)
    }

    /// The loss of a smoothed bigram model on the held-out sequences, in nats.
    fn bigram_loss(&self, data: &RunData, held_out: &[Vec<u32>]) -> Result<f64> {
        let bigram = Bigram::fit(&data.corpus.train, self.config.model.vocab_size)?;
        bigram.loss(&Tokens::from_ids(&held_out.concat()), held_out.first().map_or(1, Vec::len))
    }

    /// The run's tokenizer and tokens. Rank 0 makes what is not there yet; the others then find it.
    fn data(&self, start: StartFrom) -> Result<RunData> {
        if self.communicator.is_root() {
            let data = data::prepare(&self.config, self.open(start)?, &self.cache, &self.observer);
            if start == StartFrom::New && data.as_ref().is_err_and(|error| !matches!(error, Error::Stopped)) {
                // So that the corrected command finds no run here.
                for name in ["config.toml", "tokenizer.json"] {
                    let _ = std::fs::remove_file(self.folder.join(name));
                }
            }
            let data = data?;
            self.communicator.barrier()?;
            return Ok(data);
        }
        self.communicator.barrier()?;
        let tokenizer = Tokenizer::load(self.folder.join("tokenizer.json"))?;
        data::prepare_as(false, &self.config, tokenizer, &self.cache, &self.observer)
    }

    /// Makes the run's folder with its settings and tokenizer, or reads the tokenizer of the run
    /// that is there.
    fn open(&self, start: StartFrom) -> Result<Tokenizer> {
        let (settings, tokenizer) = (self.folder.join("config.toml"), self.folder.join("tokenizer.json"));
        // A run killed before it had settings is begun anew, not resumed.
        clean_temporaries(&self.folder)?;
        if start != StartFrom::New {
            checkpoint::clean(&self.folder)?;
            return self.kept_tokenizer(&tokenizer, start);
        }
        if settings.exists() {
            return Err(Error::file(
                &settings,
                "a run is already there; resume it (--resume) or choose another folder (--out)",
            ));
        }
        let trained = data::tokenizer(&self.config, &self.observer)?;
        trained.save(&tokenizer)?;
        let text = self.config.to_toml()?;
        // Last, since a folder with settings counts as a run that can be resumed.
        write_atomic(&settings, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(&settings, e)))?;
        Ok(trained)
    }

    /// The tokenizer that the run began with. One that was exchanged is refused here, before it
    /// makes a corpus.
    fn kept_tokenizer(&self, path: &Path, start: StartFrom) -> Result<Tokenizer> {
        if !path.exists() {
            let message = "is missing: a run continues only with the tokenizer that it began with; put that file back";
            return Err(Error::file(path, message));
        }
        let tokenizer = Tokenizer::load(path)?;
        let all = checkpoint::list(&self.folder)?;
        let state = checkpoint::chosen(&self.folder, &all, start)?.and_then(|at| checkpoint::state(&all[at].1).ok());
        match state.is_some_and(|state| state.tokenizer != tokenizer.hash()) {
            true => Err(foreign_tokenizer(path)),
            false => Ok(tokenizer),
        }
    }

    /// The model's training as it starts, or as a checkpoint left it, with that one's folder.
    fn trainer(
        &self,
        start: StartFrom,
        own: &RunConfig,
        data: &RunData,
        fresh: impl FnOnce() -> Result<Model>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Trainer, Option<PathBuf>)> {
        if data.tokenizer.vocab_size() != self.config.model.vocab_size {
            let message = format!(
                "has {} entries, but the model's vocabulary is {}",
                data.tokenizer.vocab_size(),
                self.config.model.vocab_size
            );
            return Err(Error::file(self.folder.join("tokenizer.json"), message));
        }
        let all = checkpoint::list(&self.folder)?;
        let Some(at) = checkpoint::chosen(&self.folder, &all, start)? else {
            let mut trainer = Trainer::new(fresh()?, own.train.clone(), own.sparsity.clone())?;
            trainer.join(self.communicator.clone())?;
            return Ok((trainer, None));
        };
        let (step, path) = &all[at];
        let mut trainer = match self.load(path, own, data) {
            Ok(trainer) => trainer,
            Err(error) => return Err(self.with_whole(error, &all[..at], own, data)),
        };
        trainer.join(self.communicator.clone())?;
        if self.communicator.is_root() {
            checkpoint::set_aside(&self.folder, &all[at + 1..])?;
        }
        watch(Event::Resumed(*step));
        Ok((trainer, Some(path.clone())))
    }

    /// The training that a checkpoint holds, if it is whole and this run's.
    fn load(&self, path: &Path, own: &RunConfig, data: &RunData) -> Result<Trainer> {
        let state = checkpoint::state(path)?;
        state.belongs_to(&self.config, path)?;
        if state.tokenizer != data.tokenizer.hash() {
            return Err(foreign_tokenizer(&self.folder.join("tokenizer.json")));
        }
        if state.corpus != data.corpus.key {
            return Err(Error::file(path.join("state.json"), "the data is no longer what this run was trained on"));
        }
        checkpoint::load(path, &state, own, &self.device)
    }

    /// The error of a damaged checkpoint, and which of the `earlier` ones is whole.
    fn with_whole(&self, error: Error, earlier: &[(u64, PathBuf)], own: &RunConfig, data: &RunData) -> Error {
        if !matches!(error, Error::File { .. } | Error::Io { .. }) {
            return error;
        }
        match earlier.iter().rev().find(|(_, path)| self.load(path, own, data).is_ok()) {
            Some((_, whole)) => Error::Checkpoint { fault: Box::new(error), whole: whole.clone() },
            None => error,
        }
    }
}

fn foreign_tokenizer(path: &Path) -> Error {
    Error::file(path, "is not the tokenizer of this run's checkpoints: put back the one that the run began with")
}

/// How many weights of the model's matrices are not zero, and how many weights they have.
///
/// # Errors
/// Those of the device.
pub fn nonzeros(model: &Model) -> Result<(u64, u64)> {
    let matrices = || model.parameters.iter().filter(|p| p.kind.is_matrix());
    let counts = matrices().map(|p| count_nonzero::forward(p.dense()?)).collect::<Result<Vec<_>>>()?;
    let mut nonzeros = 0;
    for count in counts {
        nonzeros += count.read()?.iter().map(|&c| u64::from(c)).sum::<u64>();
    }
    Ok((nonzeros, matrices().map(|p| p.len() as u64).sum()))
}

/// A few texts sampled from the model.
///
/// # Errors
/// Those of the forward pass and of decoding.
pub fn samples(model: &Model, tokenizer: &Tokenizer, count: usize, seed: u64) -> Result<Vec<String>> {
    let end_of_text = tokenizer.end_of_text();
    (0..count as u64)
        .map(|i| {
            let sampling =
                Sampling { temperature: 0.7, max_new_tokens: 48, end_of_text, seed: seed + i, ..Sampling::default() };
            let prompt = [end_of_text.unwrap_or(0)];
            tokenizer.decode(&model.generate(&prompt, &sampling)?)
        })
        .collect()
}
