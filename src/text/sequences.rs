//! Documents as sequences of tokens to run a model on.

use std::path::Path;

use super::python;
use super::source::Source;
use super::tokenizer::Tokenizer;
use crate::files::{HostIds, load_ids};
use crate::{Error, Result};

/// The tokens of all documents, each document followed by the end-of-text token, cut into sequences
/// of `length`, up to `max_tokens`. Tokens that do not fill a sequence are dropped, unless there
/// are no others.
///
/// # Errors
/// Returns the errors of the documents and of encoding, [`Error::Data`] for fewer than two tokens,
/// and [`Error::Tokenizer`] if there is no end-of-text token.
pub fn sequences(
    documents: impl IntoIterator<Item = Result<String>>,
    tokenizer: &Tokenizer,
    length: usize,
    max_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let end = tokenizer.expect_end_of_text()?;
    let mut tokens = Vec::new();
    // One whole sequence, even if that is more than `max_tokens`.
    let most = max_tokens.max(length);
    for document in documents {
        if tokens.len() >= most {
            break;
        }
        // A document can be much longer than what is needed of it.
        let encoded = tokenizer.encode_parts(&document?, &mut |ids, _| {
            tokens.extend(ids);
            if tokens.len() >= most { Err(Error::Stopped) } else { Ok(()) }
        });
        match encoded {
            Err(Error::Stopped) => break,
            encoded => encoded?,
        }
        tokens.push(end);
    }
    tokens.truncate(most);
    if tokens.len() < 2 {
        return Err(Error::Data("there are fewer than two tokens in the data".into()));
    }
    let length = length.clamp(1, tokens.len());
    Ok(tokens.chunks_exact(length).map(<[u32]>::to_vec).collect())
}

/// [`sequences`] of the documents in files and folders, or of generated Python if there are none.
/// Logs how many documents were skipped.
pub(crate) fn sequences_of(
    data: &Source,
    tokenizer: &Tokenizer,
    length: usize,
    max_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    if data.is_empty() {
        return sequences(python::documents(0).map(Ok), tokenizer, length, max_tokens);
    }
    let mut documents = data.documents()?;
    let found = sequences(documents.by_ref(), tokenizer, length, max_tokens);
    let skipped = documents.skipped().listed();
    if !skipped.is_empty() {
        tracing::info!("note: {skipped}");
    }
    found.map_err(|error| match error {
        Error::Data(message) => Error::Data(format!("{}: {message}", data.names())),
        other => other,
    })
}

/// The tensor `tokens`, (T) or (B, T), of a safetensors file.
pub(crate) fn token_file(path: &Path) -> Result<Vec<Vec<u32>>> {
    let HostIds { shape, data: ids } = load_ids(path, "tokens")?;
    match shape[..] {
        [length] | [_, length] if length > 0 && !ids.is_empty() => {
            Ok(ids.chunks(length).map(<[u32]>::to_vec).collect())
        }
        _ => Err(Error::file(path, format!("tensor `tokens` is {shape:?}, expected (T) or (B, T)"))),
    }
}
