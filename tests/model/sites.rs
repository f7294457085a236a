//! The named sites: who looks sees all of them in order, and who changes one changes the logits.

use gossamer::Result;
use gossamer::device::Device;
use gossamer::model::{Hooks, Model, NoHooks, Recorder, Site, SiteKind, Weights};
use gossamer::tape::{Tape, Var};

use crate::common::devices;
use crate::variants::{as_published, batch, config, random_model};

pub const NAMES: [&str; 23] = [
    "0.resid_in",
    "0.attn.act_in",
    "0.attn.q",
    "0.attn.k",
    "0.attn.v",
    "0.attn.y",
    "0.attn.resid_delta",
    "0.resid_mid",
    "0.mlp.act_in",
    "0.mlp.post_act",
    "0.mlp.resid_delta",
    "1.resid_in",
    "1.attn.act_in",
    "1.attn.q",
    "1.attn.k",
    "1.attn.v",
    "1.attn.y",
    "1.attn.resid_delta",
    "1.resid_mid",
    "1.mlp.act_in",
    "1.mlp.post_act",
    "1.mlp.resid_delta",
    "final_resid",
];

fn logits(model: &Model, sites: &mut dyn Hooks) -> Vec<f32> {
    let weights = Weights::constant(model, &[]);
    let batch = batch(&model.config, &model.device);
    model.forward(&mut Tape::new(), &weights, &batch, sites).unwrap().value().read().unwrap()
}

#[test]
fn the_recorder_sees_the_published_sites_in_order() {
    for config in [config(""), as_published()] {
        let model = random_model(&config, 3, &Device::cpu());
        let mut recorder = Recorder::default();
        logits(&model, &mut recorder);
        let names: Vec<_> = recorder.values.keys().map(Site::to_string).collect();
        assert_eq!(names, NAMES);
        assert_eq!(names, config.sites().iter().map(Site::to_string).collect::<Vec<_>>());
        for (site, value) in &recorder.values {
            let name = site.to_string();
            assert_eq!(name.parse::<Site>().unwrap(), *site);
            let width = match name.split_once('.').map_or("", |(_, site)| site) {
                "attn.act_in" | "mlp.act_in" => config.input_width(),
                "attn.q" | "attn.k" | "attn.v" | "attn.y" => config.attention_width(),
                "mlp.post_act" => config.mlp_width(),
                _ => config.d_model,
            };
            assert_eq!(value.value().shape(), [3, 6, width], "{name}");
            assert_eq!(site.width(&config), width, "{name}");
        }
    }
}

/// Sites come after their AbsTopK: exactly half of every row is not zero.
#[test]
fn sites_are_sparse_where_the_configuration_says() {
    let config = as_published();
    let mut recorder = Recorder::default();
    logits(&random_model(&config, 3, &Device::cpu()), &mut recorder);
    for (&site, value) in &recorder.values {
        // Attention mixes what was selected.
        if site.kind() == Some(SiteKind::AttnY) {
            continue;
        }
        let width = value.value().rows_cols().1;
        for row in value.value().read().unwrap().chunks(width) {
            let nonzeros = row.iter().filter(|v| **v != 0.0).count();
            assert_eq!(nonzeros, if site == SiteKind::ResidIn.at(0) { width } else { width / 2 }, "{site}");
        }
    }
}

/// Puts the site's own value times a factor in its place.
struct Scale(Site, f32);

impl Hooks for Scale {
    fn on_activation(&mut self, _: &mut Tape, site: Site, value: Var) -> Result<Var> {
        if site != self.0 {
            return Ok(value);
        }
        let data: Vec<_> = value.value().read()?.iter().map(|v| v * self.1).collect();
        Ok(Var::constant(value.value().device().upload("scaled", value.value().shape(), &data)?))
    }
}

#[test]
fn what_is_put_in_a_sites_place_is_what_the_model_goes_on_with() {
    for device in devices() {
        let model = random_model(&as_published(), 3, &device);
        let before = logits(&model, &mut NoHooks);
        for name in model.config.sites() {
            assert_eq!(logits(&model, &mut Scale(name, 1.0)), before, "{name} in its own place");
            let after = logits(&model, &mut Scale(name, -0.5));
            let change = before.iter().zip(&after).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(change > 1e-3 && after.iter().all(|v| v.is_finite()), "{name}: {change}");
        }
        assert_eq!(logits(&model, &mut Scale(SiteKind::ResidIn.at(2), 0.0)), before, "no such site");
    }
}
