//! Terms against float64 loops, gradients against central differences of those.

use std::collections::BTreeMap;

use gossamer::bridges::{BridgeGradients, Objective};
use gossamer::device::Device;
use gossamer::model::{Kind, ModelConfig, Weights};
use gossamer::train::bridge::EncoderKind;
use gossamer::train::bridge_loss::{Coefficients, Terms};

use crate::common::{devices, normal, rng};
use crate::pair::{Pair, STEP, State};
use crate::variants::{SURE, as_published, config};

/// All different, so that no term can be taken for another.
fn coefficients() -> Coefficients {
    let errors = [("cross_entropy", 0.7), ("nmse_enc", 1.3), ("nmse_dec", 0.4)];
    let divergences = [("kl_d2s", 0.9), ("kl_s2d", 1.6), ("kl_sparse", 0.6)];
    errors.iter().chain(&divergences).fold(Coefficients::zero(), |all, (name, value)| all.with(name, *value).unwrap())
}

/// The terms, and their gradients by name: `sparse/` and `bridge/`.
fn run(pair: &Pair, device: &Device, coefficients: Coefficients) -> (Terms<f64>, BTreeMap<String, Vec<f32>>) {
    run_with(pair, device, coefficients, true, None)
}

/// As [`run`], and whether the sparse stream is a constant in the encoders' errors, and how sharp
/// thresholds are.
fn run_with(
    pair: &Pair,
    device: &Device,
    coefficients: Coefficients,
    detach_target: bool,
    sharpness: Option<f32>,
) -> (Terms<f64>, BTreeMap<String, Vec<f32>>) {
    let (dense, sparse, bridges) = pair.models(device);
    let dense_weights = Weights::constant(&dense, &[]);
    let objective = Objective::new(&dense, &dense_weights, &sparse, &bridges);
    let objective = Objective { coefficients, detach_target, sharpness, ..objective };
    let wanted = |kind| kind != Kind::LogitsBias;
    let (losses, gradients) = objective.gradients(&pair.tokens, pair.sequences, 1.0, &wanted).unwrap();
    let terms = losses.read().unwrap();
    assert_eq!(objective.losses(&pair.tokens, pair.sequences).unwrap().read().unwrap(), terms);
    let BridgeGradients { sparse: of_sparse, bridges: of_bridges } = gradients;
    let mut named = BTreeMap::new();
    for (p, gradient) in sparse.parameters.iter().zip(of_sparse) {
        assert_eq!(gradient.is_some(), wanted(p.kind), "{}", p.name);
        if let Some(gradient) = gradient {
            assert_eq!(gradient.shape(), p.shape, "{}", p.name);
            named.insert(format!("sparse/{}", p.name), gradient.read().unwrap());
        }
    }
    for (map, gradient) in bridges.list.iter().zip(of_bridges) {
        assert_eq!(gradient.shape(), map.value.shape(), "{}", map.name);
        named.insert(format!("bridge/{}", map.name), gradient.read().unwrap());
    }
    (terms, named)
}

/// A pair with these models in which no choice of AbsTopK is a close one.
fn clear(dense: &ModelConfig, sparse: &ModelConfig) -> Pair {
    let mut pairs = (0..40).map(|seed| Pair::new(dense.clone(), sparse.clone(), seed));
    pairs.find(|pair| pair.terms(None, false).2 > SURE).expect("close choices with every seed")
}

#[test]
fn terms_agree_with_the_oracle() {
    let wide = r#""d_model": 16, "afrac": 0.5, "tied_unembed": false"#;
    let beside = r#""d_pos_emb": 3, "enable_bigram_table": true, "residual_activation_type": "relu""#;
    for (dense, sparse) in
        [(config(""), as_published()), (config(beside), config(wide)), (config(r#""rms_norm": true"#), config(beside))]
    {
        let pair = clear(&dense, &sparse);
        let (want, ..) = pair.terms(None, false);
        for device in devices() {
            let (got, _) = run(&pair, &device, coefficients());
            let close = |got: f64, want: f64, what: &str| {
                assert!((got - want).abs() <= 1e-5 * want.abs(), "{what} is {got} instead of {want}");
            };
            close(got.get("cross_entropy")[0], want.get("cross_entropy")[0], "cross-entropy");
            close(got.get("kl_sparse")[0], want.get("kl_sparse")[0], "the sparse model's divergence");
            let named = |terms: &Terms<f64>| terms.by_site().map(|(n, t)| (n, t.to_vec())).collect::<Vec<_>>();
            for ((name, got), (_, want)) in named(&got).into_iter().zip(named(&want)) {
                assert_eq!((got.len(), want.len()), (5, 5));
                got.iter().zip(&want).enumerate().for_each(|(i, (g, w))| close(*g, *w, &format!("{name}/{i}")));
            }
            close(got.total(&coefficients()), want.total(&coefficients()), "total");
        }
    }
}

#[test]
fn divergences_from_the_most_probable_tokens() {
    let pair = clear(&config(""), &as_published());
    for device in devices() {
        let (dense, sparse, bridges) = pair.models(&device);
        let dense_weights = Weights::constant(&dense, &[]);
        let terms = |kl_top| {
            let objective = Objective { kl_top, ..Objective::new(&dense, &dense_weights, &sparse, &bridges) };
            let (terms, _) = objective.gradients(&pair.tokens, pair.sequences, 1.0, &|_| true).unwrap();
            let terms = terms.read().unwrap();
            assert_eq!(objective.losses(&pair.tokens, pair.sequences).unwrap().read().unwrap(), terms);
            terms
        };
        let (all, vocab, one) = (terms(None), terms(Some(dense.config.vocab_size)), terms(Some(1)));
        assert_eq!(all, vocab, "all tokens are the most probable ones");
        for name in ["nmse_dec", "cross_entropy"] {
            assert_eq!(all.get(name), one.get(name));
        }
        // One token alone costs more than a whole prediction that is nearly right.
        let (all, one) = (all.get("kl_s2d"), one.get("kl_s2d"));
        assert!(all.iter().zip(one).all(|(all, one)| one > all), "{all:?} {one:?}");
    }
}

#[test]
fn divergences_over_the_most_probable_tokens_alone() {
    let pair = clear(&config(""), &as_published());
    let (want, ..) = pair.terms(None, false);
    for device in devices() {
        let (dense, sparse, bridges) = pair.models(&device);
        let dense_weights = Weights::constant(&dense, &[]);
        let terms = |kl_top, kl_top_renormalize| {
            let objective = Objective::new(&dense, &dense_weights, &sparse, &bridges);
            let objective = Objective { coefficients: coefficients(), kl_top, kl_top_renormalize, ..objective };
            objective.losses(&pair.tokens, pair.sequences).unwrap().read().unwrap()
        };
        let [all, five, one] = [dense.config.vocab_size, 5, 1].map(|n| terms(Some(n), true));
        let one_side = terms(Some(5), false);
        for name in ["kl_d2s", "kl_s2d", "kl_sparse"] {
            let values = |terms: &Terms<f64>| terms.get(name).to_vec();
            let close = |(a, b): (f64, &f64)| (a - b).abs() <= 1e-5 * b.abs();
            assert!(values(&all).into_iter().zip(want.get(name)).all(close), "{name} over all tokens");
            // What a prediction gives to other tokens costs it nothing here.
            assert!(values(&five).into_iter().zip(values(&one_side)).all(|(both, one)| both < one), "{name}");
            assert!(values(&one).iter().all(|v| v.abs() < 1e-6), "{name}: one token alone is certain");
        }
    }
}

#[test]
fn terms_through_thresholds_agree_with_the_oracle() {
    let pair = Pair::smooth_with(EncoderKind::Threshold);
    for sharpness in [None, Some(3.0)] {
        let (want, ..) = pair.terms_at(sharpness.map(f64::from), None, false);
        for device in devices() {
            let (got, _) = run_with(&pair, &device, coefficients(), true, sharpness);
            for ((name, got), (_, want)) in got.by_site().zip(want.by_site()) {
                assert_eq!((got.len(), want.len()), (5, 5));
                let off = |(g, w): (&f64, &f64)| (g - w).abs() > 1e-5 * w.abs();
                assert!(!got.iter().zip(want).any(off), "{name}, {sharpness:?}: {got:?} instead of {want:?}");
            }
        }
    }
}

#[test]
fn without_a_coefficient_models_are_not_compared() {
    let (got, _) = run(&Pair::smooth(), &Device::cpu(), Coefficients::default());
    assert!(got.get("kl_sparse").is_empty());
}

/// The numbers of the pair that a gradient's name means.
fn tensor<'a>(pair: &'a mut Pair, name: &str) -> &'a mut Vec<f32> {
    let (of, name) = name.split_once('/').unwrap();
    let state: &mut State = if of == "sparse" { &mut pair.sparse.1 } else { &mut pair.bridges };
    &mut state.get_mut(name).unwrap().data
}

/// What central differences of the float64 objective say against these gradients, and how many
/// could have said anything.
fn objections(gradients: &BTreeMap<String, Vec<f32>>, draw: bool) -> (Vec<String>, usize) {
    objections_to(&Pair::smooth(), None, gradients, draw)
}

/// As [`objections`], for a pair with thresholds of a sharpness.
fn objections_to(
    base: &Pair,
    sharpness: Option<f64>,
    gradients: &BTreeMap<String, Vec<f32>>,
    draw: bool,
) -> (Vec<String>, usize) {
    let (_, frozen, _) = base.terms_at(sharpness, None, false);
    let (mut objections, mut telling) = (Vec::new(), 0);
    for (at, (name, gradient)) in gradients.iter().enumerate() {
        // Along the gradient's signs, so that the derivative is not small by cancellation; by
        // random amounts, so that no entry hides behind another.
        let amounts = normal(&mut rng(at as u64), gradient.len());
        let direction: Vec<f32> = gradient.iter().zip(amounts).map(|(g, a)| g.signum() * a.abs()).collect();
        let length = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
        let moved = |step: f32| {
            let mut pair = base.clone();
            tensor(&mut pair, name).iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d / length);
            pair
        };
        let (mut up, mut down) = (moved(STEP), moved(-STEP));
        let total = |pair: &Pair| pair.terms_at(sharpness, Some(&frozen), draw).0.total(&coefficients());
        let difference = total(&up) - total(&down);
        // The moves as float32 has them, not as they were meant.
        let moves =
            tensor(&mut up, name).iter().zip(tensor(&mut down, name)).map(|(u, d)| f64::from(*u) - f64::from(*d));
        let derivative: f64 = gradient.iter().zip(moves).map(|(g, m)| f64::from(*g) * m).sum();
        let off = (difference - derivative).abs();
        if off.is_nan() || off > 1e-3 * derivative.abs() {
            objections.push(format!("{name}: {difference:.6e}, but by its gradient {derivative:.6e}"));
        }
        telling += usize::from(derivative.abs() > 1e-8);
    }
    (objections, telling)
}

#[test]
fn gradients_match_central_differences() {
    let (_, gradients) = run(&Pair::smooth(), &Device::cpu(), coefficients());
    let (objections, telling) = objections(&gradients, false);
    assert!(objections.is_empty(), "{objections:#?}");
    assert_eq!(telling, gradients.len());
}

#[test]
fn gradients_through_thresholds_match_central_differences() {
    let pair = Pair::smooth_with(EncoderKind::Threshold);
    let (_, soft) = run_with(&pair, &Device::cpu(), coefficients(), true, Some(2.0));
    let (objections, telling) = objections_to(&pair, Some(2.0), &soft, false);
    assert!(objections.is_empty(), "{objections:#?}");
    assert_eq!(telling, soft.len());
    let (_, hard) = run(&pair, &Device::cpu(), coefficients());
    let (objections, telling) = objections_to(&pair, None, &hard, false);
    assert!(objections.is_empty(), "{objections:#?}");
    // All but the five sites' thresholds.
    assert_eq!(telling, hard.len() - 5);
    assert!(hard.iter().filter(|(name, _)| name.ends_with("log_eps")).all(|(_, g)| g.iter().all(|g| *g == 0.0)));
}

#[test]
fn gradients_match_central_differences_where_targets_learn() {
    let (_, constant) = run(&Pair::smooth(), &Device::cpu(), coefficients());
    let (_, drawn) = run_with(&Pair::smooth(), &Device::cpu(), coefficients(), false, None);
    let (objections, telling) = objections(&drawn, true);
    assert!(objections.is_empty(), "{objections:#?}");
    assert_eq!(telling, drawn.len());
    let learns =
        |name: &str| name.starts_with("sparse/") && !["ln_f", "lm_head", "bigram"].iter().any(|n| name.contains(n));
    for (name, gradient) in &drawn {
        assert_eq!(*gradient != constant[name], learns(name), "{name}");
    }
}

#[test]
fn central_differences_see_planted_errors() {
    let (_, gradients) = run(&Pair::smooth(), &Device::cpu(), coefficients());
    for name in ["sparse/transformer.wte.weight", "sparse/bigram_table", "bridge/enc.3.weight", "bridge/dec.0.bias"] {
        let mut planted = gradients.clone();
        planted.get_mut(name).unwrap().iter_mut().for_each(|g| *g *= 1.01);
        let (objections, _) = objections(&planted, false);
        assert!(objections.len() == 1 && objections[0].starts_with(name), "{objections:?}");
    }
}

#[test]
fn devices_agree_on_gradients() {
    let [cpu, gpu] = &devices()[..] else { panic!("two devices") };
    let (_, cpu) = run(&Pair::smooth(), cpu, coefficients());
    let (_, gpu) = run(&Pair::smooth(), gpu, coefficients());
    for (name, want) in &cpu {
        let square = |x: f32| f64::from(x).powi(2);
        let norm = want.iter().map(|w| square(*w)).sum::<f64>().sqrt();
        let off = want.iter().zip(&gpu[name]).map(|(w, g)| square(w - g)).sum::<f64>().sqrt();
        assert!(norm > 1e-4 && off <= 1e-4 * norm, "{name}: off by {off:.2e} of {norm:.2e}");
    }
}

/// A term with coefficient 0 leaves no gradient; the shares of micro-batches are shares of the
/// gradient.
#[test]
fn coefficients_and_shares_scale_gradients() {
    let (pair, device) = (Pair::smooth(), Device::cpu());
    let none = Coefficients::zero();
    let (_, nothing) = run(&pair, &device, none);
    assert!(nothing.values().flatten().all(|g| *g == 0.0));
    let (_, only) = run(&pair, &device, none.with("nmse_dec", 1.0).unwrap());
    for (name, gradient) in &only {
        let reached = name.starts_with("bridge/dec") || (name.starts_with("sparse/") && !name.contains("ln_f"));
        let reached = reached && !name.contains("lm_head") && !name.contains("bigram");
        assert_eq!(gradient.iter().any(|g| *g != 0.0), reached, "{name}");
    }
    let (dense, sparse, bridges) = pair.models(&device);
    let dense_weights = Weights::constant(&dense, &[]);
    let objective =
        Objective { coefficients: coefficients(), ..Objective::new(&dense, &dense_weights, &sparse, &bridges) };
    let (_, quarter) = objective.gradients(&pair.tokens, 3, 0.25, &|_| false).unwrap();
    assert!(quarter.sparse.iter().all(Option::is_none));
    let (_, whole) = run(&pair, &device, coefficients());
    for (map, gradient) in bridges.list.iter().zip(&quarter.bridges) {
        let want = &whole[&format!("bridge/{}", map.name)];
        let off = |(g, w): (&f32, &f32)| (4.0 * g - w).abs() > 1e-5 * (1.0 + w.abs());
        assert!(!gradient.read().unwrap().iter().zip(want).any(off), "{}", map.name);
    }
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let (dense, sparse, bridges) = Pair::smooth().models(&Device::cpu());
    let dense_weights = Weights::constant(&dense, &[]);
    let objective =
        Objective { coefficients: coefficients(), ..Objective::new(&dense, &dense_weights, &sparse, &bridges) };
    // The sparse model reads nine tokens, the dense one seven.
    assert!(objective.losses(&[1; 8], 1).unwrap_err().to_string().contains("block_size is 7"));
    assert!(objective.losses(&[19, 1], 1).is_err());
}
