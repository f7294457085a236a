//! Loops, and statements that use one value.

use super::expressions::spare_element;
use super::scope::{Name, PyKind, PyKind::*};
use super::writer::{PythonWriter, line};

/// A `for` loop over something in scope, or over a range.
pub(super) fn for_loop(w: &mut PythonWriter) {
    match w.sampler.weighted(&[40, 22, 14, 14, 10]) {
        0 => over_elements(w),
        1 => over_range(w),
        2 => over_enumerated(w),
        3 => over_entries(w),
        _ => over_letters(w),
    }
}

/// `for element in elements:`
pub(super) fn over_elements(w: &mut PythonWriter) {
    let (list, kind) = some_list(w);
    over(w, list, kind);
}

/// `for element in list:`, for that list.
pub(super) fn over(w: &mut PythonWriter, list: Name, kind: PyKind) {
    let (name, element) = loop_name(w, list, kind);
    line!(w, "for {name} in {list}:");
    body(w, Some(list), &[(name, element)]);
}

/// `for index, element in enumerate(elements):`
pub(super) fn over_enumerated(w: &mut PythonWriter) {
    let (list, kind) = some_list(w);
    let (name, element) = loop_name(w, list, kind);
    let index = free_name(w, &["i", "index", "j", "k", "idx", "number", "position", "pos"]);
    let start = if w.sampler.chance(15) { ", 1" } else { "" };
    line!(w, "for {index}, {name} in enumerate({list}{start}):");
    body(w, Some(list), &[(index, Int), (name, element)]);
}

/// `for i in range(n):`
pub(super) fn over_range(w: &mut PythonWriter) {
    let index = free_name(w, &["i", "j", "k", "n", "x", "step", "index", "row", "round_number"]);
    let bounds = match w.sampler.weighted(&[35, 25, 22, 12, 6]) {
        0 => w.sampler.number().max(1).to_string(),
        1 => w.atom(Int),
        2 => match w.collection() {
            Some(name) => format!("len({name})"),
            None => w.sampler.range(2, 20).to_string(),
        },
        3 => format!("{}, {}", w.sampler.below(3), w.sampler.range(3, 50)),
        _ => format!("0, {}, {}", w.sampler.range(10, 100), w.sampler.range(2, 5)),
    };
    line!(w, "for {index} in range({bounds}):");
    body(w, None, &[(index, Int)]);
}

fn over_entries(w: &mut PythonWriter) {
    let (kind, value) = if w.sampler.chance(60) { (Counts, Int) } else { (Texts, Str) };
    let dict = w.need(kind);
    let first = free_name(w, &["key", "name", "k", "word"]);
    let second =
        free_name(w, if value == Int { &["value", "count", "v", "total"] } else { &["value", "text", "v", "option"] });
    line!(w, "for {first}, {second} in {dict}.items():");
    body(w, Some(dict), &[(first, Str), (second, value)]);
}

fn over_letters(w: &mut PythonWriter) {
    let text = w.need(Str);
    let letter = free_name(w, &["letter", "c", "ch", "char", "symbol"]);
    line!(w, "for {letter} in {text}:");
    body(w, Some(text), &[(letter, Str)]);
}

/// The body of a loop: each loop variable is used, then perhaps another statement. It does not
/// change what is looped over.
pub(super) fn body(w: &mut PythonWriter, source: Option<Name>, variables: &[(Name, PyKind)]) {
    let held = source.and_then(|name| w.scope.vars.iter().position(|var| var.name == name));
    let was_fixed = held.is_some_and(|at| std::mem::replace(&mut w.scope.vars[at].fixed, true));
    w.loop_block(|w| {
        for &(name, kind) in variables {
            w.scope.declare_fixed(name, kind);
        }
        for &(name, kind) in variables.iter().rev() {
            if !w.scope.vars.iter().any(|var| var.name == name && var.used) {
                use_value(w, name, kind);
            }
        }
        if w.sampler.chance(25) && !w.full() {
            w.statement();
        }
    });
    if let Some(at) = held {
        w.scope.vars[at].fixed = was_fixed;
    }
}

/// A statement that reads the variable `name`.
pub(super) fn use_value(w: &mut PythonWriter, name: Name, kind: PyKind) {
    w.scope.mark_used(name);
    match kind {
        Int => use_int(w, name),
        Str => use_str(w, name),
        Float => match w.sampler.below(3) {
            0 => line!(w, "print(round({name}, 2))"),
            1 => line!(w, "print({})", w.f_string(&[format!("{name}:.2f")])),
            _ => {
                let value = format!("{name} * {}", w.atom(Float));
                w.define_as(Float, &value);
            }
        },
        Bool if !w.deep() => {
            line!(w, "if {}{name}:", w.sampler.pick(&["", "not "]));
            w.block(|w| w.branch());
        }
        Ints | Strs | Grid | Things if !w.deep() && w.sampler.chance(65) => over(w, name, kind),
        Ints => {
            let value = format!("{}({name})", w.sampler.pick(&["sum", "max", "min", "len"]));
            w.define_as(Int, &value);
        }
        Thing => use_thing(w, name),
        Set | Counts | Texts | Strs if w.sampler.chance(60) => w.change(name, kind),
        Bool | Instance(_) => line!(w, "print({name})"),
        _ => line!(w, "print(len({name}))"),
    }
}

fn use_int(w: &mut PythonWriter, name: Name) {
    let way = w.sampler.weighted(&[26, 20, 16, 16, 14]);
    if way == 0
        && let Some(total) = w.target(Int).filter(|&total| total != name)
    {
        line!(w, "{total} {}= {name}", w.sampler.pick(&["+", "+", "-"]));
    } else if way == 1 && !w.deep() {
        let number = w.sampler.number();
        match w.sampler.below(3) {
            0 => line!(w, "if {name} % {} == 0:", w.sampler.range(2, 7)),
            _ => line!(w, "if {name} {} {number}:", w.sampler.pick(&[">", "<", "==", ">=", "!="])),
        }
        w.block(|w| w.branch());
    } else if way == 2
        && let Some(list) = w.target(Ints)
    {
        line!(w, "{list}.append({name}{})", w.sampler.pick(&["", "", " + 1", " * 2", " ** 2"]));
    } else if way == 3 {
        let value = format!("{name} {} {}", w.sampler.pick(&["+", "*", "-", "%", "//"]), w.sampler.number().max(1));
        w.define_as(Int, &value);
    } else {
        show_value(w, name);
    }
}

fn use_str(w: &mut PythonWriter, name: Name) {
    let way = w.sampler.weighted(&[18, 16, 14, 12, 14, 22]);
    if way == 0
        && let Some(list) = w.target(Strs)
    {
        line!(w, "{list}.append({name}{})", w.sampler.pick(&["", "", ".strip()", ".lower()", ".upper()"]));
    } else if way == 1
        && let Some(text) = w.target(Str).filter(|&text| text != name)
    {
        line!(w, "{text} += {name}");
    } else if way == 2
        && let Some(set) = w.target(Set)
    {
        line!(w, "{set}.add({name})");
    } else if way == 3
        && let Some(counts) = w.target(Counts)
    {
        match w.sampler.below(2) {
            0 => line!(w, "{counts}[{name}] = {counts}.get({name}, 0) + 1"),
            _ => line!(w, "{counts}[{name}] = {}", w.expr(Int)),
        }
    } else if way == 4 && !w.deep() {
        match w.sampler.below(3) {
            0 => line!(w, "if {name} == {}:", w.word()),
            1 => line!(w, "if len({name}) {} {}:", w.sampler.pick(&[">", "<", "=="]), w.sampler.range(1, 12)),
            _ => line!(w, "if {name}.{}({}):", w.sampler.pick(&["startswith", "endswith"]), w.word()),
        }
        w.block(|w| w.branch());
    } else {
        show_value(w, name);
    }
}

fn use_thing(w: &mut PythonWriter, name: Name) {
    let way = w.sampler.weighted(&[25, 20, 20, 20, 15]);
    if way == 0
        && let Some(total) = w.target(Int)
    {
        line!(w, "{total} += {name}.{}", w.sampler.pick(&w.domain.ints));
    } else if way == 1 && !w.deep() {
        line!(w, "if {}{name}.{}:", w.sampler.pick(&["", "not "]), w.sampler.pick(&w.domain.flags));
        w.block(|w| w.branch());
    } else if way == 2
        && let Some(list) = w.target(Strs)
    {
        line!(w, "{list}.append({name}.{})", w.sampler.pick(&w.domain.strs));
    } else if way == 3 {
        line!(w, "{name}.{} = {}", w.sampler.pick(&w.domain.ints), w.expr(Int));
    } else {
        line!(w, "print({name}.{})", w.sampler.pick(&w.domain.strs));
    }
}

/// Reads the variables from number `known` that nothing has read, unless the block has ended.
pub(super) fn settle(w: &mut PythonWriter, known: usize) {
    for at in known..w.scope.vars.len() {
        let var = w.scope.vars[at];
        if !var.used && !var.fixed && !w.ended && w.sampler.chance(80) {
            w.scope.mark_used(var.name);
            read(w, var.name, var.kind);
        }
    }
}

/// One line that reads `name` and defines nothing.
fn read(w: &mut PythonWriter, name: Name, kind: PyKind) {
    let list = match kind {
        Int => w.target(Ints),
        Str => w.target(Strs),
        Ints => w.target(Grid),
        _ => None,
    };
    let total = if kind == Int { w.target(Int).filter(|&total| total != name) } else { None };
    match (list, total, w.sampler.below(3)) {
        (Some(list), _, 0..2) => line!(w, "{list}.append({name})"),
        (_, Some(total), 0..2) => line!(w, "{total} += {name}"),
        (_, _, 0) if matches!(kind, Ints | Strs | Set | Counts) => {
            line!(w, "print(len({name}))")
        }
        (_, _, 1) => line!(w, "print({}, {name})", w.text()),
        _ => line!(w, "print({name})"),
    }
}

fn show_value(w: &mut PythonWriter, name: Name) {
    match w.sampler.below(3) {
        0 => line!(w, "print({name})"),
        1 => line!(w, "print({}, {name})", w.text()),
        _ => line!(w, "print({})", w.f_string(&[name.to_string()])),
    }
}

/// Some list in scope, or a new one.
pub(super) fn some_list(w: &mut PythonWriter) -> (Name, PyKind) {
    let kinds = [Strs, Ints, Things, Grid];
    let start = w.sampler.weighted(&[35, 35, 20, 10]);
    for i in 0..kinds.len() {
        let kind = kinds[(start + i) % kinds.len()];
        if let Some(name) = w.var(kind) {
            return (name, kind);
        }
    }
    let kind = kinds[start % 2];
    (w.define(kind), kind)
}

/// A name for an element of the list, and the element's kind.
pub(super) fn loop_name(w: &mut PythonWriter, list: Name, kind: PyKind) -> (Name, PyKind) {
    let element = match kind {
        Ints => Int,
        Grid => Ints,
        Things => Thing,
        _ => Str,
    };
    let singular = if kind == Things { w.element(list) } else { w.element_name(list, "item") };
    let name = Name::plain(singular);
    if w.sampler.chance(75) && !w.scope.knows(name) {
        return (name, element);
    }
    (free_name(w, spare_element(kind)), element)
}

/// One of `names` that nothing in scope has; if all are taken, a longer form of one.
pub(super) fn free_name(w: &mut PythonWriter, names: &[&'static str]) -> Name {
    let start = w.sampler.below(names.len());
    let free =
        (0..names.len()).map(|i| Name::plain(names[(start + i) % names.len()])).find(|&name| !w.scope.knows(name));
    free.unwrap_or(Name::joined("other_", names[start]))
}
