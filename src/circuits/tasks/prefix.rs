//! Other ways to give an answer.

use crate::text::tokenizer::Tokenizer;

/// For two answers, each with all tokens that give it as well: those that begin as it does, up to the first byte in which the two differ.
/// `')` against `")` is also given by `',` and by `'` alone, `:` by `:\n`. An answer that the other one begins with is only itself.
pub fn tokens_sharing_prefix(tokenizer: &Tokenizer, answers: [u32; 2]) -> [Vec<u32>; 2] {
    let text = |id| tokenizer.token_bytes(id).unwrap_or_default();
    let texts = answers.map(text);
    let common = texts[0].iter().zip(&texts[1]).take_while(|(a, b)| a == b).count();
    [0, 1].map(|i| match texts[i].get(..=common) {
        Some(start) => (0..tokenizer.vocab_size() as u32).filter(|&id| text(id).starts_with(start)).collect(),
        None => vec![answers[i]],
    })
}
