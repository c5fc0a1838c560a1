//! Before something is destroyed, its name is typed: by a person on a terminal, or by whoever wrote the script. Before a grant
//! is approved, the name of what it is about is.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::error::Failure;

#[derive(Debug, Args)]
pub struct Confirm {
    /// Does not ask; for scripts, together with --name
    #[arg(long, requires = "confirmed")]
    yes: bool,
    /// The name of what is to be destroyed, once more
    #[arg(long = "name", id = "confirmed", value_name = "NAME", requires = "yes")]
    confirmed: Option<String>,
}

impl Confirm {
    /// Returns if the name was confirmed: the short one or the full one. `what` says what will happen, and where.
    pub fn check(&self, what: &What<'_>) -> Result<(), Failure> {
        self.check_with(what, can_ask(), &mut io::stdin().lock(), &mut io::stderr().lock())
    }

    fn check_with(
        &self,
        what: &What<'_>,
        can_ask: bool,
        from: &mut dyn BufRead,
        to: &mut dyn Write,
    ) -> Result<(), Failure> {
        let What { effect, short, place, .. } = what;
        let names = [what.short, what.full];
        if self.yes {
            let given = self.confirmed.as_deref().unwrap_or_default();
            if names.contains(&given) {
                return Ok(());
            }
            return Err(Failure::usage(format!("--name says {given:?}, but this would destroy {short:?}"))
                .hint(format!("nothing was done, on {place}")));
        }
        if !can_ask {
            return Err(Failure::usage("destroying asks for the name, and there is no terminal to ask on")
                .hint(format!("in a script, give --yes --name {short}; it is destroyed on {place}")));
        }
        if names.contains(&&*ask(&format!("{effect}\nThis is on {place}. Type {short} to go on: "), from, to)?) {
            return Ok(());
        }
        Err(Failure::other("the name was not typed: nothing was done"))
    }
}

/// Returns the line that is typed, without the spaces around it.
fn ask(question: &str, from: &mut dyn BufRead, to: &mut dyn Write) -> Result<String, Failure> {
    let unreadable = |error: io::Error| Failure::other(format!("cannot ask: {error}"));
    to.write_all(question.as_bytes()).and_then(|()| to.flush()).map_err(unreadable)?;
    let mut typed = String::new();
    io::Read::take(from, TYPED_BYTES_MAX).read_line(&mut typed).map_err(unreadable)?;
    Ok(typed.trim().to_owned())
}

/// Returns whether somebody can be asked, and would see it.
fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What is to be approved.
pub struct Approval<'a> {
    /// Who asks for what, and why, in sentences that move no cursor.
    pub asks: &'a str,
    /// The last part of the name of what it is about.
    pub short: &'a str,
    /// The server and the profile.
    pub place: &'a str,
}

/// Returns if what is to be approved was confirmed on a terminal.
pub fn approval(what: &Approval<'_>) -> Result<(), Failure> {
    approval_with(what, can_ask(), &mut io::stdin().lock(), &mut io::stderr().lock())
}

fn approval_with(
    what: &Approval<'_>,
    can_ask: bool,
    from: &mut dyn BufRead,
    to: &mut dyn Write,
) -> Result<(), Failure> {
    let Approval { asks, short, place } = what;
    if !can_ask {
        return Err(Failure::usage("approving asks on a terminal, and there is none").hint(
            "in a script, give --yes, and --content-hash with what `kms grant get --field contentHash` showed to whoever \
             decided",
        ));
    }
    if ask(&format!("{asks}\nThis is on {place}. Type {short} to approve it: "), from, to)? == *short {
        return Ok(());
    }
    Err(Failure::other("the name was not typed: nothing was approved"))
}

/// What is to be destroyed.
pub struct What<'a> {
    /// What will happen, in sentences.
    pub effect: &'a str,
    /// The last part of its name.
    pub short: &'a str,
    /// Its name.
    pub full: &'a str,
    /// The server and the profile.
    pub place: &'a str,
}

/// Says when a destruction takes effect.
pub fn when(wait: Option<Duration>) -> String {
    match wait {
        Some(wait) if wait.is_zero() => "now, without a wait".to_owned(),
        Some(wait) => format!("after {}", duration::text(wait)),
        None => "after the server's default wait".to_owned(),
    }
}

const TYPED_BYTES_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    const WHAT: What<'_> = What {
        effect: "This destroys acme.",
        short: "acme",
        full: "tenants/acme",
        place: "https://kms:1 (profile prod)",
    };

    fn ask(name: Option<&str>, can_ask: bool, typed: &str) -> (Result<(), Failure>, String) {
        let confirm = Confirm { yes: name.is_some(), confirmed: name.map(str::to_owned) };
        let mut asked = Vec::new();
        let result = confirm.check_with(&WHAT, can_ask, &mut typed.as_bytes(), &mut asked);
        (result, String::from_utf8(asked).unwrap())
    }

    #[test]
    fn on_a_terminal_the_name_is_typed() {
        let (result, asked) = ask(None, true, "acme\n");
        result.unwrap();
        assert_eq!(asked, "This destroys acme.\nThis is on https://kms:1 (profile prod). Type acme to go on: ");
        ask(None, true, "tenants/acme\r\n").0.unwrap();
        for typed in ["", "\n", "y\n", "yes\n", "Acme\n", "acme2\n"] {
            assert_eq!(ask(None, true, typed).0.unwrap_err().exit, Exit::Other, "{typed:?}");
        }
    }

    #[test]
    fn without_a_terminal_it_says_which_flags_to_give_and_reads_nothing() {
        let (result, asked) = ask(None, false, "acme\n");
        assert!(result.unwrap_err().lines().contains("--yes --name acme"));
        assert_eq!(asked, "");
    }

    #[test]
    fn a_grant_is_approved_by_typing_what_it_is_about() {
        let what = Approval {
            asks: "alice asks to destroy tenants/acme.\nReason: 4711",
            short: "acme",
            place: "https://kms:1",
        };
        let approve = |can_ask, typed: &str| {
            let mut asked = Vec::new();
            let result = approval_with(&what, can_ask, &mut typed.as_bytes(), &mut asked);
            (result, String::from_utf8(asked).unwrap())
        };
        let (result, asked) = approve(true, "acme\n");
        result.unwrap();
        assert_eq!(
            asked,
            "alice asks to destroy tenants/acme.\nReason: 4711\nThis is on https://kms:1. Type acme to approve it: "
        );
        for typed in ["", "\n", "y\n", "yes\n", "tenants/acme\n", "ACME\n"] {
            assert_eq!(approve(true, typed).0.unwrap_err().exit, Exit::Other, "{typed:?}");
        }
        let (result, asked) = approve(false, "acme\n");
        let failure = result.unwrap_err();
        assert_eq!((failure.exit, asked.as_str()), (Exit::Usage, ""));
        assert!(failure.lines().contains("--yes"));
    }

    #[test]
    fn in_a_script_the_name_must_be_right() {
        assert!(ask(Some("acme"), false, "").0.is_ok() && ask(Some("tenants/acme"), true, "").0.is_ok());
        for wrong in ["", "other", "ACME"] {
            assert_eq!(ask(Some(wrong), true, "acme\n").0.unwrap_err().exit, Exit::Usage);
        }
    }
}
