//! The library over real mutual TLS, against a service in this process.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod calls;
mod connection;
#[path = "../fake/mod.rs"]
mod fake;

use kms_client::{Client, ClientBuilder, KeyRef};

use fake::Fake;

/// A client that the fake accepts.
fn builder(fake: &Fake) -> ClientBuilder {
    let identity = fake.ca.client();
    Client::builder(&fake.address)
        .ca_pem(fake.ca.pem())
        .identity_pem(identity.certificate, identity.key)
        .operator_endpoint(&fake.address)
}

fn key(name: &str) -> KeyRef {
    KeyRef::new("acme", name).unwrap()
}
