//! State dicts: nothing lost on the way to a device and back, and misfits are named.

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{Model, Parameters};

use crate::common::devices;
use crate::variants::{config, random_state, smooth};

fn bits(tensor: &HostTensor) -> Vec<u32> {
    tensor.data.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn there_and_back_is_bit_exact() {
    for device in devices() {
        for (variant, config) in smooth() {
            let mut state = random_state(&config, 5);
            let wte = state.get_mut("transformer.wte.weight").unwrap();
            wte.data[..5].copy_from_slice(&[-0.0, f32::MIN_POSITIVE / 8.0, f32::MAX, f32::MIN, f32::EPSILON]);
            if config.tied_unembed {
                let wte = state["transformer.wte.weight"].clone();
                state.insert("lm_head.weight".into(), wte);
            }
            let back = Parameters::from_host(&config, state.clone(), &device).unwrap().to_host().unwrap();
            assert_eq!(back.keys().collect::<Vec<_>>(), state.keys().collect::<Vec<_>>(), "{variant}");
            for (name, tensor) in &state {
                assert_eq!(back[name].shape, tensor.shape, "{variant}, {name}");
                assert_eq!(bits(&back[name]), bits(tensor), "{variant}, {name}");
            }
        }
    }
}

#[test]
fn a_folder_holds_the_whole_model() {
    let device = Device::cpu();
    for (variant, config) in smooth() {
        let parameters = Parameters::from_host(&config, random_state(&config, 5), &device).unwrap();
        let model = Model { config: config.clone(), parameters, device: device.clone() };
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let back = Model::load(folder.path(), &device).unwrap();
        assert_eq!(back.config, config, "{variant}");
        assert_eq!(back.parameters.to_host().unwrap(), model.parameters.to_host().unwrap(), "{variant}");
    }
}

#[test]
fn misfits_are_named() {
    let device = Device::cpu();
    let config = config(r#""sink": true, "d_pos_emb": 3, "tied_unembed": false, "enable_bigram_table": true"#);
    let complaint = |state| Parameters::from_host(&config, state, &device).err().map(|e| e.to_string());
    assert_eq!(complaint(random_state(&config, 1)), None);
    for (name, _, shape) in Parameters::shapes(&config) {
        let mut state = random_state(&config, 1);
        let missing = state.remove(&name).unwrap();
        match name.as_str() {
            name if name == "final_logits_bias" || name.contains("ln_p") && name.ends_with("bias") => {
                let made = Parameters::from_host(&config, state.clone(), &device).unwrap().to_host().unwrap();
                assert_eq!(made[name].data, vec![0.0; shape[0]]);
            }
            _ => assert!(complaint(state.clone()).unwrap().contains(&format!("lacks {name} {shape:?}"))),
        }
        let mut longer = missing.shape.clone();
        longer[0] += 1;
        let wrong = HostTensor { data: vec![0.0; longer.iter().product()], shape: longer.clone() };
        state.insert(name.clone(), wrong);
        let complaint = complaint(state).unwrap();
        assert!(complaint.contains(&format!("{name} has shape {longer:?}")), "{complaint}");
        assert!(complaint.contains(&format!("{shape:?}")), "{complaint}");
    }
    let mut state = random_state(&config, 1);
    state.insert("transformer.h.2.ln_1.weight".into(), HostTensor { shape: vec![12], data: vec![1.0; 12] });
    assert!(complaint(state).unwrap().contains("transformer.h.2.ln_1.weight"));
}

/// Names and shapes as the published state dict has them, written out by hand.
#[test]
fn names_and_shapes_are_the_published_ones() {
    let config = config(
        r#""n_layer": 1, "d_head": 5, "sink": true, "d_pos_emb": 3, "tied_unembed": false, "rms_norm": true,
           "enable_bigram_table": true"#,
    );
    let mut got: Vec<_> = Parameters::shapes(&config).into_iter().map(|(name, _, shape)| (name, shape)).collect();
    got.sort();
    let want: [(&str, &[usize]); 19] = [
        ("bigram_table", &[19, 19]),
        ("final_logits_bias", &[19]),
        ("lm_head.weight", &[19, 12]),
        ("transformer.h.0.attn.attn_imp.sink_logit", &[2]),
        ("transformer.h.0.attn.c_attn.bias", &[30]),
        ("transformer.h.0.attn.c_attn.weight", &[30, 15]),
        ("transformer.h.0.attn.c_proj.bias", &[12]),
        ("transformer.h.0.attn.c_proj.weight", &[12, 10]),
        ("transformer.h.0.ln_1.weight", &[12]),
        ("transformer.h.0.ln_2.weight", &[12]),
        ("transformer.h.0.ln_p1.weight", &[3]),
        ("transformer.h.0.ln_p2.weight", &[3]),
        ("transformer.h.0.mlp.c_fc.bias", &[20]),
        ("transformer.h.0.mlp.c_fc.weight", &[20, 15]),
        ("transformer.h.0.mlp.c_proj.bias", &[12]),
        ("transformer.h.0.mlp.c_proj.weight", &[12, 20]),
        ("transformer.ln_f.weight", &[12]),
        ("transformer.wpe.weight", &[7, 3]),
        ("transformer.wte.weight", &[19, 12]),
    ];
    let want: Vec<_> = want.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
    assert_eq!(got, want);
}

#[test]
fn models_start_as_the_method_says() {
    let config = config(
        r#""vocab_size": 300, "d_model": 64, "d_mlp": 256, "sink": true, "tied_unembed": false,
           "enable_bigram_table": true"#,
    );
    let start = |device: &Device| Parameters::initialise(&config, 11, device).unwrap().to_host().unwrap();
    let starts: Vec<_> = devices().iter().map(start).collect();
    assert_eq!(starts[0], starts[1]);
    let other = Parameters::initialise(&config, 12, &Device::cpu()).unwrap().to_host().unwrap();
    for (name, tensor) in &starts[0] {
        let n = tensor.data.len() as f64;
        let mean = tensor.data.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let std = (tensor.data.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let normal = |want: f64| {
            assert!((std / want - 1.0).abs() < 0.03 && mean.abs() < 4.0 * want / n.sqrt(), "{name}: {mean} ± {std}");
            assert_ne!(tensor, &other[name], "{name} does not depend on the seed");
        };
        match name.as_str() {
            "bigram_table" => {
                assert!(tensor.data.iter().all(|v| (0.0..=0.02).contains(v)) && (mean - 0.01).abs() < 1e-4);
                assert!((std / (0.02 / 12f64.sqrt()) - 1.0).abs() < 0.02, "{name}: {std}");
            }
            // Two layers: 0.02/√4.
            _ if name.ends_with("c_proj.weight") => normal(0.01),
            _ if name.ends_with("c_attn.weight") || name.ends_with("c_fc.weight") => normal(0.02),
            "transformer.wte.weight" | "lm_head.weight" => normal(0.02),
            _ if name.contains("ln_") && name.ends_with("weight") => assert_eq!((mean, std), (1.0, 0.0), "{name}"),
            _ => assert!(tensor.data.iter().all(|v| *v == 0.0), "{name}"),
        }
    }
}
