//! The checks: what a clean clone must pass, in the order in which they fail fastest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{Result, bindings, codegen, corpus, fuzz, wasm};

/// Targets without an operating system: gate-core must build for them.
const BARE_TARGETS: [&str; 2] = ["thumbv7em-none-eabihf", "wasm32v1-none"];

/// What the tests run: how to see that it is there, and the package that has it (Debian's name, the same on most
/// systems).
const PROGRAMS: [(&str, &str); 23] = [
    ("command -v bash", "bash"),
    ("command -v c++", "g++"),
    ("command -v cc", "gcc"),
    ("command -v chromium", "chromium"),
    ("command -v curl", "curl"),
    ("command -v docker-registry", "docker-registry"),
    ("command -v jq", "jq"),
    ("command -v make", "make"),
    ("command -v /usr/sbin/nginx", "nginx"),
    ("command -v npm", "npm"),
    ("command -v openssl", "openssl"),
    ("command -v pkg-config", "pkgconf"),
    // Debian keeps its programs out of `PATH`.
    ("command -v postgres || ls /usr/lib/postgresql/*/bin/postgres", "postgresql"),
    ("command -v python3", "python3"),
    ("python3 -c 'import ensurepip, venv'", "python3-venv"),
    ("command -v skopeo", "skopeo"),
    ("command -v strace", "strace"),
    ("command -v tar", "tar"),
    ("command -v valgrind", "valgrind"),
    // Of the tests in C and C++ alone: no header or library of these is in what is installed.
    ("pkg-config --exists libcrypto", "libssl-dev"),
    ("pkg-config --exists libmicrohttpd", "libmicrohttpd-dev"),
    ("pkg-config --exists lua5.4", "liblua5.4-dev"),
    ("pkg-config --exists nlohmann_json", "nlohmann-json3-dev"),
];

/// Those that only a language of `bindings/` needs: without them it is skipped.
const OF_LANGUAGES: [&str; 3] = ["g++", "make", "npm"];

/// The Python packages that the tests ask, each with its version.
const PYTHON_PACKAGES: &str = "tests/requirements.txt";

/// Where those packages are: a directory of their own, so that nothing else is changed.
const PYTHON: &str = "target/python";

/// What the tests run and Go builds: the folder whose module pins it, its package, and where it goes. The OpenTelemetry Collector
/// that the log is drained to, and a client of registries.
const BUILT_BY_GO: [(&str, &str, &str); 2] = [
    ("tests/collector", ".", "target/collector/collector"),
    ("tests/oras", "oras.land/oras/cmd/oras", "target/oras/oras"),
];

/// Most crates that gate-core may bring into a host, itself counted.
const CORE_CRATES: usize = 30;

/// Formatting, lints and documentation, then every test.
pub fn ci(root: &Path) -> Result<()> {
    // The lints compile C++ of others.
    install_programs()?;
    step("format", cargo(root).args(["fmt", "--all", "--check"]))?;
    step(
        "lints",
        cargo(root).args(["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]),
    )?;
    // As programs take it: in the workspace its features are on.
    step(
        "lints of host-native alone",
        cargo(root).args([
            "clippy",
            "-p",
            "host-native",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    fuzz::lint(root)?;
    bindings::lint(root)?;
    let mut doc = cargo(root);
    step(
        "documentation",
        doc.args(["doc", "--workspace", "--locked", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    test(root)
}

/// Every test. Installs what it needs: targets with rustup, programs with the system's package manager.
pub fn test(root: &Path) -> Result<()> {
    quick(root)?;
    install_programs()?;
    bindings::check_toolchains()?;
    install_python_packages(root)?;
    install_targets(root, &BARE_TARGETS)?;
    for target in BARE_TARGETS {
        let mut build = cargo(root);
        step(target, build.args(["build", "--locked", "--quiet", "--package", "ensure-no-std", "--target", target]))?;
    }
    count_core_crates(root)?;
    wasm::check_fresh(root)?;
    wasm::write_doctored(root)?;
    build_by_go(root)?;
    step("all tests", cargo(root).args(["test", "--locked", "--quiet", "--workspace"]))?;
    fuzz::test(root)?;
    bindings::test_all(root)
}

/// What a change to the decision wants to know first, in well under a minute.
pub fn quick(root: &Path) -> Result<()> {
    codegen::check_fresh(root)?;
    corpus::check_fresh(root)?;
    step("quick tests", cargo(root).args(["test", "--locked", "--quiet", "--package", "gate-core"]))
}

/// Every benchmark; each prints ratios against its peers of the same run.
pub fn bench(root: &Path) -> Result<()> {
    install_programs()?;
    // The fleet's benchmark runs it, and would build it with other features of its dependencies: all of them anew.
    step("the command", cargo(root).args(["build", "--release", "--workspace", "--bin", "autonomy"]))?;
    step("benchmarks", cargo(root).args(["bench", "--workspace", "--benches"]))?;
    bindings::bench_all(root)
}

/// What the tests run, with the system's package manager.
pub fn install_programs() -> Result<()> {
    let missing = PROGRAMS.into_iter().filter(|(probe, _)| !succeeds(probe));
    let mut packages: Vec<_> = missing.map(|(_, package)| package).collect();
    let can_install = succeeds("command -v apt-get") && is_root();
    if !can_install {
        packages.retain(|package| !OF_LANGUAGES.contains(package));
    }
    if packages.is_empty() {
        return Ok(());
    }
    if !can_install {
        return Err(
            format!("install {} with the system's package manager, then run this again", packages.join(", ")).into()
        );
    }
    step("package lists", Command::new("apt-get").args(["update", "--quiet", "--quiet"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"]);
    step("packages", install.args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn install_python_packages(root: &Path) -> Result<()> {
    let (wanted, place) = (root.join(PYTHON_PACKAGES), root.join(PYTHON));
    // Copied there last: what is there is whole.
    let installed = place.join("requirements.txt");
    if fs::read(&installed).is_ok_and(|installed| fs::read(&wanted).is_ok_and(|wanted| wanted == installed)) {
        return Ok(());
    }
    step("python", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
    let mut pip = Command::new(place.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--requirement"]);
    step("python packages", pip.arg(&wanted))?;
    fs::copy(&wanted, &installed)?;
    Ok(())
}

/// Builds what Go builds, where it is.
fn build_by_go(root: &Path) -> Result<()> {
    let probe = "command -v go";
    if !succeeds(probe) {
        let missing = format!("Go is missing for the collector and for oras: `{probe}` fails");
        if is_ci() {
            return Err(missing.into());
        }
        println!("SKIPPED: {missing}");
        return Ok(());
    }
    for (module, package, program) in BUILT_BY_GO {
        let mut build = Command::new("go");
        build.args(["build", "-trimpath", "-buildvcs=false", "-o"]).arg(root.join(program)).arg(package);
        step(program, build.current_dir(root.join(module)).env("GOWORK", "off"))?;
    }
    Ok(())
}

/// Whether this is CI, which has every toolchain.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

/// A program from crates.io in exactly this version, in a directory of its own. Gives its path.
pub fn install_tool(root: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let place = root.join("target/tools");
    let program = place.join("bin").join(name);
    let found = Command::new(&program).arg("--version").output();
    if !found.is_ok_and(|found| found.stdout.trim_ascii() == format!("{name} {version}").as_bytes()) {
        let mut install = cargo(root);
        install
            .args(["install", "--quiet", "--debug", "--locked", "--version", &format!("={version}"), "--root"])
            .arg(&place);
        step(name, install.arg(name))?;
    }
    Ok(program)
}

/// Has rustup fetch the targets that are not there.
pub fn install_targets(root: &Path, targets: &[&str]) -> Result<()> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).current_dir(root).output();
    let installed = installed.map_err(|error| format!("rustup cannot be run ({error}): install it from rustup.rs"))?;
    let installed = String::from_utf8_lossy(&installed.stdout).into_owned();
    for target in targets {
        if !installed.lines().any(|line| line == *target) {
            step(target, Command::new("rustup").args(["target", "add", target]).current_dir(root))?;
        }
    }
    Ok(())
}

/// Installs the Node packages that a folder's lock file pins, and gives the directory they are in.
pub fn install_node_packages(root: &Path, folder: &str) -> Result<PathBuf> {
    let place = root.join("target/node").join(folder);
    let lock = fs::read(root.join(folder).join("package-lock.json"))?;
    // Copied there last: what is there is whole.
    let installed = place.join("installed.json");
    if fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return Ok(place);
    }
    fs::create_dir_all(&place)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(root.join(folder).join(file), place.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&place);
    step("node packages", &mut npm)?;
    fs::write(&installed, &lock)?;
    Ok(place)
}

/// A small closure is a promise: this counts it.
fn count_core_crates(root: &Path) -> Result<()> {
    let mut tree = cargo(root);
    tree.args(["tree", "--package", "gate-core", "--edges", "normal,build", "--prefix", "none"]);
    let output = tree.args(["--format", "{p}"]).output()?;
    let listing = String::from_utf8(output.stdout)?;
    let mut crates: Vec<_> = listing.lines().filter_map(|line| line.split(" (").next()).collect();
    crates.sort_unstable();
    crates.dedup();
    println!("gate-core brings {} crates, itself counted", crates.len());
    if crates.is_empty() || crates.len() >= CORE_CRATES {
        return Err(format!("gate-core's tree must stay under {CORE_CRATES} crates:\n{}", crates.join("\n")).into());
    }
    Ok(())
}

/// Cargo, in the workspace. What it builds is looked for in `target`, wherever else the environment would have it.
pub fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).env("CARGO_TARGET_DIR", root.join("target"));
    cargo
}

/// Runs a command and says how long it took.
///
/// # Errors
/// It cannot be run, or it fails.
pub fn step(name: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    println!("== {name}");
    let status = command.status().map_err(|error| format!("{name}: {command:?} cannot be run: {error}"))?;
    if !status.success() {
        return Err(format!("{name} failed: {command:?}").into());
    }
    println!("== {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Looked up where the shell looks: some programs have no `--version`.
pub fn succeeds(probe: &str) -> bool {
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", probe]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
