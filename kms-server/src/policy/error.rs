//! What is wrong with a policy.

use crate::mistake::Mistake;

/// A policy that is not taken. The one in force stays.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// The file of bindings has a mistake.
    #[error(transparent)]
    Bindings(Box<Mistake>),
    /// The templates that we ship do not fit the schema that we ship: a fault of this build.
    #[error("shipped permission templates: {0}")]
    Templates(String),
}

impl From<Mistake> for PolicyError {
    fn from(mistake: Mistake) -> Self {
        Self::Bindings(Box::new(mistake))
    }
}
