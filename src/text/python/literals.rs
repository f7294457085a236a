//! Literals: strings, numbers, lists, dicts.

use super::scope::{Name, PyKind, PyKind::*};
use super::words::WORDS;
use super::writer::PythonWriter;

impl PythonWriter {
    /// A short piece of text, of one word or a few. No quotes, backslashes or braces.
    pub(super) fn sentence(&mut self) -> String {
        let thing = self.thing();
        let text = match self.sampler.weighted(&[22, 14, 10, 12, 10, 20, 12]) {
            0 => self.label().to_string(),
            1 => format!("{} {thing}", self.sampler.pick(&WORDS.adjectives)),
            2 => format!("no {} {}", thing, self.sampler.pick(&["found", "left", "here", "given", "yet"])),
            3 => format!("{thing} {} is {}", self.label(), self.sampler.pick(&WORDS.adjectives)),
            4 => format!("{} the {thing}", self.sampler.pick(&WORDS.plain_verbs)),
            5 => self.some_words(),
            _ => format!(
                "{} {} {thing}",
                self.sampler.pick(&WORDS.plain_verbs),
                self.sampler.pick(&["a", "the", "one", "this"])
            ),
        };
        let mut text = if self.sampler.chance(25) { capitalised(&text) } else { text };
        if self.sampler.chance(15) {
            text.push_str(self.sampler.pick(&["!", ".", "?", "...", " "]));
        }
        text
    }

    fn some_words(&mut self) -> String {
        let count = self.sampler.range(2, 5);
        let mut text = String::new();
        for i in 0..count {
            if i > 0 {
                text.push(' ');
            }
            text.push_str(self.label());
        }
        text
    }

    /// A word of the domain, as a label, key or value.
    pub(super) fn label(&mut self) -> &'static str {
        match self.sampler.weighted(&[80, 12, 8]) {
            0 => self.sampler.pick(&self.domain.labels),
            1 => self.sampler.pick(&WORDS.adjectives),
            _ => self.sampler.pick(&self.domain.strs),
        }
    }

    /// A quoted sentence.
    pub(super) fn text(&mut self) -> String {
        let text = self.sentence();
        self.quoted(&text)
    }

    /// A quoted word.
    pub(super) fn word(&mut self) -> String {
        let label = self.label();
        self.quoted(label)
    }

    /// Between `low` and `high` different quoted words.
    pub(super) fn words(&mut self, low: usize, high: usize) -> Vec<String> {
        let count = self.sampler.range(low, high);
        let mut words = Vec::with_capacity(count);
        for _ in 0..3 * count {
            if words.len() == count {
                break;
            }
            let word = self.word();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words
    }

    /// A positive number with a fraction.
    pub(super) fn fraction(&mut self) -> String {
        match self.sampler.weighted(&[50, 30, 20]) {
            0 => format!("{}.{}", self.sampler.below(10), self.sampler.below(10)),
            1 => format!("0.{:02}", self.sampler.range(1, 99)),
            _ => format!("{}.{:02}", self.sampler.number(), self.sampler.below(100)),
        }
    }

    /// Numbers with commas between them.
    pub(super) fn numbers(&mut self, low: usize, high: usize) -> String {
        let count = self.sampler.range(low, high);
        let numbers: Vec<String> = (0..count).map(|_| self.sampler.number().to_string()).collect();
        numbers.join(", ")
    }

    /// A quoted file name; its stem says whether one reads or writes it.
    pub(super) fn file_name(&mut self, read: bool) -> String {
        let stems = match (read, self.version > 3) {
            (true, false) => &WORDS.file_stems_read,
            (false, false) => &WORDS.file_stems_write,
            (true, true) => &WORDS.file_reads,
            (false, true) => &WORDS.file_writes,
        };
        let stem = self.sampler.pick(stems);
        let end = self.sampler.pick(&WORDS.file_ends);
        let folder =
            if self.sampler.chance(15) { self.sampler.pick(&["data/", "files/", "tmp/", "docs/"]) } else { "" };
        let name = match self.sampler.weighted(&[70, 20, 10]) {
            0 => format!("{folder}{stem}{end}"),
            1 => format!("{folder}{}_{stem}{end}", self.thing()),
            _ => format!("{folder}{stem}{}{end}", self.sampler.range(1, 9)),
        };
        self.quoted(&name)
    }

    /// A literal of that kind that mentions no variable.
    pub(super) fn literal(&mut self, kind: PyKind) -> String {
        match kind {
            Int => self.sampler.number().to_string(),
            Float => self.fraction(),
            Str => {
                if self.sampler.chance(45) {
                    self.word()
                } else {
                    self.text()
                }
            }
            Bool => self.sampler.pick(&["True", "False"]).to_string(),
            Ints => format!("[{}]", self.numbers(2, 7)),
            Strs => self.string_list(),
            Grid => self.grid(),
            Set => {
                if self.sampler.chance(60) {
                    "set()".to_string()
                } else {
                    format!("{{{}}}", self.words(2, 4).join(", "))
                }
            }
            Counts => self.dict(false),
            Texts => self.dict(true),
            Thing | Instance(_) => "None".to_string(),
            Things => "[]".to_string(),
        }
    }

    /// A list of strings, on one line or on several.
    pub(super) fn string_list(&mut self) -> String {
        let words = self.words(2, 5);
        if words.len() > 2 && self.sampler.chance(18) {
            self.stacked('[', &words, ']')
        } else {
            format!("[{}]", words.join(", "))
        }
    }

    /// A dict literal from words to numbers, or to words.
    pub(super) fn dict(&mut self, texts: bool) -> String {
        let mut entries = self.words(2, 4);
        for entry in &mut entries {
            let value = if texts { self.word() } else { self.sampler.number().to_string() };
            entry.push_str(": ");
            entry.push_str(&value);
        }
        if self.sampler.chance(30) { self.stacked('{', &entries, '}') } else { format!("{{{}}}", entries.join(", ")) }
    }

    /// A bracketed literal with one entry a line, each followed by a comma.
    pub(super) fn stacked(&mut self, open: char, entries: &[String], close: char) -> String {
        let inner = self.break_at(1);
        let mut literal = String::from(open);
        for entry in entries {
            literal.push_str(&inner);
            literal.push_str(entry);
            literal.push(',');
        }
        literal.push_str(&self.break_at(0));
        literal.push(close);
        literal
    }

    /// A list of lists of numbers.
    pub(super) fn grid(&mut self) -> String {
        let (rows, columns) = (self.sampler.range(2, 4), self.sampler.range(1, 4));
        let rows: Vec<String> = (0..rows).map(|_| format!("[{}]", self.numbers(columns, columns))).collect();
        if rows.len() > 2 && self.sampler.chance(15) {
            self.stacked('[', &rows, ']')
        } else {
            format!("[{}]", rows.join(", "))
        }
    }

    /// An f-string about the variables `names`: a few words around each in braces.
    pub(super) fn f_string(&mut self, parts: &[String]) -> String {
        let mut text = String::new();
        for (i, part) in parts.iter().enumerate() {
            let before = if self.sampler.chance(60) { self.label() } else { self.thing() };
            match (i, self.sampler.below(4)) {
                (0, 0) => {}
                (0, 1) => text.push_str(&format!("{}: ", capitalised(before))),
                (0, _) => text.push_str(&format!("{before} ")),
                (_, 0) => text.push_str(self.sampler.pick(&[" ", ", ", "-", "/", ": "])),
                (_, 1) => text.push_str(&format!(", {before}: ")),
                _ => text.push_str(&format!(" {before} ")),
            }
            text.push_str(&format!("{{{part}}}"));
        }
        if self.sampler.chance(30) {
            let after = self.label();
            text.push_str(&format!(" {after}"));
        }
        format!("f{}", self.quoted(&text))
    }

    /// Something in scope worth showing inside an f-string or a print call, free of quotes.
    pub(super) fn showable(&mut self) -> Option<String> {
        match self.sampler.weighted(&[35, 35, 10, 12, 8]) {
            0 => self.var(Int).map(|name| name.to_string()),
            1 => self.var(Str).map(|name| name.to_string()),
            2 => self.var(Float).map(|name| {
                if self.sampler.chance(50) {
                    format!("{name}:.{}f", self.sampler.range(1, 3))
                } else {
                    name.to_string()
                }
            }),
            3 => self.attribute(Str).or_else(|| self.attribute(Int)),
            _ => self.collection().map(|name| format!("len({name})")),
        }
    }

    /// Any variable with a length, other than a string.
    pub(super) fn collection(&mut self) -> Option<Name> {
        let kinds = [Strs, Ints, Set, Counts, Things, Texts, Grid];
        let start = self.sampler.below(kinds.len());
        (0..kinds.len()).find_map(|i| self.var(kinds[(start + i) % kinds.len()]))
    }
}

/// The text with its first letter in upper case.
pub(super) fn capitalised(text: &str) -> String {
    let mut text = text.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}
