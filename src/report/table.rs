use serde_json::{Map, Value};

use crate::chart::{Axis, Chart, Series};
use crate::{Error, Result};

/// A value in a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cell {
    /// Nothing: no text, and `null` in JSON.
    #[default]
    Empty,
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
    /// A number that counts something.
    Count(u64),
}

impl Cell {
    /// The number in it, if there is one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Count(count) => Some(*count as f64),
            Self::Empty | Self::Text(_) => None,
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Count(count) => (*count).into(),
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Count(count) => count.fmt(f),
        }
    }
}

macro_rules! cell_from {
    ($($type:ty: $value:ident => $cell:expr),*) => {
        $(impl From<$type> for Cell {
            fn from($value: $type) -> Self {
                $cell
            }
        })*
    };
}
cell_from!(&str: v => Self::Text(v.into()), String: v => Self::Text(v), f64: v => Self::Number(v),
    f32: v => Self::Number(v.into()), usize: v => Self::Count(v as u64), u64: v => Self::Count(v));

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Empty, Into::into)
    }
}

/// How text shows the numbers of a column. CSV and JSON have all digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberFormat {
    /// Four decimals, or an exponent for less than 0.001; whole numbers without decimals.
    Auto,
    /// This many decimals.
    Decimals(usize),
    /// A share of 1 as percent, with this many decimals.
    Percent(usize),
}

impl NumberFormat {
    fn show(self, cell: &Cell) -> String {
        match (cell, self) {
            (Cell::Number(n), Self::Decimals(digits)) => format!("{n:.digits$}"),
            (Cell::Number(n), Self::Percent(digits)) => format!("{:.digits$} %", 100.0 * n),
            (Cell::Number(n), Self::Auto) if n.fract() != 0.0 && n.abs() >= 1e-3 => format!("{n:.4}"),
            (Cell::Number(n), Self::Auto) if n.fract() != 0.0 => format!("{n:.3e}"),
            _ => cell.to_string(),
        }
    }
}

/// A column of a table: texts to the left, numbers to the right.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name in CSV and JSON, and in text where it has no title.
    pub name: String,
    title: Option<String>,
    unit: Option<String>,
    format: NumberFormat,
    left: bool,
    width: usize,
}

impl Column {
    /// A column of texts.
    pub fn text(name: impl Into<String>) -> Self {
        Self { left: true, ..Self::number(name) }
    }

    /// A column of numbers of any size.
    pub fn number(name: impl Into<String>) -> Self {
        Self { name: name.into(), title: None, unit: None, format: NumberFormat::Auto, left: false, width: 0 }
    }

    /// A column of numbers with this many decimals.
    pub fn decimals(name: impl Into<String>, decimals: usize) -> Self {
        Self { format: NumberFormat::Decimals(decimals), ..Self::number(name) }
    }

    /// A column of shares of 1, shown as percent with one decimal.
    pub(crate) fn percent(name: impl Into<String>) -> Self {
        Self { format: NumberFormat::Percent(1), ..Self::number(name) }
    }

    /// The heading in text.
    #[must_use]
    pub(crate) fn title(self, title: impl Into<String>) -> Self {
        Self { title: Some(title.into()), ..self }
    }

    /// The unit, which the heading has in parentheses.
    #[must_use]
    pub fn unit(self, unit: impl Into<String>) -> Self {
        Self { unit: Some(unit.into()), ..self }
    }

    /// The width in characters, where rows are printed before all are known; wider cells make the
    /// column wider.
    #[must_use]
    pub(crate) fn width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    fn heading(&self) -> String {
        let title = self.title.as_ref().unwrap_or(&self.name);
        self.unit.as_ref().map_or_else(|| title.clone(), |unit| format!("{title} ({unit})"))
    }
}

/// Named columns and rows of cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Its name in JSON.
    pub name: String,
    /// The columns.
    pub columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(name: impl Into<String>, columns: impl IntoIterator<Item = Column>) -> Self {
        Self { name: name.into(), columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty; cells beyond the columns are dropped.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = row.into_iter().collect();
        row.resize(self.columns.len(), Cell::Empty);
        self.rows.push(row);
    }

    /// The rows, each as long as the columns.
    pub(crate) fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// Aligned text, the headings first.
    pub(crate) fn text(&self) -> String {
        let lines = self.texts();
        let width = |at: usize, column: &Column| {
            lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0).max(column.width)
        };
        let widths: Vec<_> = self.columns.iter().enumerate().map(|(at, column)| width(at, column)).collect();
        lines.iter().map(|line| self.aligned(line, &widths) + "\n").collect()
    }

    /// The headings, then the rows, each cell as text shows it.
    pub(crate) fn texts(&self) -> Vec<Vec<String>> {
        let headings = self.columns.iter().map(Column::heading).collect();
        std::iter::once(headings).chain(self.rows.iter().map(|row| self.shown(row))).collect()
    }

    /// Whether each column is of numbers.
    pub(crate) fn numeric(&self) -> Vec<bool> {
        self.columns.iter().map(|column| !column.left).collect()
    }

    /// The headings alone, as wide as the columns say.
    pub fn heading(&self) -> String {
        self.aligned(&self.columns.iter().map(Column::heading).collect::<Vec<_>>(), &self.widths())
    }

    /// One row alone, as wide as the columns say.
    pub fn line(&self, row: &[Cell]) -> String {
        self.aligned(&self.shown(row), &self.widths())
    }

    fn widths(&self) -> Vec<usize> {
        self.columns.iter().map(|column| column.width.max(column.heading().chars().count())).collect()
    }

    fn shown(&self, row: &[Cell]) -> Vec<String> {
        self.columns.iter().zip(row).map(|(column, cell)| column.format.show(cell)).collect()
    }

    fn aligned(&self, cells: &[String], widths: &[usize]) -> String {
        let cell = |((cell, column), &width): ((&String, &Column), &usize)| {
            if column.left { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        };
        let cells: Vec<_> = cells.iter().zip(&self.columns).zip(widths).map(cell).collect();
        cells.join("  ").trim_end().into()
    }

    /// Comma-separated values, the names of the columns first.
    pub fn csv(&self) -> String {
        let quoted = |text: String| {
            if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
        };
        let line = |cells: Vec<String>| cells.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
        let names = self.columns.iter().map(|column| column.name.clone()).collect();
        let rows = self.rows.iter().map(|row| line(row.iter().map(Cell::to_string).collect()));
        std::iter::once(line(names)).chain(rows).collect()
    }

    pub(super) fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| -> Map<String, Value> {
            self.columns.iter().zip(row).map(|(column, cell)| (column.name.clone(), cell.json())).collect()
        };
        self.rows.iter().map(object).map(Value::Object).collect()
    }

    /// The position of the column `name`.
    pub(crate) fn column(&self, name: &str) -> Result<usize> {
        let known = || self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let at = self.columns.iter().position(|column| column.name == name);
        at.ok_or_else(|| Error::Unknown { kind: "column", name: name.into(), known: known() })
    }

    /// A chart of the columns `ys` over the column `x`, one line each; the legend has their
    /// headings. A column `x` of texts is an axis of names.
    ///
    /// # Errors
    /// Returns [`Error::Unknown`] if there is no such column.
    pub fn chart(&self, title: impl Into<String>, x: &str, ys: &[&str], y_axis: Axis) -> Result<Chart> {
        let x = self.column(x)?;
        let named = self.columns[x].left;
        let series = |(style, name): (usize, &&str)| {
            let y = self.column(name)?;
            let at = |(number, row): (usize, &Vec<Cell>)| if named { Some(number as f64) } else { row[x].number() };
            let points = self.rows.iter().enumerate().filter_map(|row| at(row).zip(row.1[y].number())).collect();
            Ok(Series::line(self.columns[y].heading(), style, points))
        };
        let series = ys.iter().enumerate().map(series).collect::<Result<_>>()?;
        let label = self.columns[x].heading();
        let names = || self.rows.iter().map(|row| row[x].to_string());
        let x = if named { Axis::named(label, names()) } else { Axis::linear(label) };
        Ok(Chart { title: title.into(), x, y: y_axis, series })
    }
}
