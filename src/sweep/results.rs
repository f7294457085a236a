use std::collections::{BTreeMap, BTreeSet};

use crate::chart::{Axis, Chart, Series};
use crate::report::{Cell, Column, Table};
use crate::train::metrics::label;
use crate::{Error, Result};

/// A legend has at most this many lines.
const LEGEND: usize = 24;

/// The results of a sweep: a table whose first columns are the values tried.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Results {
    /// The number of columns with values that were tried.
    pub(super) inputs: usize,
    /// A row for each job, or for each circuit of a job.
    pub(super) table: Table,
}

/// A row of [`Results`], by the names of the columns.
#[derive(Clone, Debug, Default)]
pub(super) struct ResultRow {
    pub inputs: BTreeMap<String, Cell>,
    pub outputs: BTreeMap<String, Cell>,
}

/// The value of a setting: a number if `text` is one.
pub(super) fn value(text: &str) -> Cell {
    text.parse().ok().filter(|number: &f64| number.is_finite()).map_or_else(|| text.into(), Cell::Number)
}

impl Results {
    /// Columns are in the order of their names. An output with the name of an input is called
    /// `result.NAME`.
    pub(super) fn new(rows: &[ResultRow]) -> Self {
        let inputs: BTreeSet<&String> = rows.iter().flat_map(|row| row.inputs.keys()).collect();
        let outputs: BTreeSet<&String> = rows.iter().flat_map(|row| row.outputs.keys()).collect();
        let unique = |name: &&String| if inputs.contains(*name) { format!("result.{name}") } else { name.to_string() };
        let names = inputs.iter().map(ToString::to_string).chain(outputs.iter().map(unique));
        let mut table = Table::new("results", names.map(Column::number));
        for row in rows {
            let cells = |names: &BTreeSet<&String>, cells: &BTreeMap<String, Cell>| -> Vec<Cell> {
                names.iter().map(|name| cells.get(*name).cloned().unwrap_or_default()).collect()
            };
            table.push([cells(&inputs, &row.inputs), cells(&outputs, &row.outputs)].concat());
        }
        Self { inputs: inputs.len(), table }
    }

    /// The column to draw unless another is named: a loss, a size, or the first one with numbers.
    pub(super) fn main_column(&self) -> Option<&str> {
        let has_numbers = |&at: &usize| self.table.rows().iter().any(|row| row[at].number().is_some());
        let names =
            (self.inputs..self.table.columns.len()).filter(has_numbers).map(|at| self.table.columns[at].name.as_str());
        let all: Vec<_> = names.collect();
        let preferred = ["validation_loss", "loss", "edges"].into_iter().find(|name| all.contains(name));
        preferred.or(all.first().copied())
    }

    /// A chart of the output `name` over the numeric input with most values, one line for each
    /// combination of the other inputs: the mean over seeds, and the least and most of them.
    pub(super) fn chart(&self, name: &str) -> Result<Chart> {
        let y = self.output(name)?;
        let number = |at: usize| Some((at, self.values(at)?));
        let x = (0..self.inputs).rev().filter(|&at| !self.is_seed(at)).filter_map(number);
        // A sweep of seeds alone is drawn over them.
        let x = x.max_by_key(|(_, values)| values.len()).or_else(|| (0..self.inputs).find_map(number));
        let x_column = x.as_ref().map(|(at, _)| *at);
        // Of each line, the points of each seed.
        let mut lines: BTreeMap<String, BTreeMap<String, Vec<(f64, f64)>>> = BTreeMap::new();
        for (at, row) in self.table.rows().iter().enumerate() {
            let x = x_column.map_or(Some(at as f64), |column| row[column].number());
            if let Some(point) = x.zip(row[y].number()) {
                let seeds: Vec<_> = (0..self.inputs).filter(|&at| Some(at) != x_column && self.is_seed(at)).collect();
                let seed = seeds.iter().map(|&at| row[at].to_string()).collect::<Vec<_>>().join(",");
                let line = lines.entry(self.line_name(row, x_column)).or_default();
                line.entry(seed).or_default().push(point);
            }
        }
        let named = lines.len() <= LEGEND;
        let series = lines.into_iter().enumerate().map(|(style, (name, seeds))| {
            let mut seeds: Vec<_> = seeds.into_values().collect();
            seeds.iter_mut().for_each(|points| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
            let mean = (seeds.len() > 1).then(|| mean_of(&seeds));
            let name = [Some(name).filter(|name| !name.is_empty()), mean].into_iter().flatten().collect::<Vec<_>>();
            let name = if named { name.join("; ") } else { String::new() };
            match x {
                Some(_) => Series::spread(name, style, &seeds),
                None => Series::dots(name, style, seeds.concat()),
            }
        });
        // Values that span a factor were tried in steps of a factor.
        let log = x.as_ref().is_some_and(|(_, all)| all[0] > 0.0 && all[all.len() - 1] / all[0] >= 8.0);
        let x_label = x_column.map_or("job".into(), |at| self.table.columns[at].name.clone());
        Ok(Chart {
            title: name.into(),
            x: Axis { log, ..Axis::linear(x_label) },
            y: Axis::linear(label(name)),
            series: series.collect(),
        })
    }

    fn output(&self, name: &str) -> Result<usize> {
        let outputs = &self.table.columns[self.inputs..];
        let known = || outputs.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let at = outputs.iter().position(|column| column.name == name);
        at.map(|at| at + self.inputs).ok_or_else(|| Error::Unknown {
            kind: "column",
            name: name.into(),
            known: known(),
        })
    }

    /// The different numbers of a column in rising order, if it has only numbers and at least two.
    fn values(&self, column: usize) -> Option<Vec<f64>> {
        let mut all = self.table.rows().iter().map(|row| row[column].number()).collect::<Option<Vec<_>>>()?;
        all.sort_by(f64::total_cmp);
        all.dedup();
        (all.len() > 1).then_some(all)
    }

    fn is_seed(&self, column: usize) -> bool {
        let name = self.table.columns[column].name.as_str();
        name == "seed" || name.ends_with(".seed")
    }

    /// The inputs of a row that vary, except seeds and the one on the x axis.
    fn line_name(&self, row: &[Cell], x: Option<usize>) -> String {
        let varies = |&at: &usize| self.table.rows().iter().any(|other| other[at] != self.table.rows()[0][at]);
        let others = (0..self.inputs).filter(|&at| Some(at) != x && !self.is_seed(at) && row[at] != Cell::Empty);
        let others = others.filter(varies);
        others.map(|at| format!("{} {}", self.table.columns[at].name, row[at])).collect::<Vec<_>>().join(", ")
    }
}

/// What the legend says of the mean of these seeds' points.
fn mean_of(seeds: &[Vec<(f64, f64)>]) -> String {
    let xs = || seeds.iter().flatten().map(|point| point.0);
    let counts = || xs().map(|x| xs().filter(|other| *other == x).count());
    match (counts().min().unwrap_or(0), counts().max().unwrap_or(0)) {
        (few, many) if few < many => format!("mean of {few} to {many} seeds, least to most"),
        (_, many) => format!("mean of {many} seeds, least to most"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let row = |inputs: &[(&str, &str)], outputs: &[(&str, f64)]| ResultRow {
            inputs: inputs.iter().map(|(name, text)| (name.to_string(), value(text))).collect(),
            outputs: outputs.iter().map(|(name, number)| (name.to_string(), Cell::Number(*number))).collect(),
        };
        Results::new(&[
            row(&[("lr", "0.1"), ("preset", "a,b")], &[("loss", 2.0), ("lr", 0.0)]),
            row(&[("lr", "0.01"), ("preset", "a,b")], &[("loss", 3.5)]),
            row(&[("lr", "0.1"), ("preset", "c")], &[("loss", 1e-9), ("nodes", 4.0)]),
        ])
    }

    #[test]
    fn a_table_keeps_every_cell_in_its_column() {
        let want = "lr,preset,loss,result.lr,nodes\n0.1,\"a,b\",2,0,\n0.01,\"a,b\",3.5,,\n0.1,c,0.000000001,,4\n";
        assert_eq!(results().table.csv(), want);
        let text = results().table.text();
        assert!(text.contains("0.0100") && text.contains("1.000e-9"), "{text}");
    }

    #[test]
    fn seeds_are_one_line_with_their_spread() {
        let row = |lr: &str, seed: &str, loss: f64| {
            let inputs = [("lr", lr), ("run.seed", seed)].map(|(name, text)| (name.to_string(), value(text)));
            ResultRow { inputs: inputs.into(), outputs: [("loss".to_string(), Cell::Number(loss))].into() }
        };
        let rows = [row("1", "0", 2.0), row("1", "1", 4.0), row("1", "2", 9.0), row("2", "0", 1.0), row("2", "1", 2.0)];
        let chart = Results::new(&rows).chart("loss").unwrap();
        let [line] = &chart.series[..] else { panic!("one line: {:?}", chart.series) };
        assert_eq!(line.name, "mean of 2 to 3 seeds, least to most");
        assert_eq!(line.points, [(1.0, 5.0), (2.0, 1.5)]);
        assert_eq!(line.band, [(1.0, 2.0, 9.0), (2.0, 1.0, 2.0)]);
        // A sweep of seeds alone is drawn over them.
        let chart = Results::new(&rows[..3]).chart("loss").unwrap();
        assert_eq!(chart.series[0].points, [(0.0, 2.0), (1.0, 4.0), (2.0, 9.0)]);
    }

    #[test]
    fn a_chart_has_a_line_for_each_combination_of_the_other_inputs() {
        let chart = results().chart(results().main_column().unwrap()).unwrap();
        let lines: Vec<_> = chart.series.iter().map(|s| (s.name.as_str(), s.points.as_slice())).collect();
        assert_eq!(lines, [("preset a,b", [(0.01, 3.5), (0.1, 2.0)].as_slice()), ("preset c", &[(0.1, 1e-9)])]);
        assert!(chart.x.log && chart.x.label == "lr" && chart.y.label == "loss (nats per token)");
        let message = results().chart("lr").unwrap_err().to_string();
        assert!(message.contains("loss, result.lr, nodes"), "{message}");
    }
}
