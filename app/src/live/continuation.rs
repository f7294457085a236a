//! Requests to continue a prompt, and the model's text while it grows.

use anyhow::Result;
use gossamer::device::on_worker;
use gossamer::model::{Generator, Sampling};

use super::ask::encode;
use super::model::Opened;
use crate::jobs::Inbox;

/// A prompt to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct Continue {
    pub prompt: String,
    pub max_new_tokens: usize,
    /// 0 takes the most probable token.
    pub temperature: f32,
    pub seed: u64,
}

/// What the whole model has written so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    pub request: Continue,
    pub text: String,
    pub tokens: usize,
}

/// Continues prompts, one token at a time, until a newer request comes.
pub fn serve(opened: &Opened, mut inbox: Inbox<Result<Continuation, String>, Continue>) {
    while let Some(request) = inbox.next_request() {
        let written = on_worker(|| write(opened, &mut inbox, request)).map_err(|e| format!("{e:#}"));
        inbox.reporter.finish(written);
    }
}

fn write(
    opened: &Opened,
    inbox: &mut Inbox<Result<Continuation, String>, Continue>,
    request: Continue,
) -> Result<Continuation> {
    let Opened { model, tokenizer, .. } = opened;
    let prompt = encode(opened, "prompt", &request.prompt, model.config.block_size)?;
    let Continue { max_new_tokens, temperature, seed, .. } = request;
    let sampling =
        Sampling { max_new_tokens, temperature, seed, end_of_text: tokenizer.end_of_text(), ..Sampling::default() };
    let mut generator = Generator::new(model, &prompt, sampling)?;
    let (mut tokens, mut written) = (Vec::new(), Continuation { request, text: String::new(), tokens: 0 });
    while let Some(token) = generator.next_token()? {
        tokens.push(token);
        (written.text, written.tokens) = (tokenizer.decode(&tokens)?, tokens.len());
        if inbox.outdated() || !inbox.reporter.update(Ok(written.clone())) {
            break;
        }
    }
    Ok(written)
}
