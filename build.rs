//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 2] = ["tokencache/v1/token.proto", "tokencache/v1/admin.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());

    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(out, descriptors.encode_to_vec())?;

    tonic_prost_build::configure()
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // A derived Debug would print the access token; `proto/lib.rs` has a censored one.
        .skip_debug(["tokencache.v1.Token"])
        .compile_fds(descriptors)?;
    Ok(())
}
