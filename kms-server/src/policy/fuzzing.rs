//! What fuzzing calls of a binding's lists.

use super::names::{Names, Pattern};
use super::network::Network;

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
