//! Compiles `kms/v1/*.proto` without protoc: messages, service traits, and the descriptor set.
//!
//! Which messages get no derived `Debug` is read from the descriptors: those with a field marked
//! `debug_redact`. So a new one that lacks its redacting `Debug` (`src/redact.rs`) does not compile
//! where it is printed, and cannot leak.

use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost_reflect::{FieldDescriptor, MessageDescriptor, Value};

fn main() {
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut files: Vec<PathBuf> =
        fs::read_dir(FOLDER).expect("the folder exists").map(|entry| entry.expect("it can be listed").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let mut compiler = protox::Compiler::new(["."]).expect("the folder exists");
    compiler.include_imports(true).open_files(&files).unwrap_or_else(|error| panic!("{error:?}"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));

    // Encoded by the compiler and not through prost's own types, which lose `debug_redact`.
    fs::write(out.join("kms.v1.bin"), compiler.encode_file_descriptor_set()).expect("OUT_DIR is writable");

    let pool = compiler.descriptor_pool();
    let messages: Vec<MessageDescriptor> =
        pool.all_messages().filter(|message| message.package_name() == PACKAGE && !message.is_map_entry()).collect();
    write_printers(&out, &messages);

    compiler.include_source_info(true);
    tonic_prost_build::configure()
        .codec_path("crate::codec::BoundedCodec")
        .skip_debug(messages.iter().filter(|m| m.fields().any(|f| redacts(&f))).map(|m| format!(".{}", m.full_name())))
        // Sorted by the names' bytes, as every hash over a context wants them; and no caller can make them collide.
        .btree_map(".")
        .compile_fds(compiler.file_descriptor_set())
        .expect("the code is generated");
}

fn redacts(field: &FieldDescriptor) -> bool {
    let options = field.options();
    options.get_field_by_name("debug_redact").is_some_and(|value| *value == Value::Bool(true))
}

/// Writes, for the tests, a table from every message's full name to what prints it.
fn write_printers(out: &Path, messages: &[MessageDescriptor]) {
    let rows: String =
        messages.iter().map(|m| format!("    (\"{}\", print::<crate::v1::{}>),\n", m.full_name(), m.name())).collect();
    fs::write(out.join("printers.rs"), format!("&[\n{rows}]\n")).expect("OUT_DIR is writable");
}

const FOLDER: &str = "kms/v1";
const PACKAGE: &str = "kms.v1";
