//! Forward passes in parts: begun and ended at residual sites, several through the same layers at
//! once.

use gossamer::device::{Device, Tensor};
use gossamer::model::{Model, NoHooks, Pass, Recorder, Weights};
use gossamer::tape::{Tape, Var};

use crate::common::{assert_close, devices, normal, put, rng, wide};
use crate::variants::{as_published, batch, config, every, random_model};

/// The residual stream at every site, and the logits, of a whole pass.
fn whole(model: &Model) -> (Vec<Tensor>, Tensor) {
    let mut recorder =
        Recorder::of((0..model.config.residual_sites()).map(|number| model.config.residual_site(number)));
    let batch = batch(&model.config, &model.device);
    let weights = Weights::constant(model, &[]);
    let logits = model.forward(&mut Tape::new(), &weights, &batch, &mut recorder).unwrap();
    let sites: Vec<_> = recorder.values.into_values().map(|var| var.value().clone()).collect();
    assert_eq!(sites.len(), model.config.residual_sites());
    (sites, logits.value().clone())
}

/// Does `f` with a pass of the model's batch that has not begun.
fn with_pass<T>(model: &Model, f: impl FnOnce(&mut Pass) -> T) -> T {
    let (batch, weights) = (batch(&model.config, &model.device), Weights::constant(model, &[]));
    let (mut tape, mut hooks) = (Tape::new(), NoHooks);
    f(&mut Pass::new(model, &weights, &batch, &mut tape, &mut hooks))
}

fn read(tensor: &Tensor) -> Vec<f32> {
    tensor.read().unwrap()
}

#[test]
fn parts_make_up_the_whole_bit_for_bit() {
    for (variant, config) in every() {
        let model = random_model(&config, 1, &Device::cpu());
        let (sites, logits) = whole(&model);
        let last = sites.len() - 1;
        for (start, stream) in sites.iter().enumerate() {
            with_pass(&model, |pass| {
                let mut x = if start == 0 { pass.embed().unwrap() } else { Var::constant(stream.clone()) };
                for (site, stream) in sites.iter().enumerate().skip(start) {
                    assert_eq!(read(x.value()), read(stream), "{variant}: from {start}, at {site}");
                    x = if site < last { pass.advance(x, site..site + 1).unwrap() } else { x };
                }
                assert_eq!(read(pass.unembed(x).unwrap().value()), read(&logits), "{variant}: from {start}");
            });
        }
    }
}

/// Streams that enter at different sites continue together as they would alone.
#[test]
fn hybrids_go_through_layers_together() {
    for device in devices() {
        for config in [as_published(), config(r#""d_pos_emb": 3, "enable_bigram_table": true"#), config("")] {
            let model = random_model(&config, 1, &device);
            let (batch, d) = (batch(&config, &device), config.d_model);
            let (b, t) = batch.shape();
            let last = config.residual_sites() - 1;
            let mut rng = rng(5);
            let entries: Vec<Vec<f32>> = (0..2).map(|_| normal(&mut rng, b * t * d)).collect();
            let entry = |i: usize| Var::constant(put(&device, &[b, t, d], &entries[i]));
            let mut apart = Vec::new();
            for (i, site) in [(0, 1), (1, 2)] {
                with_pass(&model, |pass| {
                    let x = pass.advance(entry(i), site..last).unwrap();
                    apart.extend(read(pass.unembed(x).unwrap().value()));
                });
            }
            let together = with_pass(&model, |pass| {
                let first = pass.advance(entry(0), 1..2).unwrap();
                let both = pass.tape.concat(&[&first, &entry(1)], 0).unwrap();
                let both = pass.advance(both, 2..last).unwrap();
                pass.unembed(both).unwrap().value().clone()
            });
            assert_eq!(together.shape(), [2 * b, t, config.vocab_size]);
            assert_close("logits", &read(&together), &wide(&apart), 1e-5);
        }
    }
}

#[test]
fn streams_and_sublayers_that_do_not_fit_are_refused() {
    let device = Device::cpu();
    let model = random_model(&config(""), 1, &device);
    let stream = |shape: &[usize]| Var::constant(device.zeros("stream", shape).unwrap());
    with_pass(&model, |pass| {
        let message = pass.advance(stream(&[3, 6, 12]), 2..5).unwrap_err().to_string();
        assert!(message.contains("sublayers 2..5 of 4"), "{message}");
        for shape in [&[2, 6, 12][..], &[3, 5, 12], &[3, 6, 11], &[18, 12], &[0, 6, 12]] {
            let message = pass.advance(stream(shape), 0..0).unwrap_err().to_string();
            assert!(message.contains(&format!("{shape:?}")) && message.contains("(n·3, 6, 12)"), "{message}");
            assert!(pass.unembed(stream(shape)).is_err());
        }
    });
}
