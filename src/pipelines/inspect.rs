use serde::Serialize;

use crate::Result;
use crate::circuits::labels::count;
use crate::device::Device;
use crate::formats::ModelFiles;
use crate::model::{self, Element, LayerReport, ModelConfig, WeightFormat};
use crate::report::{Cell, Column, Report, Table};
use crate::train::memory::human_bytes;

/// Channels that a list shows at most.
const SHOWN: usize = 12;

/// What a model is made of.
#[derive(Debug, Serialize)]
pub struct Inspection<'a> {
    config: &'a ModelConfig,
    tokenizer_vocab_size: Option<usize>,
    report: model::WeightReport,
    /// What the model takes on a device, if it was loaded onto one.
    device: Option<String>,
    #[serde(skip)]
    files: &'a ModelFiles,
}

/// Reads all parameters of a model, and loads it onto the device named, if one is. Lists the
/// `largest` entries of each.
///
/// # Errors
/// Returns the errors of reading, and those of the device.
pub fn inspect<'a>(
    files: &'a ModelFiles,
    tokenizer_vocab_size: Option<usize>,
    largest: usize,
    device: Option<&str>,
) -> Result<Inspection<'a>> {
    let memory = |name: &str| {
        let device = Device::open(name)?;
        let _model = files.load(WeightFormat::Sparse, &device)?;
        Result::Ok(format!("{} on {}", human_bytes(device.allocated()), device.describe()))
    };
    let device = device.map(memory).transpose()?;
    let report = model::inspect(&files.config, files.weights.as_ref(), largest)?;
    Ok(Inspection { config: &files.config, tokenizer_vocab_size, report, device, files })
}

impl Inspection<'_> {
    /// Describes the model.
    ///
    /// # Errors
    /// Returns an error if a number has no JSON form.
    pub fn report(&self) -> Result<Report> {
        let c = self.config;
        let norm = if c.rms_norm { "RMSNorm" } else { "LayerNorm" };
        let sparse = c.afrac.map_or("no AbsTopK".into(), |f| format!("AbsTopK {f} at {}", c.afrac_loctypes.0));
        let mut report = Report::of(self)?
            .note(shape(c))
            .note(format!("{norm}, {}, {sparse}", c.activation_type.name()))
            .note(format!("tokenizer: {}", self.tokenizer()));
        let untied = self.files.check_tied().err().map(|error| error.to_string());
        for note in self.device.clone().into_iter().chain(untied) {
            report = report.note(note);
        }
        let tensors = &self.report.tensors;
        report = report.table(self.tensors());
        let broken: Vec<_> = tensors.iter().filter(|t| t.not_finite > 0).map(|t| t.name.as_str()).collect();
        if !broken.is_empty() {
            report = report
                .paragraph(format!("not finite, so that no answer of this model is right: {}", broken.join(", ")));
        }
        Ok(report.paragraph(self.totals()).paragraph(self.dead_ends()))
    }

    fn tokenizer(&self) -> String {
        let model = self.config.vocab_size;
        match self.tokenizer_vocab_size {
            None => "none with the model".into(),
            Some(n) if n == model => format!("{n} entries, as the model"),
            Some(n) if n < model => format!("{n} entries; the model has {} more, which it never reads", model - n),
            Some(n) => format!("{n} entries, {} more than the model: it is not this model's", n - model),
        }
    }

    fn tensors(&self) -> Table {
        let columns = [
            Column::text("parameter"),
            Column::number("shape"),
            Column::number("nonzeros"),
            Column::decimals("density", 5),
            Column::decimals("rms", 4),
            Column::text("largest"),
        ];
        let mut table = Table::new("tensors", columns);
        for t in &self.report.tensors {
            let largest: Vec<_> =
                t.largest.iter().map(|e| format!("{:+.3} [{}]", e.value, join(&e.index, ","))).collect();
            let mut largest = largest.join("  ");
            if let Some(Element { index, value }) = &t.first_not_finite {
                let index = join(index, ",");
                largest =
                    format!("not finite: {} entries, the first of them {value} [{index}]  {largest}", t.not_finite);
            }
            let numbers = [t.density, t.rms].map(Cell::Number);
            let texts = [t.name.as_str().into(), join(&t.shape, "×").into(), t.nonzeros.into()];
            table.push(texts.into_iter().chain(numbers).chain([largest.into()]));
        }
        table
    }

    fn totals(&self) -> String {
        let r = &self.report;
        format!(
            "{} of {} matrix weights are not zero (1 in {:.1}); {} of {} parameters in all",
            r.matrix_nonzeros,
            r.matrix_parameters,
            r.matrix_parameters as f64 / r.matrix_nonzeros.max(1) as f64,
            r.nonzeros,
            r.parameters
        )
    }

    fn dead_ends(&self) -> String {
        let layer = |(i, layer): (usize, &LayerReport)| {
            let lists = [
                ("neurons without input", &layer.neurons_without_input),
                ("neurons without output", &layer.neurons_without_output),
                ("query-key channels", &layer.dead_query_key_channels),
                ("value channels", &layer.dead_value_channels),
            ];
            lists.map(|(name, channels)| format!("\n  layer {i}: {name} {}", list(channels))).concat()
        };
        let layers: String = self.report.layers.iter().enumerate().map(layer).collect();
        let [unwritten, unread] = [&self.report.unwritten_channels, &self.report.unread_channels].map(|c| list(c));
        format!(
            "dead ends{layers}\n  residual stream: never written {unwritten}\n  residual stream: never read {unread}"
        )
    }
}

/// A model's sizes, in a line.
pub(super) fn shape(c: &ModelConfig) -> String {
    format!(
        "{}, d_model {}, {} of {}, d_mlp {}, vocabulary {}, block_size {}",
        count(c.n_layer, "layer"),
        c.d_model,
        count(c.n_head, "head"),
        c.head_width(),
        c.mlp_width(),
        c.vocab_size,
        c.block_size
    )
}

/// How many channels there are, and the first few.
fn list(channels: &[usize]) -> String {
    let more = if channels.len() > SHOWN { " …" } else { "" };
    let first = &channels[..channels.len().min(SHOWN)];
    if channels.is_empty() { "0".into() } else { format!("{} ({}{more})", channels.len(), join(first, " ")) }
}

fn join(numbers: &[usize], separator: &str) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}
