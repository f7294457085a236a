//! What the models read: tokenizers, corpora, and the built-in generator of simple Python.

pub mod corpus;
pub mod python;
pub mod tokenizer;
