//! What scripts and people rely on, kept as files under `tests/golden`, so that a change of it is seen and meant: the help
//! of every command, and the JSON of every command.
//!
//! Written anew with `KMS_TESTS_WRITE_GOLDEN=1 cargo test ... --test command golden`; then look at the difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::World;
use crate::access::BINDINGS;
use crate::data_keys::{MISSING_UID, OTHER_UID, UID};
use crate::fake::access::{EXPORT_UID, NEWER_UID, ROLE_UID, VERSION_UID};

/// The files of one folder, of which each is compared once.
struct Golden {
    folder: PathBuf,
    seen: BTreeSet<String>,
    differ: Vec<String>,
}

impl Golden {
    fn of(folder: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
        Self { folder, seen: BTreeSet::new(), differ: Vec::new() }
    }

    fn is(&mut self, name: &str, text: &str) {
        // clap ends empty lines with spaces.
        let text = &text.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>();
        assert!(self.seen.insert(name.to_owned()), "{name} was compared before");
        let file = self.folder.join(name);
        if std::env::var_os("KMS_TESTS_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(&self.folder).unwrap();
            fs::write(&file, text).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        if golden != *text {
            let line = golden.lines().zip(text.lines()).take_while(|(golden, now)| golden == now).count();
            let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
            self.differ.push(format!("{name}:{}: was {:?}, is {:?}", line + 1, at(&golden), at(text)));
        }
    }

    /// Ends with what differs, and what is there and was not compared.
    fn finish(mut self) {
        for file in fs::read_dir(&self.folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if !self.seen.contains(&name) {
                self.differ.push(format!("{name}: nothing was compared with it"));
            }
        }
        assert!(self.differ.is_empty(), "{}", self.differ.join("\n"));
    }
}

/// Returns the commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.is_empty());
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_of_every_command_is_as_it_was() {
    let world = World::new().await;
    let mut golden = Golden::of("help");
    let mut global_options = None;
    let mut paths = vec![String::new()];
    while let Some(path) = paths.pop() {
        let help = world.run(format!("{path} --help").trim()).await.text();
        paths.extend(commands(&help).iter().map(|name| format!("{path} {name}")));
        // They are the same everywhere, and shown once.
        let text = match help.split_once("\nGlobal options:\n") {
            None => help,
            Some((own, global)) => {
                let (options, rest) = global.split_once("\n\nSettings:").map_or((global, None), |(o, r)| (o, Some(r)));
                let options = options.trim_end().to_owned();
                match &global_options {
                    None => {
                        global_options = Some(options.clone());
                        let rest = rest.map(|rest| format!("\nSettings:{rest}")).unwrap_or_default();
                        format!("{own}\nGlobal options:\n{options}\n{rest}")
                    }
                    Some(first) => {
                        assert_eq!(&options, first, "of {path}");
                        own.to_owned()
                    }
                }
            }
        };
        golden.is(&format!("kms{}.txt", path.replace(' ', "-")), &text);
    }
    assert!(golden.seen.len() > 30, "{:?}", golden.seen);
    golden.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_of_every_command_is_as_it_was() {
    let world = World::new().await;
    let mut golden = Golden::of("json");
    let sealed = world.run_with("encrypt --key app", b"hello").await.data();
    let wrapped = world.run("data-key generate-wrapped --key app").await.data();
    let mac = world.run_with("mac generate --key app --raw", b"hello").await.data();
    world.write("mac", &mac);
    for (name, line, stdin) in [
        ("tenant-create", "tenant create acme", &b""[..]),
        ("tenant-get", "tenant get acme", b""),
        ("tenant-list", "tenant list --limit 2", b""),
        ("tenant-update", "tenant update acme --data-key-lease 250ms", b""),
        ("tenant-suspend", "tenant suspend acme", b""),
        ("tenant-resume", "tenant resume acme", b""),
        ("tenant-destroy", "tenant destroy acme --yes --name acme", b""),
        ("tenant-destroy-at-once", "tenant destroy acme --wait 0s --yes --name acme", b""),
        ("tenant-cancel-destruction", "tenant cancel-destruction acme", b""),
        ("key-create", "key create app --label team=billing", b""),
        ("key-get", "key get app", b""),
        ("key-list", "key list", b""),
        ("key-update", "key update app --no-labels", b""),
        ("key-enable", "key enable app", b""),
        ("key-enable-version", "key enable app --version 2", b""),
        ("key-disable", "key disable app", b""),
        ("key-rotate", "key rotate app", b""),
        ("key-versions", "key versions app", b""),
        ("key-versions-managed", "key versions managed --limit 2", b""),
        ("key-disable-version", "key disable app --version 2", b""),
        ("key-destroy", "key destroy app --yes --name app", b""),
        ("key-destroy-version", "key destroy app --version 2 --yes --name app/versions/2", b""),
        ("key-cancel-destruction", "key cancel-destruction app", b""),
        ("encrypt", "encrypt --key app", b"hello"),
        ("decrypt", "decrypt --key app", &sealed),
        ("re-encrypt", "re-encrypt --key app", &sealed),
        ("data-key-generate", "data-key generate --key app", b""),
        ("data-key-generate-wrapped", "data-key generate-wrapped --key app", b""),
        ("data-key-decrypt", "data-key decrypt --key app", &wrapped),
        ("data-key-generate-many", "data-key generate --key app --count 2", b""),
        ("data-key-generate-wrapped-many", "data-key generate-wrapped --key app --count 2", b""),
        ("data-key-create", "data-key create --key people", b""),
        ("data-key-create-uid-only", "data-key create --key people --uid-only", b""),
        ("data-key-create-dry-run", "data-key create --key people --dry-run", b""),
        ("data-key-create-many", "data-key create --key people --count 2", b""),
        ("data-key-create-many-dry-run", "data-key create --key people --count 2 --dry-run", b""),
        ("data-key-get", &format!("data-key get {UID} --key people"), b""),
        ("data-key-get-many", &format!("data-key get {UID} {OTHER_UID} --key people"), b""),
        ("data-key-destroy", &format!("data-key destroy {UID} --key people --yes --name people"), b""),
        ("data-key-destroy-dry-run", &format!("data-key destroy {UID} --key people --dry-run"), b""),
        ("data-key-destroy-many", &format!("data-key destroy {UID} {OTHER_UID} --key people --yes --name people"), b""),
        ("data-key-list", "data-key list --key people --limit 2", b""),
        ("mac-generate", "mac generate --key app", b"hello"),
        ("mac-verify", "mac verify --key app --mac-file mac", b"hello"),
        ("index-key-get", "index-key get users.email", b""),
        ("status", "status", b""),
        ("operator-lock", "operator lock", b""),
        ("operator-unlock", "operator unlock --dry-run", b""),
        ("operator-export-keystore", "operator export-keystore --to export", b""),
        ("operator-reload", "operator reload", b""),
        ("whoami", "whoami", b""),
        ("grant-request", "grant request --role decrypter --reason 4711 --for 1h30m", b""),
        ("grant-request-dry-run", "grant request --role auditor --reason 4711 --for 1h --dry-run", b""),
        ("grant-request-of-tenant", "tenant destroy acme --wait 0s --etag e1 --request-approval 4711", b""),
        ("grant-request-of-key", "key destroy app --request-approval 4711", b""),
        ("grant-request-of-export", "operator export-keystore --request-approval 4711", b""),
        ("grant-list", "grant list --limit 2", b""),
        ("grant-list-of-cluster", "grant list --cluster --limit 1", b""),
        ("grant-get", &format!("grant get tenants/acme/grants/{ROLE_UID}"), b""),
        ("grant-get-newer", &format!("grant get grants/{NEWER_UID}"), b""),
        ("grant-approve", &format!("grant approve tenants/acme/grants/{VERSION_UID} --yes"), b""),
        ("grant-revoke", &format!("grant revoke tenants/acme/grants/{ROLE_UID}"), b""),
        ("policy-explain", "policy explain --action Encrypt --action GetKey --key app", b""),
    ] {
        let ran = world.run_with(&format!("--output json {line}"), stdin).await;
        golden.is(&format!("{name}.json"), &ran.text());
    }
    let partly = format!("--output json data-key get {UID} {MISSING_UID} --key people");
    let ran = world.run(&partly).await;
    assert_eq!(ran.code, 7);
    golden.is("data-key-get-partly.json", &String::from_utf8(ran.stdout).unwrap());
    golden.is("error-partly.json", &ran.stderr);
    let none = format!("--output json data-key get {MISSING_UID} {MISSING_UID} --key people");
    let ran = world.run(&none).await;
    assert_eq!(ran.code, 4);
    golden.is("error-all.json", &ran.stderr);
    for (name, line) in [
        ("error-usage", "key enable app --version 0"),
        ("error-settings", "whoami --profile none"),
        ("error-refused", "encrypt --key denied"),
        ("error-unavailable", "encrypt --key overloaded"),
        ("error-unreachable", "whoami --address https://127.0.0.1:1"),
    ] {
        let ran = world.run(&format!("--output json {line}")).await;
        assert!(ran.stdout.is_empty() && ran.code != 0, "{line}");
        golden.is(&format!("{name}.json"), &ran.stderr);
    }
    let ran = world.run("--output json policy explain --action Encrypt --action Decrypt --key app").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""));
    golden.is("policy-explain-denied.json", &String::from_utf8(ran.stdout).unwrap());
    world.write("bindings.toml", BINDINGS);
    let ran = world.run("--output json policy check bindings.toml").await;
    assert_eq!(ran.stderr, "");
    golden.is("policy-check.json", &String::from_utf8(ran.stdout).unwrap());
    let changed = format!("grant approve grants/{EXPORT_UID} --yes --content-hash 00");
    let ran = world.run(&format!("--output json {changed}")).await;
    assert_eq!((ran.code, ran.stdout.len()), (5, 0));
    golden.is("error-grant-changed.json", &ran.stderr);
    world.write(
        "c.toml",
        b"current = \"a\"\n[profile.a]\naddress = \"https://kms:8443\"\nca_file = \"ca.pem\"\n[profile.b]\n",
    );
    golden.is("profile-list.json", &world.run("--output json --config c.toml profile list").await.text());
    golden.is("profile-show.json", &world.run("--output json --config c.toml profile show").await.text());
    golden.finish();
}
