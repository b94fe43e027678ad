//! Walks a log frame by frame, over all its segments, and says what the first thing is that does not hold.

use std::{cmp::Ordering, io, sync::Arc};

use gate_core::limits::FRAME_BYTES;

use super::{
    WalError,
    codec::{self, CRC, Envelope, FIRST_LINK, HEAD, Link, MIN_PAYLOAD, PREFIX, Sealed},
    dir::Dir,
    fs::{File, read_full},
    own::Own,
    segment::Segment,
    walk::Told,
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
    /// The segment that it is in.
    pub segment: Segment,
    /// Where the frame starts, in bytes from the start of the segment.
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
        let Self { segment, offset, seq, what, .. } = self;
        match segment {
            Segment::Live => write!(f, "frame {seq} at byte {offset}: {what}"),
            Segment::Sealed(_) => write!(f, "frame {seq} at byte {offset} of `{segment}`: {what}"),
        }
    }
}

/// A frame that holds, at its place in the chain.
pub(super) struct Good<'a> {
    pub(super) envelope: Envelope<'a>,
    pub(super) payload: &'a [u8],
    pub(super) crc: u32,
    /// What the log is called here.
    pub(super) wal_id: &'a str,
    /// The first frame that is kept and its link, where what came before was pruned.
    pub(super) start: Option<(u64, Link)>,
}

/// Where in the chain a scan stands: what the next frame must say.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) segment: Segment,
    /// Start of the next frame in it.
    pub(super) offset: u64,
    pub(super) next_seq: u64,
    pub(super) prev: Link,
    /// Frames of the batch still to come.
    pub(super) left: u32,
    /// End in the segment, last frame and link of the last complete batch.
    pub(super) whole: (u64, u64, Link),
    /// The highest `durable` seen.
    pub(super) durable: u64,
    /// What the log is called here; empty before its first frame.
    pub(super) wal_id: String,
    /// The first frame that is kept and its link, where what came before was pruned.
    pub(super) start: Option<(u64, Link)>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            segment: Segment::Live,
            offset: 0,
            next_seq: 1,
            prev: FIRST_LINK,
            left: 0,
            whole: (0, 0, FIRST_LINK),
            durable: 0,
            wal_id: String::new(),
            start: None,
        }
    }
}

impl Place {
    /// Steps over a frame, or says why it does not belong here.
    fn step(&mut self, frame: &Envelope<'_>, payload: &[u8]) -> Result<(), &'static str> {
        let own = Own::of(frame);
        let begins = self.offset == 0 && frame.seq > 1;
        let (mut next_seq, mut prev, mut last_whole, mut start) = (self.next_seq, self.prev, self.whole.1, self.start);
        if begins && matches!(own, Some(Own::Rotated { .. })) && frame.seq > next_seq {
            if next_seq > 1 {
                return Err("the segment before it is missing");
            }
            // What came before was pruned.
            (next_seq, prev, last_whole, start) = (frame.seq, frame.prev, frame.seq - 1, Some((frame.seq, frame.prev)));
        }
        if frame.seq != next_seq {
            return Err("its `seq` is not the next one");
        }
        if frame.seq > codec::MAX_SEQ {
            return Err("its `seq` is above what a log can have");
        }
        if self.offset == 0
            && let Segment::Sealed(first) = self.segment
            && first != frame.seq
        {
            return Err("its segment is named after another frame");
        }
        if frame.prev != prev {
            return Err("its `prev` is not the hash of the frame before it");
        }
        if self.left > 0 && frame.left != self.left - 1 {
            return Err("its `left` does not continue the batch");
        }
        if frame.durable < self.durable || frame.durable > last_whole {
            return Err("its `durable` cannot be true");
        }
        let link = codec::link_to(payload);
        match (own, begins) {
            (Some(Own::Rotated { wal_id }), true)
                if codec::is_wal_id(&wal_id) && (self.wal_id.is_empty() || self.wal_id == wal_id) =>
            {
                self.wal_id = wal_id;
            }
            (Some(Own::Rotated { .. }), _) => return Err("it is the first frame of another segment"),
            (_, true) => return Err("its segment does not begin with a `wal_rotated` frame"),
            (Some(Own::Doctored { .. }), false) => self.wal_id = codec::wal_id_of(&link),
            (Some(Own::Repaired { .. } | Own::Pruned { .. }) | None, false) => {
                if frame.seq == 1 {
                    self.wal_id = codec::wal_id_of(&link);
                }
            }
        }
        if start != self.start {
            (self.start, self.whole) = (start, (0, last_whole, prev));
        }
        self.offset += (PREFIX + payload.len()) as u64;
        self.next_seq = frame.seq + 1;
        self.prev = link;
        self.left = frame.left;
        self.durable = frame.durable;
        if frame.left == 0 {
            self.whole = (self.offset, frame.seq, self.prev);
        }
        Ok(())
    }
}

/// What comes after the last frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    /// More frames, which the scanner now stands before.
    More,
    /// Nothing.
    End,
    /// A segment that begins with this later frame: the one between is missing.
    Gap(u64),
}

/// How often the files of a log are looked for again that a writer seals or prunes at the same time.
const LOOKS: usize = 100;

/// A walk over the segments of a log: bounded memory, one frame at a time.
#[derive(Debug)]
pub(super) struct Scanner {
    dir: Dir,
    file: Arc<dyn File>,
    /// Bytes of the segment that may be looked at.
    end: u64,
    /// Bytes of the segments before and after it, where somebody is told how far the reading has come.
    around: (u64, u64),
    pub(super) place: Place,
    buf: Vec<u8>,
    /// How many bytes of `buf` are behind `place.offset`.
    behind: usize,
}

impl Scanner {
    /// A walk from the first frame that the log holds; None where there is no log.
    pub(super) fn first(dir: &Dir) -> Result<Option<Self>, WalError> {
        for _ in 0..LOOKS {
            let segment = dir.segment_from(0)?;
            let found = dir.segment(segment)?;
            // What was the live file, or the first, may not be so any more.
            if dir.segment_from(0)? == segment {
                let place = Place { segment, ..Place::default() };
                return dir.found(segment, found)?.map(|file| Self::new(dir, file, place)).transpose();
            }
        }
        Err(restless(dir))
    }

    /// A walk that takes the frames before `place` as read.
    pub(super) fn from(dir: &Dir, place: Place) -> Result<Option<Self>, WalError> {
        dir.segment(place.segment)?.map(|file| Self::new(dir, file, place)).transpose()
    }

    fn new(dir: &Dir, file: Arc<dyn File>, place: Place) -> Result<Self, WalError> {
        let mut scanner = Self { dir: dir.clone(), file, end: 0, around: (0, 0), place, buf: Vec::new(), behind: 0 };
        scanner.enter()?;
        Ok(scanner)
    }

    /// Looks at a segment that was just opened.
    fn enter(&mut self) -> Result<(), WalError> {
        if self.dir.told.is_some() {
            self.around = (0, 0);
            for first in self.dir.sealed()? {
                let other = Segment::Sealed(first);
                // One that was pruned meanwhile counts for nothing.
                let bytes = self.dir.bytes(other).unwrap_or(0);
                match other.cmp(&self.place.segment) {
                    Ordering::Less => self.around.0 += bytes,
                    Ordering::Equal => {}
                    Ordering::Greater => self.around.1 += bytes,
                }
            }
        }
        self.refresh()
    }

    /// Goes on to the segment that follows, where this one was read to its end.
    pub(super) fn cross(&mut self) -> Result<Crossing, WalError> {
        if self.place.left > 0 || self.place.offset == 0 {
            return Ok(Crossing::End);
        }
        if self.place.segment == Segment::Live {
            if self.is_at(Segment::Live)? {
                return Ok(Crossing::End);
            }
            // It was sealed, which it is with all its frames.
            self.refresh()?;
            if !self.is_at_end() {
                return Ok(Crossing::More);
            }
        }
        for _ in 0..LOOKS {
            let next = self.dir.segment_from(self.place.next_seq)?;
            if let Segment::Sealed(later) = next
                && later > self.place.next_seq
            {
                return Ok(Crossing::Gap(later));
            }
            let found = self.dir.segment(next)?;
            // What was the live file may have been sealed since, and the live one come after it.
            if self.dir.segment_from(self.place.next_seq)? == next {
                let Some(file) = self.dir.found(next, found)? else { return Ok(Crossing::End) };
                // Where this segment was pruned, so may have been all up to the live one.
                if next == Segment::Live && !self.is_in_place()? {
                    let mut live = Self::new(&self.dir, Arc::clone(&file), Place::default())?;
                    if let Ok(Some(good)) = live.next()?
                        && good.envelope.seq > self.place.next_seq
                    {
                        return Ok(Crossing::Gap(good.envelope.seq));
                    }
                }
                self.file = file;
                self.place.segment = next;
                (self.place.offset, self.place.whole.0) = (0, 0);
                self.enter()?;
                return Ok(Crossing::More);
            }
        }
        Err(restless(&self.dir))
    }

    /// Forgets what was read ahead and takes in what the segment has grown by.
    pub(super) fn refresh(&mut self) -> Result<(), WalError> {
        self.end = self.file.len().map_err(self.cannot_read())?;
        self.buf.clear();
        self.behind = 0;
        Ok(())
    }

    /// Bytes of the segment, as it was last looked at.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.end
    }

    /// Whether the segment, as it was last looked at, ends here.
    pub(super) fn is_at_end(&self) -> bool {
        self.end <= self.place.offset
    }

    /// Whether the segment is still one of the log's: it may have been pruned, or replaced by the doctor.
    pub(super) fn is_in_place(&self) -> Result<bool, WalError> {
        let mut is_in_place = self.is_at(Segment::Live)?;
        for first in self.dir.sealed()? {
            is_in_place = is_in_place || self.is_at(Segment::Sealed(first))?;
        }
        Ok(is_in_place)
    }

    /// A second walk from here, over what the segment holds now.
    pub(super) fn ahead(&self) -> Result<Self, WalError> {
        Self::new(&self.dir, Arc::clone(&self.file), self.place.clone())
    }

    fn is_at(&self, segment: Segment) -> Result<bool, WalError> {
        let path = self.dir.file(segment);
        self.file.is_at(&path).map_err(WalError::io("read", &path))
    }

    fn cannot_read(&self) -> impl FnOnce(io::Error) -> WalError + use<> {
        let path = self.dir.file(self.place.segment);
        move |source| WalError::io("read", &path)(source)
    }

    /// The next frame; `Ok(None)` at the end; the inner error is the first thing that does not hold.
    pub(super) fn next(&mut self) -> Result<Result<Option<Good<'_>>, Fault>, WalError> {
        let remaining = self.end.saturating_sub(self.place.offset);
        let (segment, offset, seq) = (self.place.segment, self.place.offset, self.place.next_seq);
        let fault = |tail, what| Ok(Err(Fault { segment, offset, seq, tail, what }));
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
        Ok(Ok(Some(Good { envelope, payload, crc: sealed.crc, wal_id: &self.place.wal_id, start: self.place.start })))
    }

    /// Up to `want` bytes from the current place; fewer only at the end.
    fn peek(&mut self, want: usize) -> Result<&[u8], WalError> {
        if self.buf.len() < self.behind + want {
            self.buf.drain(..self.behind.min(self.buf.len()));
            self.behind = 0;
            let remaining = usize::try_from(self.end.saturating_sub(self.place.offset)).unwrap_or(usize::MAX);
            let had = self.buf.len();
            self.buf.resize(want.max(READ_BYTES).min(remaining).max(had), 0);
            let cannot_read = self.cannot_read();
            let rest = self.buf.get_mut(had..).unwrap_or_default();
            let got = read_full(&*self.file, self.place.offset + had as u64, rest).map_err(cannot_read)?;
            self.buf.truncate(had + got);
            self.tell(self.place.offset + self.buf.len() as u64);
        }
        let held = self.buf.get(self.behind..).unwrap_or_default();
        Ok(held.get(..want).unwrap_or(held))
    }

    fn is_zero_to_the_end(&self) -> Result<bool, WalError> {
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
    pub(super) fn valid_after(&self, fault: &Fault) -> Result<Option<u64>, WalError> {
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
                let got = self.read_full(start + (len - member.len()) as u64, &mut member)?;
                if got < member.len() || codec::crc_member(&member).is_none() {
                    continue;
                }
                payload.resize(len, 0);
                if self.read_full(start, &mut payload)? == len && Sealed::check(&payload).is_some() {
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
    fn window(&self, offset: u64, most: usize) -> Result<Vec<u8>, WalError> {
        let remaining = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(most);
        let mut window = vec![0; most.min(remaining)];
        let got = self.read_full(offset, &mut window)?;
        window.truncate(got);
        Ok(window)
    }

    fn is_whole_but_for_its_length(&self, fault: &Fault) -> Result<bool, WalError> {
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

    fn read_full(&self, offset: u64, buf: &mut [u8]) -> Result<usize, WalError> {
        let got = read_full(&*self.file, offset, buf).map_err(self.cannot_read())?;
        self.tell(offset + got as u64);
        Ok(got)
    }

    fn tell(&self, offset: u64) {
        if let Some(Told(told)) = &self.dir.told {
            let (before, after) = self.around;
            told(before + offset, before + self.end + after);
        }
    }
}

fn restless(dir: &Dir) -> WalError {
    WalError::io("read", &dir.path)(io::Error::other("its files change faster than they can be opened"))
}
