//! The languages: each package is built, tested and measured by its own file here, and held to
//! `docs/src/spec/conformance.md` by this one.

mod c;
mod go;
mod java;
mod js;
mod python;
mod together;

pub use c::header;
pub use js::lint;

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Result, ci, wasm};

/// A language of `bindings/`.
struct Language {
    /// As its runner says it.
    name: &'static str,
    /// Succeeds where its toolchain is.
    probe: &'static str,
    /// Builds the package as its users get it.
    build: fn(&Path) -> Result<()>,
    /// Where it is then.
    built: &'static str,
    /// Runs the tests of what was built; gives what they printed.
    test: fn(&Path) -> Result<String>,
    /// A runtime that uses what was built, without its arguments.
    driver: fn(&Path) -> Result<Command>,
    /// Measures the package beside its peers; gives what was printed.
    bench: fn(&Path) -> Result<String>,
    /// How many engines run the corpora there. The oldest version of a language that its package is for is one.
    engines: usize,
    /// How many of them are played no fault.
    without_faults: usize,
}

/// Every language, in the order of the table.
const LANGUAGES: [Language; 5] = [
    Language {
        name: "js",
        probe: "command -v node && command -v npm",
        build: js::build,
        built: "target/js/autonomy-gate.tgz",
        test: js::test,
        driver: js::driver,
        bench: js::bench,
        engines: 4,
        without_faults: 2, // those in pages
    },
    Language {
        name: "python",
        probe: "python3 -c 'import ensurepip, sys, venv; assert sys.version_info >= (3, 10)'",
        build: python::build,
        built: "target/bindings-python/dist",
        test: python::test,
        driver: python::driver,
        bench: python::bench,
        engines: 2,
        without_faults: 0,
    },
    Language {
        name: "go",
        probe: "command -v go && command -v gofmt",
        build: go::build,
        built: "target/go/package",
        test: go::test,
        driver: go::driver,
        bench: go::bench,
        engines: 2,
        without_faults: 0,
    },
    Language {
        name: "java",
        probe: "command -v javac && command -v mvn && python3 -c 'import ensurepip, venv'",
        build: java::build,
        built: "the local Maven repository",
        test: java::test,
        driver: java::driver,
        bench: java::bench,
        engines: 2,
        without_faults: 0,
    },
    Language {
        name: "c",
        probe: "command -v cc && command -v c++ && command -v make",
        build: c::build,
        built: "target/c/prefix",
        test: c::test,
        driver: c::driver,
        bench: c::bench,
        engines: 1,
        without_faults: 0,
    },
];

/// What every guard must withstand: the table of the contract.
const FAULTS: [&str; 11] = [
    "host_down",
    "source_down",
    "host_slow",
    "host_lying",
    "append_lying",
    "disk_full",
    "facts_lost",
    "token_wrong",
    "other_abi",
    "trap",
    "threads",
];

/// Open Policy Agent's compiler: for benchmarks alone.
const OPA: &str = "github.com/open-policy-agent/opa";
const OPA_VERSION: &str = "v1.10.1";

const TRANSCRIPTS: &str = "tests/corpus/transcripts.json";

/// What each corpus must come to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transcript {
    cases: usize,
    transcript: String,
}

/// A line that a runner printed after `conformance `.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Corpus {
        language: String,
        engine: String,
        corpus: String,
        cases: usize,
        transcript: String,
        ms: u64,
    },
    Fault {
        language: String,
        engine: String,
        fault: String,
    },
    /// An engine that is not here, and why.
    Skipped {
        language: String,
        skipped: String,
    },
}

/// What an engine has run.
#[derive(Debug, Default)]
struct Ran {
    corpora: Vec<String>,
    faults: Vec<String>,
}

/// A line that a benchmark printed after `bench `.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that they are there is what is asked")]
struct Measurement {
    language: String,
    engine: String,
    what: String,
    p50_ns: u64,
    p95_ns: u64,
    p99_ns: u64,
    calls: u64,
}

/// What is measured of each package: the table of the contract.
const MEASURED: [&str; 5] = ["load", "verdict", "decide", "decide_first", "decide_durable"];

/// The names of the languages.
pub fn names() -> Vec<&'static str> {
    LANGUAGES.iter().map(|language| language.name).collect()
}

/// Builds the package of one language.
pub fn package(root: &Path, name: &str) -> Result<()> {
    let language = named(name)?;
    (language.build)(root)?;
    println!("{}", language.built);
    Ok(())
}

/// Runs the tests of one language.
pub fn test(root: &Path, name: &str) -> Result<()> {
    let language = named(name)?;
    ci::install_programs()?;
    wasm::write_doctored(root)?;
    let table = test_one(root, language)?;
    println!("{}", table.join("\n"));
    Ok(())
}

/// Runs the tests of every language whose toolchain is here, then their runtimes together, and prints the tables. The
/// doctored modules must be there.
pub fn test_all(root: &Path) -> Result<()> {
    let (present, skipped) = present()?;
    let mut table = Vec::new();
    for language in &present {
        table.extend(test_one(root, language)?);
    }
    let together = together::test(root, &present)?;
    println!("\n{:<8} {:<36} {:<12} {:>8} {:>9}", "language", "engine", "corpus", "cases", "time");
    println!("{}\n\n{together}", table.join("\n"));
    say_skipped(&skipped);
    Ok(())
}

/// Runs a runtime in each language whose toolchain is here, on one node.
pub fn test_together(root: &Path) -> Result<()> {
    ci::install_programs()?;
    let (present, skipped) = present()?;
    for language in &present {
        (language.build)(root)?;
    }
    println!("{}", together::test(root, &present)?);
    say_skipped(&skipped);
    Ok(())
}

/// Measures one language.
pub fn bench(root: &Path, name: &str) -> Result<()> {
    bench_one(root, named(name)?)
}

/// Measures every language whose toolchain is here.
pub fn bench_all(root: &Path) -> Result<()> {
    let (present, skipped) = present()?;
    for language in present {
        bench_one(root, language)?;
    }
    say_skipped(&skipped);
    Ok(())
}

/// Fails in CI where a toolchain is missing: before the first test, not behind the last.
pub fn check_toolchains() -> Result<()> {
    present().map(drop)
}

/// The languages whose toolchain is here, and the others, of which CI may have none.
fn present() -> Result<(Vec<&'static Language>, Vec<&'static Language>)> {
    let (present, missing): (Vec<_>, Vec<_>) = LANGUAGES.iter().partition(|language| ci::succeeds(language.probe));
    match missing.first() {
        Some(language) if ci::is_ci() => {
            Err(format!("the toolchain of `{}` is missing: `{}` fails", language.name, language.probe).into())
        }
        Some(_) | None => Ok((present, missing)),
    }
}

fn say_skipped(languages: &[&Language]) {
    for language in languages {
        println!("SKIPPED {}: its toolchain is missing: `{}` fails", language.name, language.probe);
    }
}

fn named(name: &str) -> Result<&'static Language> {
    let found = LANGUAGES.iter().find(|language| language.name == name);
    found.ok_or_else(|| format!("`{name}` is no language of bindings/: use one of {}", names().join(", ")).into())
}

/// Runs the tests of a language and gives its rows of the table.
fn test_one(root: &Path, language: &Language) -> Result<Vec<String>> {
    (language.build)(root)?;
    let printed = (language.test)(root)?;
    let want: BTreeMap<String, Transcript> = serde_json::from_str(&fs::read_to_string(root.join(TRANSCRIPTS))?)?;
    let (mut rows, mut ran, mut absent) = (Vec::new(), BTreeMap::<String, Ran>::new(), 0);
    for json in printed.lines().filter_map(|line| line.strip_prefix("conformance ")) {
        let line = serde_json::from_str(json).map_err(|error| format!("`conformance {json}`: {error}"))?;
        let (Line::Corpus { language: said, .. }
        | Line::Fault { language: said, .. }
        | Line::Skipped { language: said, .. }) = &line;
        if said != language.name {
            return Err(format!("`{said}` is printed, `{}` runs", language.name).into());
        }
        match line {
            Line::Corpus { language: said, engine, corpus, cases, transcript, ms } => {
                let want = want.get(&corpus).ok_or_else(|| format!("`{corpus}` is no corpus"))?;
                let (found, expected) = ((cases, &transcript), (want.cases, &want.transcript));
                if found != expected {
                    return Err(format!("{engine}, {corpus}: found {found:?}, expected {expected:?}").into());
                }
                let seconds = f64::from(u32::try_from(ms)?) / 1000.0;
                rows.push(format!("{said:<8} {engine:<36} {corpus:<12} {cases:>8} {seconds:>7.1} s"));
                ran.entry(engine).or_default().corpora.push(corpus);
            }
            Line::Fault { engine, fault, .. } => ran.entry(engine).or_default().faults.push(fault),
            Line::Skipped { skipped, .. } if ci::is_ci() => return Err(format!("{}: {skipped}", language.name).into()),
            Line::Skipped { language: said, skipped } => {
                rows.push(format!("{said:<8} SKIPPED {skipped}"));
                absent += 1;
            }
        }
    }
    complete(language, language.engines.saturating_sub(absent), &want, &ran)?;
    Ok(rows)
}

/// Fails where not each of so many engines has run every corpus, or not each that is to be played the faults was played them all.
fn complete(
    language: &Language,
    engines: usize,
    corpora: &BTreeMap<String, Transcript>,
    ran: &BTreeMap<String, Ran>,
) -> Result<()> {
    for (engine, Ran { corpora: found, faults }) in ran {
        if let Some(missing) = corpora.keys().find(|corpus| !found.contains(corpus)) {
            return Err(format!("{}, {engine}: the corpus `{missing}` was not run", language.name).into());
        }
        let missing = FAULTS.into_iter().find(|fault| !faults.iter().any(|played| played == fault));
        if let Some(missing) = missing.filter(|_| !faults.is_empty()) {
            return Err(format!("{}, {engine}: the fault `{missing}` was not played", language.name).into());
        }
    }
    // Where this machine's version is the oldest, one name stands for two.
    let runs = ran.values().map(|ran| ran.corpora.len()).sum::<usize>();
    let without_faults = ran.values().filter(|ran| ran.faults.is_empty()).count();
    if (runs, without_faults) != (engines * corpora.len(), language.without_faults) {
        let found: Vec<_> = ran.keys().collect();
        return Err(format!("{}: {engines} engines were to run, and ran {found:?}", language.name).into());
    }
    Ok(())
}

/// Measures a language, and fails where no engine of it has all that the contract names.
fn bench_one(root: &Path, language: &Language) -> Result<()> {
    let printed = (language.bench)(root)?;
    let mut measured = BTreeMap::<String, Vec<String>>::new();
    for json in printed.lines().filter_map(|line| line.strip_prefix("bench ")) {
        let Measurement { language: said, engine, what, .. } =
            serde_json::from_str(json).map_err(|error| format!("`bench {json}`: {error}"))?;
        if said != language.name {
            return Err(format!("`{said}` is printed, `{}` runs", language.name).into());
        }
        measured.entry(engine).or_default().push(what);
    }
    if !measured.values().any(|whats| MEASURED.iter().all(|what| whats.iter().any(|measured| measured == what))) {
        return Err(format!("{}: no engine has all of {MEASURED:?}: {measured:?}", language.name).into());
    }
    Ok(())
}

/// The `autonomy` command: the one that `AUTONOMY` names, or else one that is built here.
fn autonomy(root: &Path) -> Result<PathBuf> {
    if let Some(given) = env::var_os("AUTONOMY") {
        return Ok(given.into());
    }
    let mut build = ci::cargo(root);
    ci::step("autonomy", build.args(["build", "--locked", "--quiet", "--package", "autonomy-cli"]))?;
    Ok(root.join("target/debug/autonomy"))
}

/// Compiles the Rego that a package is measured beside to WebAssembly, with Open Policy Agent's own compiler.
fn opa(root: &Path, package: &str) -> Result<PathBuf> {
    let place = root.join("target").join(format!("opa-{OPA_VERSION}"));
    let compiler = place.join("opa");
    if !compiler.exists() {
        let mut install = Command::new("go");
        install.arg("install").arg(format!("{OPA}@{OPA_VERSION}")).current_dir(root);
        ci::step("opa", install.env("GOBIN", &place).env("GOFLAGS", "-modcacherw"))?;
    }
    let mut build = Command::new(compiler);
    build.args(["build", "--target", "wasm", "--entrypoint", "gate/allow", "--output", "gate.tar.gz"]);
    ci::step("gate.rego", build.arg(root.join(package).join("bench/gate.rego")).current_dir(&place))?;
    ci::step("policy.wasm", Command::new("tar").args(["-xzf", "gate.tar.gz", "/policy.wasm"]).current_dir(&place))?;
    Ok(place.join("policy.wasm"))
}

/// Runs a command as [`ci::step`] does, shows what it prints, and gives it.
fn stream(name: &str, command: &mut Command) -> Result<String> {
    let mut printed = String::new();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name}: {command:?} cannot be run: {error}"))?;
    println!("== {name}");
    let output = child.stdout.take().ok_or("the command has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        printed += &line;
        printed.push('\n');
    }
    if !child.wait()?.success() {
        return Err(format!("{name} failed: {command:?}").into());
    }
    Ok(printed)
}
