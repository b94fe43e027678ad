//! Builds the Maven package `dev.autonomygate:autonomy-gate`, and uses it from a project of its own.

use std::{fs, path::Path, process::Command};

use super::{autonomy, stream};
use crate::{Result, ci};

/// The package.
const PACKAGE: &str = "bindings/java";

/// Where projects that use it are laid out: outside of its sources, so that they see the jar alone.
const PROJECTS: &str = "target/java";

/// Installs the package into the local repository, and runs its tests on the jar.
pub fn test(root: &Path) -> Result<String> {
    install(root)?;
    let mut test = project(root, "test")?;
    stream("tests of autonomy-gate", test.arg("test").env("AUTONOMY", autonomy(root)?))
}

/// Measures the package beside its peer.
pub fn bench(root: &Path) -> Result<String> {
    install(root)?;
    let mut bench = project(root, "bench")?;
    stream("autonomy-gate", bench.args(["compile", "exec:exec"]).env("AUTONOMY", autonomy(root)?))
}

/// Compiles gate.wasm and the package, with every lint and every check of its documentation.
fn install(root: &Path) -> Result<()> {
    ci::step("autonomy-gate", maven().arg("install").current_dir(root.join(PACKAGE)))
}

/// A project that uses the package, in a directory of its own.
fn project(root: &Path, name: &str) -> Result<Command> {
    let (from, to) = (root.join(PACKAGE).join(name), root.join(PROJECTS).join(name));
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    copy(&from, &to)?;
    let mut mvn = maven();
    mvn.arg(format!("-Dautonomy.gate.version={}", env!("CARGO_PKG_VERSION")));
    mvn.arg(format!("-Dautonomy.root={}", root.display())).current_dir(to);
    Ok(mvn)
}

fn maven() -> Command {
    let mut mvn = Command::new("mvn");
    mvn.args(["--batch-mode", "--no-transfer-progress", "--quiet", "-Dstyle.color=never"]);
    mvn
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
