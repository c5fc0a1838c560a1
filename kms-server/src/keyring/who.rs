//! On whose behalf something is done: what every leaf about it carries.

use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::Leaf;

/// Who asked, from where, and which rule allowed it.
#[derive(Clone, Debug)]
pub struct Who {
    /// The principal, if one was identified.
    pub sub: Option<Arc<str>>,
    /// How that was shown, where the principal alone does not say it: by whom a token was presented.
    pub shown: Option<Arc<str>>,
    /// The peer's address; none for what the service does by itself.
    pub net: Option<IpAddr>,
    /// The request's id.
    pub rid: Option<Arc<str>>,
    /// The binding or policy that decided.
    pub rule: Option<Arc<str>>,
}

impl Who {
    /// What the service does by itself, such as a destruction at its date.
    pub fn service() -> Self {
        Self { sub: Some("kms-server".into()), shown: None, net: None, rid: None, rule: None }
    }

    /// Writes it into a leaf.
    pub fn sign(&self, mut leaf: Leaf) -> Leaf {
        leaf.sub = self.sub.as_deref().map(|sub| sub.to_owned().into());
        if let Some(shown) = &self.shown {
            let both = leaf.ev.map_or_else(|| shown.to_string(), |evidence| format!("{shown}; {evidence}"));
            leaf.ev = Some(both.into());
        }
        leaf.net = self.net.map(|net| net.to_string().into());
        leaf.rid = self.rid.as_deref().map(|rid| rid.to_owned().into());
        leaf.rule = self.rule.as_deref().map(|rule| rule.to_owned().into());
        leaf
    }
}
