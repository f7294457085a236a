//! The mean activations that replace ablated nodes: measured over text, and kept next to the
//! circuits that were found with them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::Circuit;
use super::Layout;
use crate::files::{HostTensor, load_metadata, load_tensors, save_tensors};
use crate::model::{Batch, Model, NotFinite, Site, means};
use crate::observer::{Observer, Stage};
use crate::text::python;
use crate::text::sequences::sequences;
use crate::text::source::{Source, fingerprint};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The name of the file next to circuits.
pub const MEANS: &str = "means.safetensors";

/// Sequences that run at once.
const BATCH: usize = 8;

/// The mean activation of every channel that is a node, by site, over all positions of `sequences`,
/// which are equally long.
///
/// # Errors
/// Those of the forward pass, and [`Error::Stopped`].
pub fn mean_activations(
    model: &Model,
    sequences: &[Vec<u32>],
    observer: &Observer,
) -> Result<BTreeMap<Site, Vec<f32>>> {
    let batch = |(at, chunk): (usize, &[Vec<u32>])| {
        let (done, total) = ((at * BATCH) as u64, Some(sequences.len() as u64));
        observer.advance(&Stage { name: "measuring mean activations", done, total, unit: "sequences" })?;
        Batch::new(&model.device, &model.config, &chunk.concat(), chunk.len())
    };
    let batches = sequences.chunks(BATCH).enumerate().map(batch);
    let sites: Vec<Site> = Layout::with_final_resid(&model.config).blocks().iter().map(|block| block.site).collect();
    means(model, batches, &sites, true)
}

/// For every site with nodes the means of its channels over `tokens` tokens of the text in `data`,
/// or of generated Python if that names no files. They are kept in the file `kept`, and read from
/// it if it has those of the same model and text.
///
/// # Errors
/// Those of reading the text, of the forward pass, and of writing the file, and [`Error::Stopped`].
pub fn text_means(
    model: &Model,
    tokenizer: &Tokenizer,
    data: &Source,
    tokens: usize,
    kept: &Path,
    observer: &Observer,
) -> Result<BTreeMap<Site, Vec<f32>>> {
    // By the contents of the files: an edited file keeps its name.
    let text = match data.is_empty() {
        true => format!("generated Python, version {}", python::VERSION),
        false => fingerprint(&data.files()?, &data.text_field, observer)?,
    };
    let about = HashMap::from([
        ("model".to_string(), model.hash()?),
        ("data".to_string(), text),
        ("tokens".to_string(), tokens.to_string()),
    ]);
    let same = load_metadata(kept).is_ok_and(|found| about.iter().all(|(key, value)| found.get(key) == Some(value)));
    if same {
        return read(kept);
    }
    let means = measured_means(model, tokenizer, data, tokens, observer)?;
    let tensor = |data: &Vec<f32>| HostTensor { shape: vec![data.len()], data: data.clone() };
    let tensors = means.iter().map(|(site, mean)| (site.to_string(), tensor(mean))).collect();
    save_tensors(kept, &tensors, Some(about))?;
    Ok(means)
}

/// As [`text_means`], without a file.
///
/// # Errors
/// Those of reading the text and of the forward pass, and [`Error::Stopped`].
pub fn measured_means(
    model: &Model,
    tokenizer: &Tokenizer,
    data: &Source,
    tokens: usize,
    observer: &Observer,
) -> Result<BTreeMap<Site, Vec<f32>>> {
    let length = model.config.block_size;
    let sequences = match data.is_empty() {
        true => sequences(python::documents(0).map(Ok), tokenizer, length, tokens)?,
        false => {
            let mut documents = data.documents()?;
            let found = sequences(documents.by_ref(), tokenizer, length, tokens);
            let skipped = documents.skipped().listed();
            if !skipped.is_empty() {
                tracing::warn!("{skipped}");
            }
            found?
        }
    };
    mean_activations(model, &sequences, observer)
}

/// The mean activations that are kept in `folder`, if they are those of the model of that
/// [hash](Model::hash).
///
/// # Errors
/// [`Error::File`] and [`Error::Io`] naming the file, where it is damaged.
pub fn stored_means(folder: &Path, hash: &str) -> Result<Option<BTreeMap<Site, Vec<f32>>>> {
    let path = folder.join(MEANS);
    match load_metadata(&path).is_ok_and(|about| about.get("model").is_some_and(|found| found == hash)) {
        true => read(&path).map(Some),
        false => Ok(None),
    }
}

fn read(path: &Path) -> Result<BTreeMap<Site, Vec<f32>>> {
    let mut means = BTreeMap::new();
    for (site, tensor) in load_tensors(path)? {
        if let Some(found) = NotFinite::find(&site, &tensor.shape, &tensor.data) {
            return Err(Error::file(path, format!("{found}: remove the file, and the means are taken anew")));
        }
        let site = site.parse().map_err(|e: Error| Error::file(path, e.to_string()))?;
        means.insert(site, tensor.data);
    }
    Ok(means)
}

impl Circuit {
    /// Returns an error if these are not the mean activations that it was found with.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming a node whose mean is another one.
    pub fn check_means(&self, means: &BTreeMap<Site, Vec<f32>>) -> Result<()> {
        // Those of other programs do not say.
        if self.is_foreign() {
            return Ok(());
        }
        for entry in &self.nodes {
            let mean =
                means.get(&entry.node().site()).and_then(|means| means.get(entry.index)).map(|&mean| f64::from(mean));
            let near = |mean: f64| (mean - entry.mean).abs() <= 1e-3 * (1.0 + entry.mean.abs());
            if !mean.is_some_and(near) {
                let found = mean.map_or("none".into(), |mean| mean.to_string());
                return Err(Error::Mismatch(format!(
                    "the mean activations are not those that the circuit was found with: {} has {found}, not {}",
                    entry.node(),
                    entry.mean
                )));
            }
        }
        Ok(())
    }
}
