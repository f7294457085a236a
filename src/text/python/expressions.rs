//! Expressions of each kind, from the names in scope. They write no lines.

use super::scope::{Name, PyFunction, PyKind, PyKind::*};
use super::writer::PythonWriter;

impl PythonWriter {
    /// A variable or a literal.
    pub(super) fn atom(&mut self, kind: PyKind) -> String {
        match if self.sampler.chance(80) { self.var(kind) } else { None } {
            Some(name) => name.to_string(),
            None => self.literal(kind),
        }
    }

    /// An expression of that kind, seldom longer than one operation.
    pub(super) fn expr(&mut self, kind: PyKind) -> String {
        if self.sampler.chance(12)
            && let Some(call) = self.call_returning(kind)
        {
            return call;
        }
        if matches!(kind, Int | Str) && self.sampler.chance(6) {
            return format!("{} if {} else {}", self.atom(kind), self.condition(), self.atom(kind));
        }
        let found = match kind {
            Int => self.int(),
            Float => self.float(),
            Str => self.str(),
            Bool => self.bool(),
            Ints => self.ints(),
            Strs => self.strs(),
            Grid => self.grid_expr(),
            Set => self.var(Strs).map(|names| format!("set({names})")),
            Counts => self.var(Strs).map(|names| {
                let name = self.element_name(names, "key");
                format!("{{{name}: {} for {name} in {names}}}", self.sampler.below(2))
            }),
            Texts | Thing | Instance(_) => None,
            Things => self.things_expr(),
        };
        found.unwrap_or_else(|| self.atom(kind))
    }

    fn int(&mut self) -> Option<String> {
        Some(match self.sampler.weighted(&[30, 14, 14, 14, 10, 8, 10]) {
            0 => {
                let name = self.var(Int)?;
                let number = self.sampler.number().max(2);
                format!("{name} {} {number}", self.sampler.pick(&["+", "-", "*", "//", "%", "+"]))
            }
            1 => {
                let a = self.var(Int)?;
                let b = self.other_int(a);
                format!("{a} {} {b}", self.sampler.pick(&["+", "-", "*", "+"]))
            }
            2 => format!("len({})", self.collection()?),
            3 => {
                let list = self.var(Ints)?;
                match self.sampler.below(4) {
                    0 => format!("{list}[{}]", self.sampler.pick(&["0", "-1", "1"])),
                    _ => format!("{}({list})", self.sampler.pick(&["sum", "max", "min"])),
                }
            }
            4 => {
                let counts = self.var(Counts)?;
                let key = self.atom(Str);
                if self.sampler.chance(50) { format!("{counts}[{key}]") } else { format!("{counts}.get({key}, 0)") }
            }
            5 => {
                let a = self.var(Int)?;
                let b = self.other_int(a);
                format!("{}({a}, {b})", self.sampler.pick(&["max", "min"]))
            }
            _ => self.attribute(Int)?,
        })
    }

    /// A number, or a variable other than `first`.
    fn other_int(&mut self, first: Name) -> String {
        match self.var(Int).filter(|&name| name != first) {
            Some(name) => name.to_string(),
            None => self.sampler.number().to_string(),
        }
    }

    fn float(&mut self) -> Option<String> {
        Some(match self.sampler.below(5) {
            0 => format!("{} * {}", self.var(Float)?, self.atom(Float)),
            1 => format!("{} / {}", self.var(Int)?, self.sampler.range(2, 100)),
            2 => format!("round({}, {})", self.var(Float)?, self.sampler.range(1, 3)),
            3 => {
                let list = self.var(Ints)?;
                format!("sum({list}) / len({list})")
            }
            _ => self.attribute(Float)?,
        })
    }

    fn str(&mut self) -> Option<String> {
        Some(match self.sampler.weighted(&[20, 20, 10, 8, 8, 14, 8]) {
            0 => format!(
                "{}.{}()",
                self.var(Str)?,
                self.sampler.pick(&["strip", "lower", "upper", "title", "capitalize"])
            ),
            1 => {
                let parts = vec![self.showable()?];
                self.f_string(&parts)
            }
            2 => format!("{}.replace({}, {})", self.var(Str)?, self.word(), self.word()),
            3 => {
                let joint = self.sampler.pick(&[" ", ", ", "-", "", "/"]);
                format!("{}.join({})", self.quoted(joint), self.var(Strs)?)
            }
            4 => format!("str({})", self.var(Int)?),
            5 => {
                let (a, b) = (self.var(Str)?, self.atom(Str));
                format!("{a} + {b}")
            }
            _ => self.attribute(Str)?,
        })
    }

    fn bool(&mut self) -> Option<String> {
        Some(match self.sampler.below(5) {
            0 => format!("not {}", self.var(Bool)?),
            1 | 2 => self.comparison()?,
            _ => self.sampler.pick(&["True", "False"]).to_string(),
        })
    }

    fn ints(&mut self) -> Option<String> {
        Some(match self.sampler.below(5) {
            0 => {
                let list = self.var(Ints)?;
                let item = self.element_name(list, "x");
                match self.sampler.below(3) {
                    0 => format!("[{item} * {} for {item} in {list}]", self.sampler.range(2, 10)),
                    1 => format!("[{item} for {item} in {list} if {item} > {}]", self.sampler.number()),
                    _ => format!("[{item} ** 2 for {item} in {list}]"),
                }
            }
            1 => match self.sampler.below(2) {
                0 => format!("sorted({})", self.var(Ints)?),
                _ => format!(
                    "sorted({}, key=lambda {1}: {1} % {2})",
                    self.var(Ints)?,
                    self.sampler.pick(&["x", "n", "v"]),
                    self.sampler.range(2, 9)
                ),
            },
            2 => format!("list(range({}))", self.atom(Int)),
            3 => format!("{}[{}]", self.var(Ints)?, self.sampler.pick(&["1:", ":-1", "::-1", ":3", "2:"])),
            _ => {
                let list = self.var(Strs)?;
                let item = self.element_name(list, "x");
                format!("[len({item}) for {item} in {list}]")
            }
        })
    }

    fn strs(&mut self) -> Option<String> {
        Some(match self.sampler.below(5) {
            0 => {
                let list = self.var(Strs)?;
                let item = self.element_name(list, "s");
                format!("[{item}.{}() for {item} in {list}]", self.sampler.pick(&["strip", "lower", "upper"]))
            }
            1 => match self.sampler.below(2) {
                0 => format!("sorted({})", self.collection_of_strings()?),
                _ => format!(
                    "sorted({}, key=lambda {1}: {1}[{2}])",
                    self.collection_of_strings()?,
                    self.sampler.pick(&["s", "w", "x"]),
                    self.sampler.pick(&["0", "-1"])
                ),
            },
            2 => {
                let joint = self.sampler.pick(&[",", " ", ";", ":"]);
                format!("{}.split({})", self.var(Str)?, self.quoted(joint))
            }
            3 => {
                let things = self.var(Things)?;
                let (item, field) = (self.element(things), self.sampler.pick(&self.domain.strs));
                format!("[{item}.{field} for {item} in {things}]")
            }
            _ => format!("{}.split()", self.var(Str)?),
        })
    }

    fn collection_of_strings(&mut self) -> Option<Name> {
        let kind = self.sampler.pick(&[Strs, Set, Counts]);
        self.var(kind).or_else(|| self.var(Strs))
    }

    fn grid_expr(&mut self) -> Option<String> {
        let (rows, columns) = (self.atom(Int), self.sampler.range(2, 9));
        Some(format!("[[0] * {columns} for _ in range({rows})]"))
    }

    fn things_expr(&mut self) -> Option<String> {
        let things = self.var(Things)?;
        let item = self.element(things);
        let field = self.sampler.pick(&self.domain.ints);
        Some(match self.sampler.below(3) {
            0 => format!("sorted({things}, key=lambda {item}: {item}.{field})"),
            1 => format!("[{item} for {item} in {things} if {item}.{}]", self.sampler.pick(&self.domain.flags)),
            _ => format!("[{item} for {item} in {things} if {item}.{field} > {}]", self.sampler.number()),
        })
    }

    /// The singular for an element of a list of things.
    pub(super) fn element(&mut self, things: Name) -> &'static str {
        self.domain.things().iter().find(|[_, many]| *many == things.tail).map_or("item", |[one, _]| one)
    }

    /// An attribute of some thing or instance in scope.
    pub(super) fn attribute(&mut self, kind: PyKind) -> Option<String> {
        if let Some(thing) = self.var(Thing) {
            let fields = self.fields_of_things(kind)?;
            return Some(format!("{thing}.{}", self.sampler.pick(fields)));
        }
        let number = self.sampler.below(self.scope.classes.len());
        let name = self.var(Instance(number as u8))?;
        let fields: Vec<Name> = self.scope.classes[number]
            .fields
            .iter()
            .filter(|field| field.kind == kind)
            .map(|field| field.name)
            .collect();
        if fields.is_empty() { None } else { Some(format!("{name}.{}", self.sampler.pick(&fields))) }
    }

    /// The names of the attributes of that kind that things of the domain have.
    pub(super) fn fields_of_things(&self, kind: PyKind) -> Option<&'static [&'static str]> {
        match kind {
            Int => Some(&self.domain.ints),
            Float => Some(&self.domain.floats),
            Str => Some(&self.domain.strs),
            Bool => Some(&self.domain.flags),
            _ => None,
        }
    }

    /// A call of some function of the document that returns that kind.
    pub(super) fn call_returning(&mut self, kind: PyKind) -> Option<String> {
        let fitting: Vec<usize> =
            (0..self.scope.functions.len()).filter(|&i| self.scope.functions[i].returns == Some(kind)).collect();
        if fitting.is_empty() {
            return None;
        }
        let function = self.scope.functions[self.sampler.pick(&fitting)].clone();
        Some(self.call(&function))
    }

    /// A call with arguments from scope; some optional ones by keyword, some left out.
    pub(super) fn call(&mut self, function: &PyFunction) -> String {
        let mut arguments = Vec::with_capacity(function.params.len());
        let mut by_keyword = false;
        for param in &function.params {
            if param.optional && self.sampler.chance(50) {
                by_keyword = true;
                continue;
            }
            by_keyword |= param.optional && self.sampler.chance(60);
            let value = self.atom(param.kind);
            arguments.push(if by_keyword { format!("{}={value}", param.name) } else { value });
        }
        format!("{}({})", function.name, arguments.join(", "))
    }

    /// A condition for `if` and `while`: a comparison, a flag, a membership, or two of them.
    pub(super) fn condition(&mut self) -> String {
        let first = self.simple_condition();
        if self.sampler.chance(12) {
            let second = self.simple_condition();
            format!("{first} {} {second}", self.sampler.pick(&["and", "or"]))
        } else {
            first
        }
    }

    fn simple_condition(&mut self) -> String {
        for _ in 0..4 {
            let found = match self.sampler.weighted(&[45, 14, 14, 12, 8, 7]) {
                0 => self.comparison(),
                1 => self.var(Bool).map(|flag| match self.sampler.below(4) {
                    0 => format!("{flag} == {}", self.sampler.pick(&["True", "False", "True"])),
                    _ => self.perhaps_not(flag),
                }),
                2 => self.membership(),
                3 => self.collection().map(|name| self.perhaps_not(name)),
                4 => {
                    let part = self.word();
                    let method = self.sampler.pick(&["startswith", "endswith"]);
                    self.var(Str).map(|name| format!("{name}.{method}({part})"))
                }
                _ => self.attribute(Bool),
            };
            if let Some(condition) = found {
                return condition;
            }
        }
        self.comparison().unwrap_or_else(|| {
            self.import("import sys");
            format!("len(sys.argv) > {}", self.sampler.range(1, 3))
        })
    }

    fn perhaps_not(&mut self, name: Name) -> String {
        if self.sampler.chance(45) { format!("not {name}") } else { name.to_string() }
    }

    fn membership(&mut self) -> Option<String> {
        let kind = self.sampler.pick(&[Strs, Set, Counts, Texts]);
        let name = self.var(kind)?;
        let item = self.atom(Str);
        Some(format!("{item} {} {name}", self.sampler.pick(&["in", "not in", "in"])))
    }

    /// Two values compared.
    pub(super) fn comparison(&mut self) -> Option<String> {
        Some(match self.sampler.weighted(&[36, 12, 12, 14, 12, 14]) {
            0 => {
                let (name, number) = (self.var(Int)?, self.sampler.number());
                format!("{name} {} {number}", self.operator())
            }
            1 => {
                let a = self.var(Int)?;
                let b = self.other_int(a);
                format!("{a} {} {b}", self.operator())
            }
            2 => {
                let name = self.var(Int)?;
                let divisor = self.sampler.pick(&[2, 2, 3, 5, 10]);
                format!("{name} % {divisor} {} 0", self.sampler.pick(&["==", "!="]))
            }
            3 => {
                let (name, number) = (self.collection()?, self.sampler.below(10));
                format!("len({name}) {} {number}", self.operator())
            }
            4 => {
                let (name, word) = (self.var(Str)?, self.word());
                format!("{name} {} {word}", self.sampler.pick(&["==", "!="]))
            }
            _ => {
                let (name, number) = (self.attribute(Int)?, self.sampler.number());
                format!("{name} {} {number}", self.operator())
            }
        })
    }

    fn operator(&mut self) -> &'static str {
        self.sampler.pick(&["==", "!=", "<", ">", "<=", ">=", ">", "=="])
    }

    /// The name of an element of the list `list`: its singular if it has one, otherwise `other`.
    pub(super) fn element_name(&self, list: Name, other: &'static str) -> &'static str {
        match list.tail.strip_suffix('s') {
            // Version 3 has loops without a name over lists called `s`, and stays as it is.
            Some("") if self.version > 3 => {
                if other == "s" {
                    "item"
                } else {
                    other
                }
            }
            Some(one) if !matches!(one, "id" | "co" | "proces" | "los" | "ye") && list.tail != "status" => one,
            _ => other,
        }
    }
}

/// Names that loops give to the elements of lists without a singular.
pub(super) fn spare_element(kind: PyKind) -> &'static [&'static str] {
    match kind {
        Ints => &["x", "n", "value", "number", "v", "num"],
        Grid => &["row", "line", "pair", "group"],
        Things => &["item", "entry", "one"],
        _ => &["item", "word", "name", "s", "entry", "key"],
    }
}
