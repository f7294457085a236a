//! Which tiles of the dense product are fastest on this device?

use super::{Options, Seconds, timed};
use crate::Result;
use crate::device::{Device, Gpu};
use crate::ops::linear::{self, OutputShape, Tile};

/// How much faster than the tile in use another must be to take its place: less is noise.
const GAIN: f64 = 1.03;

/// One output, all tiles, and the one that is used from now on.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What was computed.
    pub output: OutputShape,
    /// Rows, columns and inner dimension.
    pub sizes: (usize, usize, usize),
    /// How long each of [`Tile::ALL`] took.
    pub seconds: Vec<(Tile, f64)>,
    /// The fastest, unless the one in use before is about as fast.
    pub best: Tile,
}

/// Times all tiles on an output of every kind, with `depth` steps along the inner dimension, and makes the best ones those of `gpu`.
/// [`Gpu::save_tuning`] keeps them for later runs.
///
/// # Errors
/// Those of the operations.
pub fn autotune(gpu: &Gpu, options: &Options, depth: usize, watch: &mut dyn FnMut(&Choice)) -> Result<()> {
    for output in OutputShape::ALL {
        let (m, n) = match output {
            OutputShape::Thin => (32, 1024),
            OutputShape::Small => (256, 512),
            OutputShape::Large => (1024, 1024),
        };
        let before = linear::tile(gpu, output)?;
        let mut seconds = Vec::new();
        for tile in Tile::ALL {
            linear::set_tile(gpu, output, tile)?;
            seconds.push((tile, time(gpu, options, (m, n, depth))?));
        }
        let of = |tile| seconds.iter().find(|(t, _)| *t == tile).map_or(f64::INFINITY, |(_, s)| *s);
        let fastest = seconds.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(before, |(tile, _)| *tile);
        let best = if of(before) > of(fastest) * GAIN { fastest } else { before };
        linear::set_tile(gpu, output, best)?;
        watch(&Choice { output, sizes: (m, n, depth), seconds, best });
    }
    Ok(())
}

/// The median time of a product.
fn time(gpu: &Gpu, options: &Options, (m, n, k): (usize, usize, usize)) -> Result<f64> {
    let device = Device::Gpu(gpu.clone());
    let numbers = |rows: usize| {
        let data: Vec<f32> = (0..rows * k).map(|i| (i * 7919 % 257) as f32 / 128.0 - 1.0).collect();
        device.upload("benchmark", &[rows, k], &data)
    };
    let (x, w) = (numbers(m)?, numbers(n)?);
    let seconds: Seconds = timed(&device, options, &mut |_| linear::forward(&x, &w, None).map(drop))?;
    Ok(seconds.median)
}
