//! Names the shared library by its ABI: programs that were linked against another major do not start with this one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libautonomy_gate.so.1");
    }
}
