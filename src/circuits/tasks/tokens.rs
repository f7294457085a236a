//! Pairs as a model sees them.

use std::fmt;

use super::{Pair, Split, Task, question_name};
use crate::text::notation::{token, visible};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A pair in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The clean prompt.
    pub clean: Vec<u32>,
    /// The counterfactual prompt.
    pub counterfactual: Vec<u32>,
    /// What follows the clean prompt.
    pub target: u32,
    /// What follows the counterfactual prompt.
    pub alternative: u32,
}

/// The two members of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptClass {
    /// The clean prompt and the target.
    Clean,
    /// The counterfactual prompt and the alternative.
    Counterfactual,
}

impl PromptClass {
    fn answer(self) -> &'static str {
        match self {
            PromptClass::Clean => "target",
            PromptClass::Counterfactual => "alternative",
        }
    }
}

/// Why a pair cannot be used with this tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairProblem {
    /// An answer is not one token.
    NotSingle {
        /// Whose answer.
        side: PromptClass,
        /// The answer.
        answer: String,
        /// The tokens it splits into, as text to show.
        pieces: Vec<String>,
    },
    /// An answer is one token, but the tokenizer cuts the code there differently, so that a model
    /// never saw it there.
    Boundary {
        /// Whose answer.
        side: PromptClass,
        /// The answer.
        answer: String,
        /// The tokens of the prompt's end and the answer, as text, as the tokenizer writes them
        /// there.
        written: Vec<String>,
    },
    /// Both answers are the same token.
    SameAnswer(String),
    /// The prompts differ in their number of tokens, although the task requires the same.
    Lengths(usize, usize),
    /// Cropping to the longest allowed prompt removed the difference between the prompts.
    Cropped,
    /// The tokenizer failed.
    Tokenizer(String),
}

impl PairProblem {
    /// The kind of problem, in words. Skipped pairs are counted by it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            PairProblem::NotSingle { .. } => "an answer is not a single token",
            PairProblem::Boundary { .. } => "the tokenizer cuts elsewhere before an answer",
            PairProblem::SameAnswer(_) => "both answers are the same token",
            PairProblem::Lengths(..) => "the prompts differ in length",
            PairProblem::Cropped => "cropping leaves no difference",
            PairProblem::Tokenizer(_) => "the tokenizer fails",
        }
    }
}

impl fmt::Display for PairProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PairProblem::NotSingle { side, answer, pieces } => {
                write!(
                    f,
                    "the {} {} is not a single token but {}: {}",
                    side.answer(),
                    token(answer),
                    pieces.len(),
                    quoted(pieces)
                )
            }
            PairProblem::Boundary { side, answer, written } => {
                write!(
                    f,
                    "the {} {} is no token where it stands: the tokenizer writes {}",
                    side.answer(),
                    token(answer),
                    quoted(written)
                )
            }
            PairProblem::SameAnswer(answer) => write!(f, "both answers are the token {}", token(answer)),
            PairProblem::Lengths(clean, counterfactual) => {
                write!(f, "the prompts have {clean} and {counterfactual} tokens, and the task wants equally many")
            }
            PairProblem::Cropped => f.write_str("the cropped prompts are equal: allow longer ones"),
            PairProblem::Tokenizer(error) => f.write_str(error),
        }
    }
}

fn quoted(pieces: &[String]) -> String {
    pieces.iter().map(|piece| token(piece)).collect::<Vec<_>>().join(" ")
}

/// A pair in tokens: each answer is one token, the tokens of prompt, answer and the code after it
/// ([`Pair::after`]) begin with the prompt's tokens and the answer, and the answers differ.
///
/// # Errors
/// The first [`PairProblem`] met.
pub fn tokenize(pair: &Pair, tokenizer: &Tokenizer) -> Result<TokenPair, PairProblem> {
    let target = single(PromptClass::Clean, &pair.target, tokenizer)?;
    let alternative = single(PromptClass::Counterfactual, &pair.alternative, tokenizer)?;
    if target == alternative {
        return Err(PairProblem::SameAnswer(pair.target.clone()));
    }
    let clean = prompt(PromptClass::Clean, &pair.clean, &pair.target, target, &pair.after[0], tokenizer)?;
    let counterfactual = prompt(
        PromptClass::Counterfactual,
        &pair.counterfactual,
        &pair.alternative,
        alternative,
        &pair.after[1],
        tokenizer,
    )?;
    Ok(TokenPair { clean, counterfactual, target, alternative })
}

fn encode(text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, PairProblem> {
    tokenizer.encode(text).map_err(|error| PairProblem::Tokenizer(error.to_string()))
}

fn show(ids: &[u32], tokenizer: &Tokenizer) -> Vec<String> {
    ids.iter().map(|&id| visible(&tokenizer.token_text(id))).collect()
}

fn single(side: PromptClass, answer: &str, tokenizer: &Tokenizer) -> Result<u32, PairProblem> {
    match encode(answer, tokenizer)?.as_slice() {
        &[id] => Ok(id),
        pieces => Err(PairProblem::NotSingle { side, answer: answer.into(), pieces: show(pieces, tokenizer) }),
    }
}

/// The prompt's tokens, if `answer`, which is token `id`, follows them in the code.
fn prompt(
    side: PromptClass,
    prompt: &str,
    answer: &str,
    id: u32,
    after: &str,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, PairProblem> {
    let tokens = encode(prompt, tokenizer)?;
    let whole = encode(&format!("{prompt}{answer}{after}"), tokenizer)?;
    if whole.get(..tokens.len()) != Some(&tokens) || whole.get(tokens.len()) != Some(&id) {
        let same = whole.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        let end = (tokens.len().max(same) + 1).min(whole.len());
        let written = show(&whole[same..end], tokenizer);
        return Err(PairProblem::Boundary { side, answer: answer.into(), written });
    }
    Ok(tokens)
}

/// Some pairs of a task in tokens, and how many were skipped.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// The pairs, as text; not cropped.
    pub pairs: Vec<Pair>,
    /// The pairs in tokens, prompts cropped.
    pub tokens: Vec<TokenPair>,
    /// The variant that the answers are given in.
    pub variant: usize,
    /// The index of the next pair.
    pub next_index: u64,
    /// How many pairs were requested.
    pub requested: usize,
    /// The split that they are from.
    pub split: Split,
    /// How many prompts were cropped.
    pub cropped: u64,
    /// How many tokens a prompt has at most.
    pub max_length: usize,
    /// How many pairs were skipped, by reason.
    pub skipped: Vec<Skipped>,
}

/// Pairs that were skipped for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The reason, as `PairProblem::reason`.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// The first such problem in full.
    pub example: String,
}

impl PairBatch {
    /// Whether there are fewer pairs than requested, and why, and whether prompts were cropped.
    /// Nothing if neither is so.
    pub fn notes(&self) -> Option<String> {
        let (pairs, split) = (self.tokens.len(), self.split);
        let fewer = (pairs < self.requested).then(|| {
            let why = if self.skipped.is_empty() { "there are no more".into() } else { listed(&self.skipped) };
            format!("all {pairs} {split} pairs instead of {}: {why}", self.requested)
        });
        let cropped = (self.cropped > 0).then(|| {
            let (cropped, all, longest) = (self.cropped, 2 * pairs, self.max_length);
            format!("{cropped} of {all} {split} prompts are cropped to their last {longest} tokens")
        });
        let notes: Vec<String> = fewer.into_iter().chain(cropped).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

fn note(skipped: &mut Vec<Skipped>, problem: &PairProblem) {
    let reason = problem.reason();
    match skipped.iter_mut().find(|skipped| skipped.reason == reason) {
        Some(skipped) => skipped.count += 1,
        None => skipped.push(Skipped { reason, count: 1, example: problem.to_string() }),
    }
}

fn listed(skipped: &[Skipped]) -> String {
    let parts =
        skipped.iter().map(|skipped| format!("{} times {} ({})", skipped.count, skipped.reason, skipped.example));
    parts.collect::<Vec<_>>().join("; ")
}

/// How many pairs each variant is tried on.
const PROBES: u64 = 64;

/// The first variant of the task's answers that holds for this tokenizer in half of the pairs
/// tried, or the one that holds most often (tasks whose answers are names have many pairs with
/// names of several tokens). The same for every seed and split. A task that is
/// [`Task::for_tokenizer`] keeps its variant.
///
/// # Errors
/// [`Error::UnsuitableTask`] with the reasons if none ever holds.
pub fn choose_variant(task: &Task, tokenizer: &Tokenizer) -> Result<usize> {
    if let Some(variant) = task.variant {
        return Ok(variant);
    }
    let mut best = (0, 0);
    let mut reasons = String::new();
    for variant in 0..task.variants() {
        let (good, probes, skipped) = probe(task, variant, tokenizer);
        if 2 * good >= probes {
            return Ok(variant);
        }
        if good > best.1 {
            best = (variant, good);
        }
        reasons.push_str(&format!("\n  {}", listed(&skipped)));
    }
    if best.1 == 0 {
        return Err(Error::UnsuitableTask { task: task.name.clone(), reasons });
    }
    Ok(best.0)
}

/// In how many of the pairs tried a variant holds, how many that were, and what is wrong with the
/// others.
fn probe(task: &Task, variant: usize, tokenizer: &Tokenizer) -> (u64, u64, Vec<Skipped>) {
    let probes = task.len(Split::Train).map_or(PROBES, |len| PROBES.min(len as u64));
    let (mut good, mut skipped) = (0, Vec::new());
    for index in 0..probes {
        match usable(task, &task.pair_in(variant, Split::Train, 0, index), tokenizer) {
            Ok(_) => good += 1,
            Err(problem) => note(&mut skipped, &problem),
        }
    }
    (good, probes, skipped)
}

impl Task {
    /// The task with its answers in that variant.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with the reasons if `tokenizer` never writes it.
    pub(crate) fn in_variant(mut self, variant: usize, tokenizer: &Tokenizer) -> Result<Self> {
        let name = question_name(&self.name, variant, self.context);
        if variant >= self.variants() {
            return Err(Error::Mismatch(format!("there is no {name}: {} has {} variants", self.name, self.variants())));
        }
        let (good, _, skipped) = probe(&self, variant, tokenizer);
        if good == 0 {
            let why = listed(&skipped);
            return Err(Error::Mismatch(format!("this tokenizer does not write the answers of {name}: {why}")));
        }
        self.variant = Some(variant);
        Ok(self)
    }
}

fn usable(task: &Task, pair: &Pair, tokenizer: &Tokenizer) -> Result<TokenPair, PairProblem> {
    let tokens = tokenize(pair, tokenizer)?;
    let lengths = (tokens.clean.len(), tokens.counterfactual.len());
    if task.same_length && lengths.0 != lengths.1 {
        return Err(PairProblem::Lengths(lengths.0, lengths.1));
    }
    Ok(tokens)
}

/// `count` pairs in tokens from index `first_index` on, the answers in the variant of
/// [`choose_variant`]; of each prompt the last `max_length` tokens. Pairs that this tokenizer
/// cannot write are skipped and counted. A list's pairs repeat in the next batch, never within one:
/// a list with fewer pairs than `count` gives all that can be used (see [`PairBatch::notes`]).
///
/// # Errors
/// [`Error::Config`] for a `max_length` of 0; [`Error::Data`] with the reasons if no pair can be
/// used, or too few of a task without end.
pub fn batch(
    task: &Task,
    split: Split,
    seed: u64,
    first_index: u64,
    count: usize,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<PairBatch> {
    if max_length == 0 {
        return Err(Error::config("max_length", "is 0, must be at least 1 token"));
    }
    let variant = choose_variant(task, tokenizer)?;
    let (pairs, tokens) = (Vec::with_capacity(count.min(1 << 16)), Vec::with_capacity(count.min(1 << 16)));
    let (next_index, requested, skipped) = (first_index, count, Vec::new());
    let mut batch = PairBatch { pairs, tokens, variant, next_index, requested, split, cropped: 0, max_length, skipped };
    let tries = task.len(split).unwrap_or(count.saturating_mul(200).saturating_add(2000));
    for _ in 0..tries {
        if batch.tokens.len() == count {
            break;
        }
        let pair = task.pair_in(variant, split, seed, batch.next_index);
        batch.next_index = batch.next_index.wrapping_add(1);
        match usable(task, &pair, tokenizer).and_then(|tokens| crop(tokens, max_length)) {
            Ok((tokens, cropped)) => {
                batch.pairs.push(pair);
                batch.tokens.push(tokens);
                batch.cropped += cropped;
            }
            Err(problem) => note(&mut batch.skipped, &problem),
        }
    }
    let needed = if task.len(split).is_some() { count.min(1) } else { count };
    if batch.tokens.len() < needed {
        let reasons = if batch.skipped.is_empty() { "there are no more".into() } else { listed(&batch.skipped) };
        let message = format!(
            "task {}: only {} of the {count} {split} pairs requested can be used, of {tries} tried: {reasons}",
            task.name,
            batch.tokens.len(),
        );
        return Err(Error::Data(message));
    }
    Ok(batch)
}

/// The prompts' last `max_length` tokens, and how many prompts that shortened.
fn crop(mut tokens: TokenPair, max_length: usize) -> Result<(TokenPair, u64), PairProblem> {
    let mut cropped = 0;
    for prompt in [&mut tokens.clean, &mut tokens.counterfactual] {
        if prompt.len() > max_length {
            prompt.drain(..prompt.len() - max_length);
            cropped += 1;
        }
    }
    if cropped > 0 && tokens.clean == tokens.counterfactual {
        return Err(PairProblem::Cropped);
    }
    Ok((tokens, cropped))
}

/// The tokens that give each of two answers: those that begin as it does, up to the first byte in
/// which the two differ. `')` against `")` is also given by `',` and by `'` alone, `:` by `:\n`. An
/// answer that the other one begins with has only itself.
pub fn tokens_sharing_prefix(tokenizer: &Tokenizer, answers: [u32; 2]) -> [Vec<u32>; 2] {
    let text = |id| tokenizer.token_bytes(id).unwrap_or_default();
    let texts = answers.map(text);
    let common = texts[0].iter().zip(&texts[1]).take_while(|(a, b)| a == b).count();
    [0, 1].map(|i| match texts[i].get(..=common) {
        Some(start) => (0..tokenizer.vocab_size() as u32).filter(|&id| text(id).starts_with(start)).collect(),
        None => vec![answers[i]],
    })
}
