//! What steering gives, as tables, JSON and charts.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::{Effect, RankedChannel, StrengthSweep};
use crate::chart::{Axis, Chart, Series};
use crate::model::ranked;
use crate::report::{Cell, Column, Report, Table};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// What each channel of a circuit does alone, on training pairs of its task.
#[derive(Clone, Debug, Serialize)]
pub struct Ranking {
    /// How many prompts the effects are medians of.
    pub prompts: usize,
    /// The effect of no channel.
    pub before: Effect,
    /// The channels, the most effective one first.
    pub candidates: Vec<RankedChannel>,
}

/// Probabilities of the token after a prompt, by id.
#[derive(Clone)]
pub struct NextToken {
    /// What the change is multiplied by; 0 leaves the dense model alone, 1 is the whole change.
    pub strengths: Vec<f64>,
    /// At each strength.
    pub steered: Vec<Vec<f64>>,
    /// The same through random channels, for each draw.
    pub random: Vec<Vec<Vec<f64>>>,
    /// Names the tokens.
    pub tokenizer: Tokenizer,
}

/// What steering gives.
pub enum SteerResult {
    /// Of one prompt, steered by what `by` names.
    NextToken {
        /// The channels, or edits.
        by: String,
        /// The probabilities.
        next: Box<NextToken>,
    },
    /// Of pairs of a task.
    Task {
        /// The channels of the circuit, if there was one.
        ranking: Option<Ranking>,
        /// The channels that steered.
        by: String,
        /// How many held-out prompts the answers are of.
        prompts: usize,
        /// The answers to them.
        sweep: StrengthSweep,
    },
}

impl SteerResult {
    /// The result as text; `top` channels of a ranking, or tokens, are shown.
    pub fn report(&self, top: usize) -> Report {
        match self {
            Self::NextToken { by, next } => {
                let (shown, draws) = (next.shown(top), next.random.len());
                let report = Report::new()
                    .note(format!("next token of the dense model, steered by {by}"))
                    .table(next.wide(&shown, false));
                if draws == 0 {
                    return report;
                }
                report.note(format!("mean of {draws} draws of random channels")).table(next.wide(&shown, true))
            }
            Self::Task { ranking, by, prompts, sweep } => {
                let mut report = Report::new();
                if let Some(ranking) = ranking {
                    let note = format!("the circuit's channels, on {} prompts of its training split", ranking.prompts);
                    report = report.note(note).table(ranking.table(top));
                }
                let note = format!(
                    "the dense model on {prompts} held-out prompts, steered by {by}: median probabilities, with the \
                     95 % interval of the other answer's, and those of the other answer through {} random channels",
                    sweep.random.len()
                );
                report.note(note).table(sweep.table())
            }
        }
    }

    /// The result as JSON, an object a line.
    ///
    /// # Errors
    /// [`Error::Data`] for numbers that JSON cannot hold.
    pub fn json(&self, top: usize) -> Result<String> {
        let failed = |e: serde_json::Error| Error::Data(e.to_string());
        Ok(match self {
            Self::NextToken { next, .. } => next.json(top).to_string(),
            Self::Task { ranking: None, sweep, .. } => serde_json::to_string(sweep).map_err(failed)?,
            Self::Task { ranking: Some(ranking), sweep, .. } => {
                let lines =
                    [serde_json::to_string(ranking).map_err(failed)?, serde_json::to_string(sweep).map_err(failed)?];
                lines.join("\n")
            }
        })
    }

    /// Writes all numbers to a CSV file.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn save_csv(&self, top: usize, path: &Path) -> Result<()> {
        match self {
            Self::NextToken { next, .. } => next.long(top).save_csv(path),
            Self::Task { sweep, .. } => sweep.long().save_csv(path),
        }
    }

    /// Draws the probabilities over the strengths.
    ///
    /// # Errors
    /// Those of [`Table::chart`].
    pub fn chart(&self, top: usize) -> Result<Chart> {
        let axis = Axis::linear("probability");
        let (by, next) = match self {
            Self::NextToken { by, next } => (by, next),
            Self::Task { by, sweep, .. } => {
                let (title, series) = (format!("The dense model's answer, steered by {by}"), sweep.series());
                return Ok(Chart { title, x: Axis::linear("strength"), y: axis, series });
            }
        };
        let title = format!("The dense model's next token, steered by {by}");
        let table = next.wide(&next.shown(top), false);
        let names: Vec<String> = table.columns[1..].iter().map(|column| column.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut chart = table.chart(title, "strength", &names, axis)?;
        if !next.random.is_empty() {
            let random = next.wide(&next.shown(top), true).chart("", "strength", &names, chart.y.clone())?;
            // Under the steered lines, in the same colors, but pale.
            let faint = |series: Series| Series { name: series.name.clone() + ", random channels", ..series.faint() };
            chart.series = random.series.into_iter().map(faint).chain(chart.series).collect();
        }
        Ok(chart)
    }
}

impl Ranking {
    fn table(&self, top: usize) -> Table {
        let numbers = ["original answer", "other answer"].map(|name| Column::decimals(name, 4));
        let odds = Column::decimals("log_odds", 2).title("log odds of the other answer (mean)");
        let mut table = Table::new("ranking", [Column::text("steered by")].into_iter().chain(numbers).chain([odds]));
        let mut row = |name: String, e: &Effect| {
            table.push([name.into(), e.answer.into(), e.other.into(), e.log_odds.into()]);
        };
        row("nothing".into(), &self.before);
        self.candidates.iter().take(top.max(1)).for_each(|at| row(at.channel.to_string(), &at.effect));
        table
    }
}

/// The columns that tell steered numbers from those of random channels.
fn long_columns() -> [Column; 3] {
    [Column::text("kind"), Column::number("draw"), Column::number("strength")]
}

fn long_row(draw: usize, strength: f64) -> [Cell; 3] {
    [if draw == 0 { "steered" } else { "random" }.into(), draw.into(), strength.into()]
}

impl StrengthSweep {
    /// A row for each strength.
    fn table(&self) -> Table {
        let names = ["original answer", "other answer", "from", "to", "other, random channels: mean", "most"];
        let columns = names.map(|name| Column::decimals(name, 4));
        let mut table = Table::new("sweep", [Column::number("strength")].into_iter().chain(columns));
        for (at, (&strength, effect)) in self.strengths.iter().zip(&self.steered).enumerate() {
            let random: Vec<f64> = self.random.iter().map(|effects| effects[at].other).collect();
            let mean = random.iter().sum::<f64>() / random.len().max(1) as f64;
            let most = random.iter().copied().fold(0.0, f64::max);
            let [low, high] = effect.other_interval;
            table.push([strength, effect.answer, effect.other, low, high, mean, most].map(Cell::from));
        }
        table
    }

    /// Both answers, with what their numbers are uncertain by.
    fn series(&self) -> Vec<Series> {
        let over = |effects: &[Effect], of: fn(&Effect) -> f64| -> Vec<(f64, f64)> {
            self.strengths.iter().copied().zip(effects.iter().map(of)).collect()
        };
        let interval =
            |(&strength, effect): (&f64, &Effect)| (strength, effect.other_interval[0], effect.other_interval[1]);
        let band = self.strengths.iter().zip(&self.steered).map(interval).collect();
        let random: Vec<_> = self.random.iter().map(|effects| over(effects, |effect| effect.other)).collect();
        let name = format!("other answer, {} random channels, least to most", random.len());
        [
            Some(Series::line("original answer, median", 0, over(&self.steered, |effect| effect.answer))),
            (!random.is_empty()).then(|| Series::spread(name, 2, &random)),
            Some(Series::line("other answer, median, 95 % interval", 1, over(&self.steered, |e| e.other)).band(band)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// A row for each strength and draw.
    fn long(&self) -> Table {
        let answers = ["other", "own", "log_odds"].map(Column::number);
        let mut table = Table::new("sweep", long_columns().into_iter().chain(answers));
        for (draw, effects) in std::iter::once(&self.steered).chain(&self.random).enumerate() {
            for (&strength, e) in self.strengths.iter().zip(effects) {
                table.push(long_row(draw, strength).into_iter().chain([e.other, e.answer, e.log_odds].map(Cell::from)));
            }
        }
        table
    }
}

impl NextToken {
    /// The most probable tokens at the first and at the last strength.
    fn shown(&self, top: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = Vec::new();
        for p in [self.steered.first(), self.steered.last()].into_iter().flatten() {
            let new: Vec<u32> = ranked(p).into_iter().take(top).filter(|id| !ids.contains(id)).collect();
            ids.extend(new);
        }
        ids
    }

    /// A row for each strength and a column for each token: steered, or the mean over the draws of
    /// random channels.
    fn wide(&self, shown: &[u32], random: bool) -> Table {
        let columns = shown.iter().map(|&id| Column::decimals(self.tokenizer.show(id), 4));
        let mut table = Table::new("next", [Column::number("strength")].into_iter().chain(columns));
        for (at, &strength) in self.strengths.iter().enumerate() {
            let probability = |&id: &u32| -> Cell {
                let mean = self.random.iter().map(|draw| draw[at][id as usize]).sum::<f64>();
                let mean = mean / self.random.len().max(1) as f64;
                if random { mean.into() } else { self.steered[at][id as usize].into() }
            };
            table.push([strength.into()].into_iter().chain(shown.iter().map(probability)));
        }
        table
    }

    /// A row for each token, strength and draw.
    fn long(&self, top: usize) -> Table {
        let tokens = [Column::number("token"), Column::text("text"), Column::number("probability")];
        let mut table = Table::new("next", long_columns().into_iter().chain(tokens));
        for (draw, lists) in std::iter::once(&self.steered).chain(&self.random).enumerate() {
            for (&strength, p) in self.strengths.iter().zip(lists) {
                for &id in &self.shown(top) {
                    let text = self.tokenizer.token_text(id);
                    let cells = [u64::from(id).into(), text.into(), p[id as usize].into()];
                    table.push(long_row(draw, strength).into_iter().chain(cells));
                }
            }
        }
        table
    }

    fn json(&self, top: usize) -> serde_json::Value {
        let at = |lists: &[Vec<f64>], id: u32| lists.iter().map(|p| p[id as usize]).collect::<Vec<f64>>();
        let token = |&id: &u32| {
            let random: Vec<_> = self.random.iter().map(|draw| at(draw, id)).collect();
            let text = self.tokenizer.token_text(id);
            json!({ "token": id, "text": text, "steered": at(&self.steered, id), "random": random })
        };
        json!({ "strengths": self.strengths, "next": self.shown(top).iter().map(token).collect::<Vec<_>>() })
    }
}
