//! How far the command has come: on a terminal, and only there.

use std::{fs, process::Output};

use crate::support::{Home, succeeded};

#[test]
fn judging_all_nodes_shows_a_bar_where_standard_error_is_a_terminal_and_prints_the_same_either_way() {
    const NODES: usize = 40;
    let home = Home::ready();
    for node in 1..NODES {
        home.ok(&format!("node enroll --node-id robot-{node}0 --enrollment-ref fleet-a"));
    }
    let eval = "autonomy attestation eval --all-nodes --bundle bundle.tar";
    let bash = |script: &str| home.program("bash").args(["-c", script]).output().unwrap();
    let script = |command: &str| -> Output {
        home.program("script").args(["-qec", command, "/dev/null"]).env("TERM", "xterm").output().unwrap()
    };
    let printed = || fs::read_to_string(home.path("out")).unwrap();

    for format in ["text", "json"] {
        // `script` shows what its terminal was sent; what goes into a file is not among that.
        let watched = succeeded(format, script(&format!("{eval} --output {format} > out")));
        assert!(watched.contains(&format!("/{NODES} nodes, ")), "{format}: {watched:?}");
        let of_a_terminal = printed();
        assert!(
            of_a_terminal.matches("robot-").count() >= NODES && !of_a_terminal.contains('\u{1b}'),
            "{of_a_terminal}"
        );

        let unwatched = bash(&format!("{eval} --output {format} > out"));
        assert!(unwatched.status.success() && unwatched.stderr.is_empty(), "{unwatched:?}");
        // The time of the evaluation is the one thing that may differ.
        let without_time =
            |text: String| text.split_once("\"bundles\"").map_or(text.clone(), |(_, rest)| rest.to_owned());
        assert_eq!(without_time(printed()), without_time(of_a_terminal));

        // A terminal for the rows alone, and none for standard error.
        let unseen = succeeded(format, script(&format!("{eval} --output {format} 2> out")));
        assert!(unseen.contains("robot-") && !unseen.contains(" nodes, ") && printed().is_empty(), "{unseen:?}");
    }
    // Rows that come one by one are progress enough.
    let rows = succeeded("rows", script(eval));
    assert!(rows.contains("robot-") && !rows.contains(" nodes, "), "{rows:?}");
}
