//! Attention patterns against float64 loops: what they make of the values is what the head gives.

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{Model, Parameters};

use crate::oracle;
use crate::variants::{config, prompts, random_state};

const GPT_NEO: &str = r#""scale_attn_weights": false, "attention_layers": "global,local", "window_size": 2"#;

#[test]
fn patterns_make_of_the_values_what_the_heads_give() {
    for fields in [r#""sink": true, "d_head": 5"#, r#""rms_norm": true, "n_head": 3"#, GPT_NEO] {
        let config = config(fields);
        let state = random_state(&config, 3);
        let tokens = prompts(&config, 5, 1, 6);
        let (seen, _) = oracle::sites(&config, &state, &tokens);
        let (width, stride) = (config.head_width(), config.attention_width());
        let device = Device::cpu();
        let parameters = Parameters::from_host(&config, state, &device).unwrap();
        let model = Model { config: config.clone(), parameters, device };
        for (layer, head) in [(0, 0), (1, config.n_head - 1)] {
            let site = |name: &str| &seen[&format!("{layer}.attn.{name}")];
            let host = |name: &str| HostTensor {
                shape: vec![1, tokens.len(), stride],
                data: site(name).iter().map(|&x| x as f32).collect(),
            };
            let pattern = model.attention_pattern(layer, head, &host("q"), &host("k")).unwrap();
            assert_eq!(pattern.len(), tokens.len() * tokens.len());
            for (t, row) in pattern.chunks(tokens.len()).enumerate() {
                let sum: f32 = row.iter().sum();
                assert!(if config.sink { sum < 0.999 } else { (sum - 1.0).abs() < 1e-6 }, "{sum}");
                let window = config.attention_options(layer).window.unwrap_or(tokens.len());
                let hidden = t.saturating_sub(window - 1);
                assert!(row[..hidden].iter().all(|&share| share == 0.0), "it looks too far back: {row:?}");
                assert!(row[t + 1..].iter().all(|&share| share == 0.0), "it looks ahead: {row:?}");
                for c in head * width..(head + 1) * width {
                    let value = |j: usize| f64::from(row[j]) * site("v")[j * stride + c];
                    let (got, want) = ((0..=t).map(value).sum::<f64>(), site("y")[t * stride + c]);
                    assert!((got - want).abs() < 1e-5, "{layer}.{head} at {t}, channel {c}: {got} instead of {want}");
                }
            }
        }
        let (wrong, short) = (HostTensor { shape: vec![1, 2, 3], data: vec![0.0; 6] }, HostTensor::default());
        let says = |layer, head, x: &HostTensor| model.attention_pattern(layer, head, x, x).unwrap_err().to_string();
        assert!(says(0, 9, &wrong).contains("head 9 of layer 0"), "{}", says(0, 9, &wrong));
        assert!(says(0, 0, &wrong).contains("expected (1, T,") && says(0, 0, &short).contains("expected"));
    }
}
