//! What the process does for the keys in it, as the kernel shows it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use kms_tests::{Daemon, Output, Process, Site, patiently, program, run};
use tokio::process::Command;

fn proc(pid: i32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("reading {file} of the daemon"))
}

#[tokio::test]
async fn a_daemon_leaves_no_core_dump_gains_no_privileges_and_says_so() -> Result<()> {
    let daemon = Daemon::fresh().await?;
    let (status, limits) = (proc(daemon.pid()?, "status")?, proc(daemon.pid()?, "limits")?);
    assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{status}");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("there is a limit")?;
    let words: Vec<&str> = core.split_ascii_whitespace().collect();
    assert_eq!(&words[4..6], ["0", "0"], "{core}");
    let said = daemon.site().output().text();
    let told = "protections: no core dumps, not dumpable, no new privileges, keys in ";
    assert!(said.contains(told), "it does not say what is on: {}", daemon.site().output().tail());
    daemon.stop().await?;
    Ok(())
}

/// The kernel gives `/proc/<pid>` of a process that is not dumpable to root, so that other processes of its user cannot
/// read its memory and environment. To see it, the daemon must not run as root.
#[tokio::test]
async fn other_processes_of_its_user_cannot_read_the_daemon() -> Result<()> {
    const NOBODY: u32 = 65_534;
    let site = Site::temporary()?;
    let is_root = rustix::process::geteuid().is_root();
    let user = if is_root { NOBODY } else { rustix::process::geteuid().as_raw() };
    let mut server = program("kms-server")?;
    if is_root {
        // Where the other user can run it, wherever it was built.
        let copy = site.path("kms-server");
        fs::copy(&server, &copy)?;
        server = copy;
        give(site.dir(), NOBODY)?;
    }
    let command = |name: &str| {
        let mut command = Command::new(&server);
        command.arg(name).arg("--config").arg(site.path("kms.toml")).current_dir(site.dir()).env_clear();
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    run(command("init").arg("--admin").arg(site.principal("admin"))).await?.success()?;
    let output = Output::default();
    let mut daemon = Process::start(&mut command("serve"), &output)?;
    daemon.serving().await.with_context(|| output.tail())?;
    let pid = daemon.id()?.as_raw_nonzero();
    let status = proc(pid.get(), "status")?;
    ensure!(status.contains(&format!("Uid:\t{user}\t{user}\t{user}\t{user}")), "it runs as somebody else: {status}");
    for file in ["environ", "mem", "maps"] {
        let owner = fs::metadata(format!("/proc/{pid}/{file}"))?.uid();
        assert_eq!(owner, 0, "processes of user {user} can open {file} of the daemon");
    }
    daemon.terminate()?;
    assert_eq!(patiently("its end", daemon.ended()).await??, Some(0), "{}", output.tail());
    Ok(())
}

fn give(path: &Path, user: u32) -> Result<()> {
    chown(path, Some(user), Some(user))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}
