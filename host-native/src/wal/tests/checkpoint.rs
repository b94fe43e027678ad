//! A checkpoint shows what it says, and nothing else passes for one.

use gate_core::TrustedKeys;

use super::{frame, timeless};
use crate::{
    ErrorClass,
    key::PrivateKey,
    wal::{Checkpoint, CheckpointError, Wal, WalError},
};

fn append(dir: &std::path::Path, frames: &[&str]) {
    let (wal, _) = Wal::open(dir, timeless()).unwrap();
    for text in frames {
        wal.append(vec![frame(text)]).wait().unwrap();
    }
    wal.close().unwrap();
}

#[test]
fn a_log_that_only_grew_holds_every_checkpoint_and_any_other_holds_none() {
    let home = tempfile::tempdir().unwrap();
    let (log, other) = (home.path().join("log"), home.path().join("other"));
    append(&log, &["a", "b"]);
    let mut checkpoints = vec![Checkpoint::of(&log).unwrap()];
    let copy = home.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in ["telemetry.wal", "telemetry.safe_seq"] {
        std::fs::copy(log.join(file), copy.join(file)).unwrap();
    }
    append(&log, &["c", "d"]);
    checkpoints.insert(0, Checkpoint::of(&log).unwrap());
    append(&log, &["e"]);
    assert_eq!(checkpoints.iter().map(|checkpoint| checkpoint.seq).collect::<Vec<_>>(), [4, 2]);
    Checkpoint::check(&checkpoints, &log).unwrap();
    Checkpoint::check(&[], &log).unwrap();

    let not_held = |dir: &std::path::Path, seq: u64| {
        let error = Checkpoint::check(&checkpoints, dir).unwrap_err();
        assert!(matches!(&error, CheckpointError::NotHeld { seq: found, .. } if *found == seq), "{error}");
        assert_eq!(error.class(), ErrorClass::Damaged);
    };
    // Written anew, as somebody can who may write all files.
    append(&other, &["a", "x", "c", "d"]);
    not_held(&other, 2);
    // Cut, with its marks.
    not_held(&copy, 4);
    append(&copy, &["y", "z"]);
    not_held(&copy, 4);
    for change in [
        |checkpoint: &mut Checkpoint| checkpoint.seq = 3,
        |checkpoint: &mut Checkpoint| checkpoint.wal_id.replace_range(..1, "="),
        |checkpoint: &mut Checkpoint| checkpoint.hash.replace_range(..1, "="),
        |checkpoint: &mut Checkpoint| checkpoint.seq = 0,
        |checkpoint: &mut Checkpoint| checkpoint.seq = u64::MAX,
    ] {
        let mut changed = checkpoints.clone();
        change(&mut changed[0]);
        assert!(matches!(Checkpoint::check(&changed, &log), Err(CheckpointError::NotHeld { .. })), "{:?}", changed[0]);
    }
}

#[test]
fn only_what_a_trusted_key_signed_as_a_checkpoint_counts() {
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::of(home.path()), Err(CheckpointError::Wal(WalError::NoLog { .. }))));
    append(home.path(), &[]);
    assert!(matches!(Checkpoint::of(home.path()), Err(CheckpointError::Empty)));
    append(home.path(), &["a"]);
    let checkpoint = Checkpoint::of(home.path()).unwrap();
    assert_eq!(checkpoint.hash[..22], checkpoint.wal_id);

    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let trusted = |key: &PrivateKey| TrustedKeys::new([key.public().clone()], 1).unwrap();
    let envelope = checkpoint.sign(&key);
    assert_eq!(Checkpoint::verify(&envelope, &trusted(&key)).unwrap(), checkpoint);
    assert!(matches!(Checkpoint::verify(&envelope, &trusted(&other)), Err(CheckpointError::Envelope(_))));
    for at in 0..envelope.len() {
        let mut changed = envelope.clone();
        changed[at] ^= 1;
        assert!(Checkpoint::verify(&changed, &trusted(&key)).is_err(), "byte {at}");
    }
    // A signature of something else by the same key.
    for (payload_type, payload) in [
        ("application/vnd.autonomy.enrollment.lease.v1+json", gate_core::json::write(&checkpoint)),
        ("application/vnd.autonomy.wal.checkpoint.v1+json", "{\"seq\":1}".to_owned()),
    ] {
        let payload = payload.into_bytes();
        let signature = key.sign(&gate_core::dsse::pre_authentication_encoding(payload_type, &payload));
        let envelope = gate_core::dsse::Envelope {
            payload_type: payload_type.to_owned(),
            payload,
            signatures: vec![(key.id(), signature)],
        };
        assert!(Checkpoint::verify(&envelope.to_bytes(), &trusted(&key)).is_err());
    }

    let file = home.path().join("checkpoints");
    std::fs::write(&file, [&envelope[..], b"\n", &checkpoint.sign(&key), b"\n"].concat()).unwrap();
    assert_eq!(Checkpoint::read_all(&file, &trusted(&key)).unwrap(), [checkpoint.clone(), checkpoint]);
    let refused = |bytes: &[u8], key: &PrivateKey| {
        std::fs::write(&file, bytes).unwrap();
        let error = Checkpoint::read_all(&file, &trusted(key)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Usage);
        error.to_string()
    };
    let (path, end) = (
        file.display(),
        "; give the key that signed it or another copy of the file, or take out a line that a crash cut short",
    );
    assert_eq!(
        refused(&[&envelope[..], b"\njunk\n"].concat(), &key),
        format!("line 2 of `{path}`: checkpoint does not count: envelope is not DSSE JSON: no value at byte 0{end}")
    );
    let other = refused(&envelope, &other);
    assert!(other.starts_with(&format!("line 1 of `{path}`: ")) && other.ends_with(end), "{other}");
    assert_eq!(
        refused(b"", &key),
        format!(
            "`{path}` holds no checkpoint: name a file of them, as `autonomy wal checkpoint` and `wal.signing_key` write it"
        )
    );
    assert!(matches!(
        Checkpoint::read_all(&home.path().join("none"), &trusted(&key)),
        Err(CheckpointError::Read { .. })
    ));
}
