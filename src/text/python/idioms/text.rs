//! Quotes, strings that grow, sets, f-strings.

use crate::text::python::loops;
use crate::text::python::scope::{Name, PyKind, PyKind::*};
use crate::text::python::writer::{PythonWriter, line};

/// A call whose only argument is a string: it closes as it opened.
pub(super) fn single_double_quote(w: &mut PythonWriter) {
    match w.sampler.weighted(&[30, 14, 10, 10, 10, 8, 8, 10]) {
        0 => line!(w, "print({})", w.text()),
        1 => {
            let list = w.need_target(Strs);
            line!(w, "{list}.append({})", w.text());
        }
        2 => {
            let name = w.fresh(Str);
            line!(w, "{name} = input({})", w.text());
            w.scope.declare(name, Str);
        }
        3 => {
            let text = w.need(Str);
            let method = w.sampler.pick(&["split", "startswith", "endswith", "find", "count", "strip"]);
            line!(w, "print({text}.{method}({}))", w.text());
        }
        4 => {
            let (name, text) = (w.fresh(Int), w.text());
            line!(w, "{name} = len({text})");
            w.scope.declare(name, Int);
        }
        5 => w.raise_if(),
        6 => {
            let set = w.need_target(Set);
            line!(w, "{set}.add({})", w.text());
        }
        _ => {
            w.import("import logging");
            line!(w, "logging.{}({})", w.sampler.pick(&["info", "warning", "error", "debug"]), w.text());
        }
    }
}

/// Names that suit a set as well as a string.
const GROWING: [&str; 12] =
    ["current", "result", "output", "names", "letters", "words", "seen", "found", "unique", "used", "known", "buffer"];

/// `.add` for a variable that starts as `set()`, `+=` for one that starts as an empty string.
pub(super) fn set_or_string(w: &mut PythonWriter) {
    let kind = w.sampler.pick(&[Set, Str]);
    let name = if w.version > 3 && w.sampler.chance(70) { loops::free_name(w, &GROWING) } else { w.fresh(kind) };
    grow(w, name, kind);
}

/// The same with a variable that is always called `current`.
pub(super) fn set_or_string_fixedvarname(w: &mut PythonWriter) {
    let kind = w.sampler.pick(&[Set, Str]);
    let name = Name::plain("current");
    match w.scope.vars.iter().find(|var| var.name == name) {
        Some(var) if var.fixed => set_or_string(w),
        _ => grow(w, name, kind),
    }
}

fn grow(w: &mut PythonWriter, name: Name, kind: PyKind) {
    let list = w.sampler.chance(50).then(|| loops::some_list(w));
    let companion = if w.sampler.chance(25) { Some(start_companion(w, name, kind)) } else { None };
    start(w, name, kind);
    w.scope.declare(name, kind);
    for _ in 0..w.sampler.weighted(&[60, 28, 12]) {
        w.update();
    }
    match list {
        Some((list, list_kind)) if !w.deep() => {
            let (element, element_kind) = loops::loop_name(w, list, list_kind);
            line!(w, "for {element} in {list}:");
            w.loop_block(|w| {
                w.scope.declare_fixed(element, element_kind);
                w.scope.mark_used(element);
                let value = match element_kind {
                    Str => element.to_string(),
                    Thing => format!("{element}.{}", w.sampler.pick(&w.domain.strs)),
                    _ => format!("str({element})"),
                };
                match w.sampler.weighted(&[55, 25, 20]) {
                    1 if !w.deep() => {
                        line!(w, "if {}:", w.condition());
                        w.block(|w| extend(w, name, kind, &value));
                    }
                    2 => {
                        w.update();
                        extend(w, name, kind, &value);
                    }
                    _ => extend(w, name, kind, &value),
                }
            });
        }
        _ => {
            for _ in 0..w.sampler.range(1, 2) {
                let value = w.atom(Str);
                let value = if value == name.to_string() { w.word() } else { value };
                extend(w, name, kind, &value);
            }
        }
    }
    if let Some((other, other_kind)) = companion {
        let value = w.word();
        extend(w, other, other_kind, &value);
    }
    match w.sampler.below(4) {
        0 => line!(w, "print({name})"),
        1 => line!(w, "print(len({name}))"),
        _ => {}
    }
}

/// A second variable of the other kind, initialized next to the first.
fn start_companion(w: &mut PythonWriter, name: Name, kind: PyKind) -> (Name, PyKind) {
    let kind = if kind == Set { Str } else { Set };
    let mut other = w.fresh(kind);
    if other == name {
        other = Name::plain(if kind == Set { "others" } else { "joined" });
    }
    start(w, other, kind);
    w.scope.declare(other, kind);
    (other, kind)
}

fn start(w: &mut PythonWriter, name: Name, kind: PyKind) {
    match kind {
        Set => line!(w, "{name} = set()"),
        _ => line!(w, "{name} = {}", w.quoted("")),
    }
}

fn extend(w: &mut PythonWriter, name: Name, kind: PyKind, value: &str) {
    match kind {
        Set => line!(w, "{name}.add({value})"),
        _ => line!(w, "{name} += {value}"),
    }
}

/// A string with values: by an f-string's braces, by `format`, or with no values at all.
pub(super) fn fstring_brace(w: &mut PythonWriter) {
    let kind = w.sampler.pick(&[Str, Int]);
    let value = w.need(kind);
    let text = w.sentence();
    let text = text.trim_end();
    let before = w.sampler.pick(&["", "", "the ", "my "]);
    let after = w.sampler.pick(&["name", "value", "item", "here", "again", "done"]);
    let literal = match w.sampler.weighted(&[44, 30, 10, 10, 6]) {
        0 => format!("f{}", w.quoted(&format!("{before}{text} {{{value}}}"))),
        1 => w.quoted(&format!("{before}{text} {after}")),
        2 => format!("{}.format({value})", w.quoted(&format!("{before}{text} {{}}"))),
        3 => w.quoted(&format!("{before}{text} {{name}}")),
        _ => format!("{} + str({value})", w.quoted(&format!("{text} "))),
    };
    match w.sampler.weighted(&[40, 40, 20]) {
        0 => line!(w, "print({literal})"),
        1 => {
            let name = w.fresh(Str);
            line!(w, "{name} = {literal}");
            w.scope.declare(name, Str);
        }
        _ => match w.target(Strs) {
            Some(list) => line!(w, "{list}.append({literal})"),
            None => line!(w, "print({literal})"),
        },
    }
}
