//! Free text is bounded before it is kept, and somebody else's words are printable before they are shown.

use alloc::{format, string::String};
use core::fmt::{self, Display, Write};

/// Longest line made of somebody else's words, in bytes before they are escaped.
const LINE_BYTES: usize = 300;

/// Whether a terminal or an editor obeys this character instead of showing it: controls (the C1 ones too), line
/// separators, and what changes the direction of the text around it.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Whether a character takes no room, so that a word with it looks like the word without.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// Somebody else's words, fit to be shown between backticks: what would be obeyed or not seen is escaped.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a str);

/// `text`, fit to be shown.
pub fn shown(text: &str) -> Shown<'_> {
    Shown(text)
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            c => show(c, f),
        })
    }
}

fn show(c: char, out: &mut impl Write) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if is_obeyed(c) || is_unseen(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
        c => out.write_char(c),
    }
}

/// The longest beginning of `text` that has at most `max_bytes` bytes and ends at a character.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}

/// A parser's message, which repeats what it read: bounded, and without characters that a terminal obeys.
pub fn line(message: &impl Display) -> String {
    let mut line = String::new();
    for c in cut(&format!("{message}"), LINE_BYTES).chars() {
        // The parser's own backslashes stay as they are. A string takes whatever is written to it.
        let _always = show(c, &mut line);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded_and_nothing_in_it_moves_the_cursor() {
        assert_eq!(line(&"a \"b\" \\ é\u{1b}[2J\n\u{202e}"), "a \"b\" \\ é\\u{1b}[2J\\n\\u{202e}");
        assert_eq!(line(&"é".repeat(1_000)), "é".repeat(150));
    }
}
