//! The variables and functions that a program has defined so far, by kind.

use std::fmt;

/// An identifier of up to two parts, printed without a gap: `max_` + `price`, `self.` + `name`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) head: &'static str,
    pub(super) tail: &'static str,
}

impl Name {
    /// An identifier of one part.
    pub(super) const fn plain(tail: &'static str) -> Self {
        Name { head: "", tail }
    }

    /// An identifier of two parts.
    pub(super) const fn joined(head: &'static str, tail: &'static str) -> Self {
        Name { head, tail }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.head)?;
        f.write_str(self.tail)
    }
}

/// The types that the programs know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Int,
    Float,
    Str,
    Bool,
    /// A list of integers.
    Ints,
    /// A list of strings.
    Strs,
    /// A list of lists of integers.
    Grid,
    /// A set of strings.
    Set,
    /// A dict from strings to integers.
    Counts,
    /// A dict from strings to strings.
    Texts,
    /// An object of the document's domain, with the domain's attributes.
    Thing,
    /// A list of such objects.
    Things,
    /// An instance of the document's class of that number.
    Instance(u8),
}

impl Kind {
    /// Its type hint.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Str => "str",
            Kind::Bool => "bool",
            Kind::Ints => "list[int]",
            Kind::Strs => "list[str]",
            Kind::Grid => "list[list[int]]",
            Kind::Set => "set[str]",
            Kind::Counts => "dict[str, int]",
            Kind::Texts => "dict[str, str]",
            Kind::Thing | Kind::Instance(_) => "object",
            Kind::Things => "list",
        }
    }
}

/// A variable in scope.
#[derive(Clone, Copy)]
pub(super) struct Var {
    pub(super) name: Name,
    pub(super) kind: Kind,
    /// Whether something has read it since it was defined.
    pub(super) used: bool,
    /// Loop variables and constants, which the program does not assign to.
    pub(super) fixed: bool,
}

/// A parameter as callers see it.
#[derive(Clone, Copy)]
pub(super) struct Param {
    pub(super) name: Name,
    pub(super) kind: Kind,
    /// Callers may leave it out.
    pub(super) optional: bool,
}

/// A function or method as callers see it.
#[derive(Clone)]
pub(super) struct Function {
    pub(super) name: Name,
    pub(super) params: Vec<Param>,
    /// `None`: it returns nothing.
    pub(super) returns: Option<Kind>,
}

/// A class as its users see it.
#[derive(Clone)]
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) params: Vec<Param>,
    pub(super) fields: Vec<Param>,
    pub(super) methods: Vec<Function>,
    /// What its users do not call by name: special methods and properties.
    pub(super) specials: Vec<Name>,
}

impl Class {
    /// Whether a method, property or field has that name.
    pub(super) fn has(&self, name: Name) -> bool {
        self.specials.contains(&name)
            || self.fields.iter().any(|field| field.name == name)
            || self.methods.iter().any(|method| method.name == name)
    }
}

/// Everything in scope, innermost last.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) vars: Vec<Var>,
    pub(super) functions: Vec<Function>,
    pub(super) classes: Vec<Class>,
}

impl Scope {
    /// Whether a variable or function has that name.
    pub(super) fn knows(&self, name: Name) -> bool {
        self.vars.iter().any(|var| var.name == name) || self.functions.iter().any(|function| function.name == name)
    }

    /// Brings a variable into scope, or gives a known one a new kind.
    pub(super) fn declare(&mut self, name: Name, kind: Kind) {
        self.bring(Var { name, kind, used: false, fixed: false });
    }

    /// Brings a variable into scope that the program must not assign to.
    pub(super) fn declare_fixed(&mut self, name: Name, kind: Kind) {
        self.bring(Var { name, kind, used: false, fixed: true });
    }

    fn bring(&mut self, new: Var) {
        match self.vars.iter_mut().find(|var| var.name == new.name) {
            Some(var) => *var = new,
            None => self.vars.push(new),
        }
    }

    /// Records that a variable was read.
    pub(super) fn mark_used(&mut self, name: Name) {
        if let Some(var) = self.vars.iter_mut().find(|var| var.name == name) {
            var.used = true;
        }
    }
}
