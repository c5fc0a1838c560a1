//! What is read, and every mistake with its place.

use super::*;

fn flags(text: &str) -> (tempfile::TempDir, Flags) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kms.toml");
    std::fs::write(&file, text).unwrap();
    (folder, Flags { config: Some(file), ..Flags::default() })
}

fn settings(text: &str) -> Result<Settings, Vec<String>> {
    let (folder, flags) = flags(text);
    let prefix = format!("{}/", folder.path().display());
    Settings::load(&flags).map_err(|error| error.0.iter().map(|all| all.to_string().replace(&prefix, "")).collect())
}

#[test]
fn an_empty_file_but_for_the_directory_gives_the_defaults() {
    let (folder, flags) = flags("data_dir = \"data\"");
    let settings = Settings::load(&flags).unwrap();
    assert_eq!(settings.data_dir, folder.path().join("data"));
    assert_eq!(settings.bindings_file, folder.path().join("data/bindings.toml"));
    assert_eq!(settings.services.to_string(), "127.0.0.1:8443");
    assert_eq!((settings.keyring.wait_ms_min, settings.keyring.wait_ms_default), (604_800_000, 604_800_000));
    assert_eq!(settings.segment_bytes, 67_108_864);
    assert_eq!(settings.keyring.keys_max, crate::crypto::arena::SLOTS_DEFAULT);
}

#[test]
fn a_flag_comes_before_the_file() {
    let (_folder, mut flags) = flags("node = \"a\"\ndata_dir = \"data\"");
    (flags.node, flags.data_dir) = (Some("b".into()), Some("here".into()));
    let settings = Settings::load(&flags).unwrap();
    assert_eq!((&*settings.node, &*settings.data_dir), ("b", Path::new("here")));
}

#[test]
fn every_flag_is_a_setting_and_says_its_own_name() {
    use clap::Args as _;
    let command = Flags::augment_args(clap::Command::new("settings"));
    // A place to die at is for tests, and no setting.
    let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
    let ids: Vec<&str> = shown.map(|flag| flag.get_id().as_str()).collect();
    let all = ids.iter().flat_map(|id| [format!("--{}", id.replace('_', "-")), "1".to_owned()]);
    let matches = command.clone().get_matches_from(["settings".to_owned()].into_iter().chain(all));
    let flags = <Flags as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
    let given = flags.given();
    for id in ids.into_iter().filter(|id| *id != "config") {
        assert!(SETTINGS.iter().any(|setting| setting.id() == id), "{id} is no setting");
        assert!(given.iter().any(|given| given.id == id), "{id} is forgotten");
        let flag = command.get_arguments().find(|flag| flag.get_id() == id).unwrap();
        let variable = format!("{VARIABLES}{}", id.to_uppercase());
        assert_eq!(flag.get_env(), Some(std::ffi::OsStr::new(&variable)));
    }
}

#[test]
fn each_mistake_says_where_what_and_what_to_do() {
    let cases = [
        ("", "kms.toml: there is no data directory: store, audit log and keystore need a place; set data_dir"),
        (
            "data_dir = \"d\"\nnodes = 3",
            "kms.toml:2:1: unknown setting \"nodes\": before the first table there are `data_dir`, `node`, `cores`; did you mean `node`?",
        ),
        (
            "data_dir = \"d\"\n[listen]\nservice = \"127.0.0.1:1\"",
            "kms.toml:3:1: unknown setting \"service\" in [listen]: the settings there are `services`, `operator`, `probes`; did you mean `services`?",
        ),
        (
            "data_dir = \"d\"\nservices = \"127.0.0.1:1\"",
            "kms.toml:2:1: unknown setting \"services\": before the first table there are `data_dir`, `node`, `cores`; move it into [listen]",
        ),
        ("data_dir = \"d\"\n[audit]\ndata_dir = \"d\"", "move it up, before the first table"),
        (
            "data_dir = \"d\"\n[audits]\norigin = \"a\"",
            "kms.toml:2:2: unknown table \"audits\": the tables are `listen`, `tls`, `policy`, `reload`, `backend`, `audit`, `destruction`, `grants`, `rotation`, `limits`, `memory`, `log`, `identity`, `issuer`, `trust_domain`; did you mean `audit`?",
        ),
        ("data_dir = \"d\"\nlisten = 3", "kms.toml:2:10: listen = 3: it is a table of settings; write [listen]"),
        (
            "data_dir = \"d\"\n[listen]\nservices = \"localhost\"",
            "kms.toml:3:12: listen.services = \"localhost\": it is no address with a port, and host names are not looked up; write it like 127.0.0.1:8443",
        ),
        (
            "data_dir = \"d\"\n[listen]\nservices = \"127.0.0.1:9\"\nprobes = \"127.0.0.1:9\"",
            "kms.toml:4:1: listen.services and listen.probes have the same address 127.0.0.1:9",
        ),
        ("data_dir = \"d\"\nnode = \"a b\"", "kms.toml:2:8: node = \"a b\": it is no name; use 1 to 64"),
        (
            "data_dir = \"d\"\n[tls]\nkey_file = \"k\"",
            "kms.toml:3:1: tls.certificate_file and tls.client_ca_file are not set: tls.certificate_file, tls.key_file and tls.client_ca_file go together, and tls.key_file is set; set all three",
        ),
        (
            "data_dir = \"d\"\n[backend]\nkind = \"sofware\"",
            "kms.toml:3:8: backend.kind = \"sofware\": there is only `software`, `aws-kms`, `pkcs11`; did you mean `software`?",
        ),
        (
            "data_dir = \"d\"\n[destruction]\nwait_min = \"soon\"",
            "kms.toml:3:12: destruction.wait_min = \"soon\": it is no time; write it like 7d, 12h, 90s or 500ms, from 0s to 365d",
        ),
        ("data_dir = \"d\"\n[destruction]\nwait_min = \"-1s\"", "it is no time"),
        (
            "data_dir = \"d\"\n[destruction]\nwait_min = 7",
            "kms.toml:3:12: destruction.wait_min = 7: it is a time; write it in quotes",
        ),
        (
            "data_dir = \"d\"\n[destruction]\nwait_default = \"366d\"",
            "it is out of bounds; write a time from 0s to 365d",
        ),
        (
            "data_dir = \"d\"\n[destruction]\nwait_min = \"8d\"\nwait_default = \"7d\"",
            "kms.toml:4:1: destruction.wait_default is shorter than destruction.wait_min: it must lie between wait_min and 365d",
        ),
        (
            "data_dir = \"d\"\n[audit]\nsegment_bytes = 1",
            "kms.toml:3:17: audit.segment_bytes = 1: it is out of bounds, or no whole number; write a number from 65536 to 1073741824 bytes",
        ),
        ("data_dir = \"d\"\n[audit]\nsegment_bytes = -1", "out of bounds"),
        (
            "data_dir = \"d\"\n[audit]\nsegment_bytes = \"big\"",
            "kms.toml:3:17: audit.segment_bytes = \"big\": it is a whole number; write it with digits alone and without quotes",
        ),
        ("data_dir = \"d\"\n[audit]\norigin = \"a b\"", "it is no C2SP origin"),
        (
            "data_dir = \"d\"\n[limits]\nconnections = 8\nconnections_per_peer = 9",
            "kms.toml:4:1: limits.connections_per_peer = 9 is out of bounds: there are 8 in all",
        ),
        ("data_dir = \"d\"\n[limits]\nrequest_time = \"1ms\"", "it is out of bounds; write a time from 10ms to 10m"),
        ("data_dir = \"d\"\n[log]\nfilter = \"a=b=c\"", "kms.toml:3:10: log.filter = \"a=b=c\": it is no filter"),
        ("data_dir = \"d\"\n[log]\nformat = \"xml\"", "there is only `auto`, `text`, `json`"),
        ("data_dir = \"d\"\n[tls]\nallow_tls12 = \"yes\"", "it is a switch; write true or false"),
        ("data_dir = \"d\"\n[tls]\ncrl_files = \"a.crl\"", "it is a list of paths"),
        ("data_dir = 7", "kms.toml:1:12: data_dir = 7: it is a path; write it in quotes"),
        (
            "data_dir = \"d\"\n[[identity]]\ndnss = \"a.b\"\nprincipal = \"spiffe://example.com/a\"",
            "kms.toml:3:1: not an identity: unknown field `dnss`, expected one of `dns`, `cn`, `principal`; did you mean `dns`?",
        ),
        (
            "data_dir = \"d\"\n[[identity]]\ndns = \"a.b\"\nprincipal = \"a\"",
            "kms.toml:2:1: not an identity: bad principal",
        ),
        (
            "data_dir = \"d\"\n[[issuer]]\nissuer = \"a\"\naudience = [\"b\"]",
            "kms.toml:4:1: not an issuer: unknown field `audience`, expected one of `issuer`, `audiences`,",
        ),
        (
            "data_dir = \"d\"\n[[trust_domain]]\nname = \"a/b\"\nca_file = \"b\"",
            "kms.toml:2:1: not a trust domain: \"a/b\" is no name of a trust domain",
        ),
        (
            "data_dir = \"d\"\n[[trust_domain]]\nname = \"a\"\nca_file = \"b\"\n[[trust_domain]]\nname = \"a\"\nca_file = \"b\"",
            "[[trust_domain]]: \"a\" is there twice; remove one of the two [[trust_domain]]",
        ),
        (
            "data_dir = \"d\"\nissuer = 7",
            "issuer is no list of tables: each issuer is a table of its own; write [[issuer]]",
        ),
        ("data_dir = \"d\"\n[reload]\nwatch = \"2d\"", "it is out of bounds; write a time from 0s to 1d"),
        ("data_dir = \"d\"\nnode = \"a", "kms.toml:2:10: not TOML: "),
    ];
    for (text, expected) in cases {
        let told = settings(text).map(drop).unwrap_err();
        let [told] = &told[..] else { panic!("{text:?} gave {told:#?}") };
        assert!(told.contains(expected), "{text:?} gave {told:?}, expected {expected:?}");
    }
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let text = "nod = \"a\"\ndata_dir = \"d\"\n[listen]\nservces = \"127.0.0.1:1\"\nprobes = \"here\"\n\
                [memory]\nkeys = 1\n[lmits]\nconnections = 1\n[[identity]]\ncn = \"\"\nprincipal = \"x\"\n";
    let told = settings(text).map(drop).unwrap_err();
    let lines: Vec<&str> = told.iter().filter_map(|told| told.split(':').nth(1)).collect();
    assert_eq!(lines, ["1", "4", "5", "7", "8", "10"], "{told:#?}");
    let told = settings("a = \nb = \n[c\n").map(drop).unwrap_err();
    assert!(told.len() >= 3, "{told:#?}");
}

#[test]
fn a_flag_that_is_wrong_is_told_by_its_name_or_its_variable() {
    let mut flags = Flags { data_dir: Some("d".into()), listen_probes: Some("here".into()), ..Flags::default() };
    let told = |flags: &Flags| Settings::load(flags).unwrap_err().to_string();
    assert!(
        told(&flags).starts_with("--listen-probes: listen.probes = \"here\": it is no address"),
        "{}",
        told(&flags)
    );
    flags.from_environment = vec!["listen_probes".to_owned()];
    assert!(told(&flags).starts_with("KMS_SERVER_LISTEN_PROBES: listen.probes"), "{}", told(&flags));
}

#[test]
fn an_unknown_variable_is_told_with_the_one_that_was_meant() {
    let told = |name: &str| -> Vec<String> {
        unknown_variables([name.into()].into_iter()).iter().map(Mistake::to_string).collect()
    };
    assert!(told("KMS_SERVER_NODE").is_empty() && told("KMS_ADDR").is_empty() && told("PATH").is_empty());
    assert!(told("KMS_SERVER_LISTEN_SERVCES")[0].ends_with("did you mean KMS_SERVER_LISTEN_SERVICES?"));
    assert!(told("KMS_SERVER_MEMORY_KEYS")[0].contains("the file has more"));
}

#[test]
fn the_example_is_read_and_shows_every_setting_with_its_default() {
    let text = example();
    let from_example = settings(&text).unwrap();
    let with_hidden: String = text
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.contains(" = ") || rest.starts_with("[["))
                .unwrap_or(line)
                .to_owned()
                + "\n"
        })
        .collect();
    let (_folder, flags) = flags(&with_hidden);
    let (all, draft) = Settings::draft(&flags);
    // The settings of all backends are none that go together.
    let of_others = |mistake: &&Mistake| mistake.why.ends_with("and backend.kind is software");
    assert!(draft.mistakes.iter().all(|mistake| of_others(&mistake)), "{:#?}", draft.mistakes);
    for setting in SETTINGS {
        assert!(draft.is_set(&setting.full_name()), "{} is not in the example", setting.full_name());
    }
    assert_eq!((all.cores, draft.list_counts["identity"], all.issuers.len()), (2, 2, 2));
    // What the example sets is the default, but for where things lie.
    let mut default = settings("data_dir = \"/var/lib/kms\"").unwrap();
    default.config_file.clone_from(&from_example.config_file);
    default.tls.clone_from(&from_example.tls);
    default.bindings_file.clone_from(&from_example.bindings_file);
    default.backend.clone_from(&from_example.backend);
    assert_eq!(format!("{from_example:?}"), format!("{default:?}"));
    assert!(text.lines().all(|line| line.chars().count() <= 120), "too wide");
}

#[cfg(unix)]
#[test]
fn settings_that_everybody_can_write_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, flags) = flags("data_dir = \"d\"");
    let file = flags.config.clone().unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(Settings::load(&flags).unwrap_err().to_string().contains("everybody can write"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).unwrap();
    Settings::load(&flags).unwrap();
}
