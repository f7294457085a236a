//! A model as large as the largest published one, with random sparse weights: written, opened, and
//! run.
//!
//! `cargo run --release --example published_size -- FOLDER` writes about 1.9 GB to FOLDER and says
//! how long it takes to load, how much memory the device holds, and how fast it generates.
//! `--quick`: a thousandth of that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use gossamer::device::Device;
use gossamer::files::{FloatType, HostTensor, TensorInfo, write_safetensors};
use gossamer::formats::ModelFiles;
use gossamer::model::{Generator, Kind, ModelConfig, Parameters, Sampling, WeightFormat};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One weight in so many is not zero.
const SPARSITY: u32 = 64;

fn main() -> gossamer::Result<()> {
    let quick = std::env::args().any(|a| a == "--quick");
    let folder =
        std::env::args().skip(1).find(|a| !a.starts_with("--")).map_or("runs/published_size".into(), PathBuf::from);
    let width = if quick { 64 } else { 2048 };
    let config = ModelConfig {
        block_size: 256,
        vocab_size: 2048,
        n_layer: 8,
        n_head: width / 16,
        d_head: Some(16),
        d_model: width,
        d_mlp: Some(4 * width),
        bias: true,
        rms_norm: true,
        afrac: Some(0.25),
        tied_unembed: false,
        enable_bigram_table: true,
        sink: true,
        ..ModelConfig::default()
    };
    write(&config, &folder)?;

    let start = Instant::now();
    let device = Device::open("auto")?;
    let model = ModelFiles::open(&folder)?.load(WeightFormat::Sparse, &device)?;
    device.sync()?;
    let entries: usize = model.parameters.iter().map(|p| p.len()).sum();
    println!("{}", device.describe());
    println!("{entries} parameters loaded in {:.2} s", start.elapsed().as_secs_f64());
    println!("{:.1} MiB on the device (dense: {:.1})", mebibytes(device.allocated()), mebibytes(4 * entries as u64));

    let count = if quick { 20 } else { 200 };
    let start = Instant::now();
    let sampling = Sampling { max_new_tokens: count, ..Sampling::default() };
    let mut generator = Generator::new(&model, &[0; 16], sampling)?;
    while generator.next_token()?.is_some() {}
    println!("{:.1} tokens/s over {count} tokens", count as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Writes the model, one tensor at a time.
fn write(config: &ModelConfig, folder: &PathBuf) -> gossamer::Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| gossamer::Error::io(folder, e))?;
    let path = folder.join("beeg_config.json");
    let text = serde_json::to_string_pretty(config).map_err(|e| gossamer::Error::file(&path, e.to_string()))?;
    std::fs::write(&path, text).map_err(|e| gossamer::Error::io(&path, e))?;
    let mut slots = BTreeMap::new();
    for (name, kind, shape) in Parameters::shapes(config) {
        slots.insert(name, (kind, TensorInfo { shape, float: FloatType::F32 }));
    }
    let entries = slots.iter().map(|(name, (_, info))| (name.clone(), info.clone())).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    write_safetensors(folder.join("model.safetensors"), &entries, None, |name| {
        let (kind, info) = &slots[name];
        let mut data = vec![0.0; info.shape.iter().product()];
        match kind {
            // A random number for every entry would take minutes: the distances between nonzeros
            // are drawn instead.
            Kind::Hidden(_) | Kind::Embedding => {
                let mut at = rng.random_range(0..SPARSITY) as usize;
                while let Some(entry) = data.get_mut(at) {
                    *entry = normal(&mut rng) * 0.3;
                    at += rng.random_range(1..2 * SPARSITY) as usize;
                }
            }
            Kind::NormWeight => data.fill(1.0),
            _ => data.iter_mut().for_each(|v| *v = 0.02 * normal(&mut rng)),
        }
        Ok(Cow::Owned(HostTensor { shape: info.shape.clone(), data }))
    })
}

/// About a standard normal number.
fn normal(rng: &mut impl Rng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}
