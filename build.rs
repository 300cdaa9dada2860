//! How the program is linked.

fn main() {
    // PostgreSQL starts `xdb wal-push` for each segment, and half of that start was relocating a program that may lie
    // anywhere. At a fixed address there is nothing to relocate; heap, stack and libraries stay where chance puts them.
    println!("cargo:rustc-link-arg-bin=xdb=-no-pie");
    println!("cargo:rerun-if-changed=build.rs");
}
