//! `kms-server dev`: a daemon to try things on. Loopback only, throw-away certificates, no waiting
//! times; says what to type next.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::config::{Flags, Settings};
use crate::data_dir::DataDir;
use crate::init::init;
use crate::noun::Principal;
use crate::server::{Addresses, StoreKind, serve};
use crate::telemetry;

/// Serves out of `dir` until it is told to stop. Data stays there; certificates are made anew at
/// every start.
pub fn dev(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    // Before anything of a running one is overwritten.
    let _lock = DataDir::take(&dir)?;
    write_certificates(&dir)?;
    let settings = settings(&dir)?;
    telemetry::start_logs(settings.log_format, &settings.log_filter).map_err(|error| anyhow::anyhow!("{error}"))?;
    let store = store(&settings)?;
    if !settings.store_dir().exists() {
        let admin: Principal = format!("spiffe://{DOMAIN}/admin").parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(init(&settings, store.clone(), &admin))?;
        add_application(&settings)?;
    }
    serve(&settings, &store, |addresses| tell(&dir, addresses))
}

#[cfg(feature = "rocksdb")]
#[allow(clippy::unnecessary_wraps)] // Without the feature it can fail.
fn store(_: &Settings) -> anyhow::Result<StoreKind> {
    Ok(StoreKind::Local)
}

/// Without a durable store everything begins anew.
#[cfg(not(feature = "rocksdb"))]
fn store(settings: &Settings) -> anyhow::Result<StoreKind> {
    for part in ["hsm", "seg", "store"] {
        let part = settings.data_dir.join(part);
        if part.exists() {
            std::fs::remove_dir_all(part)?;
        }
    }
    for file in [settings.data_dir.join("pin"), settings.bindings_file.clone()] {
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    Ok(StoreKind::Memory(std::sync::Arc::new(crate::store::memory::MemoryStore::new())))
}

fn settings(dir: &Path) -> anyhow::Result<Settings> {
    let local = |port| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let flags = Flags {
        data_dir: Some(dir.join("data")),
        listen_services: local(8443),
        listen_operator: local(8444),
        listen_probes: local(8445),
        tls_certificate_file: Some(dir.join("server.pem")),
        tls_key_file: Some(dir.join("server.key")),
        tls_client_ca_file: Some(dir.join("ca.pem")),
        policy_bindings_file: Some(dir.join("bindings.toml")),
        destruction_wait_min: Some("0s".to_owned()),
        ..Flags::default()
    };
    Ok(Settings { segment_bytes: 4 << 20, ..Settings::load(&flags)? })
}

fn add_application(settings: &Settings) -> anyhow::Result<()> {
    let mut text = std::fs::read_to_string(&settings.bindings_file)?;
    text.push_str(&format!(
        "\n[[binding]]\nid = \"app\"\nroles = [\"encrypter\", \"decrypter\", \"reencrypter\"]\n\
         principals = [\"spiffe://{DOMAIN}/app\"]\ntenants = [\"*\"]\nkeys = [\"*\"]\n"
    ));
    Ok(std::fs::write(&settings.bindings_file, text)?)
}

fn write_certificates(dir: &Path) -> anyhow::Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "kms-server dev: throw-away authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    std::fs::write(dir.join("ca.pem"), ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);

    let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
    server.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    write_pair(dir, "server", &server, &issuer)?;
    for name in ["admin", "app"] {
        let mut client = CertificateParams::default();
        client.subject_alt_names = vec![SanType::URI(format!("spiffe://{DOMAIN}/{name}").try_into()?)];
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        write_pair(dir, name, &client, &issuer)?;
    }
    Ok(())
}

fn write_pair(dir: &Path, name: &str, params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem())?;
    let path = dir.join(format!("{name}.key"));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, key.serialize_pem().as_bytes())?;
    Ok(())
}

#[allow(clippy::print_stderr)] // For the person who started it.
fn tell(dir: &Path, addresses: Addresses) {
    let profile = |name: &str| {
        format!(
            "\n[profile.{name}]\naddress = \"https://{}\"\noperator_address = \"https://{}\"\nca_file = \"ca.pem\"\ncert_file = \"{name}.pem\"\nkey_file = \"{name}.key\"\n",
            addresses.services, addresses.operator
        )
    };
    let client = format!("current = \"admin\"\n{}{}", profile("admin"), profile("app"));
    let path = dir.join("client.toml");
    if let Err(error) = std::fs::write(&path, client) {
        tracing::warn!(%error, "the settings of the kms command could not be written");
    }
    eprintln!(
        "\nkms-server dev: for trying things out on this machine, and for nothing else.\n\
         Certificates are thrown away at the next start; there are no waiting times before destruction.\n\n\
         In another terminal:\n\
         \x20 export KMS_CONFIG={}\n\
         \x20 kms tenant create acme\n\
         \x20 kms key create --tenant acme app\n\
         \x20 echo hello | kms --profile app encrypt --key tenants/acme/keys/app --context table=users > hello.kms\n\
         \x20 kms --profile app decrypt --key tenants/acme/keys/app --context table=users --in hello.kms\n",
        path.display()
    );
}

const DOMAIN: &str = "dev.kms.invalid";
