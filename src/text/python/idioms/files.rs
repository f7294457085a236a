//! Opening files.

use crate::text::python::loops;
use crate::text::python::scope::{Name, PyKind::*};
use crate::text::python::writer::{PythonWriter, line};

const READERS: [&str; 8] = ["f", "file", "handle", "source", "fh", "infile", "reader", "stream"];
const WRITERS: [&str; 8] = ["f", "file", "handle", "out", "fh", "outfile", "writer", "target"];

/// `with open(...) as f:` against `f = open(...)`.
pub(super) fn with_as(w: &mut PythonWriter) {
    let read = w.sampler.chance(75);
    let handle = loops::free_name(w, if read { &READERS } else { &WRITERS });
    let path = match w.var(Str).filter(|_| w.sampler.chance(35)) {
        Some(name) => name.to_string(),
        None => w.file_name(read),
    };
    let mode = match (read, w.sampler.below(10)) {
        (true, 0..8) => String::new(),
        (true, 8) => format!(", encoding={}", w.quoted("utf-8")),
        (true, _) => format!(", {}", w.quoted("r")),
        (false, 0..7) => format!(", {}", w.quoted("w")),
        (false, _) => format!(", {}", w.quoted("a")),
    };
    if !w.deep() && w.sampler.chance(55) {
        line!(w, "with open({path}{mode}) as {handle}:");
        w.open_block(|w| contents(w, handle, read));
    } else {
        line!(w, "{handle} = open({path}{mode})");
        contents(w, handle, read);
        if w.sampler.chance(85) {
            line!(w, "{handle}.close()");
        }
    }
}

/// The mode by the file's name: `'r'` for what one reads, `'w'` for what one writes.
pub(super) fn with_open(w: &mut PythonWriter) {
    let read = w.sampler.chance(50);
    open_with_mode(w, read);
    if w.version > 3 && w.sampler.chance(40) {
        open_with_mode(w, !read);
    }
}

fn open_with_mode(w: &mut PythonWriter, read: bool) {
    let handle = loops::free_name(w, if read { &READERS } else { &WRITERS });
    let file = w.file_name(read);
    let path = if w.sampler.chance(if w.version > 3 { 10 } else { 20 }) {
        let stem = if read {
            ["input_path", "source_file", "input_file"]
        } else {
            ["output_path", "target_file", "output_file"]
        };
        let name = loops::free_name(w, &stem);
        line!(w, "{name} = {file}");
        w.scope.declare(name, Str);
        w.scope.mark_used(name);
        name.to_string()
    } else {
        file
    };
    let mode = w.quoted(if read { "r" } else { "w" });
    if !w.deep() && w.sampler.chance(85) {
        line!(w, "with open({path}, {mode}) as {handle}:");
        w.open_block(|w| contents(w, handle, read));
    } else {
        line!(w, "{handle} = open({path}, {mode})");
        contents(w, handle, read);
        line!(w, "{handle}.close()");
    }
}

/// What is done with an open file.
fn contents(w: &mut PythonWriter, handle: Name, read: bool) {
    if !read {
        return write_to(w, handle);
    }
    let (kind, value) = match w.sampler.weighted(&[34, 22, 14, 30]) {
        0 => (Str, format!("{handle}.read()")),
        1 => (Strs, format!("{handle}.{}", w.sampler.pick(&["readlines()", "read().split()", "read().splitlines()"]))),
        2 => {
            w.import("import json");
            (Texts, format!("json.load({handle})"))
        }
        _ if w.deep() => (Str, format!("{handle}.readline()")),
        _ => {
            let line = loops::free_name(w, &["line", "row", "text", "record", "entry"]);
            line!(w, "for {line} in {handle}:");
            return loops::body(w, None, &[(line, Str)]);
        }
    };
    w.define_as(kind, &value);
}

fn write_to(w: &mut PythonWriter, handle: Name) {
    match w.sampler.weighted(&[30, 20, 15, 15, 20]) {
        0 => line!(w, "{handle}.write({})", w.atom(Str)),
        1 => line!(w, "{handle}.write({})", w.text()),
        2 => line!(w, "{handle}.write({})", w.expr(Str)),
        3 => {
            w.import("import json");
            let data = match w.collection() {
                Some(name) => name.to_string(),
                None => "{}".to_string(),
            };
            line!(w, "json.dump({data}, {handle})");
        }
        _ if w.deep() => line!(w, "{handle}.write(str({}))", w.atom(Int)),
        _ => match w.var(Strs) {
            Some(list) => {
                let (item, _) = loops::loop_name(w, list, Strs);
                line!(w, "for {item} in {list}:");
                w.block(|w| line!(w, "{handle}.write({item})"));
            }
            None => line!(w, "{handle}.write(str({}))", w.atom(Int)),
        },
    }
}
