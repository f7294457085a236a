//! Which channels steer: the dense model's answers, with each channel as in the counterfactual
//! prompt.

use std::collections::BTreeSet;

use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use super::steer::{Change, Channel, Steering};
use crate::circuits::Circuit;
use crate::observer::Stage;
use crate::{Error, Result};

/// The channels that may steer by what a circuit says: those of the residual stream that it reads
/// or writes, wherever a sublayer reads them, in the order of sublayers. What one sublayer finds in
/// a channel may move the dense model only after the next one has passed it on.
pub fn residual_channels(circuit: &Circuit) -> Vec<Channel> {
    let resides = |site: &str| site.ends_with(".act_in") || site.ends_with(".resid_delta");
    let indices = circuit.nodes.iter().filter(|entry| resides(&entry.site)).map(|entry| entry.index);
    let indices: BTreeSet<usize> = indices.filter(|&index| index < circuit.model.d_model).collect();
    let at = |sublayer| indices.iter().map(move |&index| Channel { sublayer, index });
    (0..2 * circuit.model.n_layer).flat_map(at).collect()
}

/// A prompt, what is right after it, and another prompt with another answer. An answer may be given
/// in several ways, each a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptPair {
    /// The prompt that the dense model reads.
    pub prompt: Vec<u32>,
    /// The prompt that it is steered towards.
    pub counterfactual: Vec<u32>,
    /// What may follow the prompt.
    pub answer: Vec<u32>,
    /// What may follow the counterfactual.
    pub other: Vec<u32>,
}

/// What steering does to the answers, over all pairs of prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Effect {
    /// The median probability of the counterfactual's answer.
    pub other: f64,
    /// The 95 % interval of that median over prompts, whatever the distribution.
    pub other_interval: [f64; 2],
    /// The median probability of the original answer.
    pub answer: f64,
    /// The mean logarithm of the odds of the counterfactual's answer against the prompt's own, in
    /// nats.
    pub log_odds: f64,
}

impl Effect {
    /// Of the probabilities `(answer, other)` at each pair of prompts.
    fn of(pairs: &[(f64, f64)]) -> Self {
        // Probabilities that vanish in f64 would make infinities.
        let odds = |&(answer, other): &(f64, f64)| (other.max(f64::MIN_POSITIVE) / answer.max(f64::MIN_POSITIVE)).ln();
        Self {
            other: median(pairs.iter().map(|pair| pair.1).collect()),
            other_interval: interval(pairs.iter().map(|pair| pair.1).collect()),
            answer: median(pairs.iter().map(|pair| pair.0).collect()),
            log_odds: pairs.iter().map(odds).sum::<f64>() / pairs.len().max(1) as f64,
        }
    }
}

/// A channel and what it does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedChannel {
    /// Its name.
    pub channel: Channel,
    /// The answers at full strength.
    pub effect: Effect,
}

/// Answers at each of several strengths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StrengthSweep {
    /// What the change is multiplied by, in the order of the lists below.
    pub strengths: Vec<f64>,
    /// At each strength, steered.
    pub steered: Vec<Effect>,
    /// The same through random channels instead, each an own list: the amounts are those of the
    /// steered channels.
    pub random: Vec<Vec<Effect>>,
}

impl Steering<'_> {
    /// The effect of each of some channels at full strength, the one that makes the other answer
    /// most probable first; before all, that of none.
    ///
    /// # Errors
    /// [`Error::Request`] without pairs; otherwise those of [`Steering::probabilities`].
    pub fn candidates(&self, channels: &[Channel], pairs: &[PromptPair]) -> Result<(Effect, Vec<RankedChannel>)> {
        let effects = self.effects(pairs, channels.len() + 1, |pair| {
            let (here, there) = (self.read(&pair.prompt)?, self.read(&pair.counterfactual)?);
            let steered = channels.iter().map(|&channel| here.towards(&there, channel));
            Ok(std::iter::once(Change::default()).chain(steered).collect())
        })?;
        let mut ranked: Vec<RankedChannel> =
            channels.iter().zip(&effects[1..]).map(|(&channel, &effect)| RankedChannel { channel, effect }).collect();
        let key = |c: &RankedChannel| (c.effect.other, c.effect.log_odds);
        ranked.sort_by(|a, b| {
            let ((p, odds), (q, others)) = (key(a), key(b));
            q.total_cmp(&p).then(others.total_cmp(&odds)).then(a.channel.cmp(&b.channel))
        });
        Ok((effects[0], ranked))
    }

    /// The effect of some channels together at each strength, and of `controls` draws of random
    /// channels in their places.
    ///
    /// # Errors
    /// [`Error::Request`] without pairs; otherwise those of [`Steering::probabilities`].
    pub fn sweep(
        &self,
        channels: &[Channel],
        pairs: &[PromptPair],
        strengths: &[f64],
        controls: usize,
        seed: u64,
    ) -> Result<StrengthSweep> {
        let draws = self.controls(channels, controls, seed);
        let effects = self.effects(pairs, strengths.len() * (1 + controls), |pair| {
            let (here, there) = (self.read(&pair.prompt)?, self.read(&pair.counterfactual)?);
            let mut change = Change::default();
            channels.iter().for_each(|&channel| change.merge(here.towards(&there, channel)));
            let random = draws.iter().map(|draw| draw.apply(&change));
            let all: Vec<Change> = std::iter::once(change.clone()).chain(random).collect();
            Ok(all.iter().flat_map(|change| strengths.iter().map(|&strength| change.scaled(strength))).collect())
        })?;
        let mut lists = effects.chunks(strengths.len().max(1)).map(<[Effect]>::to_vec);
        let steered = lists.next().unwrap_or_default();
        Ok(StrengthSweep { strengths: strengths.to_vec(), steered, random: lists.collect() })
    }

    /// Draws of random channels to stand in for `channels`, `controls` of them.
    pub fn controls(&self, channels: &[Channel], controls: usize, seed: u64) -> Vec<RandomChannels> {
        let width = self.sparse().config.d_model;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draw = |rng: &mut ChaCha8Rng| {
            let pick = |&channel: &Channel, rng: &mut ChaCha8Rng| {
                let taken = |index: &usize| channels.contains(&Channel { index: *index, ..channel });
                let order = sample(rng, width, width).into_iter();
                (channel, order.into_iter().find(|index| !taken(index)).unwrap_or(channel.index))
            };
            RandomChannels(channels.iter().map(|channel| pick(channel, rng)).collect())
        };
        (0..controls).map(|_| draw(&mut rng)).collect()
    }

    /// Over all pairs the effect of each of the `count` changes that `changes` makes of a pair.
    fn effects(
        &self,
        pairs: &[PromptPair],
        count: usize,
        changes: impl Fn(&PromptPair) -> Result<Vec<Change>>,
    ) -> Result<Vec<Effect>> {
        if pairs.is_empty() {
            return Err(Error::Request("there are no pairs of prompts to steer by".into()));
        }
        let mut by_change = vec![Vec::with_capacity(pairs.len()); count];
        for (done, pair) in pairs.iter().enumerate() {
            let (done, total) = (done as u64, Some(pairs.len() as u64));
            self.observer().advance(&Stage { name: "steering", done, total, unit: "prompts" })?;
            let probabilities = self.probabilities(&pair.prompt, &changes(pair)?)?;
            for (answers, p) in by_change.iter_mut().zip(&probabilities) {
                let of = |ids: &[u32]| ids.iter().filter_map(|&id| p.get(id as usize)).sum();
                answers.push((of(&pair.answer), of(&pair.other)));
            }
        }
        Ok(by_change.iter().map(|answers| Effect::of(answers)).collect())
    }
}

/// Random channels in the place of others.
pub struct RandomChannels(Vec<(Channel, usize)>);

impl RandomChannels {
    /// The same amounts through the random channels.
    pub fn apply(&self, change: &Change) -> Change {
        let other = |channel: Channel| self.0.iter().find(|(from, _)| *from == channel).map(|(_, to)| *to);
        change.through(|channel| other(channel).unwrap_or(channel.index))
    }
}

/// The interval of the median of what the values are drawn from, at 95 % or just above: between the
/// order statistics whose ranks the binomial distribution gives, as for the sign test. Of less than
/// six values, their range.
fn interval(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    // The logarithm of the probability of `rank` values below the median, and of up to as many.
    let (mut log, mut tail, mut rank) = (-(count as f64) * std::f64::consts::LN_2, 0.0, 0);
    while rank < count {
        tail += log.exp();
        if tail > 0.025 {
            break;
        }
        log += ((count - rank) as f64 / (rank + 1) as f64).ln();
        rank += 1;
    }
    let low = rank.saturating_sub(1);
    [values.get(low), values.iter().nth_back(low)].map(|value| value.copied().unwrap_or_default())
}

/// The middle of the values, or the mean of the two there.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks by exact sums of binomial coefficients, in Python: of 25 values 95.7 % between the 8th
    /// and the 18th, and so on.
    #[test]
    fn the_interval_of_a_median_is_between_the_ranks_of_the_sign_test() {
        for (count, want) in [(25, [8.0, 18.0]), (64, [24.0, 41.0]), (100, [40.0, 61.0])] {
            let shuffled = (0..count).map(|i| f64::from((i * 7) % count + 1)).collect();
            assert_eq!(interval(shuffled), want, "{count}");
        }
        assert_eq!((interval(vec![]), interval(vec![0.3]), interval(vec![0.1, 0.2])), ([0.0; 2], [0.3; 2], [0.1, 0.2]));
        assert!(interval((0..100_000).map(f64::from).collect())[0] > 49_600.0);
    }
}
