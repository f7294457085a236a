//! The text so far, the current position in it, and the names in scope.

use super::loops;
use super::sampler::Sampler;
use super::scope::{Name, PyKind, PyKind::*, Scope};
use super::words::{Domain, WORDS};

/// Writes one line of the program from a format string; arguments may themselves use the writer.
macro_rules! line {
    ($w:expr, $($part:tt)*) => {{
        let text = format!($($part)*);
        $w.line(&text);
    }};
}
pub(super) use line;

/// The deepest nesting of statements, in units of indentation.
const DEEPEST: usize = 4;

/// A program being written.
pub(super) struct PythonWriter {
    /// The version of the stream.
    pub(super) version: u32,
    pub(super) sampler: Sampler,
    pub(super) scope: Scope,
    /// The subject area of this document.
    pub(super) domain: &'static Domain,
    /// Type hints on parameters.
    pub(super) hints: bool,
    /// Inside a function: what it returns (`Some(None)`: nothing).
    pub(super) returns: Option<Option<PyKind>>,
    /// The number of loops around the current line in the function.
    pub(super) loops: usize,
    /// The quote character of the current line.
    quote: char,
    /// Whether the last line ended its block, as `return` does.
    pub(super) ended: bool,
    out: String,
    /// Units of indentation at the current line.
    pub(super) indent: usize,
    limit: usize,
    imports: Vec<&'static str>,
}

impl PythonWriter {
    /// An empty program that should stop growing at about `limit` bytes.
    pub(super) fn new(version: u32, mut sampler: Sampler, limit: usize) -> Self {
        let domain = &WORDS.domains[sampler.below(WORDS.domains.len())];
        let hints = sampler.chance(20);
        PythonWriter {
            version,
            sampler,
            scope: Scope::default(),
            domain,
            hints,
            returns: None,
            loops: 0,
            quote: '"',
            ended: false,
            out: String::with_capacity(limit + 512),
            indent: 0,
            limit,
            imports: Vec::new(),
        }
    }

    /// The body written so far and the import lines it needs.
    pub(super) fn finish(mut self) -> (String, Vec<&'static str>) {
        self.imports.sort_unstable();
        (self.out, self.imports)
    }

    /// Bytes written so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether the document has reached its size.
    pub(super) fn full(&self) -> bool {
        self.out.len() >= self.limit
    }

    /// Whether blocks must not nest deeper.
    pub(super) fn deep(&self) -> bool {
        self.indent >= DEEPEST || self.full()
    }

    /// Writes one logical line at the current indentation, then draws the quote character of the
    /// next.
    pub(super) fn line(&mut self, text: &str) {
        self.out.push_str(&"                                "[..4 * self.indent.min(8)]);
        self.out.push_str(text);
        self.out.push('\n');
        self.ended = ["return", "break", "continue", "raise"].iter().any(|word| text.starts_with(word));
        self.quote = if self.sampler.chance(50) { '"' } else { '\'' };
    }

    /// Writes empty lines.
    pub(super) fn blank(&mut self, count: usize) {
        for _ in 0..count {
            self.out.push('\n');
        }
    }

    /// Writes `body` one level deeper. Reads the variables defined there that nothing has read, and
    /// forgets them afterwards. An empty body becomes `pass`.
    pub(super) fn block(&mut self, body: impl FnOnce(&mut PythonWriter)) {
        let known = self.scope.vars.len();
        self.open_block(|w| {
            body(w);
            loops::settle(w, known);
        });
        self.scope.vars.truncate(known);
    }

    /// As [`PythonWriter::block`], but what it defines stays known: for blocks that always run.
    pub(super) fn open_block(&mut self, body: impl FnOnce(&mut PythonWriter)) {
        let start = self.out.len();
        self.indent += 1;
        body(self);
        if self.out.len() == start {
            self.line("pass");
        }
        self.indent -= 1;
        self.ended = false;
    }

    /// As [`PythonWriter::block`], inside a loop.
    pub(super) fn loop_block(&mut self, body: impl FnOnce(&mut PythonWriter)) {
        self.loops += 1;
        self.block(body);
        self.loops -= 1;
    }

    /// A line break inside a literal, `more` levels deeper than the line it is on.
    pub(super) fn break_at(&self, more: usize) -> String {
        format!("\n{}", " ".repeat(4 * (self.indent + more)))
    }

    /// Text in the quotes of this line. The text holds no quotes and no backslashes.
    pub(super) fn quoted(&self, text: &str) -> String {
        let mut literal = String::with_capacity(text.len() + 2);
        literal.push(self.quote);
        literal.push_str(text);
        literal.push(self.quote);
        literal
    }

    /// Adds an import line.
    pub(super) fn import(&mut self, import: &'static str) {
        if !self.imports.contains(&import) {
            self.imports.push(import);
        }
    }

    /// A variable of that kind, if there is one; one that nothing has read yet is preferred. Counts
    /// as read.
    pub(super) fn var(&mut self, kind: PyKind) -> Option<Name> {
        self.choose(kind, false)
    }

    /// As [`PythonWriter::var`], but one that the program may assign to.
    pub(super) fn target(&mut self, kind: PyKind) -> Option<Name> {
        self.choose(kind, true)
    }

    fn choose(&mut self, kind: PyKind, assignable: bool) -> Option<Name> {
        let fits = |var: &&mut super::scope::PyVar| var.kind == kind && !(assignable && var.fixed);
        let count = self.scope.vars.iter_mut().filter(fits).count();
        if count == 0 {
            return None;
        }
        let index = self.sampler.below(count);
        let fresh = self.sampler.chance(60);
        let mut found = None;
        for (i, var) in self.scope.vars.iter_mut().filter(fits).enumerate() {
            if i == index || (fresh && !var.used) {
                found = Some(var);
            }
        }
        found.map(|var| {
            var.used = true;
            var.name
        })
    }

    /// A name for a new variable of that kind that nothing in scope has.
    pub(super) fn fresh(&mut self, kind: PyKind) -> Name {
        for _ in 0..12 {
            let name = self.candidate(kind);
            if !self.scope.knows(name) {
                return name;
            }
        }
        let last = self.candidate(kind);
        let heads = ["my_", "some_", "extra_", "temp_"];
        heads.iter().map(|&head| Name::joined(head, last.tail)).find(|&name| !self.scope.knows(name)).unwrap_or(last)
    }

    fn candidate(&mut self, kind: PyKind) -> Name {
        let (pool, names, heads): (&[&str], &[&str], &[&str]) = match kind {
            Int => (&WORDS.ints, &self.domain.ints, &WORDS.int_heads),
            Float => (&WORDS.floats, &self.domain.floats, &WORDS.int_heads),
            Str => (&WORDS.strs, &self.domain.strs, &WORDS.str_heads),
            Bool => (&WORDS.bools, &self.domain.flags, &WORDS.bool_heads),
            Ints => (&WORDS.int_lists, &WORDS.int_lists, &WORDS.list_heads),
            Strs => (&WORDS.str_lists, &WORDS.str_lists, &WORDS.list_heads),
            Grid => (&WORDS.grids, &WORDS.grids, &WORDS.list_heads),
            Set => (&WORDS.sets, &WORDS.sets, &WORDS.list_heads),
            Counts => (&WORDS.dicts, &WORDS.dicts, &WORDS.list_heads),
            Texts => (&WORDS.maps, &WORDS.maps, &WORDS.str_heads),
            Thing | Instance(_) => return Name::plain(self.thing()),
            Things => {
                let things = self.things();
                let head = if self.sampler.chance(30) { self.sampler.pick(&WORDS.list_heads) } else { "" };
                return Name::joined(head, things);
            }
        };
        match self.sampler.weighted(&[60, 18, 22]) {
            0 => Name::plain(self.sampler.pick(pool)),
            1 => Name::plain(self.sampler.pick(names)),
            _ => Name::joined(self.sampler.pick(heads), self.sampler.pick(names)),
        }
    }

    /// One of the domain's things, singular.
    pub(super) fn thing(&mut self) -> &'static str {
        self.sampler.pick(self.domain.things())[0]
    }

    /// One of the domain's things, plural.
    pub(super) fn things(&mut self) -> &'static str {
        self.sampler.pick(self.domain.things())[1]
    }
}
