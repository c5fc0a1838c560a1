//! One `C_Login` for each value of the PIN, kept over restarts of everything: real tokens lock themselves for good after
//! three to ten wrong PINs, and a service manager starts a failing daemon again and again.
//!
//! ```text
//! pkcs11-login = "kms1-pkcs11-login 1 " || state || "\n"                                        mode 0600
//! state        = "trying 1"                      a login was begun and has not ended
//!              | "trying 2 " || verifier         a second one after it, with the PIN that it knows
//!              | "refused " || verifier          the token did not take the PIN that it knows
//! ```
//! A login is noted before it is begun. The note goes when the PIN was taken, or when what came back says that it was
//! not looked at. One that has not ended may have been counted by the token; it is made once more, because a power cut
//! must not shut anybody out, and not again after that. A verifier (`crypto::pin_verifier`) recognises the value, so that
//! another one in the PIN file is tried at once.
//!
//! A PIN that this very process has seen taken is no guess: a token that hangs in a login may be asked as often as it
//! takes, and the second state is not entered.
//!
//! **Invariant:** without a durable note there is no login, and whatever is wrong with the note is a reason for none.
//!
//! Everything here blocks.

use std::path::{Path, PathBuf};

use super::error::Pkcs11Error;
use crate::backend::software::error::SoftwareError;
use crate::backend::software::private_file::{self, Link};
use crate::crypto::PinVerifier;
use crate::noun::Random;

/// The note, in the directory of the backend. Whoever uses it holds the directory's lock.
pub(super) struct LoginNote {
    path: PathBuf,
}

/// What it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Noted {
    /// The last login was taken, or there was none.
    Nothing,
    Trying,
    TryingAgain(PinVerifier),
    Refused(PinVerifier),
}

impl LoginNote {
    pub(super) fn of(dir: &Path) -> Self {
        Self { path: dir.join(FILE_NAME) }
    }

    /// Returns where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is noted, if a login with this PIN may begin. `taken` says that the token took this value from this
    /// process before.
    pub(super) fn may_begin(&self, pin: &[u8], taken: bool) -> Result<Noted, Pkcs11Error> {
        let noted = self.read()?;
        match &noted {
            Noted::Refused(verifier) if verifier.fits(pin) => {
                Err(Pkcs11Error::PinRefusedBefore { note: self.path.clone() })
            }
            Noted::TryingAgain(verifier) if !taken && verifier.fits(pin) => {
                Err(Pkcs11Error::LoginUnfinished { note: self.path.clone() })
            }
            Noted::Nothing | Noted::Trying | Noted::TryingAgain(_) | Noted::Refused(_) => Ok(noted),
        }
    }

    /// Notes that a login with this PIN, which may, begins.
    pub(super) fn begin(&self, before: &Noted, pin: &[u8], taken: bool, rng: &dyn Random) -> Result<(), Pkcs11Error> {
        match before {
            Noted::Trying | Noted::TryingAgain(_) if taken => Ok(()),
            Noted::Trying => self.write(&Noted::TryingAgain(PinVerifier::of(pin, rng))),
            Noted::Nothing | Noted::TryingAgain(_) | Noted::Refused(_) => self.write(&Noted::Trying),
        }
    }

    /// Notes that the token did not take the PIN.
    pub(super) fn refused(&self, pin: &[u8], rng: &dyn Random) -> Result<(), Pkcs11Error> {
        self.write(&Noted::Refused(PinVerifier::of(pin, rng)))
    }

    /// Puts back what was noted before a login that did not come to the PIN; nothing once one was taken.
    pub(super) fn write(&self, noted: &Noted) -> Result<(), Pkcs11Error> {
        let written = match noted {
            Noted::Nothing => {
                private_file::remove_if_there(&self.path).and_then(|()| private_file::sync_directory_of(&self.path))
            }
            Noted::Trying | Noted::TryingAgain(_) | Noted::Refused(_) => {
                private_file::replace(&self.path, text(noted).as_bytes())
            }
        };
        written.map_err(Pkcs11Error::note)
    }

    fn read(&self) -> Result<Noted, Pkcs11Error> {
        match private_file::read(&self.path, Link::Refused, FILE_BYTES_MAX) {
            Ok(bytes) => parse(&bytes).ok_or_else(|| Pkcs11Error::NoteDamaged { note: self.path.clone() }),
            Err(SoftwareError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Noted::Nothing)
            }
            Err(error) => Err(Pkcs11Error::note(error)),
        }
    }
}

fn text(noted: &Noted) -> String {
    let state = match noted {
        Noted::Nothing => String::new(),
        Noted::Trying => "trying 1".to_owned(),
        Noted::TryingAgain(verifier) => format!("trying 2 {}", verifier.to_hex()),
        Noted::Refused(verifier) => format!("refused {}", verifier.to_hex()),
    };
    format!("{HEAD}{state}\n")
}

fn parse(bytes: &[u8]) -> Option<Noted> {
    let state = std::str::from_utf8(bytes).ok()?.strip_prefix(HEAD)?.strip_suffix('\n')?;
    if let Some(verifier) = state.strip_prefix("trying 2 ") {
        return PinVerifier::from_hex(verifier).map(Noted::TryingAgain);
    }
    if let Some(verifier) = state.strip_prefix("refused ") {
        return PinVerifier::from_hex(verifier).map(Noted::Refused);
    }
    (state == "trying 1").then_some(Noted::Trying)
}

/// The file's name in the directory of the backend.
pub(super) const FILE_NAME: &str = "pkcs11-login";
const HEAD: &str = "kms1-pkcs11-login 1 ";
const FILE_BYTES_MAX: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noun::random::OsRandom;

    fn place() -> (tempfile::TempDir, LoginNote) {
        let dir = tempfile::tempdir().unwrap();
        let note = LoginNote::of(dir.path());
        (dir, note)
    }

    fn begin(note: &LoginNote, pin: &[u8], taken: bool, rng: &dyn Random) -> Result<Noted, Pkcs11Error> {
        let before = note.may_begin(pin, taken)?;
        note.begin(&before, pin, taken, rng)?;
        Ok(before)
    }

    #[test]
    fn a_refused_pin_is_not_tried_again_and_another_is() {
        let (dir, note) = place();
        let rng = OsRandom::new();
        assert_eq!(begin(&note, b"1234", false, &rng).unwrap(), Noted::Nothing);
        note.refused(b"1234", &rng).unwrap();
        // Also by another process, and also if this one once saw it taken: it was changed on the token since.
        for taken in [false, true] {
            let again = begin(&LoginNote::of(dir.path()), b"1234", taken, &rng);
            assert!(matches!(again, Err(Pkcs11Error::PinRefusedBefore { .. })));
        }
        let file = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert!(!file.contains("1234 ") && file.starts_with("kms1-pkcs11-login 1 refused "));
        assert!(matches!(begin(&note, b"12345", false, &rng).unwrap(), Noted::Refused(_)));
        note.write(&Noted::Nothing).unwrap();
        assert!(!dir.path().join(FILE_NAME).exists());
    }

    #[test]
    fn a_login_that_never_ended_is_made_once_more() {
        let (_dir, note) = place();
        let rng = OsRandom::new();
        begin(&note, b"1234", false, &rng).unwrap();
        assert_eq!(begin(&note, b"1234", false, &rng).unwrap(), Noted::Trying);
        for _ in 0..2 {
            assert!(matches!(begin(&note, b"1234", false, &rng), Err(Pkcs11Error::LoginUnfinished { .. })));
        }
        // Another value begins anew.
        begin(&note, b"4321", false, &rng).unwrap();
        assert_eq!(note.read().unwrap(), Noted::Trying);
    }

    #[test]
    fn a_token_that_hangs_shuts_no_known_pin_out() {
        let (_dir, note) = place();
        let rng = OsRandom::new();
        for _ in 0..5 {
            begin(&note, b"1234", true, &rng).unwrap();
        }
        assert_eq!(note.read().unwrap(), Noted::Trying, "the next process has one try left, and knows nothing");
    }

    #[test]
    fn a_note_that_is_none_is_a_reason_for_no_login() {
        let (dir, note) = place();
        let rng = OsRandom::new();
        let verifier = PinVerifier::of(b"1234", &rng);
        for noted in [Noted::Trying, Noted::TryingAgain(verifier.clone()), Noted::Refused(verifier.clone())] {
            let written = text(&noted);
            assert!(written.len() <= FILE_BYTES_MAX);
            assert_eq!(parse(written.as_bytes()), Some(noted));
        }
        let refused = text(&Noted::Refused(verifier));
        let path = dir.path().join(FILE_NAME);
        for bad in [
            "",
            "\n",
            "kms1-pkcs11-login 1 trying 1",
            "kms1-pkcs11-login 1 trying 3\n",
            &refused[..60],
            &refused.repeat(2),
        ] {
            private_file::replace(&path, bad.as_bytes()).unwrap();
            let begun = begin(&note, b"1234", true, &rng);
            assert!(matches!(begun, Err(Pkcs11Error::NoteDamaged { .. })), "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(begin(&note, b"1234", false, &rng).is_err());
    }
}
