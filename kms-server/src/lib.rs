#![doc = include_str!("../ARCHITECTURE.md")]

pub mod audit;
pub mod authn;
pub mod backend;
pub mod config;
pub mod crypto;
pub mod data_dir;
#[cfg(feature = "dev")]
pub mod dev;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod init;
pub mod keyring;
pub mod kill_point;
pub mod mistake;
pub mod noun;
pub mod policy;
pub mod probes;
pub mod protections;
pub mod reload;
pub mod rows;
pub mod rpc;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
