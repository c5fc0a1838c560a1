//! A small file system of one's own, which can be full or read-only without harm to anybody.
//!
//! It is mounted in a mount namespace that one child process keeps: no other process sees it, and it is gone with that
//! child, whatever becomes of the test. Where the user may not mount, a user namespace gives the right to; where that is
//! not allowed either, making one fails, and the test has to find another way.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A file system in memory, mounted over a directory for those who enter.
pub struct Volume {
    keeper: Child,
    dir: PathBuf,
    of_root: bool,
}

impl Volume {
    /// Mounts one of so many bytes over a directory.
    pub fn mount(dir: &Path, bytes: u64) -> Result<Self> {
        let of_root = rustix::process::geteuid().is_root();
        let mut keeper = Command::new("unshare");
        keeper.args(if of_root { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
        // It ends when its input does, which is when this process ends, however that may be.
        let script = "mount -t tmpfs -o mode=0700,size=$2 tmpfs \"$1\" && echo mounted && exec cat > /dev/null";
        keeper.args(["sh", "-c", script, "sh"]).arg(dir).arg(bytes.to_string());
        let mut keeper = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().context("it was piped")?).read_line(&mut said)?;
        if said.trim() != "mounted" {
            let ended = keeper.wait_with_output()?;
            bail!("nothing can be mounted here: {}", String::from_utf8_lossy(&ended.stderr).trim());
        }
        Ok(Self { keeper, dir: dir.to_owned(), of_root })
    }

    /// Returns the words before a command that let it run where the volume is mounted.
    pub fn enter(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["nsenter".into(), "--target".into(), self.keeper.id().to_string().into()];
        if !self.of_root {
            words.extend(["--user".into(), "--preserve-credentials".into()]);
        }
        words.push("--mount".into());
        words
    }

    /// Returns a path inside as it is reached from outside.
    pub fn path(&self, inside: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Makes it writable or not.
    pub fn set_writable(&self, writable: bool) -> Result<()> {
        let words = self.enter();
        // With `bind` only this mount changes: else mount says the volume's own options again, and those of its user are
        // none in a user namespace.
        let mut mount = Command::new(&words[0]);
        mount.args(&words[1..]).args(["mount", "-o", if writable { "remount,bind,rw" } else { "remount,bind,ro" }]);
        let ended = mount.arg(&self.dir).output().context("starting mount")?;
        ensure!(ended.status.success(), "mount: {}", String::from_utf8_lossy(&ended.stderr));
        Ok(())
    }

    /// Fills it with a file of its own but for so many bytes.
    pub fn fill(&self, but_for: u64) -> Result<()> {
        let found = rustix::fs::statvfs(self.path(&self.dir))?;
        let bytes = (found.f_bavail * found.f_frsize).saturating_sub(but_for);
        std::fs::write(self.ballast(), vec![0; usize::try_from(bytes)?]).context("filling the volume")
    }

    /// Fills it to the last byte.
    pub fn fill_up(&self) -> Result<()> {
        let mut ballast = std::fs::OpenOptions::new().append(true).create(true).open(self.ballast())?;
        loop {
            match ballast.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("filling the volume"),
            }
        }
    }

    /// Takes away what it was filled with.
    pub fn empty(&self) -> Result<()> {
        std::fs::remove_file(self.ballast()).context("emptying the volume")
    }

    fn ballast(&self) -> PathBuf {
        self.path(&self.dir).join("ballast")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // By its own handle. It may have ended already: then there is nothing to do.
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}
