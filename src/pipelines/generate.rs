use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::Prompt;
use crate::formats::Pretrained;
use crate::model::{Generator, Sampling};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A prompt to continue.
#[derive(Clone, Copy, Debug)]
pub struct GenerateRequest<'a> {
    /// The prompt.
    pub prompt: Prompt<'a>,
    /// How to sample. Sample `i` has the seed plus `i`.
    pub sampling: Sampling,
    /// The number of samples.
    pub samples: u64,
}

impl GenerateRequest<'_> {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for an invalid setting, and [`Error::Request`] for one without
    /// effect.
    pub fn validate(&self) -> Result<()> {
        self.sampling.validate()?;
        let limited = self.sampling.top_p.is_some() || self.sampling.top_k.is_some();
        if self.sampling.temperature == 0.0 && limited {
            let message = "a temperature of 0 chooses the most probable token, so that --top-p and --top-k change nothing: \
                           remove them";
            return Err(Error::Request(message.into()));
        }
        Ok(())
    }
}

/// Writes the prompt and its continuation to `out` while it is generated, for each sample, and logs
/// the speed. Without a tokenizer they are ids with commas.
///
/// # Errors
/// Returns the errors of encoding and of the forward pass, and [`Error::Io`] if `out` cannot be
/// written.
pub fn generate(model: &Pretrained, request: &GenerateRequest, out: &mut dyn Write) -> Result<()> {
    let prompt = request.prompt.tokens(model)?;
    let tokenizer = model.tokenizer.as_ref();
    let beginning = match (request.prompt, tokenizer) {
        (Prompt::Text { text, .. }, _) => text.to_string(),
        (Prompt::Ids(ids), Some(tokenizer)) => tokenizer.decode(ids)?,
        (Prompt::Ids(ids), None) => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
    };
    let mut write = |text: &str| {
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|e| Error::io(Path::new("-"), e))
    };
    for sample in 0..request.samples {
        if request.samples > 1 {
            write(&format!("--- {} ---\n", sample + 1))?;
        }
        write(&beginning)?;
        let (seed, end_of_text) =
            (request.sampling.seed.wrapping_add(sample), tokenizer.and_then(Tokenizer::end_of_text));
        let (start, mut count, mut text) = (Instant::now(), 0, TextStream::new(tokenizer));
        let mut generator = Generator::new(&model.model, &prompt, Sampling { seed, end_of_text, ..request.sampling })?;
        while let Some(token) = generator.next_token()? {
            count += 1;
            write(&text.push(token))?;
        }
        write(&(text.finish() + "\n"))?;
        tracing::info!("{count} tokens, {:.1} tokens/s", f64::from(count) / start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Turns tokens into text while they are generated: a character may be spread over several tokens.
struct TextStream<'a> {
    tokenizer: Option<&'a Tokenizer>,
    pending: Vec<u8>,
}

impl<'a> TextStream<'a> {
    /// A stream without text.
    fn new(tokenizer: Option<&'a Tokenizer>) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// The characters that `token` completes; without a tokenizer its id. Bytes that cannot become a character give replacement
    /// characters.
    fn push(&mut self, token: u32) -> String {
        let Some(tokenizer) = self.tokenizer else { return format!(",{token}") };
        let bytes = tokenizer.token_bytes(token);
        self.pending.extend(bytes.unwrap_or_else(|| tokenizer.token_text(token).into_bytes()));
        let incomplete = |&length: &usize| {
            let tail = self.pending.len().checked_sub(length).map(|start| std::str::from_utf8(&self.pending[start..]));
            matches!(tail, Some(Err(e)) if e.error_len().is_none() && e.valid_up_to() == 0)
        };
        let whole = self.pending.len() - (1..4).find(incomplete).unwrap_or(0);
        let ready: Vec<u8> = self.pending.drain(..whole).collect();
        String::from_utf8_lossy(&ready).into_owned()
    }

    /// The text of an incomplete last character.
    fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}
