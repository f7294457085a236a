//! Numbers that are not finite: a forward pass names the first site that has them, wherever they
//! were planted.

use gossamer::Error;
use gossamer::device::Device;
use gossamer::model::{
    Batch, Generator, Model, ModelConfig, NoHooks, Parameters, Pass, Recorder, Sampling, Weights, evaluate,
};
use gossamer::observer::Observer;
use gossamer::tape::Tape;

use crate::common::devices;
use crate::variants::{as_published, config, every, random_model, random_state};

/// The first site that a parameter shows at.
fn first_site(config: &ModelConfig, name: &str) -> Vec<String> {
    let Some((layer, part)) = name.strip_prefix("transformer.h.").and_then(|name| name.split_once('.')) else {
        return match name {
            "transformer.wte.weight" => vec!["0.resid_in".into()],
            "transformer.wpe.weight" if config.d_pos_emb.is_none() => vec!["0.resid_in".into()],
            "transformer.wpe.weight" => vec!["0.attn.act_in".into()],
            _ => vec!["logits".into()],
        };
    };
    let sites: &[&str] = match part.rsplit_once('.').map_or(part, |(part, _)| part) {
        "ln_1" | "ln_p1" => &["attn.act_in"],
        "attn.c_attn" => &["attn.q", "attn.k", "attn.v"],
        "attn.attn_imp" => &["attn.y"],
        "attn.c_proj" => &["attn.resid_delta"],
        "ln_2" | "ln_p2" => &["mlp.act_in"],
        "mlp.c_fc" => &["mlp.post_act"],
        "mlp.c_proj" => &["mlp.resid_delta"],
        other => panic!("{other} shows nowhere"),
    };
    sites.iter().map(|site| format!("{layer}.{site}")).collect()
}

/// A prompt with every token and every position that the model has.
fn everything(config: &ModelConfig) -> Vec<Vec<u32>> {
    let ids: Vec<u32> = (0..config.vocab_size.next_multiple_of(config.block_size) as u32).collect();
    ids.chunks(config.block_size).map(|ids| ids.iter().map(|id| id % config.vocab_size as u32).collect()).collect()
}

#[track_caller]
fn site<T>(result: gossamer::Result<T>) -> (String, f32, Option<[usize; 3]>, Option<String>) {
    match result {
        Err(Error::NonFiniteSite { site, value, at, weights }) => (site, value, at, weights),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is fine"),
    }
}

#[test]
fn one_number_in_any_parameter_is_named_with_the_first_site() {
    let cpu = every().into_iter().map(|(name, config)| (name, config, Device::cpu()));
    let gpu = devices().into_iter().filter(|device| !device.is_cpu()).map(|gpu| ("gpu".into(), as_published(), gpu));
    for (variant, config, device) in cpu.chain(gpu) {
        for (name, _, shape) in Parameters::shapes(&config) {
            let mut state = random_state(&config, 3);
            let data = &mut state.get_mut(&name).unwrap().data;
            let at = data.len() / 2;
            data[at] = f32::NAN;
            let parameters = Parameters::from_host(&config, state, &device).unwrap();
            let model = Model { config: config.clone(), parameters, device: device.clone() };
            let (found, value, _, weights) =
                site(evaluate(&model, &everything(&config), 4, false, &Observer::default()));
            let expected = first_site(&config, &name);
            assert!(expected.contains(&found), "{variant}: NaN in {name} is first seen at {found}, not {expected:?}");
            assert!(value.is_nan() && weights.unwrap().starts_with(&format!("{name} holds NaN at [")), "{shape:?}");
        }
    }
}

/// As training writes them, without a check of the numbers.
fn written(device: &Device, config: &ModelConfig, name: &str, change: impl FnOnce(&mut [f32])) -> Model {
    let mut model = random_model(config, 4, device);
    let parameter = model.parameters.iter_mut().find(|p| p.name == name).unwrap();
    let mut data = parameter.read().unwrap().data;
    change(&mut data);
    parameter.dense_mut().unwrap().write(&data).unwrap();
    model
}

#[test]
fn numbers_that_came_after_loading_are_found_too() {
    for device in devices() {
        let model = written(&device, &config(""), "transformer.h.1.mlp.c_fc.weight", |data| data[7] = f32::INFINITY);
        let (found, _, at, weights) = site(model.next_token(&[1, 2, 3], &mut NoHooks));
        assert_eq!((found.as_str(), at.unwrap()[0]), ("1.mlp.post_act", 0), "{}", device.describe());
        assert!(weights.unwrap().contains("holds inf at [0, 7]"));
    }
}

#[test]
fn generation_goes_on_until_a_number_is_not_finite() {
    for device in devices() {
        // Position 4 of 7 is reached by the fifth token.
        let model = written(&device, &config(""), "transformer.wpe.weight", |data| data[4 * 12 + 5] = f32::NAN);
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        for cached in [true, false] {
            let generator = Generator::new(&model, &[1, 2, 3], sampling).unwrap();
            let mut generator = if cached { generator } else { generator.without_cache() };
            for _ in 0..2 {
                generator.next_token().unwrap().unwrap();
            }
            let (found, _, at, _) = site(generator.next_token());
            assert_eq!((found.as_str(), at), ("0.resid_in", Some([0, 4, 5])), "{}", device.describe());
        }
    }
}

#[test]
fn finite_weights_whose_logits_overflow_are_refused() {
    for device in devices() {
        let model = written(&device, &config(""), "transformer.ln_f.weight", |data| data.fill(3e38));
        let (found, value, _, weights) = site(model.next_token(&[1, 2, 3], &mut NoHooks));
        assert_eq!((found.as_str(), value.is_infinite() || value.is_nan(), weights), ("logits", true, None));
    }
}

#[test]
fn a_logit_of_minus_infinity_beside_a_finite_loss_is_refused() {
    for device in devices() {
        let model = written(&device, &config(""), "final_logits_bias", |data| data[18] = f32::NEG_INFINITY);
        let (found, value, ..) = site(evaluate(&model, &[vec![1, 2, 3, 4]], 1, false, &Observer::default()));
        assert_eq!((found.as_str(), value), ("logits", f32::NEG_INFINITY), "{}", device.describe());
    }
}

#[test]
fn large_finite_streams_do_not_vanish_under_a_norm() {
    for device in devices() {
        for fields in ["", r#""rms_norm": true"#] {
            let model = written(&device, &config(fields), "transformer.wte.weight", |data| {
                data.iter_mut().for_each(|v| *v *= 1e30);
            });
            let (found, ..) = site(model.next_token(&[1, 2, 3], &mut NoHooks));
            assert_eq!(found, "0.attn.act_in", "{fields} on {}", device.describe());
        }
    }
}

#[test]
fn an_unchecked_pass_shows_every_site() {
    let config = config("");
    let mut state = random_state(&config, 3);
    state.get_mut("transformer.h.0.attn.c_attn.weight").unwrap().data[5] = f32::NAN;
    let parameters = Parameters::from_host(&config, state, &Device::cpu()).unwrap();
    let model = Model { config: config.clone(), parameters, device: Device::cpu() };
    let (weights, batch) = (Weights::constant(&model, &[]), Batch::new(&model.device, &config, &[1, 2], 1).unwrap());
    let (mut tape, mut recorder) = (Tape::new(), Recorder::default());
    Pass::new(&model, &weights, &batch, &mut tape, &mut recorder).unchecked().logits().unwrap();
    assert_eq!(recorder.values.len(), config.sites().len());
    site(model.forward(&mut Tape::new(), &weights, &batch, &mut Recorder::default()));
}
