//! What is wrong with a policy.

use crate::mistake::Mistake;

/// A policy that is not taken. The one in force stays.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// The file of bindings has a mistake.
    #[error(transparent)]
    Bindings(Box<Mistake>),
    /// A file of own policies has a mistake.
    #[error(transparent)]
    Own(Box<Mistake>),
    /// The templates that we ship do not fit the schema that we ship: a fault of this build.
    #[error("shipped permission templates: {0}")]
    Templates(String),
}
