//! Whoever kept what was signed of a log is told when the log is another.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    thread,
};

use serde_json::Value;

use crate::{
    drain::{done, log},
    support::Home,
};

const VERIFY: &str = "wal verify --checkpoints kept --checkpoint-key node.pem.pub --output json";

/// Five frames, signed at the third and at the last, and two that are not.
fn signed() -> Home {
    let home = Home::new();
    log(&home, 3);
    home.ok("key generate --out node.pem");
    let first = home.ok("wal checkpoint --key node.pem");
    log(&home, 2);
    fs::write(home.path("kept"), first + &home.ok("wal checkpoint --key node.pem --output json")).unwrap();
    log(&home, 2);
    home
}

#[test]
fn a_log_that_was_changed_after_it_was_signed_is_told_by_whoever_kept_the_line() {
    let home = signed();
    let verified: Value = serde_json::from_str(&home.ok(VERIFY)).unwrap();
    assert_eq!(
        (&verified["holds"], &verified["frames"], &verified["checkpoints"]),
        (&true.into(), &7.into(), &2.into())
    );

    fs::remove_dir_all(home.path("wal")).unwrap();
    log(&home, 7);
    assert_eq!(home.run("wal verify").status.code(), Some(0), "by itself it holds");
    let (code, _, stderr) = done(&home.run(VERIFY));
    assert_eq!(code, 4);
    assert!(stderr.contains("log does not hold frame 3 as it was signed at "), "{stderr}");
    home.ok("key generate --out other.pem");
    let (code, _, stderr) = done(&home.run(&VERIFY.replace("node", "other")));
    assert_eq!(code, 2, "{stderr}");
    fs::write(home.path("kept"), "").unwrap();
    let (code, printed, stderr) = done(&home.run(VERIFY));
    assert_eq!((code, printed), (2, Value::Null), "none shows nothing");
    assert!(stderr.contains("`kept` holds no checkpoint: "), "{stderr}");
}

/// Checkpoints that grow may mean that the log is pruned meanwhile. What is wrong twice is wrong.
#[test]
fn a_log_that_was_changed_is_told_though_it_is_signed_again_each_time_that_it_is_read() {
    let home = signed();
    fs::remove_dir_all(home.path("wal")).unwrap();
    log(&home, 7);
    let newest = home.ok("wal checkpoint --key node.pem");
    let path = home.path("kept");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let signing = thread::spawn(move || {
        let mut kept = OpenOptions::new().append(true).open(path).unwrap();
        while stopped.try_recv().is_err() {
            kept.write_all(newest.as_bytes()).unwrap();
            thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let outputs: Vec<_> = (0..2).map(|_| done(&home.run(VERIFY))).collect();
    stop.send(()).unwrap();
    signing.join().unwrap();
    for (code, _, stderr) in outputs {
        assert_eq!(code, 4, "{stderr}");
        assert!(stderr.contains("log does not hold frame 3 as it was signed at "), "{stderr}");
    }
}
