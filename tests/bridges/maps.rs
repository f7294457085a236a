use gossamer::bridges::Bridges;
use gossamer::device::{Device, Tensor};
use gossamer::model::ModelConfig;
use gossamer::train::bridge::EncoderKind::{AbsTopK, Threshold};

use crate::common::{devices, put};
use crate::pair::{AFRAC, Pair};
use crate::variants::config;

fn pair() -> (ModelConfig, ModelConfig) {
    (config(""), config(r#""d_model": 20"#))
}

#[test]
fn they_start_small_and_from_their_seed_alone() {
    let (dense, sparse) = pair();
    let start =
        |device: &Device, seed| Bridges::new(&dense, &sparse, AbsTopK, AFRAC, seed, device).unwrap().to_host().unwrap();
    let host = start(&Device::cpu(), 1);
    assert_eq!(host.len(), 4 * 5);
    assert_eq!((&host["enc.4.weight"].shape[..], &host["dec.0.weight"].shape[..]), (&[20, 12][..], &[12, 20][..]));
    let weights: Vec<f32> =
        host.iter().filter(|(n, _)| n.ends_with("weight")).flat_map(|(_, t)| t.data.clone()).collect();
    let deviation = (weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32).sqrt();
    assert!((deviation - 0.02).abs() < 1e-3, "{deviation} over {}", weights.len());
    assert!(host.iter().filter(|(n, _)| n.ends_with("bias")).all(|(_, t)| t.data.iter().all(|v| *v == 0.0)));
    for device in devices() {
        assert_eq!(start(&device, 1), host);
        assert_ne!(start(&device, 2), host);
    }
}

#[test]
fn models_and_tensors_that_do_not_fit_are_refused() {
    let (dense, sparse) = pair();
    let device = Device::cpu();
    let refused = |dense: &ModelConfig, sparse: &ModelConfig, afrac, reason: &str| {
        let message = Bridges::new(dense, sparse, AbsTopK, afrac, 0, &device).err().expect(reason).to_string();
        assert!(message.contains(reason), "{message}");
    };
    refused(&dense, &config(r#""n_layer": 3"#), AFRAC, "the dense model has 2 layers and the sparse one 3");
    refused(&dense, &config(r#""vocab_size": 20"#), AFRAC, "the dense model has 19 tokens and the sparse one 20");
    refused(&dense, &sparse, 0.0, "0 is not in (0, 1]");
    refused(&dense, &sparse, 1.5, "1.5 is not in (0, 1]");
    refused(&dense, &sparse, 0.04, "0.04 of 20 channels is none");

    let host = Pair::new(dense.clone(), sparse.clone(), 1).bridges;
    let from =
        |host: &_| Bridges::from_host(&dense, &sparse, AbsTopK, AFRAC, host, &device).err().map(|e| e.to_string());
    assert_eq!(from(&host), None);
    let mut short = host.clone();
    short.remove("dec.3.bias");
    assert!(from(&short).unwrap().contains("lacks dec.3.bias [12]"));
    let mut long = host.clone();
    long.insert("enc.5.bias".into(), host["enc.4.bias"].clone());
    assert!(from(&long).unwrap().contains("enc.5.bias is no part"));
    let mut turned = host;
    turned.get_mut("enc.0.weight").unwrap().shape = vec![12, 20];
    assert!(from(&turned).unwrap().contains("lacks enc.0.weight [20, 12]"));

    let bridges = Bridges::new(&dense, &sparse, AbsTopK, AFRAC, 0, &device).unwrap();
    let h: Tensor = put(&device, &[1, 20], &[0.0; 20]);
    let h = gossamer::tape::Var::constant(h);
    let mut tape = gossamer::tape::Tape::new();
    assert!(bridges.encode(&mut tape, &bridges.constants(), 0, &h, None).is_err(), "a sparse stream to an encoder");
    let message = bridges.decode(&mut tape, &bridges.constants(), 5, &h).unwrap_err().to_string();
    assert!(message.contains("no site 5 among 5"), "{message}");
}

#[test]
fn tensors_that_are_not_finite_are_named() {
    let mut pair = crate::pair::Pair::smooth();
    pair.bridges.get_mut("dec.1.bias").unwrap().data[2] = f32::NAN;
    let (dense, sparse) = (&pair.dense.0, &pair.sparse.0);
    let cpu = gossamer::device::Device::cpu();
    let said = gossamer::bridges::Bridges::from_host(dense, sparse, AbsTopK, AFRAC, &pair.bridges, &cpu);
    assert!(said.err().unwrap().to_string().contains("dec.1.bias holds NaN at [2]"));
}

#[test]
fn thresholds_follow_the_other_tensors_which_start_as_without_them() {
    let (dense, sparse) = pair();
    for device in devices() {
        let new = |encoder| Bridges::new(&dense, &sparse, encoder, AFRAC, 1, &device).unwrap();
        let (plain, thresholds) = (new(AbsTopK), new(Threshold));
        assert_eq!((plain.list.len(), thresholds.list.len()), (20, 25));
        for (site, map) in thresholds.list[20..].iter().enumerate() {
            assert_eq!((map.name.as_str(), map.value.shape()), (format!("enc.{site}.log_eps").as_str(), &[20][..]));
            assert_eq!(map.value.read().unwrap(), [-1.0; 20]);
        }
        let mut host = thresholds.to_host().unwrap();
        let from = |host: &_| Bridges::from_host(&dense, &sparse, Threshold, AFRAC, host, &device);
        assert_eq!(from(&host).unwrap().to_host().unwrap(), host);
        host.retain(|name, _| !name.ends_with("log_eps"));
        assert_eq!(host, plain.to_host().unwrap());
        assert!(from(&host).err().unwrap().to_string().contains("lacks enc.0.log_eps [20]"));
    }
    let message = Bridges::from_host(
        &dense,
        &sparse,
        AbsTopK,
        AFRAC,
        &Pair::with(Threshold, dense.clone(), sparse.clone(), 1).bridges,
        &Device::cpu(),
    );
    assert!(message.err().unwrap().to_string().contains("enc.0.log_eps is no part"));
}
