//! The built-in generator of simple Python: an endless, seeded corpus for when no data is given.
//!
//! Documents are small programs, mostly of 150 to 1500 bytes: scripts, functions, classes, main
//! guards. Each is about one subject area; variables are read after they are defined, parameters
//! are used, kinds are kept apart (`.add` for a set, `+=` for a string). Ordinary code is mixed
//! with the idioms of tasks ([`IDIOMS`]), both sides of every contrast, in many surface forms. Every
//! document is valid Python 3, ASCII, indented by four spaces, and ends with one newline.
//!
//! The modules: `sampler` (random choices), `words` (the vocabulary of programs), `scope` (defined
//! names), `writer` (the text so far), `literals` and `expressions` (values), `statements`,
//! `extras`, `loops`, `functions`, `classes`, `idioms` (the tasks), `document` (the layout).

mod classes;
mod document;
mod expressions;
mod extras;
mod functions;
mod idioms;
mod literals;
mod loops;
pub(crate) mod sampler;
mod scope;
mod statements;
pub(crate) mod words;
mod writer;

use sampler::Sampler;
use writer::PythonWriter;

use crate::{Error, Result};

/// A version of the stream: gives the document of a seed and an index.
pub type Generator = fn(seed: u64, index: u64) -> String;

/// Every version that can be generated. The same version, seed and index give the same document on
/// every machine: what would change a document is a new version, since presets and runs name
/// theirs.
const VERSIONS: &[(u32, Generator)] = &[(3, document_of::<3>), (4, document_of::<4>)];

/// The newest version of the stream.
pub const VERSION: u32 = VERSIONS[VERSIONS.len() - 1].0;

/// The oldest one.
pub const OLDEST_VERSION: u32 = VERSIONS[0].0;

/// The generator of a version.
///
/// # Errors
/// [`Error::Config`] for a version that there is not.
pub fn generator(version: u32) -> Result<Generator> {
    let known = VERSIONS.iter().find(|(known, _)| *known == version);
    let missing = || Error::config("generated_version", format!("there is no version {version} of generated Python"));
    known.map(|(_, generator)| *generator).ok_or_else(missing)
}

/// The names of the idioms, each the name of a built-in task.
pub const IDIOMS: [&str; 20] = idioms::NAMES;

/// Document `index` of the newest version's stream `seed`. It costs the same for every index.
pub fn document(seed: u64, index: u64) -> String {
    document_of::<VERSION>(seed, index)
}

/// Document `index` of the stream `seed` of version `V`.
pub(crate) fn document_of<const V: u32>(seed: u64, index: u64) -> String {
    document::write(V, Sampler::new(V, seed, index))
}

/// The documents of the newest version's stream `seed`, from index 0, without end.
pub fn documents(seed: u64) -> impl Iterator<Item = String> + Send {
    (0u64..).map(move |index| document(seed, index))
}

/// One idiom, with the lines that define its variables; `None` for an unknown name.
pub fn snippet(idiom: &str, seed: u64, index: u64) -> Option<String> {
    let mut writer = PythonWriter::new(VERSION, Sampler::new(VERSION, seed, index), 400);
    idioms::idiom(idiom, &mut writer).then(|| document::assemble(writer))
}
