//! `KEY=VALUE`, wherever it is written: on a command line, in a file, in a window.

use toml::{Table, Value};

use super::{SettingRow, Takes, names};
use crate::{Error, Result};

/// The assignments of a line such as `steps=600 data.paths=["a b", "c"]`: one begins wherever a
/// name with `=` follows a space outside of quotes and brackets. So a value may have spaces, unless
/// what follows them looks like a further assignment; then it is quoted.
pub fn split(line: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quote, mut depth) = (None, 0usize);
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                c if c.is_whitespace() && depth == 0 && begins_assignment(&line[at..]) => {
                    parts.push(std::mem::take(&mut part));
                    continue;
                }
                _ => {}
            },
        }
        part.push(c);
    }
    parts.push(part);
    parts.into_iter().map(|part| part.trim().to_string()).filter(|part| !part.is_empty()).collect()
}

/// Whether `rest`, which begins with a space, continues with `name=`.
fn begins_assignment(rest: &str) -> bool {
    let name = rest.trim_start();
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c))).unwrap_or(name.len());
    end > 0 && name[end..].trim_start().starts_with('=')
}

/// The name and the text of `KEY=VALUE`.
pub(crate) fn parts(assignment: &str) -> Result<(&str, &str)> {
    let (key, text) = assignment
        .split_once('=')
        .ok_or_else(|| Error::config(assignment.trim(), "settings are given as key=value".to_string()))?;
    Ok((key.trim(), text.trim()))
}

/// The value that `text` stands for: what TOML reads in it, or else the text itself.
pub(crate) fn value(text: &str) -> Value {
    match format!("v = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("v").unwrap_or_else(|| Value::String(text.into())),
        _ => Value::String(text.into()),
    }
}

/// Does `KEY=VALUE` to `table`, the settings of which are `rows`.
///
/// # Errors
/// [`Error::Config`] naming a setting that does not exist, with the one that may be meant, or whose
/// value is impossible.
pub fn assign(table: &mut Table, rows: &[SettingRow], assignment: &str) -> Result<()> {
    let (key, text) = parts(assignment)?;
    let row = rows
        .iter()
        .find(|row| row.key == key)
        .ok_or_else(|| names::unknown(key, rows.iter().map(|r| r.key.as_str())))?;
    put(table, row, value(text))
}

/// Puts `value` where `row`'s key says, or takes the setting away.
pub(crate) fn put(table: &mut Table, row: &SettingRow, value: Value) -> Result<()> {
    let value = check_value(row, value)?;
    let mut table = table;
    let mut parts = row.key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            if let Some(value) = value {
                drop(table.insert(part.to_string(), value))
            } else {
                drop(table.remove(part))
            }
            break;
        }
        table = match table.entry(part.to_string()).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => inner,
            _ => return Err(Error::config(&row.key, format!("`{part}` is not a section"))),
        };
    }
    Ok(())
}

/// `value` as the setting's own kind has it; nothing where it is to be absent.
fn check_value(row: &SettingRow, value: Value) -> Result<Option<Value>> {
    let none = matches!(value.as_str(), Some("none" | "null"));
    if row.optional && none {
        return Ok(None);
    }
    let wrong = |value: &Value| {
        let or = if row.optional { ", or none" } else { "" };
        Error::config(&row.key, format!("{} is not {}{or}", shown(value), row.takes))
    };
    let checked = match (row.takes, &value) {
        (Takes::Number(..), _) => number(&value).filter(|v| row.takes.has(*v)).map(Value::Float),
        (Takes::Count(least, most), Value::Integer(n)) => {
            u64::try_from(*n).ok().filter(|n| (least..=most).contains(n)).map(|_| value.clone())
        }
        (Takes::Flag, Value::Boolean(_)) => Some(value.clone()),
        (Takes::OneOf(words), Value::String(word)) => words.contains(&word.as_str()).then(|| value.clone()),
        (Takes::Pair(..), Value::Array(items)) if items.len() == 2 => {
            let numbers: Option<Vec<Value>> =
                items.iter().map(|item| number(item).filter(|v| row.takes.has(*v)).map(Value::Float)).collect();
            numbers.map(Value::Array)
        }
        (Takes::Text(_), Value::String(_)) => Some(value.clone()),
        // A name that happens to be a number is a name.
        (Takes::Text(_), Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_)) => {
            Some(Value::String(value.to_string()))
        }
        (Takes::Texts(_), Value::String(_)) => Some(Value::Array(vec![value.clone()])),
        (Takes::Texts(_), Value::Array(items)) if items.iter().all(Value::is_str) => Some(value.clone()),
        _ => None,
    };
    checked.map(Some).ok_or_else(|| wrong(&value))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(v) => Some(*v),
        Value::Integer(v) => Some(*v as f64),
        _ => None,
    }
}

/// A value in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Table(_) => "a section".into(),
        other => format!("`{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::above;
    use super::*;

    #[test]
    fn a_line_falls_into_its_assignments() {
        let cases: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("steps=600", &["steps=600"]),
            ("  steps=600\n lr = 0.1 ", &["steps=600", "lr = 0.1"]),
            ("data.paths=[\"/a b\", \"c=d e\"] lr=1", &["data.paths=[\"/a b\", \"c=d e\"]", "lr=1"]),
            ("device=gpu:H 200 lr=1", &["device=gpu:H 200", "lr=1"]),
            ("afrac_loctypes=attn_in, mlp_in", &["afrac_loctypes=attn_in, mlp_in"]),
            ("tokenizer='a lr=1' x=2", &["tokenizer='a lr=1'", "x=2"]),
            ("lr 0.1", &["lr 0.1"]),
        ];
        for (line, want) in cases {
            assert_eq!(split(line), want, "{line}");
        }
    }

    #[test]
    fn values_become_what_their_setting_takes() {
        let row = |takes| SettingRow { key: "x".into(), takes, optional: false, about: "" };
        let read = |takes, text: &str| check_value(&row(takes), value(text)).map_err(|e| e.to_string());
        assert_eq!(read(above(0.0, 9.0), "3"), Ok(Some(Value::Float(3.0))));
        assert_eq!(read(Takes::Text("a name"), "12"), Ok(Some(Value::String("12".into()))));
        assert_eq!(read(Takes::Texts("names"), "a"), Ok(Some(Value::Array(vec!["a".into()]))));
        assert_eq!(
            read(Takes::Pair(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), "[1, 0.5]"),
            Ok(Some(Value::Array(vec![1.0.into(), 0.5.into()])))
        );
        assert_eq!(check_value(&SettingRow { optional: true, ..row(Takes::Flag) }, value("none")).unwrap(), None);
        for (takes, text) in [
            (above(0.0, 9.0), "abc"),
            (above(0.0, 9.0), "0"),
            (above(0.0, 9.0), "nan"),
            (above(0.0, 9.0), "inf"),
            (Takes::Count(1, 5), "6"),
            (Takes::Count(1, 5), "-1"),
            (Takes::Count(1, 5), "1.5"),
            (Takes::Count(1, 5), "99999999999999999999"),
            (Takes::Flag, "1"),
            (Takes::OneOf(&["a"]), "b"),
            (Takes::Flag, "none"),
        ] {
            let message = read(takes, text).unwrap_err();
            assert!(message.contains("setting `x`") && message.contains(&takes.to_string()), "{message}");
        }
    }
}
