//! The notation of templates.
//!
//! A template is code of both classes at once: `«this|that»` is `this` in the clean code and `that`
//! in the counterfactual code, and `▮` is where the prompts end and the completions begin. `{kind}`
//! or `{kind2}` is a word of that kind: the same word wherever the same placeholder stands, another
//! word for another number. Any other brace stands for itself.

use super::Split;
use super::context;
use super::spec::Words;
use crate::text::python::sampler::Sampler;
use crate::text::python::words::{Domain, WORDS};

/// The words chosen so far for one pair.
pub(super) struct Filler<'a> {
    pub(super) sampler: &'a mut Sampler,
    pub(super) split: Split,
    /// What the pair's code is about.
    pub(super) domain: &'static Domain,
    /// The task's own words.
    pub(super) words: &'a Words,
    chosen: Vec<(String, String)>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(sampler: &'a mut Sampler, split: Split, words: &'a Words) -> Self {
        let domain = &WORDS.domains[sampler.below(WORDS.domains.len())];
        // A kind of one word is known from the start, so that no other placeholder takes that word.
        let only = |words: &[String]| if let [word] = words { Some(word.clone()) } else { None };
        let chosen = words.iter().filter_map(|(kind, words)| Some((kind.clone(), only(words.get_ref())?))).collect();
        Self { sampler, split, domain, words, chosen }
    }

    /// `text` with its placeholders replaced.
    pub(super) fn expand(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(2 * text.len());
        let mut remaining = text;
        while let Some(open) = remaining.find('{') {
            out.push_str(&remaining[..open]);
            remaining = &remaining[open..];
            match placeholder(remaining) {
                Some(key) => {
                    out.push_str(&self.word(key));
                    remaining = &remaining[key.len() + 2..];
                }
                None => {
                    out.push('{');
                    remaining = &remaining[1..];
                }
            }
        }
        out + remaining
    }

    fn word(&mut self, key: &str) -> String {
        if let Some((_, word)) = self.chosen.iter().find(|(chosen, _)| chosen == key) {
            return word.clone();
        }
        let mut word = context::word(self, kind(key)).unwrap_or_default();
        for _ in 0..30 {
            if !self.chosen.iter().any(|(_, other)| *other == word) {
                break;
            }
            word = context::word(self, kind(key)).unwrap_or_default();
        }
        self.chosen.push((key.to_string(), word.clone()));
        word
    }
}

/// The kind of word that a placeholder's key names.
pub(super) fn kind(key: &str) -> &str {
    key.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// The key of the placeholder that `text` starts with.
fn placeholder(text: &str) -> Option<&str> {
    let key = &text[1..text.find('}')?];
    let letters = kind(key);
    (!letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(key)
}

/// The keys of all placeholders in `text`.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('{').filter_map(|(at, _)| placeholder(&text[at..]))
}

/// Returns what is wrong with a template's marks, if anything is.
pub(super) fn check(text: &str) -> Result<(), String> {
    let (mut inside, mut bars, mut ends) = (false, 0, 0);
    for c in text.chars() {
        match (c, inside) {
            ('«', false) => (inside, bars) = (true, 0),
            ('|', true) => bars += 1,
            ('»', true) if bars == 1 => inside = false,
            ('▮', false) => ends += 1,
            ('«' | '»' | '▮', _) => return Err(format!("`{c}` cannot be here: a choice is «this|that»")),
            _ => {}
        }
    }
    match (inside, ends) {
        (true, _) => Err("a choice has no `»`".into()),
        (false, 1) => Ok(()),
        (false, _) => Err(format!("`▮`, the end of the prompts, is there {ends} times")),
    }
}

/// The code of one class.
pub(super) struct ClassCode {
    pub(super) prompt: String,
    pub(super) completion: String,
}

/// The clean and the counterfactual code.
pub(super) fn classes(text: &str) -> [ClassCode; 2] {
    [0, 1].map(|class| {
        let mut code = String::with_capacity(text.len());
        let mut remaining = text;
        while let Some((before, marked)) = remaining.split_once('«') {
            let (choice, after) = marked.split_once('»').unwrap_or((marked, ""));
            let (clean, counterfactual) = choice.split_once('|').unwrap_or((choice, ""));
            code.push_str(before);
            code.push_str(if class == 0 { clean } else { counterfactual });
            remaining = after;
        }
        code.push_str(remaining);
        let (prompt, completion) = code.split_once('▮').unwrap_or((&code, ""));
        ClassCode { prompt: prompt.into(), completion: completion.into() }
    })
}
