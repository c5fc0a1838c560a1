//! `kms`: the key management service from the command line.
//!
//! Data goes to stdout, all else to stderr. Plaintext and data keys come in by stdin or a file and never as an
//! argument, which every process of the machine could read.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may"))]

mod app;
mod change;
mod completions;
mod config;
mod confirm;
mod data_key;
mod decrypt;
mod duration;
mod encrypt;
mod error;
mod exit;
mod grant;
mod hint;
mod index_key;
mod input;
mod interrupt;
mod json;
mod key;
mod mac;
mod operator;
mod output;
mod policy;
mod profile;
mod re_encrypt;
mod sink;
mod status;
mod tenant;
mod under;
mod whoami;

use std::alloc::System;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use zeroizing_alloc::ZeroAlloc;

use app::App;
use config::{Globals, Settings};
use error::Failure;
use exit::Exit;
use output::{Format, Output};

/// Wipes every block that is freed, so that the buffers of the libraries below leave no plaintext behind.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Manages tenants and keys of a key management service, and encrypts with them.
#[derive(Debug, Parser)]
#[command(
    name = "kms",
    version,
    after_help = "Try `kms whoami` first. `kms help exit-codes` lists the exit codes.",
    after_long_help = LONG_HELP,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

// What a command does is said where it is written.
#[derive(Debug, Subcommand)]
enum Command {
    Tenant(tenant::Tenant),
    Key(key::Key),
    Encrypt(encrypt::Encrypt),
    Decrypt(decrypt::Decrypt),
    ReEncrypt(re_encrypt::ReEncrypt),
    DataKey(data_key::DataKey),
    Mac(mac::Mac),
    IndexKey(index_key::IndexKey),
    Status(status::Status),
    Operator(operator::Operator),
    Grant(grant::Grant),
    Policy(policy::Policy),
    Whoami(whoami::Whoami),
    Profile(profile::ProfileCommand),
    Completions(completions::Completions),
    /// Lists the exit codes
    #[command(override_help = exit::HELP)]
    ExitCodes,
}

const LONG_HELP: &str = "\
Settings:
  A flag beats its environment variable, which beats the configuration file. The file is the first
  of: --config, KMS_CONFIG, ./.kms-dev/client.toml, ~/.config/kms/config.toml. Paths in it are
  relative to it:

    current = \"admin\"
    [profile.admin]
    address = \"https://127.0.0.1:8443\"
    operator_address = \"https://127.0.0.1:8444\"
    ca_file = \"ca.pem\"
    cert_file = \"admin.pem\"
    key_file = \"admin.key\"
    server_name = \"kms.internal\"  # optional: the name in the server's certificate
    tenant = \"acme\"               # optional: for keys that are given without one

  `kms profile list` shows the profiles, `kms profile use PROFILE` makes one the current. What may
  pass by itself is tried three times within --timeout; a change is made once all the same.

Output:
  Data goes to stdout, all else to stderr. With --output json, messages of the API are printed in
  their proto3 JSON form: names in lowerCamelCase, enums by name, 64-bit numbers as strings, bytes
  in base64, times in RFC 3339. All fields are printed but messages and times that are unset.
  Errors are JSON too then, on stderr: code, message, reason, cause, hint, requestId, changeId,
  attempts and exitCode, of which only code, message, attempts and exitCode are always there. The
  changeId is what --request-id repeats; requestId is the server's name for one call, in its log.
  Both forms are stable: fields may be added, none changes or goes. --field NAME prints one field
  alone.

Try `kms whoami` first. `kms help exit-codes` lists the exit codes.";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Also --help and --version. If they cannot be printed, nobody is reading.
        Err(error) => {
            if error.use_stderr() && json_is_wanted(std::env::args_os()) {
                Output { format: Format::Json, ..Output::default() }.failure(&misused(&error));
            } else {
                let _ = error.print();
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    let globals = &cli.globals;
    let mut output = Output { format: globals.output, field: globals.field.clone(), quiet: globals.quiet };
    match run(cli, &mut output) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Returns whether somebody who misused the command wants to be told in JSON. What could not be parsed is looked at
/// word by word.
fn json_is_wanted(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<_> = arguments.into_iter().collect();
    let by_flag = words.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    let by_variable = std::env::var_os("KMS_OUTPUT").is_some_and(|value| value == "json");
    by_flag || words.iter().any(|word| word == "--output=json") || by_variable
}

fn misused(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let (message, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = message.strip_prefix("error: ").unwrap_or(message).trim_end();
    let failure = Failure::usage(message.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    match rest.lines().find_map(|line| line.trim().strip_prefix("tip: ")) {
        Some(tip) => failure.hint(tip),
        None => failure.hint("`kms help` after any command shows what it takes"),
    }
}

fn run(cli: Cli, output: &mut Output) -> Result<Exit, Failure> {
    match &cli.command {
        Command::ExitCodes => {
            output.text(exit::HELP)?;
            return Ok(Exit::Ok);
        }
        Command::Completions(command) => {
            command.run(output)?;
            return Ok(Exit::Ok);
        }
        Command::Profile(command) => {
            command.run(&cli.globals, output)?;
            return Ok(Exit::Ok);
        }
        Command::Policy(command) => {
            if let Some(exit) = command.run_here(output) {
                return exit;
            }
        }
        Command::Tenant(_)
        | Command::Key(_)
        | Command::Encrypt(_)
        | Command::Decrypt(_)
        | Command::ReEncrypt(_)
        | Command::DataKey(_)
        | Command::Mac(_)
        | Command::IndexKey(_)
        | Command::Status(_)
        | Command::Operator(_)
        | Command::Grant(_)
        | Command::Whoami(_) => {}
    }
    interrupt::watch(output.clone())?;
    let settings = Settings::find(&cli.globals)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    let mut app = App { settings, output };
    runtime.block_on(async {
        match cli.command {
            Command::Tenant(command) => command.run(&mut app).await?,
            Command::Key(command) => command.run(&mut app).await?,
            Command::Encrypt(command) => command.run(&mut app).await?,
            Command::Decrypt(command) => command.run(&mut app).await?,
            Command::ReEncrypt(command) => command.run(&mut app).await?,
            Command::DataKey(command) => command.run(&mut app).await?,
            Command::Mac(command) => command.run(&mut app).await?,
            Command::IndexKey(command) => command.run(&mut app).await?,
            Command::Status(command) => return command.run(&mut app).await,
            Command::Operator(command) => command.run(&mut app).await?,
            Command::Grant(command) => command.run(&mut app).await?,
            Command::Policy(command) => return command.run(&mut app).await,
            Command::Whoami(command) => command.run(&mut app).await?,
            // Done above.
            Command::ExitCodes | Command::Completions(_) | Command::Profile(_) => {}
        }
        Ok(Exit::Ok)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    /// Visits all commands without subcommands, with their full names.
    fn leaves(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        let path = format!("{path} {}", command.get_name());
        if command.get_subcommands().next().is_none() {
            visit(path.trim(), command);
        }
        for below in command.get_subcommands() {
            leaves(below, &path, visit);
        }
    }

    #[test]
    fn no_command_takes_plaintext_or_a_data_key_as_argument() {
        // What a value may be. A new noun is added here only if it may be read by every process of the machine.
        const HARMLESS: &[&str] = &[
            "ACTION",
            "ADDRESS",
            "DIR",
            "DURATION",
            "ETAG",
            "FIELD",
            "FILE",
            "FORMAT",
            "HASH",
            "ID",
            "INDEX",
            "K=V",
            "KEY",
            "MAC",
            "N",
            "NAME",
            "PRINCIPAL",
            "PROFILE",
            "PROOF",
            "PURPOSE",
            "REASON",
            "ROLE",
            "SHELL",
            "TENANT",
            "TOKEN",
            "UID",
            "URL",
        ];
        let mut command = Cli::command();
        command.build();
        let mut count = 0;
        leaves(&command, "", &mut |path, leaf| {
            for arg in leaf.get_arguments().filter(|arg| arg.get_action().takes_values()) {
                for name in arg.get_value_names().unwrap_or_default() {
                    assert!(HARMLESS.contains(&name.as_str()), "{path}: {name}");
                    count += 1;
                }
            }
        });
        assert!(count > 100, "only {count} arguments were seen");
        for data in [
            "encrypt",
            "decrypt",
            "re-encrypt",
            "data-key generate",
            "data-key decrypt",
            "data-key create",
            "mac generate",
        ] {
            let line = ["kms", "--tenant", "acme"].into_iter().chain(data.split(' ')).chain(["--key", "app", "hello"]);
            assert_eq!(
                Cli::try_parse_from(line).unwrap_err().kind(),
                clap::error::ErrorKind::UnknownArgument,
                "{data}"
            );
        }
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        let mut command = Cli::command();
        command.build();
        leaves(&command, "", &mut |path, leaf| {
            assert!(leaf.get_about().is_some(), "{path}");
            if path == "kms encrypt" || path == "kms key destroy" {
                assert!(leaf.get_long_about().is_some_and(|about| about.to_string().contains("\n\n")), "{path}");
            }
            for arg in leaf.get_arguments() {
                let help = arg.get_help().unwrap_or_else(|| panic!("{path}: {} has no help", arg.get_id())).to_string();
                // clap is built without wrapping.
                assert!(help.lines().all(|line| line.len() <= 100), "{path}: {help}");
            }
        });
    }

    #[test]
    fn the_documented_lines_are_understood() {
        for line in [
            "tenant create acme",
            "tenant destroy acme --wait 7d",
            "tenant destroy acme --wait 0s --yes --name acme",
            "tenant cancel-destruction tenants/acme",
            "key create app --tenant acme --purpose encrypt --label team=billing --label env=prod",
            "key list --tenant acme --limit 10 --output json",
            "key disable tenants/acme/keys/app --version 3",
            "key destroy app --tenant acme --version 3 --wait 12h --yes --name app/versions/3",
            "key versions app",
            "encrypt --key tenants/acme/keys/app --context table=users --context id=42 --aad-file aad --in a --out b",
            "encrypt --key app --tenant acme --raw --force",
            "decrypt --key app --in -",
            "re-encrypt --key app --to-key other --to-context a=b",
            "data-key generate --key app --data-key-out key --wrapped-out wrapped",
            "data-key generate-wrapped --key app --raw",
            "data-key decrypt --key app --context a=b --out key",
            "data-key generate --key app --count 100",
            "data-key generate-wrapped --key app --count 2 --out wrapped",
            "data-key create --key people --context a=b --count 100 --output json",
            "data-key create --key people --data-key-out key --request-id my-id",
            "data-key create --key people --uid-only --dry-run",
            "data-key get 00112233445566778899aabbccddeeff --key people --context a=b --out key",
            "data-key get 00112233445566778899aabbccddeeff 0123456789abcdef0123456789ABCDEF --key people",
            "data-key get ABEiM0RVZneImaq7zN3u/w== --key people --raw",
            "data-key destroy 00112233445566778899aabbccddeeff --key people --yes --name people",
            "data-key list --key people --limit 10 --page-token x",
            "mac generate --key receipts --context a=b --in a --out b",
            "mac verify --key receipts --in a --mac-file b",
            "mac verify --key receipts --mac kms1AQcA",
            "index-key get tenants/acme/indexes/users.email --raw",
            "tenant update acme --data-key-lease 10m --etag 7",
            "tenant create acme --data-key-lease 250ms",
            "key create people --purpose managed",
            "status --output json",
            "whoami --profile admin",
            "tenant create acme --dry-run --request-id my-id",
            "key rotate app --dry-run --etag 7 --request-id my-id --quiet",
            "key get app --field state",
            "grant request --role decrypter --tenant acme --reason 4711 --for 1h",
            "grant list --tenant acme --limit 10",
            "grant list --cluster",
            "grant get grants/00112233445566778899aabbccddeeff",
            "grant approve tenants/acme/grants/00112233445566778899aabbccddeeff --yes --content-hash abc",
            "grant revoke tenants/acme/grants/00112233445566778899aabbccddeeff --dry-run",
            "tenant destroy acme --wait 0s --request-approval 4711",
            "tenant destroy acme --wait 0s --yes --name acme --request-approval 4711",
            "key destroy app --version 3 --wait 0s --etag 7 --request-approval 4711",
            "operator export-keystore --request-approval 4711 --request-id my-id",
            "operator export-keystore --to dir --request-approval 4711",
            "operator reload --dry-run",
            "policy explain --action Decrypt --action Encrypt --key app --ip 10.0.0.1 --strength token --strength mfa",
            "policy explain --as spiffe://example.com/billing --action Decrypt --key tenants/acme/keys/app --context a=b",
            "policy explain --action GetIndexKey --index email --tenant acme",
            "policy explain --action Lock --cluster",
            "policy check bindings.toml own.cedar --context-pair table --context-pair id",
            "profile list",
            "profile show prod --output json",
            "profile use prod",
            "completions zsh",
        ] {
            Cli::try_parse_from(std::iter::once("kms").chain(line.split(' ')))
                .unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "tenant destroy acme --yes",
            "tenant destroy acme --name acme",
            "tenant destroy acme --wait soon",
            "key create app --label nonsense",
            "key enable app --version 0",
            "encrypt",
            "encrypt --key app --context nonsense",
            "key update app",
            "key update app --label a=b --no-labels",
            "re-encrypt --key app --to-context a=b --to-empty-context",
            "--output yaml whoami",
            "tenant create acme --etag 7",
            "key rotate app --etag=",
            "key rotate app --request-id a/b",
            "key get app --dry-run",
            "completions tcsh",
            "data-key create",
            "data-key create --key people --count 0",
            "data-key create --key people --count 10001",
            "data-key create --key people --count 2 --data-key-out key",
            "data-key generate --key app --count 2 --wrapped-out wrapped",
            "data-key get --key people",
            "data-key get 0011 --key people",
            "data-key destroy --key people",
            "data-key destroy 00112233445566778899aabbccddeeff --key people --yes",
            "mac verify --key receipts",
            "mac verify --key receipts --mac aGVsbG8=",
            "mac verify --key receipts --mac kms1AQcA --mac-file b",
            "index-key get",
            "grant request --role decrypter --reason 4711",
            "grant request --role operator --reason 4711 --for 1h",
            "grant request --role decrypter --reason 4711 --for 0s",
            "grant request --role decrypter --for 1h",
            "grant get 00112233445566778899aabbccddeeff",
            "grant get grants/0011",
            "grant get tenants/acme/grants/00112233445566778899AABBCCDDEEFF",
            "grant approve",
            "grant approve grants/00112233445566778899aabbccddeeff --content-hash=",
            "grant revoke tenants/acme/keys/app",
            "operator export-keystore",
            "operator export-keystore --to dir --request-id my-id",
            "operator reload --yes",
            "policy explain --key app",
            "policy explain --action Decrypt --key app --index email",
            "policy explain --action Decrypt --key app --cluster",
            "policy explain --action Decrypt --ip 10.0.0.0/8",
            "policy explain --action Decrypt --strength password",
            "policy explain --action Decrypt --context nonsense",
            "policy check",
            "tenant update acme",
            "tenant update acme --data-key-lease soon",
        ] {
            assert!(Cli::try_parse_from(std::iter::once("kms").chain(line.split(' '))).is_err(), "{line}");
        }
    }
}
