//! Which of more protected weights than places the golden runs kept.
//!
//! Where min-alive protects more weights than may survive, the method leaves the choice open. The product keeps the
//! largest. The golden runs came from a library that held all protected weights for equally (infinitely) large and kept
//! whichever its selection happened to bring to the front. A training case therefore carries those choices in
//! `choices.safetensors`: per step and matrix, the flat indices of the survivors. They were taken from a float64 replay of
//! the golden runs that matches them to the last bit. Every other selection is the device's own.

use std::collections::HashMap;

use super::golden::Case;
use crate::files::parse_ids;
use crate::model::{Kind, Parameter, Parameters};
use crate::ops::weight_topk::Neurons;
use crate::sparsity::{self, Schedule};
use crate::{Error, Result};

/// A golden run's choices by `step/parameter`, and how many were followed.
pub(super) struct Choices<'a> {
    case: &'a Case,
    known: HashMap<String, Vec<u32>>,
    pub(super) followed: usize,
}

impl<'a> Choices<'a> {
    pub(super) fn of(case: &'a Case) -> Self {
        Self { case, known: HashMap::new(), followed: 0 }
    }

    /// As [`sparsity::enforce`], but with the golden run's survivors in those matrices where more weights are protected
    /// than may survive.
    pub(super) fn enforce(
        &mut self,
        parameters: &mut Parameters,
        schedule: &Schedule,
        at: (u64, u64),
        weight_decay_lr: f32,
    ) -> Result<()> {
        let mut chosen = Vec::new();
        for (i, Parameter { name, kind, value }) in parameters.iter().enumerate() {
            let (Kind::Hidden(neurons), &[rows, columns]) = (kind, value.shape()) else { continue };
            let keep = (schedule.density(at.0, at.1) * value.len() as f64).floor() as usize;
            let (count, width) = match neurons {
                Neurons::Rows => (rows, columns),
                Neurons::Columns => (columns, rows),
            };
            if count * schedule.min_alive.min(width) <= keep {
                continue;
            }
            let case = self.case;
            let survivors = self.survivors(&format!("{}/{name}", at.0))?;
            if survivors.len() != keep {
                return Err(case.error(format!("choices for {name} are {}, not {keep}", survivors.len())));
            }
            let before = value.read()?;
            let mut after = vec![0.0; before.len()];
            for &i in survivors {
                let i = i as usize;
                let (Some(new), Some(old)) = (after.get_mut(i), before.get(i)) else {
                    return Err(case.error(format!("choices for {name} name entry {i} of {}", before.len())));
                };
                *new = old - weight_decay_lr * old;
            }
            chosen.push((i, after));
        }
        sparsity::enforce(parameters, schedule, at, weight_decay_lr)?;
        self.followed += chosen.len();
        for (i, data) in chosen {
            if let Some(p) = parameters.iter_mut().nth(i) {
                p.value.write(&data)?;
            }
        }
        Ok(())
    }

    fn survivors(&mut self, key: &str) -> Result<&[u32]> {
        if !self.known.contains_key(key) {
            let (path, bytes) = self.case.choices()?;
            let (_, ids) = parse_ids(&path, &bytes, key).map_err(|e| match e {
                Error::File { path, message } => Error::file(path, format!("{message} (the golden run's own choice)")),
                other => other,
            })?;
            self.known.insert(key.to_string(), ids);
        }
        Ok(self.known.get(key).map_or(&[], Vec::as_slice))
    }
}
