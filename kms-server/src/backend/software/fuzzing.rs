//! What fuzzing calls of the software HSM.

use super::keystore_dir::VersionName;
use crate::backend::MasterKeyRef;

/// A reference to a version of the master key, as a row of the store has it: the name of a file.
pub(crate) fn master_key_ref(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match VersionName::parse(&MasterKeyRef(text.to_owned())) {
        Ok(name) => {
            assert_eq!(name.reference().0, text, "it is written in one way only");
            assert!(!text.contains(['/', '\0']) && !text.starts_with('.'), "it leads out of the directory");
        }
        Err(error) => drop(error.to_string()),
    }
}
