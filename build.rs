//! Compiles `proto/` with protox, so that no system protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/common.proto",
        "proto/schema.proto",
        "proto/msg.proto",
        "proto/meta.proto",
        "proto/index.proto",
        "proto/query.proto",
        "proto/milvus.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .build_server(true)
        .generate_default_stubs(true) // for the servers that tests fake
        .build_transport(false) // a constructor named as the call `Connect` would clash with it
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
