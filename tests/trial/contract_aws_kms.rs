//! Holds a backend to what every backend promises. In a process of its own, because credentials come by its environment.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use kms_server::backend::contract::{Subject, check};
use kms_server::backend::{AwsKmsSettings, BackendKind, BackendSettings, MasterKeyBackend, prepare};
use kms_server::crypto::arena;
use kms_server::noun::Uid;
use kms_server::noun::random::OsRandom;

/// Of AWS KMS at three addresses.
pub async fn run(live: &str, dead: &str, stranger: &str) -> Result<()> {
    arena::init(SLOTS);
    let cluster = Uid::generate(&OsRandom::new());
    let open = |url: &str| -> Arc<dyn MasterKeyBackend> {
        let kind = BackendKind::AwsKms(AwsKmsSettings {
            region: Some("eu-central-1".into()),
            endpoint_url: Some(url.to_owned()),
            deletion_days: 7,
            ..AwsKmsSettings::default()
        });
        let prepared = prepare(&BackendSettings { dir: PathBuf::new(), kind }).expect("nothing is started");
        prepared.open(cluster, Arc::new(OsRandom::new())).expect("nothing is reached for")
    };
    let (live, dead, stranger) = (|| open(live), || open(dead), || open(stranger));
    let kept = check(Subject { cluster, open: &live, unreachable: &dead, stranger: &stranger }).await;
    for promise in &kept {
        println!("kept: {promise}");
    }
    println!("contract: aws-kms {0}/{0} kept", kept.len());
    Ok(())
}

/// Of locked memory: each caller of the contract has some keys.
const SLOTS: usize = 1_024;
