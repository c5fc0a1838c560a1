//! What fuzzing calls of the file of bindings.

use std::sync::LazyLock;

use cedar_policy::PolicySet;

use super::Policy;
use super::names::{Names, Pattern};
use super::network::Network;
use super::templates::Templates;

/// The file of bindings.
pub(crate) fn bindings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The templates are read once: they cost a thousand times as much as a small file.
    if let Err(error) = Policy::build(text, "bindings.toml", &TEMPLATES, PolicySet::new()) {
        // A mistake is shown with its place, which is computed from the text.
        drop(error.to_string());
    }
}

static TEMPLATES: LazyLock<Templates> = LazyLock::new(|| Templates::shipped().expect("they fit their schema"));

/// An entry of a list of names or of networks.
pub(crate) fn patterns(text: &str) {
    if let Ok(pattern) = text.parse::<Pattern>() {
        assert_eq!(Names::new(vec![pattern]).entries(), [text]);
    }
    if let Ok(network) = text.parse::<Network>() {
        let address = text.split('/').next().and_then(|address| address.parse().ok());
        assert!(address.is_some_and(|address| network.contains(address)), "a network has its own address");
    }
}
