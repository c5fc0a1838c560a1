//! The lives of tenants and keys: which change of state is legal. One table each.
//!
//! Cancelling a destruction never gives the use of a key back by itself: a tenant lands in
//! SUSPENDED, a key in DISABLED. FENCED and DESTROYED are for ever.

use std::fmt;

use crate::rows;

use super::Error;

macro_rules! states {
    ($(#[$doc:meta])* $State:ident, $Row:ident, $what:literal, { $($(#[doc = $text:literal])+ $Variant:ident = $shown:literal,)* }, $legal:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $State {
            $($(#[doc = $text])+ $Variant,)*
        }

        impl $State {
            /// All of them.
            pub const ALL: &'static [$State] = &[$($State::$Variant,)*];

            /// Returns the word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($State::$Variant => $shown,)*
                }
            }

            /// Returns the state after a legal change.
            pub fn to(self, next: $State) -> Result<$State, Error> {
                let legal: &[($State, $State)] = $legal;
                if legal.contains(&(self, next)) {
                    Ok(next)
                } else {
                    Err(Error::Transition { what: $what, from: self.as_str(), to: next.as_str() })
                }
            }

            /// Returns the state as rows have it.
            pub fn to_row(self) -> i32 {
                match self {
                    $($State::$Variant => rows::$Row::$Variant.into(),)*
                }
            }

            /// Reads the state of a row.
            pub fn of_row(row: i32) -> Result<Self, Error> {
                match rows::$Row::try_from(row) {
                    $(Ok(rows::$Row::$Variant) => Ok($State::$Variant),)*
                    Ok(rows::$Row::Unspecified) | Err(_) => Err(Error::Damaged("a state that does not exist")),
                }
            }
        }

        impl fmt::Display for $State {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

states! {
    /// The life of a tenant.
    TenantState, TenantState, "a tenant", {
        /// Seals and opens.
        Active = "active",
        /// Neither seals nor opens, until resumed.
        Suspended = "suspended",
        /// Neither seals nor opens; waits for its date, or to be cancelled.
        PendingDestruction = "pending destruction",
        /// Destroyed: its tenant key is gone from the store and from memory.
        Fenced = "destroyed",
        /// Its tenant key lies in no file of the store.
        Purged = "destroyed and purged",
        /// No old copy of anything opens what it had.
        Unrecoverable = "destroyed and unrecoverable",
    },
    &[
        (TenantState::Active, TenantState::Suspended),
        (TenantState::Suspended, TenantState::Active),
        (TenantState::Active, TenantState::PendingDestruction),
        (TenantState::Suspended, TenantState::PendingDestruction),
        (TenantState::PendingDestruction, TenantState::Suspended),
        (TenantState::Active, TenantState::Fenced),
        (TenantState::Suspended, TenantState::Fenced),
        (TenantState::PendingDestruction, TenantState::Fenced),
        (TenantState::Fenced, TenantState::Purged),
        (TenantState::Purged, TenantState::Unrecoverable),
    ]
}

states! {
    /// The life of a key, and of each of its versions.
    KeyState, KeyState, "a key", {
        /// Seals and opens.
        Enabled = "enabled",
        /// Refuses every use, until enabled.
        Disabled = "disabled",
        /// Refuses every use; waits for its date, or to be cancelled.
        PendingDestruction = "pending destruction",
        /// Its material is gone; the shell stays for ever.
        Destroyed = "destroyed",
    },
    &[
        (KeyState::Enabled, KeyState::Disabled),
        (KeyState::Disabled, KeyState::Enabled),
        (KeyState::Enabled, KeyState::PendingDestruction),
        (KeyState::Disabled, KeyState::PendingDestruction),
        (KeyState::PendingDestruction, KeyState::Disabled),
        (KeyState::Enabled, KeyState::Destroyed),
        (KeyState::Disabled, KeyState::Destroyed),
        (KeyState::PendingDestruction, KeyState::Destroyed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    // The tables as people should review them: a row each, an x where the change is legal.
    const TENANT: &str = "
                            ac su pe fe pu un
active                      .  x  x  x  .  .
suspended                   x  .  x  x  .  .
pending destruction         .  x  .  x  .  .
destroyed                   .  .  .  .  x  .
destroyed and purged        .  .  .  .  .  x
destroyed and unrecoverable .  .  .  .  .  .";

    const KEY: &str = "
                            en di pe de
enabled                     .  x  x  x
disabled                    x  .  x  x
pending destruction         .  x  .  x
destroyed                   .  .  .  .";

    fn drawn<S: Copy + fmt::Display>(all: &[S], legal: impl Fn(S, S) -> bool, head: &str) -> String {
        let mut text = format!("\n{:28}{head}", "");
        for from in all {
            let row: Vec<&str> = all.iter().map(|to| if legal(*from, *to) { "x" } else { "." }).collect();
            text.push_str(&format!("\n{:28}{}", from.to_string(), row.join("  ")));
        }
        text
    }

    #[test]
    fn every_change_of_state_is_as_the_tables_say() {
        assert_eq!(drawn(TenantState::ALL, |from, to| from.to(to).is_ok(), "ac su pe fe pu un"), TENANT);
        assert_eq!(drawn(KeyState::ALL, |from, to| from.to(to).is_ok(), "en di pe de"), KEY);
    }

    #[test]
    fn every_state_survives_its_row() {
        for state in TenantState::ALL {
            assert_eq!(TenantState::of_row(state.to_row()).unwrap(), *state);
        }
        for state in KeyState::ALL {
            assert_eq!(KeyState::of_row(state.to_row()).unwrap(), *state);
        }
        assert!(TenantState::of_row(0).is_err() && KeyState::of_row(99).is_err());
    }
}
