//! Packs the example that gossamer comes with; `scripts/example` calls it twice.
//!
//! `pack_example models RUN DENSE FOLDER` writes the sparse model of a run of `train bridges` to
//! FOLDER in half precision, with the dense model, which is in half precision already, and the
//! bridges. `pack_example archive FOLDER FILE` packs FOLDER with the circuits that were found in it
//! since.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use gossamer::bridges::BridgeFile;
use gossamer::circuits::Statistics;
use gossamer::device::Device;
use gossamer::files::{FloatType, HostTensor, load_tensors, save_tensors, write_atomic};
use gossamer::formats::{ConvertFormat, ConvertOptions, ModelFiles, convert};
use gossamer::model::WeightFormat;
use gossamer::{Error, Result};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let paths: Vec<&Path> = arguments.iter().skip(1).map(Path::new).collect();
    match (arguments.first().map(String::as_str), &paths[..]) {
        (Some("models"), &[run, dense, folder]) => models(run, dense, folder),
        (Some("archive"), &[folder, file]) => archive(folder, file),
        _ => Err(Error::Request("pack_example models RUN DENSE FOLDER, or pack_example archive FOLDER FILE".into())),
    }
}

fn models(run: &Path, dense: &Path, folder: &Path) -> Result<()> {
    let files = ModelFiles::open(run)?;
    let checkpoint = files.weights_path.parent().unwrap_or(run).to_path_buf();
    let options = ConvertOptions { to: ConvertFormat::HuggingFace, float: Some(FloatType::F16), force: true };
    convert(&files, folder, options)?;
    let dense_folder = folder.join("dense");
    fs::create_dir_all(&dense_folder).map_err(|e| Error::io(&dense_folder, e))?;
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let to = dense_folder.join(name);
        fs::copy(dense.join(name), &to).map_err(|e| Error::io(&to, e))?;
    }
    let hash = |path: &Path| ModelFiles::open(path)?.load(WeightFormat::Sparse, &Device::cpu())?.hash();
    let mut about = BridgeFile::load(&checkpoint)?;
    about.dense.path = "dense".into();
    about.dense.hash = hash(&dense_folder)?;
    about.sparse.hash = hash(folder)?;
    let mut tensors = load_tensors(checkpoint.join("bridges.safetensors"))?;
    for HostTensor { data, .. } in tensors.values_mut() {
        data.iter_mut().for_each(|value| *value = rounded(*value));
    }
    save_tensors(folder.join("bridges.safetensors"), &tensors, None)?;
    let text = serde_json::to_string_pretty(&about).map_err(|e| Error::Data(e.to_string()))?;
    let path = folder.join("bridges.json");
    write_atomic(&path, |out| writeln!(out, "{text}").map_err(|e| Error::io(&path, e)))
}

/// With 10 bits of mantissa, as half precision has: the rest is zeros, which pack well.
fn rounded(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + (1 << 12)) & !((1 << 13) - 1))
}

fn archive(folder: &Path, file: &Path) -> Result<()> {
    let mut paths = Vec::new();
    list(folder, &mut paths)?;
    paths.sort();
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    // Without times, so that the same files give the same archive.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(zip::DateTime::default());
    let failed = |e: zip::result::ZipError| Error::Data(e.to_string());
    for path in paths {
        let Ok(name) = path.strip_prefix(folder) else { continue };
        let mut bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        if name.to_string_lossy().ends_with(".statistics.json") {
            bytes = serde_json::to_vec(&shortened(Statistics::load(&path)?)).map_err(|e| Error::Data(e.to_string()))?;
        }
        out.start_file_from_path(name, options).map_err(failed)?;
        out.write_all(&bytes).map_err(|e| Error::io(file, e))?;
    }
    let bytes = out.finish().map_err(failed)?.into_inner();
    println!("{}: {} bytes", file.display(), bytes.len());
    write_atomic(file, |out| out.write_all(&bytes).map_err(|e| Error::io(file, e)))
}

/// With few snippets: all of them would be most of the archive.
fn shortened(mut statistics: Statistics) -> Statistics {
    for node in &mut statistics.nodes {
        let others = [Some(&mut node.clean), Some(&mut node.counterfactual), node.difference.as_mut()];
        let sets = others.into_iter().flatten().map(|set| (set, 0)).chain([(&mut node.corpus, 2)]);
        for (set, most) in sets {
            for quantile in &mut set.quantiles {
                quantile.top.snippets.truncate(most);
                quantile.bottom.snippets.truncate(most);
            }
        }
    }
    statistics
}

/// All files, but for hidden ones and what searches note for themselves.
fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let (path, name) = (entry.path(), entry.file_name());
        match (name.to_string_lossy(), path.is_dir()) {
            (name, _) if name.starts_with('.') || name == "finished" => {}
            (_, true) => list(&path, paths)?,
            _ => paths.push(path),
        }
    }
    Ok(())
}
