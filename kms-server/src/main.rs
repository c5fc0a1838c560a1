//! `kms-server`: the daemon's command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use kms_server::config::{Flags, Settings};
use kms_server::init::{Made, init};
use kms_server::noun::Principal;
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
    /// Serves until it is told to stop (SIGTERM or Ctrl-C). SIGHUP reloads certificates and bindings.
    #[command(after_help = SERVE_HELP)]
    Serve {
        #[command(flatten)]
        flags: Box<Flags>,
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

const SETTINGS_HELP: &str = "\
A flag beats its environment variable, which beats the file of settings. The file has more settings
than there are flags, such as limits; README.md shows all of them with their defaults.";

const SERVE_HELP: &str = "\
SIGHUP makes it read again, all or nothing: the certificate and its key, the authorities of clients,
revocation lists, [[identity]], and the bindings. The other settings need a restart.

A flag beats its environment variable, which beats the file of settings. The file has more settings
than there are flags, such as limits; README.md shows all of them with their defaults.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    // Whatever this process makes is for its user alone, also what libraries make.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { flags, admin, output } => {
            let settings = Settings::load(&flags)?;
            start_logs(&settings)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let made = runtime.block_on(init(&settings, durable_store()?, &admin))?;
            tell(&made, settings.tls.is_some(), output)
        }
        Command::Serve { flags } => {
            // First of all: who reloads a daemon that is just starting must not end it.
            let hangups = Hangups::listen()?;
            let settings = Settings::load(&flags)?;
            start_logs(&settings)?;
            serve(&settings, &durable_store()?, Mode::Service(Box::new(Reloading { flags: *flags, hangups })), |_| {})
        }
        #[cfg(feature = "dev")]
        Command::Dev { dir, port } => kms_server::dev::dev(&dir, port),
    }
}

fn start_logs(settings: &Settings) -> anyhow::Result<()> {
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
            let Made { cluster, origin, data_dir, pin_file, bindings_file, bindings_kept } = made;
            println!("cluster {cluster} was made in {}", data_dir.display());
            println!("  audit log   {origin}");
            println!("  PIN         {}", pin_file.display());
            println!("              Keep a copy apart from every copy of the data: who has both has the keys,");
            println!("              who loses it loses them.");
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
