//! The launcher: a small process that starts the process of the module, and starts it anew when it is told to.
//!
//! The daemon starts it first of all, while it has neither keys nor connections that could be inherited. Between the two
//! lies one stream, the launcher's standard input:
//! ```text
//! daemon -> launcher    's'                            end the process of the module, start a new one
//! launcher -> daemon    u32 errno (0: none) || u32 process id || with one descriptor: the stream to the new process
//! ```
//! So each process of a module has a stream of its own: when it dies the daemon reads its end, and no late or half
//! answer of one is ever taken for the answer of another.
//!
//! At the end of the stream, which is the end of the daemon however it came, the launcher kills the process of the module
//! and ends. If the launcher itself is killed, the kernel kills the process of the module (`PR_SET_PDEATHSIG`). Signals
//! that stop or reload the daemon end neither of the two: a terminal's Ctrl-C and a service manager send them to all
//! processes of a service, and the daemon may need its module until it has drained.

use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A program with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    /// This program, anew: the file that runs, also when another has its name by now. So both ends of a stream are of
    /// one release whatever is installed meanwhile.
    pub(super) fn this(arguments: &[&str]) -> Self {
        Self::at("/proc/self/exe".into(), arguments)
    }

    pub(super) fn at(path: PathBuf, arguments: &[&str]) -> Self {
        Self { path, arguments: arguments.iter().map(|&argument| argument.to_owned()).collect() }
    }

    /// Starts it with a stream as its standard input. What the module prints goes nowhere: it is not ours to log.
    pub(super) fn start(&self, input: UnixStream) -> io::Result<Child> {
        Command::new(&self.path)
            .arg0(PROGRAM_NAME)
            .args(&self.arguments)
            .stdin(Stdio::from(OwnedFd::from(input)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}

/// The name that process lists show.
const PROGRAM_NAME: &str = "kms-server";
/// The hidden command that serves as a launcher.
pub(super) const LAUNCHER_COMMAND: &str = "module-launcher";
/// The hidden command that serves a module.
const MODULE_COMMAND: &str = "module-process";
/// What asks for a new process.
pub(super) const START: u8 = b's';
/// The length of an answer, in bytes.
const ANSWER_BYTES: usize = 8;

/// What a process does that was started as a launcher.
pub fn serve_launcher() -> io::Result<()> {
    rustix::thread::set_name(c"kms-launcher")?;
    let _kept_from = ignore_stops()?;
    let daemon = input()?;
    let own_id = rustix::process::getpid().as_raw_nonzero().to_string();
    let program = Program::this(&[MODULE_COMMAND, &own_id]);
    let mut current: Option<Child> = None;
    // Killed, and not yet gone: one that is in the middle of a system call to its device may stay so for a while.
    let mut leaving: Vec<Child> = Vec::new();
    while let Some(command) = next_byte(&daemon)? {
        if command != START {
            return Err(io::ErrorKind::InvalidData.into());
        }
        leaving.extend(current.take());
        leaving.retain_mut(|child| {
            drop(child.kill());
            !matches!(child.try_wait(), Ok(Some(_)))
        });
        let started = if leaving.len() > LEAVING_MAX {
            Err(io::Error::from_raw_os_error(libc::EAGAIN))
        } else {
            UnixStream::pair().and_then(|(ours, theirs)| Ok((program.start(theirs)?, ours)))
        };
        match started {
            Ok((child, stream)) => {
                send(&daemon, 0, child.id(), Some(&stream))?;
                current = Some(child);
            }
            Err(error) => send(&daemon, error.raw_os_error().unwrap_or(libc::EIO), 0, None)?,
        }
    }
    leaving.extend(current);
    for child in &mut leaving {
        drop(child.kill());
    }
    Ok(())
}

/// How many processes may hang in their device before no more are made.
const LEAVING_MAX: usize = 8;

/// Returns the stream that is the standard input.
pub(super) fn input() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// From here on, and as long as this is kept, these signals end nothing.
pub(super) fn ignore_stops() -> io::Result<Vec<Signal>> {
    // Taken by a handler that tells nobody: a signal that is ignored would stay so in whatever is started.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].into_iter().map(signal).collect()
}

fn next_byte(mut stream: &UnixStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The daemon died with something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn send(daemon: &UnixStream, errno: i32, id: u32, stream: Option<&UnixStream>) -> io::Result<()> {
    let answer = [errno.to_be_bytes(), id.to_be_bytes()].concat();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = stream.map(AsFd::as_fd);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptors)));
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(daemon, &[IoSlice::new(&answer)], &mut control, SendFlags::NOSIGNAL)
    })?;
    if sent == answer.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// A process of a module that was started: its id, and the stream to it.
pub(super) struct Started {
    pub(super) id: u32,
    pub(super) stream: UnixStream,
}

/// Reads the launcher's answer, if it is there: for a stream that does not block. An answer comes in one piece.
pub(super) fn receive(launcher: impl AsFd) -> io::Result<io::Result<Started>> {
    let mut answer = [0; ANSWER_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(launcher, &mut [IoSliceMut::new(&mut answer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if received.bytes != ANSWER_BYTES || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let number = |at: usize| u32::from_be_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
    match (number(0), descriptors.pop()) {
        (0, Some(stream)) => Ok(Ok(Started { id: number(4), stream: UnixStream::from(stream) })),
        (0, None) => Err(io::ErrorKind::InvalidData.into()),
        // An answer, and no error of the stream: one of these means "not yet" to whoever waits for streams.
        (errno, _) => Ok(Err(io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(libc::EIO)))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_stream_is_handed_over_with_its_answer() {
        let (daemon, launcher) = UnixStream::pair().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&launcher, 0, 77, Some(&theirs)).unwrap();
        drop(theirs);
        let mut started = receive(&daemon).unwrap().unwrap();
        assert_eq!(started.id, 77);
        started.stream.write_all(b"x").unwrap();
        assert_eq!(next_byte(&ours).unwrap(), Some(b'x'));
        drop(started);
        assert_eq!(next_byte(&ours).unwrap(), None);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let (daemon, launcher) = UnixStream::pair().unwrap();
        send(&launcher, libc::EAGAIN, 0, None).unwrap();
        assert_eq!(receive(&daemon).unwrap().err().unwrap().raw_os_error(), Some(libc::EAGAIN));
        send(&launcher, 0, 77, None).unwrap();
        assert!(receive(&daemon).is_err(), "no descriptor");
        (&launcher).write_all(b"abc").unwrap();
        assert!(receive(&daemon).is_err(), "short");
        drop(launcher);
        assert!(receive(&daemon).is_err(), "the end");
    }
}
