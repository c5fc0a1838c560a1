//! `kms-server dev`: a daemon to try things on. Loopback only, throw-away certificates, no waiting
//! times; says what to type next.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::backend;
use crate::config::{Flags, Settings};
use crate::data_dir::DataDir;
use crate::init::init;
use crate::noun::Principal;
use crate::protections::Protections;
use crate::server::{Addresses, Mode, StoreKind, serve};
use crate::telemetry;

/// The highest `port`: two more follow it.
pub const PORT_MAX: u16 = u16::MAX - 2;

/// Serves out of `dir` until it is told to stop. Data stays there; certificates are made anew at
/// every start. Listens on `port` and the two after it; on any three free ones if it is 0.
pub fn dev(dir: &Path, port: u16, protections: &Protections) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let settings = settings(&dir, port)?;
    let prepared = backend::prepare(&settings.backend)?;
    // Before anything is written: the certificates here may be those of a daemon that runs.
    let _lock = DataDir::take(&dir)?;
    check_ports(&settings)?;
    write_certificates(&dir)?;
    telemetry::start_logs(settings.log_format, &settings.log_filter).map_err(|error| anyhow::anyhow!("{error}"))?;
    let store = store(&settings)?;
    if !settings.store_dir().exists() {
        let admin: Principal = format!("spiffe://{DOMAIN}/admin").parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(init(&settings, store.clone(), &prepared, &admin))?;
        add_application(&settings)?;
    }
    // No reload: who closes the terminal means to end it.
    serve(&settings, &store, &prepared, Mode::Trial, protections, |addresses| tell(&dir, addresses))
}

#[cfg(feature = "rocksdb")]
#[allow(clippy::unnecessary_wraps)] // Without the feature it can fail.
fn store(_: &Settings) -> anyhow::Result<StoreKind> {
    Ok(StoreKind::Local)
}

/// Without a durable store everything begins anew.
#[cfg(not(feature = "rocksdb"))]
fn store(settings: &Settings) -> anyhow::Result<StoreKind> {
    for part in ["hsm", "seg", "ledger", "store"] {
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

fn settings(dir: &Path, port: u16) -> anyhow::Result<Settings> {
    let local = |offset| {
        let port = if port == 0 { 0 } else { port.saturating_add(offset) };
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string())
    };
    let flags = Flags {
        data_dir: Some(dir.join("data")),
        listen_services: local(0),
        listen_operator: local(1),
        listen_probes: local(2),
        tls_certificate_file: Some(dir.join("server.pem")),
        tls_key_file: Some(dir.join("server.key")),
        tls_client_ca_file: Some(dir.join("ca.pem")),
        policy_bindings_file: Some(dir.join("bindings.toml")),
        destruction_wait_min: Some("0s".to_owned()),
        ..Flags::default()
    };
    Ok(Settings { segment_bytes: 4 << 20, ..Settings::load(&flags)? })
}

/// Finds out early that a port is taken, when nothing was made yet and the remedy is a flag.
fn check_ports(settings: &Settings) -> anyhow::Result<()> {
    for address in [settings.services, settings.operator, settings.probes] {
        TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address}: give three free ports with --port FIRST"))?;
    }
    Ok(())
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
    // Where cargo has put both programs, neither is found by its name alone.
    let programs = std::env::current_exe().ok();
    let programs = programs.as_deref().and_then(Path::parent).filter(|folder| folder.join("kms").is_file());
    let programs =
        programs.map(|folder| format!("\x20 export PATH=\"{}:$PATH\"\n", folder.display())).unwrap_or_default();
    eprintln!(
        "\nkms-server dev: for trying things out on this machine, and for nothing else.\n\
         Data stays in {}; certificates are made anew at each start.\n\
         There is no shortest waiting time: a destruction with --wait 0s takes effect at once.\n\
         Ctrl-C stops it.\n\n\
         In another terminal:\n\
         {programs}\
         \x20 export KMS_CONFIG=\"{}\"\n\
         \x20 kms tenant create acme\n\
         \x20 kms key create --tenant acme app\n\
         \x20 echo hello | kms --profile app encrypt --key tenants/acme/keys/app --context table=users > hello.kms\n\
         \x20 kms --profile app decrypt --key tenants/acme/keys/app --context table=users --in hello.kms\n",
        dir.display(),
        path.display()
    );
}

const DOMAIN: &str = "dev.kms.invalid";
