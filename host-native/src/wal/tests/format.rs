//! The bytes of `docs/src/spec/wal.md`.

use gate_core::{
    frame::{Frame, Kind},
    identity::{AuditId, NodeId},
    limits::FRAME_BYTES,
};

use super::{batch, dir, frame, killed_log, memfs::MemFs, open, path};
use crate::wal::{
    Tail,
    codec::{AROUND_ATTRS, ATTRS_BYTES, Encoder, FIRST_LINK, Sealed, link_to},
    recovery::Survey,
};

const TIME: u64 = 1_767_323_045_123_456_789;

fn encode(frame: &Frame, left: u32) -> Vec<u8> {
    let (mut out, mut members) = (Vec::new(), Vec::new());
    frame.write_members(&mut members);
    Encoder::new(0, FIRST_LINK, String::new()).push(&mut out, TIME, |out| out.extend_from_slice(&members), left, 0);
    out
}

#[test]
fn a_frame_is_these_bytes() {
    let bytes = encode(&frame("ok"), 2);
    let payload = concat!(
        r#"{"seq":1,"ts":"2026-01-02T03:04:05.123456789Z","kind":"autonomy.decision","audit_id":"018f-test","#,
        r#""node_id":"robot-7","attrs":{"layer":"policy","reason":"ok"},"left":2,"durable":0,"#,
        r#""prev":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","crc":"#,
    );
    let crc = crc32c::crc32c(payload.strip_suffix(",\"crc\":").unwrap().as_bytes());
    let payload = format!("{payload}\"{crc:08x}\"}}");
    assert_eq!(std::str::from_utf8(&bytes[4..]).unwrap(), payload);
    assert_eq!(bytes[..4], u32::try_from(payload.len()).unwrap().to_be_bytes());
}

#[test]
fn crc_and_hash_are_the_published_ones() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(&link_to(b"abc"), b"ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
}

#[test]
fn times_are_written_as_the_calendar_has_them() {
    let times = [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (951_782_399_999_999_999, "2000-02-28T23:59:59.999999999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
        (1_709_251_199_000_000_001, "2024-02-29T23:59:59.000000001Z"),
        (1_735_689_600_000_000_000, "2025-01-01T00:00:00.000000000Z"),
        (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
    ];
    let mut encoder = Encoder::new(0, FIRST_LINK, String::new());
    for (unix_ns, text) in times {
        let mut out = Vec::new();
        encoder.push(&mut out, unix_ns, |_| {}, 0, 0);
        let frame = String::from_utf8_lossy(&out);
        assert!(frame.contains(&format!("\"ts\":\"{text}\"")), "{frame}");
    }
}

#[test]
fn everything_around_attrs_fits_its_allowance() {
    let longest = Frame {
        kind: Kind::Lifecycle,
        audit_id: AuditId::parse(&"a".repeat(64)).unwrap(),
        node_id: Some(NodeId::parse(&"n".repeat(128)).unwrap()),
        attrs: String::new(),
    };
    let (mut out, mut members) = (Vec::new(), Vec::new());
    longest.write_members(&mut members);
    Encoder::new(u64::MAX - 2, FIRST_LINK, String::new()).push(
        &mut out,
        u64::MAX,
        |out| out.extend_from_slice(&members),
        u32::MAX,
        u64::MAX,
    );
    assert!(out.len() <= AROUND_ATTRS, "{}", out.len());
    const { assert!(ATTRS_BYTES + AROUND_ATTRS <= FRAME_BYTES) };
    assert!(Kind::ALL.iter().all(|kind| kind.as_str().len() <= Kind::Lifecycle.as_str().len()));
}

/// A payload whose checksum was made to hold again.
fn resealed(body: &str) -> Vec<u8> {
    format!("{body},\"crc\":\"{:08x}\"}}", crc32c::crc32c(body.as_bytes())).into_bytes()
}

#[test]
fn only_the_one_form_is_read() {
    let bytes = encode(&frame("ok"), 2);
    let payload = std::str::from_utf8(&bytes[4..]).unwrap();
    let body = payload.split_once(",\"crc\"").unwrap().0;
    let read = |body: &str| Sealed::check(&resealed(body)).unwrap().parse().is_some();
    assert!(read(body));
    assert!(read(&body.replace("\"left\":2,", "")));
    assert!(read(&body.replace("\"robot-7\"", "null")));
    let changes = [
        ("\"seq\":1", "\"seq\":01"),
        ("\"seq\":1", "\"seq\":-1"),
        ("\"seq\":1,", "\"seq\": 1,"),
        ("\"seq\":1", "\"seq\":18446744073709551616"),
        ("2026-01-02T", "2026-13-02T"),
        ("03:04:05", "24:04:05"),
        (".123456789Z", ".1234567890"),
        ("autonomy.decision", "autonomy.other"),
        ("018f-test", "018f test"),
        ("\"robot-7\"", "\"\""),
        ("\"robot-7\"", "7"),
        ("{\"layer\"", "[\"layer\""),
        ("\"ok\"}", "\"ok\""),
        ("\"left\":2", "\"left\":0"),
        ("\"left\":2", "\"left\":4294967296"),
        ("\"left\":2,\"durable\":0", "\"durable\":0,\"left\":2"),
        ("\"durable\":0", "\"durable\":00"),
        ("\"durable\":0", "\"durable\":0,\"more\":1"),
        ("\"attrs\"", "\"more\":1,\"attrs\""),
        ("\"prev\":\"A", "\"prev\":\""),
    ];
    for (from, to) in changes {
        assert!(body.contains(from), "{from}");
        assert!(!read(&body.replacen(from, to, 1)), "{from} -> {to}");
    }
    assert!(Sealed::check(payload.to_uppercase().as_bytes()).is_none());
    assert!(Sealed::check(b"").is_none());
}

#[test]
fn a_whole_frame_in_the_wrong_place_is_misplaced() {
    let (fs, _) = killed_log(6);
    let log = fs.bytes(&path("telemetry.wal")).unwrap();
    let first = 4 + u32::from_be_bytes(log[..4].try_into().unwrap()) as usize;
    let repeated = [&log[..first], &log[..first]].concat();
    let skipped = log[first..].to_vec();
    let other_history = {
        let other = MemFs::default();
        drop(open(&other).unwrap().0.append(batch("other", 1)));
        let other = other.bytes(&path("telemetry.wal")).unwrap();
        [&other[..], &log[first..]].concat()
    };
    for (log, what) in [
        (repeated, "its `seq` is not the next one"),
        (skipped, "its `seq` is not the next one"),
        (other_history, "its `prev` is not the hash of the frame before it"),
    ] {
        fs.put(&path("telemetry.wal"), Some(log));
        let survey = Survey::of(&dir(&fs)).unwrap();
        let fault = survey.fault.unwrap();
        assert_eq!((fault.tail, fault.what, survey.row.name), (Tail::Misplaced, what, "misplaced"));
        assert!(open(&fs).is_err());
    }
}

#[test]
fn a_batch_must_count_down_to_its_last_frame() {
    for (lefts, holds) in [
        (&[0][..], true),
        (&[1, 0], true),
        (&[2, 1, 0, 0, 1, 0], true),
        (&[2, 0], false),
        (&[1, 1], false),
        (&[0, 1, 2], false),
        (&[2, 1, 3], false),
    ] {
        let (mut log, mut encoder) = (Vec::new(), Encoder::new(0, FIRST_LINK, String::new()));
        for left in lefts {
            encoder.push(&mut log, TIME, |out| frame("x").write_members(out), *left, 0);
        }
        let fs = MemFs::default();
        fs.put(&path("telemetry.wal"), Some(log));
        fs.put(&path("telemetry.safe_seq"), Some(vec![0; 8]));
        assert_eq!(open(&fs).is_ok(), holds, "{lefts:?}");
    }
}

#[test]
fn the_logs_own_frames_are_frames_like_any_other() {
    let (fs, _) = killed_log(3);
    let mut log = fs.bytes(&path("telemetry.wal")).unwrap();
    log.push(1);
    fs.put(&path("telemetry.wal"), Some(log));
    drop(open(&fs).unwrap());
    let own = super::records(&fs).pop().unwrap();
    let frame = Frame { kind: own.kind, audit_id: own.audit_id, node_id: own.node_id, attrs: own.attrs };
    assert_eq!((frame.kind, frame.audit_id.as_str(), &frame.node_id), (Kind::Lifecycle, "wal-4", &None));
    let mut members = Vec::new();
    frame.write_members(&mut members);
    assert!(own.payload.as_bytes().windows(members.len()).any(|window| window == members));
    assert!(serde_json::from_str::<serde_json::Value>(&frame.attrs).unwrap()["tail_files"].is_array());
}
