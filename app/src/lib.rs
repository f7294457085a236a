//! The explorer: circuits of weight-sparse transformers in a window.
//!
//! What is shown is decided apart from how it is drawn, so that it can be saved, undone and tested without a window:
//!
//! * [`item`]: what can be pointed at, and its name;
//! * [`view`]: a person's choices (what is selected, hidden, labelled), and [`history`], which takes them back;
//! * [`scene`]: where everything is, and what a [`view::View`] makes of it;
//! * [`document`]: opening files, [`about`] what they are; [`jobs`]: off the window's thread;
//! * [`live`]: prompts run in the circuit's model and, through bridges, in a dense one;
//! * [`timeline`]: how a run went, shown by [`film`]; [`runs`]: training and pruning, started and watched in [`run_window`];
//! * [`explorer`]: the window; [`graph`] draws, [`curves`] charts, [`details`] tells, [`text`] has the words; [`snapshot`]: all of it as PNG.
//!
//! [`vocabulary`] looks up tokens where the model is at hand; [`number`]s are finite. The library does the computing.
#![warn(missing_docs)]

pub mod about;
pub mod curves;
pub mod details;
pub mod document;
pub mod explorer;
pub mod film;
pub mod graph;
pub mod history;
pub mod item;
pub mod jobs;
pub mod live;
pub mod number;
pub mod run_window;
pub mod runs;
pub mod scene;
pub mod snapshot;
pub mod text;
pub mod timeline;
pub mod view;
pub mod vocabulary;
