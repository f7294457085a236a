//! The forward pass, site by site, against the float64 oracle.

use std::collections::BTreeMap;

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{Batch, Model, ModelConfig, Parameters, Recorder, Weights};
use gossamer::tape::Tape;

use crate::common::{devices, error};
use crate::oracle;
use crate::variants::{clear_state, every, prompts, random_state, smooth, sparse};

/// What disagrees with the oracle, of logits and sites; nothing may, and every site must have been
/// compared.
fn objections(
    config: &ModelConfig,
    state: &BTreeMap<String, HostTensor>,
    reference: &BTreeMap<String, HostTensor>,
    device: &Device,
) -> Vec<String> {
    let (sequences, length) = (3, 6);
    let tokens = prompts(config, 99, sequences, length);
    let parameters = Parameters::from_host(config, state.clone(), device).unwrap();
    let model = Model { config: config.clone(), parameters, device: device.clone() };
    let mut recorder = Recorder::default();
    let batch = Batch::new(device, config, &tokens, sequences).unwrap();
    let logits = model.forward(&mut Tape::new(), &Weights::constant(&model, &[]), &batch, &mut recorder).unwrap();

    let mut want: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sequence in tokens.chunks(length) {
        let (sites, run) = oracle::sites(config, reference, sequence);
        for (site, values) in sites.into_iter().chain([("logits".into(), run.logits)]) {
            want.entry(site).or_default().extend(values);
        }
    }
    assert_eq!(recorder.values.keys().copied().collect::<Vec<_>>(), config.sites());
    let got = recorder.values.into_iter().map(|(site, var)| (site.to_string(), var)).chain([("logits".into(), logits)]);
    let got: Vec<_> = got.collect();
    assert_eq!(want.len(), got.len());
    let compare = |(site, got): &(String, gossamer::tape::Var)| {
        let off = error(&got.value().read().unwrap(), &want[site]);
        (!off.as_ref().is_ok_and(|off| *off <= 2e-5)).then(|| format!("{site}: {off:?}"))
    };
    got.iter().filter_map(compare).collect()
}

#[test]
fn every_variant_agrees_with_the_oracle_at_every_site() {
    for device in devices() {
        for (variant, config) in every() {
            let state = clear_state(&config, prompts(&config, 99, 3, 6).chunks(6));
            let objections = objections(&config, &state, &state, &device);
            assert!(objections.is_empty(), "{variant} on {}: {objections:?}", device.describe());
        }
    }
}

#[test]
fn the_oracle_sees_planted_errors() {
    let device = Device::cpu();
    for (variant, config) in smooth() {
        let state = random_state(&config, 0);
        for name in state.keys() {
            let mut planted = state.clone();
            // Unevenly: norms take no notice of what is added to all channels.
            let data = planted.get_mut(name).unwrap().data.iter_mut();
            data.enumerate().for_each(|(i, v)| *v += 0.01 * (i as f32).cos());
            assert!(!objections(&config, &planted, &state, &device).is_empty(), "{variant}: {name}");
        }
    }
}

/// Without AbsTopK an oracle that forgets a place would not be noticed: each of them changes the
/// logits.
#[test]
fn every_place_of_abs_topk_changes_the_logits() {
    let logits = |config: &ModelConfig| oracle::forward(config, &random_state(config, 1), &[1, 2, 3], &mut |_, _| ());
    let plain = logits(&crate::variants::config(""));
    let variants = sparse();
    assert!(variants.len() >= 10);
    for (variant, config) in variants {
        let off: f64 = logits(&config).iter().zip(&plain).map(|(a, b)| (a - b).abs()).sum();
        assert!(off > 1e-2, "{variant}");
    }
}
