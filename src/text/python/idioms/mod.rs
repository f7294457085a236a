//! The idioms behind the twenty tasks, one small function each, named as the task. Every function writes either side of
//! its task's contrast, in one of several surface forms, with names from the program around it.

mod definitions;
mod files;
mod flow;
mod literals;
mod text;

use super::writer::Writer;

/// One idiom: the task's name, its writer, and whether it fits inside any block (or only between definitions).
type Idiom = (&'static str, fn(&mut Writer), bool);

const TABLE: [Idiom; 20] = [
    ("single_double_quote", text::single_double_quote, true),
    ("final_kwarg", definitions::final_kwarg, false),
    ("set_or_string", text::set_or_string, true),
    ("set_or_string_fixedvarname", text::set_or_string_fixedvarname, true),
    ("class_init", definitions::class_init, false),
    ("with_as", files::with_as, true),
    ("bracket_brace", literals::bracket_brace, true),
    ("with_open", files::with_open, true),
    ("bracket_counting", literals::bracket_counting, true),
    ("for_while", flow::for_while, true),
    ("else_elif", flow::else_elif, true),
    ("fstring_brace", text::fstring_brace, true),
    ("if_ternary", flow::if_ternary, true),
    ("var_swap", literals::var_swap, true),
    ("indent_for", flow::indent_for, true),
    ("lambda_func", definitions::lambda_func, true),
    ("if_equals", flow::if_equals, true),
    ("enumerate_range", flow::enumerate_range, true),
    ("var_if", flow::var_if, true),
    ("while_return_true", definitions::while_return_true, false),
];

/// The names of the idioms, which are the names of the twenty tasks.
pub(super) const NAMES: [&str; 20] = {
    let mut names = [""; 20];
    let mut i = 0;
    while i < names.len() {
        names[i] = TABLE[i].0;
        i += 1;
    }
    names
};

/// Writes the idiom of that name at the current place; false if there is none.
pub(super) fn idiom(name: &str, w: &mut Writer) -> bool {
    let found = TABLE.iter().find(|(known, _, _)| *known == name);
    if let Some((_, write, _)) = found {
        write(w);
    }
    found.is_some()
}

/// Writes one of the idioms that fit inside a block.
pub(super) fn some(w: &mut Writer) {
    loop {
        let (_, write, anywhere) = w.dice.pick(&TABLE);
        if anywhere {
            return write(w);
        }
    }
}

/// Writes one of the idioms that stand between definitions.
pub(super) fn some_definition(w: &mut Writer) {
    loop {
        let (_, write, anywhere) = w.dice.pick(&TABLE);
        if !anywhere {
            return write(w);
        }
    }
}
