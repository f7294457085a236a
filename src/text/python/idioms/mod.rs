//! The idioms behind built-in tasks, one small function each, named as the task. Every function
//! writes one of the two sides of its task's contrast, in one of several surface forms, with names
//! from the program around it.

mod definitions;
mod files;
mod flow;
mod literals;
mod text;

use super::writer::PythonWriter;

/// One idiom: the task's name, its writer, where it fits, and how often it comes among those that
/// fit there, in version 3 and from 4 on. The weights are larger where ordinary code seldom shows one
/// side of the contrast, and where models learn it late.
type Idiom = (&'static str, fn(&mut PythonWriter), IdiomPosition, [u32; 2]);

/// Where an idiom fits.
#[derive(Clone, Copy, PartialEq)]
enum IdiomPosition {
    /// Inside any block.
    Block,
    /// Between definitions at the top level.
    Top,
}
use IdiomPosition::{Block, Top};

const TABLE: [Idiom; 20] = [
    ("single_double_quote", text::single_double_quote, Block, [3, 3]),
    ("final_kwarg", definitions::final_kwarg, Top, [5, 5]),
    ("set_or_string", text::set_or_string, Block, [3, 16]),
    ("set_or_string_fixedvarname", text::set_or_string_fixedvarname, Block, [5, 12]),
    ("class_init", definitions::class_init, Top, [8, 14]),
    ("with_as", files::with_as, Block, [11, 10]),
    ("bracket_brace", literals::bracket_brace, Block, [10, 11]),
    ("with_open", files::with_open, Block, [3, 20]),
    ("bracket_counting", literals::bracket_counting, Block, [15, 18]),
    ("for_while", flow::for_while, Block, [7, 7]),
    ("else_elif", flow::else_elif, Block, [3, 6]),
    ("fstring_brace", text::fstring_brace, Block, [5, 5]),
    ("if_ternary", flow::if_ternary, Block, [12, 16]),
    ("var_swap", literals::var_swap, Block, [9, 13]),
    ("indent_for", flow::indent_for, Block, [2, 2]),
    ("lambda_func", definitions::lambda_func, Block, [8, 8]),
    ("if_equals", flow::if_equals, Block, [2, 2]),
    ("enumerate_range", flow::enumerate_range, Block, [3, 5]),
    ("var_if", flow::var_if, Block, [3, 3]),
    ("while_return_true", definitions::while_return_true, Top, [3, 3]),
];

/// The names of the idioms, each the name of a built-in task.
pub(super) const NAMES: [&str; 20] = {
    let mut names = [""; 20];
    let mut i = 0;
    while i < names.len() {
        names[i] = TABLE[i].0;
        i += 1;
    }
    names
};

/// Writes the idiom of that name at the current position; false if there is none.
pub(super) fn idiom(name: &str, w: &mut PythonWriter) -> bool {
    let found = TABLE.iter().find(|entry| entry.0 == name);
    if let Some((_, write, ..)) = found {
        write(w);
    }
    found.is_some()
}

/// Writes one of the idioms that fit inside a block.
pub(super) fn some(w: &mut PythonWriter) {
    write_one(w, Block);
}

/// Writes one of the idioms for between definitions.
pub(super) fn some_definition(w: &mut PythonWriter) {
    write_one(w, Top);
}

fn write_one(w: &mut PythonWriter, place: IdiomPosition) {
    let weights = TABLE.map(|(_, _, fits, weight)| if fits == place { weight[usize::from(w.version > 3)] } else { 0 });
    let (_, write, ..) = TABLE[w.sampler.weighted(&weights)];
    write(w);
}
