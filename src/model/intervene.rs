//! Interventions: at any site, channels and positions are set, added to, scaled, ablated or patched
//! while a model runs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::ops::Range;
use std::str::FromStr;

use super::site::site_names;
use super::{Hooks, ModelConfig, Site, SiteKind};
use crate::files::{HostTensor, serialize_as_text};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// What becomes of the chosen activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// They become this number; 0 ablates.
    Set(f32),
    /// This number is added.
    Add(f32),
    /// They are multiplied by this number.
    Scale(f32),
    /// Each becomes its channel's mean over reference data.
    Mean,
    /// Each becomes what it was in another run.
    Patch,
}

/// The sites of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditSites {
    /// One site.
    One(Site),
    /// The sites of a kind in every layer.
    EveryLayer(SiteKind),
}

/// Channels of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// From the first to before the second.
    Range(usize, usize),
    /// Those of a head, or one of them: only at `q`, `k`, `v` and `y`.
    Head(usize, Option<usize>),
}

/// Positions in the sequence, negative ones counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// One of them.
    At(i64),
    /// From the first to before the second; left out, from the start or to the end.
    Range(Option<i64>, Option<i64>),
}

/// One intervention. Its text form is `SITE[CHANNELS]@POSITIONS` and what to do:
///
/// * `3.mlp.post_act[17]@-1=0` sets channel 17 at the last position to 0;
/// * `0.attn.q[h2]*=0.5` halves all of head 2, `0.attn.q[h2.5]+=1` adds to its channel 5, both at
///   every position;
/// * `*.mlp.resid_delta=mean` mean-ablates the MLPs of all layers;
/// * `final_resid@3:=patch` takes everything from position 3 on from another run.
///
/// Channels and positions are comma-separated numbers and ranges `a:b` (without b). What is named
/// twice in one edit is edited once.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The site, or one of every layer.
    pub sites: EditSites,
    /// The channels; all, if the list is empty.
    pub channels: Vec<Channels>,
    /// The positions; all, if the list is empty.
    pub positions: Vec<Positions>,
    /// What becomes of them.
    pub action: Action,
}

impl FromStr for Edit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            let form = "SITE[CHANNELS]@POSITIONS=VALUE, such as 3.mlp.post_act[17]@-1=0";
            Error::config(text, format!("{what}; the form is {form} (also +=, *=, =mean, =patch)"))
        };
        let (target, value) = text.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let value = value.trim();
        let number = || value.parse::<f32>().ok().filter(|v| v.is_finite());
        let number = || number().ok_or_else(|| wrong(&format!("`{value}` is not a number")));
        let target = target.trim_end();
        let (target, action) = match target.split_at_checked(target.len().saturating_sub(1)) {
            Some((target, "+")) => (target, Action::Add(number()?)),
            Some((target, "-")) => (target, Action::Add(-number()?)),
            Some((target, "*")) => (target, Action::Scale(number()?)),
            _ if value == "mean" => (target, Action::Mean),
            _ if value == "patch" => (target, Action::Patch),
            _ => (target, Action::Set(number()?)),
        };
        let (target, positions) = match target.split_once('@') {
            None => (target, Vec::new()),
            Some((target, list)) => {
                let list: Option<_> = list.split(',').map(|item| position(item.trim())).collect();
                (target, list.ok_or_else(|| wrong("positions are numbers and ranges a:b"))?)
            }
        };
        let (site, channels) = match target.trim().strip_suffix(']').map(|target| target.split_once('[')) {
            None => (target, Vec::new()),
            Some(None) => return Err(wrong("a `]` without its `[`")),
            Some(Some((site, list))) => {
                let list: Option<_> = list.split(',').map(|item| channel(item.trim())).collect();
                (site, list.ok_or_else(|| wrong("channels are numbers, ranges a:b, heads h2 and their channels h2.5"))?)
            }
        };
        let sites = match site.trim().strip_prefix("*.") {
            Some(kind) => kind.parse().map(EditSites::EveryLayer),
            None => site.trim().parse().map(EditSites::One),
        };
        let unknown = |_| wrong(&format!("`{}` is not a site: {}", site.trim(), site_names()));
        let sites = sites.map_err(unknown)?;
        Ok(Self { sites, channels, positions, action })
    }
}

impl EditSites {
    /// The kind of layer site, if they are such sites.
    pub(crate) fn kind(self) -> Option<SiteKind> {
        match self {
            Self::One(site) => site.kind(),
            Self::EveryLayer(kind) => Some(kind),
        }
    }

    /// The sites in models of `config`.
    fn resolve(self, config: &ModelConfig) -> Result<Vec<Site>> {
        match self {
            Self::EveryLayer(kind) => Ok(config.sites_of(&[kind])),
            Self::One(site @ Site::Layer(layer, _)) if layer >= config.n_layer => {
                let last = config.n_layer.saturating_sub(1);
                Err(Error::config(site.to_string(), format!("no such site; the layers are 0 to {last}")))
            }
            Self::One(site) => Ok(vec![site]),
        }
    }
}

impl Display for EditSites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(site) => write!(f, "{site}"),
            Self::EveryLayer(kind) => write!(f, "*.{kind}"),
        }
    }
}

impl Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| items.join(",");
        write!(f, "{}", self.sites)?;
        if !self.channels.is_empty() {
            write!(f, "[{}]", list(self.channels.iter().map(ToString::to_string).collect()))?;
        }
        if !self.positions.is_empty() {
            write!(f, "@{}", list(self.positions.iter().map(ToString::to_string).collect()))?;
        }
        match self.action {
            Action::Set(v) => write!(f, "={v}"),
            Action::Add(v) => write!(f, "+={v}"),
            Action::Scale(v) => write!(f, "*={v}"),
            Action::Mean => write!(f, "=mean"),
            Action::Patch => write!(f, "=patch"),
        }
    }
}

impl Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Range(a, b) if b == a.saturating_add(1) => write!(f, "{a}"),
            Self::Range(a, b) => write!(f, "{a}:{b}"),
            Self::Head(head, None) => write!(f, "h{head}"),
            Self::Head(head, Some(channel)) => write!(f, "h{head}.{channel}"),
        }
    }
}

impl Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: Option<i64>| end.map(|end| end.to_string()).unwrap_or_default();
        match *self {
            Self::At(at) => write!(f, "{at}"),
            Self::Range(a, b) => write!(f, "{}:{}", end(a), end(b)),
        }
    }
}

serialize_as_text!(Edit);

fn channel(item: &str) -> Option<Channels> {
    if let Some(head) = item.strip_prefix('h') {
        return Some(match head.split_once('.') {
            None => Channels::Head(head.parse().ok()?, None),
            Some((head, channel)) => Channels::Head(head.parse().ok()?, Some(channel.parse().ok()?)),
        });
    }
    Some(match item.split_once(':') {
        None => item.parse().ok().map(|c: usize| Channels::Range(c, c.saturating_add(1)))?,
        Some((a, b)) => Channels::Range(a.parse().ok()?, b.parse().ok()?),
    })
}

fn position(item: &str) -> Option<Positions> {
    let end = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    Some(match item.split_once(':') {
        None => Positions::At(item.parse().ok()?),
        Some((a, b)) => Positions::Range(end(a)?, end(b)?),
    })
}

impl Channels {
    fn resolve(self, site: Site, config: &ModelConfig) -> Result<Range<usize>> {
        let width = site.width(config);
        let outside = |what: String| Err(Error::config(site.to_string(), what));
        match self {
            Self::Range(a, b) if a < b && b <= width => Ok(a..b),
            Self::Range(a, b) => outside(format!("channels {a}..{b} are not among its {width}")),
            Self::Head(..) if !site.kind().is_some_and(SiteKind::has_heads) => {
                outside("only attn.q, attn.k, attn.v and attn.y have heads".into())
            }
            Self::Head(head, channel) => {
                let d = config.head_width();
                match channel {
                    _ if head >= config.n_head => outside(format!("there is no head {head} among {}", config.n_head)),
                    Some(c) if c >= d => outside(format!("there is no channel {c} among a head's {d}")),
                    Some(c) => Ok(head * d + c..head * d + c + 1),
                    None => Ok(head * d..(head + 1) * d),
                }
            }
        }
    }
}

impl Positions {
    fn resolve(self, site: Site, length: usize) -> Result<Range<usize>> {
        let outside = || Error::config(site.to_string(), format!("position {self} is not among {length}"));
        let at = |p: i64| {
            let p = if p < 0 { p.saturating_add_unsigned(length as u64) } else { p };
            usize::try_from(p).ok().filter(|&p| p <= length).ok_or_else(outside)
        };
        match self {
            Self::At(p) => at(p).and_then(|p| if p < length { Ok(p..p + 1) } else { Err(outside()) }),
            Self::Range(a, b) => {
                let (a, b) = (a.map_or(Ok(0), at)?, b.map_or(Ok(length), at)?);
                if a < b { Ok(a..b) } else { Err(outside()) }
            }
        }
    }
}

/// Whether these are the values `(1, T, width)` of a site in one sequence.
fn fits(donor: &HostTensor, width: usize) -> bool {
    matches!(donor.shape[..], [1, t, w] if w == width && donor.data.len() == t * w)
}

/// Edits made ready for a model. Several at one site are made in order. In a batch of unequal
/// prompts, positions count within each prompt.
#[derive(Default)]
pub struct Interventions {
    edits: HashMap<Site, Vec<Edit>>,
    config: ModelConfig,
    means: BTreeMap<Site, Vec<f32>>,
    donor: BTreeMap<Site, HostTensor>,
    /// Of the prompts that are running.
    lengths: Vec<usize>,
}

/// What an edited value is multiplied by, and what is added then.
#[derive(Clone, Default)]
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Interventions {
    /// `means` holds the mean of every channel of the sites that are mean-ablated; `donor` the
    /// values `(1, T, width)` of the sites that are patched, from the other run. A patched position
    /// is that of the same number (negative: from the end) in the other run; without positions,
    /// both runs are equally long.
    ///
    /// # Errors
    /// [`Error::Config`] naming an edit's site that does not exist, channels it does not have, or
    /// what is missing.
    pub fn new(
        config: &ModelConfig,
        edits: &[Edit],
        means: BTreeMap<Site, Vec<f32>>,
        donor: BTreeMap<Site, HostTensor>,
    ) -> Result<Self> {
        let mut ready: HashMap<Site, Vec<Edit>> = HashMap::new();
        for edit in edits {
            for site in edit.sites.resolve(config)? {
                let width = site.width(config);
                for channels in &edit.channels {
                    channels.resolve(site, config)?;
                }
                let missing = |what: &str| Err(Error::config(site.to_string(), what));
                match edit.action {
                    Action::Mean if means.get(&site).is_none_or(|m| m.len() != width) => {
                        return missing("its mean activations are not given");
                    }
                    Action::Patch if donor.get(&site).is_none_or(|d| !fits(d, width)) => {
                        return missing("there is no other run to patch it from");
                    }
                    _ => ready.entry(site).or_default().push(edit.clone()),
                }
            }
        }
        Ok(Self { edits: ready, config: config.clone(), means, donor, lengths: Vec::new() })
    }

    /// The edits of a site `(length, width)` of one prompt.
    fn affine(&self, site: Site, edits: &[Edit], length: usize) -> Result<Affine> {
        let width = site.width(&self.config);
        let mut all = Affine { scale: vec![1.0; length * width], shift: vec![0.0; length * width] };
        for edit in edits {
            let every_channel = [Channels::Range(0, width)];
            let channels = if edit.channels.is_empty() { &every_channel } else { &edit.channels[..] };
            let everywhere = [Positions::Range(None, None)];
            let positions = if edit.positions.is_empty() { &everywhere } else { &edit.positions[..] };
            let mut done = vec![false; length * width];
            for positions in positions {
                let at = positions.resolve(site, length)?;
                let from = match edit.action {
                    Action::Patch => self.donor_start(site, *positions, at.len())?,
                    _ => 0,
                };
                for channels in channels {
                    let channels = channels.resolve(site, &self.config)?;
                    for (t, c) in at.clone().flat_map(|t| channels.clone().map(move |c| (t, c))) {
                        if std::mem::replace(&mut done[t * width + c], true) {
                            continue;
                        }
                        let (s, a) = (&mut all.scale[t * width + c], &mut all.shift[t * width + c]);
                        (*s, *a) = match edit.action {
                            Action::Set(v) => (0.0, v),
                            Action::Add(v) => (*s, *a + v),
                            Action::Scale(v) => (*s * v, *a * v),
                            Action::Mean => (0.0, self.means[&site][c]),
                            Action::Patch => (0.0, self.donor[&site].data[(from + t - at.start) * width + c]),
                        };
                    }
                }
            }
        }
        Ok(all)
    }

    /// Where in the other run the positions begin that are patched into `count` positions of this
    /// one.
    fn donor_start(&self, site: Site, positions: Positions, count: usize) -> Result<usize> {
        let donor = &self.donor[&site];
        let length = donor.data.len() / donor.shape.last().copied().unwrap_or(1).max(1);
        let theirs = positions.resolve(site, length)?;
        if theirs.len() != count {
            let theirs = theirs.len();
            return Err(Error::config(
                site.to_string(),
                format!(
                    "{count} positions cannot be patched from {theirs}; name positions that both runs have, such as @-1"
                ),
            ));
        }
        Ok(theirs.start)
    }

    /// The edits of a site `(batch, length, width)`; padding stays unchanged.
    fn batch_affine(&self, site: Site, edits: &[Edit], batch: usize, length: usize) -> Result<Affine> {
        let size = length * site.width(&self.config);
        let mut all = Affine::default();
        let mut known: HashMap<usize, Affine> = HashMap::new();
        let lengths = if self.lengths.is_empty() { &[length][..] } else { &self.lengths };
        for &prompt in lengths.iter().cycle().take(batch) {
            let of = match known.entry(prompt) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let mut of = self.affine(site, edits, prompt)?;
                    of.scale.resize(size, 1.0);
                    of.shift.resize(size, 0.0);
                    entry.insert(of)
                }
            };
            all.scale.extend_from_slice(&of.scale);
            all.shift.extend_from_slice(&of.shift);
        }
        Ok(all)
    }
}

impl Hooks for Interventions {
    fn on_start(&mut self, lengths: &[usize]) {
        self.lengths = lengths.to_vec();
    }

    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        let Some(edits) = self.edits.get(&site) else { return Ok(value) };
        let shape = value.value().shape().to_vec();
        let &[batch, length, _] = &shape[..] else {
            return Err(Error::shape("intervene", format!("{site} is {shape:?}, expected (B, T, width)")));
        };
        let Affine { scale, shift } = self.batch_affine(site, edits, batch, length)?;
        let device = value.value().device().clone();
        let scale = device.upload("intervention scale", &shape, &scale)?;
        let shift = device.upload("intervention shift", &shape, &shift)?;
        tape.affine(&value, scale, &shift)
    }
}
