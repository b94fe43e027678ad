//! Free text is bounded before it is kept, and somebody else's words are printable before they are shown.
//!
//! Messages are made by [`fill`] and [`decimal`] alone: with `core::fmt`, gate.wasm would be a tenth larger.

use alloc::{string::String, vec::Vec};

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

/// `text`, fit to be shown between backticks: what would be obeyed or not seen is escaped.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        shown.push_str(&shown_char(c));
    }
    shown
}

/// As [`shown`], of one character.
pub(crate) fn shown_char(c: char) -> String {
    let mut shown = String::new();
    match c {
        '\\' => shown.push_str("\\\\"),
        c => show(c, &mut shown),
    }
    shown
}

fn show(c: char, out: &mut String) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_obeyed(c) || is_unseen(c) => {
            out.push_str("\\u{");
            out.push_str(&hexadecimal(c, 1));
            out.push('}');
        }
        c => out.push(c),
    }
}

/// A character's number in lower-case hexadecimal, with at least as many digits.
pub(crate) fn hexadecimal(c: char, digits: usize) -> String {
    let mut text = String::new();
    for at in (0..6).rev() {
        let digit = u32::from(c) >> (4 * at) & 15;
        if digit > 0 || at < digits || !text.is_empty() {
            text.extend(char::from_digit(digit, 16));
        }
    }
    text
}

/// A number's decimal digits.
pub fn decimal(number: u64) -> String {
    let mut digits = Vec::new();
    crate::json::write_to(&mut digits, &number);
    String::from_utf8(digits).unwrap_or_default()
}

/// `template` with an argument in place of each `{}`.
pub fn fill(template: &str, arguments: &[&str]) -> String {
    let mut arguments = arguments.iter();
    let mut text = String::new();
    for c in template.chars() {
        match c {
            '{' => text.push_str(arguments.next().copied().unwrap_or_default()),
            '}' => {}
            c => text.push(c),
        }
    }
    text
}

/// The `Display` of errors that say what is wrong by their `text`.
macro_rules! display_text {
    ($($error:ident),+) => {$(
        impl core::fmt::Display for $error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.text())
            }
        }
    )+};
}
pub(crate) use display_text;

/// The longest beginning of `text` that has at most `max_bytes` bytes and ends at a character.
pub fn cut(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}

/// A parser's message, which repeats what it read: bounded, and without characters that a terminal obeys.
pub fn line(message: &str) -> String {
    let mut line = String::new();
    for c in cut(message, LINE_BYTES).chars() {
        // The parser's own backslashes stay as they are.
        show(c, &mut line);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded_and_nothing_in_it_moves_the_cursor() {
        assert_eq!(line("a \"b\" \\ é\u{1b}[2J\n\u{202e}"), "a \"b\" \\ é\\u{1b}[2J\\n\\u{202e}");
        assert_eq!(line(&"é".repeat(1_000)), "é".repeat(150));
    }
}
