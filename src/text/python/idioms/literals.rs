//! Brackets, braces, and two variables that are exchanged.

use crate::text::python::loops::free_name;
use crate::text::python::scope::{Name, PyKind, PyKind::*};
use crate::text::python::words::WORDS;
use crate::text::python::writer::{PythonWriter, line};

/// Names that dicts have as well as lists of any depth.
const NEUTRAL: [&str; 16] = [
    "data", "values", "table", "names", "scores", "results", "colors", "totals", "counts", "config", "keys", "labels",
    "items", "entries", "groups", "known",
];

/// Defines a variable of that kind. The name of half of them does not say which kind, so that the
/// brackets must.
fn define(w: &mut PythonWriter, kind: PyKind, literal: &str) {
    if w.sampler.chance(50) {
        w.define_as(kind, literal);
        return;
    }
    let name = free_name(w, &NEUTRAL);
    line!(w, "{name} = {literal}");
    w.scope.declare(name, kind);
}

/// A dict with a colon after each key, or a list with a comma after each entry, of the same words.
pub(super) fn bracket_brace(w: &mut PythonWriter) {
    let dict = w.sampler.chance(50);
    let words = w.words(2, 6);
    let texts = w.sampler.chance(40);
    let entries: Vec<String> = match (dict, w.sampler.chance(75)) {
        (true, strings) => words
            .into_iter()
            .zip(w.sampler.below(3)..)
            .map(|(word, number)| {
                let key = if strings { word } else { number.to_string() };
                let value = if texts { w.word() } else { w.atom(Int) };
                format!("{key}: {value}")
            })
            .collect(),
        (false, true) => words,
        (false, false) => words.iter().map(|_| w.atom(Str)).collect(),
    };
    let (open, close, kind) = match (dict, texts) {
        (true, true) => ('{', '}', Texts),
        (true, false) => ('{', '}', Counts),
        _ => ('[', ']', Strs),
    };
    let literal = if entries.len() > 1 && w.sampler.chance(35) {
        w.stacked(open, &entries, close)
    } else {
        format!("{open}{}{close}", entries.join(", "))
    };
    match w.sampler.weighted(&[70, 12, 18]) {
        0 => define(w, kind, &literal),
        1 => line!(w, "print({literal})"),
        _ => match w.target(kind) {
            Some(name) if dict => line!(w, "{name}.update({literal})"),
            Some(name) => line!(w, "{name}.extend({literal})"),
            None => define(w, kind, &literal),
        },
    }
}

/// Lists of one, two, seldom three levels: as many brackets close as opened.
pub(super) fn bracket_counting(w: &mut PythonWriter) {
    let depth = w.sampler.weighted(&[30, 62, 8]) + 1;
    let style = w.sampler.weighted(&[55, 20, 25]);
    let literal = nested(w, depth, style);
    let kind = match (depth, style) {
        (1, 1) => Strs,
        (1, _) => Ints,
        _ => Grid,
    };
    match w.sampler.weighted(&[72, 14, 14]) {
        0 => define(w, kind, &literal),
        1 => line!(w, "print({literal})"),
        _ => match w.target(kind) {
            Some(name) => line!(w, "{name} = {literal}"),
            None => define(w, kind, &literal),
        },
    }
}

/// A list of that depth, of numbers (style 0), words (1), or numbers and variables (2).
fn nested(w: &mut PythonWriter, depth: usize, style: usize) -> String {
    if depth > 1 {
        let rows = w.sampler.range(1, 4);
        let rows: Vec<String> = (0..rows).map(|_| nested(w, depth - 1, style)).collect();
        return format!("[{}]", rows.join(", "));
    }
    match style {
        0 => format!("[{}]", w.numbers(1, 6)),
        1 => format!("[{}]", w.words(1, 4).join(", ")),
        _ => {
            let count = w.sampler.range(1, 4);
            let items: Vec<String> = (0..count).map(|_| w.atom(Int)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// `x, y = y, x`, against other assignments to two variables.
pub(super) fn var_swap(w: &mut PythonWriter) {
    let kind = w.sampler.pick(&[Int, Int, Str, Float, Ints]);
    // Names of one token, of which any two may be exchanged: the line alone must say which.
    let [first, second] = if w.version > 3 && w.sampler.chance(65) {
        [(); 2].map(|()| start(w, kind))
    } else {
        let first = w.need_target(kind);
        let Some(second) = other_target(w, first, kind) else { return };
        [first, second]
    };
    match w.sampler.weighted(&[70, 10, 4, 16]) {
        0 => line!(w, "{first}, {second} = {second}, {first}"),
        1 if kind == Int => line!(w, "{first}, {second} = {second}, {first} + {second}"),
        1 | 2 => line!(w, "{first}, {second} = {}, {}", w.literal(kind), w.literal(kind)),
        _ if w.deep() || !matches!(kind, Int | Float) => {
            line!(w, "{first}, {second} = {second}, {first}")
        }
        _ => {
            line!(w, "if {first} {} {second}:", w.sampler.pick(&[">", "<"]));
            w.block(|w| line!(w, "{first}, {second} = {second}, {first}"));
        }
    }
}

/// A new variable of that kind with a short name.
fn start(w: &mut PythonWriter, kind: PyKind) -> Name {
    let name = free_name(w, &WORDS.copied);
    line!(w, "{name} = {}", w.literal(kind));
    w.scope.declare(name, kind);
    w.scope.mark_used(name);
    name
}

/// A second assignable variable of that kind, defined if need be.
fn other_target(w: &mut PythonWriter, first: Name, kind: PyKind) -> Option<Name> {
    for _ in 0..4 {
        if let Some(name) = w.target(kind).filter(|&name| name != first) {
            return Some(name);
        }
    }
    Some(w.define(kind)).filter(|&name| name != first)
}
