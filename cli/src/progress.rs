//! How far long work has come, on a terminal only.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use host_native::wal::Walk;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A log with fewer bytes is read before anybody looks.
const LONG_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a log. Where somebody watches standard error, a bar shows how much of it, and is gone when that is done.
pub(crate) fn reading<T>(wal_dir: &Path, read: impl FnOnce(Walk) -> T) -> T {
    if !io::stderr().is_terminal() {
        return read(wal_dir.into());
    }
    let bar = bar(0, "{bar:40} {bytes}/{total_bytes}, {eta} left");
    let told = bar.clone();
    let outcome = read(Walk::told(wal_dir, move |at, bytes| {
        // What is read ahead, or again, does not take the bar back.
        if bytes >= LONG_BYTES && at > told.position() {
            told.set_length(bytes);
            told.set_position(at.min(bytes));
        }
    }));
    bar.finish_and_clear();
    outcome
}

/// A bar on standard error, which only a terminal shows.
pub(crate) fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
