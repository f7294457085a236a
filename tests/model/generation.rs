//! Token by token: what is kept from before changes nothing but the time it takes.

use gossamer::Error;
use gossamer::device::Device;
use gossamer::model::{Batch, Generator, KvCache, Model, ModelConfig, NoHooks, Parameters, Sampling, Weights};
use gossamer::tape::Tape;

use crate::common::{devices, error, wide};
use crate::variants::{as_published, clear_state, config, every, prompts, random_model};

fn greedy(max_new_tokens: usize) -> Sampling {
    Sampling { temperature: 0.0, max_new_tokens, ..Sampling::default() }
}

fn collect(mut generator: Generator) -> Vec<u32> {
    std::iter::from_fn(|| generator.next_token().unwrap()).collect()
}

fn logits(model: &Model, tokens: &[u32], batch: usize) -> Vec<f32> {
    let batch = Batch::new(&model.device, &model.config, tokens, batch).unwrap();
    let logits = model.forward(&mut Tape::new(), &Weights::constant(model, &[]), &batch, &mut NoHooks).unwrap();
    logits.value().read().unwrap()
}

/// Token `t` of each sequence of `length`.
fn column(tokens: &[u32], length: usize, t: usize) -> Vec<u32> {
    tokens.chunks(length).map(|sequence| sequence[t]).collect()
}

#[test]
fn generation_with_a_cache_is_generation_without() {
    let variants = [
        ("plain, learned positions", ""),
        ("sinks, bigrams", r#""sink": true, "enable_bigram_table": true, "rms_norm": true"#),
        ("concatenated positions", r#""d_pos_emb": 5"#),
        ("AbsTopK", r#""afrac": 0.5, "sink": true"#),
    ];
    for device in devices() {
        let (block, new) = if device.is_cpu() { (64, 200) } else { (16, 30) };
        for (name, fields) in variants {
            let config = ModelConfig { block_size: block, ..config(fields) };
            let model = random_model(&config, 8, &device);
            let prompt = prompts(&config, 3, 1, 3);
            let both = |sampling| {
                let make = || Generator::new(&model, &prompt, sampling).unwrap();
                let (with, without) = (collect(make()), collect(make().without_cache()));
                assert_eq!(with.len(), sampling.max_new_tokens, "{name}");
                assert_eq!(with, without, "{name} on {}", device.describe());
                with
            };
            // Drawn texts wander; the most probable ones soon turn in circles.
            both(Sampling { max_new_tokens: new / 2, ..Sampling::default() });
            let with = both(greedy(new));
            // Each is what the model says of the cropped tokens before it; checked here and there.
            let all = [prompt.clone(), with].concat();
            for t in (3..all.len()).step_by(17).chain([block - 1, block, block + 1]) {
                let logits = logits(&model, &all[t.saturating_sub(block)..t], 1);
                let last = &logits[logits.len() - config.vocab_size..];
                let best = (0..last.len()).rev().max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
                assert_eq!(all[t], best as u32, "{name}, token {t}");
            }
        }
    }
}

#[test]
fn tokens_read_one_by_one_give_the_logits_of_all_at_once() {
    for device in devices() {
        for (name, config) in every() {
            let (sequences, length, vocab) = (3, config.block_size, config.vocab_size);
            let tokens = prompts(&config, 4, sequences, length);
            let state = clear_state(&config, tokens.chunks(length));
            let parameters = Parameters::from_host(&config, state, &device).unwrap();
            let model = Model { config: config.clone(), parameters, device: device.clone() };
            let want = logits(&model, &tokens, sequences);
            let weights = Weights::constant(&model, &[]);
            let mut cache = KvCache::new(&model, sequences).unwrap();
            let read = |cache: &mut KvCache, tokens: &[u32]| {
                model.extend(&weights, cache, tokens, sequences, &mut NoHooks).map(|logits| logits.read().unwrap())
            };
            // All at once; then a few, and the others one by one.
            assert!(cache.is_empty());
            assert_eq!(read(&mut cache, &tokens).unwrap(), want, "{name}");
            assert_eq!(cache.len(), length);
            assert!(read(&mut cache, &[0; 3]).unwrap_err().to_string().contains("block_size is 7"));
            cache.clear();
            let first = if name.len() % 2 == 0 { 1 } else { 3 };
            let start: Vec<u32> = tokens.chunks(length).flat_map(|sequence| sequence[..first].to_vec()).collect();
            let got = read(&mut cache, &start).unwrap();
            assert_eq!(got.len(), sequences * first * vocab);
            for t in first..length {
                assert_eq!(cache.len(), t);
                let got = read(&mut cache, &column(&tokens, length, t)).unwrap();
                let want: Vec<f32> =
                    want.chunks(length * vocab).flat_map(|s| s[t * vocab..][..vocab].to_vec()).collect();
                let off = error(&got, &wide(&want)).unwrap();
                assert!(off <= 1e-5, "{name}, token {t} on {}: {off:.1e}", device.describe());
            }
        }
    }
}

#[test]
fn caches_that_do_not_fit_are_refused() {
    let device = Device::cpu();
    let [two, three] = [r#""n_layer": 2"#, r#""n_layer": 3"#].map(|fields| random_model(&config(fields), 1, &device));
    let weights = Weights::constant(&three, &[]);
    let read = |cache: &mut KvCache, tokens: &[u32], batch| three.extend(&weights, cache, tokens, batch, &mut NoHooks);
    let mut cache = KvCache::new(&two, 1).unwrap();
    assert!(matches!(read(&mut cache, &[1, 2], 1).unwrap_err(), Error::Shape { .. }), "another model's");
    let mut cache = KvCache::new(&three, 2).unwrap();
    assert!(matches!(read(&mut cache, &[1, 2, 3], 3).unwrap_err(), Error::Shape { .. }), "another batch");
    read(&mut cache, &[1, 2], 2).unwrap();
    assert!(matches!(read(&mut cache, &[1, 2, 3, 4], 2).unwrap_err(), Error::Shape { .. }), "two at a time");
    assert_eq!(cache.len(), 1);
    read(&mut cache, &[1, 2], 2).unwrap();
    assert_eq!(cache.len(), 2);
}

#[test]
fn seeds_repeat_and_differ() {
    let model = random_model(&as_published(), 8, &Device::cpu());
    let text = |seed| model.generate(&[1, 2], &Sampling { seed, max_new_tokens: 40, ..Sampling::default() }).unwrap();
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}

#[test]
fn draws_are_as_frequent_as_they_are_probable() {
    let model = random_model(&config(r#""d_model": 4, "d_mlp": 4, "n_layer": 1, "vocab_size": 6"#), 1, &Device::cpu());
    let sampling = Sampling { temperature: 1.5, top_k: Some(5), max_new_tokens: 1, ..Sampling::default() };
    let want = sampling.distribution(&logits(&model, &[3], 1));
    assert_eq!(want.len(), 5);
    let mut counts = [0.0; 6];
    let draws = 20_000;
    for seed in 0..draws {
        let drawn = model.generate(&[3], &Sampling { seed, ..sampling }).unwrap();
        assert_eq!(drawn.len(), 1);
        counts[drawn[0] as usize] += 1.0;
    }
    let drawn: f64 = want.iter().map(|(id, _)| counts[*id as usize]).sum();
    assert_eq!(drawn, draws as f64, "a token that was cut");
    let square = |(id, p): &(u32, f64)| {
        let expected = p * draws as f64;
        assert!(expected > 50.0);
        (counts[*id as usize] - expected).powi(2) / expected
    };
    // Four degrees of freedom: one in 10,000 is above 23.5.
    let chi: f64 = want.iter().map(square).sum();
    assert!(chi < 23.5, "chi-square {chi}: {counts:?} of {want:?}");
}

#[test]
fn texts_end_where_they_should() {
    let model = random_model(&as_published(), 8, &Device::cpu());
    let whole = model.generate(&[1, 2], &greedy(30)).unwrap();
    assert_eq!(whole, collect(Generator::new(&model, &[1, 2], greedy(30)).unwrap()));
    assert_eq!(whole.len(), 30);
    let end = *whole.last().unwrap();
    let before = whole.iter().position(|&token| token == end).unwrap();
    let sampling = Sampling { end_of_text: Some(end), ..greedy(30) };
    let mut generator = Generator::new(&model, &[1, 2], sampling).unwrap();
    for token in &whole[..before] {
        assert_eq!(generator.next_token().unwrap(), Some(*token));
    }
    for _ in 0..3 {
        assert_eq!(generator.next_token().unwrap(), None);
    }
    assert!(model.generate(&[1, 2], &greedy(0)).unwrap().is_empty());
    let mut generator = Generator::new(&model, &[1, 2], greedy(2)).unwrap();
    let asked: Vec<_> = (0..4).map(|_| generator.next_token().unwrap()).collect();
    assert_eq!(asked, [Some(whole[0]), Some(whole[1]), None, None]);
}

#[test]
fn prompts_of_any_length_but_none() {
    let config = as_published();
    let model = random_model(&config, 8, &Device::cpu());
    let long = prompts(&config, 6, 1, 23);
    let cropped = model.generate(&long[23 - config.block_size..], &greedy(5)).unwrap();
    assert_eq!(model.generate(&long, &greedy(5)).unwrap(), cropped);
    let refused = |prompt: &[u32]| model.generate(prompt, &greedy(5)).unwrap_err();
    assert!(refused(&[]).to_string().contains("empty prompt"));
    let mut strange = long.clone();
    strange[2] = 19;
    for prompt in [&[19][..], &[0, u32::MAX], &strange] {
        let error = refused(prompt);
        assert!(matches!(error, Error::Shape { .. }) && error.to_string().contains("vocabulary"), "{error}");
    }
    let impossible = Sampling { temperature: -1.0, ..greedy(5) };
    assert!(matches!(Generator::new(&model, &[1], impossible).err().unwrap(), Error::Config { .. }));
}
