//! A task as a file: one of those in `tasks/`, or one of the user's own. `docs/tasks.md` describes
//! the fields.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::context::{self, ContextLength};
use super::template::{self, ClassCode, Filler};
use super::{Pair, Split};
use crate::files::hex;
use crate::text::notation::token;
use crate::text::python::sampler::Sampler;
use crate::{Error, Result};

/// Name and text of each file in `tasks/`, by name.
pub(super) const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/tasks.rs"));

/// Words by the placeholder that stands for them.
pub(super) type Words = BTreeMap<String, Spanned<Vec<String>>>;

/// The contents of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskSpec {
    pub(super) version: u32,
    #[serde(skip_serializing)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) same_length: bool,
    pub(super) answers: Vec<Spanned<AnswerVariant>>,
    train: Vec<Spanned<String>>,
    test: Vec<Spanned<String>>,
    #[serde(default)]
    words: Words,
}

/// `skip` moves from the completions to the prompts; then `target` or `alternative` follows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerVariant {
    #[serde(default)]
    skip: String,
    target: String,
    alternative: String,
}

impl TaskSpec {
    /// Reads and checks the `text` of a file. Errors name the file `path` and the line.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let text = text.replace("\r\n", "\n");
        let fault = |at: usize, message: &str| {
            let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
            Error::file(path, format!("line {line}: {message}"))
        };
        let spec: Self =
            toml::from_str(&text).map_err(|e| fault(e.span().map_or(0, |span| span.start), e.message()))?;
        spec.check().map_err(|(at, message)| fault(at, &message))?;
        Ok(spec)
    }

    /// Where something is wrong, in bytes, and what.
    fn check(&self) -> Result<(), (usize, String)> {
        for (list, len) in [("answers", self.answers.len()), ("train", self.train.len()), ("test", self.test.len())] {
            if len == 0 {
                return Err((0, format!("`{list}` is empty")));
            }
        }
        for (kind, words) in &self.words {
            let letters = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
            if !letters || words.get_ref().is_empty() {
                let message = format!("`{kind}`: a name of lowercase letters needs a list of at least one word");
                return Err((words.span().start, message));
            }
        }
        for answers in &self.answers {
            let AnswerVariant { skip, target, alternative } = answers.get_ref();
            if target.is_empty() || target == alternative {
                return Err((answers.span().start, "the answers are equal or empty".into()));
            }
            let text = format!("{skip}{target}{alternative}");
            self.check_placeholders(&text).map_err(|message| (answers.span().start, message))?;
        }
        for template in self.train.iter().chain(&self.test) {
            let text = template.get_ref();
            let checked = template::check(text).and_then(|()| self.check_placeholders(text));
            checked.map_err(|message| (template.span().start, message))?;
        }
        for split in [Split::Train, Split::Test] {
            for template in self.templates(split) {
                let checked = self.check_answers(split, template.get_ref());
                checked.map_err(|message| (template.span().start, message))?;
            }
        }
        match self.test.iter().find(|test| self.train.contains(test)) {
            Some(test) => Err((test.span().start, "this template is also in `train`".into())),
            None => Ok(()),
        }
    }

    fn check_placeholders(&self, text: &str) -> Result<(), String> {
        let mut sampler = Sampler::keyed([0; 32], 0);
        let mut filler = Filler::new(&mut sampler, Split::Train, &self.words);
        let unknown = |key: &&str| context::word(&mut filler, template::kind(key)).is_none();
        match template::placeholders(text).find(unknown) {
            Some(key) => Err(format!("{{{key}}}: no such words; list them under [words]")),
            None => Ok(()),
        }
    }

    /// Returns an error unless the code of `template` continues after `▮` with the answers, in every
    /// variant, since one variant serves all pairs. Which words are drawn may matter, so a few pairs
    /// are.
    fn check_answers(&self, split: Split, template: &str) -> Result<(), String> {
        for (variant, draw) in (0..self.answers.len()).flat_map(|variant| (0..8).map(move |draw| (variant, draw))) {
            let kind = PairKind { variant, split, context: ContextLength::Short };
            let filled = self.fill(&mut Sampler::keyed([0; 32], draw), template, kind);
            for (class, code, answer) in [
                ("clean", &filled.clean, &filled.target),
                ("counterfactual", &filled.counterfactual, &filled.alternative),
            ] {
                let expected = format!("{}{answer}", filled.skip);
                if !code.completion.starts_with(&expected) {
                    let found: String = code.completion.chars().take(expected.chars().count().max(20)).collect();
                    return Err(format!(
                        "after `▮` the {class} code is {}, but entry {} of `answers` expects {}",
                        token(&found),
                        variant + 1,
                        token(&expected)
                    ));
                }
            }
        }
        Ok(())
    }

    /// A hash of everything that decides the pairs.
    pub(super) fn hash(&self, context: ContextLength) -> String {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        if context == ContextLength::Long {
            text.extend(format!("long {} {}", context::LONG, context::LONG_VERSION).bytes());
        }
        format!("sha256:{}", hex(&Sha256::digest(text)))
    }

    pub(super) fn templates(&self, split: Split) -> &[Spanned<String>] {
        if split == Split::Train { &self.train } else { &self.test }
    }

    /// Pair `index` of the stream `seed` of the task called `name`.
    pub(super) fn pair(&self, name: &str, kind: PairKind, seed: u64, index: u64) -> Pair {
        let split = kind.split;
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..12].copy_from_slice(&self.version.to_le_bytes());
        key[12] = u8::from(split == Split::Test);
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a: tasks draw from streams of their own
        });
        key[16..24].copy_from_slice(&name.to_le_bytes());
        let templates = self.templates(split);
        let mut sampler = Sampler::keyed(key, index);
        let template = sampler.below(templates.len());
        let kind = PairKind { variant: kind.variant.min(self.answers.len() - 1), ..kind };
        let Filled { clean, counterfactual, skip, target, alternative } =
            self.fill(&mut sampler, templates[template].get_ref(), kind);
        let after = |completion: &str, answer: &str| {
            let after = completion.strip_prefix(skip.as_str()).and_then(|after| after.strip_prefix(answer));
            after.unwrap_or_default().to_string()
        };
        Pair {
            after: [after(&clean.completion, &target), after(&counterfactual.completion, &alternative)],
            clean: clean.prompt + &skip,
            counterfactual: counterfactual.prompt + &skip,
            target,
            alternative,
            template,
        }
    }

    /// `template` with words, and lines around it, and the answers of a variant with the same words.
    fn fill(&self, sampler: &mut Sampler, template: &str, kind: PairKind) -> Filled {
        let mut filler = Filler::new(sampler, kind.split, &self.words);
        let body = context::around(&mut filler, template);
        let AnswerVariant { skip, target, alternative } = self.answers[kind.variant].get_ref();
        let [skip, target, alternative] = [skip, target, alternative].map(|answer| filler.expand(answer));
        let [mut clean, mut counterfactual] = template::classes(&filler.expand(&body));
        if kind.context == ContextLength::Long {
            // Drawn last, so that the question is that of the short context.
            let program = context::program(&mut filler, &body);
            for code in [&mut clean, &mut counterfactual] {
                code.prompt.insert_str(0, &program);
            }
        }
        Filled { clean, counterfactual, skip, target, alternative }
    }
}

/// Which of a task's pairs.
#[derive(Clone, Copy)]
pub(super) struct PairKind {
    /// The variant of the answers.
    pub(super) variant: usize,
    pub(super) split: Split,
    pub(super) context: ContextLength,
}

/// The code of a pair, and its answers.
struct Filled {
    clean: ClassCode,
    counterfactual: ClassCode,
    skip: String,
    target: String,
    alternative: String,
}
