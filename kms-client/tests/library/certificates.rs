//! Certificates are read again when their files change; what cannot be used leaves in force what was there.

use std::fs;
use std::path::PathBuf;

use kms_client::{Client, Error, ErrorKind};
use tempfile::TempDir;

use crate::fake::wire::Wire;
use crate::fake::{Ca, Fake, Pair};
use crate::key;

/// A client with its certificates in files, and a wire that can be cut so that it connects anew.
struct Bench {
    fake: Fake,
    wire: std::sync::Arc<Wire>,
    folder: TempDir,
    kms: Client,
}

impl Bench {
    async fn new() -> Self {
        let fake = Fake::start().await;
        let wire = Wire::to(&fake.address).await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("ca.pem"), fake.ca.pem()).unwrap();
        put(&folder, &fake.ca.client());
        let kms = Client::builder(&wire.address)
            .ca_file(file("ca.pem"))
            .identity_files(file("me.pem"), file("me.key"))
            .connect()
            .await
            .unwrap();
        Self { fake, wire, folder, kms }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Calls on a new connection.
    async fn call_anew(&self) -> Result<(), Error> {
        self.wire.cut();
        self.kms.get_key(&key("app")).await.map(drop)
    }
}

fn put(folder: &TempDir, pair: &Pair) {
    fs::write(folder.path().join("me.pem"), &pair.certificate).unwrap();
    fs::write(folder.path().join("me.key"), &pair.key).unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_used_by_the_next_connection() {
    let bench = Bench::new().await;
    // Of a CA that the server does not know: that it is refused shows that it was used.
    put(&bench.folder, &Ca::named("another CA").client());
    bench.kms.get_key(&key("app")).await.unwrap();
    let error = bench.call_anew().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    put(&bench.folder, &bench.fake.ca.client());
    bench.call_anew().await.unwrap();
    assert_eq!(bench.kms.certificate_problem(), None);
}

#[tokio::test]
async fn a_pair_that_does_not_fit_or_is_torn_is_told_and_the_old_one_used() {
    let bench = Bench::new().await;
    let [good, other] = [bench.fake.ca.client(), bench.fake.ca.client()];
    let torn = &good.certificate[..good.certificate.len() / 2];
    for (certificate, private_key, says) in [
        (&*other.certificate, &*good.key, "cannot be used together"),
        (torn, &good.key, "me.pem"),
        ("", &good.key, "has no certificate in PEM"),
        (&good.certificate, "", "has no private key in PEM"),
    ] {
        fs::write(bench.file("me.pem"), certificate).unwrap();
        fs::write(bench.file("me.key"), private_key).unwrap();
        bench.call_anew().await.unwrap();
        let problem = bench.kms.certificate_problem().unwrap();
        assert!(problem.contains(says), "{problem}");
    }
    fs::remove_file(bench.file("me.key")).unwrap();
    bench.call_anew().await.unwrap();
    assert!(bench.kms.certificate_problem().unwrap().starts_with("cannot read the private key"));
    put(&bench.folder, &good);
    bench.call_anew().await.unwrap();
    assert_eq!(bench.kms.certificate_problem(), None);
}

#[tokio::test]
async fn trust_is_read_again_too_and_apart_from_the_pair() {
    let bench = Bench::new().await;
    fs::write(bench.file("ca.pem"), Ca::new().pem()).unwrap();
    fs::write(bench.file("me.key"), "").unwrap();
    let error = bench.call_anew().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Tls, Some("SERVER_CA_UNKNOWN")), "{error:?}");
    assert!(bench.kms.certificate_problem().unwrap().contains("me.key"), "the pair is a matter of its own");
    fs::write(bench.file("ca.pem"), "nonsense").unwrap();
    let error = bench.call_anew().await.unwrap_err();
    assert_eq!(error.reason(), Some("SERVER_CA_UNKNOWN"), "what it held before is what is trusted");
    assert!(bench.kms.certificate_problem().unwrap().contains("ca.pem"));
    fs::write(bench.file("ca.pem"), bench.fake.ca.pem()).unwrap();
    bench.call_anew().await.unwrap();
}
