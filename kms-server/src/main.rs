//! `kms-server`: the daemon's command line.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use kms_server::backend;
use kms_server::config::check::{Checked, check};
use kms_server::config::show::show;
use kms_server::config::{ConfigError, Flags, Settings, example};
use kms_server::doctor::{Diagnosis, Finding, Health, examine};
use kms_server::init::{Made, init};
use kms_server::noun::Principal;
use kms_server::noun::clock::SystemClock;
use kms_server::protections::Protections;
use kms_server::reload::Reloading;
use kms_server::server::{Mode, StoreKind, serve};
use kms_server::shutdown::Hangups;
use kms_server::telemetry;
use zeroizing_alloc::ZeroAlloc;

// Every freed block of the heap is wiped: also those of libraries that know nothing of secrets.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

/// An envelope-encryption key management service.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "To try it: kms-server dev. For good: kms-server init, then kms-server serve; README.md says how."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a cluster: master key, first epoch, audit log, store, first administrator.
    #[command(after_help = SETTINGS_HELP)]
    Init {
        #[command(flatten)]
        flags: Box<Flags>,
        /// The SPIFFE ID of the first administrator, such as spiffe://example.com/admin.
        #[arg(long, value_name = "SPIFFE-ID")]
        admin: Principal,
        /// How to say what was made.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Serves until it is told to stop (SIGTERM or Ctrl-C). SIGHUP reloads certificates, issuers and bindings.
    #[command(after_help = SERVE_HELP)]
    Serve {
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Looks at everything that the daemon needs, while it does not run: settings, files, limits, certificates, store,
    /// and a real round trip with what holds the master key.
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        #[command(flatten)]
        flags: Box<Flags>,
        /// How to say what was found.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Checks, shows and explains the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Checks files of bindings and policies, without a daemon.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Starts the process of a module, and starts it anew: see `backend`. Not for people.
    #[command(hide = true)]
    ModuleLauncher,
    /// Is the process of a module, which the launcher with this id started. Not for people.
    #[command(hide = true)]
    ModuleProcess {
        /// The launcher's process id.
        launcher: u32,
    },
    /// Serves on loopback with throw-away certificates, to try things on. Data stays in its directory.
    #[cfg(feature = "dev")]
    Dev {
        /// Where certificates, settings and data go.
        #[arg(long, default_value = ".kms-dev", value_name = "DIR")]
        dir: std::path::PathBuf,
        /// The first of three ports: services, operator, probes. 0 takes any three that are free.
        #[arg(
            long,
            default_value_t = 8443,
            value_name = "FIRST",
            value_parser = clap::value_parser!(u16).range(..=i64::from(kms_server::dev::PORT_MAX))
        )]
        port: u16,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tells every mistake in settings, certificates, bindings and data directory. Changes nothing.
    #[command(after_help = "Exit code 0: none, 1: there are some.")]
    Check {
        /// The file of settings, as --config.
        #[arg(value_name = "FILE")]
        file: Option<std::path::PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
        /// How to say what was found.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Prints a file with every setting, its meaning, bounds and default.
    Example,
    /// Prints every setting as it is in force here.
    #[command(after_help = SETTINGS_HELP)]
    Show {
        /// Say also where each comes from: a flag, the environment, the file with its line, or the default.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        flags: Box<Flags>,
        /// How to say it.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Tells every mistake in a file of bindings (.toml) and policies (.cedar) that belong to it, one on each line.
    #[command(after_help = "Exit code 0: none, 1: there are some.")]
    Check {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<std::path::PathBuf>,
        /// A pair of encryption contexts that policy may see, as in policy.context_pairs; may be given several times.
        #[arg(long = "context-pair", value_name = "NAME")]
        context_pairs: Vec<String>,
    },
}

const DOCTOR_HELP: &str = "\
Exit code 0: all is right, or there are warnings; 1: there is a failure.

While it looks, it has the data directory as a daemon has it, and opens the store as a start does; a
PIN that does not fit counts as a try. Audit log and ledger it leaves to a start, which verifies them.";

const SETTINGS_HELP: &str = "\
A flag beats its environment variable, which beats the file of settings. The file has more settings
than there are flags, such as limits; `kms-server config example` shows all with their defaults.";

const SERVE_HELP: &str = "\
SIGHUP makes it read again, all or nothing: the certificate and its key, the authorities of clients,
revocation lists, tls.allow_tls12, [[identity]], [[trust_domain]], [[issuer]], the bindings, and own
policies; so does a change of these files (reload.watch). The other settings need a restart.

A flag beats its environment variable, which beats the file of settings. The file has more settings
than there are flags, such as limits; README.md shows all of them with their defaults.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    // Before anything else, so that there is no moment and no thread without it.
    let protections = Protections::switch_on();
    // Whatever this process makes is for its user alone, also what libraries make.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let matches = Cli::command().get_matches();
    let command = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    let mut leaf = &matches;
    while let Some((_, next)) = leaf.subcommand() {
        leaf = next;
    }
    match run(command, leaf, &protections) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, matches: &ArgMatches, protections: &Protections) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init { flags, admin, output } => {
            let settings = Settings::load(&flags)?;
            begin(&settings)?;
            let prepared = backend::prepare(&settings.backend)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let made = runtime.block_on(init(&settings, durable_store()?, &prepared, &admin))?;
            tell(&made, settings.tls.is_some(), output)?;
        }
        Command::Serve { flags } => {
            // First of all: who reloads a daemon that is just starting must not end it.
            let hangups = Hangups::listen()?;
            let settings = Settings::load(&flags)?;
            begin(&settings)?;
            let prepared = backend::prepare(&settings.backend)?;
            let mode = Mode::Service(Box::new(Reloading { flags: *flags, hangups }));
            serve(&settings, &durable_store()?, &prepared, mode, protections, |_| {})?;
        }
        Command::ModuleLauncher => backend::serve_launcher()?,
        Command::ModuleProcess { launcher } => backend::serve_module(launcher)?,
        Command::Config(ConfigCommand::Check { file, mut flags, output }) => {
            flags.note_origins(matches);
            flags.config = file.or(flags.config);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return tell_checked(&runtime.block_on(check(&flags, &SystemClock)), output);
        }
        Command::Doctor { mut flags, output } => {
            flags.note_origins(matches);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let prepare = |settings: &Settings| backend::prepare(&settings.backend);
            let store = durable_store()?;
            let found = examine(&flags, &store, protections, &SystemClock, prepare);
            return tell_diagnosis(&runtime.block_on(found), output);
        }
        Command::Config(ConfigCommand::Example) => print(&example()),
        Command::Config(ConfigCommand::Show { origin, mut flags, output }) => {
            flags.note_origins(matches);
            tell_settings(&flags, origin, output)?;
        }
        Command::Policy(PolicyCommand::Check { files, context_pairs }) => return check_policy(&files, &context_pairs),
        #[cfg(feature = "dev")]
        Command::Dev { dir, port } => kms_server::dev::dev(&dir, port, protections)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check_policy(files: &[std::path::PathBuf], context_pairs: &[String]) -> anyhow::Result<ExitCode> {
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok((path.display().to_string(), text))
    };
    let read: Vec<(String, String)> = files.iter().map(read).collect::<anyhow::Result<_>>()?;
    let files: Vec<(&str, &str)> = read.iter().map(|(label, text)| (&**label, &**text)).collect();
    let context_pairs: Vec<&str> = context_pairs.iter().map(String::as_str).collect();
    let mistakes = kms_server::policy::check(&files, &context_pairs);
    eprint_all(&mistakes.iter().map(|mistake| format!("error: {mistake}\n")).collect::<String>());
    if mistakes.is_empty() {
        print(&format!("ok: {}\n", files.iter().map(|(label, _)| *label).collect::<Vec<_>>().join("; ")));
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn tell_checked(checked: &Checked, output: Output) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => print(&format!("{}\n", serde_json::to_string(checked)?)),
        Output::Text => {
            let mistakes = checked.mistakes.iter().map(|mistake| format!("error: {mistake}\n"));
            let notes = checked.notes.iter().map(|note| format!("note: {note}\n"));
            eprint_all(&mistakes.chain(notes).collect::<String>());
            match checked.mistakes.len() {
                0 => print(&format!("{}\n", checked.summary())),
                1 => eprint_all("1 mistake\n"),
                count => eprint_all(&format!("{count} mistakes\n")),
            }
        }
    }
    Ok(if checked.mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell_diagnosis(diagnosis: &Diagnosis, output: Output) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => print(&format!("{}\n", serde_json::to_string(diagnosis)?)),
        Output::Text => {
            for Finding { check, status, message } in &diagnosis.checks {
                print(&format!("{:8} {check}: {message}\n", status.as_str()));
            }
        }
    }
    Ok(if diagnosis.worst() == Health::Failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tell_settings(flags: &Flags, origin: bool, output: Output) -> anyhow::Result<()> {
    let (_, draft) = Settings::draft(flags);
    let all = show(&draft);
    match output {
        Output::Json => print(&format!("{}\n", serde_json::to_string(&all)?)),
        Output::Text => {
            for setting in all {
                let value = setting.value.as_deref();
                let unset = if value.is_none() { "# " } else { "" };
                let line = format!("{unset}{} = {}", setting.name, value.unwrap_or_default());
                let line = if origin { format!("{line:49} # {}", setting.origin) } else { line };
                print(&format!("{}\n", line.trim_end()));
            }
        }
    }
    if draft.mistakes.is_empty() { Ok(()) } else { Err(ConfigError(draft.mistakes).into()) }
}

#[allow(clippy::print_stdout)] // A command's answer.
fn print(text: &str) {
    print!("{text}");
}

#[allow(clippy::print_stderr)] // What a command has to say beside its answer.
fn eprint_all(text: &str) {
    eprint!("{text}");
}

fn begin(settings: &Settings) -> anyhow::Result<()> {
    #[cfg(debug_assertions)]
    settings.kill_point.into_iter().for_each(kms_server::kill_point::arm);
    telemetry::start_logs(settings.log_format, &settings.log_filter)
        .map_err(|error| anyhow::anyhow!("log.filter = {:?} is no filter: {error}", settings.log_filter))
}

#[cfg(feature = "rocksdb")]
#[allow(clippy::unnecessary_wraps)] // Without the feature there is none.
fn durable_store() -> anyhow::Result<StoreKind> {
    Ok(StoreKind::Local)
}

#[cfg(not(feature = "rocksdb"))]
fn durable_store() -> anyhow::Result<StoreKind> {
    anyhow::bail!(
        "this kms-server was built without a durable store: only `dev` works; build it with the default features"
    )
}

#[allow(clippy::print_stdout)] // What was made is the command's answer.
fn tell(made: &Made, has_certificates: bool, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string(made)?),
        Output::Text => {
            let Made { cluster, origin, data_dir, backend, pin_file, bindings_file, bindings_kept } = made;
            println!("cluster {cluster} was made in {}", data_dir.display());
            println!("  audit log   {origin}");
            println!("  master key  {backend}");
            if let Some(pin_file) = pin_file {
                println!("  PIN         {}", pin_file.display());
                println!("              Keep a copy apart from every copy of the data: who has both has the keys,");
                println!("              who loses it loses them.");
            }
            let kept = if *bindings_kept {
                " (were there, and were left alone: does the administrator have a binding?)"
            } else {
                ""
            };
            println!("  bindings    {}{kept}", bindings_file.display());
            if has_certificates {
                println!("next: kms-server serve, with the same settings");
            } else {
                println!("next: have a certificate issued for the daemon, and set tls.certificate_file,");
                println!("      tls.key_file and tls.client_ca_file; then kms-server serve, with the same settings");
            }
        }
    }
    Ok(())
}

#[allow(clippy::print_stderr)] // The last words of a command that failed.
fn report(error: &anyhow::Error) {
    if let Some(ConfigError(mistakes)) = error.downcast_ref() {
        for mistake in mistakes {
            eprintln!("error: {mistake}");
        }
        return;
    }
    eprintln!("error: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some errors say their cause themselves.
        if !shown.contains(&cause) {
            eprintln!("  because: {cause}");
            shown = cause;
        }
    }
}
