//! The words of templates and the lines around them, as in the built-in generator's programs.

use serde::{Deserialize, Serialize};

use super::Split;
use super::template::Filler;
use crate::text::python;
use crate::text::python::words::WORDS;

/// What comes before the question of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ContextLength {
    /// Up to two lines or blocks.
    #[default]
    Short,
    /// Besides these up to 600 bytes of a generated program: other quotes, brackets and names.
    Long,
}

impl ContextLength {
    /// Whether it is the default, which files leave out.
    pub(crate) fn is_short(&self) -> bool {
        *self == Self::Short
    }
}

/// The most bytes of code before a question: about 200 tokens of three bytes each.
pub const LONG: usize = 600;

/// The version of generated Python in long contexts. Another one would be other pairs.
pub(super) const LONG_VERSION: u32 = 4;

/// The start of a generated program: whole statements, of up to [`LONG`] bytes in all. The number
/// of bytes is drawn first, so that prompts of all lengths occur. `body` is what follows.
pub(super) fn program(filler: &mut Filler, body: &str) -> String {
    let limit = filler.sampler.below(LONG + 1);
    // The first statement of some programs is a long definition.
    let starts = (0..8).map(|_| start(limit, filler.sampler.below(1 << 24) as u64));
    let code = starts.max_by_key(String::len).unwrap_or_default();
    let gap = if !code.is_empty() && is_definition(body) { "\n\n" } else { "" };
    code + gap
}

/// The statements at the left margin that program `index` starts with, of up to `limit` bytes.
fn start(limit: usize, index: u64) -> String {
    let text = python::document_of::<LONG_VERSION>(u64::from(u32::MAX), index);
    let mut end = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        // A line at the left margin begins a statement, unless it goes on with the one before.
        let goes_on = ["else", "elif", "except", "finally", ")", "]", "}"].iter().any(|word| line.starts_with(word));
        if !line.starts_with([' ', '\n']) && !goes_on && at <= limit {
            end = at;
        }
        at += line.len();
    }
    if at <= limit {
        end = at;
    }
    text[..end].to_string()
}

fn is_definition(code: &str) -> bool {
    code.starts_with("def ") || code.starts_with("class ")
}

const INDICES: &[&str] = &["i", "j", "index", "n", "k", "position", "number", "row"];
const HANDLES: &[&str] = &["f", "file", "handle", "fh", "stream", "f", "document", "source"];
/// The next line, which is part of no prompt.
const NEXT: &[&str] = &["print(result)", "total += 1", "done = True", "count = 0"];

/// What may come before a template; `#` becomes its number. The blocks have the words that other
/// tasks depend on, so that a circuit cannot rely on their mere presence.
const BEFORE: &[&str] = &[
    "{int#} = {num#}",
    "{str#} = '{label#}'",
    "{str#} = \"{label#}\"",
    "{ints#} = [{num#}, {numx#}, {numy#}]",
    "{strs#} = ['{label#}', '{labelx#}']",
    "{flag#} = True",
    "{strs#} = []",
    "print({str#})",
    "{int#} += {num#}",
    "{int#} = len({strs#})",
    "print(\"{text#}\")",
    "{strs#}.append({str#})",
    "if {int#} == {num#}:\n    {flag#} = True",
    "if {flag#}:\n    {int#} += {num#}",
    "while {int#} > {num#}:\n    {int#} -= 1",
    "for {elem#} in {strs#}:\n    print({elem#})",
];

/// The block around a template; most often there is none.
const AROUND: &[&str] = &[
    "def {func9}({int9}):",
    "if {flag9}:",
    "if {int9} == {num9}:",
    "if {str9} == '{label9}':",
    "for {elem9} in {strs9}:",
    "for {idx9} in range({num9}):",
    "while {int9} > {num9}:",
];

/// `template` with up to two lines or blocks before it, sometimes inside a function, a condition or
/// a loop: a circuit must not depend on the left margin.
pub(super) fn around(filler: &mut Filler, template: &str) -> String {
    let definition = is_definition(template);
    let mut code = String::new();
    for number in 7..7 + filler.sampler.weighted(&[45, 35, 20]) {
        code.push_str(&filler.sampler.pick(BEFORE).replace('#', &number.to_string()));
        code.push('\n');
    }
    if definition && !code.is_empty() {
        code.push_str("\n\n");
    }
    code.push_str(template);
    if definition {
        return code;
    }
    match filler.sampler.weighted(&[40, 18, 7, 7, 7, 7, 7, 7]) {
        0 => code,
        // A line break inside a template always belongs to both classes, so that indenting every
        // line keeps them similar.
        at => format!("{}\n    {}", AROUND[at - 1], code.replace('\n', "\n    ")),
    }
}

/// A word of that kind, of the task's own words first; nothing for a kind that does not exist.
pub(super) fn word(filler: &mut Filler, kind: &str) -> Option<String> {
    let (domain, own) = (filler.domain, filler.words);
    if let Some(words) = own.get(kind) {
        return Some(pick(filler, words.get_ref()).to_string());
    }
    let one = |filler: &mut Filler, pool: &[&str]| pick(filler, pool).to_string();
    // Most names are general, some specific to the domain.
    let either = |filler: &mut Filler, pool: &[&'static str], own: &[&'static str]| {
        if filler.sampler.chance(70) { pick(filler, pool).to_string() } else { pick(filler, own).to_string() }
    };
    Some(match kind {
        "a" | "b" | "c" => one(filler, &WORDS.copied),
        "int" => either(filler, &WORDS.ints, &domain.ints),
        "str" => either(filler, &WORDS.strs, &domain.strs),
        "flag" => either(filler, &WORDS.bools, &domain.flags),
        "ints" => one(filler, &WORDS.int_lists),
        "strs" => one(filler, &WORDS.str_lists),
        "set" => one(filler, &WORDS.sets),
        "things" => filler.sampler.pick(domain.things())[1].to_string(),
        "thing" => filler.sampler.pick(domain.things())[0].to_string(),
        "attr" => one(filler, &domain.ints),
        "class" => one(filler, &domain.classes),
        "coll" => one(filler, &WORDS.collections),
        "elem" => one(filler, &WORDS.elements),
        "idx" => one(filler, INDICES),
        "handle" => one(filler, HANDLES),
        "next" => filler.sampler.pick(NEXT).to_string(),
        "read" => one(filler, &WORDS.file_reads),
        "write" => one(filler, &WORDS.file_writes),
        "ext" => filler.sampler.pick(&WORDS.file_ends).to_string(),
        "label" | "labelx" => one(filler, &domain.labels),
        "num" | "numx" | "numy" => filler.sampler.number().to_string(),
        "q" => filler.sampler.pick(&["'", "\""]).to_string(),
        "func" => function(filler),
        "text" => text(filler),
        _ => return None,
    })
}

fn function(filler: &mut Filler) -> String {
    let thing = filler.sampler.pick(filler.domain.things())[0];
    match filler.sampler.chance(50) {
        true => format!("{}{thing}", pick(filler, &filler.domain.verbs)),
        false => format!("{}_{thing}", pick(filler, &WORDS.plain_verbs)),
    }
}

/// The text of a string: a few words without quotes or punctuation.
fn text(filler: &mut Filler) -> String {
    let thing = filler.sampler.pick(filler.domain.things())[0];
    match filler.sampler.weighted(&[30, 20, 20, 15, 15]) {
        0 => pick(filler, &filler.domain.labels).to_string(),
        1 => format!("{} {thing}", pick(filler, &WORDS.adjectives)),
        2 => format!("{} the {thing}", pick(filler, &WORDS.plain_verbs)),
        3 => format!("{} {}", pick(filler, &filler.domain.labels), pick(filler, &filler.domain.labels)),
        _ => format!("{thing} {} is {}", pick(filler, &filler.domain.labels), pick(filler, &WORDS.adjectives)),
    }
}

/// One of `pool`. Every fourth word of a pool of eight or more is kept for test pairs, which draw
/// half their words from those.
fn pick<'p, W: AsRef<str>>(filler: &mut Filler, pool: &'p [W]) -> &'p str {
    let index = filler.sampler.below(pool.len());
    let kept = |index: usize| index % 4 == 3;
    let first = index - index % 4;
    let index = match filler.split {
        _ if pool.len() < 8 => index,
        Split::Train if kept(index) => first + filler.sampler.below(3),
        Split::Test if filler.sampler.chance(50) => (first + 3).min(pool.len() / 4 * 4 - 1),
        _ => index,
    };
    pool[index].as_ref()
}
