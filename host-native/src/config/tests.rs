use std::{env, fs, os::unix::fs::PermissionsExt as _};

use super::*;

fn load(pairs: &[(&str, &str)], file: &str, flags: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config.toml"), file).unwrap();
    let mut variables: Variables = [("AUTONOMY_HOME", home.path().to_str().unwrap())].into();
    variables = pairs.iter().fold(variables, |variables, (name, value)| variables.with(name, value));
    let flags: Vec<_> = flags
        .iter()
        .map(|(name, value)| Given { name, flag: Key::named(name).unwrap().flag, text: (*value).to_owned() })
        .collect();
    Config::load(&variables, None, &flags)
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "[attestation]\nmode = \"advisory\"\nthreshold = 2\n";
    let config = load(&[], "", &[]).unwrap();
    assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Off, Origin::Default));
    let config = load(&[], file, &[]).unwrap();
    assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Advisory, Origin::File));
    assert_eq!(config.threshold(), 2);
    let config = load(&[("AUTONOMY_ATTESTATION_MODE", "enforce")], file, &[]).unwrap();
    assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Enforce, Origin::Environment));
    let config = load(&[("AUTONOMY_ATTESTATION_MODE", "enforce")], file, &[("attestation.mode", "off")]).unwrap();
    assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Off, Origin::Flag));
}

#[test]
fn the_trust_directory_is_where_somebody_said_and_beats_keys_of_a_weaker_layer() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.pub"), "").unwrap();
    let keys = "[attestation]\ntrusted_keys = [\"/a.pub\"]\n";
    let directory = ("attestation.trust_dir", dir.path().to_str().unwrap());
    assert_eq!(load(&[], keys, &[]).unwrap().trusted_keys().unwrap(), [Path::new("/a.pub")]);
    assert_eq!(load(&[], keys, &[directory]).unwrap().trusted_keys().unwrap(), [dir.path().join("b.pub")]);
    let environment = ("AUTONOMY_ATTESTATION_TRUST_DIR", directory.1);
    assert_eq!(load(&[environment], keys, &[]).unwrap().trusted_keys().unwrap(), [dir.path().join("b.pub")]);
    assert_eq!(load(&[], "", &[]).unwrap().trusted_keys().unwrap(), Vec::<PathBuf>::new());
    let gone = load(&[], "", &[("attestation.trust_dir", "/gone")]).unwrap();
    assert!(gone.trusted_keys().unwrap_err().to_string().contains("`/gone`"));
}

#[test]
fn a_relative_path_in_the_file_is_meant_from_where_the_file_is() {
    let file = "[wal]\ndir = \"log\"\n[store]\npath = \"/var/e.sqlite\"\n[attestation]\ntrusted_keys = [\"a.pub\"]\n";
    let config = load(&[], file, &[]).unwrap();
    let home = config.file().parent().unwrap();
    assert_eq!(config.wal_dir(), home.join("log"));
    assert_eq!(config.store_path(), Path::new("/var/e.sqlite"));
    assert_eq!(config.trusted_keys().unwrap(), [home.join("a.pub")]);
    assert_eq!(load(&[], file, &[("wal.dir", "log")]).unwrap().wal_dir(), Path::new("log"), "a flag: from here");
}

#[test]
fn each_typo_is_refused_with_its_place() {
    let environment = [
        (
            "AUTONOMY_ATTESTATION_MODE",
            "",
            "environment variable `AUTONOMY_ATTESTATION_MODE`: mode `` is not known: use `off`, `advisory` or `enforce`",
        ),
        (
            "AUTONOMY_ATTESTATION_MODE",
            "Enforce",
            "environment variable `AUTONOMY_ATTESTATION_MODE`: mode `Enforce` is not known: use `off`, `advisory` or `enforce`",
        ),
        (
            "AUTONOMY_NODE_ID",
            "",
            "environment variable `AUTONOMY_NODE_ID`: node id is empty: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`",
        ),
        (
            "AUTONOMY_NODE_ID",
            "robot 7",
            "environment variable `AUTONOMY_NODE_ID`: node id `robot 7` holds ` `: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`",
        ),
        (
            "AUTONOMY_ATTESTATION_THRESHOLD",
            "two",
            "environment variable `AUTONOMY_ATTESTATION_THRESHOLD`: `two` is not a whole number from 1 to 9223372036854775807: give one",
        ),
        (
            "AUTONOMY_ATTESTATION_MAX_SKEW_MS",
            "-1",
            "environment variable `AUTONOMY_ATTESTATION_MAX_SKEW_MS`: `-1` is too small: give a whole number from 0",
        ),
        (
            "AUTONOMY_RUNTIME_LISTEN",
            "localhost",
            "environment variable `AUTONOMY_RUNTIME_LISTEN`: address `localhost` is not known: use `<ip>:<port>`, such as `127.0.0.1:7777`",
        ),
    ];
    for (name, value, message) in environment {
        assert_eq!(load(&[(name, value)], "", &[]).unwrap_err().to_string(), message);
    }
    let unknown = load(&[("AUTONOMY_ATTESTATION_MODUS", "off")], "", &[]).unwrap_err().to_string();
    assert!(unknown.starts_with("environment variable `AUTONOMY_ATTESTATION_MODUS` is not known"), "{unknown}");
    for (file, part) in [
        ("[attestation]\nmodus = \"off\"", "unknown field `modus`"),
        ("[atestation]\nmode = \"off\"", "unknown field `atestation`"),
        ("[attestation]\nmode = \"on\"", "mode `on` is not known: use `off`, `advisory` or `enforce`"),
        ("[attestation]\nmode = off", "TOML parse error at line 2"),
        ("[attestation]\nthreshold = 1.5", "`1.5`, expected a whole number from 0: in `attestation.threshold`"),
        (
            "[attestation]\nmax_skew_ms = -5",
            "integer `-5`, expected a whole number from 0: in `attestation.max_skew_ms`",
        ),
        ("[identity]\nnode_id = \"a\u{2013}b\"", "which only looks like `-`"),
        ("[attestation]\nmode = \"off\"\nmode = \"enforce\"", "duplicate key"),
    ] {
        let message = load(&[], file, &[]).unwrap_err().to_string();
        assert!(message.starts_with("config file `") && message.contains(part), "{message}");
        assert!(message.ends_with("; correct the file"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let flag = load(&[], "", &[("attestation.mode", "enforced")]).unwrap_err().to_string();
    assert_eq!(flag, "flag `--mode`: mode `enforced` is not known: use `off`, `advisory` or `enforce`");
    let flag = load(&[], "", &[("store.path", "")]).unwrap_err().to_string();
    assert_eq!(flag, "flag `--store`: is empty: give a value, or leave it out");
}

#[test]
fn a_setting_is_written_only_when_it_would_be_accepted_and_comments_stay() {
    let home = tempfile::tempdir().unwrap();
    let variables: Variables = [("AUTONOMY_HOME", home.path().to_str().unwrap())].into();
    let file = home.path().join("config.toml");
    fs::write(&file, "# ours\n[attestation] # the gate\nmode = \"off\" # since May\n").unwrap();
    let (config, named) = (Config::load(&variables, None, &[]).unwrap(), |name| Key::named(name).unwrap());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    config.set(named("attestation.mode"), "enforce").unwrap();
    config.set(named("identity.node_id"), "robot-7").unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# ours\n[attestation] # the gate\nmode = \"enforce\" # since May\n"), "{text}");
    assert!(config.set(named("attestation.mode"), "on").is_err());
    let unknown = Key::named("node_id").unwrap_err().to_string();
    assert_eq!(
        unknown,
        "`node_id` is not a setting, did you mean `identity.node_id`: `autonomy config show` lists them"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    config.unset(named("identity.node_id")).unwrap();
    let written = config.set(named("attestation.trusted_keys"), "a.pub:/b.pub").unwrap();
    assert_eq!(written, format!("{}:/b.pub", env::current_dir().unwrap().join("a.pub").display()));
    assert!(config.set(named("runtime.bundle"), "").is_err());
    let config = Config::load(&variables, None, &[]).unwrap();
    assert_eq!((config.mode(), config.node_id()), (Mode::Enforce, None));
    assert_eq!(config.value(named("attestation.trusted_keys")).unwrap(), written);
}

#[test]
fn each_variable_is_named_after_its_setting_and_the_book_lists_both_in_the_order_of_the_table() {
    let page = include_str!("../../../docs/src/settings.md");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), KEYS.len());
    for (row, Key { name, env, flag, .. }) in rows.into_iter().zip(KEYS) {
        assert!(row.starts_with(&format!("| `{name}` | `{env}` | `{flag}`")), "{row}");
        // The one that a node's whole environment is about has a shorter name.
        if *env != "AUTONOMY_NODE_ID" {
            assert_eq!(*env, format!("AUTONOMY_{}", name.replace('.', "_").to_uppercase()));
        }
    }
}
