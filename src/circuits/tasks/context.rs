//! The words and lines that stand around a task, as in the built-in generator's programs.

use super::Split;
use super::template::Filler;
use crate::text::python::words::{self, FILE_ENDS};

/// Names short enough that small tokenizers have many of them as one token, the shortest twice.
const COPIED: &[&str] = &[
    "a", "b", "m", "n", "s", "item", "total", "old", "new", "x", "y", "k", "a", "b", "m", "n", "s", "item", "total",
    "old", "name", "value", "size", "key", "line", "path", "text", "data", "count", "label", "index", "last", "row",
    "title", "node",
];
/// Names for a set as well as for a string.
const GROWING: &[&str] =
    &["current", "result", "output", "names", "letters", "words", "seen", "found", "unique", "used", "known", "buffer"];
/// Names for a dict as well as for a list.
const COLLECTIONS: &[&str] = &[
    "data", "values", "table", "names", "scores", "results", "colors", "totals", "counts", "config", "keys", "labels",
];
/// Names to loop over elements with.
const ELEMENTS: &[&str] = &[
    "x", "n", "item", "value", "name", "word", "line", "row", "key", "number", "entry", "v", "element", "part", "text",
];
/// Names that a `for` binds as well as a `while` tests.
const EITHER: &[&str] = &[
    "item", "value", "count", "n", "x", "line", "row", "word", "number", "node", "text", "queue", "data", "found",
    "size",
];
const INDICES: &[&str] = &["i", "j", "index", "n", "k", "position", "number", "row"];
const HANDLES: &[&str] = &["f", "file", "handle", "fh", "stream", "f", "document", "source"];
const PARAMETERS: &[&str] =
    &["x", "y", "k", "left", "right", "values", "words", "key", "text", "rows", "a", "b", "total", "width", "index"];
const CALLED: &[&str] = &[
    "double",
    "square",
    "increment",
    "shift",
    "half",
    "transform",
    "convert",
    "cube",
    "negate",
    "value",
    "item",
    "total",
];
/// What comes on the line after; no part of any prompt.
const NEXT: &[&str] = &["print(result)", "total += 1", "done = True", "count = 0"];

/// What may stand before a task; `#` becomes its number. The blocks hold the words that other tasks turn on, so that a circuit cannot go by
/// whether the prompt has them anywhere.
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

/// What a task may stand in, most often nothing.
const AROUND: &[&str] = &[
    "def {func9}({int9}):",
    "if {flag9}:",
    "if {int9} == {num9}:",
    "if {str9} == '{label9}':",
    "for {elem9} in {strs9}:",
    "for {idx9} in range({num9}):",
    "while {int9} > {num9}:",
];

/// `template` with up to two lines or blocks before it, sometimes inside a function, a condition or a loop: a circuit that held only for what begins at
/// the left margin would not be the task's.
pub(super) fn around(filler: &mut Filler, template: &str) -> String {
    let definition = template.starts_with("def ") || template.starts_with("class ");
    let mut code = String::new();
    for number in 7..7 + filler.dice.weighted(&[45, 35, 20]) {
        code.push_str(&filler.dice.pick(BEFORE).replace('#', &number.to_string()));
        code.push('\n');
    }
    if definition && !code.is_empty() {
        code.push_str("\n\n");
    }
    code.push_str(template);
    if definition {
        return code;
    }
    match filler.dice.weighted(&[40, 18, 7, 7, 7, 7, 7, 7]) {
        0 => code,
        // A line break inside a template always belongs to both sides, so that indenting every line keeps them alike.
        at => format!("{}\n    {}", AROUND[at - 1], code.replace('\n', "\n    ")),
    }
}

/// A word of that kind. Unknown kinds stand for themselves, which the tests look for.
pub(super) fn word(filler: &mut Filler, kind: &str) -> String {
    let domain = filler.domain;
    let one = |filler: &mut Filler, pool: &[&str]| pick(filler, pool).to_string();
    // Most names are general, some the domain's.
    let either = |filler: &mut Filler, pool: &[&'static str], own: &[&'static str]| {
        if filler.dice.chance(70) { pick(filler, pool).to_string() } else { pick(filler, own).to_string() }
    };
    match kind {
        "a" | "b" | "c" => one(filler, COPIED),
        "int" => either(filler, words::INTS, domain.ints),
        "str" => either(filler, words::STRS, domain.strs),
        "flag" => either(filler, words::BOOLS, domain.flags),
        "ints" => one(filler, words::INT_LISTS),
        "strs" => one(filler, words::STR_LISTS),
        "set" => one(filler, words::SETS),
        "things" => domain.things[filler.dice.below(domain.things.len())].1.to_string(),
        "thing" => domain.things[filler.dice.below(domain.things.len())].0.to_string(),
        "attr" => one(filler, domain.ints),
        "class" => one(filler, domain.classes),
        "grow" => one(filler, GROWING),
        "coll" => one(filler, COLLECTIONS),
        "elem" => one(filler, ELEMENTS),
        "either" => one(filler, EITHER),
        "idx" => one(filler, INDICES),
        "handle" => one(filler, HANDLES),
        "param" => one(filler, PARAMETERS),
        "called" => one(filler, CALLED),
        "next" => filler.dice.pick(NEXT).to_string(),
        "read" => one(filler, words::FILE_STEMS_READ),
        "write" => one(filler, words::FILE_STEMS_WRITE),
        "ext" => filler.dice.pick(FILE_ENDS).to_string(),
        "label" | "labelx" => one(filler, domain.labels),
        "num" | "numx" | "numy" => filler.dice.number().to_string(),
        "q" => filler.dice.pick(&["'", "\""]).to_string(),
        "func" => function(filler),
        "text" => text(filler),
        _ => format!("{{{kind}}}"),
    }
}

fn function(filler: &mut Filler) -> String {
    let thing = filler.domain.things[filler.dice.below(filler.domain.things.len())].0;
    match filler.dice.chance(50) {
        true => format!("{}{thing}", pick(filler, filler.domain.verbs)),
        false => format!("{}_{thing}", pick(filler, words::PLAIN_VERBS)),
    }
}

/// What a program says: a few words without quotes or punctuation.
fn text(filler: &mut Filler) -> String {
    let thing = filler.domain.things[filler.dice.below(filler.domain.things.len())].0;
    match filler.dice.weighted(&[30, 20, 20, 15, 15]) {
        0 => pick(filler, filler.domain.labels).to_string(),
        1 => format!("{} {thing}", pick(filler, words::ADJECTIVES)),
        2 => format!("{} the {thing}", pick(filler, words::PLAIN_VERBS)),
        3 => format!("{} {}", pick(filler, filler.domain.labels), pick(filler, filler.domain.labels)),
        _ => format!("{thing} {} is {}", pick(filler, filler.domain.labels), pick(filler, words::ADJECTIVES)),
    }
}

/// One of `pool`. Every fourth word of a pool of eight or more is kept for tests, which draw half their words from those.
fn pick<'p>(filler: &mut Filler, pool: &[&'p str]) -> &'p str {
    let index = filler.dice.below(pool.len());
    let kept = |index: usize| index % 4 == 3;
    if pool.len() < 8 {
        return pool[index];
    }
    let first = index - index % 4;
    match filler.split {
        Split::Train if kept(index) => pool[first + filler.dice.below(3)],
        Split::Test if filler.dice.chance(50) => pool[(first + 3).min(pool.len() / 4 * 4 - 1)],
        _ => pool[index],
    }
}
