//! Text in the fonts that the program carries: how wide it is, and what fits.

use std::sync::{Arc, OnceLock};

use epaint_default_fonts::{HACK_REGULAR, UBUNTU_LIGHT};
use resvg::usvg::fontdb::{Database, ID, Source};
use resvg::usvg::{FontResolver, Node, Options, Tree};

use crate::files::escape_xml;
use crate::{Error, Result};

/// What viewers of the SVG take; the first is the one that PNG and PDF are set in.
pub(super) const FAMILIES: &str = "Ubuntu, Helvetica, Arial, sans-serif";

/// Reads an SVG with the program's fonts: Ubuntu, and Hack for signs that Ubuntu does not have.
pub(super) fn parse(svg: &str) -> Result<Tree> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = Database::new();
        for font in [UBUNTU_LIGHT, HACK_REGULAR] {
            fonts.load_font_source(Source::Binary(Arc::new(font)));
        }
        Arc::new(fonts)
    });
    // The default one looks no further at a sign that no font has.
    let next = |_: char, used: &[ID], fonts: &mut Arc<Database>| {
        fonts.faces().map(|face| face.id).find(|id| !used.contains(id))
    };
    let font_resolver = FontResolver { select_fallback: Box::new(next), ..FontResolver::default() };
    let options = Options { fontdb: Arc::clone(fonts), font_resolver, ..Options::default() };
    Tree::from_str(svg, &options).map_err(|e| Error::Drawing(format!("drawing: {e}")))
}

/// The width of a line of text, shaped, in the units of `size`.
pub(super) fn width(text: &str, size: f64) -> Result<f64> {
    let text = escape_xml(text);
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\"><text font-family=\"{FAMILIES}\" font-size=\"100\">{text}</text></svg>"
    );
    let tree = parse(&svg)?;
    let of = |node: &Node| f64::from(node.bounding_box().width());
    Ok(tree.root().children().first().map_or(0.0, of) * size / 100.0)
}

/// The text, or its beginning and an ellipsis if it is wider than `room`.
pub(super) fn shortened(text: &str, size: f64, room: f64) -> Result<String> {
    if width(text, size)? <= room {
        return Ok(text.into());
    }
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let start = |chars: usize| text[..ends.get(chars).copied().unwrap_or(0)].trim_end();
    let (mut fits, mut too_long) = (0, ends.len());
    while too_long - fits > 1 {
        let middle = (fits + too_long) / 2;
        if width(&format!("{}…", start(middle)), size)? <= room { fits = middle } else { too_long = middle }
    }
    Ok(format!("{}…", start(fits)))
}

/// The text in `most` lines or fewer, broken at spaces.
pub(super) fn wrapped(text: &str, size: f64, room: f64, most: usize) -> Result<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let longer = lines.last().map(|line| format!("{line} {word}"));
        match (longer, lines.last_mut()) {
            (Some(longer), Some(line)) if width(&longer, size)? <= room => *line = longer,
            _ => lines.push(word.into()),
        }
    }
    if lines.len() > most {
        let rest = lines.split_off(most.saturating_sub(1));
        lines.push(rest.join(" "));
    }
    lines.iter().map(|line| shortened(line, size, room)).collect()
}
