//! The service from outside: each test starts a daemon of its own and speaks to it over mTLS.
//!
//! One file per theme. What a single part promises is tested beside that part; here is what only
//! the whole can show: what a caller gets, what a restart keeps, what the log says about it.
//! At its end a test holds the audit log against all replies it got ([`World::finish`]).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may, and its figures are there to be read")]

mod audit;
mod authz_coverage;
mod aws_faults;
mod aws_kms;
mod aws_policies;
mod bad_blobs;
mod bad_callers;
mod bad_data_keys;
mod bad_disk;
mod bad_input;
mod bad_keystore;
mod bad_messages;
mod bad_names;
mod bad_surroundings;
mod batches;
mod certificates;
mod client;
mod command;
mod config;
#[cfg(debug_assertions)]
mod crash;
mod damage;
mod damaged_log;
mod data_key_calls;
mod data_keys;
mod data_keys_at_scale;
mod destruction;
mod dev;
mod doctor;
mod every_bit;
mod expect;
mod fan_out;
mod foreign_client;
mod grants;
mod hang_up;
mod isolation;
mod lasting;
mod limits;
mod lock;
mod log_failure;
mod look_alike;
mod macs;
mod old_copies;
mod pkcs11;
mod protections;
mod reflection;
mod reload;
mod reload_files;
mod repeats;
mod retries;
mod revocation;
mod rewrap;
mod rotation;
mod round_trip;
mod secrecy;
mod shutdown;
mod states;
mod tls_refusals;
mod tokens;
mod world;

use expect::{Expected, refused};
use world::{ACME, ACME_KEY, GLOBEX, GLOBEX_KEY, Load, World};

/// Returns how much of something a test does: the usual, or at full scale (`make prove`) the other.
fn at_scale(usual: usize, full: usize) -> usize {
    if std::env::var_os("KMS_TESTS_AT_FULL_SCALE").is_some() { full } else { usual }
}
