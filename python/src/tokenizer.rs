//! Text and tokens.

use std::path::PathBuf;
use std::sync::Arc;

use gossamer::text::tokenizer as library;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

use crate::arguments::Tokens;
use crate::errors::OrRaise;

/// A byte-level BPE tokenizer, as `tokenizer.json` describes it.
#[pyclass(frozen, module = "gossamer")]
pub struct Tokenizer(pub Arc<library::Tokenizer>);

#[pymethods]
impl Tokenizer {
    /// Reads a `tokenizer.json`.
    #[staticmethod]
    fn load(path: PathBuf) -> PyResult<Self> {
        Ok(Self(Arc::new(library::Tokenizer::load(path).or_raise()?)))
    }

    /// Writes `tokenizer.json`, whole or not at all.
    fn save(&self, path: PathBuf) -> PyResult<()> {
        self.0.save(path).or_raise()
    }

    /// The ids of a text. With `special`, special tokens that the text spells out, such as
    /// `<|endoftext|>`, become those tokens.
    #[pyo3(signature = (text, *, special=false))]
    fn encode(&self, text: &str, special: bool) -> PyResult<Vec<u32>> {
        if special { self.0.encode_special(text) } else { self.0.encode(text) }.or_raise()
    }

    /// The text of ids: a list, an array of any integer type, or a tensor, one-dimensional.
    fn decode(&self, ids: &Bound<'_, PyAny>) -> PyResult<String> {
        self.0.decode(&Tokens::of_one(ids, None)?).or_raise()
    }

    /// The text of each id.
    fn to_str_tokens(&self, ids: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        Tokens::of_one(ids, None)?.into_iter().map(|id| self.token(id)).collect()
    }

    /// The text of one id, with � for bytes that are no whole character.
    fn token(&self, id: u32) -> PyResult<String> {
        let size = self.0.vocab_size();
        if id as usize >= size {
            return Err(PyIndexError::new_err(format!("token {id}; the tokenizer has {size} entries")));
        }
        Ok(self.0.token_text(id))
    }

    /// The id of a text that is exactly one token, otherwise None.
    fn single_token(&self, text: &str) -> Option<u32> {
        self.0.single_token(text)
    }

    /// The number of entries.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    /// The id of `<|endoftext|>`, or None.
    #[getter]
    fn end_of_text(&self) -> Option<u32> {
        self.0.end_of_text()
    }

    fn __len__(&self) -> usize {
        self.0.vocab_size()
    }

    fn __repr__(&self) -> String {
        format!("<Tokenizer {} entries>", self.0.vocab_size())
    }
}
