//! Requests about a prompt, and the models' answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use gossamer::circuits::{Circuit, Node, Probe, Response};
use gossamer::device::on_worker;
use gossamer::files::HostTensor;
use gossamer::model::{Edit, Site, SiteKind, ranked};

use super::model::Opened;
use crate::jobs::Inbox;

/// How many next tokens are listed.
const TOKENS: usize = 10;

/// A prompt with interventions.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub prompt: String,
    pub edits: Vec<Edit>,
    /// The token after which the next one is asked for; the last if `None` or if there are fewer.
    pub at: Option<usize>,
    /// Layer and number of the head whose attention pattern is requested.
    pub head: Option<(usize, usize)>,
}

/// The models' answer to a [`Question`].
#[derive(Clone)]
pub struct Answer {
    pub question: Question,
    /// The prompt's tokens as text.
    pub tokens: Vec<String>,
    /// The token after which the probabilities are.
    pub at: usize,
    /// Without the edits.
    pub plain: Arc<Response>,
    /// The next tokens to list, the task's answers first.
    pub shown: Vec<u32>,
    /// With the edits, if there are any.
    pub edited: Option<Response>,
    /// The head's attention, with the edits, `(T, T)`.
    pub pattern: Option<Vec<f32>>,
    pub took: Duration,
}

/// The response to a prompt without edits, which most requests share.
struct Plain {
    prompt: String,
    tokens: Vec<u32>,
    at: usize,
    response: Arc<Response>,
}

/// Answers questions about a model and its circuit.
pub fn serve(opened: &Opened, mut inbox: Inbox<Result<Answer, String>, Question>) {
    let means = opened.means.clone();
    let probe = means.and_then(|means| Probe::new(&opened.model, &opened.circuit, means).map_err(|e| e.to_string()));
    let mut plain: Option<Plain> = None;
    while let Some(question) = inbox.next_request() {
        let answer = probe
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|probe| on_worker(|| answer(opened, probe, &mut plain, question)).map_err(|e| format!("{e:#}")));
        inbox.reporter.finish(answer);
    }
}

fn answer(opened: &Opened, probe: &Probe, known: &mut Option<Plain>, question: Question) -> Result<Answer> {
    let start = Instant::now();
    let position = |tokens: &[u32]| question.at.unwrap_or(usize::MAX).min(tokens.len().saturating_sub(1));
    let same = |plain: &Plain| plain.prompt == question.prompt && plain.at == position(&plain.tokens);
    let plain = match known.take().filter(same) {
        Some(plain) => plain,
        None => {
            let tokens = encode(opened, "prompt", &question.prompt, opened.model.config.block_size)?;
            let at = position(&tokens);
            let response = Arc::new(probe.run_at(&tokens, &[], at)?);
            Plain { prompt: question.prompt.clone(), tokens, at, response }
        }
    };
    let Plain { tokens, at, response: plain, .. } = &*known.insert(plain);
    let edited = if question.edits.is_empty() { None } else { Some(probe.run_at(tokens, &question.edits, *at)?) };
    let sites = &edited.as_ref().unwrap_or(plain).sites;
    let pattern = question.head.and_then(|(layer, head)| {
        let site = |kind: SiteKind| sites.get(&kind.at(layer));
        Some(opened.model.attention_pattern(layer, head, site(SiteKind::AttnQ)?, site(SiteKind::AttnK)?))
    });
    let pattern = pattern.transpose()?;
    let text = |&id: &u32| opened.tokenizer.token_text(id);
    let tokens = tokens.iter().map(text).collect();
    let responses = std::iter::once(&**plain).chain(&edited);
    let all: Vec<&[f64]> =
        responses.flat_map(|response| [&response.model[..], &response.circuit, &response.complement]).collect();
    let shown = listed_tokens(opened, &all);
    Ok(Answer { question, tokens, at: *at, plain: plain.clone(), shown, edited, pattern, took: start.elapsed() })
}

/// The tokens of a text: at least one and at most `longest`. `name` names the text in errors.
pub fn encode(opened: &Opened, name: &str, text: &str, longest: usize) -> Result<Vec<u32>> {
    let tokens = opened.tokenizer.encode(text)?;
    let many = tokens.len();
    anyhow::ensure!(many > 0, "write a {name}");
    anyhow::ensure!(many <= longest, "the {name} has {many} tokens, but the model reads {longest}: shorten it");
    Ok(tokens)
}

/// The tokens to list of several distributions, the task's answers first.
pub fn listed_tokens(opened: &Opened, distributions: &[&[f64]]) -> Vec<u32> {
    top_tokens(&task_answers(&opened.circuit), distributions, TOKENS)
}

impl Answer {
    /// A node's activations at all tokens, without and with the edits.
    pub fn activations(&self, node: Node) -> Option<(Vec<f32>, Option<Vec<f32>>)> {
        let site = node.site();
        let of = |response: &Response| column(response.sites.get(&site)?, node.index);
        Some((of(&self.plain)?, self.edited.as_ref().and_then(of)))
    }

    /// How much the head of the question attends from a token to each, if the question names one.
    pub fn attention(&self, from: usize) -> Option<&[f32]> {
        let length = self.tokens.len();
        self.pattern.as_ref()?.get(from * length..(from + 1) * length)
    }

    /// The channels of a site with the largest activations at a token, the largest first.
    pub fn largest(&self, site: Site, token: usize, count: usize) -> Vec<Activation> {
        let row = |response: &Response| -> Option<Vec<f32>> {
            let values = response.sites.get(&site)?;
            let width = *values.shape.last()?;
            Some(values.data.get(token * width..(token + 1) * width)?.to_vec())
        };
        let Some(plain) = row(&self.plain) else { return Vec::new() };
        let values = self.edited.as_ref().and_then(row).unwrap_or_else(|| plain.clone());
        let mut order: Vec<usize> = (0..values.len()).filter(|&c| values[c] != 0.0 || plain[c] != 0.0).collect();
        order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()).then(a.cmp(&b)));
        order.truncate(count);
        let activation = |channel: usize| Activation {
            channel,
            value: values[channel],
            plain: Some(plain[channel]).filter(|&plain| plain != values[channel]),
        };
        order.into_iter().map(activation).collect()
    }
}

/// A channel's activation at a token.
pub struct Activation {
    pub channel: usize,
    pub value: f32,
    /// Without the edits, if it differs.
    pub plain: Option<f32>,
}

fn column(values: &HostTensor, channel: usize) -> Option<Vec<f32>> {
    let width = *values.shape.last()?;
    (channel < width).then(|| values.data.iter().skip(channel).step_by(width).copied().collect())
}

/// At most `most` tokens: `first`, then the most probable ones of each distribution.
fn top_tokens(first: &[u32], distributions: &[&[f64]], most: usize) -> Vec<u32> {
    let mut shown = first.to_vec();
    let orders: Vec<Vec<u32>> = distributions.iter().map(|p| ranked(p)).collect();
    let longest = orders.iter().map(Vec::len).max().unwrap_or(0);
    for rank in 0..longest {
        for order in &orders {
            match order.get(rank) {
                _ if shown.len() >= most => return shown,
                Some(id) if !shown.contains(id) => shown.push(*id),
                _ => {}
            }
        }
    }
    shown
}

/// The two answers of the circuit's task, if they are known.
pub fn task_answers(circuit: &Circuit) -> Vec<u32> {
    let answers = [&circuit.task.target, &circuit.task.alternative];
    answers.into_iter().filter(|answer| !answer.text.is_empty()).map(|answer| answer.id).collect()
}

#[cfg(test)]
mod tests {
    use super::top_tokens;

    #[test]
    fn the_most_probable_tokens_of_each_are_shown_once() {
        let (a, b) = ([0.1, 0.6, 0.3, 0.0], [0.2, 0.1, 0.3, 0.4]);
        assert_eq!(top_tokens(&[], &[&a, &b], 3), [1, 3, 2]);
        assert_eq!(top_tokens(&[3], &[&a, &b], 9), [3, 1, 2, 0]);
        assert_eq!(top_tokens(&[3, 0], &[], 9), [3, 0]);
    }
}
