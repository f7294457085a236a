//! The notation the tasks are written in.
//!
//! A template is code of both sides at once: `«this|that»` is `this` in the positive code and `that` in the negative one, and `▮` is where the
//! prompts end and the completions begin. `{kind}` or `{kind2}` is a word of that kind ([`super::context`]): the same word wherever
//! the same placeholder stands, another word for another number. Any other brace stands for itself.

use super::Split;
use super::context;
use crate::text::python::sampler::Sampler;
use crate::text::python::words::{DOMAINS, Domain};

/// The words chosen so far for one pair.
pub(super) struct Filler<'a> {
    pub(super) dice: &'a mut Sampler,
    pub(super) split: Split,
    /// What the pair's code is about.
    pub(super) domain: &'static Domain,
    chosen: Vec<(String, String)>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(dice: &'a mut Sampler, split: Split, fixed: Option<(&str, &str)>) -> Self {
        let domain = &DOMAINS[dice.below(DOMAINS.len())];
        let chosen = fixed.iter().map(|&(key, word)| (key.to_string(), word.to_string())).collect();
        Self { dice, split, domain, chosen }
    }

    /// `text` with its placeholders replaced.
    pub(super) fn expand(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(2 * text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            rest = &rest[open..];
            match placeholder(rest) {
                Some(key) => {
                    out.push_str(&self.word(key));
                    rest = &rest[key.len() + 2..];
                }
                None => {
                    out.push('{');
                    rest = &rest[1..];
                }
            }
        }
        out + rest
    }

    fn word(&mut self, key: &str) -> String {
        if let Some((_, word)) = self.chosen.iter().find(|(chosen, _)| chosen == key) {
            return word.clone();
        }
        let kind = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let mut word = context::word(self, kind);
        for _ in 0..30 {
            if !self.chosen.iter().any(|(_, other)| *other == word) {
                break;
            }
            word = context::word(self, kind);
        }
        self.chosen.push((key.to_string(), word.clone()));
        word
    }
}

/// The key of the placeholder that `text` starts with.
fn placeholder(text: &str) -> Option<&str> {
    let key = &text[1..text.find('}')?];
    let letters = key.trim_end_matches(|c: char| c.is_ascii_digit());
    (!letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(key)
}

/// Prompt and completion of the positive and of the negative code.
pub(super) fn classes(text: &str) -> [(String, String); 2] {
    [0, 1].map(|side| {
        let mut code = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, marked)) = rest.split_once('«') {
            let (choice, after) = marked.split_once('»').unwrap_or((marked, ""));
            let (clean, counterfactual) = choice.split_once('|').unwrap_or((choice, ""));
            code.push_str(before);
            code.push_str(if side == 0 { clean } else { counterfactual });
            rest = after;
        }
        code.push_str(rest);
        match code.split_once('▮') {
            Some((prompt, completion)) => (prompt.to_string(), completion.to_string()),
            None => (code, String::new()),
        }
    })
}
