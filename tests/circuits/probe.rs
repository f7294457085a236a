//! Logit differences of a model, a circuit and its complement against float64 loops, and the means
//! that ablated nodes take.

use std::collections::BTreeMap;

use gossamer::circuits::{Circuit, Layout, NodeEntry, NodeKind, Probe, mean_activations, stored_means};
use gossamer::device::Device;
use gossamer::files::{HostTensor, save_tensors};
use gossamer::model::{Edit, Model, ModelConfig, Parameters, Site, SiteKind};
use gossamer::observer::Observer;

use crate::common::{assert_close, devices};
use crate::oracle;
use crate::variants::{config, prompts, random_state};

type State = BTreeMap<String, HostTensor>;
type Means = BTreeMap<Site, Vec<f32>>;

fn settings() -> (ModelConfig, State) {
    let config = config(r#""rms_norm": true, "sink": true, "d_pos_emb": 3"#);
    let state = random_state(&config, 4);
    (config, state)
}

fn model(config: &ModelConfig, state: &State, device: &Device) -> Model {
    let parameters = Parameters::from_host(config, state.clone(), device).unwrap();
    Model { config: config.clone(), parameters, device: device.clone() }
}

/// Every third node, and of the others every fourth one excluded.
fn circuit(config: &ModelConfig) -> Circuit {
    let mut circuit: Circuit = serde_json::from_str(include_str!("../../docs/circuit-example.json")).unwrap();
    circuit.model = gossamer::circuits::ModelRef::new("somewhere", "", config);
    let layout = Layout::new(config);
    let nodes = |keep: &dyn Fn(usize) -> bool| {
        (0..layout.len()).filter(|&n| keep(n)).filter_map(|n| layout.node(n)).collect::<Vec<_>>()
    };
    circuit.nodes = nodes(&|n| n % 3 == 0).into_iter().map(|node| NodeEntry::new(node, &circuit.model)).collect();
    circuit.excluded = nodes(&|n| n % 3 != 0 && n % 4 == 0);
    circuit
}

/// The means of the nodes' sites over some text, in float64.
fn means(config: &ModelConfig, state: &State, text: &[Vec<u32>]) -> BTreeMap<Site, Vec<f64>> {
    let layout = Layout::with_final_resid(config);
    let mut sums: BTreeMap<Site, Vec<f64>> = BTreeMap::new();
    for tokens in text {
        let (seen, _) = oracle::sites(config, state, tokens);
        for block in layout.blocks() {
            let sum = sums.entry(block.site).or_insert_with(|| vec![0.0; block.width]);
            seen[&block.site.to_string()].iter().enumerate().for_each(|(i, x)| sum[i % block.width] += x);
        }
    }
    let count = text.iter().map(Vec::len).sum::<usize>() as f64;
    sums.into_iter().map(|(site, sum)| (site, sum.into_iter().map(|x| x / count).collect())).collect()
}

fn narrow(means: &BTreeMap<Site, Vec<f64>>) -> Means {
    means.iter().map(|(site, mean)| (*site, mean.iter().map(|&x| x as f32).collect())).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - top).exp()).sum();
    logits.iter().map(|x| (x - top).exp() / sum).collect()
}

/// An edit by hand: a site, a channel, the first position, and what becomes of the activation given
/// its mean.
type Hand = (&'static str, usize, usize, fn(f64, f64) -> f64);

#[test]
fn model_circuit_and_rest_say_what_the_oracle_says() {
    let (config, state) = settings();
    let (circuit, layout) = (circuit(&config), Layout::new(&config));
    let text: Vec<Vec<u32>> = (0..3).map(|seed| prompts(&config, seed, 1, 6)).collect();
    let wide = means(&config, &state, &text);
    let tokens = prompts(&config, 77, 1, 5);
    let (keep, excluded) = (circuit.keep(&layout).unwrap(), &circuit.excluded);
    let oracle = |gates: &dyn Fn(usize) -> bool, hands: &[Hand]| {
        let mut seen = BTreeMap::new();
        let logits = oracle::forward(&config, &state, &tokens, &mut |name, values| {
            let site = name.parse().unwrap();
            if let Some(block) = layout.block(site) {
                for (i, x) in values.iter_mut().enumerate() {
                    if !gates(block.start + i % block.width) {
                        *x = wide[&site][i % block.width];
                    }
                }
                let hands = hands.iter().filter(|hand| hand.0 == name);
                for (_, channel, from, change) in hands {
                    for t in *from..tokens.len() {
                        let x = &mut values[t * block.width + channel];
                        *x = change(*x, wide[&site][*channel]);
                    }
                }
            }
            seen.insert(name.to_string(), values.clone());
        });
        (softmax(&logits[logits.len() - config.vocab_size..]), seen)
    };
    let cases: [(&[&str], &[Hand]); 3] = [
        (&[], &[]),
        (&["0.attn.v[3]=2.5"], &[("0.attn.v", 3, 0, |_, _| 2.5)]),
        (
            &["0.mlp.post_act[4]=mean", "1.attn.act_in[6]@-2:+=1", "0.attn.resid_delta[0]*=-2"],
            &[
                ("0.mlp.post_act", 4, 0, |_, mean| mean),
                ("1.attn.act_in", 6, 3, |x, _| x + 1.0),
                ("0.attn.resid_delta", 0, 0, |x, _| -2.0 * x),
            ],
        ),
    ];
    for device in devices() {
        let model = model(&config, &state, &device);
        let probe = Probe::new(&model, &circuit, narrow(&wide)).unwrap();
        let mut said = Vec::new();
        for (edits, hands) in &cases {
            let edits: Vec<Edit> = edits.iter().map(|edit| edit.parse().unwrap()).collect();
            let got = probe.run(&tokens, &edits).unwrap();
            let (whole, sites) = oracle(&|_| true, hands);
            let kept = |n: usize| keep[n] && !excluded.contains(&layout.node(n).unwrap());
            let left = |n: usize| !keep[n] && !excluded.contains(&layout.node(n).unwrap());
            for (what, got, want) in [
                ("model", &got.model, &whole),
                ("circuit", &got.circuit, &oracle(&kept, hands).0),
                ("rest", &got.complement, &oracle(&left, hands).0),
            ] {
                let got: Vec<f32> = got.iter().map(|&p| p as f32).collect();
                assert_close(&format!("{what} with {edits:?}"), &got, want, 2e-5);
            }
            assert_eq!(got.sites.len(), config.sites().len());
            for (site, want) in &sites {
                assert_close(site, &got.sites[&site.parse().unwrap()].data, want, 2e-5);
            }
            said.push([got.model, got.circuit, got.complement]);
        }
        let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart(&said[0][0], &said[0][1]) > 1e-3 && apart(&said[0][1], &said[0][2]) > 1e-3);
        assert!((0..3).all(|part| apart(&said[0][part], &said[2][part]) > 1e-4), "the edits do nothing");
    }
}

#[test]
fn after_an_earlier_token_it_says_what_it_says_to_the_shorter_prompt() {
    let (config, state) = settings();
    let model = model(&config, &state, &Device::cpu());
    let tokens = &prompts(&config, 1, 1, 6)[..6];
    let means = narrow(&means(&config, &state, &[prompts(&config, 1, 1, 6)]));
    let probe = Probe::new(&model, &circuit(&config), means).unwrap();
    let edits = ["1.attn.act_in[6]@1=2".parse().unwrap()];
    for at in 1..tokens.len() {
        let (got, want) = (probe.run_at(tokens, &edits, at).unwrap(), probe.run(&tokens[..=at], &edits).unwrap());
        for (what, got, want) in [("model", got.model, want.model), ("circuit", got.circuit, want.circuit)] {
            let got: Vec<f32> = got.into_iter().map(|p| p as f32).collect();
            assert_close(&format!("{what} at {at}"), &got, &want, 1e-5);
        }
    }
    assert!(probe.run_at(tokens, &[], 6).unwrap_err().to_string().contains("positions"));
}

#[test]
fn what_cannot_be_asked_is_refused_in_words() {
    let (config, state) = settings();
    let model = model(&config, &state, &Device::cpu());
    let means = narrow(&means(&config, &state, &[prompts(&config, 1, 1, 6)]));
    let circuit = circuit(&config);
    let probe = Probe::new(&model, &circuit, means.clone()).unwrap();
    let says = |prompt: &[u32], edit: &str| {
        let edits: Vec<Edit> = edit.parse().into_iter().collect();
        probe.run(prompt, &edits).unwrap_err().to_string()
    };
    assert!(says(&[], "").contains("0 tokens"));
    assert!(says(&[1; 8], "").contains("block_size"));
    assert!(says(&[99], "").contains("99"));
    assert!(says(&[1], "9.attn.q=0").contains("no such site"));
    assert!(says(&[1], "0.resid_mid=mean").contains("mean"));
    assert!(says(&[1], "0.attn.q[3]=patch").contains("patch"));
    let mut other = circuit.clone();
    other.nodes[0] = NodeEntry { index: 9999, ..NodeEntry::new(circuit.nodes[0].node(), &circuit.model) };
    let error = Probe::new(&model, &other, means.clone()).err().unwrap().to_string();
    assert!(error.contains("no node") && error.contains("9999"), "{error}");
    let mut few = means;
    few.remove(&SiteKind::AttnK.at(1));
    assert!(Probe::new(&model, &circuit, few).err().unwrap().to_string().contains("1.attn.k"));
}

#[test]
fn means_are_those_of_the_text_and_of_the_file() {
    let (config, state) = settings();
    let model = model(&config, &state, &Device::cpu());
    let text: Vec<Vec<u32>> = (0..11).map(|seed| prompts(&config, seed, 1, 6)).collect();
    let (got, want) = (mean_activations(&model, &text, &Observer::default()).unwrap(), means(&config, &state, &text));
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    got.iter().for_each(|(site, mean)| assert_close(&site.to_string(), mean, &want[site], 1e-5));

    let folder = tempfile::tempdir().unwrap();
    let tensor = |mean: &Vec<f32>| HostTensor { shape: vec![mean.len()], data: mean.clone() };
    let tensors = got.iter().map(|(site, mean)| (site.to_string(), tensor(mean))).collect();
    let about = [("model".to_string(), "sha256:1".to_string())].into();
    assert_eq!(stored_means(folder.path(), "sha256:1").unwrap(), None);
    save_tensors(folder.path().join("means.safetensors"), &tensors, Some(about)).unwrap();
    assert_eq!(stored_means(folder.path(), "sha256:1").unwrap().as_ref(), Some(&got));
    assert_eq!(stored_means(folder.path(), "sha256:2").unwrap(), None);

    let mut circuit = circuit(&config);
    for entry in &mut circuit.nodes {
        entry.mean = f64::from(got[&entry.node().site()][entry.index]);
    }
    circuit.check_means(&got).unwrap();
    // A circuit of another program does not say what its means are.
    circuit.model.hash = "sha256:1".into();
    let moved = circuit.nodes.iter_mut().find(|entry| entry.kind == NodeKind::MlpNeuron).unwrap();
    moved.mean += 0.1;
    let name = moved.node().to_string();
    let error = circuit.check_means(&got).unwrap_err().to_string();
    assert!(error.contains(&name) && error.contains("found with"), "{error}");
}

#[test]
fn a_circuit_of_another_model_is_refused_with_both_hashes() {
    let (config, state) = settings();
    let model = model(&config, &state, &Device::cpu());
    let means = Layout::new(&config).blocks().iter().map(|block| (block.site, vec![0.0; block.width])).collect();
    let mut circuit = circuit(&config);
    circuit.model.hash = "sha256:other".into();
    let said = Probe::new(&model, &circuit, means).err().unwrap().to_string();
    assert!(said.contains("sha256:other") && said.contains(&model.hash().unwrap()), "{said}");
}

#[test]
fn stored_means_that_are_not_finite_are_named_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = HostTensor { shape: vec![3], data: vec![0.0, 1.0, f32::NAN] };
    let about = [("model".to_string(), "sha256:1".to_string())].into();
    let path = folder.path().join("means.safetensors");
    save_tensors(&path, &[("0.attn.v".to_string(), tensor)].into(), Some(about)).unwrap();
    let said = stored_means(folder.path(), "sha256:1").unwrap_err().to_string();
    assert!(said.contains("means.safetensors: 0.attn.v holds NaN at [2]"), "{said}");
}
