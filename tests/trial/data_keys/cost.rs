//! What a daemon has used: processor time, and disk; and the lines that say so.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kms_tests::Daemon;

/// Processor time of a daemon since a moment.
pub struct Meter<'a> {
    daemon: &'a Daemon,
    began: Duration,
}

impl<'a> Meter<'a> {
    pub fn start(daemon: &'a Daemon) -> Result<Self> {
        Ok(Self { daemon, began: cpu_of(daemon)? })
    }

    pub fn used(&self) -> Result<Duration> {
        Ok(cpu_of(self.daemon)?.saturating_sub(self.began))
    }
}

/// Returns the processor time that a daemon has used: user and system, of all its threads.
pub fn cpu_of(daemon: &Daemon) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid()?))?;
    // Behind the name of the program, which is in parentheses, the fields 14 and 15 of proc(5).
    let fields = stat.rsplit_once(')').context("a program has a name")?.1;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    anyhow::ensure!(ticks.len() == 2, "the kernel says how long a process ran");
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * TICK_MS))
}

/// Linux counts a hundredth of a second to user space, whatever the kernel counts.
const TICK_MS: u64 = 10;

/// Prints what things of one kind cost.
pub fn print_cost(what: &str, items: usize, used: Duration) {
    let micros = used.as_secs_f64() * 1e6 / items.max(1) as f64;
    let per_second = if used.is_zero() { "-".to_owned() } else { format!("{:.0}", items as f64 / used.as_secs_f64()) };
    println!("{what:<58}{items:>10}{:>9.2}{micros:>10.2}{per_second:>12}", used.as_secs_f64());
}

/// Prints what stands above the lines of [`print_cost`].
pub fn print_head() {
    println!("{:<58}{:>10}{:>9}{:>10}{:>12}", "", "items", "CPU s", "us each", "per CPU s");
}

/// Says on the standard error how far something is that comes in parts, some twenty times.
#[allow(clippy::print_stderr, reason = "what it says at last is on the standard output")]
pub fn progress(what: &str, part: usize, done: usize, of: usize) {
    let twentieths = |done: usize| done * 20 / of.max(1);
    if of >= WORTH_TELLING && twentieths(done) > twentieths(done.saturating_sub(part)) {
        eprintln!("{what}: {done} of {of}");
    }
}

/// Fewer are done at once.
const WORTH_TELLING: usize = 100_000;

/// Prints a figure.
pub fn print_figure(what: &str, value: f64, unit: &str) {
    println!("{what:<58}{value:>19.2} {unit}");
}

/// Returns the bytes of all files of a directory.
pub fn bytes_in(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in dir.read_dir()? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}

/// Returns how many bytes of log there are: a segment ends in zeros, which are room.
pub fn log_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in dir.read_dir()? {
        let file = file?;
        if file.file_name().len() == SEGMENT_NAME_BYTES {
            let used = fs::read(file.path())?.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes += used as u64;
        }
    }
    Ok(bytes)
}

/// A segment is named by its first index, with 20 digits.
const SEGMENT_NAME_BYTES: usize = 20;

/// Lets the system forget what it holds of files in memory, so that they are read from the disk again.
pub fn forget(dir: &Path) -> Result<()> {
    for file in dir.read_dir()? {
        let file = fs::File::open(file?.path())?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
