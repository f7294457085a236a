//! Tokenizers, corpora, a bigram baseline, and the built-in generator of simple Python.

pub mod bigram;
mod bpe;
pub mod cache;
pub mod corpus;
mod encode;
pub mod notation;
pub mod python;
pub mod sequences;
pub mod source;
pub mod stream;
pub mod tokenizer;
mod words;
