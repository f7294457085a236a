//! Every intervention against the same edit made by hand in the float64 oracle.

use std::collections::BTreeMap;

use gossamer::device::Device;
use gossamer::files::HostTensor;
use gossamer::model::{
    Batch, Edit, Hooks, Interventions, Kind, LossOutput, Model, ModelConfig, Parameters, Recorder, Site, SiteKind,
    Weights, means,
};
use gossamer::tape::Tape;
use gossamer::{Error, Result};

use crate::common::{assert_close, central_differences, devices, error};
use crate::oracle;
use crate::sites::NAMES;
use crate::variants::{SURE, as_published, clear_state, config, prompts, random_state};

/// Length of the prompts; the longer donor has one token more.
const T: usize = 6;

type State = BTreeMap<String, HostTensor>;
/// The values of another run.
type Donor = BTreeMap<Site, HostTensor>;

fn model(config: &ModelConfig, state: &State, device: &Device) -> Model {
    let parameters = Parameters::from_host(config, state.clone(), device).unwrap();
    Model { config: config.clone(), parameters, device: device.clone() }
}

fn logits(model: &Model, tokens: &[u32], batch: usize, sites: &mut dyn Hooks) -> Result<Vec<f32>> {
    let batch = Batch::new(&model.device, &model.config, tokens, batch)?;
    model.forward(&mut Tape::new(), &Weights::constant(model, &[]), &batch, sites)?.value().read()
}

/// What another run saw at every site.
fn donor(model: &Model, tokens: &[u32], batch: usize) -> Donor {
    let mut recorder = Recorder::default();
    logits(model, tokens, batch, &mut recorder).unwrap();
    let host = |var: &gossamer::tape::Var| HostTensor {
        shape: var.value().shape().to_vec(),
        data: var.value().read().unwrap(),
    };
    recorder.values.iter().map(|(site, var)| (*site, host(var))).collect()
}

fn parse(texts: &[String]) -> Vec<Edit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What the edits by hand draw on.
struct Reference {
    means: BTreeMap<Site, Vec<f32>>,
    equal: BTreeMap<String, Vec<f64>>,
    longer: BTreeMap<String, Vec<f64>>,
}

/// Edits as text, `{}` standing for the site, and what each value at time `t` and channel `c` then
/// is.
struct Case {
    texts: Vec<&'static str>,
    from_longer: bool,
    by_hand: Box<dyn Fn(usize, usize, f64) -> f64>,
}

/// Edits with numbers only.
fn cases_without_means() -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    let mut add = |texts: &[&'static str], by_hand: Box<dyn Fn(usize, usize, f64) -> f64>| {
        all.push(Case { texts: texts.to_vec(), from_longer: false, by_hand });
    };
    add(&["{}[3]@2=0.75"], Box::new(|t, c, v| if (t, c) == (2, 3) { 0.75 } else { v }));
    add(
        &["{}[1,4:6]@-1,1:3+=-0.5"],
        Box::new(|t, c, v| if [1, 4, 5].contains(&c) && [1, 2, 5].contains(&t) { v - 0.5 } else { v }),
    );
    add(
        &["{}[10:12]@:2,-2:*=-1.5"],
        Box::new(|t, c, v| if [10, 11].contains(&c) && [0, 1, 4, 5].contains(&t) { v * -1.5 } else { v }),
    );
    add(&["{}=0"], Box::new(|_, _, _| 0.0));
    add(&["{}@4-=0.3"], Box::new(|t, _, v| if t == 4 { v - 0.3 } else { v }));
    add(
        &["{}[2]@1=2", "{}[2:4]@1:3+=1", "{}[2]*=3"],
        Box::new(|t, c, v| match (t, c) {
            (1, 2) => 9.0,
            (2, 2) => 3.0 * (v + 1.0),
            (_, 2) => 3.0 * v,
            (1 | 2, 3) => v + 1.0,
            _ => v,
        }),
    );
    add(
        &["{}[3,2:5,3]@2,2:4+=1"],
        Box::new(|t, c, v| if [2, 3].contains(&t) && [2, 3, 4].contains(&c) { v + 1.0 } else { v }),
    );
    all
}

fn cases(site: &str, reference: &Reference) -> Vec<Case> {
    let mean = reference.means[&site.parse().unwrap()].clone();
    let width = mean.len();
    let mean = move |c: usize| f64::from(mean[c]);
    let (equal, longer) = (reference.equal[site].clone(), reference.longer[site].clone());
    let (equal, longer) = (move |t: usize, c| equal[t * width + c], move |t: usize, c| longer[t * width + c]);
    let mut all = cases_without_means();
    let mut add = |texts: &[&'static str], by_hand: Box<dyn Fn(usize, usize, f64) -> f64>| {
        all.push(Case { texts: texts.to_vec(), from_longer: false, by_hand });
    };
    let m = mean.clone();
    add(
        &["{}[2:5]@1:-1=mean"],
        Box::new(move |t, c, v| if (1..5).contains(&t) && (2..5).contains(&c) { m(c) } else { v }),
    );
    let m = mean.clone();
    add(&["{}=mean"], Box::new(move |_, c, _| m(c)));
    let e = equal.clone();
    add(&["{}=patch"], Box::new(move |t, c, _| e(t, c)));
    let e = equal.clone();
    add(
        &["{}[0,5]@2,4:=patch"],
        Box::new(move |t, c, v| if [0, 5].contains(&c) && [2, 4, 5].contains(&t) { e(t, c) } else { v }),
    );
    let m = mean.clone();
    add(
        &["{}[2]*=3", "{}[2:4]@1:3+=1", "{}@2=mean", "{}[0:3]@2+=0.25"],
        Box::new(move |t, c, v| match (t, c) {
            (2, 0..3) => m(c) + 0.25,
            (2, _) => m(c),
            (1, 2) => 3.0 * v + 1.0,
            (1, 3) => v + 1.0,
            (_, 2) => 3.0 * v,
            _ => v,
        }),
    );
    if ["q", "k", "v", "y"].iter().any(|part| site.ends_with(&format!(".attn.{part}"))) {
        add(&["{}[h1]@3*=0.5"], Box::new(|t, c, v| if t == 3 && c >= 6 { 0.5 * v } else { v }));
        add(&["{}[h1.3]=1.25"], Box::new(|_, c, v| if c == 9 { 1.25 } else { v }));
        add(&["{}[h0,h1.0]@-2=mean"], Box::new(move |t, c, v| if t == 4 && c <= 6 { mean(c) } else { v }));
    }
    let l = longer.clone();
    let by_hand = move |t: usize, c: usize, v: f64| match t {
        5 => l(6, c),
        1 | 2 => l(t, c),
        _ => v,
    };
    all.push(Case { texts: vec!["{}@-1,1:3=patch"], from_longer: true, by_hand: Box::new(by_hand) });
    let by_hand = move |t: usize, c: usize, v: f64| if c == 7 && (t == 3 || t == 4) { longer(t + 1, c) } else { v };
    all.push(Case { texts: vec!["{}[7]@-3:-1=patch"], from_longer: true, by_hand: Box::new(by_hand) });
    all
}

fn by_hand(values: &mut [f64], edit: &dyn Fn(usize, usize, f64) -> f64) {
    let width = values.len() / T;
    for (i, v) in values.iter_mut().enumerate() {
        *v = edit(i / width, i % width, *v);
    }
}

struct Setting {
    config: ModelConfig,
    state: State,
    /// Two of length T.
    tokens: Vec<u32>,
    equal: Vec<u32>,
    longer: Vec<u32>,
    reference: Reference,
}

/// A model and prompts with which no choice of AbsTopK is a close one, unedited.
fn setting() -> Setting {
    let config = as_published();
    let prompts = |seed, batch, length| prompts(&config, seed, batch, length);
    let (tokens, equal, longer) = (prompts(1, 2, T), prompts(2, 1, T), prompts(3, 1, T + 1));
    let state = clear_state(&config, tokens.chunks(T).chain([&equal[..], &longer[..]]));
    let means = config.sites().into_iter().map(|site| {
        let number = |c: usize| (c as f32 * 1.7 + site.to_string().len() as f32).sin();
        (site, (0..site.width(&config)).map(number).collect())
    });
    let reference = Reference {
        means: means.collect(),
        equal: oracle::sites(&config, &state, &equal).0,
        longer: oracle::sites(&config, &state, &longer).0,
    };
    Setting { state, tokens, equal, longer, reference, config: config.clone() }
}

/// Compares the logits of the edited model with those of the oracle edited by hand. Nothing, if a
/// choice was close; otherwise how far the two are apart, and how far the edit moved the oracle's
/// logits.
fn compare(
    setting: &Setting,
    model: &Model,
    edits: &[Edit],
    donor: &Donor,
    hand: &dyn Fn(&str, &mut Vec<f64>),
) -> Option<(f64, f64)> {
    let (config, state) = (&setting.config, &setting.state);
    let (mut want, mut moved) = (Vec::new(), 0.0f64);
    for tokens in setting.tokens.chunks(T) {
        let run = oracle::run(config, state, tokens, &mut |site, values| hand(site, values));
        if run.margin < SURE {
            return None;
        }
        let before = oracle::forward(config, state, tokens, &mut |_, _| ());
        moved = run.logits.iter().zip(&before).fold(moved, |m, (a, b)| m.max((a - b).abs()));
        want.extend(run.logits);
    }
    let mut interventions = Interventions::new(config, edits, setting.reference.means.clone(), donor.clone()).unwrap();
    let got = logits(model, &setting.tokens, 2, &mut interventions).unwrap();
    Some((error(&got, &want).unwrap(), moved))
}

#[test]
fn every_edit_at_every_site_is_the_edit_by_hand() {
    let setting = setting();
    for device in devices() {
        let model = model(&setting.config, &setting.state, &device);
        let [equal, longer] = [&setting.equal, &setting.longer].map(|tokens| donor(&model, tokens, 1));
        let (mut compared, mut close) = (0, 0);
        for (s, site) in NAMES.into_iter().enumerate() {
            let mut moving = 0;
            for (i, case) in cases(site, &setting.reference).into_iter().enumerate() {
                // The tests of operations cover the kernels: a software GPU need not do all of it.
                if !device.is_cpu() && (s + i) % 6 != 0 {
                    continue;
                }
                let texts: Vec<String> = case.texts.iter().map(|text| text.replace("{}", site)).collect();
                let donor = if case.from_longer { &longer } else { &equal };
                let hand = |name: &str, values: &mut Vec<f64>| {
                    if name == site {
                        by_hand(values, &case.by_hand);
                    }
                };
                match compare(&setting, &model, &parse(&texts), donor, &hand) {
                    None => close += 1,
                    Some((off, moved)) => {
                        assert!(off <= 2e-5, "{texts:?} on {}: off by {off:.1e}", device.describe());
                        (compared, moving) = (compared + 1, moving + usize::from(moved > 1e-3));
                    }
                }
            }
            assert!(moving >= if device.is_cpu() { 7 } else { 2 }, "{site}: only {moving} edits that matter");
        }
        assert!(compared > 10 * close, "{compared} compared, but {close} choices too close to compare");
    }
}

#[test]
fn a_star_is_every_layer() {
    let setting = setting();
    let model = model(&setting.config, &setting.state, &Device::cpu());
    for site in NAMES.iter().filter_map(|name| name.strip_prefix("0.")) {
        let edits = parse(&[format!("*.{site}[1,5]@2:+=0.5"), format!("1.{site}@-1*=2")]);
        let hand = |name: &str, values: &mut Vec<f64>| {
            if name.ends_with(&format!(".{site}")) {
                by_hand(values, &|t, c, v| {
                    let v = if t >= 2 && (c == 1 || c == 5) { v + 0.5 } else { v };
                    if t == 5 && name.starts_with('1') { 2.0 * v } else { v }
                });
            }
        };
        let (off, moved) = compare(&setting, &model, &edits, &Donor::new(), &hand).unwrap_or((0.0, 1.0));
        assert!(off <= 2e-5 && moved > 1e-3, "{site}: off by {off:.1e}, moved by {moved:.1e}");
    }
}

/// The comparison sees an edit of the wrong channel, position or amount.
#[test]
fn wrong_edits_are_seen() {
    let setting = setting();
    let model = model(&setting.config, &setting.state, &Device::cpu());
    let hand = |name: &str, values: &mut Vec<f64>| {
        if name == "0.resid_mid" {
            by_hand(values, &|t, c, v| if (t, c) == (2, 3) { v + 1.0 } else { v });
        }
    };
    let off = |text: &str| compare(&setting, &model, &parse(&[text.into()]), &Donor::new(), &hand).unwrap().0;
    assert!(off("0.resid_mid[3]@2+=1") <= 2e-5);
    for text in ["0.resid_mid[3]@3+=1", "0.resid_mid[2]@2+=1", "0.resid_mid[3]@2+=1.01", "0.resid_in[3]@2+=1"] {
        assert!(off(text) > 2e-5, "{text}");
    }
}

#[test]
fn what_comes_before_an_edit_stays_as_it_is_to_the_last_bit() {
    let setting = setting();
    for device in devices() {
        let model = model(&setting.config, &setting.state, &device);
        let bits = |edits: &[Edit]| -> Vec<u32> {
            let mut sites = Interventions::new(&setting.config, edits, BTreeMap::new(), Donor::new()).unwrap();
            logits(&model, &setting.tokens, 2, &mut sites).unwrap().iter().map(|v| v.to_bits()).collect()
        };
        let before = bits(&[]);
        for site in NAMES {
            let after = bits(&parse(&[format!("{site}@3+=1")]));
            let rows = before.len() / 2 / T;
            for (before, after) in before.chunks(T * rows).zip(after.chunks(T * rows)) {
                assert_eq!(before[..3 * rows], after[..3 * rows], "{site}");
                assert!(before[3 * rows..] != after[3 * rows..], "{site}");
            }
        }
    }
}

#[test]
fn means_are_those_of_the_oracle() {
    let config = config(r#""rms_norm": true, "d_pos_emb": 4"#);
    let state = random_state(&config, 4);
    // Batches of unequal size: every position counts the same.
    let batches: Vec<(Vec<u32>, usize)> =
        [(1, 2, 6), (2, 3, 4), (3, 1, 7)].map(|(seed, n, length)| (prompts(&config, seed, n, length), n)).into();
    let mut want: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let positions: usize = batches.iter().map(|(tokens, _)| tokens.len()).sum();
    for (tokens, n) in &batches {
        for sequence in tokens.chunks(tokens.len() / n) {
            for (site, values) in oracle::sites(&config, &state, sequence).0 {
                let width = values.len() / sequence.len();
                let sums = want.entry(site).or_insert_with(|| vec![0.0; width]);
                for (i, v) in values.iter().enumerate() {
                    sums[i % width] += v / positions as f64;
                }
            }
        }
    }
    let activations = config.sites_of(&[SiteKind::MlpNeuron]);
    for device in devices() {
        let model = model(&config, &state, &device);
        let on_device = || batches.iter().map(|(tokens, n)| Batch::new(&device, &config, tokens, *n));
        let got = means(&model, on_device(), &config.sites(), true).unwrap();
        assert_eq!(got.len(), want.len());
        for (site, got) in &got {
            let site = site.to_string();
            assert_close(&site, got, &want[&site], 2e-6);
        }
        let some = means(&model, on_device(), &activations, true).unwrap();
        assert_eq!(some.keys().copied().collect::<Vec<_>>(), activations);
        assert_eq!(some[&activations[1]], got[&activations[1]]);
        let failing = [Err(Error::Data("no more text".into()))];
        assert_eq!(means(&model, failing, &config.sites(), true).unwrap_err().to_string(), "no more text");
    }
}

const EDITS: [&str; 5] = [
    "0.attn.q[h1.1]@2*=-0.5",
    "0.resid_mid[1]+=0.2",
    "0.mlp.post_act[0:3]@1*=1.5",
    "1.attn.v[h0]@2:=0.3",
    "1.mlp.act_in[2]@-1=mean",
];

fn edit_by_hand(name: &str, values: &mut [f64]) {
    let edit: &dyn Fn(usize, usize, f64) -> f64 = match name {
        "0.attn.q" => &|t, c, v| if (t, c) == (2, 3) { -0.5 * v } else { v },
        "0.resid_mid" => &|_, c, v| if c == 1 { v + 0.2 } else { v },
        "0.mlp.post_act" => &|t, c, v| if t == 1 && c < 3 { 1.5 * v } else { v },
        "1.attn.v" => &|t, c, v| if t >= 2 && c < 2 { 0.3 } else { v },
        "1.mlp.act_in" => &|t, c, v| if (t, c) == (5, 2) { 0.7 } else { v },
        _ => return,
    };
    by_hand(values, edit);
}

/// Mean cross-entropy of the tokens to come.
fn oracle_loss(config: &ModelConfig, state: &State, tokens: &[u32]) -> f64 {
    let mut losses = Vec::new();
    for tokens in tokens.chunks(T) {
        let logits = oracle::forward(config, state, tokens, &mut |name, values| edit_by_hand(name, values));
        for (row, &target) in logits.chunks(config.vocab_size).zip(&tokens[1..]) {
            losses.push(row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[target as usize]);
        }
    }
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn gradients_go_through_interventions() {
    let config = config(r#""d_model": 4, "d_mlp": 5, "vocab_size": 6, "sink": true"#);
    let state = random_state(&config, 2);
    let tokens = prompts(&config, 9, 2, T);
    let texts = EDITS.map(String::from);
    let means = BTreeMap::from([(SiteKind::MlpIn.at(1), vec![0.7; 4])]);
    for device in devices() {
        let model = model(&config, &state, &device);
        let edits = || Interventions::new(&config, &parse(&texts), means.clone(), Donor::new()).unwrap();
        let mut tape = Tape::new();
        let weights = Weights::new(&model, &mut tape, |kind| kind != Kind::LogitsBias, &[]);
        let recorder = || Recorder::with_gradients(config.sites());
        let mut sites = ((recorder(), edits()), recorder());
        let batch = Batch::new(&device, &config, &tokens, 2).unwrap();
        let LossOutput { loss, .. } = model.forward_loss(&mut tape, &weights, &batch, &mut sites).unwrap();
        assert_close("loss", &loss.value().read().unwrap(), &[oracle_loss(&config, &state, &tokens)], 1e-6);
        tape.backward(&loss, device.upload("seed", &[1], &[1.0]).unwrap()).unwrap();

        for name in ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.1.mlp.c_fc.weight"]
        {
            let at: Vec<f64> = state[name].data.iter().map(|&v| f64::from(v)).collect();
            let want = central_differences(&at, 1e-3, |at| {
                let mut state = state.clone();
                state.get_mut(name).unwrap().data = at.iter().map(|&v| v as f32).collect();
                oracle_loss(&config, &state, &tokens)
            });
            let var = weights.vars()[model.parameters.position(name).unwrap()].as_ref().unwrap();
            let got = tape.take_gradient(var).unwrap().read().unwrap();
            assert!(want.iter().any(|g| g.abs() > 1e-2), "{name}");
            assert_close(name, &got, &want, 1e-4);
        }

        // Before an edit the gradient is that after it times the scale: zero where values were set.
        let ((before, _), after) = sites;
        let mut cut = 0;
        for (site, before) in &before.values {
            let (name, after) = (site.to_string(), &after.values[site]);
            if !EDITS.iter().any(|text| text.starts_with(&name)) {
                continue;
            }
            let [before, after] = [before, after].map(|var| tape.take_gradient(var).unwrap().read().unwrap());
            let width = before.len() / 2 / T;
            for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                let (t, c) = (i / width % T, i % width);
                let scale = match (name.as_str(), t, c) {
                    ("0.attn.q", 2, 3) => -0.5,
                    ("0.mlp.post_act", 1, 0..3) => 1.5,
                    ("1.attn.v", 2.., 0..2) | ("1.mlp.act_in", 5, 2) => 0.0,
                    _ => 1.0,
                };
                assert_eq!(*before, scale * after, "{name}, time {t}, channel {c}");
                cut += usize::from(scale == 0.0 && *after != 0.0);
            }
        }
        // Of the values set: four times of two channels in two sequences, of which the loss sees
        // all but the last, and the mean at the last position, which it never sees.
        assert_eq!(cut, 2 * 3 * 2);
    }
}

#[test]
fn impossible_edits_are_errors_that_name_the_site() {
    let config = as_published();
    let state = random_state(&config, 1);
    let model = model(&config, &state, &Device::cpu());
    let means = BTreeMap::from([(SiteKind::AttnQ.at(0), vec![0.0; 12]), (SiteKind::AttnK.at(0), vec![0.0; 11])]);
    let refusal = |text: &str, donor: &Donor| {
        let edits = parse(&["final_resid+=1".into(), text.into()]);
        let made = Interventions::new(&config, &edits, means.clone(), donor.clone());
        made.err().unwrap_or_else(|| panic!("{text} was not refused"))
    };
    let none = Donor::new();
    let two = self::donor(&model, &prompts(&config, 1, 2, 5), 2);
    let narrow = Donor::from([(SiteKind::AttnQ.at(0), HostTensor { shape: vec![1, 5, 11], data: vec![0.0; 55] })]);
    let short = Donor::from([(SiteKind::AttnQ.at(0), HostTensor { shape: vec![1, 5, 12], data: vec![0.0; 59] })]);
    for (text, donor, key, reason) in [
        ("2.attn.q=0", &none, "2.attn.q", "no such site"),
        ("9.mlp.act_in=0", &none, "9.mlp.act_in", "the layers are 0 to 1"),
        ("0.attn.q[12]=0", &none, "0.attn.q", "12..13 are not among its 12"),
        ("0.attn.q[3:13]=0", &none, "0.attn.q", "3..13"),
        ("0.attn.q[3:3]=0", &none, "0.attn.q", "3..3"),
        ("0.attn.q[4:3]=0", &none, "0.attn.q", "4..3"),
        ("0.attn.q[18446744073709551615]=0", &none, "0.attn.q", "among its 12"),
        ("0.attn.q[h2]=0", &none, "0.attn.q", "no head 2 among 2"),
        ("0.attn.q[h18446744073709551615]=0", &none, "0.attn.q", "no head"),
        ("0.attn.q[h1.6]=0", &none, "0.attn.q", "no channel 6 among a head's 6"),
        ("0.resid_mid[h0]=0", &none, "0.resid_mid", "have heads"),
        ("0.attn.act_in[h0]=0", &none, "0.attn.act_in", "have heads"),
        ("0.attn.v=mean", &none, "0.attn.v", "mean activations are not given"),
        ("0.attn.k=mean", &none, "0.attn.k", "mean activations are not given"),
        ("*.attn.q=mean", &none, "1.attn.q", "mean activations are not given"),
        ("0.attn.q=patch", &none, "0.attn.q", "no other run"),
        ("0.attn.q=patch", &two, "0.attn.q", "no other run"),
        ("0.attn.q=patch", &narrow, "0.attn.q", "no other run"),
        ("0.attn.q=patch", &short, "0.attn.q", "no other run"),
    ] {
        let error = refusal(text, donor);
        assert!(matches!(&error, Error::Config { key: named, .. } if named == key), "{text}: {error}");
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
}

#[test]
fn positions_that_a_prompt_lacks_are_errors_that_name_the_site() {
    let config = as_published();
    let model = model(&config, &random_state(&config, 1), &Device::cpu());
    let donor = donor(&model, &prompts(&config, 1, 1, 5), 1);
    let tokens = prompts(&config, 1, 2, T);
    for (text, reason) in [
        ("0.attn.q@6=0", "not among 6"),
        ("0.attn.q@-7=0", "not among 6"),
        ("0.attn.q@9223372036854775807=0", "not among 6"),
        ("0.attn.q@-9223372036854775808=0", "not among 6"),
        ("0.attn.q@3:7=0", "not among 6"),
        ("0.attn.q@6:=0", "not among 6"),
        ("0.attn.q@3:3=0", "not among 6"),
        ("0.attn.q@-1:2=0", "not among 6"),
        ("0.attn.q=patch", "6 positions cannot be patched from 5"),
        ("0.attn.q@5=patch", "not among 5"),
        ("0.attn.q@1:=patch", "5 positions cannot be patched from 4"),
    ] {
        let mut edits = Interventions::new(&config, &parse(&[text.into()]), BTreeMap::new(), donor.clone()).unwrap();
        let error = logits(&model, &tokens, 2, &mut edits).unwrap_err();
        assert!(matches!(&error, Error::Config { key, .. } if key == "0.attn.q"), "{text}: {error:?}");
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
}
