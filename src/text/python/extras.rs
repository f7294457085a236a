//! The long tail of ordinary code: library calls and the many small forms of the language.

use super::expressions::element_name;
use super::scope::{Name, PyKind};
use super::writer::{PythonWriter, line};

/// A call into the standard library, with its import.
pub(super) fn library(w: &mut PythonWriter) {
    let (module, kind, value) = match w.sampler.below(13) {
        0 => (
            "import random",
            PyKind::Int,
            format!("random.randint({}, {})", w.sampler.below(10), w.sampler.range(10, 100)),
        ),
        1 => ("import math", PyKind::Float, format!("math.sqrt({})", w.atom(PyKind::Int))),
        2 => (
            "import math",
            PyKind::Int,
            format!("math.{}({})", w.sampler.pick(&["floor", "ceil"]), w.atom(PyKind::Float)),
        ),
        3 => ("import os", PyKind::Str, format!("os.path.join({}, {})", w.atom(PyKind::Str), w.word())),
        4 => ("import time", PyKind::Float, "time.time()".to_string()),
        5 => ("import json", PyKind::Str, format!("json.dumps({})", w.need(PyKind::Texts))),
        6 => ("import random", PyKind::Str, format!("random.choice({})", w.need(PyKind::Strs))),
        7 => ("import os", PyKind::Strs, format!("os.listdir({})", w.word())),
        8 => ("import re", PyKind::Strs, format!("re.split({}, {})", w.quoted(","), w.atom(PyKind::Str))),
        9 => ("from collections import Counter", PyKind::Counts, format!("Counter({})", w.need(PyKind::Strs))),
        10 => ("from collections import defaultdict", PyKind::Counts, "defaultdict(int)".to_string()),
        11 => ("import math", PyKind::Float, format!("math.pi * {}", w.atom(PyKind::Float))),
        _ => ("import sys", PyKind::Strs, "sys.argv[1:]".to_string()),
    };
    w.import(module);
    w.define_as(kind, &value);
}

/// One of the smaller forms.
pub(super) fn small_form(w: &mut PythonWriter) {
    match w.sampler.below(12) {
        0 => line!(w, "print({} * {})", w.quoted("-"), w.sampler.pick(&[10, 20, 30, 40, 5])),
        1 => line!(w, "print({}, end={})", w.atom(PyKind::Str), w.quoted(" ")),
        2 => {
            let [first, second] = two_names(w);
            line!(w, "{first} = {second} = {}", w.sampler.below(2));
        }
        3 => {
            let name = w.need(PyKind::Str);
            let slice = w.sampler.pick(&["[0]", "[-1]", "[1:]", "[::-1]", "[:3]", "[2:]", "[:-1]"]);
            w.define_as(PyKind::Str, &format!("{name}{slice}"));
        }
        4 if !w.deep() => {
            let name = w.need(PyKind::Int);
            line!(w, "if {} <= {name} < {}:", w.sampler.below(5), w.sampler.range(10, 99));
            w.block(|w| w.branch());
        }
        5 if !w.deep() => {
            let kind = w.sampler.pick(&[PyKind::Int, PyKind::Str]);
            let name = w.need_target(kind);
            line!(w, "if {name} is None:");
            w.block(|w| line!(w, "{name} = {}", w.literal(kind)));
        }
        6 if !w.deep() => {
            let kind = w.sampler.pick(&[PyKind::Int, PyKind::Str, PyKind::Float]);
            let name = w.need(kind);
            line!(w, "if {}isinstance({name}, {}):", w.sampler.pick(&["", "not "]), kind.hint());
            w.block(|w| w.branch());
        }
        7 => {
            let counts = w.need_target(PyKind::Counts);
            line!(w, "del {counts}[{}]", w.word());
        }
        8 => {
            let name = w.need(PyKind::Str);
            let value = format!("{name} or {}", w.text());
            w.define_as(PyKind::Str, &value);
        }
        9 => {
            let list = w.need(PyKind::Strs);
            let item = element_name(list, "s");
            w.define_as(PyKind::Counts, &format!("{{{item}: len({item}) for {item} in {list}}}"));
        }
        10 => {
            let list = w.need(PyKind::Ints);
            let item = element_name(list, "x");
            let call = w.sampler.pick(&["any", "all"]);
            let value = format!("{call}({item} > {} for {item} in {list})", w.sampler.number());
            w.define_as(PyKind::Bool, &value);
        }
        _ => {
            let list = w.need(PyKind::Ints);
            line!(w, "first, *rest = {list}");
            line!(w, "print({})", w.sampler.pick(&["first, rest", "first", "len(rest)", "rest"]));
        }
    }
}

fn two_names(w: &mut PythonWriter) -> [Name; 2] {
    [(); 2].map(|()| {
        let name = w.fresh(PyKind::Int);
        w.scope.declare(name, PyKind::Int);
        name
    })
}
