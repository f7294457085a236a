//! What metrics say of each parameter: norms of its gradient and its weights, and how many of its
//! neurons are alive.

use super::step::{StepRecord, Trainer};
use crate::Result;
use crate::model::{Kind, Parameter};
use crate::ops::weight_topk::Neurons;
use crate::ops::{count_nonzero, grad_rms};

/// How the names of such numbers begin.
const PREFIXES: [&str; 3] = ["grad_norm/", "weight_norm/", "alive/"];

/// Whether a metric of that name is about one parameter.
pub fn is_per_parameter(metric: &str) -> bool {
    PREFIXES.iter().any(|prefix| metric.starts_with(prefix))
}

impl Trainer {
    /// Numbers of the step `record`, by their names in metrics:
    ///
    /// * `grad_norm/NAME`: the Euclidean norm of a trained parameter's gradient, before it is scaled;
    /// * `weight_norm/NAME`: that of its numbers after the step;
    /// * `alive/NAME`: how many neurons of a hidden matrix have a weight that is not zero: rows of
    ///   `c_attn` and `c_fc`, columns of both `c_proj`.
    ///
    /// Waits for the device.
    ///
    /// # Errors
    /// Those of the device.
    pub fn norms(&self, record: &StepRecord) -> Result<Vec<(String, f64)>> {
        let trained = || self.model.parameters.iter().filter(|p| self.trains(p.kind));
        let mut weight_sums = self.model.device.empty("square sums of weights", &[trained().count()])?;
        for (slot, p) in trained().enumerate() {
            grad_rms::square_sum(p.dense()?, &mut weight_sums, slot)?;
        }
        let mut norms = Vec::new();
        for (what, sums) in [("grad_norm", &record.square_sums), ("weight_norm", &weight_sums)] {
            let of = |(p, sum): (&Parameter, f32)| (format!("{what}/{}", p.name), f64::from(sum).sqrt());
            norms.extend(trained().zip(sums.read()?).map(of));
        }
        for p in self.model.parameters.iter() {
            let Kind::Hidden(neurons) = p.kind else { continue };
            let counts = match neurons {
                Neurons::Rows => count_nonzero::by_row(p.dense()?)?,
                Neurons::Columns => count_nonzero::by_column(p.dense()?)?,
            };
            let alive = counts.read()?.iter().filter(|&&count| count > 0).count();
            norms.push((format!("alive/{}", p.name), alive as f64));
        }
        Ok(norms)
    }
}
