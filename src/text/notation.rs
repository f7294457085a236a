//! How tokens are shown: `` ` return` ``, `` `\n` ``, `` `<0xC3>` ``, `` `<512>` ``.
//!
//! Backticks around a token make blanks at its ends visible. Invisible characters are escaped as in
//! Rust and Python (`\n`, `\t`, `\u{200b}`), bytes that are not UTF-8 are `<0xC3>`, and an id that
//! the tokenizer does not have is `<512>`. Files for other programs contain the text itself,
//! without backticks or escapes, and the token's id.

/// A token's text between backticks, with invisible characters escaped.
pub fn token(text: &str) -> String {
    format!("`{}`", visible(text))
}

/// Text on one line, with invisible characters and unusual blanks escaped.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => shown.extend(c.escape_default()),
            c if is_invisible(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

fn is_invisible(c: char) -> bool {
    let blank = c != ' ' && c.is_whitespace();
    blank
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes as text, those that are not UTF-8 as `<0xC3>`.
pub fn lossless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("<0x{byte:02X}>")));
    }
    text
}

/// An id that has no token.
pub fn unknown(id: u32) -> String {
    format!("<{id}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        assert_eq!(token(" a"), "` a`");
        assert_eq!(token("\n\t\r\0"), r"`\n\t\r\u{0}`");
        assert_eq!(token("\u{a0}\u{200b}\u{feff}\u{2028}"), r"`\u{a0}\u{200b}\u{feff}\u{2028}`");
        assert_eq!(token("é中"), "`é中`");
        assert_eq!(lossless(b"a\xc3b\xff"), "a<0xC3>b<0xFF>");
        assert_eq!(unknown(512), "<512>");
    }
}
