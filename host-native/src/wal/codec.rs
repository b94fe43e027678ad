//! One frame as bytes: written in one pass, read back by position.
//!
//! Reading accepts exactly what writing produces (`docs/src/spec/wal.md`): one order of members, no white space outside
//! `attrs`, no member that is not named there.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gate_core::{
    frame::Kind,
    identity::{AuditId, NodeId},
    limits::FRAME_BYTES,
};
use sha2::{Digest, Sha256};

/// The length prefix.
pub(super) const PREFIX: usize = 4;
/// Everything in a frame but `attrs` fits in this, the prefix included.
pub(super) const AROUND_ATTRS: usize = 512;
/// Largest `attrs`.
pub(super) const ATTRS_BYTES: usize = FRAME_BYTES - AROUND_ATTRS;
/// Shorter than any payload; longer ones are looked at.
pub(super) const MIN_PAYLOAD: usize = 200;
/// Highest number of a frame: whatever a log claims, there are more after it.
pub(super) const MAX_SEQ: u64 = u64::MAX / 2;
/// How a payload begins.
pub(super) const HEAD: &[u8] = b"{\"seq\":";
/// What comes before the checksum, which covers every byte before it.
pub(super) const CRC: &[u8] = b",\"crc\":\"";
/// `,"crc":"01234567"}`
pub(super) const CRC_MEMBER: usize = CRC.len() + 8 + 2;

/// The hash of the previous payload as the frame writes it.
pub(super) type Link = [u8; 43];
/// Before the first frame: the hash slot holds 32 zero bytes.
pub(super) const FIRST_LINK: Link = [b'A'; 43];

/// The link to `payload`, for the frame after it.
pub(super) fn link_to(payload: &[u8]) -> Link {
    let mut link = FIRST_LINK;
    // 32 bytes always fit 43 characters.
    let _ = URL_SAFE_NO_PAD.encode_slice(Sha256::digest(payload), &mut link);
    link
}

/// What a log is called whose frame 1, or newest `wal_doctored` frame, has this link: its first 22 characters, 132 bits.
pub(super) fn wal_id_of(link: &Link) -> String {
    link.iter().take(22).map(|byte| char::from(*byte)).collect()
}

/// Whether a log can be called this.
pub(super) fn is_wal_id(text: &str) -> bool {
    text.len() == 22 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What numbers and chains frames.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) next_seq: u64,
    pub(super) prev: Link,
    /// What the log is called; empty before its first frame.
    pub(super) wal_id: String,
    second: u64,
    stamp: [u8; 30],
}

impl Encoder {
    pub(super) fn new(last_seq: u64, prev: Link, wal_id: String) -> Self {
        Self { next_seq: last_seq + 1, prev, wal_id, second: 0, stamp: *b"1970-01-01T00:00:00.000000000Z" }
    }

    /// Appends one frame, prefix and all. `write_members` appends what `gate_core::frame::Frame::write_members` does.
    pub(super) fn push(
        &mut self,
        out: &mut Vec<u8>,
        unix_ns: u64,
        write_members: impl FnOnce(&mut Vec<u8>),
        left: u32,
        durable: u64,
    ) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        out.extend_from_slice(HEAD);
        push_decimal(out, self.next_seq);
        out.extend_from_slice(b",\"ts\":\"");
        self.push_time(out, unix_ns);
        out.extend_from_slice(b"\",");
        write_members(out);
        if left > 0 {
            out.extend_from_slice(b",\"left\":");
            push_decimal(out, u64::from(left));
        }
        out.extend_from_slice(b",\"durable\":");
        push_decimal(out, durable);
        out.extend_from_slice(b",\"prev\":\"");
        out.extend_from_slice(&self.prev);
        out.push(b'"');
        let crc = crc32c::crc32c(out.get(start + PREFIX..).unwrap_or_default());
        out.extend_from_slice(CRC);
        push_hex(out, crc);
        out.extend_from_slice(b"\"}");
        if let Some((prefix, payload)) = out.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut::<PREFIX>())
        {
            // `append` keeps every payload within FRAME_BYTES.
            *prefix = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
            self.prev = link_to(payload);
        }
        if self.next_seq == 1 {
            self.wal_id = wal_id_of(&self.prev);
        }
        self.next_seq += 1;
    }

    /// `2026-01-02T03:04:05.123456789Z`; the part up to the second is kept from frame to frame.
    fn push_time(&mut self, out: &mut Vec<u8>, unix_ns: u64) {
        let second = unix_ns / 1_000_000_000;
        if second != self.second {
            self.second = second;
            let (year, month, day) = civil(second / 86_400);
            let of_day = second % 86_400;
            let fields = [(0, 4, year), (5, 2, month), (8, 2, day)];
            let clock = [(11, 2, of_day / 3600), (14, 2, of_day / 60 % 60), (17, 2, of_day % 60)];
            for (at, width, value) in fields.into_iter().chain(clock) {
                put_digits(self.stamp.get_mut(at..at + width), value);
            }
        }
        put_digits(self.stamp.get_mut(20..29), unix_ns % 1_000_000_000);
        out.extend_from_slice(&self.stamp);
    }
}

/// A time as frames have it.
pub(super) fn time_of(unix_ns: u64) -> String {
    let mut time = Vec::new();
    Encoder::new(0, FIRST_LINK, String::new()).push_time(&mut time, unix_ns);
    String::from_utf8_lossy(&time).into_owned()
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The day, counted from 1970-01-01, of a date after it (Howard Hinnant's `days_from_civil`).
fn days_of((year, month, day): (u64, u64, u64)) -> Option<u64> {
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

/// Nanoseconds since 1970 of a frame's `ts`; 0 where it has none that fits.
pub(super) fn unix_ns_of(ts: &str) -> u64 {
    let field = |range: std::ops::Range<usize>| ts.get(range)?.parse::<u64>().ok();
    let time = || {
        let days = days_of((field(0..4)?.max(1), field(5..7)?, field(8..10)?))?;
        let second = days * 86_400 + field(11..13)? * 3600 + field(14..16)? * 60 + field(17..19)?;
        second.checked_mul(1_000_000_000)?.checked_add(field(20..29)?)
    };
    time().unwrap_or(0)
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or(0)
}

fn put_digits(slot: Option<&mut [u8]>, mut value: u64) {
    for byte in slot.into_iter().flatten().rev() {
        *byte = digit(value);
        value /= 10;
    }
}

fn push_decimal(out: &mut Vec<u8>, value: u64) {
    let width = value.checked_ilog10().map_or(1, |log| log as usize + 1);
    let start = out.len();
    out.resize(start + width, b'0');
    put_digits(out.get_mut(start..), value);
}

fn push_hex(out: &mut Vec<u8>, value: u32) {
    for shift in (0..8).rev() {
        let nibble = u8::try_from(value >> (shift * 4) & 0xf).unwrap_or(0);
        out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}

/// A payload whose checksum holds; nothing else is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'a> {
    body: &'a [u8],
    pub(super) crc: u32,
}

impl<'a> Sealed<'a> {
    /// None when the shape or the checksum does not hold.
    pub(super) fn check(payload: &'a [u8]) -> Option<Self> {
        let (body, tail) = payload.split_at_checked(payload.len().checked_sub(CRC_MEMBER)?)?;
        let crc = crc_member(tail)?;
        (body.starts_with(HEAD) && crc32c::crc32c(body) == crc).then_some(Self { body, crc })
    }

    /// None when a member is missing, out of order, unknown or not of its form.
    pub(super) fn parse(self) -> Option<Envelope<'a>> {
        let rest = self.body.strip_prefix(HEAD)?;
        let (seq, rest) = decimal_prefix(rest)?;
        let rest = rest.strip_prefix(b",\"ts\":\"")?;
        let (ts, rest) = rest.split_at_checked(30)?;
        let rest = rest.strip_prefix(b"\",\"kind\":\"")?;
        let (kind, rest) = text(rest)?;
        let rest = rest.strip_prefix(b",\"audit_id\":\"")?;
        let (audit_id, rest) = text(rest)?;
        let (node_id, rest) = match rest.strip_prefix(b",\"node_id\":null") {
            Some(rest) => (None, rest),
            None => {
                let (node_id, rest) = text(rest.strip_prefix(b",\"node_id\":\"")?)?;
                (Some(NodeId::parse(node_id).ok()?), rest)
            }
        };
        let rest = rest.strip_prefix(b",\"attrs\":")?;

        // From the end: everything after `attrs` has a fixed width or is a number.
        let rest = rest.strip_suffix(b"\"")?;
        let (rest, prev) = rest.split_last_chunk::<43>()?;
        let (rest, durable) = decimal_suffix(rest.strip_suffix(b",\"prev\":\"")?)?;
        let rest = rest.strip_suffix(b",\"durable\":")?;
        let (attrs, left) = match rest.ends_with(b"}") {
            true => (rest, 0),
            false => {
                let (rest, left) = decimal_suffix(rest)?;
                (rest.strip_suffix(b",\"left\":")?, u32::try_from(left).ok().filter(|left| *left > 0)?)
            }
        };
        let attrs = std::str::from_utf8(attrs).ok()?;
        check_attrs(attrs).ok()?;
        Some(Envelope {
            seq,
            ts: is_time(ts).then(|| std::str::from_utf8(ts).ok())??,
            kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            audit_id: AuditId::parse(audit_id).ok()?,
            node_id,
            attrs,
            left,
            durable,
            prev: *prev,
        })
    }
}

/// A whole payload, read.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) seq: u64,
    pub(super) ts: &'a str,
    pub(super) kind: Kind,
    pub(super) audit_id: AuditId,
    pub(super) node_id: Option<NodeId>,
    pub(super) attrs: &'a str,
    pub(super) left: u32,
    pub(super) durable: u64,
    pub(super) prev: Link,
}

/// A JSON object without white space around it.
pub(super) fn check_attrs(attrs: &str) -> Result<(), String> {
    if !(attrs.starts_with('{') && attrs.ends_with('}')) {
        return Err("it must start with `{` and end with `}`".to_owned());
    }
    serde_json::from_str::<serde::de::IgnoredAny>(attrs).map(drop).map_err(|e| e.to_string())
}

/// The checksum in `,"crc":"01234567"}`.
pub(super) fn crc_member(member: &[u8]) -> Option<u32> {
    let hex = member.strip_prefix(CRC)?.strip_suffix(b"\"}")?;
    if hex.len() != 8 {
        return None;
    }
    hex.iter().try_fold(0, |crc: u32, byte| {
        let nibble = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(crc << 4 | u32::from(nibble))
    })
}

fn text(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (text, rest) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
    Some((std::str::from_utf8(text).ok()?, rest.strip_prefix(b"\"")?))
}

fn decimal_prefix(rest: &[u8]) -> Option<(u64, &[u8])> {
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at_checked(digits)?;
    Some((decimal(digits)?, rest))
}

fn decimal_suffix(rest: &[u8]) -> Option<(&[u8], u64)> {
    let digits = rest.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(digits)?)?;
    Some((rest, decimal(digits)?))
}

/// A number as this log writes it: no sign, no leading zero.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.first() == Some(&b'0') && digits.len() > 1 {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `2026-01-02T03:04:05.123456789Z`, every field in its range.
fn is_time(ts: &[u8]) -> bool {
    let form = b"0000-00-00T00:00:00.000000000Z";
    let in_form = ts.len() == form.len()
        && ts.iter().zip(form).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form });
    let field = |at: usize, low: u64, high: u64| {
        ts.get(at..at + 2)
            .and_then(|f| std::str::from_utf8(f).ok()?.parse().ok())
            .is_some_and(|v| low <= v && v <= high)
    };
    in_form && field(5, 1, 12) && field(8, 1, 31) && field(11, 0, 23) && field(14, 0, 59) && field(17, 0, 59)
}
