//! Opening a pair of models with their bridges, and what is done with it: evaluation and steering.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::answers::{NextToken, Ranking, SteerResult};
use super::steer::{Change, Channel, Ratio, Steering};
use super::{
    BridgeEvaluation, BridgeFile, Bridges, Objective, PromptPair, Recipe, Strengths, evaluate, residual_channels,
};
use crate::circuits::Circuit;
use crate::circuits::tasks::{self, Split, Task};
use crate::device::Device;
use crate::error::explain;
use crate::formats::{FindOptions, ModelFiles};
use crate::model::{Model, WeightFormat, Weights, expect_model};
use crate::observer::Observer;
use crate::settings::grouped;
use crate::text::python;
use crate::text::sequences::{sequences, sequences_of};
use crate::text::source::Source;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Which models are joined, and the text that they are measured on.
#[derive(Clone, Debug)]
pub struct PairRequest {
    /// The sparse model, in whose folder the bridges are.
    pub sparse: String,
    /// The dense model, if it is no longer where the bridges say.
    pub dense: Option<String>,
    /// A tokenizer to use instead of the sparse model's.
    pub tokenizer: Option<PathBuf>,
    /// Whether models are only taken from this machine.
    pub offline: bool,
    /// Text; none: generated Python that no run trains on.
    pub data: Source,
    /// Tokens of text to read at most, but at least a sequence.
    pub max_tokens: usize,
    /// See [`Device::open`].
    pub device: String,
}

/// A dense and a sparse model with the bridges between them.
pub struct ModelPair {
    /// The dense model.
    pub dense: Model,
    /// The sparse model.
    pub sparse: Model,
    /// The bridges.
    pub bridges: Bridges,
    /// The tokenizer of both.
    pub tokenizer: Tokenizer,
    /// Text that both models can read.
    pub sequences: Vec<Vec<u32>>,
}

impl PairRequest {
    /// Opens the models and reads the text.
    ///
    /// # Errors
    /// Those of [`ModelFiles::find`], [`BridgeFile::open`] and of reading text;
    /// [`Error::Tokenizer`] without a tokenizer.
    pub fn open(&self) -> Result<ModelPair> {
        let (offline, tokenizer) = (self.offline, self.tokenizer.clone());
        let options = FindOptions { offline, tokenizer, progress: true, ..FindOptions::default() };
        let files = ModelFiles::find(&self.sparse, &options)?;
        let folder = files.weights_path.parent().unwrap_or(&files.weights_path);
        let file = BridgeFile::load(folder)?;
        let dense = self.dense.as_ref().map_or_else(|| file.dense_path(folder), PathBuf::from);
        let dense = ModelFiles::find(dense, &FindOptions { tokenizer: None, ..options })
            .map_err(|e| Error::Request(format!("the dense model (--dense names another place): {}", explain(&e))))?;
        let device = Device::open(&self.device)?;
        let sparse = files.pretrained(WeightFormat::Sparse, &device)?;
        let tokenizer = sparse.tokenizer()?.clone();
        let (sparse, dense) = (sparse.model, dense.load(WeightFormat::Sparse, &device)?);
        let hash = dense.hash()?;
        let bridges = file.open(folder, (&dense, hash.as_str()), &sparse)?;
        let length = sparse.config.block_size.min(dense.config.block_size);
        let sequences = if self.data.is_empty() {
            sequences(python::documents(u64::MAX).map(Ok), &tokenizer, length, self.max_tokens)?
        } else {
            sequences_of(&self.data, &tokenizer, length, self.max_tokens)?
        };
        Ok(ModelPair { dense, sparse, bridges, tokenizer, sequences })
    }
}

impl ModelPair {
    /// Evaluates the bridges on the pair's text, `batch_size` sequences at a time.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn evaluate(&self, batch_size: usize, observer: Observer) -> Result<BridgeEvaluation> {
        let weights = Weights::constant(&self.dense, &[]);
        let objective = Objective { observer, ..Objective::new(&self.dense, &weights, &self.sparse, &self.bridges) };
        evaluate(&objective, &self.sequences, batch_size)
    }

    fn block_size(&self) -> usize {
        self.sparse.config.block_size.min(self.dense.config.block_size)
    }
}

/// What steers the dense model, and where its predictions are compared.
#[derive(Clone, Debug)]
pub struct SteerRequest {
    /// The task or prompt.
    pub target: SteerTarget,
    /// Strengths; none: 0 to 1 in tenths, or 0 and the strength of a recipe that was loaded.
    pub strengths: Option<Strengths>,
}

/// What is steered.
#[derive(Clone, Debug)]
pub enum SteerTarget {
    /// The next token after one prompt.
    Prompt(Recipe),
    /// The next token after one prompt, by a recipe's file.
    File(PathBuf),
    /// The answers to pairs of a task.
    Task(TaskSteering),
}

/// Steering on held-out pairs of a task.
#[derive(Clone, Debug)]
pub struct TaskSteering {
    /// Its name, or a `.toml` or `.jsonl` file; none: the circuit's.
    pub task: Option<String>,
    /// A circuit whose residual channels are ranked by their effect; the best one steers.
    pub circuit: Option<PathBuf>,
    /// The channels that steer together, without a circuit.
    pub channels: Vec<Channel>,
    /// How many pairs of each split are measured.
    pub pairs: usize,
    /// Whether counterfactual prompts are steered towards clean ones.
    pub reverse: bool,
    /// Draws of random channels to compare with.
    pub random: usize,
    /// Seeds the draws and the pairs.
    pub seed: u64,
    /// The scale of decoders.
    pub ratio: Ratio,
}

impl SteerRequest {
    /// Opens the models and steers the dense one.
    ///
    /// # Errors
    /// [`Error::Request`] for a request without channels, or of too many numbers;
    /// [`Error::OtherModel`] for a circuit or a recipe of another model; otherwise those of opening
    /// files and of [`Steering`].
    pub fn run(&self, pair: &PairRequest, observer: Observer) -> Result<SteerResult> {
        match &self.target {
            SteerTarget::Task(task) => task.run(pair, self.strengths.clone().unwrap_or_default(), observer),
            SteerTarget::Prompt(recipe) => {
                let strengths = self.strengths.clone().unwrap_or_default();
                next_token(&pair.open()?, recipe, strengths, observer)
            }
            SteerTarget::File(path) => {
                let (recipe, pair) = (Recipe::load(path)?, pair.open()?);
                let what = format!("{} (for {})", path.display(), recipe.sparse.path);
                expect_model(what, "sparse model", &recipe.sparse.hash, &pair.sparse.hash()?)?;
                let strengths = self.strengths.clone().unwrap_or(Strengths(vec![0.0, recipe.strength]));
                next_token(&pair, &recipe, strengths, observer)
            }
        }
    }
}

fn steering<'a>(pair: &'a ModelPair, ratio: Ratio, observer: Observer<'a>) -> Result<Steering<'a>> {
    Ok(Steering::new(&pair.dense, &pair.sparse, &pair.bridges, &pair.sequences, ratio)?.observed(observer))
}

/// Probabilities in memory at once.
const MAX_NUMBERS: u64 = 1 << 27;

/// Returns an error if that many strengths and draws take too much memory.
fn check_size(strengths: &Strengths, draws: usize, vocabulary: usize) -> Result<()> {
    let strengths = strengths.0.len();
    let numbers = [strengths, draws + 1, vocabulary].into_iter().fold(1u64, |all, n| all.saturating_mul(n as u64));
    if numbers > MAX_NUMBERS {
        return Err(Error::Request(format!(
            "{strengths} strengths with {draws} draws are {} probabilities, of {} at most: lower --random, or give \
             fewer strengths",
            grouped(numbers),
            grouped(MAX_NUMBERS)
        )));
    }
    Ok(())
}

fn next_token(pair: &ModelPair, recipe: &Recipe, strengths: Strengths, observer: Observer) -> Result<SteerResult> {
    check_size(&strengths, recipe.random, pair.dense.config.vocab_size)?;
    let steering = steering(pair, recipe.ratio, observer)?;
    let change = recipe.change(&steering, &pair.tokenizer)?;
    let tokens = pair.tokenizer.encode(&recipe.prompt)?;
    let channels: Vec<Channel> = change.amounts().map(|(channel, _)| channel).collect();
    let draws = steering.controls(&channels, recipe.random, recipe.seed);
    let all = std::iter::once(change.clone()).chain(draws.iter().map(|draw| draw.apply(&change)));
    let changes: Vec<Change> =
        all.flat_map(|change| strengths.0.iter().map(move |&strength| change.scaled(strength))).collect();
    let probabilities = steering.probabilities(&tokens, &changes)?;
    let by = if recipe.edits.is_empty() { names(&recipe.nodes) } else { "the edits".into() };
    let mut lists = probabilities.chunks(strengths.0.len().max(1)).map(<[_]>::to_vec);
    let steered = lists.next().unwrap_or_default();
    let next =
        NextToken { strengths: strengths.0, steered, random: lists.collect(), tokenizer: pair.tokenizer.clone() };
    Ok(SteerResult::NextToken { by, next: Box::new(next) })
}

fn names(channels: &[Channel]) -> String {
    channels.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl TaskSteering {
    fn run(&self, pair: &PairRequest, strengths: Strengths, observer: Observer) -> Result<SteerResult> {
        let circuit = self.circuit.as_ref().map(Circuit::load).transpose()?;
        let own = || circuit.as_ref().map(|circuit| circuit.task.question()).unwrap_or_default();
        let task = tasks::open(&self.task.clone().unwrap_or_else(own))?;
        let pair = pair.open()?;
        let ranked = match (&self.circuit, &circuit) {
            (Some(path), Some(circuit)) => {
                let named = path.display().to_string();
                expect_model(&named, "model", &circuit.model.hash, &pair.sparse.hash()?)?;
                let channels = residual_channels(circuit);
                if channels.is_empty() {
                    return Err(Error::file(path, "no node of the circuit reads or writes the residual stream"));
                }
                Some((channels, self.prompts(&task, Split::Train, &pair)?))
            }
            _ if self.channels.is_empty() => {
                let message = "name the channels to steer by with --node, or let --circuit find one";
                return Err(Error::Request(message.into()));
            }
            _ => None,
        };
        check_size(&strengths, self.random, pair.dense.config.vocab_size)?;
        let held_out = self.prompts(&task, Split::Test, &pair)?;
        let steering = steering(&pair, self.ratio, observer)?;
        let ranking = match ranked {
            None => None,
            Some((channels, prompts)) => {
                let (before, candidates) = steering.candidates(&channels, &prompts)?;
                Some(Ranking { prompts: prompts.len(), before, candidates })
            }
        };
        let best = ranking.as_ref().and_then(|ranking| ranking.candidates.first()).map(|best| vec![best.channel]);
        let channels = best.unwrap_or_else(|| self.channels.clone());
        let sweep = steering.sweep(&channels, &held_out, &strengths.0, self.random, self.seed)?;
        Ok(SteerResult::Task { ranking, by: names(&channels), prompts: held_out.len(), sweep })
    }

    fn prompts(&self, task: &Task, split: Split, pair: &ModelPair) -> Result<Vec<PromptPair>> {
        let batch = tasks::batch(task, split, self.seed, 0, self.pairs, &pair.tokenizer, pair.block_size())?;
        if let Some(notes) = batch.notes() {
            tracing::info!("note: {notes}");
        }
        // There are few different answers, and each takes a walk through the vocabulary.
        let mut known = BTreeMap::new();
        let prompt = |tokens: tasks::TokenPair| {
            let key = [tokens.target, tokens.alternative];
            let answers = known.entry(key).or_insert_with(|| tasks::tokens_sharing_prefix(&pair.tokenizer, key));
            let [target, alternative] = answers.clone();
            let mut sides = [(tokens.clean, target), (tokens.counterfactual, alternative)];
            if self.reverse {
                sides.reverse();
            }
            let [(prompt, answer), (counterfactual, other)] = sides;
            PromptPair { prompt, counterfactual, answer, other }
        };
        Ok(batch.tokens.into_iter().map(prompt).collect())
    }
}
