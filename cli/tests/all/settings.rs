//! `autonomy config`, and where settings come from.

use std::fs;

use crate::harness::{Home, Run};

#[test]
fn each_setting_is_shown_with_its_value_and_origin() {
    let home = Home::new();
    let text = home.ok("config show");
    assert_eq!(text.lines().count(), host_native::config::KEYS.len() + 1, "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq(["attestation.mode", "off", "default"])), "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq(["identity.node_id", "<none>", "default"])), "{text}");
    let (_, shown) = home.json("config show");
    assert_eq!(shown["config_file"], home.path("config.toml").to_str().unwrap());
    let mode = &shown["settings"][1];
    assert_eq!((&mode["key"], &mode["environment"]), (&"attestation.mode".into(), &"AUTONOMY_ATTESTATION_MODE".into()));
}

#[test]
fn a_setting_is_written_read_and_taken_out() {
    let home = Home::new();
    let file = home.path("config.toml");
    let set = home.ok("config set attestation.mode advisory");
    assert_eq!(set, format!("attestation.mode = advisory in {}\n", file.display()));
    assert_eq!(home.ok("config get attestation.mode"), "advisory\n");
    assert_eq!(home.json("config get attestation.mode").1["origin"], "file");
    assert_eq!(home.json("config set identity.node_id robot-7").1["value"], "robot-7");
    let mut over = home.command(&["config", "set", "attestation.mode", "enforce"]);
    let run = Run::from(over.env("AUTONOMY_ATTESTATION_MODE", "off").output().unwrap());
    assert_eq!(run.stderr, "warning: `AUTONOMY_ATTESTATION_MODE` is set and beats the config file\n");
    assert!(fs::read_to_string(&file).unwrap().contains("mode = \"enforce\""));
    home.ok("config unset attestation.mode");
    assert_eq!(home.ok("config get attestation.mode"), "off\n");
    assert_eq!(home.ok("config get runtime.bundle"), "<none>\n");
}

#[test]
fn a_directory_of_keys_that_cannot_be_read_is_set_right_by_the_command_that_set_it() {
    let home = Home::new();
    let run = home.run("config set attestation.trust_dir gone");
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("gone` is not there yet"), "{run:?}");
    assert!(home.fails(3, "config get attestation.trusted_keys").contains("/gone`"));
    let shown = home.run("config show");
    assert!(shown.code == 0 && shown.stderr.contains("warning: ") && shown.stderr.contains("/gone`"), "{shown:?}");
    assert_eq!(home.ok("config set attestation.mode off").lines().count(), 1);
    home.ok("config unset attestation.trust_dir");
    assert_eq!(home.run("config show").stderr.matches("warning").count(), 0);
}

#[test]
fn flags_name_the_home_and_the_config_file() {
    let (home, other) = (Home::new(), Home::new());
    other.ok("config set identity.node_id elsewhere");
    let there = other.path("");
    let there = there.to_str().unwrap();
    assert_eq!(home.run_words(&["--home", there, "config", "get", "identity.node_id"]).stdout, "elsewhere\n");
    let file = other.path("config.toml");
    let run = home.run_words(&["config", "get", "identity.node_id", "--config", file.to_str().unwrap()]);
    assert_eq!(run.stdout, "elsewhere\n");
    let gone = home.fails(3, "config show --config gone.toml");
    assert!(gone.starts_with("config file `gone.toml` ("), "{gone}");
}

/// What a command would refuse when it starts is refused when it is written.
#[test]
fn a_value_that_no_command_takes_is_not_written() {
    let home = Home::new();
    for (name, value, why) in [
        (
            "runtime.listen",
            "0.0.0.0:7777",
            "`0.0.0.0:7777` is not a loopback address: listen on `127.0.0.1` or `[::1]`; ",
        ),
        ("host.listen", "192.0.2.1:7778", "`192.0.2.1:7778` is not a loopback address: "),
        (
            "orchestrator.url",
            "fleet.example.com",
            "url `fleet.example.com` does not start with `http://` or `https://`: ",
        ),
        (
            "orchestrator.url",
            "http://fleet.example.com",
            "url `http://fleet.example.com` is neither https nor on this machine: ",
        ),
        ("drain.to", "otlp", "url `otlp` does not start with "),
        ("runtime.http_allow", "https://a.example,foo", "url `foo` does not start with "),
    ] {
        let error = home.fails(2, &format!("config set {name} {value}"));
        assert!(error.starts_with(&format!("setting `{name}`: {why}")), "{error}");
        assert!(!home.path("config.toml").exists());
    }
    // The orchestrator listens everywhere, with TLS, which is another setting.
    home.ok("config set orchestrator.listen 0.0.0.0:7779");
    home.ok("config set orchestrator.url https://fleet.example.com/at/a/path");
    home.ok("config set runtime.http_allow https://a.example,http://b.example/files");
    assert_eq!(home.ok("config get runtime.http_allow"), "https://a.example/,http://b.example/files\n");
}

#[test]
fn a_config_file_that_is_linked_to_is_written_where_it_is() {
    let home = Home::new();
    fs::write(home.path("real.toml"), "# mine\n").unwrap();
    std::os::unix::fs::symlink("real.toml", home.path("linked.toml")).unwrap();
    home.ok("config set attestation.mode off --config linked.toml");
    assert!(fs::symlink_metadata(home.path("linked.toml")).unwrap().is_symlink());
    let real = fs::read_to_string(home.path("real.toml")).unwrap();
    assert!(real.contains("# mine") && real.contains("mode = \"off\""), "{real}");
}
