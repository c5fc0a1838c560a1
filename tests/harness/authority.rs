//! A throw-away certificate authority, and the certificates it issues: right ones and wrong ones.

use anyhow::Result;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

/// A certificate authority that lives as long as a test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// Makes an authority. All have the same name, so that only the key tells them apart.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "throw-away authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Returns its certificate, which the other side trusts.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a server's certificate for `localhost` and 127.0.0.1.
    pub fn server(&self) -> Result<Identity> {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Issues a client's certificate for one principal.
    pub fn client(&self, spiffe_id: &str) -> Result<Identity> {
        self.issue(client_params(&[spiffe_id])?)
    }

    /// Issues a client's certificate for any number of principals: none, or more than one, is no identity.
    pub fn client_of(&self, uris: &[&str]) -> Result<Identity> {
        self.issue(client_params(uris)?)
    }

    /// Issues a client's certificate with a serial number, by which it can be revoked.
    pub fn client_numbered(&self, spiffe_id: &str, serial: u64) -> Result<Identity> {
        let mut params = client_params(&[spiffe_id])?;
        params.serial_number = Some(SerialNumber::from(serial));
        self.issue(params)
    }

    /// Returns a list of what it has revoked.
    pub fn revocation_list(&self, serials: &[u64]) -> Result<String> {
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// Issues a client's certificate that ended long ago.
    pub fn expired_client(&self, spiffe_id: &str) -> Result<Identity> {
        let mut params = client_params(&[spiffe_id])?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
        self.issue(params)
    }

    /// Issues a certificate with a principal in it that is good for servers only.
    pub fn server_with(&self, spiffe_id: &str) -> Result<Identity> {
        let mut params = client_params(&[spiffe_id])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Issues a client's certificate that is otherwise than usual.
    pub fn client_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<Identity> {
        let mut params = client_params(&[])?;
        change(&mut params);
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn client_params(uris: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "throw-away client");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(*uri)?));
    }
    Ok(params)
}
