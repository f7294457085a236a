//! Runs of prompts: batches of unequal prompts against single ones, losses and gradients against
//! the float64 oracle.

use std::collections::BTreeMap;

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{
    AnswerTokens, Edit, Interventions, Metric, Model, ModelConfig, Parameters, Sampling, Site, SiteKind, evaluate,
};
use gossamer::observer::Observer;

use crate::common::{assert_close, central_differences, devices, error, wide};
use crate::oracle;
use crate::variants::{as_published, config, prompts, random_model, random_state};

type State = BTreeMap<String, HostTensor>;

fn model(config: &ModelConfig, state: &State, device: &Device) -> Model {
    let parameters = Parameters::from_host(config, state.clone(), device).unwrap();
    Model { config: config.clone(), parameters, device: device.clone() }
}

/// Prompts of unequal lengths.
fn unequal(config: &ModelConfig) -> Vec<Vec<u32>> {
    [(1, 5), (2, 1), (3, 7), (4, 3)].map(|(seed, length)| prompts(config, seed, 1, length)).into()
}

fn mean_loss(config: &ModelConfig, prompts: &[Vec<u32>], logits: &dyn Fn(&[u32]) -> Vec<f64>) -> f64 {
    let mut losses = Vec::new();
    for prompt in prompts {
        for (row, &target) in logits(prompt).chunks(config.vocab_size).zip(&prompt[1..]) {
            losses.push(row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[target as usize]);
        }
    }
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn unequal_prompts_run_together_as_they_would_alone() {
    for device in devices() {
        for config in [config(""), as_published(), config(r#""d_pos_emb": 3, "enable_bigram_table": true"#)] {
            let model = random_model(&config, 5, &device);
            let (prompts, sites) = (unequal(&config), config.sites());
            let together = model.run_with_cache(&prompts, &sites).unwrap();
            assert_eq!(together.cache.sites().collect::<Vec<_>>(), sites);
            let logits = together.logits.by_prompt().unwrap();
            for (i, prompt) in prompts.iter().enumerate() {
                let alone = model.run_with_cache(prompt, &sites).unwrap();
                assert_eq!(alone.logits.read().unwrap().shape, [1, prompt.len(), config.vocab_size]);
                assert_close("logits", &logits[i].data, &wide(&alone.logits.read().unwrap().data), 1e-6);
                for &site in &sites {
                    let got = &together.cache.get(site).unwrap().by_prompt().unwrap()[i];
                    let want = alone.cache.get(site).unwrap().read().unwrap();
                    assert_eq!(got.shape, want.shape[1..]);
                    assert_close(&site.to_string(), &got.data, &wide(&want.data), 1e-6);
                }
            }
            let padded = together.logits.read().unwrap();
            assert_eq!(padded.shape, [4, 7, config.vocab_size]);
            assert!(padded.data[8 * config.vocab_size..14 * config.vocab_size].iter().all(|v| *v == 0.0));
        }
    }
}

#[test]
fn edits_count_positions_within_each_prompt() {
    let config = config("");
    let model = random_model(&config, 5, &Device::cpu());
    let edits: Vec<Edit> = ["0.mlp.post_act[3]@-1=2", "1.attn.q@0*=-1"].map(|edit| edit.parse().unwrap()).into();
    let edits = || Interventions::new(&config, &edits, BTreeMap::new(), BTreeMap::new()).unwrap();
    let prompts = unequal(&config);
    let together = model.run_with_hooks(&prompts, &mut edits()).unwrap().by_prompt().unwrap();
    for (prompt, together) in prompts.iter().zip(together) {
        let alone = model.run_with_hooks(prompt, &mut edits()).unwrap().read().unwrap();
        assert_close("logits", &together.data, &wide(&alone.data), 1e-6);
        let plain = model.run_with_cache(prompt, &[]).unwrap().logits.read().unwrap();
        assert!(error(&together.data, &wide(&plain.data)).unwrap() > 1e-3);
    }
    let site = SiteKind::MlpNeuron.at(0);
    let run = model.run(&prompts, &[site], &mut edits()).unwrap();
    for values in run.cache.get(site).unwrap().by_prompt().unwrap() {
        assert_eq!(values.data[(values.shape[0] - 1) * values.shape[1] + 3], 2.0);
    }
}

#[test]
fn losses_are_those_of_the_oracle() {
    for device in devices() {
        for config in [config(""), as_published()] {
            let state = random_state(&config, 5);
            let (model, prompts) = (model(&config, &state, &device), unequal(&config));
            let want = mean_loss(&config, &prompts, &|prompt| oracle::forward(&config, &state, prompt, &mut |_, _| ()));
            assert_close("loss", &[model.loss(&prompts).unwrap() as f32], &[want], 2e-6);
            let prompts: Vec<_> = prompts.into_iter().filter(|prompt| prompt.len() > 1).collect();
            let evaluated = evaluate(&model, &prompts, 4, false, &Observer::default()).unwrap();
            assert!((evaluated.loss - model.loss(&prompts).unwrap()).abs() < 1e-6);
        }
    }
}

/// The metric with the activations of a site of one prompt replaced.
fn metric_at(
    config: &ModelConfig,
    state: &State,
    metric: &Metric,
    prompts: &[Vec<u32>],
    replaced: (Site, &[f64]),
) -> f64 {
    let name = replaced.0.to_string();
    let logits = |prompt: &[u32]| {
        oracle::forward(config, state, prompt, &mut |site, values| {
            if site == name && *prompt == prompts[0] {
                values.copy_from_slice(replaced.1);
            }
        })
    };
    match metric {
        Metric::Loss => mean_loss(config, prompts, &logits),
        Metric::LogitDiff(answers) => {
            let diffs = prompts.iter().zip(answers.iter().cycle()).map(|(prompt, answer)| {
                let all = logits(prompt);
                let last = &all[all.len() - config.vocab_size..];
                last[answer.correct as usize] - last[answer.incorrect as usize]
            });
            diffs.sum::<f64>() / prompts.len() as f64
        }
    }
}

#[test]
fn gradients_at_sites_are_central_differences_of_the_oracle() {
    let config = config(r#""d_model": 4, "d_mlp": 5, "vocab_size": 6, "sink": true"#);
    let state = random_state(&config, 2);
    let prompts = vec![prompts(&config, 1, 1, 4), prompts(&config, 2, 1, 6)];
    let answer = |correct, incorrect| AnswerTokens { correct, incorrect };
    let metrics =
        [Metric::Loss, Metric::LogitDiff(vec![answer(3, 1)]), Metric::LogitDiff(vec![answer(3, 1), answer(0, 5)])];
    for device in devices() {
        let model = model(&config, &state, &device);
        for metric in &metrics {
            let gradients = model.run_with_gradients(&prompts, metric, &config.sites()).unwrap();
            assert_eq!(gradients.sites.keys().copied().collect::<Vec<_>>(), config.sites());
            let activations = oracle::sites(&config, &state, &prompts[0]).0;
            for (&site, found) in &gradients.sites {
                let at = &activations[&site.to_string()];
                assert_close("activation", &found.activation.by_prompt().unwrap()[0].data, at, 2e-5);
                let value = |at: &[f64]| metric_at(&config, &state, metric, &prompts, (site, at));
                assert!((gradients.value - value(at)).abs() < 1e-5, "{metric:?}");
                let want = central_differences(at, 1e-4, value);
                assert!(want.iter().any(|g| g.abs() > 1e-3), "{site}");
                assert_close(&site.to_string(), &found.gradient.by_prompt().unwrap()[0].data, &want, 1e-5);
            }
        }
    }
}

#[test]
fn gradients_of_a_batch_are_those_of_its_prompts() {
    let config = config("");
    let model = random_model(&config, 5, &Device::cpu());
    let (prompts, sites) = (unequal(&config), [SiteKind::AttnV.at(0), Site::FinalResid]);
    let metric = Metric::LogitDiff(vec![AnswerTokens { correct: 2, incorrect: 7 }]);
    let together = model.run_with_gradients(&prompts, &metric, &sites).unwrap();
    let mut sum = 0.0;
    for (i, prompt) in prompts.iter().enumerate() {
        let alone = model.run_with_gradients(prompt, &metric, &sites).unwrap();
        sum += alone.value;
        for site in &sites {
            let want: Vec<f64> = wide(&alone.sites[site].gradient.read().unwrap().data);
            let want: Vec<f64> = want.iter().map(|g| g / prompts.len() as f64).collect();
            let got = &together.sites[site].gradient.by_prompt().unwrap()[i];
            assert_close(&site.to_string(), &got.data, &want, 1e-6);
        }
    }
    assert!((together.value - sum / prompts.len() as f64).abs() < 1e-6);
}

#[test]
fn attention_is_the_pattern_of_each_head_and_prompt() {
    let config = config(r#""sink": true"#);
    let model = random_model(&config, 5, &Device::cpu());
    let prompts = unequal(&config);
    let [q, k] = [SiteKind::AttnQ.at(1), SiteKind::AttnK.at(1)];
    for (pattern, prompt) in model.attention(&prompts, 1).unwrap().iter().zip(&prompts) {
        let length = prompt.len();
        assert_eq!(pattern.shape, [config.n_head, length, length]);
        let cache = model.run_with_cache(prompt, &[q, k]).unwrap().cache;
        let [q, k] = [q, k].map(|site| cache.get(site).unwrap().read().unwrap());
        for (head, pattern) in pattern.data.chunks(length * length).enumerate() {
            assert_close("pattern", pattern, &wide(&model.attention_pattern(1, head, &q, &k).unwrap()), 1e-6);
        }
    }
}

#[test]
fn what_cannot_run_is_an_error() {
    let config = config("");
    let model = random_model(&config, 5, &Device::cpu());
    let says = |result: Result<(), gossamer::Error>, part: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    };
    let run = |prompts: &Vec<Vec<u32>>| model.run_with_cache(prompts, &[]).map(drop);
    says(run(&vec![]), "0 tokens");
    says(run(&vec![vec![1], vec![]]), "an empty prompt");
    says(run(&vec![vec![1; 8]]), "block_size");
    says(run(&vec![vec![99]]), "99");
    says(model.run_with_cache(&[1, 2], &[SiteKind::AttnQ.at(2)]).map(drop), "2.attn.q");
    says(model.loss(&[1]).map(drop), "no token has one before it");
    let cache = model.run_with_cache(&[1, 2], &[Site::FinalResid]).unwrap().cache;
    says(cache.get(SiteKind::ResidIn.at(0)).map(drop), "final_resid");
    let metric = |answers| model.run_with_gradients(&[1, 2], &Metric::LogitDiff(answers), &[]).map(drop);
    says(metric(vec![]), "0 pairs of answers for 1 prompts");
    says(metric(vec![AnswerTokens { correct: 1, incorrect: 99 }]), "99");
    says(config.sites_matching("(").map(drop), "no regular expression");
    says(config.sites_matching("nothing").map(drop), "no site matches `nothing`; there are 0.resid_in");
    assert_eq!(config.sites_matching("^final|1.*post_act").unwrap(), [SiteKind::MlpNeuron.at(1), Site::FinalResid]);
    assert!(model.generate(&[], &Sampling::default()).is_err());
}
