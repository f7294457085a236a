//! What a user asks `train` for, as data: where the settings start, what replaces them, and where
//! the run is.

use std::path::{Path, PathBuf};

use super::checkpoint;
use super::communicator::Communicator;
use super::config::RunConfig;
use super::init::InitialModel;
use super::lock::claim;
use super::run::{Run, StartFrom};
use crate::device::Device;
use crate::files::check_output;
use crate::observer::Observer;
use crate::settings::count;
use crate::text::source::{DATASET_PREFIX, DEFAULT_FIELD, Source, is_stdin, keep_stdin};
use crate::text::tokenizer::{MIN_VOCAB, Tokenizer};
use crate::{Error, Result};

/// Training tokens in a shard of a stream by default.
pub const SHARD_TOKENS: u64 = 1 << 24;

/// A training run.
#[derive(Clone, Debug, Default)]
pub struct TrainRequest {
    /// The preset whose settings are the start.
    pub preset: String,
    /// A TOML file whose settings replace those.
    pub config: Option<PathBuf>,
    /// Assignments `KEY=VALUE`, which replace those.
    pub set: Vec<String>,
    /// Files, folders and data sets to train on, instead of the settings'.
    pub data: Vec<PathBuf>,
    /// The field or column that has the text, instead of the settings'.
    pub text_field: Option<String>,
    /// Whether to tokenize while the model trains, in shards of [`SHARD_TOKENS`] tokens unless the
    /// settings say otherwise.
    pub stream: bool,
    /// Whether data sets of the Hub are taken from its cache only.
    pub offline: bool,
    /// A `tokenizer.json` to use.
    pub tokenizer: Option<PathBuf>,
    /// The run's folder; none: `runs/NAME`, numbered if taken.
    pub out: Option<PathBuf>,
    /// The model to start from, instead of random weights.
    pub init: Option<String>,
    /// The run to continue, or one of its checkpoints: all of the above is then its own. With
    /// `steps` or `tokens`, a new run continues it by a longer schedule, in the folder `out`.
    pub resume: Option<PathBuf>,
    /// Optimizer steps.
    pub steps: Option<u64>,
    /// Tokens to train on, instead of steps.
    pub tokens: Option<u64>,
    /// The device.
    pub device: Option<String>,
    /// The seed.
    pub seed: Option<u64>,
}

/// A run that is ready to start.
pub struct PreparedRun<'a> {
    /// The run.
    pub run: Run<'a>,
    /// Whether its folder was created for it.
    claimed: bool,
}

impl Drop for PreparedRun<'_> {
    /// A run that failed before it wrote anything leaves no folder.
    fn drop(&mut self) {
        if self.claimed {
            let _ = std::fs::remove_dir(&self.run.folder);
        }
    }
}

impl TrainRequest {
    /// The settings. `adapt` changes the preset before anything else does.
    ///
    /// # Errors
    /// Those of [`RunConfig::preset`], [`RunConfig::overlay_file`], [`RunConfig::set`] and
    /// [`RunConfig::fit_vocabulary`]; [`Error::File`] if there is no run to resume, [`Error::Io`]
    /// for missing data.
    pub fn settings(&self, adapt: impl FnOnce(&mut RunConfig)) -> Result<RunConfig> {
        if let Some(folder) = self.resumed() {
            let path = folder.join("config.toml");
            if !path.exists() {
                return Err(Error::file(folder, "holds no run to resume: it has no config.toml"));
            }
            if self.out.is_some() && !self.extends() {
                let message = "a run continues in its own folder: --out needs --steps or --tokens with --resume";
                return Err(Error::Request(message.into()));
            }
            let config = RunConfig::load(&path)?;
            return Ok(match self.new_steps(&config) {
                Some(steps) => with_steps(config, steps),
                None => config,
            });
        }
        let mut config = RunConfig::preset(&self.preset)?;
        adapt(&mut config);
        let init = self.init.as_deref().map(InitialModel::find).transpose()?;
        init.as_ref().map_or(Ok(()), |init| init.adapt(&mut config))?;
        let mut named = self.config.as_ref().map_or(Ok(Vec::new()), |path| config.overlay_file(path))?;
        named.extend(config.set_all(&self.set)?);
        let has = |key: &str| named.iter().any(|name| name == key);
        if !self.data.is_empty() {
            config.data.paths = self.data.clone();
        }
        if self.stream {
            config.data.shard_tokens.get_or_insert(SHARD_TOKENS);
        }
        if let Some(field) = &self.text_field {
            config.data.text_field = field.clone();
        }
        if has("data.paths") || !self.data.is_empty() {
            config.data.paths = config.data.paths.iter().map(|path| absolute(path)).collect::<Result<_>>()?;
        }
        if has("data.tokenizer") || self.tokenizer.is_some() {
            let path = self.tokenizer.as_ref().or(config.data.tokenizer.as_ref());
            config.data.tokenizer = path.map(|path| absolute(path)).transpose()?;
        }
        // Bridges join two models of one vocabulary, which is compared later.
        if config.bridge.is_none() {
            config.fit_vocabulary(has("model.vocab_size"))?;
        }
        if let Some(init) = &init {
            config.run.init = Some(init.full_name()?);
            init.check(&config)?;
        }
        config.run.seed = self.seed.unwrap_or(config.run.seed);
        config.train.steps = self.new_steps(&config).unwrap_or(config.train.steps);
        Ok(config)
    }

    /// The number of steps that is asked for.
    fn new_steps(&self, config: &RunConfig) -> Option<u64> {
        self.steps.or(self.tokens.map(|tokens| tokens.div_ceil(config.tokens_per_step().max(1))))
    }

    /// Whether a new run continues an earlier one by another schedule.
    fn extends(&self) -> bool {
        self.resume.is_some() && (self.steps.is_some() || self.tokens.is_some())
    }

    /// Whether `resume` names a checkpoint, and not a run: the run's folder and the step.
    fn checkpoint(&self) -> Option<(PathBuf, u64)> {
        let path = self.resume.as_ref().filter(|path| !path.join("config.toml").exists())?;
        checkpoint::run_and_step(path)
    }

    fn resumed(&self) -> Option<PathBuf> {
        self.checkpoint().map(|(run, _)| run).or(self.resume.clone())
    }

    /// Where training starts.
    pub fn start(&self) -> StartFrom {
        match self.checkpoint() {
            Some((_, step)) => StartFrom::Step(step),
            None if self.resume.is_some() => StartFrom::Newest,
            None => StartFrom::New,
        }
    }

    /// Opens the device and the folder of a run with these settings, by default `runs/NAME`. All
    /// ranks share the folder; corpora are kept next to it.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot be trained with; those of [`Device::open`] and of
    /// the folder.
    pub fn prepare<'a>(
        &self,
        mut config: RunConfig,
        name: &str,
        communicator: &Communicator,
        observer: Observer<'a>,
    ) -> Result<PreparedRun<'a>> {
        config.run.device = self.device.clone().unwrap_or(config.run.device);
        config.data.offline = self.offline;
        config.validate()?;
        let device = Device::open_nth(&config.run.device, communicator.topology()?.local_rank)?;
        let source = self.resumed();
        let named = if self.extends() { self.out.clone() } else { source.clone().or(self.out.clone()) };
        let claimed = named.is_none() && communicator.is_root();
        let folder = match (named, &source) {
            (Some(folder), _) => folder,
            // The root's is taken.
            (None, _) if !claimed => PathBuf::new(),
            (None, Some(source)) => claim(&extended(source, config.train.steps)?)?,
            (None, None) => claim(&Path::new("runs").join(name))?,
        };
        let folder = match (communicator.size(), folder.to_str()) {
            (1, _) => folder,
            (_, Some(text)) => PathBuf::from(communicator.broadcast(text)?),
            (_, None) => {
                let message = format!("{}: ranks can only share a folder whose name is UTF-8", folder.display());
                return Err(Error::Communication(message));
            }
        };
        if let Some(source) = source.filter(|_| self.extends() && communicator.is_root()) {
            checkpoint::fork(&source, self.start(), &folder, &config).inspect_err(|_| {
                // A folder that was claimed for it is still empty.
                let _ = claimed.then(|| std::fs::remove_dir(&folder));
            })?;
        }
        communicator.barrier()?;
        let above = match (folder.file_name(), folder.parent()) {
            (Some(_), Some(above)) if above.as_os_str().is_empty() => PathBuf::from("."),
            (Some(_), Some(above)) => above.to_path_buf(),
            // The run is the working folder, or one above it.
            _ => folder.join(".."),
        };
        let (cache, communicator) = (above.join("cache"), communicator.clone());
        for path in config.data.paths.iter_mut().filter(|path| is_stdin(path)) {
            if communicator.size() > 1 {
                return Err(Error::Request("several ranks cannot share a standard input: give them files".into()));
            }
            *path = keep_stdin(path, &cache)?;
        }
        Ok(PreparedRun { run: Run { config, folder, cache, device, observer, communicator }, claimed })
    }
}

/// The settings `config` with `steps` steps, in which the learning rate warms up and the densities
/// fall at the steps at which they did.
fn with_steps(mut config: RunConfig, steps: u64) -> RunConfig {
    let ratio = config.train.steps as f64 / steps.max(1) as f64;
    let fractions =
        [&mut config.train.warmup_frac, &mut config.sparsity.anneal_start_frac, &mut config.sparsity.anneal_stop_frac];
    fractions.into_iter().for_each(|fraction| *fraction = (*fraction * ratio).min(1.0));
    config.train.steps = steps;
    config
}

/// The folder next to the run `source` that continues it to `steps` steps.
fn extended(source: &Path, steps: u64) -> Result<PathBuf> {
    let source = std::path::absolute(source).map_err(|e| Error::io(source, e))?;
    let mut name = source.file_name().unwrap_or_default().to_os_string();
    name.push(format!("-{steps}"));
    Ok(source.with_file_name(name))
}

/// The full path of existing data, so that a run can be resumed from anywhere; the standard input
/// and data sets of the Hub are unchanged. Links stay: each host of a cluster may have its own under
/// one name.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    if is_stdin(path) || path.to_str().is_some_and(|text| text.starts_with(DATASET_PREFIX)) {
        return Ok(path.into());
    }
    path.metadata().and_then(|_| std::path::absolute(path)).map_err(|e| Error::io(path, e))
}

/// A tokenizer to train.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenizerRequest {
    /// A file or folder to train on, - for standard input, or hub:OWNER/NAME; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// The field or column that has the text, in .jsonl, .csv, .tsv and .parquet files
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FIELD)]
    pub text_field: String,
    /// Do not go to the network; take from the Hub's cache what is there
    #[arg(long)]
    pub offline: bool,
    /// Entries, `<|endoftext|>` included
    #[arg(long, default_value_t = 2048, value_parser = count::<usize>(MIN_VOCAB as u64, 1 << 24))]
    pub vocab_size: usize,
    /// Bytes of the data to read at most
    #[arg(long, default_value_t = 50_000_000, value_parser = count::<u64>(1, 1 << 30))]
    pub max_bytes: u64,
    /// The file to write, - for standard output
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    pub out: PathBuf,
}

/// What a tokenizer was trained on.
#[derive(Clone, Copy, Debug)]
pub struct TokenizerSummary {
    /// Entries.
    pub vocab_size: usize,
    /// Documents.
    pub documents: usize,
    /// Bytes of their text.
    pub bytes: u64,
}

impl TokenizerRequest {
    /// Trains the tokenizer and writes it.
    ///
    /// # Errors
    /// Those of reading, training and writing; [`Error::Stopped`].
    pub fn run(&self, observer: &Observer) -> Result<TokenizerSummary> {
        check_output(&self.out)?;
        let source = Source::new(&self.data).with_field(&self.text_field).offline(self.offline);
        let documents = source.sample(self.max_bytes, observer)?;
        let (count, bytes) = (documents.len(), documents.iter().map(|text| text.len() as u64).sum());
        let tokenizer = Tokenizer::train(documents.into_iter(), self.vocab_size, observer)?;
        tokenizer.save(&self.out)?;
        Ok(TokenizerSummary { vocab_size: tokenizer.vocab_size(), documents: count, bytes })
    }
}
