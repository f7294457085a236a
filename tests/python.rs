//! The built-in generator of Python, judged from outside: by plain reading of what it wrote.

use gossamer::text::python::{self, IDIOMS};
use std::collections::HashSet;

fn sample(count: usize) -> Vec<String> {
    python::documents(11).take(count).collect()
}

/// A 64-bit FNV-1a hash: short, and the same everywhere.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn a_document_depends_on_seed_and_index_alone() {
    let stream = sample(50);
    for index in [49u64, 0, 17] {
        assert_eq!(python::document(11, index), stream[index as usize]);
    }
    assert_ne!(python::document(12, 0), stream[0]);
    assert_eq!(python::document(11, u64::MAX), python::document(11, u64::MAX));
}

/// A hash of each version. What a seed produces changes by a new version, which gets a row here.
const FROZEN: [(u32, u64); 2] = [(3, 0x13dc_5531_fceb_76c7), (4, 13295242596331926777)];

#[test]
fn the_streams_of_all_versions_are_frozen() {
    for (version, expected) in FROZEN {
        let document = python::generator(version).unwrap();
        let documents = (0..200).map(|index| document(11, index));
        let hash = documents.fold(0xcbf2_9ce4_8422_2325, |hash, text| fnv(hash, text.as_bytes()));
        assert_eq!(hash, expected, "version {version}");
    }
    let versions = FROZEN.map(|(version, _)| version);
    assert_eq!((python::OLDEST_VERSION, python::VERSION), (versions[0], versions[versions.len() - 1]));
    assert_eq!(python::generator(python::VERSION).unwrap()(11, 5), python::document(11, 5));
    assert!(matches!(python::generator(python::VERSION + 1), Err(gossamer::Error::Config { .. })));
}

#[test]
fn documents_are_small_and_all_different() {
    let documents = sample(2000);
    let distinct: HashSet<&String> = documents.iter().collect();
    assert_eq!(distinct.len(), documents.len());
    let mean = documents.iter().map(String::len).sum::<usize>() / documents.len();
    assert!((500..1000).contains(&mean), "mean size {mean}");
    for text in &documents {
        assert!((150..2000).contains(&text.len()), "{} bytes:\n{text}", text.len());
    }
    let long: Vec<&str> =
        documents.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| line.len() > 25).collect();
    let distinct: HashSet<&&str> = long.iter().collect();
    let share = distinct.len() as f64 / long.len() as f64;
    assert!(share > 0.9, "only {share:.3} of the long lines are distinct");
}

/// Brackets, quotes and indentation of one document, without a Python at hand. The error says what
/// is wrong.
fn check_layout(text: &str) -> Result<(), String> {
    if !text.is_ascii() || text.contains(['\t', '\r', '\\']) {
        return Err("a character that does not belong".into());
    }
    if !text.ends_with('\n') || text.ends_with("\n\n") || text.starts_with('\n') {
        return Err("does not start with text and end with one newline".into());
    }
    let mut open = Vec::new();
    let mut indents = vec![0];
    let mut expects_block = false;
    for line in text.lines() {
        if line.ends_with(' ') {
            return Err(format!("trailing space: {line:?}"));
        }
        if line.is_empty() {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if indent % 4 != 0 {
            return Err(format!("indentation of {indent}: {line:?}"));
        }
        if open.is_empty() {
            let current = indents[indents.len() - 1];
            if expects_block != (indent > current) || indent > current + 4 {
                return Err(format!("indentation after a colon, or none: {line:?}"));
            }
            if indent > current {
                indents.push(indent);
            }
            while indents[indents.len() - 1] > indent {
                indents.pop();
            }
        }
        let last = scan(line, &mut open)?;
        if open.is_empty() {
            expects_block = last == ':';
        }
    }
    if open.is_empty() && !expects_block { Ok(()) } else { Err("ends inside a bracket or before a block".into()) }
}

/// Follows one line's quotes and brackets; gives its last character outside of strings and
/// comments.
fn scan(line: &str, open: &mut Vec<char>) -> Result<char, String> {
    let mut quote = None;
    let mut last = ' ';
    for c in line.replace("\"\"\"", "\"").chars() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '#') => return Ok(last),
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => open.push(c),
            (None, ')' | ']' | '}') => {
                let fits = matches!((open.pop(), c), (Some('('), ')') | (Some('['), ']') | (Some('{'), '}'));
                if !fits {
                    return Err(format!("{c} closes nothing: {line:?}"));
                }
            }
            _ => {}
        }
        last = c;
    }
    if quote.is_some() { Err(format!("an open string: {line:?}")) } else { Ok(last) }
}

#[test]
fn layout_is_python() {
    for text in sample(3000) {
        if let Err(why) = check_layout(&text) {
            panic!("{why}\n{text}");
        }
    }
}

#[test]
fn the_layout_check_sees_errors() {
    for wrong in [
        "x = [1, 2\n",
        "x = (1]\n",
        "print('a\")\n",
        "if x:\ny = 1\n",
        "x = 1\n    y = 2\n",
        "if x:\n   y = 1\n",
        "x = 1",
        "x\n\n",
        "if x:\n",
    ] {
        assert!(check_layout(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(
        check_layout("def f(x):\n    \"\"\"Say (it.\"\"\"\n    y = [\n        ')',\n    ]\n    return y\n"),
        Ok(())
    );
}

#[test]
fn every_idiom_stands_alone() {
    for task in IDIOMS {
        for index in 0..100 {
            let text = python::snippet(task, 5, index).unwrap_or_else(|| panic!("{task} is not known"));
            assert_eq!(check_layout(&text), Ok(()), "{task}:\n{text}");
        }
    }
    assert_eq!(python::snippet("no_such_task", 5, 0), None);
}

/// An identifier, perhaps with dots.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// `name = value`, split.
fn assignment(line: &str) -> Option<(&str, &str)> {
    line.split_once(" = ").filter(|(name, _)| is_name(name))
}

/// Whether a later line of the document starts with `name` and then `rest`.
fn later(lines: &[&str], name: &str, rest: &str) -> bool {
    lines.iter().any(|line| line.strip_prefix(name).is_some_and(|tail| tail.starts_with(rest)))
}

/// The sides of the contrast of `task` that the line at `at` shows: how often the first, how often
/// the second.
fn sides(task: &str, lines: &[&str], at: usize) -> (bool, bool) {
    let line = lines[at];
    let has = |part: &str| line.contains(part);
    let grows = |fixed: bool| match assignment(line) {
        Some((name, value)) if !fixed || name == "current" => (
            value == "set()" && later(&lines[at..], name, ".add("),
            (value == "\"\"" || value == "''") && later(&lines[at..], name, " += "),
        ),
        _ => (false, false),
    };
    match task {
        "single_double_quote" => (has("('") && line.ends_with("')"), has("(\"") && line.ends_with("\")")),
        "final_kwarg" => {
            let def = line.starts_with("def ") && has(", ") && !has(": ");
            (def && line.ends_with("=None):"), def && !has("=") && line.matches(", ").count() > 1)
        }
        "set_or_string" => grows(false),
        "set_or_string_fixedvarname" => grows(true),
        "class_init" => match line.strip_prefix("self.").and_then(|rest| rest.split_once(" = ")) {
            Some((name, value)) => (name == value, name != value),
            None => (false, false),
        },
        "with_as" => (line.starts_with("with open(") && has(" as "), has(" = open(")),
        "bracket_brace" => {
            let key = |open: &str| {
                let value = assignment(line)?.1.strip_prefix(open)?;
                let quote = value.chars().next().filter(|c| "'\"".contains(*c))?;
                value[1..].split_once(quote)?.1.chars().next()
            };
            (key("{") == Some(':'), key("[") == Some(','))
        }
        "with_open" => {
            let mode = |mode: &str| has("open(") && (has(&format!(", '{mode}')")) || has(&format!(", \"{mode}\")")));
            (mode("r"), mode("w"))
        }
        "bracket_counting" => {
            let numbers = |open: &str, close: &str| {
                let value = assignment(line)?.1.strip_prefix(open)?.strip_suffix(close)?;
                Some(value.starts_with(|c: char| c.is_ascii_digit()) && !value.ends_with(']'))
            };
            (numbers("[", "]") == Some(true), numbers("[[", "]]") == Some(true))
        }
        "for_while" => {
            let name = line.split(' ').nth(1).unwrap_or("");
            let plain = line.rsplit(' ').next().is_some_and(|list| is_name(list.trim_end_matches(':')));
            (line.starts_with("for ") && is_name(name) && plain, line.starts_with("while ") && name.ends_with(':'))
        }
        "else_elif" => (line == "else:", line.starts_with("elif not ")),
        "fstring_brace" => {
            let string = |prefix: &str| ["'", "\""].iter().any(|q| line.starts_with(&format!("{prefix}{q}")));
            (string("print(f"), string("print("))
        }
        "if_ternary" => (line.starts_with("if ") && has(" > "), has(" if ") && has(" else ")),
        "var_swap" => match line.split_once(" = ").map(|(left, right)| (left.split_once(", "), right.split_once(", ")))
        {
            Some((Some((a, b)), Some((c, d)))) if is_name(a) && is_name(b) => (a == d && b == c, a != d),
            _ => (false, false),
        },
        "lambda_func" => (has("lambda "), line.starts_with("def ") && !has(",") && !has("()") && !has("(self")),
        "if_equals" => {
            let name = line.split(' ').nth(1).unwrap_or("");
            (
                line.starts_with("if ") && is_name(name) && has(" == "),
                assignment(line).is_some_and(|(_, value)| value.parse::<u32>().is_ok()),
            )
        }
        "enumerate_range" => (has(" in enumerate("), line.starts_with("for ") && has(" in range(")),
        "var_if" => (
            line.starts_with("if ") && (line.ends_with(" == True:") || line.ends_with(" == False:")),
            line.ends_with(" = True") || line.ends_with(" = False"),
        ),
        "while_return_true" => (line == "while True:", line == "return True"),
        _ => panic!("no pattern for {task}"),
    }
}

#[test]
fn both_sides_of_every_task_occur_in_balance() {
    let documents = sample(3000);
    let mut failures = Vec::new();
    for task in IDIOMS {
        let (mut first, mut second) = (0, 0);
        for text in &documents {
            let indented: Vec<&str> = text.lines().collect();
            let lines: Vec<&str> = indented.iter().map(|line| line.trim_start()).collect();
            for at in 0..lines.len() {
                let (a, b) = match task {
                    "indent_for" => {
                        let indent = indented[at].len() - lines[at].len();
                        let header = lines[at].starts_with("for ");
                        (header && indent <= 4, header && indent > 4)
                    }
                    _ => sides(task, &lines, at),
                };
                first += usize::from(a);
                second += usize::from(b);
            }
        }
        let share = 100 * first / (first + second).max(1);
        println!("{task:28} {first:6} {second:6} {share:3} %");
        if first.min(second) < 100 || !(10..=88).contains(&share) {
            failures.push((task, first, second));
        }
    }
    assert!(failures.is_empty(), "out of balance: {failures:?}");
}
