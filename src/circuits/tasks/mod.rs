//! The twenty binary next-token tasks over Python code (Gao et al. 2025, table 1), and tasks of the user's own.
//!
//! A task is an endless, seeded supply of [`Pair`]s: a positive prompt whose right next token is the target, and a negative prompt,
//! differing as little as possible, whose right next token is the alternative. The built-in ones talk as the built-in generator of
//! Python does (same names, same idioms), so that a model trained on it can solve them.
//!
//! What stands at a prompt's end depends on the tokenizer: after `print('hello` one writes `')` and the line's end as two tokens, another
//! as one, a third needs three. A model only knows what its own tokenizer writes, so each task lists its answers in several *variants*, best
//! first, and [`batch`] takes for a tokenizer the first that holds (see [`tokenize`]): the same one for all pairs.
//!
//! The rooms: `template` (the notation the tasks are written in), `surroundings` (names and lines around them), `strings`,
//! `definitions`, `files`, `literals`, `flow` (the tasks, grouped as the generator's idioms are), `tokens` (pairs as a model sees them), `file`
//! (tasks from `.jsonl`). `docs/tasks.md` shows an example of each task.

mod context;
mod definitions;
mod file;
mod files;
mod flow;
mod literals;
mod prefix;
mod strings;
mod template;
mod tokens;

pub use prefix::tokens_sharing_prefix;
pub use tokens::{PairBatch, PairProblem, PromptClass, Skipped, TokenPair, batch, choose_variant, tokenize};

use crate::text::python::sampler::Sampler;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The version of the built-in pairs: the same version, task, split, seed and index give the same pair, on every machine.
pub const VERSION: u32 = 4;

/// Two prompts that differ as little as possible, and what comes next in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The prompt that [`Pair::target`] follows.
    pub clean: String,
    /// The prompt that [`Pair::alternative`] follows.
    pub counterfactual: String,
    /// What follows the positive prompt: text that shall be one token.
    pub target: String,
    /// What follows the negative prompt: text that shall be one token.
    pub alternative: String,
    /// How the positive and the negative code go on after the answer. Decides where the tokenizer cuts; empty where unknown.
    pub after: [String; 2],
    /// Which of the task's templates it was made from; a file's line number.
    pub template: usize,
}

/// Pairs to find circuits with, and pairs to judge them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// To find circuits with.
    Train,
    /// To judge them by: made from other templates, in part with other names.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Split::Train { "train" } else { "test" })
    }
}

/// A supply of pairs: one of the twenty, or a file.
#[derive(Debug, Clone)]
pub struct Task {
    /// What commands and files call it.
    pub name: String,
    /// What the model must choose, in a sentence.
    pub description: String,
    /// Whether both prompts of every pair have equally many tokens. Pairs of such a task for which a tokenizer breaks that are skipped.
    pub same_length: bool,
    /// Set by [`Task::for_tokenizer`].
    variant: Option<usize>,
    source: PairSource,
}

#[derive(Debug, Clone)]
enum PairSource {
    BuiltIn(&'static TaskSpec),
    File { train: Vec<Pair>, test: Vec<Pair> },
}

/// A built-in task: answers and templates in the notation of [`template`].
#[derive(Debug)]
struct TaskSpec {
    name: &'static str,
    description: &'static str,
    same_length: bool,
    variants: &'static [AnswerVariant],
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// A placeholder with one value always.
    fixed: Option<(&'static str, &'static str)>,
}

/// `skip` moves from the completions to the prompts; then `target` or `alternative` follows.
#[derive(Debug)]
struct AnswerVariant {
    skip: &'static str,
    target: &'static str,
    alternative: &'static str,
}

/// A [`AnswerVariant`] in a line.
const fn answers(skip: &'static str, target: &'static str, alternative: &'static str) -> AnswerVariant {
    AnswerVariant { skip, target, alternative }
}

const TABLE: [&TaskSpec; 20] = [
    &strings::SINGLE_DOUBLE_QUOTE,
    &definitions::FINAL_KWARG,
    &strings::SET_OR_STRING,
    &strings::SET_OR_STRING_FIXEDVARNAME,
    &definitions::CLASS_INIT,
    &files::WITH_AS,
    &literals::BRACKET_BRACE,
    &files::WITH_OPEN,
    &literals::BRACKET_COUNTING,
    &flow::FOR_WHILE,
    &flow::ELSE_ELIF,
    &strings::FSTRING_BRACE,
    &flow::IF_TERNARY,
    &literals::VAR_SWAP,
    &flow::INDENT_FOR,
    &definitions::LAMBDA_FUNC,
    &flow::IF_EQUALS,
    &flow::ENUMERATE_RANGE,
    &flow::VAR_IF,
    &definitions::WHILE_RETURN_TRUE,
];

/// The twenty built-in tasks, in the paper's order.
pub fn all() -> Vec<Task> {
    TABLE.iter().map(|spec| Task::built_in(spec)).collect()
}

/// The built-in task of that name.
///
/// # Errors
/// [`Error::Config`] with the closest names if there is none.
pub fn find(name: &str) -> Result<Task> {
    if let Some(spec) = TABLE.iter().find(|spec| spec.name == name) {
        return Ok(Task::built_in(spec));
    }
    let mut names = TABLE.map(|spec| (distance(name, spec.name), spec.name));
    names.sort_unstable();
    let close: Vec<&str> = names[..3].iter().map(|&(_, name)| name).collect();
    let message =
        format!("`{name}` is none of the twenty tasks; close to it: {} (or give a .jsonl file)", close.join(", "));
    Err(Error::config("task", message))
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
    fn built_in(spec: &'static TaskSpec) -> Self {
        Self {
            name: spec.name.into(),
            description: spec.description.into(),
            same_length: spec.same_length,
            variant: None,
            source: PairSource::BuiltIn(spec),
        }
    }

    /// The task with its answers settled to the variant that [`choose_variant`] takes for `tokenizer`, so that it is chosen once.
    ///
    /// # Errors
    /// Those of [`choose_variant`].
    pub fn for_tokenizer(mut self, tokenizer: &Tokenizer) -> Result<Self> {
        self.variant = Some(choose_variant(&self, tokenizer)?);
        Ok(self)
    }

    /// Pair `index` of the stream `seed`, with its answers in the first variant or the one it is [`Task::for_tokenizer`] to. Depends on nothing but
    /// its arguments. A task from a file visits its pairs in an order of the seed, and starts over after the last.
    pub fn pair(&self, split: Split, seed: u64, index: u64) -> Pair {
        self.pair_in(self.variant.unwrap_or(0), split, seed, index)
    }

    /// As [`Task::pair`], with the answers in variant `variant` (the last one if there are fewer; see [`Task::variants`]).
    pub fn pair_in(&self, variant: usize, split: Split, seed: u64, index: u64) -> Pair {
        match &self.source {
            PairSource::BuiltIn(spec) => built_in_pair(spec, variant, split, seed, index),
            PairSource::File { train, test } => {
                let pairs = if split == Split::Train { train } else { test };
                pairs[file::order(pairs.len(), seed, index)].clone()
            }
        }
    }

    /// How many ways of giving the answers there are.
    pub fn variants(&self) -> usize {
        match &self.source {
            PairSource::BuiltIn(spec) => spec.variants.len(),
            PairSource::File { .. } => 1,
        }
    }

    /// How many different pairs a file's split has; `None` for the endless built-in tasks.
    pub fn len(&self, split: Split) -> Option<usize> {
        match (&self.source, split) {
            (PairSource::BuiltIn(_), _) => None,
            (PairSource::File { train, .. }, Split::Train) => Some(train.len()),
            (PairSource::File { test, .. }, Split::Test) => Some(test.len()),
        }
    }

    /// The templates of a built-in task, as [`Pair::template`] numbers them from `0` on in each split; none for a file.
    pub fn templates(&self, split: Split) -> &'static [&'static str] {
        match (&self.source, split) {
            (PairSource::BuiltIn(spec), Split::Train) => spec.train,
            (PairSource::BuiltIn(spec), Split::Test) => spec.test,
            (PairSource::File { .. }, _) => &[],
        }
    }
}

fn built_in_pair(spec: &TaskSpec, variant: usize, split: Split, seed: u64, index: u64) -> Pair {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..12].copy_from_slice(&VERSION.to_le_bytes());
    key[12] = u8::from(split == Split::Test);
    let name = spec.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a: tasks draw from streams of their own
    });
    key[16..24].copy_from_slice(&name.to_le_bytes());
    let templates = if split == Split::Train { spec.train } else { spec.test };
    let mut dice = Sampler::keyed(key, index);
    let template = dice.below(templates.len());
    let mut fill = template::Filler::new(&mut dice, split, spec.fixed);
    let body = context::around(&mut fill, templates[template]);
    let variant = &spec.variants[variant.min(spec.variants.len() - 1)];
    let [skip, target, alternative] =
        [variant.skip, variant.target, variant.alternative].map(|answer| fill.expand(answer));
    let [(clean, clean_rest), (counterfactual, counterfactual_rest)] = template::classes(&fill.expand(&body));
    let after = |rest: &str, answer: &str| {
        rest.strip_prefix(skip.as_str()).and_then(|rest| rest.strip_prefix(answer)).unwrap_or_default().to_string()
    };
    Pair {
        after: [after(&clean_rest, &target), after(&counterfactual_rest, &alternative)],
        clean: clean + &skip,
        counterfactual: counterfactual + &skip,
        target,
        alternative,
        template,
    }
}
