//! What the record of a use of a key says beside who, when and how it ended.

use crate::audit::Leaf;
use crate::crypto::ContextHash;
use crate::crypto::chain::commitment_of;
use crate::keyring::{InUse, KeyInUse};

/// Says which key version was used on which blob, in which context.
pub(super) fn key_leaf(in_use: &InUse, key: &KeyInUse, context: &ContextHash, blob: &[u8]) -> Leaf {
    Leaf {
        tuid: Some(in_use.tenant_uid().to_string().into()),
        key: Some(key.uid().to_string().into()),
        kv: Some(key.version().get()),
        bid: commitment_of(blob).map(|commitment| hex::encode(&commitment[..16]).into()),
        ctx: Some(hex::encode(in_use.context_in_log(context)).into()),
        ..Leaf::default()
    }
}
