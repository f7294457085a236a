//! Loops and conditions.

use crate::text::python::loops;
use crate::text::python::scope::{Name, PyKind::*};
use crate::text::python::writer::{PythonWriter, line};

/// `for name in` against `while name:`.
pub(super) fn for_while(w: &mut PythonWriter) {
    if w.sampler.chance(8) {
        return loops::over_elements(w);
    }
    match w.sampler.weighted(&[32, 28, 26, 14]) {
        0 => {
            let kind = w.sampler.pick(&[Ints, Strs]);
            let list = w.need_target(kind);
            let (item, element) = loops::loop_name(w, list, kind);
            line!(w, "while {list}:");
            w.loop_block(|w| {
                line!(w, "{item} = {list}.pop({})", w.sampler.pick(&["", "0", ""]));
                w.scope.declare(item, element);
                loops::use_value(w, item, element);
            });
        }
        1 => {
            let flag = w.need_target(Bool);
            line!(w, "while {}{flag}:", w.sampler.pick(&["", "", "", "not "]));
            w.loop_block(|w| {
                w.statements(1, 2);
                line!(w, "{flag} = {}", w.condition());
            });
        }
        2 => {
            let count = w.need_target(Int);
            line!(w, "while {count}:");
            w.loop_block(|w| {
                w.statements(1, 1);
                line!(w, "{count} -= 1");
            });
        }
        _ => {
            let count = w.need_target(Int);
            let up = w.sampler.chance(60);
            let bound = if up { w.sampler.range(5, 100) } else { w.sampler.below(3) };
            line!(w, "while {count} {} {bound}:", if up { "<" } else { ">" });
            w.loop_block(|w| {
                w.statements(1, 1);
                line!(w, "{count} {} {}", if up { "+=" } else { "-=" }, w.sampler.pick(&[1, 1, 1, 2, 5]));
            });
        }
    }
}

/// Chains of `if`, `elif` (often `elif not`) and `else`.
pub(super) fn else_elif(w: &mut PythonWriter) {
    w.need(Int);
    line!(w, "if {}:", w.condition());
    w.block(|w| w.branch());
    let middle = w.sampler.weighted(&[10, 70, 20]);
    for _ in 0..middle {
        match negatable(w) {
            Some(negated) if w.sampler.chance(85) => line!(w, "elif not {negated}:"),
            _ => line!(w, "elif {}:", w.condition()),
        }
        w.block(|w| w.branch());
    }
    if middle == 0 || w.sampler.chance(50) {
        w.line("else:");
        w.block(|w| w.branch());
    }
}

/// Something that reads well after `not`.
fn negatable(w: &mut PythonWriter) -> Option<String> {
    match w.sampler.below(4) {
        0 => w.collection().map(|name| name.to_string()),
        1 => w.var(Str).map(|name| {
            let method = w.sampler.pick(&["isdigit()", "isalpha()", "strip()", "isupper()"]);
            format!("{name}.{method}")
        }),
        2 => w.attribute(Bool),
        _ => w.var(Bool).map(|name| name.to_string()),
    }
    .or_else(|| w.var(Str).map(|name| name.to_string()))
}

/// `if` as a statement against `if` inside an expression.
pub(super) fn if_ternary(w: &mut PythonWriter) {
    w.need(Int);
    if w.sampler.chance(8) {
        return w.if_statement();
    }
    let kind = w.sampler.pick(&[Int, Str, Int, Str, Float]);
    let condition = w.condition();
    let choice = format!("{} if {condition} else {}", w.atom(kind), w.atom(kind));
    match (w.sampler.weighted(&[64, 14, 22]), w.returns) {
        (1, _) => line!(w, "print({choice})"),
        (2, _) if kind != Float => {
            let list = w.need_target(if kind == Int { Ints } else { Strs });
            line!(w, "{list}.append({choice})");
        }
        _ => {
            let target = w.target(kind).filter(|_| w.sampler.chance(35));
            match target {
                Some(name) => line!(w, "{name} = {choice}"),
                None => {
                    w.define_as(kind, &choice);
                }
            }
        }
    }
}

/// A `for` line and the deeper line below it, at several depths.
pub(super) fn indent_for(w: &mut PythonWriter) {
    match w.sampler.weighted(&[40, 30, 30]) {
        1 if w.indent < 3 && !w.deep() => {
            let grid = w.need(Grid);
            let row = loops::free_name(w, &["row", "line", "group", "r"]);
            let cell = loops::free_name(w, &["cell", "value", "x", "item", "n"]);
            line!(w, "for {row} in {grid}:");
            w.loop_block(|w| {
                line!(w, "for {cell} in {row}:");
                w.scope.declare_fixed(row, Ints);
                w.scope.mark_used(row);
                loops::body(w, None, &[(cell, Int)]);
            });
        }
        2 if !w.deep() => {
            w.need(Int);
            line!(w, "if {}:", w.condition());
            w.block(loops::for_loop);
        }
        _ => loops::for_loop(w),
    }
}

/// `if x == y:` against `x = y`.
pub(super) fn if_equals(w: &mut PythonWriter) {
    let kind = w.sampler.pick(&[Int, Int, Str]);
    let name = w.need_target(kind);
    let value = match w.target(kind).filter(|&other| other != name && w.sampler.chance(50)) {
        Some(other) => other.to_string(),
        None => w.literal(kind),
    };
    if w.sampler.chance(60) {
        line!(w, "if {name} == {value}:");
        w.block(|w| w.branch());
    } else {
        line!(w, "{name} = {value}");
    }
}

/// `enumerate` with two loop variables against `range` with one.
pub(super) fn enumerate_range(w: &mut PythonWriter) {
    if w.sampler.chance(60) {
        loops::over_enumerated(w);
    } else {
        loops::over_range(w);
    }
}

/// `if x == True:` against `x = True`.
pub(super) fn var_if(w: &mut PythonWriter) {
    let name = match w.target(Bool).filter(|_| w.sampler.chance(70)) {
        Some(name) => name,
        None => {
            let name: Name = w.fresh(Bool);
            let value = w.literal(Bool);
            line!(w, "{name} = {value}");
            w.scope.declare(name, Bool);
            name
        }
    };
    let value = w.sampler.pick(&["True", "True", "True", "False"]);
    if w.sampler.chance(70) {
        line!(w, "if {name} == {value}:");
        w.block(|w| {
            if w.sampler.chance(30) {
                line!(w, "{name} = {}", if value == "True" { "False" } else { "True" });
            } else {
                w.branch();
            }
        });
    } else {
        line!(w, "{name} = {value}");
    }
}
