//! The strict tar reader: a subset of POSIX USTAR (IEEE Std 1003.1, pax, "ustar Interchange Format") in which
//! each list of files has exactly one encoding. What this reader accepts, every reader reads the same.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::str;

use crate::{
    limits,
    text::{decimal, display_text, fill},
};

const BLOCK: usize = 512;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A regular file in a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path: segments of `[A-Za-z0-9._-]` joined by `/`.
    pub path: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
}

/// Why a tar is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarError {
    /// Where the entry's header starts, in bytes.
    pub offset: usize,
    /// The entry's path as far as it could be read, what is not printable ASCII escaped.
    pub path: Option<String>,
    /// What is wrong.
    pub fault: TarFault,
}

/// What is wrong with a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant's message, below, is its meaning")]
pub enum TarFault {
    TooLarge { bytes: usize },
    TooManyEntries,
    Truncated,
    NoEnd,
    OneZeroBlock,
    TrailingBytes { bytes: usize },
    GnuFormat,
    NotUstar,
    Checksum,
    HardLink,
    SymbolicLink,
    Device,
    Directory,
    Fifo,
    PaxHeader,
    GlobalPaxHeader,
    GnuLongName,
    GnuLongLink,
    Sparse,
    EntryType(u8),
    BinarySize,
    Size,
    Field(&'static str),
    Padding,
    EmptyPath,
    PathLength,
    AbsolutePath,
    ParentPath,
    DotPath,
    EmptySegment,
    PathCharacter,
    Duplicate,
    CaseTwin { of: String },
    FileAndDirectory { other: String },
}

display_text!(TarError, TarFault);

impl TarError {
    /// What is wrong, and where.
    pub fn text(&self) -> String {
        let entry = self.path.as_ref().map_or_else(String::new, |path| fill("entry `{}` ", &[path]));
        fill("tar {}at byte {}: {}", &[&entry, &decimal(self.offset as u64), &self.fault.text()])
    }
}

impl TarFault {
    /// What is wrong.
    pub fn text(&self) -> String {
        // A table of texts, and what is in none.
        String::from(match self {
            Self::TooLarge { bytes } => {
                let (bytes, most) = (decimal(*bytes as u64), decimal(limits::BUNDLE_BYTES as u64));
                return fill("{} bytes are more than a bundle may have ({})", &[&bytes, &most]);
            }
            Self::TooManyEntries => return fill("more than {} entries", &[&decimal(limits::BUNDLE_ENTRIES as u64)]),
            Self::TrailingBytes { bytes } => {
                return fill("{} bytes follow the end of the tar", &[&decimal(*bytes as u64)]);
            }
            Self::EntryType(flag) => {
                return fill("entry type `{}`: only regular files are read", &[&escaped(&[*flag])]);
            }
            Self::Field(name) => return fill("the header's {} is not what a bundle's header holds", &[name]),
            Self::PathLength => {
                return fill("the path is longer than {} bytes", &[&decimal(limits::BUNDLE_PATH_BYTES as u64)]);
            }
            Self::FileAndDirectory { other } => {
                return fill("with `{}`, one name is both a file and a directory", &[other]);
            }
            Self::CaseTwin { of } => {
                return fill("the path differs from `{}` only in upper and lower case", &[of]);
            }
            Self::Truncated => "the file is cut short",
            Self::NoEnd => "the file ends without the two zero blocks of a complete tar",
            Self::OneZeroBlock => "a zero block stands alone where two must end the tar",
            Self::GnuFormat => "GNU tar format: only USTAR is read",
            Self::NotUstar => "not a USTAR header",
            Self::Checksum => "the header's checksum does not hold",
            Self::HardLink => "a hard link: only regular files are read",
            Self::SymbolicLink => "a symbolic link: only regular files are read",
            Self::Device => "a device: only regular files are read",
            Self::Directory => "a directory: only regular files are read",
            Self::Fifo => "a FIFO: only regular files are read",
            Self::PaxHeader => "a PAX extended header: only plain USTAR is read",
            Self::GlobalPaxHeader => "a PAX global header: only plain USTAR is read",
            Self::GnuLongName => "a GNU long name: only plain USTAR is read",
            Self::GnuLongLink => "a GNU long link: only plain USTAR is read",
            Self::Sparse => "a sparse file: only regular files are read",
            Self::BinarySize => "a binary (base-256) size: sizes are octal",
            Self::Size => "the size is not eleven octal digits",
            Self::Padding => "the padding after the file is not zero",
            Self::EmptyPath => "the path is empty",
            Self::AbsolutePath => "the path is absolute",
            Self::ParentPath => "the path holds `..`",
            Self::DotPath => "the path holds a `.` segment",
            Self::EmptySegment => "the path holds an empty segment",
            Self::PathCharacter => "the path holds a character outside `A-Z a-z 0-9 . _ - /`",
            Self::Duplicate => "the path stands twice",
        })
    }
}

impl core::error::Error for TarError {}

/// Whether `path` may stand in a bundle.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_path(path: &str) -> Result<(), TarFault> {
    if path.is_empty() {
        return Err(TarFault::EmptyPath);
    }
    if path.len() > limits::BUNDLE_PATH_BYTES {
        return Err(TarFault::PathLength);
    }
    if path.starts_with('/') {
        return Err(TarFault::AbsolutePath);
    }
    for segment in path.as_bytes().split(|byte| *byte == b'/') {
        match segment {
            b"" => return Err(TarFault::EmptySegment),
            b"." => return Err(TarFault::DotPath),
            b".." => return Err(TarFault::ParentPath),
            _ => {}
        }
        if !segment.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return Err(TarFault::PathCharacter);
        }
    }
    Ok(())
}

/// The one header for a regular file of this path and size.
///
/// `path` must have passed [`check_path`]; a longer one is cut, and then reads back as another.
pub fn header(path: &str, size: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for (to, from) in block[..limits::BUNDLE_PATH_BYTES].iter_mut().zip(path.bytes()) {
        *to = from;
    }
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    write_octal(&mut block[124..135], size as u64);
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum = checksum(&block);
    write_octal(&mut block[148..155], u64::from(sum));
    block
}

/// The header's fields with their places. The checksum is last: it differs whenever another field does.
const FIELDS: [(&str, usize, usize); 14] = [
    ("path", 0, 100),
    ("mode", 100, 108),
    ("owner", 108, 116),
    ("group", 116, 124),
    ("size", 124, 136),
    ("modification time", 136, 148),
    ("link name", 157, 257),
    ("owner name", 265, 297),
    ("group name", 297, 329),
    ("device major", 329, 337),
    ("device minor", 337, 345),
    ("path prefix", 345, 500),
    ("unused end", 500, BLOCK),
    ("checksum", 148, 156),
];

fn write_octal(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' | value.to_le_bytes()[0] & 7;
        value >>= 3;
    }
}

/// A number that no machine's word size changes.
fn read_octal(field: &[u8]) -> Option<u64> {
    field.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The sum of the header's bytes, its checksum field counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    // 32 bits are enough, and add faster than 64.
    let sum = |bytes: &[u8]| bytes.iter().copied().map(u32::from).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

/// Reads a whole tar.
///
/// # Errors
/// The first fault, with its place. A tar that is accepted is, byte for byte, the one encoding of its entries.
pub fn read(tar: &[u8]) -> Result<Vec<Entry<'_>>, TarError> {
    let fail = |offset, fault| Err(TarError { offset, path: None, fault });
    if tar.len() > limits::BUNDLE_BYTES {
        return fail(0, TarFault::TooLarge { bytes: tar.len() });
    }
    let mut entries: Vec<Entry<'_>> = Vec::new();
    // The paths in lower case, in order.
    let mut folded: Vec<String> = Vec::new();
    let mut rest = tar;
    loop {
        let offset = tar.len() - rest.len();
        if rest.is_empty() {
            return fail(offset, TarFault::NoEnd);
        }
        let Some((block, after)) = rest.split_first_chunk::<BLOCK>() else {
            return fail(offset, TarFault::Truncated);
        };
        if *block == ZEROS {
            return match check_end(after) {
                Ok(()) => Ok(entries),
                Err(fault) => fail(offset, fault),
            };
        }
        let located = |fault| TarError { offset, path: Some(escaped(name(block))), fault };
        if entries.len() == limits::BUNDLE_ENTRIES {
            return Err(located(TarFault::TooManyEntries));
        }
        let (path, size) = read_header(block).map_err(located)?;
        let (data, after) = after.split_at_checked(size).ok_or_else(|| located(TarFault::Truncated))?;
        let padding = size.next_multiple_of(BLOCK) - size;
        let (padding, after) = after.split_at_checked(padding).ok_or_else(|| located(TarFault::Truncated))?;
        if !ZEROS.starts_with(padding) {
            return Err(located(TarFault::Padding));
        }
        let name = path.to_ascii_lowercase();
        if let Some(other) = nested(&folded, &name) {
            return Err(located(TarFault::FileAndDirectory { other: original(&entries, other) }));
        }
        match folded.binary_search(&name) {
            Ok(_) => return Err(located(twin(&entries, path))),
            Err(at) => folded.insert(at, name),
        }
        entries.push(Entry { path, data });
        rest = after;
    }
}

/// What must follow the first zero block: a second one, then nothing.
fn check_end(after: &[u8]) -> Result<(), TarFault> {
    match after.split_first_chunk::<BLOCK>() {
        None if after.is_empty() => Err(TarFault::OneZeroBlock),
        None => Err(TarFault::Truncated),
        Some((second, _)) if *second != ZEROS => Err(TarFault::OneZeroBlock),
        Some((_, [])) => Ok(()),
        Some((_, trailing)) => Err(TarFault::TrailingBytes { bytes: trailing.len() }),
    }
}

fn read_header(block: &[u8; BLOCK]) -> Result<(&str, usize), TarFault> {
    match &block[257..265] {
        b"ustar\x0000" => {}
        b"ustar  \0" => return Err(TarFault::GnuFormat),
        _ => return Err(TarFault::NotUstar),
    }
    if read_octal(&block[148..155]) != Some(u64::from(checksum(block))) {
        return Err(TarFault::Checksum);
    }
    match block[156] {
        b'0' => {}
        b'1' => return Err(TarFault::HardLink),
        b'2' => return Err(TarFault::SymbolicLink),
        b'3' | b'4' => return Err(TarFault::Device),
        b'5' => return Err(TarFault::Directory),
        b'6' => return Err(TarFault::Fifo),
        b'x' => return Err(TarFault::PaxHeader),
        b'g' => return Err(TarFault::GlobalPaxHeader),
        b'L' => return Err(TarFault::GnuLongName),
        b'K' => return Err(TarFault::GnuLongLink),
        b'S' => return Err(TarFault::Sparse),
        other => return Err(TarFault::EntryType(other)),
    }
    if block[124] & 0x80 != 0 {
        return Err(TarFault::BinarySize);
    }
    let size = read_octal(&block[124..135]).ok_or(TarFault::Size)?;
    // What does not fit the address space does not fit the tar either.
    let size = usize::try_from(size).map_err(|_| TarFault::Truncated)?;
    let path = str::from_utf8(name(block)).map_err(|_| TarFault::PathCharacter)?;
    check_path(path)?;
    // What is left is compared whole: one encoding for a path and a size, so nothing can hide in a header.
    let expected = header(path, size);
    if *block == expected {
        return Ok((path, size));
    }
    let differs = |(_, from, to): &&(&str, usize, usize)| block.get(*from..*to) != expected.get(*from..*to);
    Err(TarFault::Field(FIELDS.iter().find(differs).map_or("bytes", |field| field.0)))
}

/// The name field up to its first NUL.
fn name(block: &[u8; BLOCK]) -> &[u8] {
    let field = &block[..limits::BUNDLE_PATH_BYTES];
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// What is not printable ASCII, escaped as [`u8::escape_ascii`] does, whose table would be a part of gate.wasm.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' | b'\'' | b'"' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                text.push_str("\\x");
                // Not by `extend`: the module would be larger.
                for digit in crate::digest::hex(*byte) {
                    text.push(char::from(digit));
                }
            }
        }
    }
    text
}

/// The name among these that lies above or below this one: unpacked to a disk, one of the two is lost.
fn nested<'a>(names: &'a [String], name: &str) -> Option<&'a str> {
    let place = |path: &str| names.binary_search_by(|other| other.as_str().cmp(path));
    let slashes = name.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    let above = slashes.filter_map(|(at, _)| names.get(place(name.get(..at)?).ok()?)).next();
    let below = || {
        let directory = fill("{}/", &[name]);
        let (Ok(at) | Err(at)) = place(&directory);
        names.get(at).filter(|other| other.starts_with(&directory))
    };
    above.or_else(below).map(String::as_str)
}

fn original(entries: &[Entry<'_>], name: &str) -> String {
    entries.iter().find(|entry| entry.path.eq_ignore_ascii_case(name)).map_or(name, |entry| entry.path).to_owned()
}

fn twin(entries: &[Entry<'_>], path: &str) -> TarFault {
    match entries.iter().find(|entry| entry.path.eq_ignore_ascii_case(path)) {
        Some(entry) if entry.path != path => TarFault::CaseTwin { of: entry.path.to_owned() },
        _ => TarFault::Duplicate,
    }
}
