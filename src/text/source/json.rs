//! Lines of `.jsonl` files.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// The reason why a line has no text.
pub(super) enum Problem {
    NotJson,
    NoText,
    Surrogate,
}

/// The string field `field` of a line.
pub(super) fn parse(line: &str, field: &str) -> Result<String, Problem> {
    if !line.trim_start().starts_with('{') {
        return Err(Problem::NotJson);
    }
    let mut json = serde_json::Deserializer::from_str(line);
    let found = TextField(field).deserialize(&mut json).and_then(|text| json.end().map(|()| text));
    found.map_err(|error| {
        if error.is_data() {
            return Problem::NoText;
        }
        let repaired = without_lone_surrogates(line);
        let surrogate = repaired != line && serde_json::from_str::<IgnoredAny>(&repaired).is_ok();
        if surrogate { Problem::Surrogate } else { Problem::NotJson }
    })
}

/// Reads the string in the field of that name of an object.
struct TextField<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for TextField<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<String, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextField<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with a string `{}`", self.0)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut object: M) -> Result<String, M::Error> {
        let mut text = None;
        while let Some(key) = object.next_key::<std::borrow::Cow<'_, str>>()? {
            match (key == self.0, &text) {
                (true, Some(_)) => return Err(serde::de::Error::custom("the field is there twice")),
                (true, None) => text = Some(object.next_value()?),
                (false, _) => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        text.ok_or_else(|| serde::de::Error::custom("the field is missing"))
    }
}

/// JSON text in which every escaped half of a surrogate pair is replaced.
fn without_lone_surrogates(json: &str) -> String {
    let escape = |at: usize| {
        let digits = json[at..].strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut repaired, mut at) = (String::with_capacity(json.len()), 0);
    while let Some(start) = json[at..].find('\\').map(|start| at + start) {
        repaired += &json[at..start];
        let (length, lone) = match (escape(start), json.get(start + 6..).and_then(|_| escape(start + 6))) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, false),
            (Some(0xd800..0xe000), _) => (6, true),
            _ => (1 + json[start + 1..].chars().next().map_or(0, char::len_utf8), false),
        };
        at = start + length;
        repaired += if lone { "\\ufffd" } else { &json[start..at] };
    }
    repaired + &json[at..]
}
