//! The layout of a whole document: imports, constants, definitions, the program.

use super::sampler::Sampler;
use super::scope::Name;
use super::writer::{PythonWriter, line};
use super::{classes, functions, idioms, literals};

/// The parts of a document.
#[derive(Clone, Copy, PartialEq)]
enum DocumentShape {
    /// Statements alone.
    Script,
    /// Functions, then statements that call them.
    Functions,
    /// A class or two, then statements that use them.
    Classes,
    /// Functions or classes alone.
    Library,
}

const SHAPES: [DocumentShape; 8] = [
    DocumentShape::Script,
    DocumentShape::Script,
    DocumentShape::Functions,
    DocumentShape::Functions,
    DocumentShape::Functions,
    DocumentShape::Classes,
    DocumentShape::Classes,
    DocumentShape::Library,
];

/// Writes one document.
pub(super) fn write(version: u32, mut sampler: Sampler) -> String {
    let shape = sampler.pick(&SHAPES);
    let limit = if let DocumentShape::Script = shape { sampler.range(150, 700) } else { sampler.range(250, 1200) };
    let mut w = PythonWriter::new(version, sampler, limit);
    if w.sampler.chance(22) {
        w.constant();
    }
    match shape {
        DocumentShape::Script => program(&mut w),
        DocumentShape::Library => definitions(&mut w, limit, 25),
        DocumentShape::Functions | DocumentShape::Classes => {
            definitions(&mut w, limit * 6 / 10, if shape == DocumentShape::Classes { 75 } else { 5 });
            separate(&mut w);
            if w.sampler.chance(45) { main_guard(&mut w) } else { program(&mut w) }
        }
    }
    assemble(w)
}

/// Definitions up to a size: `class_share` percent are classes, some others are task idioms.
fn definitions(w: &mut PythonWriter, size: usize, class_share: usize) {
    let mut first = true;
    while first || w.len() < size {
        separate(w);
        first = false;
        if w.sampler.chance(class_share) && w.scope.classes.len() < 2 {
            classes::class(w);
        } else {
            match w.sampler.weighted(&[52, 42, 6]) {
                0 => functions::function(w),
                1 => idioms::some_definition(w),
                _ => functions::classic(w),
            }
        }
    }
}

/// Statements up to the document's size, in paragraphs.
fn program(w: &mut PythonWriter) {
    let mut since = 0;
    while !w.full() {
        if since > 2 && w.sampler.chance(30) {
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

/// A statement of the main program; early ones construct objects of the document's classes.
fn step(w: &mut PythonWriter) {
    if !w.scope.classes.is_empty() && w.sampler.chance(30) {
        classes::construct(w);
    } else {
        w.statement();
    }
}

/// `main` and its guard.
fn main_guard(w: &mut PythonWriter) {
    let guard = |w: &mut PythonWriter| {
        let mark = w.quoted("__main__");
        line!(w, "if __name__ == {mark}:");
    };
    if w.sampler.chance(55) {
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
fn separate(w: &mut PythonWriter) {
    if w.len() > 0 {
        w.blank(2);
    }
}

/// Puts the docstring or comment and the imports before the body.
pub(super) fn assemble(mut w: PythonWriter) -> String {
    let mut head = String::new();
    let about = w.sentence();
    let about = literals::capitalised(about.trim_end_matches([' ', '.', '?', '!']));
    match w.sampler.weighted(&[10, 14, 76]) {
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
