//! Checks the Go module, and runs its tests on what is in its zip.

use std::{fs, path::Path, process::Command};

use super::stream;
use crate::{Result, ci, wasm};

/// The module. Its tests and benchmarks are modules of their own, so that its users get no dependency of theirs.
const MODULE: &str = "bindings/go";

/// What is made for the tests: the module as its users get it, and a linter.
const BUILT: &str = "target/go";

/// The module as its users get it.
const PACKED: &str = "target/go/package";

/// The linter, of one version.
const STATICCHECK: &str = "honnef.co/go/tools/cmd/staticcheck@v0.8.2";

/// The tests that run the corpora: without the race detector, which would make them ten times as long.
const CORPORA: &str = "^Test(Signatures|Bundles|Decisions)$";

/// The test of a million decisions: without the race detector as well.
const MILLION: &str = "^TestAMillion";

/// Writes the module as its users get it: what is in its zip.
pub fn build(root: &Path) -> Result<()> {
    wasm::check_copies(root)?;
    let package = root.join(PACKED);
    if package.exists() {
        fs::remove_dir_all(&package)?;
    }
    fs::create_dir_all(root.join(BUILT))?;
    let mut pack = go(&root.join(MODULE).join("test"));
    ci::step("the module's zip", pack.args(["run", "./pack"]).arg(root.join(MODULE)).arg(&package))
}

/// Runs the lints, then the tests on the module as its users get it: by this machine's Go, and by the oldest that it is for.
pub fn test(root: &Path) -> Result<String> {
    let autonomy = super::autonomy(root)?;
    lint(root, &["", "test"])?;
    let own = |name: &str, command: &mut Command, arguments: &[&str]| {
        ci::step(name, command.args(["test", "-count=1"]).args(arguments).arg("./..."))
    };
    let test = |name: &str, command: &mut Command, arguments: &[&str]| {
        stream(name, command.args(["test", "-count=1", "-v"]).args(arguments).arg(".").env("AUTONOMY", &autonomy))
    };
    own("the module's own tests", &mut go(&root.join(MODULE)), &["-race", "-skip", MILLION])?;
    own("a million decisions", &mut go(&root.join(MODULE)), &["-run", MILLION])?;
    let mut printed = test("the corpora in Go", &mut user(root)?, &["-run", CORPORA])?;
    printed += &test("tests of the Go module", &mut user(root)?, &["-race", "-skip", CORPORA])?;
    let oldest = oldest(root)?;
    own(&format!("the module's own tests on {oldest}"), go(&root.join(MODULE)).env("GOTOOLCHAIN", &oldest), &[])?;
    let name = format!("corpora and tests of the Go module on {oldest}");
    Ok(printed + &test(&name, user(root)?.env("GOTOOLCHAIN", &oldest), &[])?)
}

/// The runtime that is tested beside those of the other languages.
pub fn driver(root: &Path) -> Result<Command> {
    let driver = root.join(BUILT).join("driver");
    ci::step("driver", user(root)?.args(["build", "-o"]).arg(&driver).arg("./driver"))?;
    Ok(Command::new(driver))
}

/// Measures the module beside its peers.
pub fn bench(root: &Path) -> Result<String> {
    lint(root, &["bench"])?;
    let autonomy = super::autonomy(root)?;
    let mut bench = go(&root.join(MODULE).join("bench"));
    stream("Go", bench.args(["run", "."]).env("AUTONOMY", autonomy))
}

/// Formatting of everything, `go vet` and staticcheck of some of the modules.
fn lint(root: &Path, modules: &[&str]) -> Result<()> {
    let gofmt = Command::new("gofmt").arg("-l").arg(root.join(MODULE)).output()?;
    if !gofmt.status.success() || !gofmt.stdout.is_empty() {
        return Err(format!("run `gofmt -w` on {}", String::from_utf8_lossy(&gofmt.stdout)).into());
    }
    let bin = root.join(BUILT).join("bin");
    let staticcheck = bin.join("staticcheck");
    if !staticcheck.exists() {
        ci::step("staticcheck", go(root).args(["install", STATICCHECK]).env("GOBIN", &bin))?;
    }
    for folder in modules {
        let folder = root.join(MODULE).join(folder);
        ci::step("go vet", go(&folder).args(["vet", "./..."]))?;
        ci::step("staticcheck", Command::new(&staticcheck).arg("./...").current_dir(&folder))?;
    }
    Ok(())
}

/// The toolchain that `go.mod` asks for at least: Go fetches it itself.
fn oldest(root: &Path) -> Result<String> {
    let module = fs::read_to_string(root.join(MODULE).join("go.mod"))?;
    let version = module.lines().find_map(|line| line.strip_prefix("go "));
    Ok(format!("go{}", version.ok_or("go.mod asks for no version of Go")?))
}

/// Go in the module of the tests, with the packed module in the place of the source tree.
fn user(root: &Path) -> Result<Command> {
    let test = root.join(MODULE).join("test");
    let user = root.join(BUILT).join("user.mod");
    fs::copy(test.join("go.mod"), &user)?;
    fs::copy(test.join("go.sum"), user.with_extension("sum"))?;
    let package = root.join(PACKED);
    let replace = format!("-replace=github.com/autonomy-gate/autonomy-gate/bindings/go={}", package.display());
    ci::step("go.mod", go(root).args(["mod", "edit", &replace]).arg(&user))?;
    let mut go = go(&test);
    go.env("GOFLAGS", format!("-modfile={} -modcacherw", user.display()));
    Ok(go)
}

fn go(folder: &Path) -> Command {
    let mut go = Command::new("go");
    // Only what this repository says: no workspace above it.
    go.current_dir(folder).env("GOWORK", "off");
    go
}
