//! The library over real mutual TLS, against a service in this process.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod batches;
mod calls;
mod certificates;
mod changes;
mod connection;
mod data_keys;
mod endpoints;
#[path = "../fake/mod.rs"]
mod fake;
mod grants;
mod macs;
mod retries;
mod tls;

use kms_client::{Client, ClientBuilder, KeyRef};

use fake::Fake;

/// A client that the fake accepts.
fn builder(fake: &Fake) -> ClientBuilder {
    builder_at(fake, &fake.address)
}

/// A client that the fake accepts, on another way to it.
fn builder_at(fake: &Fake, address: &str) -> ClientBuilder {
    let identity = fake.ca.client();
    Client::builder(address)
        .ca_pem(fake.ca.pem())
        .identity_pem(identity.certificate, identity.key)
        .operator_endpoint(&fake.address)
}

fn key(name: &str) -> KeyRef {
    KeyRef::new("acme", name).unwrap()
}
