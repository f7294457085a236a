//! Terms against float64 loops, gradients against central differences of those.

use std::collections::BTreeMap;

use gossamer::bridges::{BridgeGradients, Objective};
use gossamer::device::Device;
use gossamer::model::{Kind, ModelConfig, Weights};
use gossamer::train::bridge_loss::{Coefficients, Terms};

use crate::common::{devices, normal, rng};
use crate::pair::{Pair, STEP, State};
use crate::variants::{SURE, as_published, config};

/// All different, so that no term can be taken for another.
fn coefficients() -> Coefficients {
    let all = [("cross_entropy", 0.7), ("nmse_enc", 1.3), ("nmse_dec", 0.4), ("kl_d2s", 0.9), ("kl_s2d", 1.6)];
    all.iter().fold(Coefficients::zero(), |all, (name, value)| all.with(name, *value).unwrap())
}

/// The terms, and their gradients by name: `sparse/` and `bridge/`.
fn run(pair: &Pair, device: &Device, coefficients: Coefficients) -> (Terms<f64>, BTreeMap<String, Vec<f32>>) {
    run_with(pair, device, coefficients, true)
}

/// As [`run`], and whether the sparse stream is a constant in the encoders' errors.
fn run_with(
    pair: &Pair,
    device: &Device,
    coefficients: Coefficients,
    detach_target: bool,
) -> (Terms<f64>, BTreeMap<String, Vec<f32>>) {
    let (dense, sparse, bridges) = pair.models(device);
    let dense_weights = Weights::constant(&dense, &[]);
    let objective =
        Objective { coefficients, detach_target, ..Objective::new(&dense, &dense_weights, &sparse, &bridges) };
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

/// The numbers of the pair that a gradient's name means.
fn tensor<'a>(pair: &'a mut Pair, name: &str) -> &'a mut Vec<f32> {
    let (of, name) = name.split_once('/').unwrap();
    let state: &mut State = if of == "sparse" { &mut pair.sparse.1 } else { &mut pair.bridges };
    &mut state.get_mut(name).unwrap().data
}

/// What central differences of the float64 objective say against these gradients, and how many
/// could have said anything.
fn objections(gradients: &BTreeMap<String, Vec<f32>>, draw: bool) -> (Vec<String>, usize) {
    let base = Pair::smooth();
    let (_, frozen, _) = base.terms(None, false);
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
        let total = |pair: &Pair| pair.terms(Some(&frozen), draw).0.total(&coefficients());
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
fn gradients_match_central_differences_where_targets_learn() {
    let (_, constant) = run(&Pair::smooth(), &Device::cpu(), coefficients());
    let (_, drawn) = run_with(&Pair::smooth(), &Device::cpu(), coefficients(), false);
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
