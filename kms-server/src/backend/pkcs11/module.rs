//! The process of a module: one thread, one session, one request at a time. It dies with the module.
//!
//! Only here is anything of the module called. What a step needs of a key it looks up anew each time, so that nothing is
//! remembered that a token may have forgotten.

use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo as SlotToken};
use cryptoki::types::RawAuthPin;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use zeroize::Zeroizing;

use super::launcher::{ignore_stops, input};
use super::message::{Answer, NotOpened, Request, Step, TokenInfo, payload_bytes};
use super::token_key;
use crate::noun::Random;
use crate::noun::random::OsRandom;

/// What a process does that was started for a module, by the launcher with this id.
pub fn serve_module(launcher: u32) -> io::Result<()> {
    rustix::thread::set_name(c"kms-module")?;
    let _kept_from = ignore_stops()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that line.
    if getppid().map(Pid::as_raw_nonzero).is_none_or(|parent| parent.get().unsigned_abs() != launcher) {
        return Ok(());
    }
    let rng = OsRandom::new();
    let mut stream = input()?;
    // What a module starts must not keep the daemon's stream open, nor what it reads be meant for us.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let mut module = Module { opened: None, rng: &rng };
    while let Some(request) = next(&mut stream)? {
        let answer = module.answer(request);
        stream.write_all(&answer.frame())?;
    }
    Ok(())
}

/// Reads the next request; nothing when the daemon has ended or wants this process no more.
fn next(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let length = payload_bytes(head).ok_or(io::ErrorKind::InvalidData)?;
    let mut payload = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut payload)?;
    Request::parse(&payload).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

struct Module<'a> {
    opened: Option<Opened>,
    rng: &'a dyn Random,
}

/// A token with a session.
struct Opened {
    // Before the library that it calls.
    session: Session,
    slot: Slot,
    library: Pkcs11,
}

/// An answer that ends a request early.
pub(super) type Answered<T> = Result<T, Answer>;

impl Module<'_> {
    fn answer(&mut self, request: Request) -> Answer {
        let answered = match (request, &self.opened) {
            (Request::Open { module, token }, None) => open(&module, &token).and_then(|opened| {
                let answer = look(&opened);
                self.opened = Some(opened);
                answer
            }),
            (Request::Open { .. }, Some(_)) | (_, None) => {
                Err(Answer::Trouble { step: Step::Closed, code: String::new() })
            }
            (Request::Login { pin }, Some(opened)) => login(&opened.session, pin),
            (Request::Look, Some(opened)) => look(opened),
            (Request::Find { label }, Some(opened)) => token_key::find(&opened.session, &label),
            (Request::Create { label, id, mechanism }, Some(opened)) => {
                token_key::create(opened.place(), &label, &id, mechanism, self.rng)
            }
            (Request::Wrap { label, id, mechanism, bound, key }, Some(opened)) => {
                token_key::wrap(opened.place(), (&label, &id), mechanism, &bound, &key, self.rng)
            }
            (Request::Unwrap { label, id, bound, wrap }, Some(opened)) => {
                token_key::unwrap(opened.place(), (&label, &id), &bound, &wrap, self.rng)
            }
            (Request::Permit { label, id, on }, Some(opened)) => token_key::permit(&opened.session, (&label, &id), on),
            (Request::Destroy { label, id }, Some(opened)) => token_key::destroy(&opened.session, (&label, &id)),
        };
        answered.unwrap_or_else(|answer| answer)
    }
}

impl Opened {
    fn place(&self) -> token_key::Place<'_> {
        token_key::Place { session: &self.session, library: &self.library, slot: self.slot }
    }
}

fn open(module: &[u8], label: &str) -> Answered<Opened> {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(module));
    let library = Pkcs11::new(path).map_err(|error| {
        let text = match &error {
            Error::LibraryLoading(source) => source.to_string(),
            other => other.to_string(),
        };
        Answer::NotOpened { reason: NotOpened::Load, text }
    })?;
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(trouble(Step::Initialize)(error)),
    }
    let slots = library.get_slots_with_token().map_err(trouble(Step::ListTokens))?;
    // A slot that does not tell what is in it is none of ours: another reader, with another's card.
    let tokens: Vec<(Slot, SlotToken)> =
        slots.into_iter().filter_map(|slot| Some((slot, library.get_token_info(slot).ok()?))).collect();
    let mut ours = tokens.iter().filter(|(_, token)| token.token_initialized() && token.label() == label);
    let slot = match (ours.next(), ours.next()) {
        (Some((slot, _)), None) => *slot,
        (Some(_), Some(_)) => return Err(Answer::NotOpened { reason: NotOpened::Several, text: String::new() }),
        (None, _) => return Err(Answer::NotOpened { reason: NotOpened::NoToken, text: labels(&tokens) }),
    };
    let session = library.open_rw_session(slot).map_err(trouble(Step::OpenSession))?;
    Ok(Opened { session, slot, library })
}

fn labels(tokens: &[(Slot, SlotToken)]) -> String {
    let labels: Vec<String> = tokens
        .iter()
        .filter(|(_, token)| token.token_initialized())
        .take(LABELS_SHOWN_MAX)
        .map(|(_, token)| format!("{:?}", token.label()))
        .collect();
    if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }
}

const LABELS_SHOWN_MAX: usize = 8;

/// Tells of the token, if the session is still one with it.
fn look(opened: &Opened) -> Answered<Answer> {
    opened.session.get_session_info().map_err(trouble(Step::AskSession))?;
    let token = opened.library.get_token_info(opened.slot).map_err(trouble(Step::ListTokens))?;
    Ok(Answer::Token(Box::new(TokenInfo {
        label: token.label().to_owned(),
        maker: token.manufacturer_id().to_owned(),
        model: token.model().to_owned(),
        serial: token.serial_number().to_owned(),
        firmware: token.firmware_version().to_string(),
        final_try: token.user_pin_final_try(),
        locked: token.user_pin_locked(),
    })))
}

fn login(session: &Session, mut pin: Zeroizing<Vec<u8>>) -> Answered<Answer> {
    let pin = RawAuthPin::new(Box::new(std::mem::take(&mut *pin)));
    match session.login_with_raw(UserType::User, &pin) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(Answer::Done),
        Err(Error::Pkcs11(
            code @ (RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::PinTooWeak),
            _,
        )) => Err(Answer::Pin { code: name(code) }),
        Err(Error::Pkcs11(
            code @ (RvError::CryptokiNotInitialized
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::HostMemory
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::UserAnotherAlreadyLoggedIn
            | RvError::UserPinNotInitialized),
            _,
        )) => Err(Answer::Trouble { step: Step::BeforeLogin, code: name(code) }),
        // Anything else may be a token's way to say that the PIN is wrong.
        Err(error) => Err(trouble(Step::Login)(error)),
    }
}

/// Whether the session is logged in: without that a token hides its private keys, and a hidden key is no absent one.
pub(super) fn is_logged_in(session: &Session) -> Answered<bool> {
    let state = session.get_session_info().map_err(trouble(Step::AskSession))?.session_state();
    Ok(matches!(state, SessionState::RwUser))
}

/// Returns the answer for a step that did not work, where that says nothing of the key.
pub(super) fn trouble(step: Step) -> impl Fn(Error) -> Answer {
    move |error| Answer::Trouble { step, code: code_of(&error) }
}

/// Returns the module's code for an error, by the name in its manual.
pub(super) fn code_of(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, _) => name(*code),
        other => other.to_string(),
    }
}

fn name(code: RvError) -> String {
    match code {
        RvError::VendorDefined(code) => format!("CKR_VENDOR_DEFINED {code:#x}"),
        RvError::UnknownErrorCode(code) => format!("{code:#x}"),
        known => {
            let mut name = "CKR".to_owned();
            for c in format!("{known:?}").chars() {
                if c.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(c.to_ascii_uppercase());
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_manual() {
        assert_eq!(name(RvError::PinIncorrect), "CKR_PIN_INCORRECT");
        assert_eq!(name(RvError::KeyFunctionNotPermitted), "CKR_KEY_FUNCTION_NOT_PERMITTED");
        assert_eq!(name(RvError::VendorDefined(0x8000_0001)), "CKR_VENDOR_DEFINED 0x80000001");
    }
}
