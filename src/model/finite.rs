//! Numbers that are not finite: which weights they are in, and where a forward pass first meets
//! them.

use std::fmt::{self, Display};

use rayon::prelude::*;

use super::{Batch, Hooks, Model, Parameters, Pass, Weights};
use crate::device::Tensor;
use crate::ops::grad_rms;
use crate::tape::Tape;
use crate::{Error, Result};

/// The numbers of one parameter that are not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// The parameter's published name.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// Where the first one is.
    pub index: Vec<usize>,
    /// The first one.
    pub value: f32,
}

impl NotFinite {
    /// Those among `data`, which has that shape; `None` if all are finite.
    pub(crate) fn find(name: &str, shape: &[usize], data: &[f32]) -> Option<Self> {
        let (first, value) = first_not_finite(data)?;
        let count = data[first..].iter().filter(|v| !v.is_finite()).count();
        Some(Self { name: name.into(), count, index: index_of(first, shape), value })
    }
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, count, index, value } = self;
        match count {
            1 => write!(f, "{name} holds {value} at {index:?}"),
            count => write!(f, "{name} holds {count} numbers that are not finite, the first {value} at {index:?}"),
        }
    }
}

/// The index of entry number `entry` in a row-major array of that shape.
pub(super) fn index_of(entry: usize, shape: &[usize]) -> Vec<usize> {
    let (mut index, mut remaining) = (vec![0; shape.len()], entry);
    for (at, size) in index.iter_mut().zip(shape).rev() {
        (*at, remaining) = (remaining % size, remaining / size);
    }
    index
}

/// The first of the numbers that is not finite, with its index.
pub fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    // Few numbers are not worth the other threads.
    const BLOCK: usize = 1 << 14;
    let in_block = |values: &[f32]| values.iter().position(|v| !v.is_finite());
    let first = match values.len() {
        ..=BLOCK => in_block(values),
        _ => {
            let blocks = values.par_chunks(BLOCK).enumerate();
            blocks.find_map_first(|(block, values)| Some(block * BLOCK + in_block(values)?))
        }
    };
    first.map(|at| (at, values[at]))
}

/// Whether all numbers are finite. Those of a GPU stay there, unless they are so large that their
/// squares overflow.
pub(crate) fn all_finite(x: &Tensor) -> Result<bool> {
    if x.is_empty() {
        return Ok(true);
    }
    if x.gpu().is_none() {
        return Ok(first_not_finite(x.as_slice()?).is_none());
    }
    let mut sum = x.device().empty("sum of squares", &[1])?;
    grad_rms::square_sum(x, &mut sum, 0)?;
    Ok(first_not_finite(&sum.read()?).is_none() || first_not_finite(&x.read()?).is_none())
}

impl Parameters {
    /// The parameters that hold numbers which are not finite, in order. Reads all of them.
    pub(crate) fn not_finite(&self) -> Result<Vec<NotFinite>> {
        let mut found = Vec::new();
        for p in self.iter() {
            found.extend(NotFinite::find(&p.name, &p.shape, &p.read()?.data));
        }
        Ok(found)
    }
}

impl Model {
    /// An error about a number that is not finite, with what the model's weights have to do with
    /// it.
    pub(crate) fn not_finite(&self, site: String, value: f32, at: Option<[usize; 3]>) -> Error {
        let weights = match self.parameters.not_finite() {
            Ok(found) => found.split_first().map(|(first, others)| match others.len() {
                0 => first.to_string(),
                others => format!("{first}; {others} other parameters are not finite either"),
            }),
            Err(error) => return error,
        };
        Error::NonFiniteSite { site, value, at, weights }
    }

    /// Returns an error unless all of `values` are finite. They were computed, as `what` says, from
    /// a forward pass of `batch` with `hooks`, which is then run again to name the first site
    /// that is not finite.
    pub(crate) fn check_finite(
        &self,
        what: impl Display,
        values: &[f32],
        weights: &Weights,
        batch: &Batch,
        hooks: &mut dyn Hooks,
    ) -> Result<()> {
        match first_not_finite(values) {
            None => Ok(()),
            Some((_, value)) => {
                Pass::new(self, weights, batch, &mut Tape::new(), hooks).checked(true).logits()?;
                Err(self.not_finite(what.to_string(), value, None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::first_not_finite;

    #[test]
    fn the_first_is_found_in_short_and_in_long_lists() {
        for (len, at) in [(1, 0), (100, 99), (1 << 14, 5), (100_000, 70_000), (100_000, 99_999)] {
            let mut values = vec![1.0; len];
            assert_eq!(first_not_finite(&values), None);
            values[at] = f32::INFINITY;
            values[len - 1] = f32::INFINITY;
            assert_eq!(first_not_finite(&values), Some((at, f32::INFINITY)));
        }
        assert_eq!(first_not_finite(&[]), None);
    }
}
