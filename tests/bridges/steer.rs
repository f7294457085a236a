//! Steering against float64 loops.

use std::collections::BTreeMap;

use gossamer::bridges::{Change, Channel, PromptPair, Ratio, Steering};
use gossamer::device::Device;
use gossamer::model::Edit;

use crate::common::devices;
use crate::oracle;
use crate::pair::Pair;

fn channel(text: &str) -> Channel {
    text.parse().unwrap()
}

fn sequences(pair: &Pair) -> Vec<Vec<u32>> {
    pair.tokens.chunks(pair.tokens.len() / pair.sequences).map(<[u32]>::to_vec).collect()
}

fn with_steering<T>(pair: &Pair, device: &Device, ratio: Ratio, f: impl FnOnce(&Steering) -> T) -> T {
    let (dense, sparse, bridges) = pair.models(device);
    f(&Steering::new(&dense, &sparse, &bridges, &sequences(pair), ratio).unwrap())
}

/// The streams' root mean squares before a sublayer; the dense model of the pair has LayerNorm.
fn scales(pair: &Pair, sublayer: usize) -> (f64, f64) {
    let site = format!("{}.resid_{}", sublayer / 2, if sublayer.is_multiple_of(2) { "in" } else { "mid" });
    let of = |(config, state): &(gossamer::model::ModelConfig, crate::pair::State), centred: bool| {
        let mut all = Vec::new();
        for tokens in sequences(pair) {
            let (seen, _) = oracle::sites(config, state, &tokens);
            for row in seen[&site].chunks(config.d_model) {
                let mean = if centred { row.iter().sum::<f64>() / row.len() as f64 } else { 0.0 };
                all.push((row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64).sqrt());
            }
        }
        all.iter().sum::<f64>() / all.len() as f64
    };
    (of(&pair.dense, true), of(&pair.sparse, false))
}

/// The dense model's probabilities with `amounts` of channels of the sparse model added, through
/// decoders scaled by `ratio`.
fn steered(pair: &Pair, prompt: &[u32], amounts: &BTreeMap<Channel, Vec<f64>>, ratio: Ratio) -> Vec<f64> {
    let (config, state) = &pair.dense;
    let logits = oracle::forward(config, state, prompt, &mut |at, values| {
        for (channel, amounts) in amounts.iter().filter(|(channel, _)| channel.site().to_string() == at) {
            let weight = &pair.bridges[&format!("dec.{}.weight", channel.sublayer)];
            let (dense, sparse) = scales(pair, channel.sublayer);
            let scale = if ratio == Ratio::DenseOverSparse { dense / sparse } else { sparse / dense };
            for (row, amount) in values.chunks_mut(config.d_model).zip(amounts) {
                for (j, value) in row.iter_mut().enumerate() {
                    *value += scale * amount * f64::from(weight.data[j * weight.shape[1] + channel.index]);
                }
            }
        }
    });
    let last = &logits[logits.len() - config.vocab_size..];
    let top = last.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = last.iter().map(|x| (x - top).exp()).sum();
    last.iter().map(|x| (x - top).exp() / sum).collect()
}

fn assert_close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-5, "{what}: {g} instead of {w}");
    }
}

#[test]
fn the_steered_model_says_what_the_oracle_says() {
    let pair = Pair::smooth();
    let prompt = &sequences(&pair)[0];
    let (early, late) = (channel("0.mlp.act_in[3]"), channel("1.attn.act_in[13]"));
    let amounts = |scale: f64| (0..prompt.len()).map(|t| scale * (t as f64 - 2.0)).collect::<Vec<_>>();
    let of = |channel, amounts: &[f64]| Change::new(channel, amounts.iter().map(|a| *a as f32).collect());
    let mut both = of(early, &amounts(0.3));
    both.merge(of(late, &amounts(-0.2)));
    both.merge(of(late, &amounts(-0.2)));
    let changes = [Change::default(), of(late, &amounts(0.5)), both.scaled(0.5)];
    let wanted: [BTreeMap<Channel, Vec<f64>>; 3] = [
        BTreeMap::new(),
        BTreeMap::from([(late, amounts(0.5))]),
        BTreeMap::from([(early, amounts(0.15)), (late, amounts(-0.2))]),
    ];
    let plain = steered(&pair, prompt, &wanted[0], Ratio::DenseOverSparse);
    for device in devices() {
        for ratio in [Ratio::DenseOverSparse, Ratio::SparseOverDense] {
            with_steering(&pair, &device, ratio, |steering| {
                let got = steering.probabilities(prompt, &changes).unwrap();
                for (i, (got, amounts)) in got.iter().zip(&wanted).enumerate() {
                    let want = steered(&pair, prompt, amounts, ratio);
                    assert_close(got, &want, &format!("change {i}, {ratio:?}"));
                    // An oracle that ignored the changes would agree with a library that does.
                    let moved = want.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert_eq!(moved > 1e-3, i > 0, "{moved}");
                }
                for (sublayer, scale) in steering.scales().iter().enumerate() {
                    let (dense, sparse) = scales(&pair, sublayer);
                    assert!(
                        (scale.dense - dense).abs() < 1e-5 * dense && (scale.sparse - sparse).abs() < 1e-5 * sparse
                    );
                }
            });
        }
    }
}

#[test]
fn a_channel_becomes_what_it_is_in_the_counterfactual() {
    let pair = Pair::smooth();
    let (prompt, node) = (&sequences(&pair)[0], channel("1.mlp.act_in[5]"));
    let at = |tokens: &[u32]| -> Vec<f64> {
        let (seen, _) = oracle::sites(&pair.sparse.0, &pair.sparse.1, tokens);
        let width = seen["1.mlp.act_in"].len() / tokens.len();
        seen["1.mlp.act_in"].iter().skip(5).step_by(width).copied().collect()
    };
    with_steering(&pair, &Device::cpu(), Ratio::default(), |steering| {
        let amounts = |other: &[u32]| -> Vec<f64> {
            let change = steering.read(prompt).unwrap().towards(&steering.read(other).unwrap(), node);
            let all: Vec<_> = change.amounts().map(|(channel, amounts)| (channel, amounts.to_vec())).collect();
            assert_eq!((all.len(), all[0].0), (1, node));
            all[0].1.iter().map(|&a| a.into()).collect()
        };
        let mut same = prompt.clone();
        same[2] = (same[2] + 1) % pair.dense.0.vocab_size as u32;
        let want: Vec<f64> = at(&same).iter().zip(at(prompt)).map(|(b, a)| b - a).collect();
        assert_close(&amounts(&same), &want, "equal lengths");
        assert!(want[..2].iter().all(|v| *v == 0.0) && want[2..].iter().any(|v| v.abs() > 1e-3), "{want:?}");

        // A token less: what follows the common start is compared from the end, and the token
        // without a partner stays.
        let mut short = prompt.clone();
        short.remove(2);
        let common = prompt.iter().zip(&short).take_while(|(a, b)| a == b).count();
        let (here, there) = (at(prompt), at(&short));
        let want: Vec<f64> = (0..prompt.len())
            .map(|t| match t {
                t if t <= common => 0.0,
                t => there[t - 1] - here[t],
            })
            .collect();
        assert_close(&amounts(&short), &want, "a token less");
        let mut long = prompt[..5].to_vec();
        long.insert(2, (prompt[2] + 1) % pair.dense.0.vocab_size as u32);
        assert_eq!(amounts(&long).len(), prompt.len());
    });
}

#[test]
fn free_edits_lead_through_the_decoder() {
    let pair = Pair::smooth();
    let (prompt, other) = (&sequences(&pair)[0], &sequences(&pair)[1]);
    let value = |tokens: &[u32], index: usize, t: usize| {
        let (seen, _) = oracle::sites(&pair.sparse.0, &pair.sparse.1, tokens);
        seen["0.attn.act_in"][t * (seen["0.attn.act_in"].len() / tokens.len()) + index]
    };
    let edits = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Edit>>();
    with_steering(&pair, &Device::cpu(), Ratio::default(), |steering| {
        let made = edits(&["0.attn.act_in[2]@1=0.75", "0.attn.act_in[4]@-1*=3", "0.attn.act_in[6]@0=patch"]);
        let change = steering.edited(prompt, &made, Some(other)).unwrap();
        let mut want: BTreeMap<Channel, Vec<f64>> = BTreeMap::new();
        let last = prompt.len() - 1;
        for (index, t, amount) in [
            (2, 1, 0.75 - value(prompt, 2, 1)),
            (4, last, 2.0 * value(prompt, 4, last)),
            (6, 0, value(other, 6, 0) - value(prompt, 6, 0)),
        ] {
            want.entry(Channel { sublayer: 0, index }).or_insert_with(|| vec![0.0; prompt.len()])[t] = amount;
        }
        want.retain(|_, amounts| amounts.iter().any(|a| *a != 0.0));
        let got: BTreeMap<Channel, Vec<f32>> = change.amounts().map(|(c, a)| (c, a.to_vec())).collect();
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        for (channel, amounts) in &want {
            let got: Vec<f64> = got[channel].iter().map(|&a| a.into()).collect();
            assert_close(&got, amounts, &channel.to_string());
        }
        let p = &steering.probabilities(prompt, &[change]).unwrap()[0];
        assert_close(p, &steered(&pair, prompt, &want, Ratio::default()), "edited");

        // Positions beyond the prompt, sites that do not lead into the dense model, and position
        // channels.
        for (text, says) in [
            ("0.attn.act_in[2]@99=1", "0.attn.act_in"),
            ("0.attn.q[2]=1", "only attn.act_in"),
            ("0.attn.act_in[14]=9", "stand for"),
        ] {
            let error = steering.edited(prompt, &edits(&[text]), None).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    });
}

#[test]
fn the_one_channel_that_leads_anywhere_ranks_first() {
    let mut pair = Pair::smooth();
    // All decoders before attention 1 lead nowhere, but for one channel's.
    let planted = channel("1.attn.act_in[9]");
    let weight = pair.bridges.get_mut("dec.2.weight").unwrap();
    let width = weight.shape[1];
    weight.data.iter_mut().enumerate().for_each(|(i, w)| *w = if i % width == 9 { 5.0 + i as f32 } else { 0.0 });
    let all = sequences(&pair);
    let pairs: Vec<PromptPair> = (0..2)
        .map(|i| {
            let mut counterfactual = all[i].clone();
            counterfactual[1] = (counterfactual[1] + 1) % 5;
            PromptPair { prompt: all[i].clone(), counterfactual, answer: vec![1], other: vec![2] }
        })
        .collect();
    let channels: Vec<Channel> = (0..width).map(|index| Channel { sublayer: 2, index }).collect();
    with_steering(&pair, &Device::cpu(), Ratio::default(), |steering| {
        let (before, ranked) = steering.candidates(&channels, &pairs).unwrap();
        let moved: Vec<_> = ranked.iter().filter(|c| (c.effect.log_odds - before.log_odds).abs() > 1e-6).collect();
        assert_eq!(moved.len(), 1, "{ranked:?}");
        assert_eq!(moved[0].channel, planted);

        let sweep = steering.sweep(&[planted], &pairs, &[0.0, 1.0], 3, 7).unwrap();
        assert_eq!((sweep.steered.len(), sweep.random.len(), sweep.random[0].len()), (2, 3, 2));
        assert!((sweep.steered[0].log_odds - before.log_odds).abs() < 1e-9);
        assert!((sweep.steered[1].log_odds - moved[0].effect.log_odds).abs() < 1e-5);
        // The median of two is their mean; by hand from each pair alone.
        let alone =
            pairs.iter().map(|q| steering.sweep(&[planted], std::slice::from_ref(q), &[1.0], 0, 0).unwrap().steered[0]);
        let others: Vec<f64> = alone.map(|effect| effect.other).collect();
        assert!((sweep.steered[1].other - 0.5 * (others[0] + others[1])).abs() < 1e-5);
        for random in &sweep.random {
            assert!(random.iter().all(|effect| (effect.log_odds - before.log_odds).abs() < 1e-6), "{random:?}");
        }
        let again = steering.sweep(&[planted], &pairs, &[0.0, 1.0], 3, 7).unwrap();
        assert_eq!(again, sweep);
        assert!(steering.candidates(&channels, &[]).unwrap_err().to_string().contains("no pairs"));
    });
}

#[test]
fn channels_are_written_as_nodes_are() {
    for text in ["0.attn.act_in[0]", "3.mlp.act_in[17]"] {
        assert_eq!(channel(text).to_string(), text);
    }
    assert_eq!(channel("3.mlp.act_in[17]"), Channel { sublayer: 7, index: 17 });
    for text in [
        "",
        "0.attn.q[1]",
        "0.attn.act_in",
        "0.attn.act_in[]",
        "00.attn.act_in[1]",
        "0.attn.act_in[1]x",
        "-1.mlp.act_in[0]",
    ] {
        let error = text.parse::<Channel>().unwrap_err().to_string();
        assert!(error.contains("such as 3.attn.act_in[17]"), "{error}");
    }
    let pair = Pair::smooth();
    let prompt = &sequences(&pair)[0];
    with_steering(&pair, &Device::cpu(), Ratio::default(), |steering| {
        let says = |text: &str, length: usize| {
            let change = Change::new(channel(text), vec![1.0; length]);
            steering.probabilities(prompt, &[change]).unwrap_err().to_string()
        };
        assert!(says("9.attn.act_in[0]", 6).contains("layers"));
        assert!(says("0.attn.act_in[14]", 6).contains("below 14"));
        assert!(says("0.attn.act_in[0]", 5).contains("5 positions of 6"));
        assert!(steering.read(&[0; 50]).unwrap_err().to_string().contains("block_size"));
    });
    let (dense, sparse, bridges) = pair.models(&Device::cpu());
    let nothing = Steering::new(&dense, &sparse, &bridges, &[], Ratio::default());
    assert!(nothing.err().unwrap().to_string().contains("no reference text"));
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_the_model_that_has_them() {
    let pair = Pair::smooth();
    let prompt = &sequences(&pair)[0];
    for (dense, name) in [(true, "the dense model's 1.attn."), (false, "the sparse model's 1.attn.")] {
        let mut broken = pair.clone();
        let state = if dense { &mut broken.dense.1 } else { &mut broken.sparse.1 };
        state.get_mut("transformer.h.1.attn.c_attn.weight").unwrap().data[3] = f32::NAN;
        let (dense, sparse, bridges) = broken.models(&Device::cpu());
        let ratio = Ratio::DenseOverSparse;
        let said = Steering::new(&dense, &sparse, &bridges, &sequences(&pair), ratio).err().unwrap().to_string();
        assert!(said.starts_with(name), "{said}");
    }
    with_steering(&pair, &Device::cpu(), Ratio::DenseOverSparse, |steering| {
        let change = Change::new(channel("0.mlp.act_in[3]"), vec![3e38; prompt.len()]);
        let said = steering.probabilities(prompt, &[change.scaled(1e30)]).unwrap_err().to_string();
        assert!(said.starts_with("the dense model's 0.mlp.act_in is not finite"), "{said}");
    });
}
