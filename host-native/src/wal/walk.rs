//! Saying how far the reading of a log has come.

use std::{fmt, path::Path, sync::Arc};

use super::{dir::Dir, fs::RealFs};

/// A log that is to be read: its directory and, if wanted, who is told how far the reading has come.
///
/// A path is one that nobody is told of, and costs nothing more than the reading.
#[derive(Debug)]
pub struct Walk {
    pub(super) dir: Dir,
}

impl Walk {
    /// Calls `told` after each read of the log (256 KiB or a frame) with the byte that it came to, over all its segments,
    /// and with how many there were when the segment was opened. A byte may be read twice.
    pub fn told(dir: impl AsRef<Path>, told: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        let mut walk = Self::from(dir);
        walk.dir.told = Some(Told(Arc::new(told)));
        walk
    }
}

impl<P: AsRef<Path>> From<P> for Walk {
    fn from(dir: P) -> Self {
        Self { dir: Dir::new(Arc::new(RealFs), dir.as_ref()) }
    }
}

/// Called with the byte that was read up to, and with how many there are.
#[derive(Clone)]
pub(super) struct Told(pub(super) Arc<dyn Fn(u64, u64) + Send + Sync>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}
