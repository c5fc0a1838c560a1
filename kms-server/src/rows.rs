//! The rows of the store, as generated from `proto/store/v1/rows.proto`; its comments say where each
//! lies and whose MAC it bears.

#![allow(missing_docs, clippy::all)] // Generated.

include!(concat!(env!("OUT_DIR"), "/store.v1.rs"));
