//! What fuzzing calls of the file of bindings.

use super::Policy;
use super::names::{Names, Pattern};
use super::network::Network;

/// The file of bindings.
pub(crate) fn bindings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Policy::load(text, "bindings.toml") {
        // A mistake is shown with its place, which is computed from the text.
        drop(error.to_string());
    }
}

/// A file of own policies.
pub(crate) fn own_policies(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for mistake in super::check(&[("own.cedar", text)], &[]) {
        drop(mistake.to_string());
    }
}

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
