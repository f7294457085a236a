//! The explorer: circuits of weight-sparse transformers in a window.
//!
//! Layout and state are apart from drawing, so that they are saved, undone and tested without a window:
//!
//! * [`item`]: what can be selected, and its name; [`view`]: a person's choices, which `history` undoes;
//! * [`scene`]: the layout of a circuit, and what a [`view::View`] shows of it; `graph` draws it;
//! * [`document`]: opening files, `about` describes them; [`jobs`]: background work;
//! * [`live`]: prompts in the circuit's model and, through bridges, in a dense one;
//! * [`timeline`]: a run's checkpoints, shown by `film`; [`runs`]: training and circuit search, with their
//!   windows in `run_window`;
//! * [`explorer`]: the window; `details` describes the selection, `curves` draws charts, `text` formats,
//!   `snapshot` saves a PNG, `vocabulary` looks up tokens of residual channels.
//!
//! The library does the computing.
#![warn(missing_docs)]

pub mod document;
pub mod explorer;

// Public for tests and examples.
#[doc(hidden)]
pub mod item;
#[doc(hidden)]
pub mod jobs;
#[doc(hidden)]
pub mod live;
#[doc(hidden)]
pub mod runs;
#[doc(hidden)]
pub mod scene;
#[doc(hidden)]
pub mod timeline;
#[doc(hidden)]
pub mod view;

mod about;
mod curves;
mod details;
mod film;
mod graph;
mod history;
mod number;
mod run_window;
mod snapshot;
mod text;
mod vocabulary;
