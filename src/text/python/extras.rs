//! The long tail of ordinary code: library calls and the many small forms of the language.

use super::expressions::element_name;
use super::scope::Kind;
use super::writer::{PythonWriter, line};

/// A call into the standard library, with its import.
pub(super) fn library(w: &mut PythonWriter) {
    let (module, kind, value) = match w.sampler.below(13) {
        0 => (
            "import random",
            Kind::Int,
            format!("random.randint({}, {})", w.sampler.below(10), w.sampler.range(10, 100)),
        ),
        1 => ("import math", Kind::Float, format!("math.sqrt({})", w.atom(Kind::Int))),
        2 => {
            ("import math", Kind::Int, format!("math.{}({})", w.sampler.pick(&["floor", "ceil"]), w.atom(Kind::Float)))
        }
        3 => ("import os", Kind::Str, format!("os.path.join({}, {})", w.atom(Kind::Str), w.word())),
        4 => ("import time", Kind::Float, "time.time()".to_string()),
        5 => ("import json", Kind::Str, format!("json.dumps({})", w.need(Kind::Texts))),
        6 => ("import random", Kind::Str, format!("random.choice({})", w.need(Kind::Strs))),
        7 => ("import os", Kind::Strs, format!("os.listdir({})", w.word())),
        8 => ("import re", Kind::Strs, format!("re.split({}, {})", w.quoted(","), w.atom(Kind::Str))),
        9 => ("from collections import Counter", Kind::Counts, format!("Counter({})", w.need(Kind::Strs))),
        10 => ("from collections import defaultdict", Kind::Counts, "defaultdict(int)".to_string()),
        11 => ("import math", Kind::Float, format!("math.pi * {}", w.atom(Kind::Float))),
        _ => ("import sys", Kind::Strs, "sys.argv[1:]".to_string()),
    };
    w.import(module);
    w.define_as(kind, &value);
}

/// One of the smaller forms.
pub(super) fn small_form(w: &mut PythonWriter) {
    match w.sampler.below(12) {
        0 => line!(w, "print({} * {})", w.quoted("-"), w.sampler.pick(&[10, 20, 30, 40, 5])),
        1 => line!(w, "print({}, end={})", w.atom(Kind::Str), w.quoted(" ")),
        2 => {
            let first = w.fresh(Kind::Int);
            w.scope.declare(first, Kind::Int);
            let second = w.fresh(Kind::Int);
            w.scope.declare(second, Kind::Int);
            line!(w, "{first} = {second} = {}", w.sampler.below(2));
        }
        3 => {
            let name = w.need(Kind::Str);
            let slice = w.sampler.pick(&["[0]", "[-1]", "[1:]", "[::-1]", "[:3]", "[2:]", "[:-1]"]);
            w.define_as(Kind::Str, &format!("{name}{slice}"));
        }
        4 if !w.deep() => {
            let name = w.need(Kind::Int);
            line!(w, "if {} <= {name} < {}:", w.sampler.below(5), w.sampler.range(10, 99));
            w.block(|w| w.branch());
        }
        5 if !w.deep() => {
            let kind = w.sampler.pick(&[Kind::Int, Kind::Str]);
            let name = w.need_target(kind);
            line!(w, "if {name} is None:");
            w.block(|w| line!(w, "{name} = {}", w.literal(kind)));
        }
        6 if !w.deep() => {
            let kind = w.sampler.pick(&[Kind::Int, Kind::Str, Kind::Float]);
            let name = w.need(kind);
            line!(w, "if {}isinstance({name}, {}):", w.sampler.pick(&["", "not "]), kind.hint());
            w.block(|w| w.branch());
        }
        7 => {
            let counts = w.need_target(Kind::Counts);
            line!(w, "del {counts}[{}]", w.word());
        }
        8 => {
            let name = w.need(Kind::Str);
            let value = format!("{name} or {}", w.text());
            w.define_as(Kind::Str, &value);
        }
        9 => {
            let list = w.need(Kind::Strs);
            let item = element_name(list, "s");
            w.define_as(Kind::Counts, &format!("{{{item}: len({item}) for {item} in {list}}}"));
        }
        10 => {
            let list = w.need(Kind::Ints);
            let item = element_name(list, "x");
            let value =
                format!("{}({item} > {} for {item} in {list})", w.sampler.pick(&["any", "all"]), w.sampler.number());
            w.define_as(Kind::Bool, &value);
        }
        _ => {
            let list = w.need(Kind::Ints);
            line!(w, "first, *rest = {list}");
            line!(w, "print({})", w.sampler.pick(&["first, rest", "first", "len(rest)", "rest"]));
        }
    }
}
