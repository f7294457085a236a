//! Numbers and tokens as readers of circuits see them.

/// A number with its sign: three decimals where that says enough, powers of ten where not.
pub fn signed(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !(5e-4..1e5).contains(&size) => format!("{value:+.1e}"),
        size if size >= 100.0 => format!("{value:+.1}"),
        _ => format!("{value:+.3}"),
    }
}

/// A token between backticks, with what cannot be seen escaped.
pub fn token(text: &str) -> String {
    format!("`{}`", visible(text))
}

/// Text on one line: line ends, tabs and control characters escaped as Rust and Python do.
pub fn visible(text: &str) -> String {
    let show = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(show).collect()
}

/// At most `length` characters, the last an ellipsis where some are missing.
pub fn clipped(text: &str, length: usize) -> String {
    match text.chars().nth(length) {
        None => text.into(),
        Some(_) => text.chars().take(length.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// `1 node`, `2 nodes`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
