//! Which of several equals the golden runs selected, where the method does not say which.
//!
//! There are two such cases. Where min-alive protects more weights than may survive, this library
//! removes the smallest of them; the golden runs removed arbitrary ones. Where a row has fewer
//! nonzero entries than AbsTopK keeps, some zeros are kept, and gradient flows through them: here
//! the first ones, in the golden runs arbitrary ones. To be comparable in every step, a case has
//! these selections in `choices.safetensors`: `<step>/<parameter>` the flat indices of the
//! surviving weights, `<step>/<layer>.<site>` those of the kept zeros. They come from a float64
//! replay of the golden runs that matches them to the last bit. Every other selection, and every
//! number, is computed by the device.

use std::collections::HashMap;

use super::golden::Case;
use crate::files::{parse_ids, parse_names};
use crate::model::{Hooks, Kind, Parameter, SiteKind};
use crate::ops::abs_topk;
use crate::ops::weight_topk::Neurons;
use crate::sparsity::{self, Schedule};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// A golden run's choices by name.
pub(super) struct Choices(HashMap<String, Vec<u32>>);

impl Choices {
    /// The choices of a case; none if it made none.
    pub(super) fn of(case: &Case) -> Result<Self> {
        let mut known = HashMap::new();
        if let Some((path, bytes)) = case.choices()? {
            for name in parse_names(&path, &bytes)? {
                let ids = parse_ids(&path, &bytes, &name)?.data;
                known.insert(name, ids);
            }
        }
        Ok(Self(known))
    }

    /// A remark, if there are any.
    pub(super) fn describe(&self) -> String {
        match self.0.len() {
            0 => String::new(),
            n => format!("({n} choices among equals are given)"),
        }
    }

    /// Hooks with which AbsTopK at `step` keeps the zeros that the golden run kept; `inner` gets
    /// the activations.
    pub(super) fn at(&self, step: u64) -> KeptZeros<'_> {
        KeptZeros { choices: self, step }
    }

    /// As [`sparsity::apply_topk_and_decay`], but with the golden run's survivors in a matrix with
    /// more protected weights than may survive.
    pub(super) fn apply_topk_and_decay(
        &self,
        parameters: &mut [Parameter],
        schedule: &Schedule,
        at: (u64, u64),
        weight_decay_lr: f32,
    ) -> Result<()> {
        let mut chosen = Vec::new();
        for (place, p) in parameters.iter().enumerate() {
            if let Some(survivors) = self.survivors(p, schedule, at) {
                chosen.push((place, survivors, p.dense()?.read()?));
            }
        }
        sparsity::apply_topk_and_decay(parameters, schedule, at, weight_decay_lr)?;
        for (place, survivors, before) in chosen {
            let p = &mut parameters[place];
            let mut after = vec![0.0; before.len()];
            for &i in survivors {
                let (Some(new), Some(old)) = (after.get_mut(i as usize), before.get(i as usize)) else {
                    return Err(Error::shape("choices", format!("{} has no entry {i}", p.name)));
                };
                *new = old - weight_decay_lr * old;
            }
            p.dense_mut()?.write(&after)?;
        }
        Ok(())
    }

    /// The golden run's survivors, if the method does not say which they are.
    fn survivors(&self, p: &Parameter, schedule: &Schedule, at: (u64, u64)) -> Option<&Vec<u32>> {
        let (Kind::Hidden(neurons), &[rows, columns]) = (p.kind, &p.shape[..]) else { return None };
        let keep = (schedule.density(at.0, at.1) * p.len() as f64).floor() as usize;
        let (count, width) = match neurons {
            Neurons::Rows => (rows, columns),
            Neurons::Columns => (columns, rows),
        };
        let survivors = self.0.get(&format!("{}/{}", at.0, p.name));
        survivors.filter(|_| count * schedule.min_alive.min(width) > keep)
    }
}

/// Lets the gradient through the zeros that a golden run kept, instead of through the first ones.
pub(super) struct KeptZeros<'a> {
    choices: &'a Choices,
    step: u64,
}

impl Hooks for KeptZeros<'_> {
    fn on_topk(&mut self, tape: &mut Tape, layer: usize, kind: SiteKind, x: &Var, k: usize) -> Result<Var> {
        let name = kind.topk_name().unwrap_or_default();
        let Some(zeros) = self.choices.0.get(&format!("{}/{layer}.{name}", self.step)) else {
            return tape.abs_topk(x, k);
        };
        let y = abs_topk::forward(x.value(), k)?.y;
        let mut kept: Vec<bool> = y.read()?.iter().map(|v| *v != 0.0).collect();
        for &i in zeros {
            match kept.get_mut(i as usize) {
                Some(kept) => *kept = true,
                None => return Err(Error::shape("choices", format!("{layer}.{name} has no entry {i}"))),
            }
        }
        tape.record_one(&[x], y, move |dout, _| {
            let mut gradient = dout.read()?;
            gradient.iter_mut().zip(&kept).filter(|(_, kept)| !**kept).for_each(|(g, _)| *g = 0.0);
            Ok(vec![Some(dout.device().upload("gradient", dout.shape(), &gradient)?)])
        })
    }
}
