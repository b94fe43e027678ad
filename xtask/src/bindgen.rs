//! wasm-bindgen's command, as a program of this workspace: one lock file holds its version and the library's.
//!
//! `xtask-bindgen <module> <directory>` writes the glue for JavaScript into the directory.

use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let [_, module, directory] = &std::env::args().collect::<Vec<_>>()[..] else {
        eprintln!("error: usage: xtask-bindgen <module> <directory>");
        return ExitCode::FAILURE;
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name("gate_bindgen").typescript(true);
    // Nothing is fetched: the package hands over a compiled module. A trap is answered by a new instance.
    bindgen.omit_default_module_path(true).reset_state_function(true);
    match bindgen.web(true).and_then(|bindgen| bindgen.generate(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
