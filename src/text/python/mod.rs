//! The built-in generator of simple Python: an endless, seeded corpus for when no data is given.
//!
//! Documents are small programs, 150 to 1500 bytes mostly: scripts, functions, classes, main guards. Each keeps to one
//! subject area; variables are read after they are defined, parameters are used, kinds are kept apart (a set takes
//! `.add`, a string `+=`). Scattered among ordinary code stand the idioms of the twenty tasks ([`IDIOMS`]), both sides
//! of every contrast, in many surface forms. Every document is valid Python 3, ASCII, indented by four spaces, and ends
//! with one newline.
//!
//! The rooms: `sampler` (random choices), `words` (what programs talk about), `scope` (what is defined), `writer` (the text
//! so far), `literals` and `expressions` (values), `statements`, `extras`, `loops`, `functions`, `classes`, `idioms` (the tasks),
//! `document` (the layout).

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

/// The version of the stream: the same version, seed and index give the same document, on every machine. Whatever changes
/// what a seed produces must raise it.
pub const VERSION: u32 = 3;

/// The names of the idioms, which are the names of the twenty tasks.
pub const IDIOMS: [&str; 20] = idioms::NAMES;

/// Document `index` of the stream `seed`. It costs the same for every index.
pub fn document(seed: u64, index: u64) -> String {
    document::write(Sampler::new(seed, index))
}

/// The documents of the stream `seed`, from index 0 on, without end.
pub fn documents(seed: u64) -> impl Iterator<Item = String> + Send {
    (0u64..).map(move |index| document(seed, index))
}

/// One idiom alone, with the lines that define what it mentions; `None` if there is none of that name.
pub fn snippet(idiom: &str, seed: u64, index: u64) -> Option<String> {
    let mut writer = PythonWriter::new(Sampler::new(seed, index), 400);
    idioms::idiom(idiom, &mut writer).then(|| document::assemble(writer))
}
