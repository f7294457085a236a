//! What the models read: tokenizers, corpora, a bigram yardstick, and the built-in generator of simple Python.

pub mod bigram;
pub mod cache;
pub mod corpus;
pub mod python;
pub mod sequences;
pub mod source;
pub mod tokenizer;
