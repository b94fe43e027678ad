//! Builds the wheel `autonomy-gate`, and tests it where it is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::stream;
use crate::{Result, ci};

/// The package.
const PACKAGE: &str = "bindings/python";

/// Where it is installed, with what tests it.
const ENVIRONMENT: &str = "target/bindings-python";

/// Where it is installed on the oldest Python that it is for.
const ON_OLDEST: &str = "target/bindings-python-3.10.16";

/// That Python and its pip, as a Go module has them: Debian has it no more.
const OLDEST: &str = "github.com/kluctl/go-embed-python@v0.0.0-3.10.16-20241219-1";

/// Unpacks that module, `$0`, into an environment, `$1`: it knows no links, and has its largest files compressed.
const UNPACK: &str = r#"
rm -rf "$1"
go mod download "$0"
module=$(go list -m -f '{{.Dir}}' "$0")
cp -R "$module/python/internal/data/$(go env GOOS)-$(go env GOARCH)" "$1"
chmod -R u+w "$1"
gunzip -r "$1"
cd "$1"
chmod +x bin/*
ln -s python3.10 bin/python
mkdir lib/python3.10/site-packages
cp -R "$module"/pip/internal/data/pip* lib/python3.10/site-packages
chmod -R u+w lib/python3.10/site-packages
"#;

/// What builds, checks and tests it.
const TESTS: &str = "requirements/test.txt";

/// Where it is installed, beside its peers.
const PEERS: &str = "target/bindings-python-bench";

/// Builds the wheel and installs it, with what tests it.
pub fn build(root: &Path) -> Result<()> {
    install(root, ENVIRONMENT, of_machine, TESTS).map(drop)
}

/// Runs the lints and the tests of the package, on the wheel: by this machine's Python, and by the oldest that it is for.
pub fn test(root: &Path) -> Result<String> {
    let (autonomy, package) = (super::autonomy(root)?, root.join(PACKAGE));
    let environments = [root.join(ENVIRONMENT), install(root, ON_OLDEST, oldest, TESTS)?];
    let run = |environment: &Path, program: &str, arguments: &[&str]| {
        let mut command = Command::new(environment.join("bin").join(program));
        command.args(arguments).current_dir(&package).env("AUTONOMY", &autonomy);
        command
    };
    let lint = |program, arguments: &[&str]| ci::step(program, &mut run(&environments[0], program, arguments));
    lint("ruff", &["format", "--quiet", "--check", "."])?;
    lint("ruff", &["check", "--quiet", "."])?;
    lint("mypy", &["src", "hatch_build.py", "examples"])?;
    let mut printed = String::new();
    for environment in &environments {
        let name = format!("tests in {}", environment.display());
        printed += &stream(&name, &mut run(environment, "python", &["-m", "pytest"]))?;
        printed += &stream("corpora", &mut run(environment, "python", &["tests/conformance.py"]))?;
    }
    Ok(printed)
}

/// The runtime that is tested beside those of the other languages.
pub fn driver(root: &Path) -> Result<Command> {
    let mut python = Command::new(root.join(ENVIRONMENT).join("bin/python"));
    python.arg(root.join(PACKAGE).join("tests/driver.py"));
    Ok(python)
}

/// Measures the package beside its peers.
pub fn bench(root: &Path) -> Result<String> {
    let environment = install(root, PEERS, of_machine, "requirements/bench.txt")?;
    let mut bench = Command::new(environment.join("bin/python"));
    bench.arg("bench/bench.py").current_dir(root.join(PACKAGE)).env("AUTONOMY", super::autonomy(root)?);
    bench.env("AUTONOMY_GATE_OPA", super::opa(root, PACKAGE)?);
    stream("autonomy-gate", &mut bench)
}

/// Unpacks one package, and gives where.
pub fn download(place: &Path, package: &str) -> Result<PathBuf> {
    let unpacked = place.join(package);
    if !unpacked.exists() {
        ci::step("python", &mut of_machine(place))?;
        // Under its name when it is whole.
        let part = place.join("part");
        ci::step(package, pip(place).args(["--only-binary", ":all:", "--no-deps", package, "--target"]).arg(&part))?;
        fs::rename(part, &unpacked)?;
    }
    Ok(unpacked)
}

/// Has a Python make an environment of what a file pins, and installs the wheel there, built anew.
fn install(root: &Path, place: &str, python: fn(&Path) -> Command, requirements: &str) -> Result<PathBuf> {
    let (package, place) = (root.join(PACKAGE), root.join(place));
    let wanted = fs::read(package.join(requirements))?;
    // Written last: what is there is whole.
    let installed = place.join("requirements.txt");
    if !fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        ci::step("python", &mut python(&place))?;
        let mut packages = pip(&place);
        // The files name all that is needed.
        packages.args(["--no-deps", "--only-binary", ":all:", "--requirement", requirements]).current_dir(&package);
        ci::step("python packages", &mut packages)?;
        fs::write(&installed, wanted)?;
    }
    let built = place.join("dist");
    let mut build = Command::new(place.join("bin/python"));
    build.args(["-m", "build", "--no-isolation", "--outdir"]).arg(&built).current_dir(&package);
    ci::step("wheel", build.stdout(std::process::Stdio::null()))?;
    let wheel = built.join(format!("autonomy_gate-{}-py3-none-any.whl", env!("CARGO_PKG_VERSION")));
    ci::step("autonomy-gate", pip(&place).args(["--no-deps", "--force-reinstall"]).arg(wheel))?;
    Ok(place)
}

/// Makes an environment of this machine's Python.
fn of_machine(place: &Path) -> Command {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(place);
    venv
}

/// Makes an environment of the oldest Python.
fn oldest(place: &Path) -> Command {
    let mut unpack = Command::new("sh");
    unpack.args(["-ec", UNPACK, OLDEST]).arg(place);
    unpack
}

fn pip(place: &Path) -> Command {
    let mut pip = Command::new(place.join("bin/pip"));
    // Whoever runs it: the environment is its own.
    pip.env("PIP_ROOT_USER_ACTION", "ignore");
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    pip
}
