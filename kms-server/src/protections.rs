//! What the process does for the keys in it beside locking their memory: it leaves no core dump, cannot be read or traced
//! by other processes of its user, and gains no rights by running another program.
//!
//! Not here: the memory itself, which is `crypto::arena`'s.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

/// What was switched on, and what was not.
#[derive(Clone, Debug)]
pub struct Protections {
    on: Vec<&'static str>,
    off: Vec<String>,
}

impl Protections {
    /// Switches on all that the system gives. To be called before there are threads: each inherits from the one that
    /// made it. What cannot be switched on is told and no reason not to serve: it is a second line behind the file modes
    /// and the user of its own.
    pub fn switch_on() -> Self {
        let mut all = Self { on: Vec::new(), off: Vec::new() };
        // The limit alone is not enough: a core_pattern that begins with a pipe gets its dump whatever the limit is.
        all.note("no core dumps", setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }));
        all.note("not dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable));
        all.note("no new privileges", set_no_new_privs(true));
        all
    }

    fn note(&mut self, what: &'static str, switched: rustix::io::Result<()>) {
        match switched {
            Ok(()) => self.on.push(what),
            Err(error) => self.off.push(format!("{what} could not be switched on: {error}")),
        }
    }

    /// Says in one line what is on, with how the keys' memory is protected, and what is not and why.
    pub fn describe(&self, memory: &str) -> String {
        let on = self.on.iter().copied().map(str::to_owned);
        let all: Vec<String> = on.chain([format!("keys in {memory}")]).chain(self.off.iter().cloned()).collect();
        format!("protections: {}", all.join(", "))
    }

    /// Returns what an operator should look at.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.off
            .iter()
            .map(|off| format!("{off}: the daemon serves, but keys are less well kept; ask who runs the system why"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_switched_on_is_told_and_warned_of() {
        let mut protections = Protections { on: Vec::new(), off: Vec::new() };
        protections.note("no core dumps", Ok(()));
        protections.note("not dumpable", Err(rustix::io::Errno::PERM));
        let told = protections.describe("memfd_secret");
        assert!(
            told.starts_with("protections: no core dumps, keys in memfd_secret, not dumpable could not be"),
            "{told}"
        );
        let warnings: Vec<String> = protections.warnings().collect();
        assert!(warnings.len() == 1 && warnings[0].contains("not dumpable"), "{warnings:?}");
    }
}
