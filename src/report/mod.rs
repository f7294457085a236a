//! A result described once, and rendered as aligned text, CSV, JSON or a chart.

mod table;

use serde::Serialize;
use serde_json::{Map, Value};

pub use table::{Cell, Column, Format, Table};

use crate::files::write_atomic;
use crate::{Error, Result};

/// The result of a command: notes, facts and tables, in order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    blocks: Vec<Block>,
    /// The JSON, where it is not made of the facts and tables.
    json: Option<String>,
}

#[derive(Clone, Debug)]
enum Block {
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
        self.blocks.push(Block::Note(text.into()));
        self
    }

    /// As [`Report::note`], after an empty line.
    #[must_use]
    pub fn paragraph(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Paragraph(text.into()));
        self
    }

    /// Adds a named value, and `text` for how people read it, units included.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Cell>, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Fact { name: name.into(), value: value.into(), text: text.into() });
        self
    }

    /// Adds a table. Its JSON is an array of objects, one a row.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.blocks.push(Block::Table(table));
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
                Block::Note(note) | Block::Paragraph(note) => text += note,
                Block::Fact { name, text: value, .. } => {
                    text += &format!("{name:width$}  {value}", width = self.width())
                }
                Block::Table(table) => text += &table.text(),
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
            Block::Fact { name, .. } => Some(name.chars().count()),
            _ => None,
        });
        names.max().unwrap_or(0)
    }

    /// Indented JSON.
    pub fn json(&self) -> String {
        self.json.clone().unwrap_or_else(|| {
            let entries = self.blocks.iter().filter_map(|block| match block {
                Block::Note(_) | Block::Paragraph(_) => None,
                Block::Fact { name, value, .. } => Some((name.clone(), value.json())),
                Block::Table(table) => Some((table.name.clone(), table.json())),
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

impl Block {
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
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be written.
    pub fn save_csv(&self, path: &std::path::Path) -> Result<()> {
        write_atomic(path, |out| out.write_all(self.csv().as_bytes()).map_err(|e| Error::io(path, e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut table = Table::new("sites", [Column::text("site"), Column::decimals("nmse", 3).unit("nats")]);
        table.push(["0.mlp".into(), 0.25.into()]);
        table.push(["final, or last".into(), Cell::Empty]);
        Report::new().note("over 12 tokens").fact("tokens", 12usize, "12").fact("loss", 1.5, "1.500 nats").table(table)
    }

    #[test]
    fn text_csv_and_json_hold_the_same_cells() {
        let want = "over 12 tokens\n\ntokens  12\nloss    1.500 nats\n\nsite            nmse (nats)\n\
                    0.mlp                 0.250\nfinal, or last\n";
        assert_eq!(report().text(), want);
        let json: Value = serde_json::from_str(&report().json()).expect("JSON");
        let rows = serde_json::json!([{ "site": "0.mlp", "nmse": 0.25 }, { "site": "final, or last", "nmse": null }]);
        assert_eq!(json, serde_json::json!({ "tokens": 12, "loss": 1.5, "sites": rows }));
        let Block::Table(table) = &report().blocks[3] else { panic!("the table is last") };
        assert_eq!(table.csv(), "site,nmse\n0.mlp,0.25\n\"final, or last\",\n");
    }

    #[test]
    fn a_result_keeps_its_own_json() {
        #[derive(Serialize)]
        struct Evaluation {
            loss: f32,
        }
        let report = Report::of(&Evaluation { loss: 0.1 }).expect("JSON").note("loss 0.1");
        assert_eq!((report.json().as_str(), report.text().as_str()), ("{\n  \"loss\": 0.1\n}", "loss 0.1\n"));
    }

    #[test]
    fn a_chart_has_a_line_for_each_column() {
        let mut table = Table::new("steps", ["step", "loss"].map(Column::number));
        [(1.0, 3.0), (2.0, 2.5)].into_iter().for_each(|(x, y)| table.push([x.into(), y.into()]));
        let chart = table.chart("Loss", "step", &["loss"], crate::chart::Axis::log("nats")).expect("a chart");
        assert_eq!(chart.series[0].points, [(1.0, 3.0), (2.0, 2.5)]);
        assert!(table.chart("Loss", "step", &["kl"], crate::chart::Axis::log("nats")).is_err());
    }
}
