//! Free text is bounded before it is kept.

/// The longest beginning of `text` that has at most `max_bytes` bytes and ends at a character.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}
