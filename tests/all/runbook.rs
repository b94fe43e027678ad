//! The pages whose commands people type, run as they stand: one real `bash`, the real command, real sockets, a real
//! log, real `jq`.
//!
//! What the test knows of a page:
//!
//! - Every `sh` block is run, in order, in one session that ends at the first command that fails.
//! - The `text` block after it is all that it prints, standard error too. Without one it prints nothing.
//! - `…` in a line stands for at least one character; a line that is only `…` stands for any lines. Runs of spaces
//!   count as two, because columns are as wide as what differs.
//! - `/tmp/` is a directory of the test, and what [`Stage`] says stands for something else.
//! - After a command that ends in `&` the session waits until it is ready, at its `--listen` or `127.0.0.1:7777`.

use std::{
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    cluster::PASSWORD,
    orchestrator::certificates,
    postgres::over_tls,
    registry::Registry,
    support::{self, Block, Home, blocks, page},
};

/// What a session prints between two blocks.
const MARK: char = '\u{1e}';

const PATIENCE: Duration = Duration::from_secs(120);

/// What a page is played on.
struct Stage {
    /// What stands on the page, and what is there instead.
    stands_for: Vec<(&'static str, String)>,
    /// What is done before the first block, where `/tmp/` is.
    prologue: String,
}

impl Stage {
    /// One runtime.
    fn one_machine() -> Self {
        Self { stands_for: vec![(RUNTIME, support::free_address())], prologue: String::new() }
    }
}

/// Where the page's runtime listens that is told nothing else.
const RUNTIME: &str = "127.0.0.1:7777";

/// Where its native host does.
const NATIVE_HOST: &str = "127.0.0.1:7778";

/// Runs blocks one after the other, and gives what each printed.
fn run(blocks: &[&Block], Stage { mut stands_for, prologue }: Stage) -> Vec<String> {
    let place = tempfile::tempdir().unwrap();
    let tmp = place.path().join("tmp");
    fs::create_dir(&tmp).unwrap();
    stands_for.push(("/tmp/", format!("{}/", tmp.display())));
    let there = |text: &str| stands_for.iter().fold(text.to_owned(), |text, (page, there)| text.replace(page, there));
    let address = there(RUNTIME);
    let mut script = format!(
        "set -e
        exec 2>&1
        trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
        ready() {{
            local end=$((SECONDS + 60))
            while kill -0 $! && [ $SECONDS -lt $end ]; do
                for scheme in http https; do
                    if curl --fail --silent --output /dev/null $scheme://$1/readyz; then return; fi
                done
                sleep 0.05
            done
            echo \"$1 is not ready\"; tail *.log; exit 1
        }}
        {prologue}\n"
    );
    for block in blocks {
        let mut command = String::new();
        for line in block.text.lines() {
            command.push_str(&there(line));
            command.push('\n');
            if line.ends_with('\\') {
                continue;
            }
            if line.ends_with(" &") {
                let listen = command.split_once("--listen ").and_then(|(_, rest)| rest.split_whitespace().next());
                let ready = format!("ready {}\n", listen.unwrap_or(&address));
                command.push_str(&ready);
            }
            script.push_str(&std::mem::take(&mut command));
        }
        script.push_str(&format!("printf '{MARK}'\n"));
    }
    let script_path = place.path().join("session.sh");
    fs::write(&script_path, script).unwrap();
    let mut bash = Command::new("bash");
    bash.arg(&script_path).current_dir(&tmp).env_clear().env("PATH", support::path()).env("HOME", &tmp);
    let printed = supervise(bash.env("USER", "ops").env("AUTONOMY_RUNTIME_LISTEN", &address));
    let printed = stands_for.iter().rev().fold(printed, |text, (page, there)| text.replace(there, page));
    let mut outputs: Vec<_> = printed.split(MARK).map(str::to_owned).collect();
    let rest = outputs.pop().unwrap();
    let failed = blocks.get(outputs.len());
    assert!(failed.is_none(), "line {}: a command failed:\n{}{rest}", failed.unwrap().line, failed.unwrap().text);
    outputs
}

/// Everything that a process prints; it and what it started are gone afterwards.
fn supervise(command: &mut Command) -> String {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut printed = Vec::new();
        stdout.read_to_end(&mut printed).unwrap();
        String::from_utf8(printed).unwrap()
    });
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    let group = rustix::process::Pid::from_child(&child);
    // Nothing of it is left where it ended by itself.
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let status = child.wait().unwrap();
    let printed = reader.join().unwrap();
    assert!(status.code().is_some(), "it did not end in {PATIENCE:?}:\n{printed}");
    printed
}

/// Whether a line is what the page says.
fn line_matches(expected: &str, found: &str) -> bool {
    let squeeze = |line: &str| {
        let words = line.trim_end().split("  ").filter(|part| !part.is_empty()).map(str::trim);
        words.collect::<Vec<_>>().join("  ")
    };
    let (expected, found) = (squeeze(expected), squeeze(found));
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| found.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        // At least one character stands for the `…`.
        let Some(least) = rest.chars().next().map(char::len_utf8) else { return false };
        let at = if parts.peek().is_some() { rest[least..].find(part) } else { rest[least..].rfind(part) };
        let Some(at) = at else { return false };
        rest = &rest[least + at + part.len()..];
    }
    rest.is_empty()
}

/// Whether lines are what the page says.
fn matches(expected: &[&str], found: &[&str]) -> bool {
    match expected {
        [] => found.is_empty(),
        ["…", rest @ ..] => (0..=found.len()).any(|skipped| matches(rest, &found[skipped..])),
        [line, rest @ ..] => {
            found.split_first().is_some_and(|(first, others)| line_matches(line, first) && matches(rest, others))
        }
    }
}

/// The page's lines with `-`, the real ones with `+`, and what both have.
fn diff(expected: &[&str], found: &[&str]) -> String {
    // The longest common run of lines from each pair of positions on.
    let mut common = vec![vec![0_usize; found.len() + 1]; expected.len() + 1];
    for at in (0..expected.len()).rev() {
        for with in (0..found.len()).rev() {
            common[at][with] = if line_matches(expected[at], found[with]) {
                common[at + 1][with + 1] + 1
            } else {
                common[at + 1][with].max(common[at][with + 1])
            };
        }
    }
    let (mut at, mut with, mut text) = (0, 0, String::new());
    while at < expected.len() || with < found.len() {
        let both = at < expected.len() && with < found.len();
        if both && line_matches(expected[at], found[with]) {
            text.push_str(&format!("  {}\n", found[with]));
            (at, with) = (at + 1, with + 1);
        } else if with == found.len() || (both && common[at + 1][with] >= common[at][with + 1]) {
            text.push_str(&format!("- {}\n", expected[at]));
            at += 1;
        } else {
            text.push_str(&format!("+ {}\n", found[with]));
            with += 1;
        }
    }
    text
}

/// Runs a page, and compares every output with what stands there: how many commands and outputs there are.
fn does_what_it_says(name: &str, stage: Stage) -> (usize, usize) {
    let blocks = blocks(&page(name));
    let commands: Vec<_> = blocks.iter().filter(|block| block.language == "sh").collect();
    let outputs = run(&commands, stage);
    let mut wrong = String::new();
    for (at, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "sh") {
        let expected = blocks.get(at + 1).filter(|next| next.language == "text").map_or("", |next| &next.text);
        let found = &outputs[commands.iter().position(|command| command.line == block.line).unwrap()];
        let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
        if !matches(&expected, &found) {
            let diff = diff(&expected, &found);
            wrong.push_str(&format!("{name}:{}\n{}{diff}\n", block.line, block.text));
        }
    }
    let texts = blocks.iter().filter(|block| block.language == "text").count();
    println!("{} blocks run, {texts} outputs compared", commands.len());
    assert!(wrong.is_empty(), "the page (-) and what really comes (+):\n\n{wrong}");
    assert!(blocks.iter().all(|block| ["sh", "text"].contains(&block.language.as_str())), "a block that is not run");
    (commands.len(), texts)
}

#[test]
fn the_runbook_does_what_it_says() {
    let (commands, texts) = does_what_it_says("docs/src/runbook.md", Stage::one_machine());
    assert!(commands >= 25 && texts >= 20, "the page has lost its commands");
}

/// Two orchestrators over PostgreSQL, a registry and three runtimes, with TLS between them.
#[test]
fn the_runbook_of_a_fleet_does_what_it_says() {
    let home = Home::new();
    certificates(&home);
    let database = over_tls(&home);
    database.psql("postgres", &format!("CREATE ROLE autonomy LOGIN PASSWORD '{PASSWORD}'"));
    database.psql("postgres", "CREATE DATABASE autonomy OWNER autonomy");
    let [certificate, key] = ["server.pem", "server.key"].map(|name| home.path(name));
    let tls = json!({"http": {"tls": {"certificate": certificate, "key": key}}});
    let registry = Registry::start(&home, support::free_address(), tls);
    let files = home.path("");
    let prologue = format!(
        "export SSL_CERT_FILE={files}ca.pem
        mkdir fleet
        cp {files}server.pem fleet/fleet.pem
        cp {files}server.key fleet/fleet.key
        (umask 077 && echo {PASSWORD} > fleet/db.password)",
        files = files.display()
    );
    let mut stands_for =
        vec![("db.example.com", database.address()), ("registry.example.com", registry.address.clone())];
    let services = [RUNTIME, "127.0.0.1:7787", "127.0.0.1:7797", "127.0.0.1:7779", "127.0.0.1:7789"];
    stands_for.extend(services.map(|address| (address, support::free_address())));
    let (commands, texts) = does_what_it_says("docs/src/fleet-runbook.md", Stage { stands_for, prologue });
    assert!(commands >= 15 && texts >= 12, "the page has lost its commands");
}

/// The commands of a page.
fn commands(page: &str) -> String {
    blocks(page).iter().filter(|block| block.language == "sh").map(|block| &*block.text).collect()
}

#[test]
fn the_runbook_of_a_fleet_has_every_line_that_was_promised() {
    let commands = commands(&page("docs/src/fleet-runbook.md"));
    for line in [
        "autonomy node enroll --node-id ",
        "autonomy attestation status --node-id robot-7\n",
        "autonomy bundle pull registry.example.com/fleet/policies:1.0.0 /tmp/bundle.tar",
        "autonomy attestation eval --bundle /tmp/bundle.tar --node-id robot-7",
        "AUTONOMY_ATTESTATION_MODE=advisory ./on robot-7 autonomy runtime start ",
        "autonomy wal inspect --kind autonomy.decision | jq 'select(.attrs.reason | startswith(\"attestation:\"))' ",
        "AUTONOMY_ATTESTATION_MODE=enforce ./on robot-7 autonomy runtime start ",
        "autonomy audit get ",
        "autonomy node revoke --node-id robot-9\n",
        "autonomy attestation eval --bundle /tmp/bundle.tar --all-nodes\n",
        "autonomy attestation preview --mode enforce ",
        "autonomy rollout create ",
    ] {
        assert!(commands.contains(line), "{line}");
    }
}

/// The runbook that was promised, with values in place of `<id>` and `<ref>`.
#[test]
fn the_runbook_has_every_line_that_was_promised() {
    let page = page("docs/src/runbook.md");
    let commands = commands(&page);
    for line in [
        "autonomy node enroll --node-id robot-7 --enrollment-ref fleet-a\n",
        "autonomy attestation status --node-id robot-7\n",
        "autonomy bundle pull oci:/tmp/registry:1.0.0 /tmp/bundle.tar\n",
        "autonomy attestation eval --bundle /tmp/bundle.tar --node-id robot-7\n",
        "AUTONOMY_ATTESTATION_MODE=advisory autonomy runtime start ",
        "autonomy wal inspect --kind autonomy.decision | jq 'select(.attrs.reason | startswith(\"attestation:\"))'\n",
        "AUTONOMY_ATTESTATION_MODE=enforce autonomy runtime start ",
        "autonomy audit get ",
        "autonomy node revoke --node-id robot-7\n",
        "autonomy attestation preview --mode advisory",
        "autonomy attestation preview --mode enforce",
        "autonomy attestation eval --bundle /tmp/bundle.tar --all-nodes",
        "openssl genpkey -algorithm ed25519",
        "autonomy wal verify\n",
        "autonomy wal doctor",
        "autonomy attestation replay\n",
        "autonomy config show\n",
    ] {
        assert!(commands.contains(line), "{line}");
    }
    for reason in gate_core::Reason::ALL {
        let passes = reason.as_str() == "policy: allowed";
        assert!(passes || page.contains(&format!("`{reason}`")), "nothing says what to do about `{reason}`");
    }
}

/// `<audit_id>` there is the id of the last answer; a `json` block is a line of what the block before prints.
#[test]
fn the_quick_start_does_what_it_says() {
    let blocks = blocks(&page("docs/src/quick-start.md"));
    let by_cargo = ["cargo run --release -- demo\n", "cargo xtask test\n"];
    let commands: Vec<_> = blocks
        .iter()
        .filter(|block| block.language == "sh" && !by_cargo.contains(&block.text.as_str()))
        .map(|block| Block {
            language: block.language.clone(),
            text: block
                .text
                .replace("<audit_id>", "$(autonomy audit list --output json | jq -r '.calls[-1].audit_id')"),
            line: block.line,
        })
        .collect();
    let mut stage = Stage::one_machine();
    stage.stands_for.push((NATIVE_HOST, support::free_address()));
    let outputs = run(&commands.iter().collect::<Vec<_>>(), stage);
    assert_eq!(commands.len(), 4);
    let answers: Vec<_> = blocks.iter().filter(|block| block.language == "json").collect();
    assert_eq!(answers.len(), 2);
    let printed = outputs.concat().replace("}{", "}\n{");
    for answer in answers {
        let expected = answer.text.trim_end();
        let holds =
            printed.lines().any(|line| line.find("{\"decision\"").is_some_and(|at| answer_ends(expected, &line[at..])));
        assert!(holds, "no line is\n{expected}\nin\n{printed}");
    }
    assert!(outputs[2].starts_with("outcome=deny\nreason=attestation: enrollment_revoked\n"), "{}", outputs[2]);
    assert!(outputs[2].contains("\nREMEDY   enroll the node again"), "{}", outputs[2]);
    let enrolled = "{\"answer\":\"enrolled\",\"enrollment\":{\"node_id\":\"robot-7\",\"enrollment_ref\":\"fleet-a\",\"status\":\"active\"";
    assert!(outputs[3].contains(enrolled), "{}", outputs[3]);
}

/// An answer has no line break at its end: the next output follows it.
fn answer_ends(expected: &str, line: &str) -> bool {
    line.match_indices('}').any(|(at, _)| line_matches(expected, &line[..=at]))
}

/// What cargo does is the demo's and the test command's to prove; nothing else may hide among them.
#[test]
fn the_readme_has_two_commands() {
    let blocks = blocks(&page("README.md"));
    let shell: Vec<_> =
        blocks.iter().filter(|block| block.language == "sh").flat_map(|block| block.text.lines()).collect();
    let commands: Vec<_> = shell.iter().map(|line| line.split(" #").next().unwrap().trim()).collect();
    assert_eq!(commands, ["cargo run --release -- demo", "cargo xtask test"]);
    assert!(Path::new(&support::root().join("cli/src/demo.rs")).exists());
}

#[test]
fn a_page_and_what_comes_are_compared_line_by_line() {
    for (expected, found, same) in [
        ("a … c", "a b c", true),
        ("a … c", "a  c", false),
        ("a …", "a ", false),
        ("…x", "axbx", true),
        ("… (… ago)", "2026 (3 s ago)", true),
        ("A    B", "A  B   ", true),
        ("A B", "A  B", false),
        ("a", "ab", false),
    ] {
        assert_eq!(line_matches(expected, found), same, "{expected} / {found}");
    }
    assert!(matches(&["a", "…", "b"], &["a", "b"]) && matches(&["a", "…", "b"], &["a", "x", "y", "b"]));
    assert!(!matches(&["a", "…"], &["b"]) && !matches(&["a"], &["a", "b"]) && !matches(&["a", "b"], &["a"]));
    assert_eq!(diff(&["a", "b", "c"], &["a", "x", "c"]), "  a\n- b\n+ x\n  c\n");
}
