//! Settings: a flag beats its environment variable, which beats the configuration file.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use kms_client::Client;
use serde::{Deserialize, Serialize};
use tonic::transport::Uri;

use crate::duration;
use crate::error::Failure;
use crate::output::Format;

/// The arguments that every command has.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// How results are printed: table or json
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true,
        env = "KMS_OUTPUT",
        hide_env_values = true
    )]
    pub output: Format,
    /// Prints one field of the JSON answer alone, such as state or keyVersions.0.version
    #[arg(long, global = true, value_name = "FIELD", hide_short_help = true)]
    pub field: Option<String>,
    /// Prints neither notes nor what a change has made of its object; data is printed
    #[arg(long, short, global = true, hide_short_help = true)]
    pub quiet: bool,
    /// Tenant of the keys that are given without one
    #[arg(long, global = true, value_name = "TENANT", env = "KMS_TENANT", hide_env_values = true)]
    tenant: Option<String>,
    /// Profile of the configuration file [default: its `current`]
    #[arg(long, global = true, value_name = "PROFILE", env = "KMS_PROFILE", hide_env_values = true)]
    profile: Option<String>,
    /// Configuration file [default: ./.kms-dev/client.toml, else ~/.config/kms/config.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KMS_CONFIG",
        hide_env_values = true,
        hide_short_help = true
    )]
    config: Option<PathBuf>,
    /// Address of the server, such as https://kms.internal:8443; several, separated by commas, are
    /// tried in turn
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "KMS_ADDR",
        hide_env_values = true,
        hide_short_help = true,
        verbatim_doc_comment
    )]
    address: Option<String>,
    /// Address of the server's operator listener, for `kms status`
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "KMS_OPERATOR_ADDR",
        hide_env_values = true,
        hide_short_help = true
    )]
    operator_address: Option<String>,
    /// Certificates of the CAs that may have issued the server's certificate, in PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KMS_CA_FILE",
        hide_env_values = true,
        hide_short_help = true
    )]
    ca_file: Option<PathBuf>,
    /// Your certificate, in PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KMS_CERT_FILE",
        hide_env_values = true,
        hide_short_help = true
    )]
    cert_file: Option<PathBuf>,
    /// The private key of your certificate, in PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KMS_KEY_FILE",
        hide_env_values = true,
        hide_short_help = true
    )]
    key_file: Option<PathBuf>,
    /// Name in the server's certificate, where the address has another
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "KMS_TLS_SERVER_NAME",
        hide_env_values = true,
        hide_short_help = true
    )]
    server_name: Option<String>,
    /// Time limit of each call, connecting and repeating included [default: 10s]
    #[arg(long, global = true, value_name = "DURATION", env = "KMS_TIMEOUT", hide_env_values = true, hide_short_help = true, value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// What holds for this run.
#[derive(Debug, Default)]
pub struct Settings {
    address: Option<String>,
    operator_address: Option<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    timeout: Option<Duration>,
    /// The tenant of keys that are given without one.
    pub tenant: Option<String>,
    /// The name of the profile that was read.
    pub profile: Option<String>,
}

impl Settings {
    /// Reads the environment's files, and lays the flags over them.
    pub fn find(globals: &Globals) -> Result<Self, Failure> {
        Self::merge(globals, Path::new(DEV_FILE), user_file().as_deref())
    }

    fn merge(globals: &Globals, dev_file: &Path, user_file: Option<&Path>) -> Result<Self, Failure> {
        let (name, profile) = match ConfigFile::find_among(globals, dev_file, user_file)? {
            Some(file) => {
                let name = file.name(globals.wanted_profile())?;
                let profile = file.profile(name)?;
                if file.was_found_here {
                    only_loopback(&file.path, profile)?;
                }
                (Some(name.to_owned()), profile.clone())
            }
            None => match globals.wanted_profile() {
                Some(name) => {
                    let failure = format!("there is no profile {name:?}: no configuration file was found");
                    return Err(Failure::usage(failure).hint("--config FILE names one"));
                }
                None => (None, Profile::default()),
            },
        };
        // A variable that is set to nothing is not set.
        let text = |flag: &Option<String>| flag.clone().filter(|text| !text.is_empty());
        let path = |flag: &Option<PathBuf>| flag.clone().filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            address: text(&globals.address).or(profile.address),
            operator_address: text(&globals.operator_address).or(profile.operator_address),
            ca_file: path(&globals.ca_file).or(profile.ca_file),
            cert_file: path(&globals.cert_file).or(profile.cert_file),
            key_file: path(&globals.key_file).or(profile.key_file),
            server_name: text(&globals.server_name).or(profile.server_name),
            timeout: globals.timeout,
            tenant: text(&globals.tenant).or(profile.tenant),
            profile: name,
        })
    }

    /// Returns where the server is, for people who are about to destroy something there.
    pub fn place(&self) -> String {
        let address = self.address.as_deref().unwrap_or("no server");
        match &self.profile {
            Some(profile) => format!("{address} (profile {profile})"),
            None => address.to_owned(),
        }
    }

    pub fn client(&self) -> Result<Client, Failure> {
        let Some(address) = &self.address else {
            return Err(missing("the server's address", "--address URL or KMS_ADDR"));
        };
        self.client_at(address, self.operator_address.as_deref())
    }

    /// Returns a client of the operator listener, for which the service need not be known.
    pub fn operator_client(&self) -> Result<Client, Failure> {
        let Some(address) = &self.operator_address else {
            return Err(missing("the address of the operator listener", "--operator-address URL or KMS_OPERATOR_ADDR"));
        };
        self.client_at(self.address.as_deref().unwrap_or(address), Some(address))
    }

    fn client_at(&self, address: &str, operator_address: Option<&str>) -> Result<Client, Failure> {
        let Some(ca_file) = &self.ca_file else {
            return Err(missing("the server's CA certificate", "--ca-file FILE or KMS_CA_FILE"));
        };
        let Some(cert_file) = &self.cert_file else {
            return Err(missing("your certificate", "--cert-file FILE or KMS_CERT_FILE"));
        };
        let Some(key_file) = &self.key_file else {
            return Err(missing("the private key of your certificate", "--key-file FILE or KMS_KEY_FILE"));
        };
        // Whitespace, as it comes with lists that are written by hand.
        let mut addresses = address.split(',').map(str::trim);
        let mut builder = Client::builder(addresses.next().unwrap_or_default())
            .ca_file(ca_file)
            .identity_files(cert_file, key_file)
            .timeout(self.timeout.unwrap_or(TIMEOUT_DEFAULT));
        for address in addresses {
            builder = builder.endpoint(address);
        }
        if let Some(name) = &self.server_name {
            builder = builder.server_name(name);
        }
        if let Some(address) = operator_address {
            builder = builder.operator_endpoint(address);
        }
        builder.connect_lazy().map_err(|error| {
            let failure = Failure::usage(error.message());
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }
}

fn missing(what: &str, flags: &str) -> Failure {
    Failure::usage(format!("{what} is not set"))
        .hint(format!("give {flags}, or a configuration file: `kms help` shows its form"))
}

/// Written by `kms-server dev`, and found where it was started.
const DEV_FILE: &str = ".kms-dev/client.toml";
/// People wait longer than services.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    current: Option<String>,
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

/// A server, and who one is to it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(serialize = "camelCase"))]
pub struct Profile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The configuration file that holds for this run.
pub struct ConfigFile {
    pub path: PathBuf,
    /// As it was read.
    pub text: String,
    /// Whether it is used because of where one stands.
    was_found_here: bool,
    file: File,
}

impl Globals {
    /// Returns the profile that was asked for.
    pub fn wanted_profile(&self) -> Option<&str> {
        self.profile.as_deref().filter(|name| !name.is_empty())
    }
}

fn user_file() -> Option<PathBuf> {
    let config_folder = env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = env::var_os("HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let config_folder = config_folder.or_else(|| home.map(|home| home.join(".config")));
    config_folder.map(|folder| folder.join("kms").join("config.toml"))
}

impl ConfigFile {
    /// Finds it, if there is one.
    pub fn find(globals: &Globals) -> Result<Option<Self>, Failure> {
        Self::find_among(globals, Path::new(DEV_FILE), user_file().as_deref())
    }

    fn find_among(globals: &Globals, dev_file: &Path, user_file: Option<&Path>) -> Result<Option<Self>, Failure> {
        let given = globals.config.as_deref().filter(|path| !path.as_os_str().is_empty());
        let candidates: Vec<&Path> = match given {
            Some(path) => vec![path],
            None => [Some(dev_file), user_file].into_iter().flatten().collect(),
        };
        for path in candidates {
            let text = match read_text(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound && given.is_none() => continue,
                Err(error) => return Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
            };
            let was_found_here = given.is_none() && path == dev_file;
            return Ok(Some(Self { was_found_here, ..Self::parse(path, text)? }));
        }
        Ok(None)
    }

    fn parse(path: &Path, text: String) -> Result<Self, Failure> {
        let mut file: File = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            Failure::usage(format!("{}:{line}:{column}: {}", path.display(), error.message().trim_end()))
        })?;
        // What join makes of an absolute path is that path.
        let folder = path.parent().unwrap_or(Path::new(""));
        for profile in file.profile.values_mut() {
            for file in [&mut profile.ca_file, &mut profile.cert_file, &mut profile.key_file] {
                *file = file.take().map(|file| folder.join(file));
            }
        }
        Ok(Self { path: path.to_owned(), text, was_found_here: false, file })
    }

    /// Returns which profile is used: the one that was asked for, the current one, or the only one.
    pub fn name<'a>(&'a self, wanted: Option<&'a str>) -> Result<&'a str, Failure> {
        let only = self.file.profile.keys().next().filter(|_| self.file.profile.len() == 1);
        wanted.or(self.file.current.as_deref()).or(only.map(String::as_str)).ok_or_else(|| {
            Failure::usage(format!("{} does not say which profile is current", self.path.display())).hint(format!(
                "give --profile PROFILE, or choose one by `kms profile use PROFILE`; it has: {}",
                self.names()
            ))
        })
    }

    pub fn profile(&self, name: &str) -> Result<&Profile, Failure> {
        self.file.profile.get(name).ok_or_else(|| {
            Failure::usage(format!("{} has no profile {name:?}", self.path.display()))
                .hint(format!("it has: {}", self.names()))
        })
    }

    /// Returns all, by name.
    pub fn profiles(&self) -> impl Iterator<Item = (&String, &Profile)> {
        self.file.profile.iter()
    }

    fn names(&self) -> String {
        self.file.profile.keys().cloned().collect::<Vec<_>>().join(", ")
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A file that is used because of where one stands may have come with a download, and must not send plaintext to
/// somebody else's server. The development server listens on loopback only, so nothing is lost.
fn only_loopback(path: &Path, profile: &Profile) -> Result<(), Failure> {
    let given = [&profile.address, &profile.operator_address].into_iter().flatten();
    for address in given.flat_map(|addresses| addresses.split(',')).map(str::trim) {
        let host = address.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return Err(Failure::usage(format!("{} names {address}, which is not this machine", path.display()))
                .hint(format!("if you trust it, say so: --config {}", path.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    const FILE: &str = r#"
current = "admin"
[profile.admin]
address = "https://127.0.0.1:8443"
operator_address = "https://127.0.0.1:8444"
ca_file = "ca.pem"
cert_file = "admin.pem"
key_file = "/keys/admin.key"
tenant = "acme"
[profile.prod]
address = "https://kms.example.com:8443"
"#;

    fn flags(set: impl FnOnce(&mut Globals)) -> Globals {
        let mut globals = Globals::default();
        set(&mut globals);
        globals
    }

    fn folder(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    const NO_FILE: &str = "no/such/file";

    fn merge(globals: &Globals, dev_file: &Path) -> Result<Settings, Failure> {
        Settings::merge(globals, dev_file, Some(Path::new(NO_FILE)))
    }

    #[test]
    fn a_flag_beats_the_file_and_paths_are_relative_to_the_file() {
        let (folder, path) = folder(FILE);
        let settings = merge(&Globals::default(), &path).unwrap();
        assert_eq!(settings.address.as_deref(), Some("https://127.0.0.1:8443"));
        assert_eq!(settings.ca_file.as_deref(), Some(&*folder.path().join("ca.pem")));
        assert_eq!(settings.key_file.as_deref(), Some(Path::new("/keys/admin.key")));
        assert_eq!((settings.tenant.as_deref(), settings.profile.as_deref()), (Some("acme"), Some("admin")));

        let over = flags(|g| {
            g.address = Some("https://other:1".to_owned());
            g.ca_file = Some("other.pem".into());
            g.tenant = Some(String::new());
        });
        let settings = merge(&over, &path).unwrap();
        assert_eq!(settings.address.as_deref(), Some("https://other:1"));
        assert_eq!(settings.ca_file.as_deref(), Some(Path::new("other.pem")), "relative to where one stands");
        assert_eq!(settings.tenant.as_deref(), Some("acme"), "a variable set to nothing is not set");
    }

    #[test]
    fn the_given_file_goes_before_the_one_here_and_that_before_the_users() {
        let named = |name: &str| format!("[profile.{name}]\naddress = \"https://localhost:1\"\n");
        let [(_a, given), (_b, here), (_c, users)] = ["given", "here", "users"].map(|name| folder(&named(name)));
        let profile = |globals: &Globals, here: &Path| Settings::merge(globals, here, Some(&users)).unwrap().profile;
        assert_eq!(profile(&flags(|g| g.config = Some(given.clone())), &here).as_deref(), Some("given"));
        assert_eq!(profile(&Globals::default(), &here).as_deref(), Some("here"));
        assert_eq!(profile(&Globals::default(), Path::new(NO_FILE)).as_deref(), Some("users"));
        assert_eq!(merge(&Globals::default(), Path::new(NO_FILE)).unwrap().profile, None);
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, says) in [
            ("current = \"a\"\n[profile.a]\nadress = \"x\"\n", ":3:1: unknown field `adress`"),
            ("\n[context.a]\n", ":2:2: unknown field `context`"),
            ("current = \n", ":1:11: "),
            ("current = \"b\"\n[profile.a]\n", "has no profile \"b\""),
            ("[profile.a]\n[profile.b]\n", "does not say which profile is current"),
        ] {
            let (_folder, path) = folder(text);
            let failure = merge(&Globals::default(), &path).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.lines().contains(says), "{}", failure.lines());
        }
    }

    #[test]
    fn a_profile_is_chosen_by_name_and_must_exist() {
        let (_folder, path) = folder(FILE);
        let config = |profile: &str| flags(|g| (g.profile, g.config) = (Some(profile.to_owned()), Some(path.clone())));
        let settings = merge(&config("prod"), Path::new(NO_FILE)).unwrap();
        assert_eq!(settings.place(), "https://kms.example.com:8443 (profile prod)");
        assert!(merge(&config("none"), Path::new(NO_FILE)).is_err());
        assert!(merge(&flags(|g| g.profile = Some("a".to_owned())), Path::new(NO_FILE)).is_err());
        assert!(merge(&flags(|g| g.config = Some(NO_FILE.into())), Path::new(NO_FILE)).is_err());
    }

    #[test]
    fn a_file_found_where_one_stands_may_name_this_machine_only() {
        for (host, allowed) in [
            ("127.0.0.1", true),
            ("localhost", true),
            ("[::1]", true),
            ("127.0.0.1.evil.example", false),
            ("kms.example.com", false),
            ("10.0.0.1", false),
            ("localhost@evil.example", false),
        ] {
            for field in ["address", "operator_address"] {
                let (_folder, path) = folder(&format!("[profile.a]\n{field} = \"https://{host}:8443\"\n"));
                assert_eq!(merge(&Globals::default(), &path).is_ok(), allowed, "{field} {host}");
                let trusted = flags(|g| g.config = Some(path));
                merge(&trusted, Path::new(NO_FILE)).unwrap();
            }
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_flag() {
        let mut settings = Settings::default();
        let says = |settings: &Settings| settings.client().map(drop).unwrap_err().lines();
        assert!(says(&settings).contains("KMS_ADDR"));
        settings.address = Some("https://kms:1".to_owned());
        assert!(says(&settings).contains("--ca-file"));
        settings.ca_file = Some("ca.pem".into());
        assert!(says(&settings).contains("--cert-file"));
        settings.cert_file = Some("me.pem".into());
        assert!(says(&settings).contains("--key-file"));
        assert!(settings.operator_client().map(drop).unwrap_err().lines().contains("KMS_OPERATOR_ADDR"));
    }
}
