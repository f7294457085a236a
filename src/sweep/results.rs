//! A table of texts and numbers: as CSV, for people, and as charts.

use std::collections::BTreeMap;
use std::path::Path;

use crate::chart::{Axis, COLORS, Chart, Series};
use crate::files::write_atomic;
use crate::{Error, Result};

/// More lines than a legend has room for.
const LEGEND: usize = 12;

/// What stands in a place of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
}

impl Cell {
    /// A number if `text` is one.
    pub fn parse(text: &str) -> Self {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) => None,
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            Self::Number(number) => f.pad(&number.to_string()),
        }
    }
}

/// Rows with named places, some of them empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// How many of the columns say what was tried; the others say what came out.
    pub tried: usize,
    /// What the columns are called.
    pub columns: Vec<String>,
    /// A row for each job, or for each circuit of a job.
    pub rows: Vec<Vec<Option<Cell>>>,
}

impl Table {
    /// A table of rows, each in two parts: what was tried and what came out. Columns of each part are in the order of their
    /// names; what came out under the name of something tried is called `result.NAME`.
    pub fn new(rows: Vec<(BTreeMap<String, Cell>, BTreeMap<String, Cell>)>) -> Self {
        let mut parts = [BTreeMap::new(), BTreeMap::new()];
        for (tried, came_out) in &rows {
            parts[0].extend(tried.keys().map(|name| (name.clone(), ())));
            parts[1].extend(came_out.keys().map(|name| (name.clone(), ())));
        }
        let [tried, came_out] = parts.map(|names| names.into_keys().collect::<Vec<_>>());
        let told_apart = |name: &String| if tried.contains(name) { format!("result.{name}") } else { name.clone() };
        let titles = [tried.clone(), came_out.iter().map(told_apart).collect()].concat();
        let row = |(a, b): &(BTreeMap<String, Cell>, BTreeMap<String, Cell>)| {
            let of = |names: &[String], cells: &BTreeMap<String, Cell>| -> Vec<_> {
                names.iter().map(|name| cells.get(name).cloned()).collect()
            };
            [of(&tried, a), of(&came_out, b)].concat()
        };
        let rows = rows.iter().map(row).collect();
        Self { tried: tried.len(), columns: titles, rows }
    }

    /// As comma-separated values, the columns' names first.
    pub fn csv(&self) -> String {
        let quoted = |text: String| match text.contains([',', '"', '\n']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text,
        };
        let line = |cells: Vec<String>| cells.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
        let cell = |cell: &Option<Cell>| cell.as_ref().map_or(String::new(), Cell::to_string);
        let rows = self.rows.iter().map(|row| line(row.iter().map(cell).collect()));
        std::iter::once(line(self.columns.clone())).chain(rows).collect()
    }

    /// In columns of equal width.
    pub fn text(&self) -> String {
        let short = |cell: &Option<Cell>| match cell {
            None => String::new(),
            Some(Cell::Number(n)) if n.fract() != 0.0 && n.abs() >= 1e-3 => format!("{n:.4}"),
            Some(Cell::Number(n)) if n.fract() != 0.0 => format!("{n:.3e}"),
            Some(cell) => cell.to_string(),
        };
        let mut lines = vec![self.columns.clone()];
        lines.extend(self.rows.iter().map(|row| row.iter().map(short).collect()));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let line = |line: &Vec<String>| {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
            cells.collect::<Vec<_>>().join("  ") + "\n"
        };
        lines.iter().map(line).collect()
    }

    /// Writes the file at `path` as CSV.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomic(path, |out| out.write_all(self.csv().as_bytes()).map_err(|e| Error::io(path, e)))
    }

    /// The column that a chart is about if nobody says which: a loss, or a size, or the first one of numbers.
    pub fn main_column(&self) -> Option<&str> {
        let numbers =
            |&column: &usize| self.rows.iter().any(|row| row[column].as_ref().is_some_and(|c| c.number().is_some()));
        let all: Vec<_> = (self.tried..self.columns.len()).filter(numbers).map(|c| self.columns[c].as_str()).collect();
        let liked = ["validation_loss", "loss", "edges"].into_iter().find(|name| all.contains(name));
        liked.or(all.first().copied())
    }

    /// A chart of the column `name` over the number of which most values were tried, a line for each combination of everything
    /// else.
    ///
    /// # Errors
    /// [`Error::Text`] if there is no such column.
    pub fn chart(&self, name: &str) -> Result<Chart> {
        let y = self.columns.iter().skip(self.tried).position(|column| column == name).map(|at| at + self.tried);
        let y = y.ok_or_else(|| {
            let columns = self.columns[self.tried..].join(", ");
            Error::Text(format!("no column is called {name}; there are: {columns}"))
        })?;
        let number = |row: &Vec<Option<Cell>>, column: usize| row[column].as_ref().and_then(Cell::number);
        let values = |column: usize| -> Option<Vec<f64>> {
            let mut all = self.rows.iter().map(|row| number(row, column)).collect::<Option<Vec<_>>>()?;
            all.sort_by(f64::total_cmp);
            all.dedup();
            (all.len() > 1).then_some(all)
        };
        let x = (0..self.tried).rev().filter_map(|column| Some((column, values(column)?))).max_by_key(|x| x.1.len());
        let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (at, row) in self.rows.iter().enumerate() {
            let others = (0..self.tried).filter(|&column| Some(column) != x.as_ref().map(|x| x.0));
            let said = |column: usize| row[column].as_ref().map(|cell| format!("{} {cell}", self.columns[column]));
            let key = others.filter(|&column| self.differs(column)).filter_map(said).collect::<Vec<_>>().join(", ");
            let place = x.as_ref().map_or(Some(at as f64), |(column, _)| number(row, *column));
            if let (Some(x), Some(y)) = (place, number(row, y)) {
                series.entry(key).or_default().push((x, y));
            }
        }
        let named = series.len() <= LEGEND;
        let series = series.into_iter().enumerate().map(|(at, (key, mut points))| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let name = if named { key } else { String::new() };
            Series { name, color: COLORS[at % COLORS.len()], line: x.is_some(), points }
        });
        // Numbers that were tried in steps of factors.
        let log = x.as_ref().is_some_and(|(_, all)| all[0] > 0.0 && all[all.len() - 1] / all[0] >= 8.0);
        Ok(Chart {
            title: name.into(),
            x: Axis { label: x.as_ref().map_or("job".into(), |(column, _)| self.columns[*column].clone()), log },
            y: Axis { label: name.into(), log: false },
            series: series.collect(),
        })
    }

    fn differs(&self, column: usize) -> bool {
        self.rows.iter().any(|row| row[column] != self.rows[0][column])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tried: &[(&str, &str)], came_out: &[(&str, f64)]) -> (BTreeMap<String, Cell>, BTreeMap<String, Cell>) {
        (
            tried.iter().map(|(name, text)| (name.to_string(), Cell::parse(text))).collect(),
            came_out.iter().map(|(name, number)| (name.to_string(), Cell::Number(*number))).collect(),
        )
    }

    fn table() -> Table {
        Table::new(vec![
            row(&[("lr", "0.1"), ("preset", "a,b")], &[("loss", 2.0), ("lr", 0.0)]),
            row(&[("lr", "0.01"), ("preset", "a,b")], &[("loss", 3.5)]),
            row(&[("lr", "0.1"), ("preset", "c")], &[("loss", 1e-9), ("nodes", 4.0)]),
        ])
    }

    #[test]
    fn a_table_keeps_every_cell_in_its_column() {
        let want = "lr,preset,loss,result.lr,nodes\n0.1,\"a,b\",2,0,\n0.01,\"a,b\",3.5,,\n0.1,c,0.000000001,,4\n";
        assert_eq!(table().csv(), want);
        let text = table().text();
        assert!(
            text.lines().all(|line| line.chars().count() == text.lines().next().unwrap().chars().count()),
            "{text}"
        );
        assert!(text.contains("0.0100") && text.contains("1.000e-9"), "{text}");
    }

    #[test]
    fn a_chart_has_a_line_for_each_combination_of_the_rest() {
        let chart = table().chart(table().main_column().unwrap()).unwrap();
        let lines: Vec<_> = chart.series.iter().map(|s| (s.name.as_str(), s.points.as_slice())).collect();
        assert_eq!(lines, [("preset a,b", [(0.01, 3.5), (0.1, 2.0)].as_slice()), ("preset c", &[(0.1, 1e-9)])]);
        assert!(chart.x.log && chart.x.label == "lr" && chart.y.label == "loss");
        let said = table().chart("lr").unwrap_err().to_string();
        assert!(said.contains("loss, result.lr, nodes"), "{said}");
    }
}
