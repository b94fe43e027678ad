//! Builds the npm package `autonomy-gate`, and loads the packed tarball wherever it is to work.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::stream;
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
pub fn pack(root: &Path) -> Result<PathBuf> {
    bindgen(root, &["--features", "js"], BUILT)?;
    let package = root.join(PACKAGE);
    install(&package)?;
    ci::step("autonomy-gate", Command::new("npm").args(["run", "--silent", "build"]).current_dir(&package))?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--silent", "--pack-destination"]).arg(root.join(BUILT)).current_dir(&package);
    ci::step("npm pack", &mut pack)?;
    let tarball = root.join(TARBALL);
    fs::rename(root.join(BUILT).join(format!("autonomy-gate-{}.tgz", env!("CARGO_PKG_VERSION"))), &tarball)?;
    Ok(tarball)
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
    let tarball = pack(root)?;
    install(&root.join(PACKAGE).join("test"))?;
    let mut test = Command::new("npm");
    test.args(["test", "--silent"]).current_dir(root.join(PACKAGE));
    test.env("AUTONOMY_GATE_TARBALL", tarball).env("AUTONOMY_GATE_TRAPPING", root.join(TRAPPING));
    stream("tests of autonomy-gate", &mut test)
}

/// Measures the package beside its peers.
pub fn bench(root: &Path) -> Result<String> {
    pack(root)?;
    let bench = root.join(PACKAGE).join("bench");
    install(&bench)?;
    stream("autonomy-gate", Command::new("node").args(["--expose-gc", "bench.mjs"]).current_dir(&bench))
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
    let module = wasm::shrink(root, &fs::read(directory.join("gate_bindgen_bg.wasm"))?)?;
    println!("gate_bindgen.wasm: {} bytes, {} compressed", module.len(), wasm::gzip(&module)?);
    fs::write(directory.join("gate_bindgen.wasm"), module)?;
    Ok(())
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
