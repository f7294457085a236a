//! How well a model predicts, token by token.

use serde::Serialize;

use super::{Batch, LossOutput, Model, NoHooks, Recorder, Site, Weights, all_finite};
use crate::Result;
use crate::observer::{Observer, Stage};
use crate::tape::Tape;

/// A model's loss on sequences.
#[derive(Debug, Default, Serialize)]
pub struct Evaluation {
    /// Mean cross-entropy in nats per predicted token.
    pub loss: f64,
    /// Predicted tokens: all but the first of each sequence.
    pub predictions: u64,
    /// Fourth standardised moment of `final_resid` over the channels of each token, averaged over
    /// tokens. A normal distribution has 3; a stream that uses few channels has more.
    pub kurtosis: f64,
    /// The same over the tokens of each channel, averaged over the channels that vary.
    pub channel_kurtosis: f64,
    /// The losses of each sequence's predictions, if they were asked for.
    #[serde(skip)]
    pub losses: Vec<Vec<f32>>,
}

/// Runs `sequences`, `batch_size` of equal length at a time.
///
/// # Errors
/// [`crate::Error::Shape`] for sequences longer than `block_size` or tokens outside the vocabulary,
/// [`crate::Error::NonFiniteSite`] where a loss or a logit is not finite, the device's, and
/// [`crate::Error::Stopped`].
pub fn evaluate(
    model: &Model,
    sequences: &[Vec<u32>],
    batch_size: usize,
    keep_losses: bool,
    observer: &Observer,
) -> Result<Evaluation> {
    let weights = Weights::constant(model, &[]);
    let mut result = Evaluation::default();
    let mut moments = Moments::new(model.config.d_model);
    let mut remaining = sequences;
    while let Some(first) = remaining.first() {
        let (done, total) = ((sequences.len() - remaining.len()) as u64, Some(sequences.len() as u64));
        observer.advance(&Stage { name: "evaluating", done, total, unit: "sequences" })?;
        let equal = remaining.iter().take(batch_size.max(1)).take_while(|s| s.len() == first.len()).count();
        let (chunk, others) = remaining.split_at(equal);
        remaining = others;
        let batch = Batch::new(&model.device, &model.config, &chunk.concat(), chunk.len())?;
        let mut recorder = Recorder::of([Site::FinalResid]);
        let hooks = &mut (&mut recorder, &mut { *observer });
        let LossOutput { losses, logits, .. } = model.forward_loss(&mut Tape::new(), &weights, &batch, hooks)?;
        let losses = losses.read()?;
        model.check_finite("the loss", &losses, &weights, &batch, &mut NoHooks)?;
        // The loss may be finite although the logit of another token is not.
        if !all_finite(logits.value())? {
            model.check_finite("logits", &logits.value().read()?, &weights, &batch, &mut NoHooks)?;
        }
        for row in losses.chunks_exact(first.len()) {
            // The last position has nothing to predict.
            let row = &row[..first.len() - 1];
            result.loss += row.iter().map(|&l| f64::from(l)).sum::<f64>();
            result.predictions += row.len() as u64;
            if keep_losses {
                result.losses.push(row.to_vec());
            }
        }
        for value in recorder.values.into_values() {
            moments.add(&value.value().read()?);
        }
    }
    result.loss /= result.predictions.max(1) as f64;
    (result.kurtosis, result.channel_kurtosis) = moments.kurtosis();
    Ok(result)
}

/// Sums of powers, from which moments follow.
#[derive(Clone, Copy, Default)]
struct Powers {
    count: f64,
    sums: [f64; 4],
}

impl Powers {
    fn add(&mut self, x: f64) {
        self.count += 1.0;
        let mut power = 1.0;
        for sum in &mut self.sums {
            power *= x;
            *sum += power;
        }
    }

    /// E\[(x − μ)⁴\] / E\[(x − μ)²\]², if x varies.
    fn kurtosis(&self) -> Option<f64> {
        let [a, b, c, d] = self.sums.map(|sum| sum / self.count);
        let variance = b - a * a;
        let fourth = d - 4.0 * a * c + 6.0 * a * a * b - 3.0 * a.powi(4);
        (variance > 1e-12 * b).then(|| fourth / (variance * variance))
    }
}

struct Moments {
    channels: Vec<Powers>,
    tokens: Powers,
}

impl Moments {
    fn new(width: usize) -> Self {
        Self { channels: vec![Powers::default(); width], tokens: Powers::default() }
    }

    /// `values`: rows of all channels of a token.
    fn add(&mut self, values: &[f32]) {
        for row in values.chunks_exact(self.channels.len()) {
            let mut token = Powers::default();
            for (channel, &x) in self.channels.iter_mut().zip(row) {
                channel.add(x.into());
                token.add(x.into());
            }
            if let Some(kurtosis) = token.kurtosis() {
                self.tokens.add(kurtosis);
            }
        }
    }

    fn kurtosis(&self) -> (f64, f64) {
        let channels: Vec<f64> = self.channels.iter().filter_map(Powers::kurtosis).collect();
        let mean = |sum: f64, count: f64| if count == 0.0 { 0.0 } else { sum / count };
        (mean(self.tokens.sums[0], self.tokens.count), mean(channels.iter().sum(), channels.len() as f64))
    }
}
