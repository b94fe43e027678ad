//! Walks a log frame by frame and says what the first thing is that does not hold.

use std::{io, sync::Arc};

use gate_core::limits::FRAME_BYTES;

use super::{
    codec::{self, CRC, Envelope, FIRST_LINK, HEAD, Link, MIN_PAYLOAD, PREFIX, Sealed},
    fs::File,
};

/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// What follows the last good frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// A frame or a batch that ends too early.
    Torn,
    /// One to three bytes: not even a length.
    Short,
    /// Zero bytes to the end of the file.
    Zeros,
    /// An impossible length, or a frame whose checksum does not hold.
    Bad,
    /// A frame whose checksum holds and that does not belong there.
    Misplaced,
}

/// The first thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where the frame starts, in bytes from the start of the log.
    pub offset: u64,
    /// The number that the frame should have.
    pub seq: u64,
    /// What kind of fault it is.
    pub tail: Tail,
    /// What exactly does not hold.
    pub what: &'static str,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frame {} at byte {}: {}", self.seq, self.offset, self.what)
    }
}

/// A frame that holds, at its place in the chain.
pub(super) struct Good<'a> {
    pub(super) envelope: Envelope<'a>,
    pub(super) payload: &'a [u8],
    pub(super) crc: u32,
}

/// Where in the chain a scan stands: what the next frame must say.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Start of the next frame.
    pub(super) offset: u64,
    pub(super) next_seq: u64,
    pub(super) prev: Link,
    /// Frames of the batch still to come.
    pub(super) left: u32,
    /// End, last frame and link of the last complete batch.
    pub(super) whole: (u64, u64, Link),
    /// The highest `durable` seen.
    pub(super) durable: u64,
}

impl Default for Place {
    fn default() -> Self {
        Self { offset: 0, next_seq: 1, prev: FIRST_LINK, left: 0, whole: (0, 0, FIRST_LINK), durable: 0 }
    }
}

impl Place {
    /// Steps over a frame, or says why it does not belong here.
    fn step(&mut self, frame: &Envelope<'_>, payload: &[u8]) -> Result<(), &'static str> {
        if frame.seq != self.next_seq {
            return Err("its `seq` is not the next one");
        }
        if frame.prev != self.prev {
            return Err("its `prev` is not the hash of the frame before it");
        }
        if self.left > 0 && frame.left != self.left - 1 {
            return Err("its `left` does not continue the batch");
        }
        if frame.durable < self.durable || frame.durable > self.whole.1 {
            return Err("its `durable` cannot be true");
        }
        self.offset += (PREFIX + payload.len()) as u64;
        self.next_seq += 1;
        self.prev = codec::link_to(payload);
        self.left = frame.left;
        self.durable = frame.durable;
        if frame.left == 0 {
            self.whole = (self.offset, frame.seq, self.prev);
        }
        Ok(())
    }
}

/// A walk over a log: bounded memory, one frame at a time.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Arc<dyn File>,
    /// Bytes of the log that may be looked at.
    end: u64,
    pub(super) place: Place,
    buf: Vec<u8>,
    /// How many bytes of `buf` are behind `place.offset`.
    behind: usize,
}

impl Scanner {
    pub(super) fn new(file: Arc<dyn File>, place: Place) -> io::Result<Self> {
        let end = file.len()?;
        Ok(Self { file, end, place, buf: Vec::new(), behind: 0 })
    }

    /// Forgets what was read ahead and takes in what the file has grown by.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        self.end = self.file.len()?;
        self.buf.clear();
        self.behind = 0;
        Ok(())
    }

    /// Whether the file, as it was last looked at, ends here.
    pub(super) fn is_at_end(&self) -> bool {
        self.end <= self.place.offset
    }

    /// A second walk from here, over what the file holds now.
    pub(super) fn ahead(&self) -> io::Result<Self> {
        Self::new(Arc::clone(&self.file), self.place.clone())
    }

    /// The next frame; `Ok(None)` at the end; the inner error is the first thing that does not hold.
    pub(super) fn next(&mut self) -> io::Result<Result<Option<Good<'_>>, Fault>> {
        let remaining = self.end.saturating_sub(self.place.offset);
        let (offset, seq) = (self.place.offset, self.place.next_seq);
        let fault = |tail, what| Ok(Err(Fault { offset, seq, tail, what }));
        if remaining == 0 {
            return match self.place.left {
                0 => Ok(Ok(None)),
                _ => fault(Tail::Torn, "its batch ends before its last frame"),
            };
        }
        let prefix = self.peek(PREFIX)?.first_chunk::<PREFIX>().copied();
        if prefix.unwrap_or_default() == [0; PREFIX] && self.is_zero_to_the_end()? {
            return fault(Tail::Zeros, "zero bytes to the end of the file");
        }
        let Some(prefix) = prefix else {
            return fault(Tail::Short, "fewer bytes than a length has");
        };
        let len = u32::from_be_bytes(prefix) as usize;
        if !(MIN_PAYLOAD..=FRAME_BYTES).contains(&len) {
            return fault(Tail::Bad, "its length is out of range");
        }
        if ((PREFIX + len) as u64) > remaining {
            return fault(Tail::Torn, "the file ends before the frame does");
        }
        // Borrowed through the field, so that `place` can move on while the payload is out.
        self.peek(PREFIX + len)?;
        let Some(payload) = self.buf.get(self.behind + PREFIX..self.behind + PREFIX + len) else {
            return fault(Tail::Torn, "the file got shorter while it was read");
        };
        let Some(sealed) = Sealed::check(payload) else {
            return fault(Tail::Bad, "its checksum does not hold");
        };
        let Some(envelope) = sealed.parse() else {
            return fault(Tail::Misplaced, "its checksum holds, its members are not those of a frame");
        };
        if let Err(what) = self.place.step(&envelope, payload) {
            return fault(Tail::Misplaced, what);
        }
        self.behind += PREFIX + len;
        Ok(Ok(Some(Good { envelope, payload, crc: sealed.crc })))
    }

    /// Up to `want` bytes from the current place; fewer only at the end.
    fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        if self.buf.len() < self.behind + want {
            self.buf.drain(..self.behind.min(self.buf.len()));
            self.behind = 0;
            let remaining = usize::try_from(self.end.saturating_sub(self.place.offset)).unwrap_or(usize::MAX);
            let had = self.buf.len();
            self.buf.resize(want.max(READ_BYTES).min(remaining).max(had), 0);
            let got =
                read_full(&*self.file, self.place.offset + had as u64, self.buf.get_mut(had..).unwrap_or_default())?;
            self.buf.truncate(had + got);
        }
        let held = self.buf.get(self.behind..).unwrap_or_default();
        Ok(held.get(..want).unwrap_or(held))
    }

    fn is_zero_to_the_end(&self) -> io::Result<bool> {
        let mut offset = self.place.offset;
        loop {
            let window = self.window(offset, READ_BYTES)?;
            if window.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if window.len() < READ_BYTES {
                return Ok(true);
            }
            offset += READ_BYTES as u64;
        }
    }

    /// Where after the damaged frame at `fault` a whole frame starts, if anywhere: then the damage is not an
    /// unfinished write. The damaged frame itself counts when only its length is wrong.
    pub(super) fn valid_after(&self, fault: &Fault) -> io::Result<Option<u64>> {
        if self.is_whole_but_for_its_length(fault)? {
            return Ok(Some(fault.offset));
        }
        let mut offset = fault.offset + 1;
        let mut payload = Vec::new();
        loop {
            let window = self.window(offset, READ_BYTES)?;
            for at in memchr::memmem::find_iter(&window, HEAD) {
                // The length stands before the head; `0x00` can be in no payload, so no payload can feign it.
                let prefix = at.checked_sub(PREFIX).and_then(|start| window.get(start..)?.first_chunk::<PREFIX>());
                let Some(len) = prefix.map(|prefix| u32::from_be_bytes(*prefix) as usize) else { continue };
                if !(MIN_PAYLOAD..=FRAME_BYTES).contains(&len) {
                    continue;
                }
                let start = offset + at as u64;
                let mut member = [0; codec::CRC_MEMBER];
                let got = read_full(&*self.file, start + (len - member.len()) as u64, &mut member)?;
                if got < member.len() || codec::crc_member(&member).is_none() {
                    continue;
                }
                payload.resize(len, 0);
                if read_full(&*self.file, start, &mut payload)? == len && Sealed::check(&payload).is_some() {
                    return Ok(Some(start - PREFIX as u64));
                }
            }
            if window.len() < READ_BYTES {
                return Ok(None);
            }
            // The next window begins early enough to hold a length and a head that this one cut.
            offset += (READ_BYTES - PREFIX - HEAD.len()) as u64;
        }
    }

    /// Up to `most` bytes from `offset`; fewer only at the end.
    fn window(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let remaining = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(most);
        let mut window = vec![0; most.min(remaining)];
        let got = read_full(&*self.file, offset, &mut window)?;
        window.truncate(got);
        Ok(window)
    }

    fn is_whole_but_for_its_length(&self, fault: &Fault) -> io::Result<bool> {
        let payload = self.window(fault.offset + PREFIX as u64, FRAME_BYTES)?;
        if !payload.starts_with(format!("{{\"seq\":{},", fault.seq).as_bytes()) {
            return Ok(false);
        }
        let (mut crc, mut covered) = (0, 0);
        for at in memchr::memmem::find_iter(&payload, CRC) {
            crc = crc32c::crc32c_append(crc, payload.get(covered..at).unwrap_or_default());
            covered = at;
            let member = payload.get(at..at + codec::CRC_MEMBER).unwrap_or_default();
            if codec::crc_member(member) == Some(crc) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads until `buf` is full or the file ends.
pub(super) fn read_full(file: &dyn File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset + filled as u64, rest)? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}
