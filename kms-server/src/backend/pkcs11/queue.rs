//! The daemon's end of the module: one thread with one queue, which has the stream to the process of the module, starts
//! it anew when it died or hung, and logs it in.
//!
//! All backends that were opened with one launcher share it, so that none of them ends the process of another. One
//! request is with the module at a time. Nobody who waits can hold it up: a caller that gives up leaves a request that is
//! finished or passed over.
//!
//! **What is not an answer about the key is believed only from a session that was opened for this very call**: a token
//! that was pulled, replaced or has forgotten its login answers with anything, also with "there is no such key"; and a
//! daemon that hears that again and again locks itself. So the process is started anew, and the request made once more.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::error::{Pkcs11Error, Where};
use super::launcher::{LAUNCHER_COMMAND, Program, START, Started, receive};
use super::login_note::{LoginNote, Noted};
use super::message::{Answer, NotOpened, Request, Step, TokenInfo, payload_bytes};
use crate::backend::Pkcs11Settings;
use crate::backend::software::Pin;
use crate::crypto::sha256;
use crate::noun::Random;

/// How long the module may take for one request.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long a call may take with all that belongs to it: its turn, a new process, a login.
pub(super) const CALL_LIMIT: Duration = Duration::from_millis(7_500);
/// How long the launcher may take to start a process.
const LAUNCH_LIMIT: Duration = Duration::from_secs(2);
/// How long another process may be in a login.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// The wait after a process that died without having been of use; twice as long after each more.
const WAIT_UNIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How many callers may wait in the queue; more wait for a place in it.
const CALLS_WAITING_MAX: usize = 256;

/// The process that starts, and starts again, the process of a module; and the queue of what is asked of that.
#[derive(Clone)]
pub struct Launcher {
    calls: mpsc::Sender<Call>,
}

impl Launcher {
    /// Starts it: this program, anew.
    pub fn start() -> io::Result<Self> {
        Self::start_as(Program::this(&[LAUNCHER_COMMAND]))
    }

    /// Starts it from the program at a path: for tests, which are not `kms-server`.
    pub fn start_of(program: &Path) -> io::Result<Self> {
        Self::start_as(Program::at(program.to_owned(), &[LAUNCHER_COMMAND]))
    }

    fn start_as(program: Program) -> io::Result<Self> {
        let launcher = LauncherProcess::start(&program)?;
        let (calls, queue) = mpsc::channel(CALLS_WAITING_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let keeper = Keeper {
            program,
            launcher: Some(launcher),
            process: None,
            lost: None,
            failures: 0,
            retry_at: None,
            taken: None,
            refused: None,
        };
        std::thread::Builder::new()
            .name("kms-module-queue".to_owned())
            .spawn(move || runtime.block_on(keeper.run(queue)))?;
        Ok(Self { calls })
    }

    /// Asks the module; returns its answer with the token that gave it.
    pub(super) async fn call(&self, site: &Arc<Site>, request: Request) -> Result<(Answer, TokenInfo), Pkcs11Error> {
        let (reply, replied) = oneshot::channel();
        let call = Call { site: Arc::clone(site), request, reply };
        let asked = async {
            self.calls.send(call).await.map_err(|_| Pkcs11Error::Ended)?;
            replied.await.map_err(|_| Pkcs11Error::Ended)?
        };
        timeout(CALL_LIMIT, asked)
            .await
            .unwrap_or_else(|_| Err(Pkcs11Error::Busy { place: site.place(), limit: CALL_LIMIT }))
    }
}

/// Which token, and what is kept for it here.
pub(super) struct Site {
    pub(super) dir: PathBuf,
    pub(super) settings: Pkcs11Settings,
    pub(super) rng: Arc<dyn Random>,
}

impl Site {
    /// Returns how errors name it.
    pub(super) fn place(&self) -> Where {
        Where { module: self.settings.module.clone(), token: self.settings.token.clone() }
    }

    fn is(&self, other: &Site) -> bool {
        self.dir == other.dir && self.settings == other.settings
    }
}

struct Call {
    site: Arc<Site>,
    request: Request,
    reply: oneshot::Sender<Result<(Answer, TokenInfo), Pkcs11Error>>,
}

/// What the thread of the queue has.
struct Keeper {
    program: Program,
    launcher: Option<LauncherProcess>,
    process: Option<Process>,
    /// What the process that died had open, until it is open again.
    lost: Option<Lost>,
    /// How often in a row a process was of no use.
    failures: u32,
    /// When the next is started.
    retry_at: Option<Instant>,
    /// The PIN that the token took last.
    taken: Option<PinMark>,
    /// The PIN that it did not take, if that could not be noted durably.
    refused: Option<PinMark>,
}

struct Lost {
    site: Arc<Site>,
    logged_in: bool,
}

/// A process that has the token open.
struct Process {
    stream: UnixStream,
    id: u32,
    site: Arc<Site>,
    token: TokenInfo,
    logged_in: bool,
    /// Whether it answered what was asked for its own sake.
    was_of_use: bool,
}

/// Recognises a PIN that this process has seen. Not kept anywhere.
struct PinMark {
    salt: [u8; 32],
    hash: [u8; 32],
}

impl PinMark {
    fn of(pin: &Pin, rng: &dyn Random) -> Self {
        let mut salt = [0; 32];
        rng.fill(&mut salt);
        Self { salt, hash: Self::hash(pin, &salt) }
    }

    fn fits(&self, pin: &Pin) -> bool {
        Self::hash(pin, &self.salt).ct_eq(&self.hash).into()
    }

    fn hash(pin: &Pin, salt: &[u8; 32]) -> [u8; 32] {
        let mut all = Zeroizing::new(Vec::with_capacity(salt.len() + pin.bytes().len()));
        all.extend_from_slice(salt);
        all.extend_from_slice(pin.bytes());
        sha256(&all)
    }
}

impl Keeper {
    /// Serves until nobody can ask any more.
    async fn run(mut self, mut queue: mpsc::Receiver<Call>) {
        loop {
            tokio::select! {
                call = queue.recv() => match call {
                    Some(call) => self.serve(call).await,
                    None => break,
                },
                () = end_of(self.process.as_ref()) => {
                    if let Some(process) = self.process.take() {
                        tracing::warn!(process = process.id, "the process of the HSM's module died; it is started anew");
                        self.broke(process);
                    }
                }
                () = until(self.retry_at) => self.revive().await,
            }
        }
        self.process = None;
        if let Some(launcher) = self.launcher {
            launcher.end();
        }
    }

    async fn serve(&mut self, call: Call) {
        if call.reply.is_closed() {
            return;
        }
        let now = Instant::now();
        let done = match self.retry_at {
            Some(at) if at > now => {
                let (place, failures) = (call.site.place(), self.failures);
                Err(Pkcs11Error::Waiting { place, failures, wait: at - now })
            }
            Some(_) | None => self.perform(&call).await,
        };
        // Whoever asked may be gone; what was done is done.
        drop(call.reply.send(done));
    }

    async fn perform(&mut self, call: &Call) -> Result<(Answer, TokenInfo), Pkcs11Error> {
        loop {
            let was_open = self.open(&call.site, !matches!(call.request, Request::Look)).await?;
            let answer = self.exchange(&call.site, &call.request).await?;
            let Some(process) = &mut self.process else { return Err(Pkcs11Error::Ended) };
            process.was_of_use = true;
            self.failures = 0;
            if answer.stands() || !was_open {
                return Ok((answer, process.token.clone()));
            }
            self.process = None;
        }
    }

    /// Sees to it that the token is open; returns whether it was before.
    async fn open(&mut self, site: &Arc<Site>, log_in: bool) -> Result<bool, Pkcs11Error> {
        if self.process.as_ref().is_some_and(|process| !process.site.is(site)) {
            self.process = None;
        }
        let was_open = self.process.is_some();
        if !was_open {
            (self.retry_at, self.lost) = (None, None);
            let Started { id, stream } = self.launch(site).await?;
            let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
            let stream = stream.map_err(|source| Pkcs11Error::Launch { source })?;
            let (site, token) = (Arc::clone(site), TokenInfo::default());
            self.process = Some(Process { stream, id, site, token, logged_in: false, was_of_use: false });
            self.open_token().await?;
        }
        if log_in
            && self.process.as_ref().is_some_and(|process| !process.logged_in)
            && let Err(error) = self.log_in(site).await
        {
            // Opened anew for the next try: what the token says of its PIN may be another thing then.
            self.process = None;
            return Err(error);
        }
        Ok(was_open)
    }

    async fn open_token(&mut self) -> Result<(), Pkcs11Error> {
        let Some(process) = &self.process else { return Err(Pkcs11Error::Ended) };
        let site = Arc::clone(&process.site);
        let (module, token) = (site.settings.module.as_os_str().as_bytes().to_vec(), site.settings.token.clone());
        let answer = self.exchange(&site, &Request::Open { module, token }).await?;
        let place = site.place();
        let error = match answer {
            Answer::Token(token) => {
                if let Some(process) = &mut self.process {
                    process.token = *token;
                }
                return Ok(());
            }
            Answer::NotOpened { reason: NotOpened::Load, text } => {
                Pkcs11Error::Load { module: site.settings.module.clone(), why: text }
            }
            Answer::NotOpened { reason: NotOpened::NoToken, text } => Pkcs11Error::NoToken { place, found: text },
            Answer::NotOpened { reason: NotOpened::Several, .. } => Pkcs11Error::SeveralTokens { place },
            Answer::Trouble { step, code } => Pkcs11Error::Trouble { place, step, code },
            _ => Pkcs11Error::Garbled { place },
        };
        self.process = None;
        Err(error)
    }

    /// Logs in, if this PIN may be tried.
    async fn log_in(&mut self, site: &Arc<Site>) -> Result<(), Pkcs11Error> {
        let place = site.place();
        let pin_file = site.settings.pin_file.clone();
        // As it is now: others may have used up tries since this process was opened.
        let token = match self.exchange(site, &Request::Look).await? {
            Answer::Token(token) => *token,
            Answer::Trouble { step, code } => return Err(Pkcs11Error::Trouble { place, step, code }),
            _ => return Err(Pkcs11Error::Garbled { place }),
        };
        if token.locked {
            return Err(Pkcs11Error::Locked { place });
        }
        let pin = Pin::read(&pin_file).map_err(|source| Pkcs11Error::PinFile { source })?;
        let note = LoginNote::of(&site.dir);
        let _lock = lock(site).await?;
        if self.refused.as_ref().is_some_and(|refused| refused.fits(&pin)) {
            return Err(Pkcs11Error::PinRefusedBefore { note: note.path().to_owned() });
        }
        let taken = self.taken.as_ref().is_some_and(|taken| taken.fits(&pin));
        let before = note.may_begin(pin.bytes(), taken)?;
        if token.final_try {
            return Err(Pkcs11Error::FinalTry { place, pin_file });
        }
        note.begin(&before, pin.bytes(), taken, &*site.rng)?;
        // A copy of its own, wiped with the request.
        let request = Request::Login { pin: Zeroizing::new(pin.bytes().to_vec()) };
        match self.exchange(site, &request).await? {
            Answer::Done => {
                (self.taken, self.refused) = (Some(PinMark::of(&pin, &*site.rng)), None);
                if let Some(process) = &mut self.process {
                    process.logged_in = true;
                }
                if let Err(error) = note.write(&Noted::Nothing) {
                    tracing::warn!(
                        ?error,
                        "the login worked, but its note stays: the next start counts it as unfinished"
                    );
                }
                Ok(())
            }
            Answer::Pin { code } => {
                self.taken = None;
                if let Err(error) = note.refused(pin.bytes(), &*site.rng) {
                    tracing::error!(
                        ?error,
                        "the token did not take the PIN, and that cannot be noted: correct the PIN before the next start"
                    );
                    self.refused = Some(PinMark::of(&pin, &*site.rng));
                }
                Err(Pkcs11Error::PinRefused { place, pin_file, code })
            }
            Answer::Trouble { step: step @ Step::BeforeLogin, code } => {
                note.write(&before)?;
                let no_pin = code == "CKR_USER_PIN_NOT_INITIALIZED";
                Err(if no_pin { Pkcs11Error::NoUserPin { place } } else { Pkcs11Error::Trouble { place, step, code } })
            }
            // The note stays: it may have been counted. And what the token took before it may not take any more, which
            // some tell by a code of their own: this PIN is not tried without end.
            Answer::Trouble { step, code } => {
                self.taken = None;
                Err(Pkcs11Error::Trouble { place, step, code })
            }
            _ => Err(Pkcs11Error::Garbled { place }),
        }
    }

    /// Makes a request of the process. One that does not answer, or not in time, is given up.
    async fn exchange(&mut self, site: &Arc<Site>, request: &Request) -> Result<Answer, Pkcs11Error> {
        let Some(process) = &mut self.process else { return Err(Pkcs11Error::Ended) };
        let place = site.place();
        let error = match timeout(REQUEST_LIMIT, speak(&mut process.stream, request)).await {
            Ok(Ok(answer)) if answer.answers(request) => return Ok(answer),
            Ok(Ok(_)) => Pkcs11Error::Garbled { place },
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Pkcs11Error::Garbled { place },
            Ok(Err(_)) => Pkcs11Error::Died { place },
            Err(_) => Pkcs11Error::Hung { place, limit: REQUEST_LIMIT },
        };
        tracing::warn!(process = process.id, %error, "the process of the HSM's module is given up");
        if let Some(process) = self.process.take() {
            self.broke(process);
        }
        Err(error)
    }

    /// A process is not there any more: when is the next one started?
    fn broke(&mut self, process: Process) {
        if process.was_of_use {
            self.failures = 0;
        }
        self.lost = Some(Lost { site: process.site, logged_in: process.logged_in });
        self.wait();
    }

    fn wait(&mut self) {
        self.retry_at = Some(Instant::now() + wait_after(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    /// Opens again what was open, before somebody asks for it.
    async fn revive(&mut self) {
        self.retry_at = None;
        let Some(Lost { site, logged_in }) = self.lost.take() else { return };
        match self.open(&site, logged_in).await {
            Ok(_) => {
                let process = self.process.as_ref().map(|process| process.id);
                tracing::info!(process, "the process of the HSM's module is back");
            }
            Err(error) => {
                if let Some(lost) = &mut self.lost {
                    lost.logged_in |= logged_in;
                }
                tracing::warn!(%error, "the process of the HSM's module could not be brought back");
            }
        }
    }

    /// Has a new process started; the old one is killed with that.
    async fn launch(&mut self, site: &Arc<Site>) -> Result<Started, Pkcs11Error> {
        let mut failed: io::Error = io::ErrorKind::NotConnected.into();
        for _ in 0..2 {
            let mut launcher = match self.launcher.take() {
                Some(launcher) => launcher,
                None => match LauncherProcess::start(&self.program) {
                    Ok(launcher) => launcher,
                    Err(error) => {
                        failed = error;
                        break;
                    }
                },
            };
            match timeout(LAUNCH_LIMIT, launcher.ask()).await {
                Ok(Ok(Ok(started))) => {
                    self.launcher = Some(launcher);
                    return Ok(started);
                }
                // It is well, and says why there can be no process now.
                Ok(Ok(Err(refused))) => {
                    self.launcher = Some(launcher);
                    failed = refused;
                    break;
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
            // It died, hangs, or could not start a process: a new one knows as much.
            launcher.kill();
        }
        self.lost = Some(Lost { site: Arc::clone(site), logged_in: false });
        self.wait();
        Err(Pkcs11Error::Launch { source: failed })
    }
}

/// Waits until no other process of this directory is in a login; the answer ends with the file.
async fn lock(site: &Site) -> Result<std::fs::File, Pkcs11Error> {
    let unusable = |source| Pkcs11Error::Directory { path: site.dir.clone(), source };
    let directory = std::fs::File::open(&site.dir).map_err(unusable)?;
    let until = Instant::now() + LOCK_LIMIT;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < until => {
                tokio::time::sleep(LOCK_EVERY).await;
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Pkcs11Error::LoginElsewhere { place: site.place() });
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(unusable(error)),
        }
    }
}

const LOCK_EVERY: Duration = Duration::from_millis(20);

/// Returns how long the next process waits after so many in a row that were of no use.
fn wait_after(failures: u32) -> Duration {
    if failures == 0 { Duration::ZERO } else { (WAIT_UNIT * (1 << (failures - 1).min(DOUBLINGS_MAX))).min(WAIT_MAX) }
}

const DOUBLINGS_MAX: u32 = 10;

async fn speak(stream: &mut UnixStream, request: &Request) -> io::Result<Answer> {
    stream.write_all(&request.frame()).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = payload_bytes(head).ok_or(io::ErrorKind::InvalidData)?;
    let mut payload = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut payload).await?;
    Answer::parse(&payload).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Returns when a process that was asked nothing has ended, or says something all the same.
async fn end_of(process: Option<&Process>) {
    let Some(process) = process else { return std::future::pending().await };
    let mut byte = [0];
    while process.stream.readable().await.is_ok() {
        match process.stream.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The launcher, as the daemon sees it.
struct LauncherProcess {
    child: Child,
    stream: Stream,
}

/// Its stream, which belongs to a runtime from its first use on.
enum Stream {
    New(Option<StdStream>),
    Used(UnixStream),
}

impl LauncherProcess {
    fn start(program: &Program) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok(Self { child: program.start(theirs)?, stream: Stream::New(Some(ours)) })
    }

    async fn ask(&mut self) -> io::Result<io::Result<Started>> {
        if let Stream::New(stream) = &mut self.stream {
            let stream = stream.take().ok_or(io::ErrorKind::NotConnected)?;
            self.stream = Stream::Used(UnixStream::from_std(stream)?);
        }
        let Stream::Used(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        stream.write_all(&[START]).await?;
        stream.async_io(Interest::READABLE, || receive(stream.as_fd())).await
    }

    /// Kills it. The kernel kills the process of its module then.
    fn kill(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Lets it end: it reads the end of its stream.
    fn end(self) {
        let Self { mut child, stream } = self;
        drop(stream);
        drop(child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_has_an_end() {
        let waits: Vec<u128> = (0..9).map(|failures| wait_after(failures).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(wait_after(u32::MAX), WAIT_MAX);
    }

    #[test]
    fn a_call_with_all_that_belongs_to_it_ends_before_eight_seconds() {
        assert!(CALL_LIMIT < Duration::from_secs(8) && REQUEST_LIMIT < CALL_LIMIT);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_from_an_end() {
        for (bytes, kind) in [
            (&b""[..], io::ErrorKind::UnexpectedEof),
            (b"\0\0\0", io::ErrorKind::UnexpectedEof),
            (b"\0\0\0\x01", io::ErrorKind::UnexpectedEof),
            (b"\0\0\0\0", io::ErrorKind::InvalidData),
            (b"\xff\xff\xff\xff", io::ErrorKind::InvalidData),
            (b"\0\0\0\x01\xff", io::ErrorKind::InvalidData),
            (b"\0\0\0\x02\x82\0", io::ErrorKind::InvalidData),
        ] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(bytes).await.unwrap();
            theirs.shutdown().await.unwrap();
            assert_eq!(speak(&mut ours, &Request::Look).await.err().map(|error| error.kind()), Some(kind), "{bytes:?}");
        }
    }
}
