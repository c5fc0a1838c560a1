//! Compiles the stored rows (`proto/store/v1/rows.proto`) without protoc.

fn main() {
    let rows = "proto/store/v1/rows.proto";
    println!("cargo::rerun-if-changed={rows}");
    let files = protox::compile([rows], ["proto"]).expect("rows.proto is well formed");
    prost_build::Config::new().compile_fds(files).expect("the rows are generated");
}
