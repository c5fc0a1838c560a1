//! The one table of settings: names, kinds with their bounds, defaults, meanings. What is read, checked, shown and
//! documented comes from here, so that none of them can forget a setting.

use super::value::Kind;
use crate::crypto::arena::SLOTS_DEFAULT;
use crate::keyring::WAIT_MS_MAX;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The table of the file that it stands in; empty for those before the first table.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it is when nobody sets it.
    pub default: Default,
    /// What it means, for people who set it.
    pub meaning: &'static str,
}

/// What a setting is when nobody sets it. All but [`Default::Is`] have a value for the example.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This value, as TOML.
    Is(&'static str),
    /// What `meaning` says; the example sets it to this.
    Else(&'static str),
    /// What `meaning` says; the example has this in a comment, because a value of its own suits few.
    ElseHidden(&'static str),
    /// Nothing: it must be set.
    Required(&'static str),
}

impl Setting {
    /// Returns its whole name, such as `listen.services`.
    pub fn full_name(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// Returns the name that its flag has in [`super::Flags`], if it has one, such as `listen_services`.
    pub fn id(&self) -> String {
        self.full_name().replace('.', "_")
    }

    /// Returns its value in the example, as TOML.
    pub fn example(&self) -> &'static str {
        match self.default {
            Default::Is(text) | Default::Else(text) | Default::ElseHidden(text) | Default::Required(text) => text,
        }
    }
}

/// The tables of the file, in their order.
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = SETTINGS.iter().map(|setting| setting.section).collect();
    sections.dedup();
    sections
}

/// What is no table of the form `name = value`, but a list of tables: see `authn::mapping`,
pub const IDENTITY: &str = "identity";
/// `authn::issuer`,
pub const ISSUER: &str = "issuer";
/// and `authn::trust_domain`.
pub const TRUST_DOMAIN: &str = "trust_domain";
/// All of them.
pub const LISTS: [&str; 3] = [IDENTITY, ISSUER, TRUST_DOMAIN];

const fn of(section: &'static str, name: &'static str, kind: Kind, default: Default, meaning: &'static str) -> Setting {
    Setting { section, name, kind, default, meaning }
}

const DEFAULT_KEYS: &str = "65536";
const _: () = assert!(SLOTS_DEFAULT == 65_536, "the default below is that of the arena");

/// All settings, in the order of the example.
pub const SETTINGS: &[Setting] = &[
    of("", "data_dir", Kind::Path, Default::Required("\"/var/lib/kms\""), "store, audit log and keystore; mode 0700"),
    of("", "node", Kind::Name, Default::Is("\"node-1\""), "this node's name in the audit log"),
    of(
        "",
        "cores",
        Kind::Integer { min: 1, max: 1024, unit: "threads" },
        Default::ElseHidden("2"),
        "threads that serve connections; unset: one per core",
    ),
    of(
        "listen",
        "services",
        Kind::Address,
        Default::Is("\"127.0.0.1:8443\""),
        "for applications and administrators; 0.0.0.0:8443 for all addresses",
    ),
    of("listen", "operator", Kind::Address, Default::Is("\"127.0.0.1:8444\""), "for operators: kms status"),
    of("listen", "probes", Kind::Address, Default::Is("\"127.0.0.1:8445\""), "metrics and probes, without TLS"),
    of(
        "tls",
        "certificate_file",
        Kind::Path,
        Default::Required("\"server.pem\""),
        "the daemon's certificate, then its intermediates",
    ),
    of(
        "tls",
        "key_file",
        Kind::Path,
        Default::Required("\"server.key\""),
        "its private key; must not be readable by everybody",
    ),
    of(
        "tls",
        "client_ca_file",
        Kind::Path,
        Default::Required("\"ca.pem\""),
        "the authorities whose client certificates are accepted",
    ),
    of(
        "tls",
        "crl_files",
        Kind::Paths,
        Default::Is("[]"),
        "revocation lists; with any, each authority needs a current one",
    ),
    of("tls", "allow_tls12", Kind::Switch, Default::Is("false"), "TLS 1.2 beside 1.3"),
    of(
        "policy",
        "bindings_file",
        Kind::Path,
        Default::Else("\"bindings.toml\""),
        "who may do what; unset: in data_dir",
    ),
    of("policy", "cedar_files", Kind::Paths, Default::Is("[]"), "policies of your own, in the Cedar language"),
    of(
        "policy",
        "context_pairs",
        Kind::PairNames,
        Default::Is("[]"),
        "pairs of encryption contexts that policy may see, as [\"purpose\"]",
    ),
    of(
        "reload",
        "watch",
        Kind::Time { min_ms: 0, max_ms: 86_400_000 },
        Default::Is("\"1m\""),
        "how often files are looked at for changes, beside SIGHUP; 0s: never",
    ),
    of(
        "backend",
        "kind",
        Kind::Choice(&["software", "aws-kms", "pkcs11"]),
        Default::Is("\"software\""),
        "what holds the master key, decided by init",
    ),
    of(
        "backend",
        "pin_file",
        Kind::Path,
        Default::Else("\"pin\""),
        "the PIN of software HSM or token; unset: in data_dir, not the best place",
    ),
    of(
        "backend",
        "pin_memory_kib",
        Kind::Integer { min: 8, max: 1 << 20, unit: "KiB" },
        Default::Is("65536"),
        "software: what trying a PIN costs (Argon2id), used by init",
    ),
    of(
        "backend",
        "probe_every",
        Kind::Time { min_ms: 1_000, max_ms: 3_600_000 },
        Default::Is("\"1m\""),
        "how often the master key is tried while serving",
    ),
    of(
        "backend",
        "lock_after",
        Kind::Time { min_ms: 1_000, max_ms: 86_400_000 },
        Default::Is("\"5m\""),
        "the daemon locks itself when its key was refused so long",
    ),
    of(
        "backend",
        "offline_grace",
        Kind::Time { min_ms: 1_000, max_ms: WAIT_MS_MAX },
        Default::ElseHidden("\"7d\""),
        "and when the backend was out of reach so long; unset: never",
    ),
    of(
        "backend",
        "aws_region",
        Kind::Text,
        Default::ElseHidden("\"eu-central-1\""),
        "aws-kms: unset: as AWS's own tools find it",
    ),
    of(
        "backend",
        "aws_endpoint_url",
        Kind::Text,
        Default::ElseHidden("\"https://kms.eu-central-1.amazonaws.com\""),
        "aws-kms: another address, such as a VPC endpoint",
    ),
    of(
        "backend",
        "aws_roll_role_arn",
        Kind::Text,
        Default::ElseHidden("\"arn:aws:iam::111122223333:role/kms-roll\""),
        "aws-kms: makes and destroys keys; unset: its own",
    ),
    of(
        "backend",
        "aws_key_arn",
        Kind::Text,
        Default::ElseHidden("\"arn:aws:kms:eu-central-1:111122223333:key/0f1e\""),
        "aws-kms: taken for the next epoch; unset: one is made",
    ),
    of(
        "backend",
        "aws_deletion_days",
        Kind::Integer { min: 7, max: 30, unit: "days" },
        Default::ElseHidden("7"),
        "aws-kms: how long AWS waits before it deletes a key; unset: 7",
    ),
    of(
        "backend",
        "pkcs11_module",
        Kind::Path,
        Default::ElseHidden("\"/usr/lib/softhsm/libsofthsm2.so\""),
        "pkcs11: the module's library",
    ),
    of("backend", "pkcs11_token", Kind::Text, Default::ElseHidden("\"kms\""), "pkcs11: the label of the token"),
    of(
        "backend",
        "pkcs11_mechanism",
        Kind::Choice(&["auto", "aes-gcm", "aes-cbc-pad"]),
        Default::ElseHidden("\"aes-gcm\""),
        "pkcs11: unset: aes-gcm where the token has it",
    ),
    of(
        "audit",
        "origin",
        Kind::Origin,
        Default::ElseHidden("\"kms.example.com/node-1\""),
        "the log's name (C2SP), used by init; unset: made of cluster and node",
    ),
    of(
        "audit",
        "segment_bytes",
        Kind::Integer { min: 1 << 16, max: 1 << 30, unit: "bytes" },
        Default::Is("67108864"),
        "size of a file of the log, allocated at once",
    ),
    of(
        "destruction",
        "wait_min",
        Kind::Time { min_ms: 0, max_ms: WAIT_MS_MAX },
        Default::Is("\"7d\""),
        "the shortest wait that one person may choose; less takes two",
    ),
    of(
        "destruction",
        "wait_default",
        Kind::Time { min_ms: 0, max_ms: WAIT_MS_MAX },
        Default::Else("\"7d\""),
        "the wait when none is asked for; unset: 7d, or a longer wait_min",
    ),
    of(
        "grants",
        "duration_max",
        Kind::Time { min_ms: 1000, max_ms: 7 * 24 * 3600 * 1000 },
        Default::Is("\"12h\""),
        "the longest that a role can be granted for",
    ),
    of(
        "rotation",
        "rewraps_per_second",
        Kind::Integer { min: 1, max: 1_000_000, unit: "" },
        Default::Is("5000"),
        "managed data keys that a rotation moves each second, at most",
    ),
    of(
        "limits",
        "connections",
        Kind::Integer { min: 1, max: 1 << 20, unit: "" },
        Default::Is("4096"),
        "of applications, at the same time; operators have 64 of their own",
    ),
    of(
        "limits",
        "connections_per_peer",
        Kind::Integer { min: 1, max: 1 << 20, unit: "" },
        Default::Else("64"),
        "from one address: raise it for callers behind one NAT or proxy",
    ),
    of(
        "limits",
        "bytes_in_flight",
        Kind::Integer { min: 8 << 20, max: 1 << 36, unit: "bytes" },
        Default::Is("268435456"),
        "of all messages being received or answered",
    ),
    of(
        "limits",
        "requests_in_flight",
        Kind::Integer { min: 16, max: 1 << 20, unit: "" },
        Default::Is("4096"),
        "at the same time; more are refused at once",
    ),
    of(
        "limits",
        "rate_per_principal",
        Kind::Integer { min: 0, max: 1_000_000, unit: "a second" },
        Default::Is("0"),
        "operations of one caller, with items of batches; 0: none",
    ),
    of(
        "limits",
        "rate_per_tenant",
        Kind::Integer { min: 0, max: 1_000_000, unit: "a second" },
        Default::Is("0"),
        "operations for one tenant, of all callers; 0: none",
    ),
    of(
        "limits",
        "request_time",
        Kind::Time { min_ms: 10, max_ms: 600_000 },
        Default::Is("\"5s\""),
        "the most for one request",
    ),
    of(
        "memory",
        "keys",
        Kind::Integer { min: 16, max: 1 << 23, unit: "" },
        Default::Is(DEFAULT_KEYS),
        "versions of keys held in locked memory; 32 bytes each",
    ),
    of(
        "memory",
        "tenants",
        Kind::Integer { min: 16, max: 1 << 22, unit: "" },
        Default::Is("16384"),
        "tenants held in memory",
    ),
    of(
        "log",
        "format",
        Kind::Choice(&["auto", "text", "json"]),
        Default::Is("\"auto\""),
        "auto is text on a terminal, else json",
    ),
    of("log", "filter", Kind::Filter, Default::Is("\"info\""), "error, warn, info, debug; also by module"),
];
