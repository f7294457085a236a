//! Ordinary statements: definitions, updates, prints, conditions, calls.

use super::scope::{Name, PyKind, PyKind::*};
use super::words::WORDS;
use super::writer::{PythonWriter, line};
use super::{extras, idioms, loops};

/// How many statements in a hundred are one of the task idioms, in version 3 and from 4 on.
const IDIOM_SHARE: [usize; 2] = [45, 50];

/// What a program defines, most often first.
const DEFINED: [PyKind; 12] = [Int, Str, Ints, Strs, Int, Str, Counts, Float, Bool, Texts, Set, Grid];

impl PythonWriter {
    /// Between `low` and `high` statements, fewer when the document is full.
    pub(super) fn statements(&mut self, low: usize, high: usize) {
        for done in 0..self.sampler.range(low, high) {
            if done > 0 && self.full() {
                break;
            }
            self.statement();
        }
    }

    /// One statement that fits here.
    pub(super) fn statement(&mut self) {
        if !self.deep() && self.sampler.chance(IDIOM_SHARE[usize::from(self.version > 3)]) {
            idioms::some(self);
        } else {
            self.ordinary();
        }
    }

    fn ordinary(&mut self) {
        match self.sampler.weighted(&[22, 16, 16, 10, 10, 8, 4, 2, 4, 5, 3, 5, 7]) {
            0 => {
                let kind = self.sampler.pick(&DEFINED);
                self.define(kind);
            }
            1 => self.update(),
            3 if !self.deep() => self.if_statement(),
            4 if !self.deep() => loops::for_loop(self),
            5 => self.procedure_call(),
            6 if !self.deep() => self.try_statement(),
            7 => {
                let condition = self.condition();
                line!(self, "assert {condition}");
            }
            8 => self.comment(),
            9 => self.leave(),
            10 => self.pair(),
            11 => extras::library(self),
            12 => extras::small_form(self),
            _ => self.show(),
        }
    }

    /// A new variable of that kind, defined by an expression.
    pub(super) fn define(&mut self, kind: PyKind) -> Name {
        let name = self.fresh(kind);
        let value = if self.sampler.chance(45) { self.literal(kind) } else { self.expr(kind) };
        line!(self, "{name} = {value}");
        self.scope.declare(name, kind);
        name
    }

    /// A new variable of that kind that starts out as `value`.
    pub(super) fn define_as(&mut self, kind: PyKind, value: &str) -> Name {
        let name = self.fresh(kind);
        line!(self, "{name} = {value}");
        self.scope.declare(name, kind);
        name
    }

    /// A variable of that kind: one in scope, or a new one defined on a line before.
    pub(super) fn need(&mut self, kind: PyKind) -> Name {
        if let Some(name) = self.var(kind) { name } else { self.define(kind) }
    }

    /// As [`PythonWriter::need`], a variable that may be assigned to.
    pub(super) fn need_target(&mut self, kind: PyKind) -> Name {
        if let Some(name) = self.target(kind) { name } else { self.define(kind) }
    }

    /// Changes some variable.
    pub(super) fn update(&mut self) {
        let kind = self.sampler.pick(&DEFINED);
        match self.target(kind) {
            Some(name) => self.change(name, kind),
            None => {
                self.define(kind);
            }
        }
    }

    /// Changes the variable `name` as its kind allows.
    pub(super) fn change(&mut self, name: Name, kind: PyKind) {
        match kind {
            Int => match self.sampler.below(4) {
                0 => line!(self, "{name} = {}", self.expr(Int)),
                _ => {
                    line!(self, "{name} {}= {}", self.sampler.pick(&["+", "+", "-", "*"]), self.sampler.number().max(1))
                }
            },
            Float => line!(self, "{name} {}= {}", self.sampler.pick(&["+", "*", "-"]), self.fraction()),
            Str => match self.sampler.below(3) {
                0 => line!(self, "{name} = {name}.{}()", self.sampler.pick(&["strip", "lower", "upper", "title"])),
                _ => line!(self, "{name} += {}", self.atom(Str)),
            },
            Bool => line!(self, "{name} = {}", self.sampler.pick(&["True", "False", "True"])),
            Ints => match self.sampler.below(6) {
                0 => line!(self, "{name}.{}()", self.sampler.pick(&["sort", "reverse", "pop"])),
                1 => line!(self, "{name}[{}] = {}", self.sampler.below(3), self.atom(Int)),
                _ => line!(self, "{name}.append({})", self.expr(Int)),
            },
            Strs => match self.sampler.below(6) {
                0 => line!(self, "{name}.{}()", self.sampler.pick(&["sort", "reverse", "pop"])),
                1 => line!(self, "{name}.extend([{}])", self.words(1, 3).join(", ")),
                _ => line!(self, "{name}.append({})", self.atom(Str)),
            },
            Grid => match self.sampler.below(2) {
                0 => line!(self, "{name}.append([{}])", self.numbers(1, 4)),
                _ => line!(self, "{name}[{}][{}] = {}", self.sampler.below(3), self.sampler.below(3), self.atom(Int)),
            },
            Set => match self.sampler.below(6) {
                0 => line!(self, "{name}.discard({})", self.atom(Str)),
                1 => line!(self, "{name}.update([{}])", self.words(1, 3).join(", ")),
                _ => line!(self, "{name}.add({})", self.atom(Str)),
            },
            Counts => match self.sampler.below(3) {
                0 => line!(self, "{name}[{}] += {}", self.word(), self.sampler.range(1, 9)),
                _ => line!(self, "{name}[{}] = {}", self.atom(Str), self.atom(Int)),
            },
            Texts => line!(self, "{name}[{}] = {}", self.word(), self.atom(Str)),
            Thing => {
                line!(self, "{name}.{} = {}", self.sampler.pick(&self.domain.ints), self.atom(Int))
            }
            Things => line!(self, "{name}.reverse()"),
            Instance(_) => line!(self, "print({name})"),
        }
    }

    /// A print call.
    pub(super) fn show(&mut self) {
        match self.sampler.weighted(&[26, 24, 20, 12, 10]) {
            0 => line!(self, "print({})", self.text()),
            1 => match self.showable() {
                Some(first) => {
                    let second = if self.sampler.chance(35) { self.showable() } else { None };
                    let parts: Vec<String> = [Some(first), second].into_iter().flatten().collect();
                    line!(self, "print({})", self.f_string(&parts));
                }
                None => line!(self, "print({})", self.text()),
            },
            2 => match self.collection() {
                Some(name) => line!(self, "print({name})"),
                None => line!(self, "print({})", self.atom(Int)),
            },
            3 => {
                let kind = self.sampler.pick(&[Int, Str, Float]);
                line!(self, "print({}, {})", self.text(), self.atom(kind));
            }
            _ => {
                let kind = self.sampler.pick(&[Int, Str, Ints]);
                line!(self, "print({})", self.expr(kind));
            }
        }
    }

    /// A condition with its branches.
    pub(super) fn if_statement(&mut self) {
        line!(self, "if {}:", self.condition());
        self.block(|w| w.branch());
        if self.sampler.chance(18) {
            line!(self, "elif {}:", self.condition());
            self.block(|w| w.branch());
        }
        if self.sampler.chance(35) {
            self.line("else:");
            self.block(|w| w.branch());
        }
    }

    /// A statement or two, as under a condition.
    pub(super) fn branch(&mut self) {
        match self.sampler.weighted(&[30, 30, 20, 20]) {
            0 => self.update(),
            1 => self.show(),
            2 => self.leave(),
            _ => self.statements(1, 2),
        }
    }

    /// Leaves the loop or the function; at module level, writes another statement.
    pub(super) fn leave(&mut self) {
        if self.loops > 0 && self.sampler.chance(60) {
            line!(self, "if {}:", self.condition());
            self.block(|w| {
                let word = w.sampler.pick(&["continue", "break"]);
                w.line(word);
            });
        } else if self.returns.is_some() && self.sampler.chance(40) {
            self.raise_if();
        } else if let Some(returned) = self.returns {
            line!(self, "if {}:", self.condition());
            self.block(|w| match returned {
                Some(kind) => line!(w, "return {}", w.atom(kind)),
                None => w.line("return"),
            });
        } else {
            self.show();
        }
    }

    /// An exception under a condition.
    pub(super) fn raise_if(&mut self) {
        line!(self, "if {}:", self.condition());
        self.block(|w| {
            let error = w.sampler.pick(&["ValueError", "ValueError", "TypeError", "KeyError", "RuntimeError"]);
            line!(w, "raise {error}({})", w.text());
        });
    }

    /// A call of a function that returns nothing, or of a method; else an update.
    fn procedure_call(&mut self) {
        if let Some(class) = self.sampler.below(self.scope.classes.len() + 1).checked_sub(1)
            && let Some(name) = self.var(Instance(class as u8))
            && !self.scope.classes[class].methods.is_empty()
        {
            let number = self.sampler.below(self.scope.classes[class].methods.len());
            let method = self.scope.classes[class].methods[number].clone();
            let call = self.call(&method);
            match method.returns {
                Some(kind) if self.sampler.chance(60) => {
                    let result = self.fresh(kind);
                    line!(self, "{result} = {name}.{call}");
                    self.scope.declare(result, kind);
                }
                Some(_) => line!(self, "print({name}.{call})"),
                None => line!(self, "{name}.{call}"),
            }
            return;
        }
        let silent: Vec<usize> =
            (0..self.scope.functions.len()).filter(|&i| self.scope.functions[i].returns.is_none()).collect();
        if silent.is_empty() {
            self.update();
        } else {
            let function = self.scope.functions[self.sampler.pick(&silent)].clone();
            let call = self.call(&function);
            self.line(&call);
        }
    }

    /// A `try` statement.
    fn try_statement(&mut self) {
        let error = match self.sampler.below(3) {
            0 => {
                let (target, text) = (self.need_target(Int), self.need(Str));
                self.line("try:");
                self.block(|w| line!(w, "{target} = int({text})"));
                "ValueError"
            }
            1 => {
                let (target, counts) = (self.need_target(Int), self.need(Counts));
                self.line("try:");
                self.block(|w| line!(w, "{target} = {counts}[{}]", w.word()));
                "KeyError"
            }
            _ => {
                self.line("try:");
                self.block(|w| w.statements(1, 2));
                self.sampler.pick(&["ValueError", "Exception", "TypeError", "ZeroDivisionError"])
            }
        };
        if self.sampler.chance(45) {
            line!(self, "except {error} as error:");
            self.block(|w| {
                if w.sampler.chance(50) {
                    w.line("print(error)");
                } else {
                    line!(w, "print({}, error)", w.text());
                }
            });
        } else {
            line!(self, "except {error}:");
            self.block(|w| w.branch());
        }
        if self.sampler.chance(15) {
            self.line("finally:");
            self.block(|w| w.show());
        }
    }

    /// A comment line.
    pub(super) fn comment(&mut self) {
        line!(self, "# {}", self.sentence().trim_end());
        self.update();
    }

    /// Two variables defined at once.
    fn pair(&mut self) {
        let kind = self.sampler.pick(&[Int, Int, Str]);
        let first = self.fresh(kind);
        let second = self.fresh(kind);
        if first == second {
            return self.update();
        }
        line!(self, "{first}, {second} = {}, {}", self.atom(kind), self.atom(kind));
        self.scope.declare(first, kind);
        self.scope.declare(second, kind);
    }

    /// A constant at the top of the document.
    pub(super) fn constant(&mut self) {
        let name = Name::plain(self.sampler.pick(&WORDS.constants));
        if !self.scope.knows(name) {
            line!(self, "{name} = {}", self.sampler.number());
            self.scope.declare_fixed(name, Int);
        }
    }
}
