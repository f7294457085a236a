//! Density and learning rate at every step, by hand and as the golden runs logged them.

use std::path::Path;

use gossamer::sparsity::{AnnealCurve, LrDecay, Schedule, Sharkfin};
use serde_json::Value;

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() <= 1e-12 * want.abs().max(1.0)
}

#[test]
fn golden_runs_logged_the_same() {
    for case in ["paper_schedule", "sparse_biases_clip"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/train").join(case).join("meta.json");
        let meta: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let h = &meta["hyperparameters"];
        let number = |key: &str| h[key].as_f64().unwrap();
        let schedule = Schedule {
            target_density: number("target_density"),
            embed_target_density: number("embed_target_density"),
            anneal_start_frac: number("anneal_start_frac"),
            anneal_stop_frac: number("anneal_stop_frac"),
            min_alive: 2,
            sparse_biases: false,
            ..Schedule::DENSE
        };
        let sharkfin = h["sharkfin"].as_bool().unwrap();
        let rate = Sharkfin { lr: number("lr"), warmup_frac: number("warmup_frac"), decay: LrDecay::Linear, sharkfin };
        let steps = h["total_steps"].as_u64().unwrap();
        let log = meta["log"].as_array().unwrap();
        assert_eq!(log.len() as u64, steps);
        for (step, line) in log.iter().enumerate() {
            let step = step as u64;
            assert!(close(schedule.density(step, steps), line["density"].as_f64().unwrap()), "{case} {step}");
            assert!(close(schedule.embed_density(step, steps), line["embed_density"].as_f64().unwrap()));
            assert!(close(rate.at(step, steps, &schedule), line["lr"].as_f64().unwrap()), "{case} {step}");
        }
    }
}

const SCHEDULE: Schedule = Schedule {
    target_density: 0.04,
    embed_target_density: 0.2,
    anneal_start_frac: 0.01,
    anneal_stop_frac: 0.5,
    min_alive: 4,
    sparse_biases: false,
    ..Schedule::DENSE
};

#[test]
fn densities_by_hand() {
    // From 1 at step 100 to the targets at step 5,000 of 10,000.
    for (step, hidden, embed) in [
        (0, 1.0, 1.0),
        (99, 1.0, 1.0),
        (100, 1.0, 1.0),
        (590, 0.904, 0.92),
        (1325, 0.76, 0.8),
        (2550, 0.52, 0.6),
        (4510, 0.136, 0.28),
        (5000, 0.04, 0.2),
        (5001, 0.04, 0.2),
        (9999, 0.04, 0.2),
        (10_000, 0.04, 0.2),
    ] {
        assert!(close(SCHEDULE.density(step, 10_000), hidden), "{step}: {}", SCHEDULE.density(step, 10_000));
        assert!(close(SCHEDULE.embed_density(step, 10_000), embed), "{step}");
    }
    let falls = (0..10_000).all(|i| SCHEDULE.density(i + 1, 10_000) <= SCHEDULE.density(i, 10_000));
    assert!(falls);
    // Not a rounding beside: floor(0.1 · 1,000) is 100.
    let ends = (1..1000).map(|i| Schedule { target_density: f64::from(i) / 1000.0, ..SCHEDULE });
    assert!(ends.into_iter().all(|s| s.density(5000, 10_000) == s.target_density));
    // At once, without a slope to divide by.
    let sudden = Schedule { anneal_start_frac: 0.5, anneal_stop_frac: 0.5, ..SCHEDULE };
    assert_eq!((sudden.density(4, 10), sudden.density(5, 10)), (1.0, 0.04));
    let from_the_start = Schedule { anneal_start_frac: 0.0, anneal_stop_frac: 0.0, ..SCHEDULE };
    assert_eq!(from_the_start.density(0, 10), 0.04);
}

#[test]
fn other_curves_by_hand() {
    let at = |schedule: &Schedule, step| schedule.density(step, 10_000);
    // Half of the way to 1/16 and back to a quarter of 1 by equal factors.
    let exponential = Schedule { anneal: AnnealCurve::Exponential, target_density: 1.0 / 16.0, ..SCHEDULE };
    assert!(close(at(&exponential, 2550), 0.25) && close(at(&exponential, 1325), 0.5));
    // From step 100 to 5,000, a factor of 50: at 100·50^(1/2) the density is the root of 1/16.
    let power = Schedule { anneal: AnnealCurve::PowerLaw, ..exponential.clone() };
    let middle = 707;
    assert!(close(at(&power, middle), (1.0f64 / 16.0).powf((middle as f64 / 100.0).ln() / 50f64.ln())));
    assert!((at(&power, middle) - 0.25).abs() < 1e-4);
    // The published linear curve with an exponent: 1 - (1 - 1/2)^3 of the way.
    let cubic = Schedule { anneal_exponent: 3.0, ..SCHEDULE };
    assert!(close(at(&cubic, 2550), 1.0 + (0.04 - 1.0) * 0.875));
    // From what a model has already; equal ends stay exactly.
    let sparse = Schedule { initial_density: 0.5, embed_initial_density: 0.3, ..SCHEDULE };
    assert!(close(at(&sparse, 0), 0.5) && close(at(&sparse, 2550), 0.27));
    assert!(close(sparse.embed_density(2550, 10_000), 0.25));
    let level = Schedule { initial_density: 0.04, ..SCHEDULE };
    assert!((0..10_000).all(|step| at(&level, step) == 0.04));
    for schedule in [exponential, power, cubic] {
        assert_eq!((at(&schedule, 99), at(&schedule, 5000)), (1.0, schedule.target_density));
        assert!((0..10_000).all(|i| at(&schedule, i + 1) <= at(&schedule, i)));
    }
}

#[test]
fn learning_rates_stay_or_follow_a_cosine() {
    let rate = Sharkfin { lr: 0.01, warmup_frac: 0.01, decay: LrDecay::Constant, sharkfin: false };
    let at = |rate: Sharkfin, step| rate.at(step, 10_000, &SCHEDULE);
    assert!([100, 5000, 9999].iter().all(|&step| at(rate, step) == 0.01));
    assert!(close(at(rate, 50), 0.005));
    let cosine = Sharkfin { decay: LrDecay::Cosine, ..rate };
    // A third of the 9,900 steps after warming up: (1 + cos 60°) / 2.
    assert!(close(at(cosine, 50), 0.005) && close(at(cosine, 100), 0.01) && close(at(cosine, 3400), 0.0075));
    assert!(close(at(cosine, 5050), 0.005) && at(cosine, 10_000).abs() < 1e-15);
}

#[test]
fn learning_rates_by_hand() {
    let rate = Sharkfin { lr: 0.01, warmup_frac: 0.01, decay: LrDecay::Linear, sharkfin: true };
    // Warm up over 100 steps, down to 0 over 9,900; √(0.04 / density) rises from 0.2 to 1.
    for (step, want) in [
        (0, 0.0),
        (50, 0.001),
        (100, 0.002),
        (2550, 0.01 * 7450.0 / 9900.0 * (0.04f64 / 0.52).sqrt()),
        (5000, 0.01 * 5000.0 / 9900.0),
        (9999, 0.01 / 9900.0),
    ] {
        let got = rate.at(step, 10_000, &SCHEDULE);
        assert!(close(got, want), "{step}: {got}, expected {want}");
    }
    let plain = Sharkfin { sharkfin: false, ..rate };
    assert!(close(plain.at(100, 10_000, &SCHEDULE), 0.01));
    assert!(close(plain.at(5050, 10_000, &SCHEDULE), 0.005));
    // Too short for a warm-up.
    let short = Sharkfin { sharkfin: false, ..rate };
    assert!(close(short.at(0, 4, &SCHEDULE), 0.01) && close(short.at(3, 4, &SCHEDULE), 0.0025));
    let all_warm = Sharkfin { warmup_frac: 1.0, ..short };
    assert!((0..=4).all(|step| all_warm.at(step, 4, &SCHEDULE).is_finite()));
}

#[test]
fn impossible_schedules_are_named() {
    SCHEDULE.validate().unwrap();
    for (schedule, named) in [
        (Schedule { target_density: 0.0, ..SCHEDULE }, "sparsity.target_density"),
        (Schedule { target_density: 1.1, ..SCHEDULE }, "sparsity.target_density"),
        (Schedule { embed_target_density: f64::NAN, ..SCHEDULE }, "sparsity.embed_target_density"),
        (Schedule { anneal_start_frac: 0.6, ..SCHEDULE }, "sparsity.anneal_stop_frac"),
        (Schedule { initial_density: 0.0, ..SCHEDULE }, "sparsity.initial_density"),
        (Schedule { embed_initial_density: 1.5, ..SCHEDULE }, "sparsity.embed_initial_density"),
        (Schedule { anneal_exponent: 0.0, ..SCHEDULE }, "sparsity.anneal_exponent"),
        (Schedule { anneal: AnnealCurve::PowerLaw, anneal_start_frac: 0.0, ..SCHEDULE }, "sparsity.anneal_start_frac"),
        (Schedule { anneal_stop_frac: 1.5, ..SCHEDULE }, "sparsity.anneal_stop_frac"),
        (Schedule { anneal_start_frac: f64::NAN, ..SCHEDULE }, "sparsity.anneal_start_frac"),
    ] {
        assert!(schedule.validate().unwrap_err().to_string().contains(&format!("`{named}`")), "{schedule:?}");
    }
}
