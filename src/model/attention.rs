//! Attention patterns: how much each position attends to every earlier one.

use super::Model;
use crate::files::HostTensor;
use crate::{Error, Result};

impl Model {
    /// The attention pattern of a head on one sequence, `(T, T)`: row t holds the softmax weights
    /// of position t over the positions that it sees, and zeros elsewhere. With a sink, a row's sum is
    /// below 1. `q` and `k`: `(1, T, H·D)`, the values of the sites `attn.q` and `attn.k` of that
    /// layer.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such layer or head, [`Error::Shape`] for queries and keys
    /// of another shape; the device's.
    pub fn attention_pattern(&self, layer: usize, head: usize, q: &HostTensor, k: &HostTensor) -> Result<Vec<f32>> {
        let (config, width) = (&self.config, self.config.head_width());
        if layer >= config.n_layer || head >= config.n_head {
            let message = format!("there are {} layers with {} heads each", config.n_layer, config.n_head);
            return Err(Error::config(format!("head {head} of layer {layer}"), message));
        }
        let stride = config.attention_width();
        let length = match q.shape[..] {
            [1, length, wide]
                if wide == stride && k.shape == q.shape && [q, k].iter().all(|x| x.data.len() == length * wide) =>
            {
                length
            }
            _ => {
                let message = format!("queries {:?} and keys {:?}, expected (1, T, {stride})", q.shape, k.shape);
                return Err(Error::shape("attention pattern", message));
            }
        };
        let sink = self.parameters.ids.layers.get(layer).and_then(|ids| ids.sink);
        let sink = sink
            .and_then(|id| self.parameters.iter().nth(id))
            .map(|sink| Ok::<_, Error>(f64::from(sink.read()?.data[head])))
            .transpose()?;
        let options = config.attention_options(layer);
        let part = |t: usize| t * stride + head * width..t * stride + (head + 1) * width;
        let mut pattern = vec![0.0; length * length];
        for t in 0..length {
            let query = &q.data[part(t)];
            let logit = |j: usize| {
                let product: f64 = query.iter().zip(&k.data[part(j)]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                options.scale.map_or_else(|| product / (width as f64).sqrt(), |scale| product * f64::from(scale))
            };
            let first = options.first_key(t);
            let logits: Vec<f64> = (first..=t).map(logit).collect();
            let top = logits.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().copied().chain(sink).map(|logit| (logit - top).exp()).sum();
            let shares = logits.iter().map(|logit| ((logit - top).exp() / total) as f32);
            pattern[t * length + first..].iter_mut().zip(shares).for_each(|(entry, share)| *entry = share);
        }
        Ok(pattern)
    }
}
