//! PyFunction definitions: signatures, bodies, and their use.

use super::loops;
use super::scope::{Name, PyFunction, PyKind, PyKind::*, PyParam, PyVar};
use super::words::WORDS;
use super::writer::{PythonWriter, line};

/// Kinds of parameters, most often first.
const TAKEN: [PyKind; 12] = [Int, Str, Ints, Things, Strs, Int, Str, Thing, Float, Counts, Grid, Bool];

/// A parameter of a signature, with its default value, if it has one.
pub(super) struct SignatureParam {
    pub(super) param: PyParam,
    pub(super) default: Option<String>,
}

impl PythonWriter {
    /// `count` new parameters; `defaults` of the last ones may be left out by callers, and are
    /// `None` if `nones`.
    pub(super) fn parameters(&mut self, count: usize, defaults: usize, nones: bool) -> Vec<SignatureParam> {
        let mut given: Vec<SignatureParam> = Vec::with_capacity(count);
        for i in 0..count {
            let optional = i + defaults >= count;
            let mut kind = self.sampler.pick(&TAKEN);
            if optional && !nones {
                kind = self.sampler.pick(&[Int, Str, Float, Bool]);
            }
            let mut name = self.fresh(kind);
            for _ in 0..20 {
                if given.iter().all(|other| other.param.name != name) {
                    break;
                }
                name = self.fresh(kind);
            }
            if given.iter().any(|other| other.param.name == name) {
                continue;
            }
            let default = optional.then(|| if nones { "None".to_string() } else { self.literal(kind) });
            given.push(SignatureParam { param: PyParam { name, kind, optional }, default });
        }
        given
    }

    /// Writes `def name(first, parameters):` and brings the parameters into scope.
    pub(super) fn signature(
        &mut self,
        name: Name,
        first: Option<&str>,
        given: &[SignatureParam],
        returns: Option<PyKind>,
    ) {
        let hints = self.hints;
        let mut list: Vec<String> = first.into_iter().map(str::to_string).collect();
        for SignatureParam { param, default } in given {
            let hint = if hints { format!(": {}", param.kind.hint()) } else { String::new() };
            list.push(match default {
                Some(value) if hints && value == "None" => format!("{}{hint} | None = None", param.name),
                Some(value) if hints => format!("{}{hint} = {value}", param.name),
                Some(value) => format!("{}={value}", param.name),
                None => format!("{}{hint}", param.name),
            });
        }
        let arrow = match returns {
            Some(kind) if hints => format!(" -> {}", kind.hint()),
            None if hints => " -> None".to_string(),
            _ => String::new(),
        };
        line!(self, "def {name}({}){arrow}:", list.join(", "));
    }

    /// Writes the body of a function: `body` runs in a scope of the parameters and the constants
    /// alone.
    pub(super) fn function_body(
        &mut self,
        given: &[SignatureParam],
        returns: Option<PyKind>,
        body: impl FnOnce(&mut PythonWriter),
    ) {
        let constants: Vec<PyVar> = self.scope.vars.iter().copied().filter(|var| var.fixed).collect();
        let outer = std::mem::replace(&mut self.scope.vars, constants);
        let outer_returns = self.returns.replace(returns);
        let outer_loops = std::mem::take(&mut self.loops);
        for SignatureParam { param, .. } in given {
            self.scope.declare(param.name, param.kind);
        }
        self.block(body);
        self.scope.vars = outer;
        self.returns = outer_returns;
        self.loops = outer_loops;
    }

    /// A docstring of one line.
    pub(super) fn docstring(&mut self) {
        let text = self.sentence();
        let text = super::literals::capitalised(text.trim_end_matches([' ', '.', '?', '!']));
        line!(self, "\"\"\"{text}.\"\"\"");
    }

    /// Gives every optional parameter that is `None` a value.
    pub(super) fn fill_defaults(&mut self, given: &[SignatureParam]) {
        for SignatureParam { param, default } in given {
            let known = !matches!(param.kind, Thing | Instance(_));
            if known && default.as_deref() == Some("None") && self.sampler.chance(70) {
                line!(self, "if {} is None:", param.name);
                self.block(|w| line!(w, "{} = {}", param.name, w.literal(param.kind)));
            }
        }
    }

    /// Reads every parameter that nothing has read yet.
    pub(super) fn use_rest(&mut self, given: &[SignatureParam]) {
        for SignatureParam { param, .. } in given {
            if self.scope.vars.iter().any(|var| var.name == param.name && !var.used) {
                loops::use_value(self, param.name, param.kind);
            }
        }
    }

    /// A name for a function that returns that kind, new in the document.
    pub(super) fn function_name(&mut self, returns: Option<PyKind>) -> Name {
        let mut name = self.function_candidate(returns);
        for _ in 0..20 {
            if !self.scope.knows(name) {
                break;
            }
            name = self.function_candidate(returns);
        }
        name
    }

    fn function_candidate(&mut self, returns: Option<PyKind>) -> Name {
        let heads: &[&str] = match returns {
            Some(Int | Float) => &["count_", "get_", "compute_", "total_", "find_", "calculate_", "sum_"],
            Some(Bool) => &["is_", "has_", "check_", "can_", "validate_"],
            Some(Str) => &["format_", "describe_", "get_", "build_", "make_", "clean_"],
            Some(_) => &["get_", "filter_", "collect_", "load_", "find_", "make_", "select_", "group_"],
            None => &["print_", "show_", "update_", "process_", "add_", "save_", "handle_", "reset_"],
        };
        let head =
            if self.sampler.chance(25) { self.sampler.pick(&self.domain.verbs) } else { self.sampler.pick(heads) };
        let tail = match self.sampler.below(5) {
            0 => self.thing(),
            1 => self.things(),
            2 => self.sampler.pick(&self.domain.ints),
            3 => self.sampler.pick(&WORDS.int_lists),
            _ => self.sampler.pick(&WORDS.strs),
        };
        Name::joined(head, tail)
    }
}

/// An ordinary function, at the current indentation.
pub(super) fn function(w: &mut PythonWriter) {
    let returns = w.sampler.pick(&[
        Some(Int),
        Some(Str),
        Some(Bool),
        Some(Ints),
        Some(Strs),
        Some(Float),
        Some(Counts),
        None,
        None,
    ]);
    let name = w.function_name(returns);
    let count = w.sampler.weighted(&[6, 44, 34, 16]);
    let defaults = if w.sampler.chance(18) { 1.min(count) } else { 0 };
    let given = w.parameters(count, defaults, false);
    define(w, name, &given, returns, |w| body(w, &given, returns));
}

/// Writes a function with that signature and body, and lets later code call it.
pub(super) fn define(
    w: &mut PythonWriter,
    name: Name,
    given: &[SignatureParam],
    returns: Option<PyKind>,
    body: impl FnOnce(&mut PythonWriter),
) {
    w.signature(name, None, given, returns);
    w.function_body(given, returns, |w| {
        if w.sampler.chance(22) {
            w.docstring();
        }
        body(w);
    });
    let params = given.iter().map(|given| given.param).collect();
    w.scope.functions.push(PyFunction { name, params, returns });
}

/// The usual body of a function: read the parameters, do something, return.
pub(super) fn body(w: &mut PythonWriter, given: &[SignatureParam], returns: Option<PyKind>) {
    w.fill_defaults(given);
    match (w.sampler.below(10), returns) {
        (0..4, Some(kind @ (Int | Str | Ints | Strs | Counts))) => gather(w, given, kind),
        (4..6, Some(_)) => {
            w.use_rest(given);
            w.leave();
            finish(w, returns);
        }
        (6, _) if given.len() > 1 => {
            w.raise_if();
            w.use_rest(given);
            finish(w, returns);
        }
        _ => {
            w.statements(1, 3);
            w.use_rest(given);
            finish(w, returns);
        }
    }
}

/// Accumulates a result in a loop over one of the parameters.
fn gather(w: &mut PythonWriter, given: &[SignatureParam], kind: PyKind) {
    let start = match kind {
        Int => "0".to_string(),
        Str => w.quoted(""),
        Counts => "{}".to_string(),
        _ => "[]".to_string(),
    };
    let result = w.define_as(kind, &start);
    w.use_rest(given);
    w.scope.mark_used(result);
    loops::settle(w, 0);
    line!(w, "return {result}");
}

/// The end of a function.
pub(super) fn finish(w: &mut PythonWriter, returns: Option<PyKind>) {
    let unread = |w: &PythonWriter, kind| {
        w.scope.vars.iter().rev().find(|var| Some(var.kind) == kind && !var.used).map(|var| var.name)
    };
    let result = unread(w, returns).filter(|_| w.sampler.chance(75));
    if let Some(name) = result {
        w.scope.mark_used(name);
    }
    loops::settle(w, 0);
    if let Some(name) = result {
        return line!(w, "return {name}");
    }
    match returns {
        Some(kind) => line!(w, "return {}", w.expr(kind)),
        None if w.sampler.chance(30) => w.show(),
        None => {}
    }
}

/// One of a few well-known functions, with its own names.
pub(super) fn classic(w: &mut PythonWriter) {
    let kind = Some(Int);
    let pick = |w: &mut PythonWriter, names: &[&'static str]| loops::free_name(w, names);
    let n = pick(w, &["n", "number", "num", "value", "x", "k", "limit"]);
    let param = |name| SignatureParam { param: PyParam { name, kind: Int, optional: false }, default: None };
    match w.sampler.below(5) {
        0 => {
            let name = pick(w, &["factorial", "fact", "product_up_to"]);
            define(w, name, &[param(n)], kind, |w| {
                line!(w, "if {n} {}:", w.sampler.pick(&["<= 1", "== 0", "< 2"]));
                w.block(|w| w.line("return 1"));
                line!(w, "return {n} * {name}({n} - 1)");
            });
        }
        1 => {
            let name = pick(w, &["fibonacci", "fib", "fib_number"]);
            define(w, name, &[param(n)], kind, |w| {
                w.line("a, b = 0, 1");
                line!(w, "for {} in range({n}):", w.sampler.pick(&["_", "i", "step"]));
                w.block(|w| w.line("a, b = b, a + b"));
                w.line("return a");
            });
        }
        2 => {
            let name = pick(w, &["gcd", "common_divisor", "greatest_divisor"]);
            let (a, b) = w.sampler.pick(&[("a", "b"), ("m", "n"), ("x", "y"), ("left", "right")]);
            define(w, name, &[param(Name::plain(a)), param(Name::plain(b))], kind, |w| {
                line!(w, "while {b}:");
                w.block(|w| line!(w, "{a}, {b} = {b}, {a} % {b}"));
                line!(w, "return {a}");
            });
        }
        3 => primality(w, param(n), n),
        _ => {
            let name = pick(w, &["digit_sum", "sum_digits", "add_digits"]);
            define(w, name, &[param(n)], kind, |w| {
                let total = w.sampler.pick(&["total", "result", "digits", "s"]);
                line!(w, "{total} = 0");
                line!(w, "while {n} > 0:");
                w.block(|w| {
                    line!(w, "{total} += {n} % 10");
                    line!(w, "{n} //= 10");
                });
                line!(w, "return {total}");
            });
        }
    }
}

/// A test whether a number is prime.
fn primality(w: &mut PythonWriter, parameter: SignatureParam, n: Name) {
    let name = loops::free_name(w, &["is_prime", "prime", "check_prime"]);
    define(w, name, &[parameter], Some(Bool), |w| {
        line!(w, "if {n} < 2:");
        w.block(|w| w.line("return False"));
        let i = w.sampler.pick(&["i", "d", "divisor"]);
        line!(w, "for {i} in range(2, {n}):");
        w.block(|w| {
            line!(w, "if {n} % {i} == 0:");
            w.block(|w| w.line("return False"));
        });
        w.line("return True");
    });
}
