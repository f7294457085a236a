//! Signatures, constructors, lambdas, and what returns True.

use crate::text::python::scope::{Name, PyFunction, PyKind::*, PyParam};
use crate::text::python::writer::{PythonWriter, line};
use crate::text::python::{classes, functions, loops};

/// A signature whose last parameters all default to `None`, or none of them.
pub(super) fn final_kwarg(w: &mut PythonWriter) {
    let returns = w.sampler.pick(&[Some(Int), Some(Str), Some(Strs), None, None]);
    let name = w.function_name(returns);
    let count = w.sampler.range(2, 5);
    let defaults = if w.sampler.chance(75) { w.sampler.range(2, count) } else { 0 };
    w.hints &= w.sampler.chance(50);
    let given = w.parameters(count, defaults, true);
    functions::define(w, name, &given, returns, |w| {
        w.fill_defaults(&given);
        if w.sampler.chance(30) {
            w.statement();
        }
        w.use_rest(&given);
        functions::finish(w, returns);
    });
}

/// A class whose `__init__` copies each parameter to the field of its name.
pub(super) fn class_init(w: &mut PythonWriter) {
    classes::class(w);
}

/// Names of lambdas' parameters, and of some functions.
const VARIABLES: [&str; 18] = [
    "x", "n", "v", "a", "item", "value", "num", "t", "name", "word", "line", "row", "key", "number", "entry",
    "element", "part", "text",
];
/// Names of functions that make a number of another.
const OPERATIONS: [&str; 10] =
    ["double", "square", "increment", "scale_up", "shift", "half", "transform", "convert", "cube", "negate"];

/// `lambda x:` against `def name(`.
pub(super) fn lambda_func(w: &mut PythonWriter) {
    let x = loops::free_name(w, &VARIABLES);
    // The name of a function must not reveal whether `def` or `lambda` defines it.
    let operation = w.sampler.chance(60);
    let name = loops::free_name(w, if operation { &OPERATIONS[..] } else { &VARIABLES });
    let name = if name == x { loops::free_name(w, &OPERATIONS) } else { name };
    let body = match w.sampler.below(5) {
        0 => format!("{x} * {x}"),
        1 => format!("-{x}"),
        2 => format!("{x} % {} == 0", w.sampler.range(2, 9)),
        _ => format!("{x} {} {}", w.sampler.pick(&["+", "*", "-", "//"]), w.sampler.number().max(1)),
    };
    match w.sampler.weighted(&[38, 28, 20, 14]) {
        0 => {
            line!(w, "{name} = lambda {x}: {body}");
            if w.sampler.chance(60) {
                line!(w, "print({name}({}))", w.atom(Int));
            }
        }
        1 => {
            let list = w.need(Ints);
            let call = w.sampler.pick(&["map", "filter", "map"]);
            let result = w.fresh(Ints);
            line!(w, "{result} = list({call}(lambda {x}: {body}, {list}))");
            w.scope.declare(result, Ints);
        }
        2 => match w.target(Things) {
            Some(things) => {
                let item = w.element(things);
                line!(w, "{things}.sort(key=lambda {item}: {item}.{})", w.sampler.pick(&w.domain.ints));
            }
            None => {
                let words = w.need(Strs);
                let s = loops::free_name(w, &["s", "w", "word", "name", "text"]);
                let key = w.sampler.pick(&["len(", "str.lower("]);
                let result = w.fresh(Strs);
                line!(w, "{result} = sorted({words}, key=lambda {s}: {key}{s}))");
                w.scope.declare(result, Strs);
            }
        },
        _ => {
            line!(w, "def {name}({x}):");
            w.block(|w| line!(w, "return {body}"));
            if w.indent == 0 {
                w.blank(2);
            }
            let params = vec![PyParam { name: x, kind: Int, optional: false }];
            let returns = Some(if body.contains("==") { Bool } else { Int });
            let function = PyFunction { name, params, returns };
            if w.indent == 0 {
                w.scope.functions.push(function);
            } else {
                line!(w, "print({name}({}))", w.atom(Int));
            }
        }
    }
}

/// `while True:` against `return True`.
pub(super) fn while_return_true(w: &mut PythonWriter) {
    if w.sampler.chance(55) {
        forever(w);
    } else {
        predicate(w);
    }
}

/// A function around a loop that ends by `break` or `return`.
fn forever(w: &mut PythonWriter) {
    let returns = w.sampler.pick(&[None, Some(Int), Some(Str)]);
    let name = w.function_name(returns);
    let count = w.sampler.weighted(&[40, 60]);
    let given = w.parameters(count, 0, false);
    functions::define(w, name, &given, returns, |w| {
        let counter = w.define_as(Int, "0");
        w.line("while True:");
        w.loop_block(|w| {
            line!(w, "{counter} += {}", w.sampler.pick(&[1, 1, 2, 5]));
            if w.sampler.chance(60) {
                w.statement();
            }
            match w.sampler.below(3) {
                0 => line!(w, "if {}:", w.condition()),
                _ => line!(w, "if {counter} {} {}:", w.sampler.pick(&[">", ">=", "=="]), w.sampler.number()),
            }
            w.block(|w| match returns {
                Some(kind) if w.sampler.chance(50) => line!(w, "return {}", w.atom(kind)),
                _ => w.line("break"),
            });
        });
        w.use_rest(&given);
        functions::finish(w, returns);
    });
}

/// A function that returns True or False.
fn predicate(w: &mut PythonWriter) {
    let name = w.function_name(Some(Bool));
    let count = w.sampler.range(1, 2);
    let given = w.parameters(count, 0, false);
    functions::define(w, name, &given, Some(Bool), |w| {
        let early = w.sampler.chance(50);
        let (first, last) = if early { ("True", "False") } else { ("False", "True") };
        let subject: Option<Name> = given.iter().find(|given| given.param.kind == Strs).map(|given| given.param.name);
        match subject {
            Some(list) => {
                let (item, _) = loops::loop_name(w, list, Strs);
                w.scope.mark_used(list);
                line!(w, "for {item} in {list}:");
                w.block(|w| {
                    line!(w, "if {item} == {}:", w.word());
                    w.block(|w| line!(w, "return {first}"));
                });
            }
            None => {
                line!(w, "if {}:", w.condition());
                w.block(|w| line!(w, "return {first}"));
            }
        }
        w.use_rest(&given);
        loops::settle(w, 0);
        line!(w, "return {last}");
    });
}
