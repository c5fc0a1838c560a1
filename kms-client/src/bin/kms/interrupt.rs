//! Ctrl-C. It ends the command with its own exit code, and says how to go on with a change that was under way.

use std::sync::OnceLock;

use kms_client::RequestId;

use crate::error::Failure;
use crate::exit::Exit;
use crate::output::Output;

/// The change that was asked for. A command asks for one at most.
static CHANGE: OnceLock<RequestId> = OnceLock::new();

/// A change is about to be asked for.
pub fn change_begins(id: &RequestId) {
    // A second one would be told of by the first's id, which is wrong but harms nobody.
    let _ = CHANGE.set(id.clone());
}

/// Waits for Ctrl-C on a thread of its own, since reading a terminal stops the command's.
pub fn watch(mut output: Output) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::other(format!("cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(cannot)?;
    let wait = move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_err() {
            return;
        }
        output.failure(&failure(CHANGE.get()));
        #[expect(
            clippy::disallowed_methods,
            reason = "what is dropped nowhere is the kernel's to wipe, as with any signal"
        )]
        std::process::exit(Exit::Interrupted.code().into());
    };
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(wait).map_err(cannot)?;
    Ok(())
}

fn failure(change: Option<&RequestId>) -> Failure {
    let failure = Failure::interrupted();
    match change {
        Some(id) => failure.hint(format!(
            "the change may have been made: look, or repeat the command with --request-id {id}, which does it once"
        )),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_under_way_can_be_repeated() {
        assert_eq!(failure(None).lines(), "error: interrupted\n");
        let id = "c-1".parse().unwrap();
        assert!(failure(Some(&id)).lines().contains("--request-id c-1"));
        assert_eq!(failure(None).exit.code(), 130);
    }
}
