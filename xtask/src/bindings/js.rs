//! Builds the npm package `autonomy-gate`, and loads the packed tarball wherever it is to work.

use std::{fs, path::Path, process::Command};

use super::{autonomy, opa, stream};
use crate::{Result, ci, wasm};

/// The package.
const PACKAGE: &str = "bindings/js";

/// What is built for it: wasm-bindgen's module and glue, and the tarball.
const BUILT: &str = "target/js";

/// The tarball.
const TARBALL: &str = "target/js/autonomy-gate.tgz";

/// The module and the glue that trap when they are asked to, for tests.
const TRAPPING: &str = "target/js/trapping";

/// Builds the package and packs it.
pub fn build(root: &Path) -> Result<()> {
    bindgen(root, &["--features", "js"], BUILT)?;
    let module = root.join(BUILT).join("gate_bindgen.wasm");
    let shrunk = wasm::shrink(root, &fs::read(&module)?)?;
    println!("gate_bindgen.wasm: {} bytes, {} compressed", shrunk.len(), wasm::gzip(&shrunk)?);
    fs::write(module, shrunk)?;
    let package = root.join(PACKAGE);
    install(&package)?;
    ci::step("autonomy-gate", Command::new("npm").args(["run", "--silent", "build"]).current_dir(&package))?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--silent", "--pack-destination"]).arg(root.join(BUILT)).current_dir(&package);
    ci::step("npm pack", &mut pack)?;
    let packed = root.join(BUILT).join(format!("autonomy-gate-{}.tgz", env!("CARGO_PKG_VERSION")));
    Ok(fs::rename(packed, root.join(TARBALL))?)
}

/// Lints what no other command builds: the module's surface for JavaScript, and wasm-bindgen's command.
pub fn lint(root: &Path) -> Result<()> {
    ci::install_targets(root, &[wasm::TARGET])?;
    for arguments in
        [["gate-wasm", "--features", "js", "--target", wasm::TARGET].as_slice(), &["xtask", "--features", "bindgen"]]
    {
        let mut clippy = ci::cargo(root);
        clippy.args(["clippy", "--locked", "--quiet", "--package"]).args(arguments);
        ci::step("lints for JavaScript", clippy.args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// Runs the tests of the package, on the tarball.
pub fn test(root: &Path) -> Result<String> {
    bindgen(root, &["--features", "js,inject-trap"], TRAPPING)?;
    install(&root.join(PACKAGE).join("test"))?;
    let mut test = Command::new("npm");
    test.args(["test", "--silent"]).current_dir(root.join(PACKAGE));
    test.env("AUTONOMY_GATE_TARBALL", root.join(TARBALL)).env("AUTONOMY_GATE_TRAPPING", root.join(TRAPPING));
    test.env("AUTONOMY", autonomy(root)?);
    stream("tests of autonomy-gate", &mut test)
}

/// The runtime that is tested beside those of the other languages.
pub fn driver(root: &Path) -> Result<Command> {
    let package = root.join(PACKAGE);
    let mut unpack = Command::new("node");
    unpack.args(["scripts/unpack.mjs", "test"]).current_dir(&package).env("AUTONOMY_GATE_TARBALL", root.join(TARBALL));
    ci::step("unpack", &mut unpack)?;
    let mut node = Command::new("node");
    node.arg(package.join("test/driver.mjs"));
    Ok(node)
}

/// Measures the package beside its peers.
pub fn bench(root: &Path) -> Result<String> {
    build(root)?;
    install(&root.join(PACKAGE).join("bench"))?;
    let mut bench = Command::new("npm");
    bench.args(["run", "--silent", "bench"]).current_dir(root.join(PACKAGE));
    bench.env("AUTONOMY_GATE_TARBALL", root.join(TARBALL)).env("AUTONOMY", autonomy(root)?);
    bench.env("AUTONOMY_GATE_OPA", opa(root, PACKAGE)?);
    stream("autonomy-gate", &mut bench)
}

/// Builds gate-wasm with these features, and lets wasm-bindgen write module and glue into a directory.
fn bindgen(root: &Path, features: &[&str], directory: &str) -> Result<()> {
    let directory = root.join(directory);
    fs::create_dir_all(&directory)?;
    let compiled = directory.join("compiled.wasm");
    // wasm-bindgen wants to know which features of WebAssembly rustc used; what says so is stripped afterwards.
    let arguments = [features, &["--config", "profile.wasm.strip = false"]].concat();
    fs::write(&compiled, wasm::compile(root, &arguments)?)?;
    let mut bindgen = ci::cargo(root);
    bindgen.args(["run", "--locked", "--quiet", "--package", "xtask", "--features", "bindgen"]);
    ci::step("wasm-bindgen", bindgen.args(["--bin", "xtask-bindgen", "--"]).arg(&compiled).arg(&directory))?;
    Ok(fs::rename(directory.join("gate_bindgen_bg.wasm"), directory.join("gate_bindgen.wasm"))?)
}

/// Installs what a folder's lock file pins, there: Node looks for packages beside the code.
fn install(folder: &Path) -> Result<()> {
    let lock = fs::read(folder.join("package-lock.json"))?;
    // Written last: what is there is whole.
    let installed = folder.join("node_modules/.installed.json");
    if fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    ci::step("node packages", npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder))?;
    fs::write(&installed, lock)?;
    Ok(())
}
