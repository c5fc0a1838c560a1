//! Exit codes, stable for scripts.

use kms_client::ErrorKind;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    Other,
    Usage,
    NotAllowed,
    NotFound,
    Conflict,
    Unavailable,
    /// A batch was carried out, but only for some of its items.
    Partly,
    /// The server wiped its keys, and refuses everybody.
    Locked,
    Interrupted,
    /// Whoever read the output went away. Not a failure: `kms key list | head`.
    PipeClosed,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Ok | Self::PipeClosed => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotAllowed => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Unavailable => 6,
            Self::Partly => 7,
            Self::Locked => 8,
            Self::Interrupted => 130,
        }
    }

    /// Returns how a failure of this kind and reason ends it.
    pub fn of(kind: ErrorKind, reason: Option<&str>) -> Self {
        if kind == ErrorKind::Unavailable && reason == Some("LOCKED") {
            return Self::Locked;
        }
        match kind {
            ErrorKind::Config => Self::Usage,
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => Self::NotAllowed,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::FailedPrecondition | ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Connection | ErrorKind::Tls => {
                Self::Unavailable
            }
            // The kinds are not a closed list: a new one is "other" until it is placed here.
            _ => Self::Other,
        }
    }
}

pub const HELP: &str = "\
Exit codes:
    0  done
    1  another failure; also: a ciphertext does not open, and `kms policy check` found a mistake
    2  the command line or the settings are wrong
    3  not allowed: the server does not know you or refuses your certificate, or no binding allows
       it; for `kms policy explain`: not all of it is allowed
    4  there is nothing of that name
    5  it exists already, it is not in a state that allows this, somebody else changed it, or a
       second person must approve it first
    6  the server cannot be reached or is not the one that you trust, cannot answer now, or took
       too long; for `kms status`: it does not serve
    7  finished, but some of it failed: several data keys were asked for, and not all could be made,
       had or destroyed; if none could, the code is that of the first
    8  the server is locked: it wiped its keys, and refuses every call
  130  interrupted by Ctrl-C
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_code_that_the_help_says() {
        let table = [
            (ErrorKind::InvalidArgument, 1),
            (ErrorKind::Unauthenticated, 3),
            (ErrorKind::PermissionDenied, 3),
            (ErrorKind::NotFound, 4),
            (ErrorKind::AlreadyExists, 5),
            (ErrorKind::FailedPrecondition, 5),
            (ErrorKind::Conflict, 5),
            (ErrorKind::ResourceExhausted, 1),
            (ErrorKind::Unavailable, 6),
            (ErrorKind::DeadlineExceeded, 6),
            (ErrorKind::Internal, 1),
            (ErrorKind::Unimplemented, 1),
            (ErrorKind::Connection, 6),
            (ErrorKind::Tls, 6),
            (ErrorKind::Config, 2),
        ];
        for (kind, code) in table {
            assert_eq!(Exit::of(kind, None).code(), code, "{kind:?}");
            assert!(HELP.contains(&format!("\n    {code}  ")), "{code} is not documented");
        }
        assert!(HELP.contains("\n  130  ") && Exit::Interrupted.code() == 130);
        assert_eq!(Exit::of(ErrorKind::Unavailable, Some("LOCKED")).code(), 8);
        assert!(HELP.contains("\n    7  ") && Exit::Partly.code() == 7);
        assert_eq!((Exit::Ok.code(), Exit::PipeClosed.code(), Exit::Usage.code()), (0, 0, 2));
    }
}
