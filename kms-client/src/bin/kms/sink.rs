//! Where data goes: stdout, or a file that nobody else can read if the data is secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::app::App;
use crate::error::Failure;
use crate::output::Format;

/// The arguments of a command whose result is plaintext.
#[derive(Debug, Args)]
pub struct PlainOut {
    /// Writes to a file that only you can read [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Writes binary data even to a terminal
    #[arg(long)]
    force: bool,
}

/// The arguments of a command whose result is binary.
#[derive(Debug, Args)]
pub struct BinaryOut {
    /// Writes to a file [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Writes the bytes themselves instead of their base64
    #[arg(long)]
    raw: bool,
    /// Writes raw bytes even to a terminal
    #[arg(long)]
    force: bool,
}

/// Whether a file may be read by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    Secret,
    Public,
}

impl PlainOut {
    /// Writes plaintext as it is, or the answer as JSON.
    pub fn write(&self, app: &mut App<'_>, plaintext: &[u8], answer: &impl Serialize) -> Result<(), Failure> {
        let out = self.out.as_deref();
        if app.output.field.is_some() {
            return show_field(out, app, answer);
        }
        match app.output.format {
            Format::Json => write(out, Secrecy::Secret, &app.output.json_text(answer)?, true),
            Format::Table => write(out, Secrecy::Secret, plaintext, self.force),
        }
    }
}

impl BinaryOut {
    /// Writes bytes, their base64, or the answer as JSON.
    pub fn write(
        &self,
        app: &mut App<'_>,
        secrecy: Secrecy,
        bytes: &[u8],
        answer: &impl Serialize,
    ) -> Result<(), Failure> {
        if app.output.field.is_some() || !self.raw {
            return self.write_lines(app, secrecy, &base64_line(bytes), answer);
        }
        match app.output.format {
            Format::Json => Err(Failure::usage("--raw and --output json exclude each other")),
            Format::Table => write(self.out.as_deref(), secrecy, bytes, self.force),
        }
    }
}

impl BinaryOut {
    /// Refuses what makes no sense for several, before they are asked for.
    pub fn check_lines(&self) -> Result<(), Failure> {
        if self.raw {
            return Err(Failure::usage("--raw is for one: of several, nobody could tell where the next begins"));
        }
        Ok(())
    }

    /// Writes lines, or the answer as JSON.
    pub fn write_lines(
        &self,
        app: &mut App<'_>,
        secrecy: Secrecy,
        lines: &str,
        answer: &impl Serialize,
    ) -> Result<(), Failure> {
        let out = self.out.as_deref();
        if app.output.field.is_some() {
            return show_field(out, app, answer);
        }
        match app.output.format {
            Format::Json => write(out, secrecy, &app.output.json_text(answer)?, true),
            Format::Table => write(out, secrecy, lines.as_bytes(), true),
        }
    }
}

fn show_field(out: Option<&Path>, app: &mut App<'_>, answer: &impl Serialize) -> Result<(), Failure> {
    if out.is_some() {
        return Err(Failure::usage("--field and --out exclude each other"));
    }
    app.output.show(answer, String::new)
}

/// Returns base64 as a line.
pub fn base64_line(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(BASE64_STANDARD.encode(bytes) + "\n")
}

/// Writes to a file, or to stdout. Binary data goes to a terminal only by force: it could make it do things.
pub fn write(file: Option<&Path>, secrecy: Secrecy, bytes: &[u8], force: bool) -> Result<(), Failure> {
    match file.filter(|path| *path != Path::new("-")) {
        Some(path) => write_file(path, secrecy, bytes)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display()))),
        None => {
            let mut stdout = io::stdout().lock();
            if stdout.is_terminal() && !force && is_binary(bytes) {
                return Err(Failure::usage("this is binary data, and stdout is a terminal")
                    .hint("give --out FILE, send it into a pipe, or give --force"));
            }
            stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(crate::output::not_written)
        }
    }
}

fn is_binary(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')),
        Err(_) => true,
    }
}

/// Writes a file whole or not at all, by a new one that takes its place: truncating the old one would keep the
/// permissions that it has.
fn write_file(path: &Path, secrecy: Secrecy, bytes: &[u8]) -> io::Result<()> {
    // What is no file (a pipe, a device) is written to as it is.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    // Where a link leads, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not the name of a file"));
    };
    let mut new_name = std::ffi::OsString::from(".");
    new_name.push(name);
    new_name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(new_name);
    let written = create(&new, secrecy)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn create(path: &Path, secrecy: Secrecy) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secrecy == Secrecy::Secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_binary_and_what_moves_a_cursor_is() {
        for text in ["", "hello\n", "a\tb\r\n", "ä€"] {
            assert!(!is_binary(text.as_bytes()), "{text:?}");
        }
        for bytes in [&[0xff][..], b"\0", b"\x1b[2J", "\u{9b}".as_bytes()] {
            assert!(is_binary(bytes), "{bytes:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_file_is_for_its_owner_only_even_where_another_was() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "old and longer than the new").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_file(&path, Secrecy::Secret, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_a_device_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_file(&link, Secrecy::Public, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        write_file(Path::new("/dev/null"), Secrecy::Secret, b"new").unwrap();
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_file(&folder.path().join("no/such/folder"), Secrecy::Secret, b"").is_err());
        assert!(write_file(folder.path(), Secrecy::Secret, b"").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
