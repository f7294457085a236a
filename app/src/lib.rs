//! The explorer: circuits of weight-sparse transformers in a window.
//!
//! Layout and state are apart from drawing, so that they are saved, undone and tested without a
//! window:
//!
//! * [`item`]: what can be selected, and its name; [`view`]: a person's choices, which `history`
//!   undoes;
//! * [`scene`]: the layout of a circuit, and what a [`view::View`] shows of it; `graph` draws it, with an
//!   `item_menu`;
//! * [`document`]: opening files; `saving`: files for others; `session`: what is kept between
//!   sessions; [`jobs`]: background work;
//! * [`live`]: prompts in the circuit's model and, through bridges, in a dense one;
//! * [`timeline`]: a run's checkpoints; [`runs`]: training and circuit search, with their windows
//!   in `run_window`; [`sizes`]: loss against the size of circuits;
//! * [`explorer`]: the window, with another circuit `compared`; `commands`: menus and keys; `tour` and
//!   `help`: what they and the drawing's signs mean; `panels`: everything around the drawing.
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
pub mod sizes;
#[doc(hidden)]
pub mod timeline;
#[doc(hidden)]
pub mod view;

mod commands;
mod compared;
mod graph;
mod help;
mod history;
mod item_menu;
mod panels;
mod run_window;
mod saving;
mod session;
mod snapshot;
mod text;
mod tour;
mod widgets;
