//! PyClass definitions.

use super::functions::{self, SignatureParam};
use super::loops;
use super::scope::{Name, PyClass, PyFunction, PyKind, PyKind::*, PyParam};
use super::words::WORDS;
use super::writer::{PythonWriter, line};

/// A class with its `__init__` and a few methods; it joins the scope.
pub(super) fn class(w: &mut PythonWriter) {
    let name = w.sampler.pick(&w.domain.classes);
    if w.scope.classes.iter().any(|class| class.name == name) {
        return functions::function(w);
    }
    let parent = w.scope.classes.last().cloned().filter(|_| w.sampler.chance(50));
    match &parent {
        Some(parent) => line!(w, "class {name}({}):", parent.name),
        None => line!(w, "class {name}:"),
    }
    let mut class = PyClass { name, params: Vec::new(), fields: Vec::new(), methods: Vec::new(), specials: Vec::new() };
    w.open_block(|w| {
        if w.sampler.chance(25) {
            w.docstring();
            w.blank(1);
        }
        init(w, &mut class, parent.as_ref());
        let methods = if w.version > 3 { w.sampler.weighted(&[35, 35, 20, 10]) } else { w.sampler.range(1, 3) };
        for done in 0..methods {
            if done > 0 && w.full() {
                break;
            }
            method(w, &mut class);
        }
    });
    w.scope.classes.push(class);
}

/// `__init__`: the parent's part, a field for every parameter of the class, then fields that start
/// empty.
fn init(w: &mut PythonWriter, class: &mut PyClass, parent: Option<&PyClass>) {
    let inherited: Vec<PyParam> =
        parent.map_or(Vec::new(), |parent| parent.params.iter().copied().filter(|param| !param.optional).collect());
    let mut given: Vec<SignatureParam> =
        inherited.iter().map(|&param| SignatureParam { param, default: None }).collect();
    fields(w, &mut given);
    w.signature(Name::plain("__init__"), Some("self"), &given, None);
    let mut made: Vec<PyParam> = parent.map_or(Vec::new(), |parent| parent.fields.clone());
    w.function_body(&given, None, |w| {
        if parent.is_some() {
            let names: Vec<String> = inherited.iter().map(|param| param.name.to_string()).collect();
            line!(w, "super().__init__({})", names.join(", "));
        }
        for SignatureParam { param, default } in &given[inherited.len()..] {
            match default.as_deref() {
                Some("None") if param.kind == Strs => line!(w, "self.{0} = {0} or []", param.name),
                _ => line!(w, "self.{0} = {0}", param.name),
            }
            made.push(*param);
        }
        for SignatureParam { param, .. } in &given {
            w.scope.mark_used(param.name);
        }
        for _ in 0..w.sampler.weighted(&[40, 35, 25]) + usize::from(made.is_empty()) {
            let kind = w.sampler.pick(&[Ints, Strs, Int, Counts, Bool, Set, Things]);
            let name = w.fresh(kind);
            if !name.head.is_empty() || made.iter().any(|field| field.name == name) {
                continue;
            }
            let value = match kind {
                Int => w.sampler.pick(&["0", "1", "0", "100"]).to_string(),
                Counts => "{}".to_string(),
                Bool => w.literal(Bool),
                Set => "set()".to_string(),
                _ => "[]".to_string(),
            };
            line!(w, "self.{name} = {value}");
            made.push(PyParam { name, kind, optional: false });
        }
    });
    class.params = given.into_iter().map(|given| given.param).collect();
    class.fields = made;
}

/// Adds parameters of `__init__`, named as attributes of the domain or as anything.
fn fields(w: &mut PythonWriter, given: &mut Vec<SignatureParam>) {
    let count = w.sampler.weighted(&[0, 10, 26, 28, 20, 10, 6]);
    let defaults = if w.sampler.chance(30) { w.sampler.range(1, 2) } else { 0 };
    for i in 0..count {
        let kind = w.sampler.pick(&[Str, Int, Int, Str, Float, Bool, Strs]);
        let name = match w.fields_of_things(kind) {
            _ if w.version > 3 && w.sampler.chance(40) => loops::free_name(w, &WORDS.copied),
            Some(fields) if w.sampler.chance(65) => Name::plain(w.sampler.pick(fields)),
            _ => w.fresh(kind),
        };
        if !name.head.is_empty() || given.iter().any(|other| other.param.name == name) {
            continue;
        }
        let optional = i + defaults >= count;
        let default = match kind {
            _ if !optional => None,
            Strs => Some("None".to_string()),
            _ if w.sampler.chance(45) => Some("None".to_string()),
            _ => Some(w.literal(kind)),
        };
        given.push(SignatureParam { param: PyParam { name, kind, optional }, default });
    }
}

/// One method that the class does not have yet, if one is found.
fn method(w: &mut PythonWriter, class: &mut PyClass) {
    for _ in 0..6 {
        let written = match w.sampler.weighted(&[50, 16, 12, 18, 6]) {
            0 => general(w, class),
            1 => text_of(w, class),
            2 => getter(w, class),
            3 => setter(w, class),
            _ => property(w, class),
        };
        if written {
            return;
        }
    }
}

/// Runs `body` as a method's: the fields are in scope as `self.name`.
fn in_method(
    w: &mut PythonWriter,
    class: &PyClass,
    name: Name,
    given: &[SignatureParam],
    returns: Option<PyKind>,
    body: impl FnOnce(&mut PythonWriter),
) {
    w.signature(name, Some("self"), given, returns);
    let fields = &class.fields;
    w.function_body(given, returns, |w| {
        for field in fields {
            let attribute = Name::joined("self.", field.name.tail);
            w.scope.declare(attribute, field.kind);
            w.scope.mark_used(attribute);
        }
        body(w);
    });
}

fn general(w: &mut PythonWriter, class: &mut PyClass) -> bool {
    let returns = w.sampler.pick(&[None, None, Some(Int), Some(Bool), Some(Str)]);
    let name = w.function_name(returns);
    let count = w.sampler.weighted(&[35, 50, 15]);
    if class.has(name) {
        return false;
    }
    let given = w.parameters(count, 0, false);
    w.blank(1);
    in_method(w, class, name, &given, returns, |w| functions::body(w, &given, returns));
    let params = given.iter().map(|given| given.param).collect();
    class.methods.push(PyFunction { name, params, returns });
    true
}

fn text_of(w: &mut PythonWriter, class: &mut PyClass) -> bool {
    let name = Name::plain(w.sampler.pick(&["__str__", "__repr__"]));
    if class.has(name) || class.fields.is_empty() {
        return false;
    }
    let mut fields: Vec<String> = Vec::new();
    for _ in 0..w.sampler.range(1, 2) {
        let field = format!("self.{}", w.sampler.pick(&class.fields).name);
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    w.blank(1);
    in_method(w, class, name, &[], Some(Str), |w| line!(w, "return {}", w.f_string(&fields)));
    class.specials.push(name);
    true
}

fn getter(w: &mut PythonWriter, class: &mut PyClass) -> bool {
    let Some(field) = some_field(w, class) else { return false };
    let name = Name::joined("get_", field.name.tail);
    if class.has(name) {
        return false;
    }
    w.blank(1);
    in_method(w, class, name, &[], Some(field.kind), |w| line!(w, "return self.{}", field.name));
    class.methods.push(PyFunction { name, params: Vec::new(), returns: Some(field.kind) });
    true
}

fn setter(w: &mut PythonWriter, class: &mut PyClass) -> bool {
    let Some(field) = some_field(w, class) else { return false };
    let (head, kind) = match field.kind {
        Strs | Set => ("add_", Str),
        Ints => ("add_", Int),
        Things => ("add_", Thing),
        kind => ("set_", kind),
    };
    let name = Name::joined(head, field.name.tail);
    if class.has(name) {
        return false;
    }
    let value = loops::free_name(w, &["value", "item", "new", "entry", "x"]);
    let given = [SignatureParam { param: PyParam { name: value, kind, optional: false }, default: None }];
    w.blank(1);
    in_method(w, class, name, &given, None, |w| {
        if w.sampler.chance(25) {
            w.raise_if();
        }
        w.scope.mark_used(value);
        match field.kind {
            Strs | Ints | Things => line!(w, "self.{}.append({value})", field.name),
            Set => line!(w, "self.{}.add({value})", field.name),
            Int if w.sampler.chance(40) => line!(w, "self.{} += {value}", field.name),
            _ => line!(w, "self.{} = {value}", field.name),
        }
    });
    class.methods.push(PyFunction { name, params: vec![given[0].param], returns: None });
    true
}

fn property(w: &mut PythonWriter, class: &mut PyClass) -> bool {
    let kind = w.sampler.pick(&[Int, Bool, Str]);
    let name = w.fresh(kind);
    if class.has(name) {
        return false;
    }
    w.blank(1);
    w.line("@property");
    in_method(w, class, name, &[], Some(kind), |w| line!(w, "return {}", w.expr(kind)));
    class.specials.push(name);
    true
}

fn some_field(w: &mut PythonWriter, class: &PyClass) -> Option<PyParam> {
    if class.fields.is_empty() { None } else { Some(w.sampler.pick(&class.fields)) }
}

/// `name = PyClass(...)` for one of the document's classes.
pub(super) fn construct(w: &mut PythonWriter) {
    if w.scope.classes.is_empty() {
        return w.update();
    }
    let number = w.sampler.below(w.scope.classes.len());
    let class = w.scope.classes[number].clone();
    let kind = Instance(number as u8);
    let name = w.fresh(kind);
    let constructor = PyFunction { name: Name::plain(class.name), params: class.params, returns: None };
    let call = w.call(&constructor);
    line!(w, "{name} = {call}");
    w.scope.declare(name, kind);
}
