//! Builds the wheel `autonomy-gate`, and tests it where it is installed.

use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::stream;
use crate::{Result, ci};

/// The package.
const PACKAGE: &str = "bindings/python";

/// Where it is built and installed, with what tests it.
const ENVIRONMENT: &str = "target/bindings-python";

/// The oldest Python that it is for.
const OLDEST: &str = "3.10.16";

/// Succeeds where [`UNPACK`] has what it needs.
const UNPACKS: &str = "command -v go && command -v gunzip";

/// Unpacks that Python and its pip from a Go module, `$0`, into an environment, `$1`: Debian has it no more. A module has no
/// links, and this one has its largest files compressed.
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
    let place = root.join(ENVIRONMENT);
    install_packages(root, &place, of_machine, TESTS)?;
    let mut build = Command::new(place.join("bin/python"));
    build.args(["-m", "build", "--no-isolation", "--outdir"]).arg(place.join("dist")).current_dir(root.join(PACKAGE));
    ci::step("wheel", build.stdout(std::process::Stdio::null()))?;
    install_wheel(root, &place)
}

/// Runs the lints and the tests of the package, on the wheel: by this machine's Python, and by the oldest that it is for.
pub fn test(root: &Path) -> Result<String> {
    let (autonomy, package) = (super::autonomy(root)?, root.join(PACKAGE));
    let run = |environment: &Path, program: &str, arguments: &[&str]| {
        let mut command = Command::new(environment.join("bin").join(program));
        command.args(arguments).current_dir(&package).env("AUTONOMY", &autonomy);
        command
    };
    let ours = root.join(ENVIRONMENT);
    let lint = |program, arguments: &[&str]| ci::step(program, &mut run(&ours, program, arguments));
    lint("ruff", &["format", "--quiet", "--check", "."])?;
    lint("ruff", &["check", "--quiet", "."])?;
    lint("mypy", &["src", "hatch_build.py", "examples"])?;
    let tests = |python: &str, environment: &Path| -> Result<String> {
        let tests = stream(&format!("tests on {python}"), &mut run(environment, "python", &["-m", "pytest"]))?;
        let mut corpora = run(environment, "python", &["tests/conformance.py"]);
        Ok(tests + &stream(&format!("corpora on {python}"), &mut corpora)?)
    };
    let printed = tests("this machine's Python", &ours)?;
    let python = format!("CPython {OLDEST}");
    if !ci::succeeds(UNPACKS) {
        let skipped = json!({"language": "python", "skipped": format!("{python}: `{UNPACKS}` fails")});
        let line = format!("conformance {skipped}\n");
        print!("{line}");
        return Ok(printed + &line);
    }
    let place = root.join(format!("{ENVIRONMENT}-{OLDEST}"));
    install_packages(root, &place, oldest, TESTS)?;
    install_wheel(root, &place)?;
    Ok(printed + &tests(&python, &place)?)
}

/// The runtime that is tested beside those of the other languages.
pub fn driver(root: &Path) -> Result<Command> {
    let mut python = Command::new(root.join(ENVIRONMENT).join("bin/python"));
    python.arg(root.join(PACKAGE).join("tests/driver.py"));
    Ok(python)
}

/// Measures the package beside its peers.
pub fn bench(root: &Path) -> Result<String> {
    build(root)?;
    let place = root.join(PEERS);
    install_packages(root, &place, of_machine, "requirements/bench.txt")?;
    install_wheel(root, &place)?;
    let mut bench = Command::new(place.join("bin/python"));
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
        let mut install = pip(place, "install");
        ci::step(package, install.args(["--only-binary", ":all:", "--no-deps", package, "--target"]).arg(&part))?;
        fs::rename(part, &unpacked)?;
    }
    Ok(unpacked)
}

/// Makes an environment with the packages that a file pins, unless it is there. What was downloaded stays in its `wheels`.
fn install_packages(root: &Path, place: &Path, python: fn(&Path) -> Command, requirements: &str) -> Result<()> {
    let requirements = root.join(PACKAGE).join(requirements);
    let wanted = fs::read(&requirements)?;
    let wheels = place.join("wheels");
    // Written last: what is there is whole.
    let installed = wheels.join("requirements.txt");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    ci::step("python", &mut python(place))?;
    let mut download = pip(place, "download");
    // The files name all that is needed.
    download.args(["--no-deps", "--only-binary", ":all:", "--dest"]).arg(&wheels);
    ci::step("download of python packages", download.arg("--requirement").arg(&requirements))?;
    let mut install = pip(place, "install");
    install.args(["--no-deps", "--no-index", "--find-links"]).arg(&wheels);
    ci::step("python packages", install.arg("--requirement").arg(&requirements))?;
    fs::write(&installed, wanted)?;
    Ok(())
}

/// Installs the wheel that [`build`] built.
fn install_wheel(root: &Path, place: &Path) -> Result<()> {
    let wheel = format!("dist/autonomy_gate-{}-py3-none-any.whl", env!("CARGO_PKG_VERSION"));
    let mut install = pip(place, "install");
    install.args(["--no-deps", "--force-reinstall"]).arg(root.join(ENVIRONMENT).join(wheel));
    ci::step("autonomy-gate", &mut install)
}

/// Makes an environment of this machine's Python.
fn of_machine(place: &Path) -> Command {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(place);
    venv
}

/// Makes an environment of the oldest Python.
fn oldest(place: &Path) -> Command {
    let module = format!("github.com/kluctl/go-embed-python@v0.0.0-{OLDEST}-20241219-1");
    let mut unpack = Command::new("sh");
    unpack.args(["-ec", UNPACK, &module]).arg(place);
    unpack
}

fn pip(place: &Path, command: &str) -> Command {
    let mut pip = Command::new(place.join("bin/pip"));
    // As root, pip warns that it may break the system's packages. It installs into `place` alone.
    pip.env("PIP_ROOT_USER_ACTION", "ignore");
    pip.args([command, "--quiet", "--disable-pip-version-check"]);
    pip
}
