//! What is wrong with the files of TLS, all of it at once, and what they are, for people who set up a daemon.
//!
//! Stricter than [`super::server_tls`]: a certificate that has expired is taken there, since nobody is helped by a
//! daemon that does not start; here it is a mistake, since no client will believe it.

use std::path::Path;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, GeneralName, X509Certificate};

use super::pem;
use super::tls::{TlsError, TlsFiles, server_tls};
use crate::noun::UnixMillis;

/// What was found.
#[derive(Debug, Default)]
pub struct Inspected {
    /// What keeps the daemon from starting, or every client from believing it.
    pub mistakes: Vec<TlsError>,
    /// What will, or may.
    pub notes: Vec<TlsError>,
    /// One line about the certificate: whose, by whom, until when.
    pub certificate: Option<String>,
}

/// Looks at all files.
pub fn inspect(files: &TlsFiles, now: UnixMillis) -> Inspected {
    let mut all = Inspected::default();
    let chain = all.kept(pem::certificates(&files.cert_chain));
    let key = all.kept(pem::private_key(&files.key)).is_some();
    let mut whole = chain.is_some() && key;
    let domains = &files.trust_domains;
    for path in files.client_cas.iter().chain(domains.iter().map(|domain| &domain.ca)) {
        match all.kept(pem::certificates(path)) {
            Some(authorities) => authorities.iter().for_each(|authority| all.authority(path, authority, now)),
            None => whole = false,
        }
    }
    for path in files.crls.iter().chain(domains.iter().flat_map(|domain| &domain.crls)) {
        match all.kept(pem::revocation_lists(path)) {
            Some(lists) => lists.iter().for_each(|list| all.revocation_list(path, list, now)),
            None => whole = false,
        }
    }
    // Whether they fit together can only be told of files that are there.
    if whole && let Err(error) = server_tls(files) {
        all.mistakes.push(error);
    }
    if let Some(chain) = chain {
        all.chain(&files.cert_chain, &chain, now);
    }
    all
}

impl Inspected {
    fn kept<T>(&mut self, read: Result<T, TlsError>) -> Option<T> {
        read.map_err(|error| self.mistakes.push(error)).ok()
    }

    fn chain(&mut self, path: &Path, chain: &[CertificateDer<'_>], now: UnixMillis) {
        let parsed: Vec<X509Certificate<'_>> =
            chain.iter().filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed)).collect();
        let ([leaf, ..], true) = (&parsed[..], parsed.len() == chain.len()) else {
            let remedy = "have it issued again";
            self.mistakes.push(TlsError::new(path, "a certificate in it cannot be read", remedy));
            return;
        };
        for (number, certificate) in parsed.iter().enumerate() {
            self.validity(path, number + 1, certificate, now);
        }
        for (number, pair) in parsed.windows(2).enumerate() {
            if pair[0].issuer() != pair[1].subject() {
                let what = format!(
                    "certificate {} in it is by {:?}, but certificate {} is of {:?}",
                    number + 1,
                    pair[0].issuer().to_string(),
                    number + 2,
                    pair[1].subject().to_string()
                );
                let remedy = "put the daemon's own first, then each one's issuer";
                self.mistakes.push(TlsError::new(path, what, remedy));
            }
        }
        if leaf.is_ca() {
            let what = "its first certificate is an authority's";
            self.mistakes.push(TlsError::new(path, what, "put the daemon's own first, then each one's issuer"));
        }
        let usage = leaf.extended_key_usage().ok().flatten();
        if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
            let what = "its first certificate is not for servers (extended key usage)";
            self.mistakes.push(TlsError::new(path, what, "have one issued with serverAuth"));
        }
        let names = names(leaf);
        if names.is_empty() {
            let what = "its first certificate has neither DNS name nor address, so that no client takes it";
            self.mistakes.push(TlsError::new(path, what, "have one issued for the host name that callers use"));
        }
        let by = match parsed.last() {
            Some(last) if last.issuer() == last.subject() => format!("{} (signed by itself)", last.issuer()),
            Some(last) => last.issuer().to_string(),
            None => String::new(),
        };
        let until = leaf.validity().not_after;
        let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
        self.certificate =
            Some(format!("for {names}, by {}, until {until}", if by.is_empty() { "no name" } else { &by }));
    }

    fn validity(&mut self, path: &Path, number: usize, certificate: &X509Certificate<'_>, now: UnixMillis) {
        let now = i64::try_from(now / 1000).unwrap_or(i64::MAX);
        let validity = certificate.validity();
        let (from, until) = (validity.not_before, validity.not_after);
        if until.timestamp() < now {
            let what = format!("certificate {number} in it has expired: it was valid until {until}");
            self.mistakes.push(TlsError::new(path, what, "have a new one issued, and see to this machine's clock"));
        } else if from.timestamp() > now {
            let what = format!("certificate {number} in it is valid only from {from} on");
            self.mistakes.push(TlsError::new(path, what, "see to this machine's clock, or to the issuer's"));
        } else if until.timestamp() - now < SOON_SECONDS {
            let what = format!("certificate {number} in it expires soon: it is valid until {until}");
            self.notes.push(TlsError::new(path, what, "have a new one issued"));
        }
    }

    // What an authority signed is believed after its own end: a client's chain ends before it.
    fn authority(&mut self, path: &Path, authority: &CertificateDer<'_>, now: UnixMillis) {
        let Ok((_, parsed)) = X509Certificate::from_der(authority) else { return };
        let now = i64::try_from(now / 1000).unwrap_or(i64::MAX);
        let until = parsed.validity().not_after;
        if until.timestamp() < now {
            let what = format!("the authority {:?} has expired ({until})", parsed.subject().to_string());
            self.notes.push(TlsError::new(path, what, "what it signed is still accepted: remove it, or renew it"));
        }
    }

    fn revocation_list(&mut self, path: &Path, list: &[u8], now: UnixMillis) {
        let Ok((_, parsed)) = CertificateRevocationList::from_der(list) else { return };
        let now = i64::try_from(now / 1000).unwrap_or(i64::MAX);
        if let Some(next) = parsed.next_update()
            && next.timestamp() < now
        {
            let what =
                format!("the revocation list of {:?} is past its next update ({next})", parsed.issuer().to_string());
            let remedy = "download it again: until then every client of that authority is refused";
            self.mistakes.push(TlsError::new(path, what, remedy));
        }
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
            },
            _ => None,
        })
        .collect()
}

const SOON_SECONDS: i64 = 14 * 24 * 3600;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    struct Site {
        folder: tempfile::TempDir,
        authority: CertifiedIssuer<'static, KeyPair>,
    }

    /// In the middle of 2030.
    const NOW: UnixMillis = 1_909_000_000_000;

    impl Site {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "the authority");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let site = Self { folder: tempfile::tempdir().unwrap(), authority };
            site.write("ca.pem", &site.authority.pem());
            site
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        }

        fn files(&self, change: impl FnOnce(&mut CertificateParams)) -> TlsFiles {
            let mut params = CertificateParams::new(vec!["kms.example.com".to_owned()]).unwrap();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.authority).unwrap();
            TlsFiles {
                cert_chain: self.write("server.pem", &certificate.pem()),
                key: self.write("server.key", &key.serialize_pem()),
                client_cas: vec![self.folder.path().join("ca.pem")],
                ..TlsFiles::default()
            }
        }
    }

    fn told(errors: &[TlsError]) -> String {
        errors.iter().map(TlsError::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_certificate_that_clients_believe_is_told_with_its_name_its_issuer_and_its_end() {
        let site = Site::new();
        let all = inspect(&site.files(|_| ()), NOW);
        assert_eq!((told(&all.mistakes), told(&all.notes)), (String::new(), String::new()));
        let certificate = all.certificate.unwrap();
        assert!(certificate.starts_with("for kms.example.com, by CN=the authority, until "), "{certificate}");
    }

    #[test]
    fn what_no_client_would_believe_is_a_mistake() {
        let site = Site::new();
        type Change = fn(&mut CertificateParams);
        let cases: [(&str, Change); 5] = [
            ("has expired", |params| params.not_after = rcgen::date_time_ymd(2030, 1, 1)),
            ("is valid only from", |params| params.not_before = rcgen::date_time_ymd(2031, 1, 1)),
            ("is not for servers", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            ("has neither DNS name nor address", |params| params.subject_alt_names = Vec::new()),
            ("is an authority's", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ];
        for (expected, change) in cases {
            let said = told(&inspect(&site.files(change), NOW).mistakes);
            assert!(said.contains(expected) && said.contains("server.pem"), "{expected}: {said}");
        }
        let soon = inspect(&site.files(|params| params.not_after = rcgen::date_time_ymd(2030, 7, 5)), NOW);
        assert!(soon.mistakes.is_empty() && told(&soon.notes).contains("expires soon"), "{soon:?}");
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_told() {
        let site = Site::new();
        let mut files = site.files(|_| ());
        let own = std::fs::read_to_string(&files.cert_chain).unwrap();
        let other = Site::new();
        let stranger = std::fs::read_to_string(other.files(|_| ()).cert_chain).unwrap();
        files.cert_chain = site.write("server.pem", &format!("{own}{stranger}"));
        let said = told(&inspect(&files, NOW).mistakes);
        assert!(said.contains("certificate 1 in it is by") && said.contains("put the daemon's own first"), "{said}");
    }

    #[test]
    fn every_file_is_looked_at_and_not_only_the_first_that_is_wrong() {
        let site = Site::new();
        let mut files = site.files(|params| params.not_after = rcgen::date_time_ymd(2030, 1, 1));
        files.key = site.folder.path().join("no.key");
        files.client_cas = vec![site.write("ca.pem", "nothing")];
        files.crls = vec![site.folder.path().join("no.crl")];
        let said = told(&inspect(&files, NOW).mistakes);
        for expected in ["no.key", "ca.pem", "no.crl", "has expired"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_told() {
        let site = Site::new();
        let files = site.files(|_| ());
        site.write("server.key", &KeyPair::generate().unwrap().serialize_pem());
        assert!(told(&inspect(&files, NOW).mistakes).contains("it is not the key of the first certificate"));
    }
}
