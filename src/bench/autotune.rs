//! Which ways to compute a product are fastest on this device?

use super::{Options, Seconds, timed};
use crate::device::{Device, Gpu, cpu};
use crate::ops::linear::{self, OutputShape, Tile};
use crate::ops::{compress, sparse_linear};
use crate::{Error, Result};

/// How much faster than the tile in use another must be to replace it: less is noise.
const GAIN: f64 = 1.03;

/// The times of all tiles for one shape of output, and the best tile.
#[derive(Clone, Debug)]
pub struct TileTimes {
    /// What was computed.
    pub output: OutputShape,
    /// Rows, columns and inner dimension.
    pub sizes: (usize, usize, usize),
    /// How long each of [`Tile::ALL`] took.
    pub seconds: Vec<(Tile, f64)>,
    /// The fastest, unless the one in use before is about as fast.
    pub best: Tile,
}

/// Times all tiles on an output of every shape, with an inner dimension of `depth`, and sets the
/// best ones on `gpu`. [`Gpu::save_tuning`] keeps them for later runs.
///
/// # Errors
/// Those of the operations.
pub fn autotune(gpu: &Gpu, options: &Options, depth: usize, watch: &mut dyn FnMut(&TileTimes)) -> Result<()> {
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
        watch(&TileTimes { output, sizes: (m, n, depth), seconds, best });
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

/// How long a product took with different shares of nonzeros, and up to which one they pay.
#[derive(Clone, Debug)]
pub struct ShareTimes {
    /// What is decided.
    pub name: &'static str,
    /// Seconds of the other way.
    pub reference: f64,
    /// Shares, and seconds of this way.
    pub seconds: Vec<(f64, f64)>,
    /// Up to which share this way is the faster one; 0 for never.
    pub best: f64,
}

/// The share up to which the times are below `limit`, in the way that the fewest of them contradict:
/// a single noisy one does not move it.
fn crossing(seconds: &[(f64, f64)], limit: f64) -> f64 {
    let contradict = |at: usize| {
        let (below, above) = seconds.split_at(at);
        below.iter().filter(|(_, s)| *s >= limit).count() + above.iter().filter(|(_, s)| *s < limit).count()
    };
    let best = (0..=seconds.len()).min_by_key(|&at| contradict(at)).unwrap_or(0);
    best.checked_sub(1).map_or(0.0, |last| seconds[last].0)
}

/// Up to which shares of nonzeros the CPU skips zeros, at `rows` rows and a square weight of that
/// width; sets them for this process. `cpu::save_tuning` keeps them for later ones.
///
/// # Errors
/// Those of the operations.
pub(crate) fn autotune_cpu(
    options: &Options,
    rows: usize,
    width: usize,
    watch: &mut dyn FnMut(&ShareTimes),
) -> Result<()> {
    let device = Device::cpu();
    let numbers = |rows: usize, share: f64| {
        // In no order, so that neither rows nor columns look alike.
        let hash = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let number =
            |i| if (hash(i) as f64) < share * 4_294_967_296.0 { i as f32 % 257.0 / 128.0 - 0.993 } else { 0.0 };
        device.upload("benchmark", &[rows, width], &(0..rows * width).map(number).collect::<Vec<_>>())
    };
    let median = |job: &mut dyn FnMut(usize) -> Result<()>| Ok::<_, Error>(timed(&device, options, job)?.median);
    let (full, kept) = (numbers(rows, 1.0)?, numbers(rows, 0.25)?);
    let weight = numbers(width, 1.0)?;
    let mut decide = |name, reference, shares: &[f64], time: &dyn Fn(f64) -> Result<f64>| -> Result<()> {
        let seconds = shares.iter().map(|&share| Ok((share, time(share)?))).collect::<Result<Vec<_>>>()?;
        let best = crossing(&seconds, reference / GAIN);
        cpu::set_tuned_share(name, best);
        watch(&ShareTimes { name, reference, seconds, best });
        Ok(())
    };

    cpu::set_tuned_share(linear::SKIP_ZEROS, 0.0);
    let dense = median(&mut |_| linear::forward(&full, &weight, None).map(drop))?;
    cpu::set_tuned_share(linear::SKIP_ZEROS, 1.0);
    decide(linear::SKIP_ZEROS, dense, &[0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7], &|share| {
        let x = numbers(rows, share)?;
        median(&mut |_| linear::forward(&x, &weight, None).map(drop))
    })?;
    let sparse = |density: f64| {
        let sparse = numbers(width, density)?;
        median(&mut |_| {
            let nonzeros = compress::forward(&sparse, width * width)?;
            sparse_linear::forward(&full, &nonzeros, None).map(drop)
        })
    };
    let densities = [1.0 / 64.0, 1.0 / 32.0, 1.0 / 16.0, 0.1, 0.14, 0.2, 0.25, 0.3, 0.4];
    decide(sparse_linear::SPARSE, dense, &densities, &sparse)?;
    let skipping = median(&mut |_| linear::forward(&kept, &weight, None).map(drop))?;
    decide(sparse_linear::SPARSE_AFTER_TOPK, skipping, &densities, &sparse)
}

#[cfg(test)]
mod tests {
    use super::crossing;

    #[test]
    fn one_noisy_time_does_not_move_the_crossing() {
        let times = |seconds: [f64; 5]| [0.1, 0.2, 0.3, 0.4, 0.5].into_iter().zip(seconds).collect::<Vec<_>>();
        assert_eq!(crossing(&times([1.0, 2.0, 3.0, 4.0, 5.0]), 3.5), 0.3);
        assert_eq!(crossing(&times([1.0, 9.0, 2.0, 3.0, 5.0]), 3.5), 0.4, "the second is noise");
        assert_eq!(crossing(&times([1.0, 4.0, 5.0, 5.0, 3.0]), 3.5), 0.1, "the last is noise");
        assert_eq!(crossing(&times([4.0, 4.0, 5.0, 5.0, 6.0]), 3.5), 0.0);
        assert_eq!(crossing(&times([1.0; 5]), 3.5), 0.5);
        assert_eq!(crossing(&[], 1.0), 0.0);
    }
}
