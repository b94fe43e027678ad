//! How far long work has come, on a terminal only.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use host_native::{oci::Access, wal::Walk};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Fewer bytes are there before anybody looks.
const LONG_BYTES: u64 = 4 * 1024 * 1024;
const BYTES: &str = "{bar:40} {bytes}/{total_bytes}, {eta} left";

/// Reads a log. Where somebody watches standard error, a bar shows how much of it, and is gone when that is done.
pub(crate) fn reading<T>(wal_dir: &Path, read: impl FnOnce(Walk) -> T) -> T {
    if !io::stderr().is_terminal() {
        return read(wal_dir.into());
    }
    shown(|told| read(Walk::told(wal_dir, told)))
}

/// Moves a bundle to or from a registry, with such a bar.
pub(crate) fn moving<T>(access: Access, transfer: impl FnOnce(&Access) -> T) -> T {
    if !io::stderr().is_terminal() {
        return transfer(&access);
    }
    shown(|told| transfer(&access.told(told)))
}

fn shown<T>(work: impl FnOnce(Box<dyn Fn(u64, u64) + Send + Sync>) -> T) -> T {
    let bar = bar(0, BYTES);
    let told = bar.clone();
    let outcome = work(Box::new(move |at, bytes| {
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
