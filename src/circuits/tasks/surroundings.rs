//! The words and lines that stand around a task, as in the built-in generator's programs.

use super::Split;
use super::template::Fill;
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
pub(super) fn around(fill: &mut Fill, template: &str) -> String {
    let definition = template.starts_with("def ") || template.starts_with("class ");
    let mut code = String::new();
    for number in 7..7 + fill.dice.weighted(&[45, 35, 20]) {
        code.push_str(&fill.dice.pick(BEFORE).replace('#', &number.to_string()));
        code.push('\n');
    }
    if definition && !code.is_empty() {
        code.push_str("\n\n");
    }
    code.push_str(template);
    if definition {
        return code;
    }
    match fill.dice.weighted(&[40, 18, 7, 7, 7, 7, 7, 7]) {
        0 => code,
        // A line break inside a template always belongs to both sides, so that indenting every line keeps them alike.
        at => format!("{}\n    {}", AROUND[at - 1], code.replace('\n', "\n    ")),
    }
}

/// A word of that kind. Unknown kinds stand for themselves, which the tests look for.
pub(super) fn word(fill: &mut Fill, kind: &str) -> String {
    let domain = fill.domain;
    let one = |fill: &mut Fill, pool: &[&str]| pick(fill, pool).to_string();
    // Most names are general, some the domain's.
    let either = |fill: &mut Fill, pool: &[&'static str], own: &[&'static str]| {
        if fill.dice.chance(70) { pick(fill, pool).to_string() } else { pick(fill, own).to_string() }
    };
    match kind {
        "a" | "b" | "c" => one(fill, COPIED),
        "int" => either(fill, words::INTS, domain.ints),
        "str" => either(fill, words::STRS, domain.strs),
        "flag" => either(fill, words::BOOLS, domain.flags),
        "ints" => one(fill, words::INT_LISTS),
        "strs" => one(fill, words::STR_LISTS),
        "set" => one(fill, words::SETS),
        "things" => domain.things[fill.dice.below(domain.things.len())].1.to_string(),
        "thing" => domain.things[fill.dice.below(domain.things.len())].0.to_string(),
        "attr" => one(fill, domain.ints),
        "class" => one(fill, domain.classes),
        "grow" => one(fill, GROWING),
        "coll" => one(fill, COLLECTIONS),
        "elem" => one(fill, ELEMENTS),
        "either" => one(fill, EITHER),
        "idx" => one(fill, INDICES),
        "handle" => one(fill, HANDLES),
        "param" => one(fill, PARAMETERS),
        "called" => one(fill, CALLED),
        "next" => fill.dice.pick(NEXT).to_string(),
        "read" => one(fill, words::FILE_STEMS_READ),
        "write" => one(fill, words::FILE_STEMS_WRITE),
        "ext" => fill.dice.pick(FILE_ENDS).to_string(),
        "label" | "labelx" => one(fill, domain.labels),
        "num" | "numx" | "numy" => fill.dice.number().to_string(),
        "q" => fill.dice.pick(&["'", "\""]).to_string(),
        "func" => function(fill),
        "text" => text(fill),
        _ => format!("{{{kind}}}"),
    }
}

fn function(fill: &mut Fill) -> String {
    let thing = fill.domain.things[fill.dice.below(fill.domain.things.len())].0;
    match fill.dice.chance(50) {
        true => format!("{}{thing}", pick(fill, fill.domain.verbs)),
        false => format!("{}_{thing}", pick(fill, words::PLAIN_VERBS)),
    }
}

/// What a program says: a few words without quotes or punctuation.
fn text(fill: &mut Fill) -> String {
    let thing = fill.domain.things[fill.dice.below(fill.domain.things.len())].0;
    match fill.dice.weighted(&[30, 20, 20, 15, 15]) {
        0 => pick(fill, fill.domain.labels).to_string(),
        1 => format!("{} {thing}", pick(fill, words::ADJECTIVES)),
        2 => format!("{} the {thing}", pick(fill, words::PLAIN_VERBS)),
        3 => format!("{} {}", pick(fill, fill.domain.labels), pick(fill, fill.domain.labels)),
        _ => format!("{thing} {} is {}", pick(fill, fill.domain.labels), pick(fill, words::ADJECTIVES)),
    }
}

/// One of `pool`. Every fourth word of a pool of eight or more is kept for tests, which draw half their words from those.
fn pick<'p>(fill: &mut Fill, pool: &[&'p str]) -> &'p str {
    let index = fill.dice.below(pool.len());
    let kept = |index: usize| index % 4 == 3;
    if pool.len() < 8 {
        return pool[index];
    }
    let first = index - index % 4;
    match fill.split {
        Split::Train if kept(index) => pool[first + fill.dice.below(3)],
        Split::Test if fill.dice.chance(50) => pool[(first + 3).min(pool.len() / 4 * 4 - 1)],
        _ => pool[index],
    }
}
