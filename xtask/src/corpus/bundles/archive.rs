//! Tars that are not as a bundle is written.

use super::{HEAD, POLICY, POLICY_PATH, Table, listed, seal};
use crate::corpus::make::{Piece, body, digest, tar};

/// Faults of one header, put after the entries of a good bundle.
pub(super) fn headers(t: &mut Table) {
    let sound = sound(t);
    let at = size(&sound);
    let mut fault = |name: &str, piece: Piece, message: &str| {
        let path: String =
            piece.header.iter().take(100).take_while(|byte| **byte != 0).map(|b| char::from(*b)).collect();
        let tar = tar(&[sound.as_slice(), &[piece]].concat());
        t.refuse(name, &tar, &format!("tar entry `{path}` at byte {at}: {message}"));
    };
    let regular = || Piece::file("policies/z.rego", POLICY);
    fault(
        "hard link",
        Piece::typed("policies/z.rego", b'1', "").with(157, POLICY_PATH.as_bytes()),
        "a hard link: only regular files are read",
    );
    fault(
        "symbolic link",
        Piece::typed("policies/z.rego", b'2', "").with(157, b"/etc/passwd"),
        "a symbolic link: only regular files are read",
    );
    fault("character device", Piece::typed("policies/z", b'3', ""), "a device: only regular files are read");
    fault("block device", Piece::typed("policies/z", b'4', ""), "a device: only regular files are read");
    fault("directory", Piece::typed("policies/", b'5', ""), "a directory: only regular files are read");
    fault("FIFO", Piece::typed("policies/z", b'6', ""), "a FIFO: only regular files are read");
    fault(
        "contiguous file",
        Piece::typed("policies/z.rego", b'7', POLICY),
        "entry type `7`: only regular files are read",
    );
    fault(
        "regular file of the old type, NUL",
        Piece::typed("policies/z.rego", 0, POLICY),
        r"entry type `\x00`: only regular files are read",
    );
    fault(
        "type that a vendor invents",
        Piece::typed("policies/z.rego", b'Z', POLICY),
        "entry type `Z`: only regular files are read",
    );
    fault(
        "PAX header",
        Piece::typed("PaxHeaders/z", b'x', "15 path=z.rego\n"),
        "a PAX extended header: only plain USTAR is read",
    );
    fault(
        "PAX header that gives the path twice",
        Piece::typed("PaxHeaders/z", b'x', "15 path=a.rego\n15 path=b.rego\n"),
        "a PAX extended header: only plain USTAR is read",
    );
    fault(
        "PAX header that gives the size",
        Piece::typed("PaxHeaders/z", b'x', "10 size=0\n"),
        "a PAX extended header: only plain USTAR is read",
    );
    fault(
        "global PAX header",
        Piece::typed("pax_global_header", b'g', "15 path=z.rego\n"),
        "a PAX global header: only plain USTAR is read",
    );
    fault(
        "Solaris PAX header",
        Piece::typed("PaxHeaders/z", b'X', "15 path=z.rego\n"),
        "entry type `X`: only regular files are read",
    );
    fault(
        "GNU long name",
        Piece::typed("././@LongLink", b'L', "policies/z.rego\0"),
        "a GNU long name: only plain USTAR is read",
    );
    fault(
        "GNU long link",
        Piece::typed("././@LongLink", b'K', "policies/z.rego\0"),
        "a GNU long link: only plain USTAR is read",
    );
    fault(
        "GNU sparse file",
        Piece::typed("policies/z.rego", b'S', POLICY),
        "a sparse file: only regular files are read",
    );
    fault(
        "GNU multi-volume",
        Piece::typed("policies/z.rego", b'M', POLICY),
        "entry type `M`: only regular files are read",
    );
    fault("GNU format", regular().with(257, b"ustar  \0"), "GNU tar format: only USTAR is read");
    fault(
        "GNU format with a sparse file",
        Piece::typed("policies/z.rego", b'S', POLICY).with(257, b"ustar  \0"),
        "GNU tar format: only USTAR is read",
    );
    fault("v7 format, no magic", regular().with(257, &[0; 8]), "not a USTAR header");
    fault("USTAR of another version", regular().with(257, b"ustar\x0001"), "not a USTAR header");
    fault(
        "size in base 256",
        regular().with(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 41]),
        "a binary (base-256) size: sizes are octal",
    );
    fault("negative size in base 256", regular().with(124, &[0xff; 12]), "a binary (base-256) size: sizes are octal");
    fault("size that is not octal", regular().with(124, b"00000000089\0"), "the size is not eleven octal digits");
    fault("size with leading spaces", regular().with(124, b"         51\0"), "the size is not eleven octal digits");
    fault("size with a sign", regular().with(124, b"+0000000051\0"), "the size is not eleven octal digits");
    fault(
        "size that ends in a space",
        regular().with(124, b"00000000051 "),
        "the header's size is not what a bundle's header holds",
    );
    fault(
        "size of twelve digits",
        regular().with(124, b"000000000510"),
        "the header's size is not what a bundle's header holds",
    );
    fault("size larger than the tar", regular().with(124, b"77777777777\0"), "the file is cut short");
    fault(
        "checksum that does not hold",
        regular().with_unsummed(148, b"0000000\0"),
        "the header's checksum does not hold",
    );
    let sum = regular().sum();
    fault(
        "checksum as six digits, NUL, space",
        regular().with_unsummed(148, format!("{sum:06o}\0 ").as_bytes()),
        "the header's checksum does not hold",
    );
    fault(
        "checksum with leading spaces",
        regular().with_unsummed(148, format!("{sum:7o}\0").as_bytes()),
        "the header's checksum does not hold",
    );
    fault(
        "checksum that ends in a space",
        regular().with_unsummed(148, format!("{sum:07o} ").as_bytes()),
        "the header's checksum is not what a bundle's header holds",
    );
    // A sum of signed bytes is another number.
    let high = regular().with(345, &[0xff; 150]);
    let signed = i64::from(high.sum()) - 150 * 256;
    fault(
        "checksum of signed bytes",
        high.with_unsummed(148, format!("{signed:07o}\0").as_bytes()),
        "the header's checksum does not hold",
    );
    for (name, place, bytes) in [
        ("mode", 100, b"0000755\0".as_slice()),
        ("owner", 108, b"0001750\0"),
        ("group", 116, b"0001750\0"),
        ("modification time", 136, b"14371573400\0"),
        ("link name", 157, b"z"),
        ("owner name", 265, b"root"),
        ("group name", 297, b"root"),
        ("device major", 329, b"0000000\0"),
        ("device minor", 337, b"0000000\0"),
        ("path prefix", 345, b"prefix"),
        ("unused end", 500, b"tar\0"),
    ] {
        let message = format!("the header's {name} is not what a bundle's header holds");
        fault(&format!("{name} in a header"), regular().with(place, bytes), &message);
    }
}

/// Faults of a path.
pub(super) fn paths(t: &mut Table) {
    let sound = sound(t);
    let at = size(&sound);
    let path_fault = |t: &mut Table, name: &str, path: &[u8], shown: &str, message: &str| {
        let tar = tar(&[sound.as_slice(), &[Piece::file("", "").with(0, path)]].concat());
        t.refuse(name, &tar, &format!("tar entry `{shown}` at byte {at}: {message}"));
    };
    let character = "the path holds a character outside `A-Z a-z 0-9 . _ - /`";
    for (name, path, message) in [
        ("empty path", "", "the path is empty"),
        ("absolute path", "/etc/passwd", "the path is absolute"),
        ("path with `..`", "policies/../../etc/passwd", "the path holds `..`"),
        ("path that is `..`", "..", "the path holds `..`"),
        ("path with a `.` segment", "policies/./z.rego", "the path holds a `.` segment"),
        ("path that begins with `./`", "./policies/z.rego", "the path holds a `.` segment"),
        ("path with an empty segment", "policies//z.rego", "the path holds an empty segment"),
        ("path that ends in a slash", "policies/z.rego/", "the path holds an empty segment"),
        ("path with a space", "policies/z z.rego", character),
        ("path with a colon", "c:z.rego", character),
        ("path with a tilde", "~z", character),
    ] {
        path_fault(t, name, path.as_bytes(), path, message);
    }
    path_fault(t, "path with a backslash", br"policies\z.rego", r"policies\\z.rego", character);
    path_fault(t, "path with a line break", b"policies/z\n.rego", r"policies/z\n.rego", character);
    path_fault(
        t,
        "path that is not ASCII",
        "policies/\u{ff0e}rego".as_bytes(),
        r"policies/\xef\xbc\x8erego",
        character,
    );
    path_fault(t, "path that is not UTF-8", b"policies/\xff.rego", r"policies/\xff.rego", character);
    path_fault(
        t,
        "path with bytes behind its NUL",
        b"z\0/../etc",
        "z",
        "the header's path is not what a bundle's header holds",
    );
    let twin = |path: &str| tar(&[sound.as_slice(), &[Piece::file(path, POLICY)]].concat());
    t.refuse(
        "path twice",
        &twin(POLICY_PATH),
        &format!("tar entry `{POLICY_PATH}` at byte {at}: the path stands twice"),
    );
    t.refuse(
        "path that differs in case",
        &twin("policies/Allow.rego"),
        &format!("tar entry `policies/Allow.rego` at byte {at}: the path differs from `{POLICY_PATH}` only in upper and lower case"),
    );
    t.refuse(
        "manifest twice",
        &twin("manifest.json"),
        &format!("tar entry `manifest.json` at byte {at}: the path stands twice"),
    );
    for (name, path) in [
        ("file below a file", "policies/allow.rego/z"),
        ("file below a file, in another case", "Policies/ALLOW.rego/y/z"),
        ("file that is a directory", "policies"),
        ("file that is a directory, in another case", "Policies"),
    ] {
        let message =
            format!("tar entry `{path}` at byte {at}: with `{POLICY_PATH}`, one name is both a file and a directory");
        t.refuse(name, &twin(path), &message);
    }
    t.refuse(
        "manifest that differs in case",
        &twin("MANIFEST.json"),
        &format!(
            "tar entry `MANIFEST.json` at byte {at}: the path differs from `manifest.json` only in upper and lower case"
        ),
    );
}

/// Entries that are not where they must be, or not what the manifest says.
pub(super) fn layout(t: &mut Table) {
    let sound = sound(t);
    let [manifest, envelope, policy] = sound.as_slice() else { return };
    let pieces = |pieces: &[&Piece]| tar(&pieces.iter().map(|piece| (*piece).clone()).collect::<Vec<_>>());
    t.refuse("no entries", &tar(&[]), "tar ends where `manifest.json` must stand");
    t.refuse("manifest alone", &pieces(&[manifest]), "tar ends where `manifest.dsse.json` must stand");
    t.refuse(
        "manifest not first",
        &pieces(&[policy, manifest, envelope]),
        "tar entry `policies/allow.rego` stands where `manifest.json` must",
    );
    t.refuse(
        "envelope first",
        &pieces(&[envelope, manifest, policy]),
        "tar entry `manifest.dsse.json` stands where `manifest.json` must",
    );
    t.refuse(
        "envelope not second",
        &pieces(&[manifest, policy, envelope]),
        "tar entry `policies/allow.rego` stands where `manifest.dsse.json` must",
    );
    let dotted = manifest.clone().with(0, b"./manifest.json");
    t.refuse(
        "manifest as ./manifest.json",
        &pieces(&[&dotted, envelope, policy]),
        "tar entry `./manifest.json` at byte 0: the path holds a `.` segment",
    );
    t.refuse(
        "file missing",
        &pieces(&[manifest, envelope]),
        "file `policies/allow.rego` is listed in the manifest and missing in the tar",
    );
    let other = |path: &str| Piece::file(path, POLICY);
    t.refuse(
        "file extra, last",
        &pieces(&[manifest, envelope, policy, &other("z")]),
        "file `z` is not listed in the manifest",
    );
    t.refuse(
        "file extra, first",
        &pieces(&[manifest, envelope, &other("a"), policy]),
        "file `a` is not listed in the manifest",
    );
    t.refuse(
        "file renamed",
        &pieces(&[manifest, envelope, &other("policies/b.rego")]),
        "file `policies/allow.rego` is listed in the manifest and missing in the tar",
    );
    t.refuse(
        "files out of order",
        &pieces(&[manifest, envelope, policy, &other("a")]),
        "tar entry `a` stands where a path after `policies/allow.rego` must",
    );
    t.refuse(
        "file changed",
        &pieces(&[manifest, envelope, &Piece::file(POLICY_PATH, "package autonomy\nallow := true\n")]),
        &format!(
            "file `{POLICY_PATH}` has digest `{}`, the manifest says `{}`",
            digest("package autonomy\nallow := true\n"),
            digest(POLICY)
        ),
    );
    let large = Piece::file("manifest.json", vec![0; (1 << 20) + 1]);
    t.refuse(
        "manifest too large",
        &pieces(&[&large, envelope]),
        "`manifest.json` has 1048577 bytes: at most 1048576 are read",
    );
    let large = Piece::file("manifest.dsse.json", vec![0; (2 << 20) + 1]);
    t.refuse(
        "envelope too large",
        &pieces(&[manifest, &large]),
        "`manifest.dsse.json` has 2097153 bytes: at most 2097152 are read",
    );
}

/// Faults behind the last entry, and tars that are cut.
pub(super) fn ends(t: &mut Table) {
    let sound = sound(t);
    let at = size(&sound);
    let body = body(&sound);
    let followed_by = |zeros: usize, more: &[u8]| [body.as_slice(), &vec![0; zeros], more].concat();
    t.refuse("no bytes", &[], "tar at byte 0: the file ends without the two zero blocks of a complete tar");
    t.refuse(
        "no end",
        &body,
        &format!("tar at byte {at}: the file ends without the two zero blocks of a complete tar"),
    );
    t.refuse(
        "one zero block",
        &followed_by(512, &[]),
        &format!("tar at byte {at}: a zero block stands alone where two must end the tar"),
    );
    t.refuse("one zero block and a half", &followed_by(768, &[]), &format!("tar at byte {at}: the file is cut short"));
    t.refuse("half a zero block", &followed_by(256, &[]), &format!("tar at byte {at}: the file is cut short"));
    t.refuse(
        "three zero blocks",
        &followed_by(1536, &[]),
        &format!("tar at byte {at}: 512 bytes follow the end of the tar"),
    );
    t.refuse(
        "zeros to a record of 10240 bytes",
        &followed_by(10240 - at, &[]),
        &format!("tar at byte {at}: {} bytes follow the end of the tar", 10240 - at - 1024),
    );
    t.refuse(
        "one byte behind the end",
        &followed_by(1024, b"!"),
        &format!("tar at byte {at}: 1 bytes follow the end of the tar"),
    );
    let hidden = tar(&[Piece::file("policies/z.rego", POLICY)]);
    t.refuse(
        "entries behind the end",
        &followed_by(1024, &hidden),
        &format!("tar at byte {at}: {} bytes follow the end of the tar", hidden.len()),
    );
    t.refuse(
        "entries behind one zero block",
        &followed_by(512, &hidden),
        &format!("tar at byte {at}: a zero block stands alone where two must end the tar"),
    );
    let last = at - 1024;
    let cut = |bytes: usize| body.iter().copied().take(bytes).collect::<Vec<_>>();
    t.refuse("cut in a header", &cut(last + 100), &format!("tar at byte {last}: the file is cut short"));
    t.refuse(
        "cut in a file",
        &cut(last + 512 + 10),
        &format!("tar entry `{POLICY_PATH}` at byte {last}: the file is cut short"),
    );
    t.refuse(
        "cut in the padding",
        &cut(at - 1),
        &format!("tar entry `{POLICY_PATH}` at byte {last}: the file is cut short"),
    );
    let mut padded = tar(&sound);
    if let Some(byte) = padded.get_mut(at - 1) {
        *byte = 1;
    }
    t.refuse(
        "padding that is not zero",
        &padded,
        &format!("tar entry `{POLICY_PATH}` at byte {last}: the padding after the file is not zero"),
    );
    t.refuse("gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], "tar at byte 0: the file is cut short");
    t.refuse(
        "too large",
        &vec![0; (64 << 20) + 1],
        "tar at byte 0: 67108865 bytes are more than a bundle may have (67108864)",
    );
}

/// A good bundle's pieces, for one fault to be put into them.
fn sound(t: &Table) -> Vec<Piece> {
    let policy: &[(&str, &[u8])] = &[(POLICY_PATH, POLICY.as_bytes())];
    seal(&format!("{HEAD}{}}}", listed(policy)), policy, &[&t.a])
}

fn size(pieces: &[Piece]) -> usize {
    pieces.iter().map(Piece::len).sum()
}
