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

/// Where it is installed, beside its peers.
const PEERS: &str = "target/bindings-python-bench";

/// Builds the wheel and installs it, with what tests it.
pub fn build(root: &Path) -> Result<()> {
    install(root, ENVIRONMENT, "requirements/test.txt").map(drop)
}

/// Runs the lints and the tests of the package, on the wheel.
pub fn test(root: &Path) -> Result<String> {
    let (package, environment) = (root.join(PACKAGE), root.join(ENVIRONMENT));
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(environment.join("bin").join(program));
        command.args(arguments).current_dir(&package);
        command
    };
    ci::step("ruff format", &mut run("ruff", &["format", "--quiet", "--check", "."]))?;
    ci::step("ruff check", &mut run("ruff", &["check", "--quiet", "."]))?;
    ci::step("mypy", &mut run("mypy", &["src", "hatch_build.py", "examples"]))?;
    let tests =
        stream("tests of autonomy-gate", run("python", &["-m", "pytest"]).env("AUTONOMY", super::autonomy(root)?))?;
    Ok(tests + &stream("corpora", &mut run("python", &["tests/conformance.py"]))?)
}

/// The runtime that is tested beside those of the other languages.
pub fn driver(root: &Path) -> Result<Command> {
    let mut python = Command::new(root.join(ENVIRONMENT).join("bin/python"));
    python.arg(root.join(PACKAGE).join("tests/driver.py"));
    Ok(python)
}

/// Measures the package beside its peers.
pub fn bench(root: &Path) -> Result<String> {
    let environment = install(root, PEERS, "requirements/bench.txt")?;
    let mut bench = Command::new(environment.join("bin/python"));
    bench.arg("bench/bench.py").current_dir(root.join(PACKAGE)).env("AUTONOMY", super::autonomy(root)?);
    bench.env("AUTONOMY_GATE_OPA", super::opa(root, PACKAGE)?);
    stream("autonomy-gate", &mut bench)
}

/// Unpacks one package, and gives where.
pub fn download(place: &Path, package: &str) -> Result<PathBuf> {
    let unpacked = place.join(package);
    if !unpacked.exists() {
        ci::step("python", Command::new("python3").args(["-m", "venv", "--clear"]).arg(place))?;
        // Under its name when it is whole.
        let part = place.join("part");
        ci::step(package, pip(place).args(["--only-binary", ":all:", "--no-deps", package, "--target"]).arg(&part))?;
        fs::rename(part, &unpacked)?;
    }
    Ok(unpacked)
}

/// Makes an environment of what a file pins, and installs the wheel there, built anew.
fn install(root: &Path, place: &str, requirements: &str) -> Result<PathBuf> {
    let (package, place) = (root.join(PACKAGE), root.join(place));
    let wanted = fs::read(package.join(requirements))?;
    // Written last: what is there is whole.
    let installed = place.join("requirements.txt");
    if !fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        ci::step("python", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
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

fn pip(place: &Path) -> Command {
    let mut pip = Command::new(place.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    pip
}
