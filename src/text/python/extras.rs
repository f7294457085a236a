//! The long tail of ordinary code: library calls and the many small forms of the language.

use super::scope::{Name, PyKind::*};
use super::writer::{PythonWriter, line};

/// A call into the standard library, with its import.
pub(super) fn library(w: &mut PythonWriter) {
    let (module, kind, value) = match w.sampler.below(13) {
        0 => ("import random", Int, format!("random.randint({}, {})", w.sampler.below(10), w.sampler.range(10, 100))),
        1 => ("import math", Float, format!("math.sqrt({})", w.atom(Int))),
        2 => ("import math", Int, format!("math.{}({})", w.sampler.pick(&["floor", "ceil"]), w.atom(Float))),
        3 => ("import os", Str, format!("os.path.join({}, {})", w.atom(Str), w.word())),
        4 => ("import time", Float, "time.time()".to_string()),
        5 => ("import json", Str, format!("json.dumps({})", w.need(Texts))),
        6 => ("import random", Str, format!("random.choice({})", w.need(Strs))),
        7 => ("import os", Strs, format!("os.listdir({})", w.word())),
        8 => ("import re", Strs, format!("re.split({}, {})", w.quoted(","), w.atom(Str))),
        9 => ("from collections import Counter", Counts, format!("Counter({})", w.need(Strs))),
        10 => ("from collections import defaultdict", Counts, "defaultdict(int)".to_string()),
        11 => ("import math", Float, format!("math.pi * {}", w.atom(Float))),
        _ => ("import sys", Strs, "sys.argv[1:]".to_string()),
    };
    w.import(module);
    w.define_as(kind, &value);
}

/// One of the smaller forms.
pub(super) fn small_form(w: &mut PythonWriter) {
    match w.sampler.below(12) {
        0 => line!(w, "print({} * {})", w.quoted("-"), w.sampler.pick(&[10, 20, 30, 40, 5])),
        1 => line!(w, "print({}, end={})", w.atom(Str), w.quoted(" ")),
        2 => {
            let [first, second] = two_names(w);
            line!(w, "{first} = {second} = {}", w.sampler.below(2));
        }
        3 => {
            let name = w.need(Str);
            let slice = w.sampler.pick(&["[0]", "[-1]", "[1:]", "[::-1]", "[:3]", "[2:]", "[:-1]"]);
            w.define_as(Str, &format!("{name}{slice}"));
        }
        4 if !w.deep() => {
            let name = w.need(Int);
            line!(w, "if {} <= {name} < {}:", w.sampler.below(5), w.sampler.range(10, 99));
            w.block(|w| w.branch());
        }
        5 if !w.deep() => {
            let kind = w.sampler.pick(&[Int, Str]);
            let name = w.need_target(kind);
            line!(w, "if {name} is None:");
            w.block(|w| line!(w, "{name} = {}", w.literal(kind)));
        }
        6 if !w.deep() => {
            let kind = w.sampler.pick(&[Int, Str, Float]);
            let name = w.need(kind);
            line!(w, "if {}isinstance({name}, {}):", w.sampler.pick(&["", "not "]), kind.hint());
            w.block(|w| w.branch());
        }
        7 => {
            let counts = w.need_target(Counts);
            line!(w, "del {counts}[{}]", w.word());
        }
        8 => {
            let name = w.need(Str);
            let value = format!("{name} or {}", w.text());
            w.define_as(Str, &value);
        }
        9 => {
            let list = w.need(Strs);
            let item = w.element_name(list, "s");
            w.define_as(Counts, &format!("{{{item}: len({item}) for {item} in {list}}}"));
        }
        10 => {
            let list = w.need(Ints);
            let item = w.element_name(list, "x");
            let call = w.sampler.pick(&["any", "all"]);
            let value = format!("{call}({item} > {} for {item} in {list})", w.sampler.number());
            w.define_as(Bool, &value);
        }
        _ => {
            let list = w.need(Ints);
            line!(w, "first, *rest = {list}");
            line!(w, "print({})", w.sampler.pick(&["first, rest", "first", "len(rest)", "rest"]));
        }
    }
}

fn two_names(w: &mut PythonWriter) -> [Name; 2] {
    [(); 2].map(|()| {
        let name = w.fresh(Int);
        w.scope.declare(name, Int);
        name
    })
}
