//! The files that the frames of a log are in.

use std::fmt;

/// A segment of a log. The order is that of their frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// One that was sealed, by its first frame.
    Sealed(u64),
    /// The one that is written.
    Live,
}

impl Segment {
    /// The segment whose file has this name: exactly this, or it is none.
    pub(super) fn named(name: &str) -> Option<Self> {
        let segment = match name.strip_prefix("telemetry-").and_then(|rest| rest.strip_suffix(".wal")) {
            Some(first) => Self::Sealed(first.parse().ok()?),
            None => Self::Live,
        };
        (segment.to_string() == name).then_some(segment)
    }
}

/// The name of its file.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed(first) => write!(f, "telemetry-{first:020}.wal"),
            Self::Live => f.write_str("telemetry.wal"),
        }
    }
}
