//! How well bridges work: the terms of the objective at every site, and what models predict that
//! continue across a bridge, compared with models that continue from the mean of their own stream.

use std::collections::BTreeMap;

use serde::Serialize;

use super::objective::{Batches, Objective};
use crate::chart::Axis;
use crate::device::{Device, Tensor};
use crate::model::{Batch, Model, Weights, first_not_finite, means};
use crate::observer::Stage;
use crate::ops::concat;
use crate::ops::kl::Support;
use crate::report::{Column, Report, Table};
use crate::tape::{Tape, Var};
use crate::train::bridge_loss::{Inputs, Target, Terms, cross_entropy};
use crate::{Error, Result};

/// Numbers by name.
pub type Numbers = BTreeMap<String, f64>;

/// The evaluation of one site.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SiteEvaluation {
    /// Its number: `2i` before attention `i`, `2i + 1` before MLP `i`.
    pub site: usize,
    /// Its name, such as `3.resid_mid`.
    pub name: String,
    /// The terms of its encoder and its decoder, such as `nmse_enc`.
    #[serde(flatten)]
    pub terms: Numbers,
    /// The sparse model continued from the encoded dense stream: the terms of the hybrid (`kl`),
    /// its cross-entropy (`loss`), and its divergence from the dense model if it continues from its
    /// own mean stream (`mean_kl`), in nats.
    pub d2s: Numbers,
    /// The same of the dense model continued from the decoded sparse stream.
    pub s2d: Numbers,
}

/// The evaluation of all sites, and of the models alone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BridgeEvaluation {
    /// Tokens it was measured on.
    pub tokens: u64,
    /// The dense model's mean cross-entropy, in nats.
    pub dense_loss: f64,
    /// The sparse model's mean cross-entropy, in nats.
    pub sparse_loss: f64,
    /// Mean divergence of the sparse model's predictions from the dense model's, in nats: the term
    /// `kl_sparse`.
    pub sparse_kl: f64,
    /// The terms that compare the models, such as `kl_sparse`.
    #[serde(flatten)]
    pub terms: Numbers,
    /// The sites, in order.
    pub sites: Vec<SiteEvaluation>,
}

/// What was measured, by name: one number, or one for each site. Names that end in `_d2s` and
/// `_s2d` are of hybrids.
type Measured = BTreeMap<String, Vec<f64>>;

/// Measures bridges on `sequences` of equal length, `batch_size` at a time. Normalised errors are
/// relative to the targets' variance within a batch, as in training.
///
/// # Errors
/// [`Error::Data`] without sequences, [`Error::NonFiniteSite`] where a number is not finite;
/// otherwise those of [`Objective::losses`].
pub fn evaluate(objective: &Objective, sequences: &[Vec<u32>], batch_size: usize) -> Result<BridgeEvaluation> {
    let length = sequences.first().map_or(0, Vec::len);
    let sequences: Vec<&[u32]> = sequences.iter().filter(|s| s.len() == length).map(Vec::as_slice).collect();
    if length < 2 {
        return Err(Error::Data("no sequences to measure the bridges on".into()));
    }
    let chunks = || sequences.chunks(batch_size.max(1));
    let dense_means = site_means(objective, objective.dense, chunks()).map_err(|e| e.in_model("dense"))?;
    let sparse_means = site_means(objective, objective.sparse, chunks()).map_err(|e| e.in_model("sparse"))?;
    let mut total = Measured::new();
    for (done, chunk) in chunks().enumerate() {
        let (done, of) = (done as u64, Some(chunks().len() as u64));
        objective.observer.advance(&Stage { name: "evaluating", done, total: of, unit: "batches" })?;
        let (tokens, means) = (chunk.concat(), (&dense_means[..], &sparse_means[..]));
        let measured = objective.measure(&tokens, chunk.len(), means, false)?;
        let named = measured.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, *value)));
        if let Some((name, value)) = named.into_iter().find(|(_, value)| !value.is_finite()) {
            objective.measure(&tokens, chunk.len(), means, true)?;
            return Err(objective.sparse.not_finite(name.clone(), value as f32, None));
        }
        let weight = chunk.len() as f64 / sequences.len() as f64;
        for (name, values) in measured {
            let sums = total.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    let mut whole = |name: &str| total.remove(name).into_iter().flatten().sum();
    let (dense_loss, sparse_loss) = (whole("dense_loss"), whole("sparse_loss"));
    let models = Terms::<f64>::default();
    let terms: Numbers = models.of_models().map(|(name, _)| (name.to_string(), whole(name))).collect();
    let sparse_kl = terms.get("kl_sparse").copied().unwrap_or_default();
    let site = |site: usize| {
        let (mut terms, mut d2s, mut s2d) = (Numbers::new(), Numbers::new(), Numbers::new());
        for (name, values) in &total {
            match (name.strip_suffix("_d2s"), name.strip_suffix("_s2d")) {
                (Some(name), _) => d2s.insert(name.into(), values[site]),
                (_, Some(name)) => s2d.insert(name.into(), values[site]),
                _ => terms.insert(name.clone(), values[site]),
            };
        }
        SiteEvaluation { site, name: objective.sparse.config.residual_site(site).to_string(), terms, d2s, s2d }
    };
    let sites = (0..dense_means.len()).map(site).collect();
    let tokens = (sequences.len() * length) as u64;
    Ok(BridgeEvaluation { tokens, dense_loss, sparse_loss, sparse_kl, terms, sites })
}

impl BridgeEvaluation {
    /// The evaluation as text, JSON and a table of the sites.
    ///
    /// # Errors
    /// Those of [`Report::of`].
    pub fn report(&self) -> Result<Report> {
        let note = format!(
            "over {} tokens, in nats a token\ndense model   loss {:.3}\nsparse model  loss {:.3}, {:.3} from the dense one",
            self.tokens, self.dense_loss, self.sparse_loss, self.sparse_kl
        );
        Ok(Report::of(self)?.note(note).table(self.table()))
    }

    /// A row for each site.
    pub(crate) fn table(&self) -> Table {
        let first = self.sites.first();
        let numbers = |numbers: Option<&Numbers>, end: &str| -> Vec<Column> {
            let names = numbers.into_iter().flat_map(BTreeMap::keys);
            names.map(|name| Column::decimals(format!("{name}{end}"), 3)).collect()
        };
        let mut columns = vec![Column::number("number"), Column::text("site")];
        columns.extend(numbers(first.map(|site| &site.terms), ""));
        columns.extend(numbers(first.map(|site| &site.d2s), "_d2s"));
        columns.extend(numbers(first.map(|site| &site.s2d), "_s2d"));
        columns.push(Column::decimals("sparse_kl", 3));
        let mut table = Table::new("sites", columns);
        for at in &self.sites {
            let values = at.terms.values().chain(at.d2s.values()).chain(at.s2d.values()).chain([&self.sparse_kl]);
            table.push([at.site.into(), at.name.clone().into()].into_iter().chain(values.map(|&v| v.into())));
        }
        table
    }

    /// A chart of the hybrids' divergences at each site, next to those without a bridge.
    ///
    /// # Errors
    /// Those of [`Table::chart`].
    pub fn chart(&self) -> Result<crate::chart::Chart> {
        let title = "Divergence from the dense model, continued across a bridge";
        let series = [
            ("kl_d2s", "dense, then sparse"),
            ("kl_s2d", "sparse, then dense"),
            ("mean_kl_d2s", "sparse, from its mean"),
            ("mean_kl_s2d", "dense, from its mean"),
            ("sparse_kl", "the sparse model"),
        ];
        let axis = Axis::log("KL divergence (nats per token)");
        let mut chart = self.table().chart(title, "site", &series.map(|(column, _)| column), axis)?;
        chart.series.iter_mut().zip(series).for_each(|(series, (_, name))| series.name = name.into());
        Ok(chart)
    }
}

impl Objective<'_> {
    /// The measurements of one batch; means are those of the dense and of the sparse stream. If it
    /// is checked, it ends at the first site that is not finite.
    fn measure(
        &self,
        tokens: &[u32],
        sequences: usize,
        means: (&[Vec<f32>], &[Vec<f32>]),
        checked: bool,
    ) -> Result<Measured> {
        let batches = Batches { checked, ..self.batches(tokens, sequences)? };
        let (dense, batch) = (self.run_dense(&batches)?, &batches.sparse);
        let (mut tape, maps, mut terms) = (Tape::new(), self.bridges.constants(), Terms::default());
        let weights = Weights::constant(self.sparse, self.compressed);
        let sparse = self.run_sparse(&mut tape, &weights, &batches)?;
        let encoded = self.encode(&mut tape, &maps, &dense.sites)?;
        let decoded = self.decode(&mut tape, &maps, &sparse.sites)?;
        terms.compute(&mut tape, batch, &Inputs::Encoder { streams: &encoded, targets: &sparse.sites })?;
        terms.compute(&mut tape, batch, &Inputs::Decoder { streams: &decoded, targets: &dense.sites })?;
        if checked {
            self.check_streams("encoder", &encoded)?;
            self.check_streams("decoder", &decoded)?;
        }
        let target = &Target { logits: dense.logits.value().clone(), support: Support::All };
        terms.compute(&mut tape, batch, &Inputs::Models { logits: &sparse.logits, target })?;
        let from_means = |means: &[Vec<f32>]| streams(&self.sparse.device, means, batch.shape());
        let d2s = self.continue_sparse(&mut tape, &weights, &batches, encoded)?;
        terms.compute(&mut tape, batch, &Inputs::SparseHybrid { logits: &d2s, target })?;
        let d2s_mean = self.continue_sparse(&mut tape, &weights, &batches, from_means(means.1)?)?;
        let s2d = self.continue_dense(&mut tape, &batches, decoded)?;
        terms.compute(&mut tape, batch, &Inputs::DenseHybrid { logits: &s2d, target })?;
        let s2d_mean = self.continue_dense(&mut tape, &batches, from_means(means.0)?)?;

        let numbers = |var: Var| Ok::<_, Error>(var.value().read()?.into_iter().map(f64::from).collect::<Vec<f64>>());
        let loss = |logits: &Tensor| numbers(cross_entropy(&mut Tape::new(), &Var::constant(logits.clone()), batch)?);
        let kl = |logits: &Var| numbers(Tape::new().kl(logits, &target.logits, target.support)?);
        let losses = |logits: &Var| {
            let site = |site| loss(&concat::narrow(logits.value(), 0, site * sequences, sequences)?);
            Ok::<_, Error>((0..dense.sites.len()).map(site).collect::<Result<Vec<_>>>()?.concat())
        };
        let terms = terms.values().read()?;
        let named = terms.of_models().chain(terms.by_site());
        let mut measured: Measured = named.map(|(name, values)| (name.to_string(), values.to_vec())).collect();
        measured.extend([
            ("dense_loss".into(), loss(&target.logits)?),
            ("sparse_loss".into(), loss(sparse.logits.value())?),
            ("loss_d2s".into(), losses(&d2s)?),
            ("mean_kl_d2s".into(), kl(&d2s_mean)?),
            ("loss_s2d".into(), losses(&s2d)?),
            ("mean_kl_s2d".into(), kl(&s2d_mean)?),
        ]);
        Ok(measured)
    }

    fn check_streams(&self, map: &str, streams: &[Var]) -> Result<()> {
        for (site, stream) in streams.iter().enumerate() {
            if let Some((_, value)) = first_not_finite(&stream.value().read()?) {
                return Err(self.sparse.not_finite(format!("what the {map} gives at site {site}"), value, None));
            }
        }
        Ok(())
    }
}

/// Streams `(B, T, d_model)` that are the site's mean everywhere.
fn streams(device: &Device, means: &[Vec<f32>], (sequences, length): (usize, usize)) -> Result<Vec<Var>> {
    let stream = |mean: &Vec<f32>| {
        let shape = [sequences, length, mean.len()];
        Ok(Var::constant(device.upload("mean stream", &shape, &mean.repeat(sequences * length))?))
    };
    means.iter().map(stream).collect()
}

/// The mean of the residual stream over all tokens, at every site.
fn site_means<'a>(
    objective: &Objective,
    model: &Model,
    chunks: impl Iterator<Item = &'a [&'a [u32]]>,
) -> Result<Vec<Vec<f32>>> {
    let batches = chunks.map(|chunk| {
        objective.observer.check()?;
        Batch::new(&model.device, &model.config, &chunk.concat(), chunk.len())
    });
    let sites: Vec<_> = (0..model.config.residual_sites()).map(|site| model.config.residual_site(site)).collect();
    let mut means = means(model, batches, &sites, true)?;
    let sites = sites.iter().map(|site| means.remove(site));
    let sites = sites.collect::<Option<Vec<_>>>();
    sites.ok_or_else(|| Error::shape("bridges", "a site was not visited"))
}
