//! Builds `gate.wasm`: compiled, finished, shrunk, checked, and put where bindings and host-native pick it up.

mod arrange;

use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ffi::OsString,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};
use wasm_encoder::reencode::{self, Reencode};
use wasmparser::{DataKind, ExternalKind, Operator, Parser, Payload};

use crate::{Result, ci};

/// What the module is built for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Where the module is kept: committed, so that nobody who embeds it must build it.
pub const MODULE: &str = "gate-wasm/gate.wasm";

/// Copies that are committed as well: Go fetches a module from the repository, and embeds nothing from outside of it.
const COPIES: [&str; 1] = ["bindings/go/gate.wasm"];

/// The module with a trap in it, for tests.
const TRAPPING: &str = "target/gate-trap.wasm";

/// The module with major version 2 of the ABI, for tests.
const OTHER_ABI: &str = "target/gate-abi-2.wasm";

/// Largest module, in bytes, as it is and compressed by `gzip -9`.
const MOST_BYTES: (usize, usize) = (96 * 1024, 40 * 1024);

/// Its contract, whose table of exports is all that the module may export: another name is another ABI.
const CONTRACT: &str = "docs/src/spec/abi.md";

/// Builds the module and writes it where it is kept.
pub fn write(root: &Path) -> Result<()> {
    let module = build(root, &[])?;
    check(root, &module)?;
    for path in [MODULE].iter().chain(&COPIES) {
        fs::write(root.join(path), &module)?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Builds the module and fails when the kept one is another.
pub fn check_fresh(root: &Path) -> Result<()> {
    let module = build(root, &[])?;
    check(root, &module)?;
    if fs::read(root.join(MODULE)).ok().as_deref() != Some(&module) {
        return Err(format!("`{MODULE}` is stale: run `cargo xtask wasm` and commit it").into());
    }
    check_copies(root)
}

/// Fails when a copy is not the module that is kept.
pub fn check_copies(root: &Path) -> Result<()> {
    let module = fs::read(root.join(MODULE))?;
    for path in COPIES {
        if fs::read(root.join(path)).ok().as_ref() != Some(&module) {
            return Err(format!("`{path}` is stale: run `cargo xtask wasm` and commit it").into());
        }
    }
    Ok(())
}

/// Builds the modules for tests of hosts: one that traps when it is asked to, and one with another ABI.
pub fn write_doctored(root: &Path) -> Result<()> {
    let trapping = build(root, &["--features", "inject-trap"])?;
    fs::write(root.join(OTHER_ABI), with_major(&trapping, 2)?)?;
    fs::write(root.join(TRAPPING), trapping)?;
    Ok(())
}

fn build(root: &Path, features: &[&str]) -> Result<Vec<u8>> {
    arrange::arrange(&shrink(root, &finish(&compile(root, features)?)?)?)
}

/// The module, saying that it has this major version of the ABI.
fn with_major(module: &[u8], major: i32) -> Result<Vec<u8>> {
    let mut doctored = wasm_encoder::Module::new();
    let global = exported_globals(module)?.into_iter().find(|(name, _)| name == "gate_abi_major");
    let (_, index) = global.ok_or("the module has no gate_abi_major")?;
    let mut doctor = Finish { values: BTreeMap::from([(index, major)]), global: 0 };
    doctor.parse_core_module(&mut doctored, Parser::new(0), module)?;
    Ok(doctored.finish())
}

/// Each global that says a version of the ABI, by its name and index.
fn exported_globals(module: &[u8]) -> Result<Vec<(String, usize)>> {
    let mut globals = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                let export = export?;
                if export.kind == ExternalKind::Global && export.name.starts_with("gate_abi_") {
                    globals.push((export.name.to_owned(), usize::try_from(export.index)?));
                }
            }
        }
    }
    Ok(globals)
}

/// What rustc makes of gate-wasm.
pub fn compile(root: &Path, features: &[&str]) -> Result<Vec<u8>> {
    ci::install_targets(root, &[TARGET])?;
    let home = |variable: &str, below: &str| {
        std::env::var_os(variable).or_else(|| {
            let mut home = std::env::var_os("HOME")?;
            home.push(below);
            Some(home)
        })
    };
    // No path of this machine gets into the module, so that it comes out the same on every one.
    let mut flags: Vec<OsString> = Vec::new();
    for (from, to) in [
        (Some(root.as_os_str().to_owned()), "/src"),
        (home("CARGO_HOME", "/.cargo"), "/cargo"),
        (home("RUSTUP_HOME", "/.rustup"), "/rustup"),
    ] {
        if let Some(mut remap) = from {
            remap.push("=");
            remap.push(to);
            flags.extend(["--remap-path-prefix".into(), remap]);
        }
    }
    // SHA-2 in loops, not unrolled; the curve in the few operations of 64-bit words; 128 KiB of stack, at the bottom of the
    // memory, where its overflow traps; a value of more than a word is copied and cleared by one instruction, not word by word;
    // no load or store is doubled to leave a loop or a branch.
    for choice in [r#"sha2_backend_soft="compact""#, r#"curve25519_dalek_bits="64""#] {
        flags.extend(["--cfg", choice].map(OsString::from));
    }
    flags.extend(["-C", "link-arg=-zstack-size=131072"].map(OsString::from));
    let smaller = "-max-store-memcpy=1 -max-store-memset=1 -enable-load-pre=false -disable-licm-promotion";
    flags.extend(["-C".into(), format!("llvm-args={smaller}").into()]);
    let mut cargo = ci::cargo(root);
    // Of this crate type alone: with the `rlib` beside it, cargo leaves link-time optimization out.
    cargo.args(["rustc", "--locked", "--quiet", "--package", "gate-wasm", "--lib", "--crate-type", "cdylib"]);
    cargo
        .args(["--profile", "wasm", "--target", TARGET])
        .args(features)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f")));
    ci::step("gate.wasm", &mut cargo)?;
    Ok(fs::read(root.join("target").join(TARGET).join("wasm/gate_wasm.wasm"))?)
}

/// The linker exports a static as a global that holds its address: this puts the value in its place. What is of use to a
/// linker alone goes.
fn finish(module: &[u8]) -> Result<Vec<u8>> {
    let (mut addresses, mut segments) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::GlobalSection(globals) => {
                for global in globals {
                    addresses.push(constant(global?.init_expr)?);
                }
            }
            Payload::DataSection(data) => {
                for segment in data {
                    let segment = segment?;
                    if let DataKind::Active { offset_expr, .. } = segment.kind {
                        segments.push((usize::try_from(constant(offset_expr)?)?, segment.data));
                    }
                }
            }
            _ => {}
        }
    }
    let mut values = BTreeMap::new();
    for (_, index) in exported_globals(module)? {
        let address = usize::try_from(*addresses.get(index).ok_or("an exported global does not exist")?)?;
        let value = segments.iter().find_map(|(start, bytes)| {
            bytes.get(address.checked_sub(*start)?..)?.first_chunk::<4>().map(|bytes| i32::from_le_bytes(*bytes))
        });
        // What is in no segment is zero from the start.
        values.insert(index, value.unwrap_or(0));
    }
    let mut finished = wasm_encoder::Module::new();
    Finish { values, global: 0 }.parse_core_module(&mut finished, Parser::new(0), module)?;
    Ok(finished.finish())
}

fn constant(expression: wasmparser::ConstExpr<'_>) -> Result<i32> {
    match expression.get_operators_reader().read()? {
        Operator::I32Const { value } => Ok(value),
        other => Err(format!("a constant is wanted where `{other:?}` stands").into()),
    }
}

struct Finish {
    /// What some globals hold, by index.
    values: BTreeMap<usize, i32>,
    /// The index of the next one.
    global: usize,
}

impl Reencode for Finish {
    type Error = Infallible;

    fn parse_global(
        &mut self,
        globals: &mut wasm_encoder::GlobalSection,
        global: wasmparser::Global<'_>,
    ) -> std::result::Result<(), reencode::Error<Infallible>> {
        let index = self.global;
        self.global += 1;
        match self.values.get(&index).copied() {
            Some(value) => {
                let kind = self.global_type(global.ty)?;
                globals.global(kind, &wasm_encoder::ConstExpr::i32_const(value));
                Ok(())
            }
            None => reencode::utils::parse_global(self, globals, global),
        }
    }

    fn parse_export(
        &mut self,
        exports: &mut wasm_encoder::ExportSection,
        export: wasmparser::Export<'_>,
    ) -> std::result::Result<(), reencode::Error<Infallible>> {
        match export.name {
            "__data_end" | "__heap_base" => Ok(()),
            _ => reencode::utils::parse_export(self, exports, export),
        }
    }

    fn parse_custom_section(
        &mut self,
        _: &mut wasm_encoder::Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> std::result::Result<(), reencode::Error<Infallible>> {
        Ok(())
    }
}

/// `wasm-opt` of the pinned version, through Node.
pub fn shrink(root: &Path, module: &[u8]) -> Result<Vec<u8>> {
    let tools = ci::install_node_packages(root, "xtask/npm")?;
    let (large, small) = (root.join("target/gate.large.wasm"), root.join("target/gate.small.wasm"));
    fs::write(&large, module)?;
    let mut shrink = Command::new(tools.join("node_modules/.bin/wasm-opt"));
    // No value lies in the first KiB: the stack ends there.
    shrink.args(["--low-memory-unused", "-Oz", "--converge", "--flatten", "--rereloop", "-Oz", "-Oz"]);
    shrink.args(["--strip-debug", "--strip-producers", "--strip-target-features"]);
    // A function stays apart from its one caller: alike ones can then stand together, and HotSpot never compiles a method of
    // more than 8,000 bytes of bytecode.
    shrink.arg("--one-caller-inline-max-function-size=0");
    // What rustc's target has by default, and nothing beyond: every engine of the bindings knows these.
    for feature in
        ["bulk-memory", "multivalue", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext"]
    {
        shrink.arg(format!("--enable-{feature}"));
    }
    ci::step("wasm-opt", shrink.arg(&large).arg("--output").arg(&small))?;
    Ok(fs::read(small)?)
}

/// What every module must be: it imports nothing, exports what its contract says, and is small.
fn check(root: &Path, module: &[u8]) -> Result<()> {
    let mut exports = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(_) => return Err("the module imports something: it may import nothing".into()),
            Payload::ExportSection(section) => {
                for export in section {
                    exports.insert(export?.name);
                }
            }
            _ => {}
        }
    }
    let contract = fs::read_to_string(root.join(CONTRACT))?;
    let table = contract.lines().skip_while(|line| !line.starts_with("| export |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let expected: BTreeSet<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    if exports != expected {
        return Err(format!("the module exports {exports:?}: `{CONTRACT}` has {expected:?}").into());
    }
    let sha256: String = Sha256::digest(module).iter().map(|byte| format!("{byte:02x}")).collect();
    let (bytes, compressed) = (module.len(), gzip(module)?);
    println!("gate.wasm: {bytes} bytes, {compressed} compressed, SHA-256 {sha256}");
    if bytes > MOST_BYTES.0 || compressed > MOST_BYTES.1 {
        return Err(format!("the module must have at most {MOST_BYTES:?} bytes, as it is and compressed").into());
    }
    Ok(())
}

/// How many bytes `gzip -9` leaves.
pub fn gzip(module: &[u8]) -> Result<usize> {
    let mut gzip = Command::new("gzip").args(["-9", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().ok_or("gzip has no input")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(module));
        gzip.wait_with_output()
    })?;
    Ok(output.stdout.len())
}
