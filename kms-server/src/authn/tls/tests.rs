use std::os::unix::fs::PermissionsExt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::authn::{IdentityMapping, identify};

const BILLING: &str = "spiffe://example.com/billing";

type Authority = CertifiedIssuer<'static, KeyPair>;
type Issued = (rcgen::Certificate, KeyPair);

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Issued {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap(), key)
}

fn client_params(params: &mut CertificateParams) {
    params.subject_alt_names = vec![SanType::URI(BILLING.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(7));
}

/// A folder with the files of a server, and the authority of its clients.
struct Site {
    folder: TempDir,
    files: TlsFiles,
    server: Authority,
    clients: Authority,
}

impl Site {
    fn new() -> Self {
        let (server, clients) = (authority(), authority());
        let (cert, key) = issue(&server, |_| ());
        let mut site = Self { folder: tempfile::tempdir().unwrap(), files: TlsFiles::default(), server, clients };
        site.files.cert_chain = site.file("server.crt", &cert.pem());
        site.files.key = site.file("server.key", &key.serialize_pem());
        site.files.client_cas = vec![site.file("clients.crt", &site.clients.pem())];
        site
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn config(&self) -> Arc<ServerConfig> {
        server_tls(&self.files).unwrap().config
    }

    fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        issue(&self.clients, |params| {
            client_params(params);
            change(params);
        })
    }

    fn client_config(&self, identity: Option<&Issued>) -> ClientConfig {
        self.client_config_with(identity, &[&version::TLS13])
    }

    fn client_config_with(
        &self,
        identity: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((cert, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![cert.der().clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// Adds a revocation list of the clients' authority.
    fn revoke(&mut self, serials: &[u64], next_update: i32) {
        let crl = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|&serial| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = crl.signed_by(&self.clients).unwrap().pem().unwrap();
        self.files.crls = vec![self.file("clients.crl", &pem)];
    }
}

/// What the server saw of a connection over which a byte went both ways.
#[derive(Debug)]
struct Seen {
    principal: String,
    alpn: Option<Vec<u8>>,
    version: ProtocolVersion,
    kind: HandshakeKind,
}

async fn connect(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<Seen, String> {
    let (near, far) = tokio::io::duplex(1 << 14);
    let serve = async move {
        let mut stream = TlsAcceptor::from(server).accept(near).await.map_err(|e| e.to_string())?;
        let byte = stream.read_u8().await.map_err(|e| e.to_string())?;
        stream.write_u8(byte).await.map_err(|e| e.to_string())?;
        stream.shutdown().await.map_err(|e| e.to_string())?;
        let (_, connection) = stream.get_ref();
        let certificate = &connection.peer_certificates().unwrap()[0];
        let principal = identify(certificate, &IdentityMapping::default());
        Ok(Seen {
            principal: principal.map_err(|e| e.to_string())?.to_string(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            version: connection.protocol_version().unwrap(),
            kind: connection.handshake_kind().unwrap(),
        })
    };
    let ask = async move {
        let name = "localhost".try_into().unwrap();
        if let Ok(mut stream) = TlsConnector::from(client).connect(name, far).await {
            // With TLS 1.3 the client learns of a refusal only here.
            let _ = stream.write_u8(7).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        }
    };
    let (seen, ()) = tokio::join!(serve, ask);
    seen
}

#[tokio::test]
async fn a_client_of_the_authority_is_let_in_and_has_its_principal() {
    let site = Site::new();
    let client = site.client(|_| ());
    let seen = connect(site.config(), Arc::new(site.client_config(Some(&client)))).await.unwrap();
    assert_eq!(seen.principal, BILLING);
    assert_eq!(seen.alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(seen.version, ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let site = Site::new();
    let refused = connect(site.config(), Arc::new(site.client_config(None))).await.unwrap_err();
    assert_eq!(refused, "peer sent no certificates");
}

#[tokio::test]
async fn a_client_whose_certificate_does_not_hold_is_refused() {
    let site = Site::new();
    let foreign = issue(&authority(), client_params);
    let of_server_authority = issue(&site.server, client_params);
    let expired = site.client(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 2);
    });
    let not_yet = site.client(|params| params.not_before = date_time_ymd(3000, 1, 1));
    let for_servers = site.client(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let authority = site.client(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    for (client, why) in [
        // All authorities of this test have one name, so that it is the signature that tells.
        (&foreign, "UnknownIssuer"),
        (&of_server_authority, "UnknownIssuer"),
        (&expired, "expired"),
        (&not_yet, "not valid yet"),
        (&for_servers, "does not allow extended key usage for client authentication"),
        (&authority, "CaUsedAsEndEntity"),
    ] {
        let config = Arc::new(site.client_config(Some(client)));
        let refused = connect(site.config(), config).await.unwrap_err();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}

#[tokio::test]
async fn an_older_protocol_is_spoken_only_if_the_setting_says_so() {
    let mut site = Site::new();
    let client = site.client(|_| ());
    let tls12 = Arc::new(site.client_config_with(Some(&client), &[&version::TLS12]));
    let refused = connect(site.config(), Arc::clone(&tls12)).await.unwrap_err();
    assert_eq!(refused, "peer is incompatible: Tls12NotOfferedOrEnabled");
    site.files.allow_tls12 = true;
    let seen = connect(site.config(), tls12).await.unwrap();
    assert_eq!((seen.version, &*seen.principal), (ProtocolVersion::TLSv1_2, BILLING));
    // And TLS 1.3 is still preferred where both can.
    let both = site.client_config_with(Some(&client), &[&version::TLS12, &version::TLS13]);
    let seen = connect(site.config(), Arc::new(both)).await.unwrap();
    assert_eq!(seen.version, ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn a_client_that_cannot_speak_http_2_is_refused() {
    let site = Site::new();
    let client = site.client(|_| ());
    let mut config = site.client_config(Some(&client));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused = connect(site.config(), Arc::new(config)).await.unwrap_err();
    assert_eq!(refused, "peer doesn't support any known protocol");
}

#[tokio::test]
async fn every_connection_shows_its_certificate_anew() {
    let mut site = Site::new();
    site.files.allow_tls12 = true;
    let client = site.client(|_| ());
    for protocol in [&version::TLS13, &version::TLS12] {
        // One configuration: the client keeps its sessions there and offers to resume them.
        let client = Arc::new(site.client_config_with(Some(&client), &[protocol]));
        let server = site.config();
        for _ in 0..3 {
            let seen = connect(Arc::clone(&server), Arc::clone(&client)).await.unwrap();
            assert_ne!(seen.kind, HandshakeKind::Resumed);
        }
        // What rustls does by itself is what this guards against.
        let mut resuming = ServerConfig::clone(&server);
        let by_itself = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&server.cert_resolver));
        resuming.session_storage = by_itself.session_storage;
        resuming.send_tls13_tickets = by_itself.send_tls13_tickets;
        let resuming = Arc::new(resuming);
        connect(Arc::clone(&resuming), Arc::clone(&client)).await.unwrap();
        let seen = connect(resuming, client).await.unwrap();
        assert_eq!(seen.kind, HandshakeKind::Resumed);
    }
    let config = site.config();
    assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
}

#[tokio::test]
async fn a_revoked_client_is_refused_and_its_neighbour_is_not() {
    let mut site = Site::new();
    site.revoke(&[8], 4000);
    let (seven, eight) = (site.client(|_| ()), site.client(|params| params.serial_number = Some(8.into())));
    assert!(connect(site.config(), Arc::new(site.client_config(Some(&seven)))).await.is_ok());
    let refused = connect(site.config(), Arc::new(site.client_config(Some(&eight)))).await;
    assert!(refused.unwrap_err().contains("Revoked"));
}

#[tokio::test]
async fn a_client_whose_revocation_cannot_be_checked_is_refused() {
    let mut site = Site::new();
    let client = site.client(|_| ());
    site.revoke(&[], 2021);
    let refused = connect(site.config(), Arc::new(site.client_config(Some(&client)))).await;
    assert!(refused.unwrap_err().contains("expired"), "a list past its next update");
    // A second authority without a list of its own.
    site.revoke(&[], 4000);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "second");
    let second = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let ca = site.file("second.crt", &second.pem());
    site.files.client_cas.push(ca);
    let other = issue(&second, client_params);
    let refused = connect(site.config(), Arc::new(site.client_config(Some(&other)))).await;
    assert!(refused.unwrap_err().contains("UnknownRevocationStatus"));
    assert!(connect(site.config(), Arc::new(site.client_config(Some(&client)))).await.is_ok());
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_what_is_wrong_and_what_to_do() {
    let refused = |change: &dyn Fn(&mut Site)| {
        let mut site = Site::new();
        change(&mut site);
        let error = server_tls(&site.files).unwrap_err();
        error.to_string().replace(&format!("{}/", site.folder.path().display()), "")
    };
    let good = Site::new();
    let cert = std::fs::read_to_string(&good.files.cert_chain).unwrap();
    let key = std::fs::read_to_string(&good.files.key).unwrap();
    let torn = |text: &str| text.replace("-----END", "-----DNE");
    assert!(server_tls(&good.files).is_ok());

    for (change, shown) in [
        (
            &(|s: &mut Site| s.files.cert_chain = s.folder.path().join("none.crt")) as &dyn Fn(&mut Site),
            "none.crt: it cannot be read: No such file or directory (os error 2); check the path and that this user may read it",
        ),
        (
            &|s: &mut Site| s.files.cert_chain = s.folder.path().join("."),
            ".: it is not a file; give the path of a PEM file",
        ),
        (
            &|s: &mut Site| s.files.cert_chain = s.file("a.crt", ""),
            "a.crt: it holds no certificate; expected a PEM file with -----BEGIN CERTIFICATE-----",
        ),
        (
            &|s: &mut Site| s.files.cert_chain = s.file("a.crt", &key),
            "a.crt: it holds a private key and no certificate; swap the two settings",
        ),
        (
            &|s: &mut Site| s.files.cert_chain = s.file("a.crt", &torn(&cert)),
            "a.crt: it is not a well-formed PEM file; copy it again; each -----BEGIN line needs its -----END line",
        ),
        (
            &|s: &mut Site| {
                s.files.cert_chain = s.file("a.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            },
            "a.crt: its first certificate cannot be used: invalid peer certificate: BadEncoding; have it issued again, for a server",
        ),
        (
            &|s: &mut Site| s.files.cert_chain = s.file("a.crt", &" ".repeat((1 << 20) + 1)),
            "a.crt: it has more than 1048576 bytes; give the path of a PEM file",
        ),
        (
            &|s: &mut Site| s.files.key = s.file("a.key", &cert),
            "a.key: it holds no private key; expected a PEM file with -----BEGIN PRIVATE KEY-----",
        ),
        (
            &|s: &mut Site| s.files.key = s.file("a.key", &torn(&key)),
            "a.key: it is not a well-formed PEM file; copy it again; each -----BEGIN line needs its -----END line",
        ),
        (
            &|s: &mut Site| s.files.key = s.file("a.key", &key.replace("PRIVATE", "ENCRYPTED PRIVATE")),
            "a.key: its private key is encrypted; decrypt it (openssl pkey) and protect the file by its mode",
        ),
        (
            &|s: &mut Site| s.files.key = s.file("a.key", &format!("{key}{key}")),
            "a.key: it holds several private keys; leave only the key of the server's certificate",
        ),
        (
            &|s: &mut Site| s.files.key = s.file("a.key", &key),
            "a.key: it is not the key of the first certificate in server.crt; give the key and the chain of one certificate, the server's own first",
        ),
        (
            &|s: &mut Site| s.files.client_cas.clear(),
            "there is no authority for clients' certificates; name at least one file of authorities",
        ),
        (
            &|s: &mut Site| s.files.client_cas = vec![s.file("a.crt", "# soon\n")],
            "a.crt: it holds no certificate; expected a PEM file with -----BEGIN CERTIFICATE-----",
        ),
        (
            &|s: &mut Site| s.files.client_cas.push(s.file("a.crt", "")),
            "a.crt: it holds no certificate; expected a PEM file with -----BEGIN CERTIFICATE-----",
        ),
        (
            &|s: &mut Site| s.files.client_cas = vec![s.file("a.crt", &format!("{}{cert}", s.clients.pem()))],
            "a.crt: certificate 2 in it is not an authority's; give the certificates of the authorities that sign your clients'",
        ),
        (
            &|s: &mut Site| s.files.crls = vec![s.file("a.crl", &cert)],
            "a.crl: it holds no revocation list; expected a PEM file with -----BEGIN X509 CRL-----",
        ),
        (
            &|s: &mut Site| {
                s.files.crls = vec![s.file("a.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")]
            },
            "a.crl: a revocation list in it cannot be read; download it again",
        ),
    ] {
        assert_eq!(refused(change), shown);
    }
}

#[test]
fn a_private_key_that_others_can_read_or_change_is_refused() {
    let site = Site::new();
    for (mode, taken) in [
        (0o400, true),
        (0o600, true),
        (0o440, true),
        (0o640, true),
        (0o604, false),
        (0o644, false),
        (0o601, false),
        (0o602, false),
        (0o620, false),
        (0o660, false),
        (0o777, false),
    ] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&site.files.key, permissions).unwrap();
        let result = server_tls(&site.files);
        assert_eq!(result.is_ok(), taken, "{mode:o}");
        if let Err(error) = result {
            let path = site.files.key.display();
            assert_eq!(
                error.to_string(),
                format!(
                    "{path}: users other than its owner can read or change it (mode {mode:04o}); chmod 0600 {path}"
                )
            );
        }
    }
    // Certificates are public.
    let public = std::fs::Permissions::from_mode(0o644);
    let site = Site::new();
    std::fs::set_permissions(&site.files.cert_chain, public).unwrap();
    assert!(server_tls(&site.files).is_ok());
}

#[test]
fn the_mode_is_that_of_the_file_a_link_leads_to() {
    let mut site = Site::new();
    let link = site.folder.path().join("link.key");
    std::os::unix::fs::symlink(&site.files.key, &link).unwrap();
    let key = std::mem::replace(&mut site.files.key, link);
    assert!(server_tls(&site.files).is_ok());
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(server_tls(&site.files).is_err());
}
