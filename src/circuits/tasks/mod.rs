//! Binary next-token tasks over Python code: those of Gao et al. 2025, table 1, and tasks of the
//! user's own.
//!
//! A task is a seeded supply of [`Pair`]s: a clean prompt whose correct next token is the target,
//! and a counterfactual prompt, differing as little as possible, whose correct next token is the
//! alternative. The built-in tasks are the files in `tasks/`, one each; their pairs have no end.
//! They use the names and idioms of the built-in generator of Python, so that a model trained on it
//! can solve them.
//!
//! Where a prompt ends depends on the tokenizer: after `print('hello` one writes `')` and the end
//! of the line as two tokens, another as one, a third needs three. A model only knows what its own
//! tokenizer writes, so each task lists its answers in several *variants*, best first, and
//! [`batch`] uses the first one that the tokenizer can write (see [`tokenize`]), the same for all
//! pairs.
//!
//! `spec` reads a task's file, `template` its notation, `context` has the words and lines around
//! it, `tokens` makes pairs into tokens, `jsonl` reads and writes lists of pairs. `docs/tasks.md`
//! has an example of each task.

mod context;
mod jsonl;
mod spec;
mod template;
mod tokens;

use std::path::Path;
use std::sync::Arc;

pub use context::ContextLength;

use serde::{Deserialize, Serialize};

pub use tokens::{
    PairBatch, PairProblem, PromptClass, Skipped, TokenPair, batch, choose_variant, tokenize, tokens_sharing_prefix,
};

use self::spec::{FILES, PairKind, TaskSpec};
use crate::files::read_text;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Two prompts that differ as little as possible, and what comes next in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The prompt that [`Pair::target`] follows.
    pub clean: String,
    /// The prompt that [`Pair::alternative`] follows.
    pub counterfactual: String,
    /// What follows the clean prompt; must be one token.
    pub target: String,
    /// What follows the counterfactual prompt; must be one token.
    pub alternative: String,
    /// The code after each answer, which decides where the tokenizer cuts; empty where unknown.
    pub after: [String; 2],
    /// The number of its template in the split, or of its line in a list.
    pub template: usize,
}

/// Pairs to find circuits with, and held-out pairs to evaluate them on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To find circuits with.
    Train,
    /// To evaluate them on: from other templates, in part with other names.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Split::Train { "train" } else { "test" })
    }
}

/// A supply of pairs, from templates or from a list.
#[derive(Debug, Clone)]
pub struct Task {
    /// The name of its file: which pairs it draws depends on it.
    pub name: String,
    /// The name that it was opened by, and that its circuits' files get: the name, perhaps with a
    /// variant and a context (see [`question_name`]).
    pub title: String,
    /// What the model must choose, in a sentence.
    pub description: String,
    /// The version of its pairs: the same task, version, split, seed and index give the same pair,
    /// on every machine.
    pub version: u32,
    /// `sha256:…` over everything that decides its pairs.
    pub hash: String,
    /// Whether both prompts of every pair have the same number of tokens. Pairs for which a
    /// tokenizer breaks that are skipped.
    pub same_length: bool,
    /// What comes before the question.
    pub context: ContextLength,
    /// Set by [`open`] and [`Task::for_tokenizer`].
    variant: Option<usize>,
    source: PairSource,
}

#[derive(Debug, Clone)]
enum PairSource {
    Templates(Arc<TaskSpec>),
    List { train: Vec<Pair>, test: Vec<Pair> },
}

/// The names of the built-in tasks, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The built-in tasks, in the order of [`names`].
///
/// # Errors
/// Returns [`Error::File`] if a task's file is wrong, which the tests rule out.
pub fn all() -> Result<Vec<Task>> {
    names().map(find).collect()
}

/// The built-in task of that name.
///
/// # Errors
/// Returns [`Error::Config`] with the closest names if there is none.
pub fn find(name: &str) -> Result<Task> {
    if let Some((name, text)) = FILES.iter().find(|(known, _)| *known == name) {
        return Task::from_templates(name, Path::new(&format!("tasks/{name}.toml")), text);
    }
    let mut close: Vec<_> = names().map(|known| (distance(name, known), known)).collect();
    close.sort_unstable();
    let close: Vec<&str> = close.iter().take(3).map(|&(_, name)| name).collect();
    let message =
        format!("there is no task `{name}`; close to it: {} (or give a .toml or .jsonl file)", close.join(", "));
    Err(Error::config("task", message))
}

/// The name of a question: a task's name, with the variant of its answers from the second on, and
/// with its context unless that is short, as in `bracket_counting#2` and `var_if#2+long`.
pub fn question_name(task: &str, variant: usize, context: ContextLength) -> String {
    let variant = if variant > 0 { format!("#{}", variant + 1) } else { String::new() };
    format!("{task}{variant}{}", if context.is_short() { "" } else { LONG_SUFFIX })
}

const LONG_SUFFIX: &str = "+long";

/// The task in a `.toml` or `.jsonl` file, or the built-in task of that name. `#2` after it takes
/// the second variant of the answers, `+long` the long context.
///
/// # Errors
/// Those of [`Task::from_file`], [`find`] and [`Task::with_context`]; [`Error::Config`] for a variant
/// that there is not.
pub fn open(name: &str) -> Result<Task> {
    if Path::new(name).is_file() {
        return Task::from_file(name);
    }
    if let Some(short) = name.strip_suffix(LONG_SUFFIX) {
        return open(short)?.with_context(ContextLength::Long);
    }
    if let Some((plain, number)) = name.rsplit_once('#')
        && let Ok(number) = number.parse::<usize>()
    {
        let task = open(plain)?;
        let count = task.variants();
        let variant = number.checked_sub(1).filter(|&variant| variant < count).ok_or_else(|| {
            Error::config(
                "task",
                format!("{plain} has {count} variants of its answers, counted from 1: there is no {number}"),
            )
        })?;
        return Ok(Task { title: name.into(), variant: Some(variant), ..task });
    }
    let is_file = [".toml", ".jsonl"].iter().any(|ending| name.ends_with(ending));
    if is_file { Task::from_file(name) } else { find(name) }
}

/// All built-in tasks for `all`, otherwise the one that [`open`] opens.
///
/// # Errors
/// Those of [`open`].
pub fn open_all(name: &str) -> Result<Vec<Task>> {
    if name == "all" { all() } else { Ok(vec![open(name)?]) }
}

/// How many letters must change to get from one name to the other (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

impl Task {
    fn from_templates(name: &str, path: &Path, text: &str) -> Result<Self> {
        let spec = TaskSpec::parse(path, text)?;
        Ok(Self {
            name: name.into(),
            title: name.into(),
            description: spec.description.clone(),
            version: spec.version,
            hash: spec.hash(ContextLength::Short),
            same_length: spec.same_length,
            context: ContextLength::Short,
            variant: None,
            source: PairSource::Templates(Arc::new(spec)),
        })
    }

    /// The task in a file, called as the file's stem: templates in a `.toml` file, otherwise one
    /// pair a line, as `.jsonl`. `docs/tasks.md` describes both.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be read, and [`Error::File`] with the line's number for
    /// what is wrong in it, or if a split has no pairs.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_stem().map_or_else(|| "task".into(), |stem| stem.to_string_lossy());
        if path.extension().is_some_and(|extension| extension == "toml") {
            return Self::from_templates(&name, path, &read_text(path)?);
        }
        let (train, test) = jsonl::read(path)?;
        Ok(Self {
            title: name.clone().into_owned(),
            name: name.into_owned(),
            description: format!("pairs from {}", path.display()),
            version: 1,
            hash: jsonl::hash(&train, &test),
            same_length: false,
            context: ContextLength::Short,
            variant: None,
            source: PairSource::List { train, test },
        })
    }

    /// A task of these pairs.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if a split has no pairs.
    pub fn from_pairs(name: &str, train: Vec<Pair>, test: Vec<Pair>) -> Result<Self> {
        if train.is_empty() || test.is_empty() {
            let counts = format!("{} train pairs and {} test pairs", train.len(), test.len());
            return Err(Error::Data(format!("task {name}: {counts}; both splits need at least one")));
        }
        Ok(Self {
            name: name.into(),
            title: name.into(),
            description: format!("{} pairs", train.len() + test.len()),
            version: 1,
            hash: jsonl::hash(&train, &test),
            same_length: false,
            context: ContextLength::Short,
            variant: None,
            source: PairSource::List { train, test },
        })
    }

    /// The task with that context before its questions.
    ///
    /// # Errors
    /// [`Error::Config`] if it is a list of pairs, which have their own.
    pub fn with_context(mut self, context: ContextLength) -> Result<Self> {
        if context == self.context {
            return Ok(self);
        }
        let PairSource::Templates(spec) = &self.source else {
            return Err(Error::config("context", format!("{} is a list of pairs, which have their own", self.name)));
        };
        self.hash = spec.hash(context);
        self.title = match context {
            ContextLength::Long => self.title + LONG_SUFFIX,
            ContextLength::Short => self.title.trim_end_matches(LONG_SUFFIX).into(),
        };
        self.context = context;
        Ok(self)
    }

    /// The name of what it asks, once it is [`Task::for_tokenizer`].
    pub fn question(&self) -> String {
        question_name(&self.name, self.variant.unwrap_or(0), self.context)
    }

    /// The task with its answers settled to the variant that [`choose_variant`] takes for
    /// `tokenizer`, so that it is chosen once.
    ///
    /// # Errors
    /// Those of [`choose_variant`].
    pub fn for_tokenizer(mut self, tokenizer: &Tokenizer) -> Result<Self> {
        self.variant = Some(choose_variant(&self, tokenizer)?);
        Ok(self)
    }

    /// Pair `index` of the stream `seed`, with its answers in the first variant or the one it is
    /// [`Task::for_tokenizer`] to. Depends on nothing but its arguments. A task from a file visits
    /// its pairs in an order of the seed, and starts over after the last.
    pub fn pair(&self, split: Split, seed: u64, index: u64) -> Pair {
        self.pair_in(self.variant.unwrap_or(0), split, seed, index)
    }

    /// As [`Task::pair`], with the answers in variant `variant` (the last one if there are fewer;
    /// see [`Task::variants`]).
    pub fn pair_in(&self, variant: usize, split: Split, seed: u64, index: u64) -> Pair {
        match &self.source {
            PairSource::Templates(spec) => {
                let kind = PairKind { variant, split, context: self.context };
                spec.pair(&self.name, kind, seed, index)
            }
            PairSource::List { train, test } => {
                let pairs = if split == Split::Train { train } else { test };
                pairs[jsonl::order(pairs.len(), seed, index)].clone()
            }
        }
    }

    /// How many ways of giving the answers there are.
    pub fn variants(&self) -> usize {
        match &self.source {
            PairSource::Templates(spec) => spec.answers.len(),
            PairSource::List { .. } => 1,
        }
    }

    /// How many different pairs a file's split has; `None` for the endless built-in tasks.
    pub fn len(&self, split: Split) -> Option<usize> {
        match (&self.source, split) {
            (PairSource::Templates(_), _) => None,
            (PairSource::List { train, .. }, Split::Train) => Some(train.len()),
            (PairSource::List { test, .. }, Split::Test) => Some(test.len()),
        }
    }

    /// The templates of a split, as [`Pair::template`] numbers them from 0; none for a list of
    /// pairs.
    pub fn templates(&self, split: Split) -> Vec<&str> {
        match &self.source {
            PairSource::Templates(spec) => spec.templates(split).iter().map(|text| text.get_ref().as_str()).collect(),
            PairSource::List { .. } => Vec::new(),
        }
    }
}
