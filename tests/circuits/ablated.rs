//! What a circuit file says of the model without the circuit follows from the file, in float64 loops.

use gossamer::circuits::{Circuit, Layout, text_means};
use gossamer::device::Device;
use gossamer::model::ModelConfig;
use gossamer::observer::Observer;
use gossamer::text::source::Source;

use crate::checkpoint::{LOOK, circuit, tokenizer};
use crate::oracle;
use crate::variants::random_model;

#[test]
fn the_loss_without_the_circuit_follows_from_the_file() {
    let config = ModelConfig {
        block_size: 64,
        vocab_size: 512,
        n_layer: 1,
        n_head: 2,
        d_model: 16,
        rms_norm: true,
        tied_unembed: false,
        ..ModelConfig::default()
    };
    let (tokenizer, model, folder) =
        (tokenizer(), random_model(&config, 5, &Device::cpu()), tempfile::tempdir().unwrap());
    let path = folder.path().join("circuit.json");
    let found = circuit(&model, &tokenizer).at_checkpoint(&model, &tokenizer, LOOK, Default::default()).unwrap();
    found.save(&path).unwrap();

    let file = Circuit::load(&path).unwrap();
    let (state, layout) = (model.parameters.to_host().unwrap(), Layout::new(&config));
    let means = text_means(
        &model,
        &tokenizer,
        &Source::default(),
        LOOK.mean_tokens,
        &folder.path().join("means"),
        &Observer::default(),
    )
    .unwrap();
    let keep = file.keep(&layout).unwrap();
    let score = |prompt: &[u32], right: u32, wrong: u32| {
        let logits = oracle::forward(&config, &state, prompt, &mut |site, values| {
            let site = site.parse().unwrap();
            let Some(block) = layout.block(site) else { return };
            for (i, x) in values.iter_mut().enumerate() {
                if keep[block.start + i % block.width] {
                    *x = f64::from(means[&site][i % block.width]);
                }
            }
        });
        let last = &logits[logits.len() - config.vocab_size..];
        last[right as usize] - last[wrong as usize]
    };
    let calibration = file.losses.train.ablated_calibration.expect("it is in the file");
    let (mut loss, mut right, mut count) = (0.0, 0.0, 0.0);
    for pair in file.pairs(None, &tokenizer, config.block_size).unwrap().tokens {
        let clean = score(&pair.clean, pair.target, pair.alternative);
        let counterfactual = score(&pair.counterfactual, pair.alternative, pair.target);
        for z in [calibration.scale * clean + calibration.shift, calibration.scale * counterfactual - calibration.shift]
        {
            loss += (-z).exp().ln_1p();
            right += f64::from(u8::from(z > 0.0));
            count += 1.0;
        }
    }
    assert!(calibration.scale != 1.0 && calibration.shift != 0.0, "{calibration:?} would tell nothing");
    let train = &file.losses.train;
    assert!((loss / count - train.ablated).abs() < 1e-5, "{} in the file, {} by hand", train.ablated, loss / count);
    assert_eq!(right / count, train.accuracy_ablated);
    assert!(file.losses.test.ablated_calibration.is_some());
}
