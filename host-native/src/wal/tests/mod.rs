//! The log against a file system that fails, and against every bit.

mod bits;
mod checkpoint;
mod commit;
mod faults;
mod format;
mod memfs;
mod operator;
mod reader;
mod retention;
mod segments;
mod table;
mod undrained;

use std::{path::Path, sync::Arc, time::Duration};

use gate_core::{
    frame::{Frame, Kind},
    identity::{AuditId, NodeId},
};
use memfs::MemFs;

use super::{Opened, Options, Reader, Record, Wal, WalError, dir::Dir};

const DIR: &str = "/wal";

fn dir(fs: &MemFs) -> Dir {
    Dir::new(Arc::new(fs.clone()), Path::new(DIR))
}

/// A frame that says which it is.
fn frame(text: &str) -> Frame {
    Frame {
        kind: Kind::Decision,
        audit_id: AuditId::parse("018f-test").unwrap(),
        node_id: Some(NodeId::parse("robot-7").unwrap()),
        attrs: format!("{{\"layer\":\"policy\",\"reason\":\"{text}\"}}"),
    }
}

/// `size` frames of one append, named after `name`.
fn batch(name: &str, size: usize) -> Vec<Frame> {
    (0..size).map(|i| frame(&format!("{name}.{i}"))).collect()
}

/// Options under which nothing happens by the clock.
fn timeless() -> Options {
    Options { publish_idle: Duration::from_secs(3600), ..Options::default() }
}

fn open(fs: &MemFs) -> Result<(Wal, Opened), WalError> {
    let options = Options { segment_bytes: fs.segment_bytes, ..timeless() };
    Wal::open_on(dir(fs), &options)
}

fn records(fs: &MemFs) -> Vec<Record> {
    Reader::open_on(dir(fs)).unwrap().map(Result::unwrap).collect()
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

/// A log of `frames` frames in batches of one to three, its writer killed: `safe_seq` is what it was at the start.
fn killed_log(frames: u64) -> (MemFs, Vec<Record>) {
    let killed = killed_log_of(MemFs::default().segment_bytes, frames);
    assert_eq!(killed.1.len() as u64, frames);
    killed
}

/// The same in segments of so many bytes, each with one frame more.
fn killed_log_of(segment_bytes: u64, frames: u64) -> (MemFs, Vec<Record>) {
    let fs = MemFs::with_segments(segment_bytes);
    let (wal, _) = open(&fs).unwrap();
    let mut last = 0;
    let mut size = 1;
    while last < frames {
        let size_now = size.min(usize::try_from(frames - last).unwrap());
        last = *wal.append(batch(&format!("b{last}"), size_now)).wait().unwrap().end();
        size = size % 3 + 1;
    }
    let killed = fs.snapshot();
    drop(wal);
    let all = records(&killed);
    (killed, all)
}
