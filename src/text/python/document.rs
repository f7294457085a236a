//! The layout of a whole document: imports, constants, definitions, the program.

use super::dice::Dice;
use super::scope::Name;
use super::writer::{Writer, line};
use super::{classes, functions, idioms, literals};

/// What a document consists of.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// Statements alone.
    Script,
    /// Functions, then statements that call them.
    Functions,
    /// A class or two, then statements that use them.
    Classes,
    /// Functions or classes alone.
    Library,
}

const SHAPES: [Shape; 8] = [
    Shape::Script,
    Shape::Script,
    Shape::Functions,
    Shape::Functions,
    Shape::Functions,
    Shape::Classes,
    Shape::Classes,
    Shape::Library,
];

/// Writes one document.
pub(super) fn write(mut dice: Dice) -> String {
    let shape = dice.pick(&SHAPES);
    let limit = match shape {
        Shape::Script => dice.range(150, 700),
        _ => dice.range(250, 1200),
    };
    let mut w = Writer::new(dice, limit);
    if w.dice.chance(22) {
        w.constant();
    }
    match shape {
        Shape::Script => program(&mut w),
        Shape::Library => definitions(&mut w, limit, 25),
        Shape::Functions | Shape::Classes => {
            definitions(&mut w, limit * 6 / 10, if shape == Shape::Classes { 75 } else { 5 });
            separate(&mut w);
            if w.dice.chance(45) { main_guard(&mut w) } else { program(&mut w) }
        }
    }
    assemble(w)
}

/// Definitions up to a size: `class_share` in a hundred are classes, some of the rest are task idioms.
fn definitions(w: &mut Writer, size: usize, class_share: usize) {
    let mut first = true;
    while first || w.len() < size {
        separate(w);
        first = false;
        if w.dice.chance(class_share) && w.scope.classes.len() < 2 {
            classes::class(w);
        } else {
            match w.dice.weighted(&[52, 42, 6]) {
                0 => functions::function(w),
                1 => idioms::some_definition(w),
                _ => functions::classic(w),
            }
        }
    }
}

/// Statements up to the document's size, in paragraphs.
fn program(w: &mut Writer) {
    let mut since = 0;
    while !w.full() {
        if since > 2 && w.dice.chance(30) {
            w.blank(1);
            since = 0;
        }
        step(w);
        since += 1;
    }
    if since == 0 {
        step(w);
    }
}

/// A statement of the main program; early ones make objects of the document's classes.
fn step(w: &mut Writer) {
    if !w.scope.classes.is_empty() && w.dice.chance(30) {
        classes::construct(w);
    } else {
        w.statement();
    }
}

/// `main` and its guard.
fn main_guard(w: &mut Writer) {
    let guard = |w: &mut Writer| {
        let mark = w.quoted("__main__");
        line!(w, "if __name__ == {mark}:");
    };
    if w.dice.chance(55) {
        w.signature(Name::plain("main"), None, &[], None);
        w.function_body(&[], None, |w| {
            step(w);
            while !w.full() {
                step(w);
            }
        });
        w.blank(2);
        guard(w);
        w.block(|w| w.line("main()"));
    } else {
        guard(w);
        w.block(|w| {
            step(w);
            while !w.full() {
                step(w);
            }
        });
    }
}

/// Two empty lines, as between definitions, unless at the start.
fn separate(w: &mut Writer) {
    if w.len() > 0 {
        w.blank(2);
    }
}

/// Puts the docstring or comment and the imports before the body.
pub(super) fn assemble(mut w: Writer) -> String {
    let mut head = String::new();
    let about = w.sentence();
    let about = literals::capitalised(about.trim_end_matches([' ', '.', '?', '!']));
    match w.dice.weighted(&[10, 14, 76]) {
        0 => head.push_str(&format!("\"\"\"{about}.\"\"\"\n")),
        1 => head.push_str(&format!("# {about}\n")),
        _ => {}
    }
    let (body, imports) = w.finish();
    for import in &imports {
        head.push_str(import);
        head.push('\n');
    }
    let definition = body.starts_with("def ") || body.starts_with("class ");
    if !head.is_empty() {
        head.push_str(if definition { "\n\n" } else { "\n" });
    }
    head.push_str(&body);
    head.truncate(head.trim_end().len());
    head.push('\n');
    head
}
