//! The mean activations that stand in for channels which a circuit does not keep.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::Result;
use crate::files::{HostTensor, load_metadata, load_tensors, save_tensors};
use crate::model::{Batch, Model, means, site_pattern};
use crate::text::corpus::Source;
use crate::text::python;
use crate::text::sequences::sequences;
use crate::text::tokenizer::Tokenizer;

/// For every site with nodes the means of its channels over `tokens` tokens of the text in `data`, or of generated Python if that names no
/// files. They are kept in the file `kept`, and read from it if it has those of the same model and text.
///
/// # Errors
/// Those of reading the text, of the forward pass, and of writing the file.
pub fn text_means(
    model: &Model,
    tokenizer: &Tokenizer,
    data: &[PathBuf],
    tokens: usize,
    kept: &Path,
) -> Result<BTreeMap<String, Vec<f32>>> {
    let names: Vec<_> = data.iter().map(|path| path.display().to_string()).collect();
    let generated = format!("generated Python, version {}", python::VERSION);
    let about = HashMap::from([
        ("model".to_string(), model.hash()?),
        ("data".to_string(), if names.is_empty() { generated } else { names.join(" ") }),
        ("tokens".to_string(), tokens.to_string()),
    ]);
    let same = load_metadata(kept).is_ok_and(|found| about.iter().all(|(key, value)| found.get(key) == Some(value)));
    if same {
        return Ok(load_tensors(kept)?.into_iter().map(|(site, tensor)| (site, tensor.data)).collect());
    }
    let means = measured(model, tokenizer, data, tokens)?;
    let tensor = |data: &Vec<f32>| HostTensor { shape: vec![data.len()], data: data.clone() };
    let tensors = means.iter().map(|(site, mean)| (site.clone(), tensor(mean))).collect();
    save_tensors(kept, &tensors, Some(about))?;
    Ok(means)
}

/// As [`text_means`], without a file.
pub(super) fn measured(
    model: &Model,
    tokenizer: &Tokenizer,
    data: &[PathBuf],
    tokens: usize,
) -> Result<BTreeMap<String, Vec<f32>>> {
    let length = model.config.block_size;
    let sequences = match data.is_empty() {
        true => sequences(python::documents(0).map(Ok), tokenizer, length, tokens)?,
        false => sequences(Source::new(data).documents()?, tokenizer, length, tokens)?,
    };
    let batches =
        sequences.chunks(8).map(|chunk| Batch::new(&model.device, &model.config, &chunk.concat(), chunk.len()));
    means(model, batches, &site_pattern(r"\.(act_in|q|k|v|resid_delta|post_act)$")?)
}
