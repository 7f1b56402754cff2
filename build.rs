//! Gives the static library the lesson's plain `crc32` (packaging/crc32.S), as an object of its own: in the crate's
//! object even a weak one would be part of every program, and win over a shared libz's.

fn main() {
    println!("cargo::rerun-if-changed=packaging/crc32.S");
    let is_its = |key: &str, value: &str| std::env::var(key).is_ok_and(|found| found == value);
    if is_its("CARGO_CFG_TARGET_ARCH", "x86_64") && is_its("CARGO_CFG_TARGET_OS", "linux") {
        cc::Build::new().file("packaging/crc32.S").compile("logship_crc32_name");
    }
}
