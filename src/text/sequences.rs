//! Documents as sequences of tokens to run a model on.

use super::tokenizer::{END_OF_TEXT, Tokenizer};
use crate::{Error, Result};

/// The documents' tokens, one after the other, each document followed by the end-of-text token, cut into sequences of
/// `length`, until there are `max_tokens` or no more documents. What does not fill a sequence is left out, unless it is all.
///
/// # Errors
/// Those of the documents and of encoding, and [`Error::Text`] where there are not even two tokens, or the tokenizer has no
/// end-of-text token.
pub fn sequences(
    documents: impl IntoIterator<Item = Result<String>>,
    tokenizer: &Tokenizer,
    length: usize,
    max_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let end = tokenizer.end_of_text().ok_or_else(|| Error::Text(format!("the tokenizer has no {END_OF_TEXT}")))?;
    let mut tokens = Vec::new();
    // No more than one sequence where that is more than `max_tokens`.
    let most = max_tokens.max(length);
    for document in documents {
        if tokens.len() >= most {
            break;
        }
        // Of a document that is longer, only as much as is needed.
        let read = tokenizer.encode_parts(&document?, &mut |ids, _| {
            tokens.extend(ids);
            if tokens.len() >= most { Err(Error::Stopped) } else { Ok(()) }
        });
        match read {
            Err(Error::Stopped) => break,
            read => read?,
        }
        tokens.push(end);
    }
    tokens.truncate(most);
    if tokens.len() < 2 {
        return Err(Error::Text("there are fewer than two tokens in the data".into()));
    }
    let length = length.clamp(1, tokens.len());
    Ok(tokens.chunks_exact(length).map(<[u32]>::to_vec).collect())
}
