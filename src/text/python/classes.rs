//! Class definitions.

use super::functions::{self, Given};
use super::loops;
use super::scope::{Class, Function, Kind, Name, Param};
use super::writer::{Writer, line};

/// A class with its `__init__` and a few methods; it joins the scope.
pub(super) fn class(w: &mut Writer) {
    let base = w.scope.classes.last().map(|class| class.name);
    let name = w.dice.pick(w.domain.classes);
    if w.scope.classes.iter().any(|class| class.name == name) {
        return functions::function(w);
    }
    let parent = match base {
        Some(base) if w.dice.chance(50) => Some(base),
        _ => None,
    };
    match parent {
        Some(base) => line!(w, "class {name}({base}):"),
        None => line!(w, "class {name}:"),
    }
    let mut class = Class { name, params: Vec::new(), fields: Vec::new(), methods: Vec::new() };
    w.open_block(|w| {
        if w.dice.chance(25) {
            w.docstring();
            w.blank(1);
        }
        init(w, &mut class, parent.is_some());
        for done in 0..w.dice.range(1, 3) {
            if done > 0 && w.full() {
                break;
            }
            w.blank(1);
            method(w, &mut class);
        }
    });
    w.scope.classes.push(class);
}

/// `__init__`: a field for every parameter, then fields that start empty.
pub(super) fn init(w: &mut Writer, class: &mut Class, derived: bool) {
    let given = fields(w);
    w.signature(Name::plain("__init__"), Some("self"), &given, None);
    let mut made = Vec::new();
    w.function_body(&given, None, |w| {
        let mut rest = &given[..];
        if derived && let Some((first, others)) = given.split_first() {
            line!(w, "super().__init__({})", first.param.name);
            rest = others;
        }
        for Given { param, .. } in rest {
            line!(w, "self.{0} = {0}", param.name);
            made.push(*param);
        }
        for _ in 0..w.dice.weighted(&[40, 35, 25]) + usize::from(made.is_empty()) {
            let kind =
                w.dice.pick(&[Kind::Ints, Kind::Strs, Kind::Int, Kind::Counts, Kind::Bool, Kind::Set, Kind::Things]);
            let name = w.fresh(kind);
            if made.iter().any(|field| field.name == name) || !name.head.is_empty() {
                continue;
            }
            let value = match kind {
                Kind::Int => w.dice.pick(&["0", "1", "None", "100"]).to_string(),
                Kind::Counts => "{}".to_string(),
                Kind::Bool => w.literal(Kind::Bool),
                Kind::Set => "set()".to_string(),
                _ => "[]".to_string(),
            };
            line!(w, "self.{name} = {value}");
            made.push(Param { name, kind, optional: false });
        }
    });
    class.params = given.into_iter().map(|given| given.param).collect();
    class.fields = made;
}

/// Parameters of `__init__`, named as attributes of the domain or as anything.
fn fields(w: &mut Writer) -> Vec<Given> {
    let count = w.dice.weighted(&[0, 10, 26, 28, 20, 10, 6]);
    let mut given: Vec<Given> = Vec::with_capacity(count);
    let defaults = if w.dice.chance(30) { w.dice.range(1, 2) } else { 0 };
    for i in 0..count {
        let kind = w.dice.pick(&[Kind::Str, Kind::Int, Kind::Int, Kind::Str, Kind::Float, Kind::Bool, Kind::Strs]);
        let name = match w.fields_of_things(kind) {
            Some(fields) if w.dice.chance(65) => Name::plain(w.dice.pick(fields)),
            _ => w.fresh(kind),
        };
        if !name.head.is_empty() || given.iter().any(|other| other.param.name == name) {
            continue;
        }
        let optional = i + defaults >= count;
        let default = match kind {
            _ if !optional => None,
            Kind::Strs => Some("None".to_string()),
            _ if w.dice.chance(45) => Some("None".to_string()),
            _ => Some(w.literal(kind)),
        };
        given.push(Given { param: Param { name, kind, optional }, default });
    }
    given
}

/// One method that reads or changes the fields.
pub(super) fn method(w: &mut Writer, class: &mut Class) {
    match w.dice.weighted(&[50, 16, 14, 20]) {
        0 => general(w, class),
        1 => text_of(w, class),
        2 => getter(w, class),
        _ => setter(w, class),
    }
}

/// Runs `body` as a method's: the fields are in scope as `self.name`.
fn in_method(
    w: &mut Writer,
    class: &Class,
    name: Name,
    given: &[Given],
    returns: Option<Kind>,
    body: impl FnOnce(&mut Writer),
) {
    w.signature(name, Some("self"), given, returns);
    let fields = &class.fields;
    w.function_body(given, returns, |w| {
        for field in fields {
            let own = Name::joined("self.", field.name.tail);
            w.scope.declare(own, field.kind);
            w.scope.mark_used(own);
        }
        body(w);
    });
}

fn general(w: &mut Writer, class: &mut Class) {
    let returns = w.dice.pick(&[None, None, Some(Kind::Int), Some(Kind::Bool), Some(Kind::Str)]);
    let name = w.function_name(returns);
    let count = w.dice.weighted(&[35, 50, 15]);
    let given = w.parameters(count, 0, false);
    if class.methods.iter().any(|method| method.name == name) || class.fields.iter().any(|field| field.name == name) {
        return text_of(w, class);
    }
    in_method(w, class, name, &given, returns, |w| functions::body(w, &given, returns));
    let params = given.iter().map(|given| given.param).collect();
    class.methods.push(Function { name, params, returns });
}

fn text_of(w: &mut Writer, class: &Class) {
    let name = Name::plain(w.dice.pick(&["__str__", "__repr__"]));
    let fields: Vec<String> = class.fields.iter().take(2).map(|field| format!("self.{}", field.name)).collect();
    in_method(w, class, name, &[], Some(Kind::Str), |w| {
        line!(w, "return {}", if fields.is_empty() { w.text() } else { w.f_string(&fields) });
    });
}

fn getter(w: &mut Writer, class: &mut Class) {
    let Some(field) = some_field(w, class) else { return text_of(w, class) };
    let name = Name::joined("get_", field.name.tail);
    in_method(w, class, name, &[], Some(field.kind), |w| line!(w, "return self.{}", field.name));
    class.methods.push(Function { name, params: Vec::new(), returns: Some(field.kind) });
}

fn setter(w: &mut Writer, class: &mut Class) {
    let Some(field) = some_field(w, class) else { return text_of(w, class) };
    let (head, kind) = match field.kind {
        Kind::Strs | Kind::Set => ("add_", Kind::Str),
        Kind::Ints => ("add_", Kind::Int),
        Kind::Things => ("add_", Kind::Thing),
        kind => ("set_", kind),
    };
    let name = Name::joined(head, field.name.tail);
    let value = loops::free_name(w, &["value", "item", "new", "entry", "x"]);
    let given = [Given { param: Param { name: value, kind, optional: false }, default: None }];
    in_method(w, class, name, &given, None, |w| {
        if w.dice.chance(25) {
            w.scope.mark_used(value);
            w.raise_if();
        }
        match field.kind {
            Kind::Strs | Kind::Ints | Kind::Things => line!(w, "self.{}.append({value})", field.name),
            Kind::Set => line!(w, "self.{}.add({value})", field.name),
            Kind::Int if w.dice.chance(40) => line!(w, "self.{} += {value}", field.name),
            _ => line!(w, "self.{} = {value}", field.name),
        }
    });
    class.methods.push(Function { name, params: vec![given[0].param], returns: None });
}

fn some_field(w: &mut Writer, class: &Class) -> Option<Param> {
    if class.fields.is_empty() {
        return None;
    }
    Some(w.dice.pick(&class.fields))
}

/// `name = Class(...)` for one of the document's classes.
pub(super) fn construct(w: &mut Writer) {
    let Some(number) = w.scope.classes.len().checked_sub(1).map(|last| w.dice.below(last + 1)) else {
        return w.update();
    };
    let class = w.scope.classes[number].clone();
    let kind = Kind::Instance(number as u8);
    let name = w.fresh(kind);
    let constructor = Function { name: Name::plain(class.name), params: class.params, returns: None };
    let call = w.call(&constructor);
    line!(w, "{name} = {call}");
    w.scope.declare(name, kind);
}
