use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::TokenSource;
use crate::Result;
use crate::files::{HostIds, HostTensor, save_arrays};
use crate::formats::Pretrained;
use crate::model::{Batch, NotFinite, Pass, Recorder, Site, Weights, means};
use crate::observer::{Observer, Stage};
use crate::report::Report;
use crate::tape::Tape;

/// What to record.
#[derive(Clone, Copy, Debug)]
pub struct RecordRequest<'a> {
    /// What the model is run on.
    pub tokens: TokenSource<'a>,
    /// A regular expression over the names of sites.
    pub sites: &'a str,
    /// Whether to record the mean of every channel over all positions instead of the values.
    pub mean: bool,
}

/// Recorded activations: `tokens` `(B, T)`, `logits` and sites, or means and the model's hash.
#[derive(Debug)]
pub struct Recording {
    sites: usize,
    /// By site, `(B, T, width)`, or `(width)` for means; and `logits` `(B, T, V)`, except with means.
    floats: BTreeMap<String, HostTensor>,
    ids: BTreeMap<String, HostIds>,
    metadata: Option<HashMap<String, String>>,
    /// In the order of the forward pass.
    not_finite: Vec<NotFinite>,
}

/// Records logits and activations, or the means of activations.
///
/// # Errors
/// Returns [`crate::Error::Unknown`] if no site matches, [`crate::Error::Config`] if `sites` is no
/// regular expression, and the errors of reading the tokens and of the forward pass.
pub fn record(model: &Pretrained, request: &RecordRequest, observer: &Observer) -> Result<Recording> {
    let sites = model.model.config.sites_matching(request.sites)?;
    let sequences = request.tokens.sequences(model)?;
    let (floats, ids) = if request.mean {
        (record_means(model, &sequences, &sites, observer)?, BTreeMap::new())
    } else {
        record_values(model, &sequences, &sites)?
    };
    // Means are used later: only with the model that they are of.
    let metadata = request.mean.then(|| Ok(HashMap::from([("model".to_string(), model.model.hash()?)]))).transpose()?;
    let names: Vec<String> = sites.iter().map(Site::to_string).collect();
    let of = |site: &str| floats.get(site).and_then(|tensor| NotFinite::find(site, &tensor.shape, &tensor.data));
    let not_finite = names.iter().map(String::as_str).chain(["logits"]).filter_map(of).collect();
    Ok(Recording { sites: sites.len(), floats, ids, metadata, not_finite })
}

fn record_means(
    Pretrained { model, .. }: &Pretrained,
    sequences: &[Vec<u32>],
    sites: &[Site],
    observer: &Observer,
) -> Result<BTreeMap<String, HostTensor>> {
    let batches = sequences.iter().enumerate().map(|(done, sequence)| {
        let total = Some(sequences.len() as u64);
        observer.advance(&Stage { name: "recording", done: done as u64, total, unit: "sequences" })?;
        Batch::new(&model.device, &model.config, sequence, 1)
    });
    let means = means(model, batches, sites, false)?;
    let tensor = |data: Vec<f32>| HostTensor { shape: vec![data.len()], data };
    Ok(means.into_iter().map(|(site, mean)| (site.to_string(), tensor(mean))).collect())
}

fn record_values(
    Pretrained { model, .. }: &Pretrained,
    sequences: &[Vec<u32>],
    sites: &[Site],
) -> Result<(BTreeMap<String, HostTensor>, BTreeMap<String, HostIds>)> {
    let tokens = sequences.concat();
    let batch = Batch::new(&model.device, &model.config, &tokens, sequences.len())?;
    let mut recorder = Recorder::of(sites.iter().copied());
    let weights = Weights::constant(model, &[]);
    let logits = Pass::new(model, &weights, &batch, &mut Tape::new(), &mut recorder).unchecked().logits()?;
    let mut floats = BTreeMap::new();
    let recorded = recorder.values.into_iter().map(|(site, var)| (site.to_string(), var));
    for (name, var) in recorded.chain([("logits".to_string(), logits)]) {
        floats.insert(name, HostTensor { shape: var.value().shape().to_vec(), data: var.value().read()? });
    }
    let ids = HostIds { shape: vec![sequences.len(), tokens.len() / sequences.len()], data: tokens };
    Ok((floats, BTreeMap::from([("tokens".to_string(), ids)])))
}

impl Recording {
    /// Writes a safetensors file.
    ///
    /// # Errors
    /// Returns [`crate::Error::Io`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_arrays(path, &self.floats, &self.ids, self.metadata.clone())
    }

    /// What was recorded in `path`, and which tensors are not finite.
    pub fn report(&self, path: &Path) -> Report {
        let report = Report::new().note(format!("{} sites in {}", self.sites, path.display()));
        let Some(first) = self.not_finite.first() else { return report };
        let (count, of) = (self.not_finite.len(), self.floats.len());
        let heading = format!("not finite: {count} of {of} tensors, the first of them {}", first.name);
        let lines = self.not_finite.iter().map(|found| format!("\n  {found}"));
        report.paragraph(format!("{heading}{}", lines.collect::<String>()))
    }
}
