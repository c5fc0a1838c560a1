//! The `kms` command as it is run, against a service in this process: what it prints, where, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod access;
mod data;
mod data_keys;
mod errors;
mod exit_codes;
#[path = "../fake/mod.rs"]
mod fake;
mod golden;
mod grants;
mod objects;
mod profiles;
mod refused;

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use fake::Fake;
use tempfile::TempDir;

/// A service, and a folder with a configuration file for it.
struct World {
    fake: Fake,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let fake = Fake::start().await;
        let folder = tempfile::tempdir().unwrap();
        let identity = fake.ca.client();
        let address = &fake.address;
        let config = format!(
            "current = \"test\"\n[profile.test]\naddress = \"{address}\"\noperator_address = \"{address}\"\nca_file = \
             \"ca.pem\"\ncert_file = \"me.pem\"\nkey_file = \"me.key\"\ntenant = \"acme\"\n"
        );
        fs::create_dir(folder.path().join(".kms-dev")).unwrap();
        for (name, text) in [
            ("client.toml", config.as_str()),
            ("ca.pem", &fake.ca.pem()),
            ("me.pem", &identity.certificate),
            ("me.key", &identity.key),
        ] {
            fs::write(folder.path().join(".kms-dev").join(name), text).unwrap();
        }
        Self { fake, folder }
    }

    /// Returns the command in the folder, without the settings of whoever runs the test.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
        command.args(line.split_whitespace()).current_dir(self.folder.path()).env_clear();
        command
    }

    /// Runs a line, gives it stdin, and waits.
    async fn run_with(&self, line: &str, stdin: &[u8]) -> Ran {
        let mut command = self.command(line);
        let stdin = stdin.to_vec();
        let output = tokio::task::spawn_blocking(move || {
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // It may end before it has read all.
            let _ = child.stdin.take().unwrap().write_all(&stdin);
            child.wait_with_output().unwrap()
        });
        Ran::from(output.await.unwrap())
    }

    async fn run(&self, line: &str) -> Ran {
        self.run_with(line, b"").await
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap()
    }

    #[cfg(unix)]
    fn mode(&self, name: &str) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(self.folder.path().join(name)).unwrap().permissions().mode() & 0o777
    }
}

/// How a command ended.
struct Ran {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Returns what was printed, if the command succeeded and had nothing else to say.
    #[track_caller]
    fn data(self) -> Vec<u8> {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        self.stdout
    }

    #[track_caller]
    fn text(self) -> String {
        String::from_utf8(self.data()).unwrap()
    }
}
