//! The transformer in plain float64 loops (method: section 1): what every forward pass is held to.
//! It shares nothing with the library but configurations, host tensors and names.

use std::collections::BTreeMap;
use std::f64::consts::{PI, SQRT_2};

use gossamer::files::HostTensor;
use gossamer::model::{Activation, ModelConfig, ResidualActivation};

/// Called at every named site, after its AbsTopK, with its values `T × width`, which it may change.
pub type Edit<'a> = &'a mut dyn FnMut(&str, &mut Vec<f64>);

/// What a pass over one sequence leaves.
pub struct Run {
    /// `T × V`.
    pub logits: Vec<f64>,
    /// By how much the closest choice of any AbsTopK was decided: float32 may decide otherwise if
    /// it is tiny.
    pub margin: f64,
}

/// Logits `T × V` of one sequence.
pub fn forward(config: &ModelConfig, state: &BTreeMap<String, HostTensor>, tokens: &[u32], edit: Edit) -> Vec<f64> {
    run(config, state, tokens, edit).logits
}

/// As [`forward`], with the margin of AbsTopK.
pub fn run(config: &ModelConfig, state: &BTreeMap<String, HostTensor>, tokens: &[u32], edit: Edit) -> Run {
    let mut pass = Pass { config, state, edit, margin: f64::INFINITY };
    let logits = pass.logits(tokens);
    Run { logits, margin: pass.margin }
}

/// Every site's values by name, and the logits, of an unedited pass.
pub fn sites(
    config: &ModelConfig,
    state: &BTreeMap<String, HostTensor>,
    tokens: &[u32],
) -> (BTreeMap<String, Vec<f64>>, Run) {
    let mut seen = BTreeMap::new();
    let run = run(config, state, tokens, &mut |site, values| {
        seen.insert(site.to_string(), values.clone());
    });
    (seen, run)
}

struct Pass<'a> {
    config: &'a ModelConfig,
    state: &'a BTreeMap<String, HostTensor>,
    edit: Edit<'a>,
    margin: f64,
}

impl Pass<'_> {
    fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        self.state.get(name).map(|tensor| tensor.data.iter().map(|&v| f64::from(v)).collect())
    }

    /// `x Wᵀ + b`, row by row.
    fn linear(&self, weight: &str, bias: &str, x: &[f64]) -> Vec<f64> {
        let inputs = self.state[weight].shape[1];
        let (w, b) = (self.numbers(weight).unwrap(), self.numbers(bias));
        let mut out = Vec::new();
        for row in x.chunks(inputs) {
            for (o, w) in w.chunks(inputs).enumerate() {
                let product: f64 = row.iter().zip(w).map(|(x, w)| x * w).sum();
                out.push(product + b.as_ref().map_or(0.0, |b| b[o]));
            }
        }
        out
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.numbers(&format!("{name}.weight")).unwrap();
        let bias = self.numbers(&format!("{name}.bias"));
        let n = weight.len() as f64;
        let mut out = Vec::new();
        for row in x.chunks(weight.len()) {
            let (centre, eps) = if self.config.rms_norm {
                (0.0, 1.1920929e-7)
            } else {
                (row.iter().sum::<f64>() / n, self.config.ln_eps)
            };
            let square = row.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / n;
            for (i, v) in row.iter().enumerate() {
                out.push((v - centre) / (square + eps).sqrt() * weight[i] + bias.as_ref().map_or(0.0, |b| b[i]));
            }
        }
        out
    }

    /// AbsTopK at `place`, if the configuration lists it; of equals the first.
    fn select(&mut self, place: &str, width: usize, mut x: Vec<f64>) -> Vec<f64> {
        let listed = self.config.afrac_loctypes.0.split(',').any(|listed| listed.trim() == place);
        let Some(fraction) = self.config.afrac.filter(|_| listed) else { return x };
        let k = ((fraction * width as f64).floor() as usize).max(self.config.min_topk);
        for row in x.chunks_mut(width) {
            let mut order: Vec<usize> = (0..width).collect();
            order.sort_by(|&a, &b| row[b].abs().total_cmp(&row[a].abs()));
            if 0 < k && k < width && row[order[k - 1]] != 0.0 {
                self.margin = self.margin.min(row[order[k - 1]].abs() - row[order[k]].abs());
            }
            order[k..].iter().for_each(|&i| row[i] = 0.0);
        }
        x
    }

    fn site(&mut self, layer: usize, site: &str, mut x: Vec<f64>) -> Vec<f64> {
        (self.edit)(&format!("{layer}.{site}"), &mut x);
        x
    }

    /// What a sublayer reads: the norm of `x`, and that of the positions, if they are
    /// concatenated.
    fn input(&mut self, i: usize, sublayer: usize, x: &[f64], positions: &[f64]) -> Vec<f64> {
        let d = self.config.d_model;
        let mut h = self.norm(&format!("transformer.h.{i}.ln_{sublayer}"), x);
        let mut width = d;
        if let Some(d_pos) = self.config.d_pos_emb {
            let p = self.norm(&format!("transformer.h.{i}.ln_p{sublayer}"), positions);
            h = h.chunks(d).zip(p.chunks(d_pos)).flat_map(|(h, p)| [h, p].concat()).collect();
            width += d_pos;
        }
        let (place, site) = [("attn_in", "attn.act_in"), ("mlp_in", "mlp.act_in")][sublayer - 1];
        let h = self.select(place, width, h);
        self.site(i, site, h)
    }

    fn attention(&mut self, i: usize, input: &[f64]) -> Vec<f64> {
        let (heads, name) = (self.config.n_head, format!("transformer.h.{i}.attn"));
        let dh = self.config.d_head.unwrap_or(self.config.d_model / heads);
        let width = heads * dh;
        let qkv = self.linear(&format!("{name}.c_attn.weight"), &format!("{name}.c_attn.bias"), input);
        let [q, k, v] = ["q", "k", "v"].map(|letter| {
            let start = "qkv".find(letter).unwrap() * width;
            let part = qkv.chunks(3 * width).flat_map(|row| row[start..start + width].to_vec()).collect();
            let part = self.select(&format!("attn_{letter}"), width, part);
            self.site(i, &format!("attn.{letter}"), part)
        });
        let sinks = self.numbers(&format!("{name}.attn_imp.sink_logit"));
        let mut y = vec![0.0; q.len()];
        for t in 0..q.len() / width {
            for h in 0..heads {
                let at = |t: usize| t * width + h * dh..t * width + (h + 1) * dh;
                let score = |s: usize| q[at(t)].iter().zip(&k[at(s)]).map(|(a, b)| a * b).sum::<f64>();
                let divisor = self.attention_divisor(i, dh);
                let seen = |s: usize| self.window(i).is_none_or(|window| t - s < window);
                let weight = |s| if seen(s) { (score(s) / divisor).exp() } else { 0.0 };
                let weights: Vec<f64> = (0..=t).map(weight).collect();
                let total = weights.iter().sum::<f64>() + sinks.as_ref().map_or(0.0, |sinks| sinks[h].exp());
                for (s, weight) in weights.iter().enumerate() {
                    y[at(t)].iter_mut().zip(&v[at(s)]).for_each(|(y, v)| *y += weight / total * v);
                }
            }
        }
        let y = self.site(i, "attn.y", y);
        let out = self.linear(&format!("{name}.c_proj.weight"), &format!("{name}.c_proj.bias"), &y);
        let out = self.select("attn_out", self.config.d_model, out);
        self.site(i, "attn.resid_delta", out)
    }

    /// What products of queries and keys are divided by.
    fn attention_divisor(&self, layer: usize, width: usize) -> f64 {
        let of_width = if self.config.scale_attn_weights { (width as f64).sqrt() } else { 1.0 };
        of_width * if self.config.scale_attn_by_inverse_layer_idx { layer as f64 + 1.0 } else { 1.0 }
    }

    /// How many keys a query of that layer sees, if not all.
    fn window(&self, layer: usize) -> Option<usize> {
        let kinds: Vec<&str> = self.config.attention_layers.0.split(',').collect();
        if kinds[layer % kinds.len()] == "local" { self.config.window_size } else { None }
    }

    fn mlp(&mut self, i: usize, input: &[f64]) -> Vec<f64> {
        let name = format!("transformer.h.{i}.mlp");
        let mut h = self.linear(&format!("{name}.c_fc.weight"), &format!("{name}.c_fc.bias"), input);
        for v in &mut h {
            *v = match self.config.activation_type {
                Activation::Relu => v.max(0.0),
                Activation::GeluTanh => *v * 0.5 * (1.0 + ((2.0 / PI).sqrt() * (*v + 0.044715 * v.powi(3))).tanh()),
                Activation::Gelu => *v * 0.5 * (1.0 + erf(*v / SQRT_2)),
            };
        }
        let width = self.config.d_mlp.unwrap_or(4 * self.config.d_model);
        let h = self.select("mlp_neuron", width, h);
        let h = self.site(i, "mlp.post_act", h);
        let out = self.linear(&format!("{name}.c_proj.weight"), &format!("{name}.c_proj.bias"), &h);
        let out = self.select("mlp_out", self.config.d_model, out);
        self.site(i, "mlp.resid_delta", out)
    }

    fn add(&mut self, x: &[f64], delta: &[f64], place: &str) -> Vec<f64> {
        let relu = self.config.residual_activation_type == ResidualActivation::Relu;
        let sum = x.iter().zip(delta).map(|(x, d)| if relu { (x + d).max(0.0) } else { x + d }).collect();
        self.select(place, self.config.d_model, sum)
    }

    fn logits(&mut self, tokens: &[u32]) -> Vec<f64> {
        let d = self.config.d_model;
        let wte = self.numbers("transformer.wte.weight").unwrap();
        let wpe = self.numbers("transformer.wpe.weight").unwrap();
        let mut x: Vec<f64> = tokens.iter().flat_map(|&id| wte[id as usize * d..][..d].to_vec()).collect();
        let positions = &wpe[..tokens.len() * self.config.d_pos_emb.unwrap_or(d)];
        if self.config.d_pos_emb.is_none() {
            x.iter_mut().zip(positions).for_each(|(x, p)| *x += p);
        }
        for i in 0..self.config.n_layer {
            x = self.select("resid_pre", d, x);
            x = self.site(i, "resid_in", x);
            let input = self.input(i, 1, &x, positions);
            let delta = self.attention(i, &input);
            let middle = self.add(&x, &delta, "resid_post_attn");
            let middle = self.site(i, "resid_mid", middle);
            let input = self.input(i, 2, &middle, positions);
            let delta = self.mlp(i, &input);
            x = self.add(&middle, &delta, "resid_post_mlp");
        }
        (self.edit)("final_resid", &mut x);
        let x = self.norm("transformer.ln_f", &x);
        let head = if self.config.tied_unembed { "transformer.wte.weight" } else { "lm_head.weight" };
        let mut logits = self.linear(head, "final_logits_bias", &x);
        if let Some(table) = self.numbers("bigram_table") {
            let vocab = self.config.vocab_size;
            for (row, &id) in logits.chunks_mut(vocab).zip(tokens) {
                row.iter_mut().zip(&table[id as usize * vocab..]).for_each(|(logit, bigram)| *logit += bigram);
            }
        }
        logits
    }
}

/// The error function by a series of positive terms; it is ±1 to the last bit from 6 on.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

#[test]
fn the_error_function_has_its_published_values() {
    // Abramowitz and Stegun, table 7.1.
    for (x, want) in [(0.0, 0.0), (0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (3.0, 0.9999779095)] {
        assert!((erf(x) - want).abs() < 1e-10 && (erf(-x) + want).abs() < 1e-10, "{x}");
    }
    assert!((erf(6.0 - 1e-9) - 1.0).abs() < 1e-14);
}
