//! The evaluation against float64 loops.

use gossamer::bridges::{Objective, evaluate};
use gossamer::device::Device;
use gossamer::model::Weights;

use crate::common::devices;
use crate::pair::Pair;

fn with_objective<T>(pair: &Pair, device: &Device, f: impl FnOnce(&Objective) -> T) -> T {
    let (dense, sparse, bridges) = pair.models(device);
    let dense_weights = Weights::constant(&dense, &[]);
    f(&Objective::new(&dense, &dense_weights, &sparse, &bridges))
}

#[test]
fn every_number_agrees_with_the_oracle() {
    let pair = Pair::smooth();
    let sequences: Vec<Vec<u32>> = pair.tokens.chunks(6).map(<[u32]>::to_vec).collect();
    let (terms, ..) = pair.terms(None, false);
    let want = pair.spliced_from_all();
    for device in devices() {
        let got = with_objective(&pair, &device, |objective| evaluate(objective, &sequences, 8)).unwrap();
        let close = |what: &str, got: f64, want: f64| {
            assert!((got - want).abs() <= 2e-5 * want.abs(), "{what} is {got} instead of {want}");
        };
        assert_eq!((got.tokens, got.sites.len()), (18, 5));
        close("dense loss", got.dense_loss, want.dense_loss);
        close("sparse loss", got.sparse_loss, terms.get("cross_entropy")[0]);
        close("sparse kl", got.sparse_kl, want.sparse_kl);
        assert_eq!(got.terms["kl_sparse"], got.sparse_kl);
        for (i, at) in got.sites.iter().enumerate() {
            assert_eq!(at.site, i);
            close("nmse enc", at.terms["nmse_enc"], terms.get("nmse_enc")[i]);
            close("nmse dec", at.terms["nmse_dec"], terms.get("nmse_dec")[i]);
            for (what, hybrid, kl, (loss, mean_kl)) in [
                ("d2s", &at.d2s, terms.get("kl_d2s")[i], want.d2s[i]),
                ("s2d", &at.s2d, terms.get("kl_s2d")[i], want.s2d[i]),
            ] {
                close(&format!("{what} kl at {i}"), hybrid["kl"], kl);
                close(&format!("{what} loss at {i}"), hybrid["loss"], loss);
                close(&format!("{what} from the mean at {i}"), hybrid["mean_kl"], mean_kl);
            }
        }
    }
}

/// What does not depend on the other sequences of a batch is the same with any number of them.
#[test]
fn batches_are_averaged_by_their_tokens() {
    let pair = Pair::smooth();
    let sequences: Vec<Vec<u32>> = pair.tokens.chunks(6).map(<[u32]>::to_vec).collect();
    let [whole, parts] = [8, 2]
        .map(|size| with_objective(&pair, &Device::cpu(), |objective| evaluate(objective, &sequences, size)).unwrap());
    assert_eq!(whole.tokens, parts.tokens);
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * a.abs(), "{a} and {b}");
    close(whole.dense_loss, parts.dense_loss);
    close(whole.sparse_kl, parts.sparse_kl);
    for (a, b) in whole.sites.iter().zip(&parts.sites) {
        close(a.d2s["kl"], b.d2s["kl"]);
        close(a.s2d["loss"], b.s2d["loss"]);
        close(a.s2d["mean_kl"], b.s2d["mean_kl"]);
    }
    let nothing = with_objective(&pair, &Device::cpu(), |objective| evaluate(objective, &[], 8));
    assert!(nothing.unwrap_err().to_string().contains("no sequences"));
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_the_model_that_has_them() {
    let pair = Pair::smooth();
    let sequences: Vec<Vec<u32>> = pair.tokens.chunks(6).map(<[u32]>::to_vec).collect();
    let said = |broken: &Pair| {
        with_objective(broken, &Device::cpu(), |objective| evaluate(objective, &sequences, 8)).unwrap_err().to_string()
    };
    let mut broken = pair.clone();
    broken.dense.1.get_mut("transformer.h.0.mlp.c_fc.weight").unwrap().data[3] = f32::NAN;
    assert!(said(&broken).starts_with("the dense model's 0.mlp.post_act is not finite"));
    let mut broken = pair.clone();
    broken.sparse.1.get_mut("transformer.ln_f.weight").unwrap().data.fill(3e38);
    assert!(said(&broken).starts_with("the sparse model's logits are not finite"));
    let mut broken = pair.clone();
    broken.bridges.get_mut("enc.2.weight").unwrap().data.iter_mut().for_each(|w| *w *= 3e38);
    assert!(said(&broken).starts_with("what the encoder gives at site 2 is not finite"));
}
