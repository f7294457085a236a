//! A result described once, and rendered as aligned text, CSV, JSON or a chart.

mod table;

use serde::Serialize;
use serde_json::{Map, Value};

pub use table::{Cell, Column, NumberFormat, Table};

use crate::files::write_atomic;
use crate::{Error, Result};

/// The result of a command: notes, facts and tables, in order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    blocks: Vec<ReportBlock>,
    /// The JSON, where it is not made of the facts and tables.
    json: Option<String>,
}

#[derive(Clone, Debug)]
enum ReportBlock {
    Note(String),
    Paragraph(String),
    Fact { name: String, value: Cell, text: String },
    Table(Table),
}

impl Report {
    /// An empty report, whose JSON is an object of its facts and tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// A report whose JSON is `result` itself.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if `result` has no JSON form.
    pub fn of(result: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_string_pretty(result).map_err(|e| Error::Data(e.to_string()))?;
        Ok(Self { blocks: Vec::new(), json: Some(json) })
    }

    /// Adds a line of text, which JSON leaves out.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(ReportBlock::Note(text.into()));
        self
    }

    /// As [`Report::note`], after an empty line.
    #[must_use]
    pub fn paragraph(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(ReportBlock::Paragraph(text.into()));
        self
    }

    /// Adds a named value, and `text` for how people read it, units included.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Cell>, text: impl Into<String>) -> Self {
        self.blocks.push(ReportBlock::Fact { name: name.into(), value: value.into(), text: text.into() });
        self
    }

    /// Adds a table. Its JSON is an array of objects, one a row.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.blocks.push(ReportBlock::Table(table));
        self
    }

    /// Aligned text. An empty line separates notes, facts and tables from each other.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (at, block) in self.blocks.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| &self.blocks[before]);
            if before.is_some_and(|before| !block.joins(before)) {
                text.push('\n');
            }
            match block {
                ReportBlock::Note(note) | ReportBlock::Paragraph(note) => text += note,
                ReportBlock::Fact { name, text: value, .. } => {
                    text += &format!("{name:width$}  {value}", width = self.width())
                }
                ReportBlock::Table(table) => text += &table.text(),
            }
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        text
    }

    /// The width of the longest name of a fact.
    fn width(&self) -> usize {
        let names = self.blocks.iter().filter_map(|block| match block {
            ReportBlock::Fact { name, .. } => Some(name.chars().count()),
            _ => None,
        });
        names.max().unwrap_or(0)
    }

    /// Indented JSON.
    pub fn json(&self) -> String {
        self.json.clone().unwrap_or_else(|| {
            let entries = self.blocks.iter().filter_map(|block| match block {
                ReportBlock::Note(_) | ReportBlock::Paragraph(_) => None,
                ReportBlock::Fact { name, value, .. } => Some((name.clone(), value.json())),
                ReportBlock::Table(table) => Some((table.name.clone(), table.json())),
            });
            format!("{:#}", Value::Object(entries.collect::<Map<_, _>>()))
        })
    }

    /// Writes JSON or text.
    ///
    /// # Errors
    /// Returns the writer's error.
    pub fn write(&self, out: &mut impl std::io::Write, json: bool) -> std::io::Result<()> {
        if json { writeln!(out, "{}", self.json()) } else { out.write_all(self.text().as_bytes()) }
    }
}

impl ReportBlock {
    /// Whether no empty line separates it from the block `before`.
    fn joins(&self, before: &Self) -> bool {
        match self {
            Self::Note(_) => matches!(before, Self::Note(_) | Self::Paragraph(_)),
            Self::Fact { .. } => matches!(before, Self::Fact { .. }),
            Self::Paragraph(_) | Self::Table(_) => false,
        }
    }
}

impl Table {
    /// Writes the CSV form to `path`.
    pub(crate) fn save_csv(&self, path: &std::path::Path) -> Result<()> {
        write_atomic(path, |out| out.write_all(self.csv().as_bytes()).map_err(|e| Error::io(path, e)))
    }
}
