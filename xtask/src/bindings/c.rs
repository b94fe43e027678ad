//! Builds libautonomy_gate, installs it below `target/c`, and tests what is installed there.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::stream;
use crate::{Result, ci, corpus};

/// The library.
const PACKAGE: &str = "bindings/c";

/// What is built for it.
const BUILT: &str = "target/c";

/// Where it is installed, below that.
const PREFIX: &str = "prefix";

/// Writes the header. As exact as a lock file: what it writes is committed.
const CBINDGEN: &str = "0.29.4";

const HEADER: &str = "bindings/c/include/autonomy_gate.h";

const CFLAGS: [&str; 8] = ["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"];

const CXXFLAGS: [&str; 6] = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

const SANITIZERS: [&str; 3] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

const VALGRIND: [&str; 4] =
    ["--quiet", "--error-exitcode=1", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"];

/// Writes the header from the library's source.
pub fn header(root: &Path) -> Result<()> {
    fs::write(root.join(HEADER), generated(root)?)?;
    Ok(())
}

/// Builds the library and installs it.
pub fn build(root: &Path) -> Result<()> {
    Kit::install(root, PREFIX, &[]).map(drop)
}

/// Runs the tests of the library, on what is installed.
pub fn test(root: &Path) -> Result<String> {
    if fs::read_to_string(root.join(HEADER))? != generated(root)? {
        return Err(format!("`{HEADER}` is stale: run `cargo xtask c-header` and commit it").into());
    }
    let mut unit = ci::cargo(root);
    ci::step("tests in Rust", unit.args(["test", "--locked", "--quiet", "--release", "--package", "autonomy-gate"]))?;
    // In a place of its own: cargo would put both libraries into one file, and build each again every time.
    let place = root.join(BUILT).join("trapping");
    let place = format!("CARGO_TARGET_DIR={}", place.display());
    let trapping = Kit::install(root, "trap", &["FEATURES=inject-trap", &place])?;
    let kit = Kit::installed(root);
    fixture(root)?;
    let mut printed = String::new();
    let mut run = |name: &str, command: &mut Command| stream(name, command).map(|said| printed += &said);

    for (test, kit) in [("gate_test", &kit), ("guard_test", &kit), ("trap_test", &trapping)] {
        let sources = [format!("{PACKAGE}/test/{test}.c"), format!("{PACKAGE}/test/fixture.c")];
        let sanitized = kit.compile_c(&format!("{test}-sanitized"), &sources, &SANITIZERS)?;
        run(&format!("{test}, sanitized"), &mut kit.run(&sanitized))?;
        let plain = kit.compile_c(test, &sources, &[])?;
        let mut valgrind = kit.run(Path::new("valgrind"));
        run(&format!("{test}, valgrind"), valgrind.args(VALGRIND).arg(plain))?;
    }
    let sources = [format!("{PACKAGE}/test/gate_test.c"), format!("{PACKAGE}/test/fixture.c")];
    run("gate_test, static", &mut kit.run(&kit.compile_static("gate_test-static", &sources)?))?;
    let sources = [format!("{PACKAGE}/test/cpp_test.cpp")];
    let flags = [CXXFLAGS.as_slice(), &SANITIZERS].concat();
    run("cpp_test", &mut kit.run(&kit.compile("cpp_test", "c++", &flags, &sources, &[])?))?;
    let corpora = kit.compile_cpp("conformance", &[format!("{PACKAGE}/test/conformance.cpp")], &["libcrypto"])?;
    run("the corpora", kit.run(&corpora).arg("tests/corpus"))?;
    let autonomy = super::autonomy(root)?;
    readme(root, &autonomy)?;
    for (example, compiler, flags) in
        [("server.c", "cc", CFLAGS.as_slice()), ("server.cpp", "c++", CXXFLAGS.as_slice())]
    {
        let server =
            kit.compile(example, compiler, flags, &[format!("{PACKAGE}/examples/{example}")], &["libmicrohttpd"])?;
        let mut serve = kit.run(Path::new("bash"));
        serve.arg(format!("{PACKAGE}/test/server.sh")).arg(server).env("AUTONOMY", &autonomy);
        run(example, &mut serve)?;
    }
    Ok(printed)
}

/// The runtime that is tested beside those of the other languages.
pub fn driver(root: &Path) -> Result<Command> {
    let kit = Kit::installed(root);
    Ok(kit.run(&kit.compile_c("driver", &[format!("{PACKAGE}/test/driver.c")], &["-O2"])?))
}

/// Measures the library.
pub fn bench(root: &Path) -> Result<String> {
    build(root)?;
    let kit = Kit::installed(root);
    fixture(root)?;
    let bench = kit.compile_cpp("bench", &[format!("{PACKAGE}/bench/bench.cpp")], &["lua5.4"])?;
    let mut run = kit.run(Path::new("bash"));
    run.arg(format!("{PACKAGE}/bench/bench.sh")).arg(bench).env("AUTONOMY", super::autonomy(root)?);
    stream("libautonomy_gate", &mut run)
}

/// An installed library, and what is compiled against it as a user does.
struct Kit<'a> {
    root: &'a Path,
    prefix: PathBuf,
}

impl<'a> Kit<'a> {
    /// What [`build`] has installed.
    fn installed(root: &'a Path) -> Self {
        Self { root, prefix: root.join(BUILT).join(PREFIX) }
    }

    fn install(root: &'a Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let prefix = root.join(BUILT).join(name);
        if prefix.exists() {
            fs::remove_dir_all(&prefix)?;
        }
        let mut make = Command::new("make");
        make.args(["--silent", "-C"]).arg(root.join(PACKAGE)).args(["install", "PREFIX=/usr"]);
        make.arg(format!("DESTDIR={}", prefix.display())).args(arguments).env("CARGO", "cargo");
        ci::step("make install", &mut make)?;
        Ok(Self { root, prefix })
    }

    fn compile_c(&self, name: &str, sources: &[String], more: &[&str]) -> Result<PathBuf> {
        self.compile(name, "cc", &[CFLAGS.as_slice(), more].concat(), sources, &[])
    }

    fn compile_cpp(&self, name: &str, sources: &[String], packages: &[&str]) -> Result<PathBuf> {
        self.compile(name, "c++", &CXXFLAGS, sources, packages)
    }

    fn compile(
        &self,
        name: &str,
        compiler: &str,
        flags: &[&str],
        sources: &[String],
        packages: &[&str],
    ) -> Result<PathBuf> {
        let program = self.root.join(BUILT).join(name);
        let mut compile = Command::new(compiler);
        compile
            .args(flags)
            .args(sources)
            .current_dir(self.root)
            .args(self.flags(&["--cflags", "--libs"], &["autonomy_gate"])?);
        if !packages.is_empty() {
            // They are the system's: not below the prefix.
            let output = Command::new("pkg-config").args(["--cflags", "--libs"]).args(packages).output()?;
            compile.args(words(&output.stdout));
        }
        ci::step(name, compile.arg("-o").arg(&program))?;
        Ok(program)
    }

    fn compile_static(&self, name: &str, sources: &[String]) -> Result<PathBuf> {
        let program = self.root.join(BUILT).join(name);
        let mut compile = Command::new("cc");
        compile.args(CFLAGS).args(sources).current_dir(self.root).args(self.flags(&["--cflags"], &["autonomy_gate"])?);
        let libraries = self.flags(&["--libs", "--static"], &["autonomy_gate"])?;
        let archive = self.prefix.join("usr/lib/libautonomy_gate.a");
        compile.arg(archive).args(libraries.iter().filter(|flag| !flag.ends_with("autonomy_gate")));
        ci::step(name, compile.arg("-o").arg(&program))?;
        Ok(program)
    }

    fn flags(&self, arguments: &[&str], packages: &[&str]) -> Result<Vec<String>> {
        let mut config = Command::new("pkg-config");
        config.args(arguments).args(packages);
        config
            .env("PKG_CONFIG_PATH", self.prefix.join("usr/lib/pkgconfig"))
            .env("PKG_CONFIG_SYSROOT_DIR", &self.prefix);
        let output = config.output()?;
        if !output.status.success() {
            return Err(format!("pkg-config: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(words(&output.stdout))
    }

    /// A program that finds the shared library and the fixture.
    fn run(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root).env("LD_LIBRARY_PATH", self.prefix.join("usr/lib"));
        command.env("FIXTURE", self.root.join(BUILT).join("fixture"));
        // What panics here does so on purpose.
        command.env("RUST_BACKTRACE", "0");
        command
    }
}

fn words(output: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(output).split_whitespace().map(str::to_owned).collect()
}

fn generated(root: &Path) -> Result<String> {
    let cbindgen = ci::install_tool(root, "cbindgen", CBINDGEN)?;
    let mut generate = Command::new(cbindgen);
    let output =
        generate.args(["--quiet", "--config", "cbindgen.toml", "."]).current_dir(root.join(PACKAGE)).output()?;
    if !output.status.success() {
        return Err(format!("cbindgen: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The first bundle of the corpus that is accepted and declares an enrollment, as files for programs without a JSON reader.
fn fixture(root: &Path) -> Result<()> {
    let corpus: Value = serde_json::from_str(&fs::read_to_string(root.join("tests/corpus/bundles.json"))?)?;
    let bundles = corpus["bundles"].as_array().ok_or("the corpus has no bundles")?;
    let good = bundles.iter().find(|one| one["accepted"]["enrollment_ref"].is_string());
    let good = good.ok_or("the corpus has no bundle that is accepted")?;
    let tar = corpus::unpack(&good["tar"])?;
    let key = good["keys"][0].as_str().and_then(|name| corpus["keys"][name].as_str()).ok_or("the bundle has no key")?;
    let place = root.join(BUILT).join("fixture");
    fs::create_dir_all(&place)?;
    fs::write(place.join("bundle.tar"), tar)?;
    fs::write(place.join("key.pem"), key)?;
    fs::write(place.join("enrollment_ref"), good["accepted"]["enrollment_ref"].as_str().unwrap_or_default())?;
    Ok(())
}

/// What the README says, run as it stands there: installs, compiles and runs as a user does.
fn readme(root: &Path, autonomy: &Path) -> Result<()> {
    const DENIED: &str = "the call is denied: attestation: bundle_unverified\n";
    const WITH_REMEDY: &str = "403 attestation: bundle_unverified: run `autonomy bundle verify` on the bundle; rebuild or \
                               re-sign it with a trusted key\n";
    let text = fs::read_to_string(root.join(PACKAGE).join("README.md"))?;
    let blocks = blocks(&text);
    let [("c", first), ("cpp", first_cpp), ("sh", install), ("sh", compile), ("c", node)] = blocks.as_slice() else {
        let found: Vec<_> = blocks.iter().map(|(language, _)| *language).collect();
        return Err(format!("the README has the blocks {found:?}: run each of them here, in their order").into());
    };
    let main = first.lines().skip_while(|line| *line != "int main(void) {").skip(1).take_while(|line| *line != "}");
    let lines = main.count();
    if !(1..=10).contains(&lines) {
        return Err(format!("`main` of the README's first program has `{lines}` lines within it: keep to 10").into());
    }
    let place = root.join(BUILT).join("readme");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let (prefix, empty) = (place.join("prefix"), place.join("empty"));
    fs::create_dir_all(&empty)?;
    // All but for the prefix, of which the system need not know: `ldconfig` is not run.
    let make = install.strip_suffix("ldconfig\n").filter(|make| make.contains("PREFIX=/usr/local "));
    let make = make.ok_or("the README does not install into `/usr/local` and then run `ldconfig`")?;
    let make = make.replace("/usr/local", &prefix.display().to_string());
    let mut installed = Command::new("sh");
    ci::step("README, install", installed.args(["-ec", &make]).current_dir(root).env("CARGO", "cargo"))?;
    let user = |program: &Path| {
        let mut command = Command::new(program);
        command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).env("LD_LIBRARY_PATH", prefix.join("lib"));
        command.current_dir(&empty);
        command
    };
    let compile_cpp = compile.replace("cc -std=c11 move.c", "c++ -std=c++17 move.cpp");
    for (file, program, compile, says) in
        [("move.c", *first, *compile, DENIED), ("move.cpp", *first_cpp, compile_cpp.as_str(), WITH_REMEDY)]
    {
        fs::write(empty.join(file), program)?;
        let compile = format!("{} -Wall -Wextra -Werror", compile.trim_end());
        ci::step(&format!("README, {file}"), user(Path::new("sh")).args(["-ec", &compile]))?;
        fs::remove_file(empty.join(file))?;
        let moved = place.join("move");
        fs::rename(empty.join("move"), &moved)?;
        let printed = user(&moved).output()?.stdout;
        if printed != says.as_bytes() {
            return Err(format!("{file} printed `{}`, not `{says}`", String::from_utf8_lossy(&printed)).into());
        }
    }
    fs::write(place.join("node.c"), node)?;
    let mut on_a_node = user(Path::new("bash"));
    on_a_node.arg(root.join(PACKAGE).join("test/node.sh")).arg(place.join("node.c")).env("AUTONOMY", autonomy);
    ci::step("README, node.c", on_a_node.env("FIXTURE", root.join(BUILT).join("fixture")))
}

/// The fenced blocks of a text: of each its language, and what is within.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}
