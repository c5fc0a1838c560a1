//! The rules, each with a text it must find and a neighbour it must leave alone.

use crate::code::{SourceFile, names_crate, parts, words};

/// A structural invariant.
pub struct Rule {
    /// What a reader is told where it is broken.
    pub says: &'static str,
    /// Returns the numbers of the lines that break it.
    pub lines: fn(&SourceFile) -> Vec<usize>,
    /// Paths and texts that break it.
    pub finds: Vec<(&'static str, String)>,
    /// Paths and texts close by that do not.
    pub passes: Vec<(&'static str, String)>,
}

/// Returns every rule.
pub fn all() -> Vec<Rule> {
    vec![
        Rule {
            says: "only rpc, and server.rs which joins the parts, name tonic or the wire's types",
            lines: |file| {
                if !in_server(file) || under(file, "kms-server/src/rpc") || file.path == "kms-server/src/server.rs" {
                    return Vec::new();
                }
                file.code_lines(|line| {
                    words(line).any(|word| word == "tonic" || word.starts_with("tonic_") || word == "kms_proto")
                })
            },
            finds: texts(&[
                ("kms-server/src/keyring/mod.rs", "use tonic::Status;"),
                ("kms-server/src/audit/leaf.rs", "fn f(x: kms_proto::v1::Key) {}"),
                ("kms-server/src/main.rs", "use tonic_health::server;"),
            ]),
            passes: texts(&[
                ("kms-server/src/rpc/status.rs", "use tonic::Status;"),
                ("kms-server/src/server.rs", "use tonic::transport::Server;"),
                ("kms-server/src/keyring/mod.rs", "//! Knows neither tonic nor kms_proto."),
                ("kms-client/src/lib.rs", "use tonic::Status;"),
            ]),
        },
        Rule {
            says: "a vendor of master keys is named only under backend/ and where its settings are read",
            lines: |file| {
                let names_vendor = |line: &str| {
                    words(line).any(|word| {
                        parts(word).iter().any(|part| VENDORS.iter().any(|vendor| part.starts_with(vendor)))
                    })
                };
                // The joint itself knows none of those that join it.
                if file.path == "kms-server/src/backend/mod.rs" {
                    return file.code_lines(|line| names_vendor(line) && !is_module_line(line));
                }
                let may = under(file, "kms-server/src/backend") && file.path != "kms-server/src/backend/contract.rs"
                    || file.path == "kms-server/src/config/backend.rs";
                if may || !in_server(file) { Vec::new() } else { file.code_lines(names_vendor) }
            },
            finds: texts(&[
                ("kms-server/src/keyring/epoch.rs", "if kind == Kind::AwsKms {}"),
                ("kms-server/src/backend/mod.rs", "pub enum Assurance { Pkcs11 }"),
                ("kms-server/src/backend/contract.rs", "use super::softhsm;"),
                ("kms-server/src/config.rs", "use crate::backend::Pkcs11Settings;"),
            ]),
            passes: texts(&[
                ("kms-server/src/backend/aws.rs", "use aws_sdk_kms::Client;"),
                ("kms-server/src/backend/mod.rs", "pub mod aws;\npub use aws::Aws;"),
                ("kms-server/src/config/backend.rs", "kind: AwsKmsSettings {}"),
                ("kms-server/src/keyring/epoch.rs", "let draws = flaws; // as AWS does"),
            ]),
        },
        Rule {
            says: "only store/rocks names RocksDB",
            lines: |file| {
                if file.path.starts_with("kms-server/src/store/rocks") {
                    return Vec::new();
                }
                file.code_lines(|line| words(line).any(|word| word == "rocksdb" || word == "librocksdb_sys"))
            },
            finds: texts(&[
                ("kms-server/src/store/mod.rs", "use rocksdb::DB;"),
                ("tests/e2e/restore.rs", "rocksdb::DB::open_default(path)"),
            ]),
            passes: texts(&[
                ("kms-server/src/store/rocks.rs", "use rocksdb::DB;"),
                ("kms-server/src/store/mod.rs", "#[cfg(feature = \"rocksdb\")]\npub mod rocks;"),
            ]),
        },
        Rule {
            says: "only crypto, and noun/random.rs, name ring: the rest of the service has no primitive in its hands",
            lines: |file| {
                if !in_server(file)
                    || under(file, "kms-server/src/crypto")
                    || file.path == "kms-server/src/noun/random.rs"
                {
                    return Vec::new();
                }
                file.product_code_lines(|line| names_crate(line, "ring"))
            },
            finds: texts(&[("kms-server/src/audit/frame.rs", "use ring::hmac;")]),
            passes: texts(&[
                ("kms-server/src/crypto/kdf.rs", "use ring::hkdf;"),
                ("kms-server/src/main.rs", "rustls::crypto::ring::default_provider();"),
            ]),
        },
        Rule {
            says: "crypto is pure: it neither awaits, nor does I/O, nor reads a clock",
            lines: |file| {
                if !under(file, "kms-server/src/crypto") {
                    return Vec::new();
                }
                file.product_code_lines(|line| {
                    let has = |wanted: &[&str]| words(line).any(|word| wanted.contains(&word));
                    has(&["async", "await", "tokio", "SystemTime", "Instant", "Clock", "File", "OpenOptions"])
                        || (has(&["std"]) && has(&["fs", "net", "env", "thread", "process"]))
                })
            },
            finds: texts(&[
                ("kms-server/src/crypto/chain.rs", "pub async fn seal() {}"),
                ("kms-server/src/crypto/chain.rs", "use std::fs;"),
                ("kms-server/src/crypto/chain.rs", "use std::{fmt, fs};"),
                ("kms-server/src/crypto/chain.rs", "let now = std::time::SystemTime::now();"),
                ("kms-server/src/crypto/chain.rs", "use crate::noun::{Clock, Uid};"),
                ("kms-server/src/crypto.rs", "use tokio::sync::Mutex;"),
            ]),
            passes: texts(&[
                ("kms-server/src/crypto/chain.rs", "use std::fmt; // never async"),
                ("kms-server/src/crypto/chain.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}"),
                ("kms-server/src/audit/log.rs", "use std::fs;"),
            ]),
        },
        Rule {
            says: "unsafe is written in crypto/arena.rs alone",
            lines: |file| {
                if file.path == "kms-server/src/crypto/arena.rs" {
                    return Vec::new();
                }
                file.code_lines(|line| words(line).any(|word| word == "unsafe"))
            },
            finds: texts(&[
                ("kms-server/src/audit/segment.rs", "unsafe { libc::fsync(fd) };"),
                ("tests/harness/mod.rs", "unsafe impl Send for X {}"),
            ]),
            passes: texts(&[
                ("kms-server/src/crypto/arena.rs", "unsafe { libc::munmap(base, bytes) };"),
                ("kms-server/src/audit/segment.rs", "#![deny(unsafe_code)] // nothing unsafe"),
            ]),
        },
        Rule {
            says: "a lower layer does not name a higher one: rpc -> authn, policy, audit -> keyring -> backend, store -> crypto -> noun",
            lines: |file| {
                let Some(module) =
                    file.path.strip_prefix("kms-server/src/").and_then(|rest| rest.split(['/', '.']).next())
                else {
                    return Vec::new();
                };
                let Some((_, above)) = MAY_NOT_NAME.iter().find(|(layer, _)| *layer == module) else {
                    return Vec::new();
                };
                file.product_code_lines(|line| {
                    let words: Vec<&str> = words(line).collect();
                    words.windows(2).any(|pair| pair[0] == "crate" && above.contains(&pair[1]))
                })
            },
            finds: texts(&[
                ("kms-server/src/crypto/chain.rs", "use crate::keyring::Keyring;"),
                ("kms-server/src/store/rocks.rs", "use crate::audit::Entry;"),
                ("kms-server/src/keyring/rotate_key.rs", "fn f() -> crate::rpc::Reply {}"),
                ("kms-server/src/noun/uid.rs", "use crate::crypto::sha256;"),
            ]),
            passes: texts(&[
                ("kms-server/src/keyring/rotate_key.rs", "use crate::crypto::Kek;\nuse crate::store::Store;"),
                ("kms-server/src/rpc/encrypt.rs", "use crate::keyring::Keyring;"),
                ("kms-server/src/crypto/chain.rs", "pub(in crate::crypto) fn f() {}"),
            ]),
        },
        Rule {
            says: "only config.rs reads the environment: a variable read elsewhere is a setting that nobody documents",
            lines: |file| {
                if !in_server(file) || file.path == "kms-server/src/config.rs" {
                    return Vec::new();
                }
                file.product_code_lines(|line| {
                    ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("].iter().any(|call| line.contains(call))
                })
            },
            finds: texts(&[("kms-server/src/telemetry.rs", "let level = std::env::var(\"LEVEL\");")]),
            passes: texts(&[
                ("kms-server/src/config.rs", "let path = std::env::var_os(\"KMS_CONFIG\");"),
                ("kms-server/src/telemetry.rs", "let version = env!(\"CARGO_PKG_VERSION\");"),
                ("proto/build.rs", "let out = std::env::var_os(\"OUT_DIR\");"),
            ]),
        },
        Rule {
            says: "a task of the daemon is spawned on the task tracker, so that shutdown waits for it",
            lines: |file| {
                if !in_server(file) {
                    return Vec::new();
                }
                file.product_code_lines(|line| {
                    ["tokio::spawn(", "task::spawn(", "task::spawn_local("].iter().any(|call| line.contains(call))
                })
            },
            finds: texts(&[("kms-server/src/audit/log.rs", "tokio::spawn(async move {});")]),
            passes: texts(&[
                ("kms-server/src/audit/log.rs", "tasks.spawn(async move {});"),
                (
                    "kms-server/src/audit/log.rs",
                    "f();\n#[cfg(test)]\nmod tests {\n    fn f() { tokio::spawn(g()); }\n}",
                ),
                ("kms-client/src/lib.rs", "tokio::spawn(async move {});"),
            ]),
        },
        Rule {
            says: "#[instrument] says skip_all: arguments may be secret, and a later one would be logged unseen",
            lines: |file| {
                let attributes = file.code.match_indices("instrument").filter(|(at, _)| {
                    let before = file.code[..*at].trim_end();
                    before.ends_with("#[") || before.ends_with("tracing::")
                });
                attributes
                    .filter(|(at, _)| {
                        let attribute = file.code[*at..].split(']').next().unwrap_or_default();
                        !words(attribute).any(|word| word == "skip_all")
                    })
                    .map(|(at, _)| file.code[..at].lines().count())
                    .collect()
            },
            finds: texts(&[
                ("kms-server/src/rpc/encrypt.rs", "#[instrument]\nfn f() {}"),
                (
                    "kms-server/src/rpc/encrypt.rs",
                    "#[tracing::instrument(\n    skip(self),\n    fields(key = \"skip_all\"),\n)]\nfn f() {}",
                ),
            ]),
            passes: texts(&[
                (
                    "kms-server/src/rpc/encrypt.rs",
                    "#[tracing::instrument(\n    skip_all,\n    fields(tenant),\n)]\nfn f() {}",
                ),
                ("kms-server/src/rpc/encrypt.rs", "work().instrument(span).await"),
            ]),
        },
        Rule {
            says: "no path of one machine",
            lines: |file| file.text_lines(|line| FOREIGN_FOLDERS.iter().any(|folder| names_folder(line, folder))),
            finds: FOREIGN_FOLDERS
                .iter()
                .map(|folder| ("deploy/kms.toml", format!("path = \"/{folder}/alice\"")))
                .collect(),
            passes: FOREIGN_FOLDERS
                .iter()
                .flat_map(|folder| {
                    [("README.md", format!("a/{folder}/b")), ("README.md", format!("/{folder} is not ours"))]
                })
                .collect(),
        },
        Rule {
            says: "nothing is left to be written",
            lines: |file| file.code_lines(|line| line.contains("todo!") || line.contains("unimplemented!")),
            finds: texts(&[("kms-client/src/lib.rs", "todo!()"), ("tests/e2e/main.rs", "unimplemented!(\"later\")")]),
            passes: texts(&[("kms-client/src/lib.rs", "// todo!() is not for us\nlet todo = \"todo!()\";")]),
        },
        Rule {
            says: "no test is switched off",
            lines: |file| file.code_lines(|line| line.contains("#[ignore")),
            finds: texts(&[("tests/e2e/main.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}")]),
            passes: texts(&[("tests/e2e/main.rs", "// #[ignore]\n#[test]\nfn f() {}")]),
        },
        Rule {
            says: "a test waits for a fact and never for a while",
            lines: |file| file.test_code_lines(|line| line.contains("sleep(")),
            finds: texts(&[
                ("tests/e2e/restore.rs", "tokio::time::sleep(a).await;"),
                ("kms-server/src/store/contract.rs", "std::thread::sleep(a);"),
                ("kms-server/src/audit/log.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn f() { sleep(a); }\n}"),
            ]),
            passes: texts(&[
                ("kms-server/src/audit/log.rs", "tokio::time::sleep(a).await;\n#[cfg(test)]\nmod tests {\n}"),
                ("tests/e2e/restore.rs", "ready.changed().await; // no sleep() here"),
            ]),
        },
        Rule {
            says: "a file is one verb, one noun or one joint: at most 600 lines before its tests",
            lines: |file| if file.product_lines() > LINES_MAX { vec![LINES_MAX + 1] } else { Vec::new() },
            finds: vec![("kms-server/src/keyring/mod.rs", "fn f() {}\n".repeat(LINES_MAX + 1))],
            passes: vec![
                ("kms-server/src/keyring/mod.rs", "fn f() {}\n".repeat(LINES_MAX)),
                (
                    "kms-server/src/keyring/mod.rs",
                    format!("#[cfg(test)]\nmod tests {{\n{}}}", "fn f() {}\n".repeat(LINES_MAX)),
                ),
            ],
        },
    ]
}

fn texts(pairs: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    pairs.iter().map(|(path, text)| (*path, (*text).to_owned())).collect()
}

fn in_server(file: &SourceFile) -> bool {
    file.path.starts_with("kms-server/src/")
}

/// Returns whether a file is the module or lies in its folder.
fn under(file: &SourceFile, module: &str) -> bool {
    file.path.strip_prefix(module).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

fn is_module_line(line: &str) -> bool {
    let line = line.trim();
    line.ends_with(';') && ["mod ", "pub mod ", "pub use "].iter().any(|start| line.starts_with(start))
}

/// Returns whether a line has the folder at the root of a path, with something in it.
fn names_folder(line: &str, folder: &str) -> bool {
    let path = format!("/{folder}/");
    line.match_indices(&path).any(|(at, _)| {
        let in_a_longer_path = line[..at].ends_with(|c: char| c.is_alphanumeric() || "_./-~}".contains(c));
        let has_something = line[at + path.len()..].starts_with(|c: char| c.is_alphanumeric() || "_.-".contains(c));
        !in_a_longer_path && has_something
    })
}

const VENDORS: [&str; 6] = ["aws", "azure", "cryptoki", "gcp", "pkcs11", "softhsm"];

const FOREIGN_FOLDERS: [&str; 5] = ["home", "root", "tmp", "work", "Users"];

const LINES_MAX: usize = 600;

/// `audit` and `keyring` are beside each other: a mutation is recorded before and after its batch.
const MAY_NOT_NAME: [(&str, &[&str]); 9] = [
    ("noun", &["crypto", "store", "backend", "keyring", "audit", "authn", "policy", "config", "rpc", "server"]),
    ("crypto", &["store", "backend", "keyring", "audit", "authn", "policy", "config", "rpc", "server"]),
    ("store", &["backend", "keyring", "audit", "authn", "policy", "rpc", "server"]),
    ("backend", &["store", "keyring", "audit", "authn", "policy", "rpc", "server"]),
    ("keyring", &["authn", "policy", "rpc", "server"]),
    ("audit", &["rpc", "server"]),
    ("authn", &["rpc", "server"]),
    ("policy", &["store", "backend", "keyring", "rpc", "server"]),
    ("rpc", &["server"]),
];
