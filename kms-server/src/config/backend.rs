//! Which backend holds the master key: the settings of each, put together.

use std::path::Path;

use super::draft::Draft;
use super::{INVARIANT, SETTINGS, Setting};
use crate::backend::{AwsKmsSettings, BackendKind, Pkcs11Mechanism, Pkcs11Settings};
use crate::crypto::keystore_file::PinCost;

/// Which backend, and its settings. Those of the others must not be there: somebody believes in them.
pub(super) fn backend_kind(draft: &mut Draft, data_dir: &Path) -> BackendKind {
    let pin_file = draft.path("backend.pin_file").unwrap_or_else(|| data_dir.join("pin"));
    let kind = draft.text("backend.kind").expect(INVARIANT);
    for (prefix, owner) in [("backend.aws_", "aws-kms"), ("backend.pkcs11_", "pkcs11")] {
        if kind == owner {
            continue;
        }
        let strays = SETTINGS.iter().map(Setting::full_name).filter(|name| name.starts_with(prefix));
        for name in strays.filter(|name| draft.is_set(name)).collect::<Vec<_>>() {
            let why = format!("it is a setting of the backend {owner}, and backend.kind is {kind}");
            draft.contradiction(
                &name,
                format!("{name} is set"),
                &why,
                &format!("remove it, or set backend.kind to {owner}"),
            );
        }
    }
    match kind.as_str() {
        "aws-kms" => BackendKind::AwsKms(AwsKmsSettings {
            region: draft.text("backend.aws_region"),
            endpoint_url: draft.text("backend.aws_endpoint_url"),
            roll_role_arn: draft.text("backend.aws_roll_role_arn"),
            key_arn: draft.text("backend.aws_key_arn"),
            deletion_days: draft
                .integer("backend.aws_deletion_days")
                .and_then(|days| u32::try_from(days).ok())
                .unwrap_or(7),
        }),
        "pkcs11" => {
            for name in ["backend.pkcs11_module", "backend.pkcs11_token"] {
                if draft.is_missing(name) {
                    let why = "a token is found by its module and its label";
                    draft.contradiction("backend.kind", format!("{name} is not set"), why, &format!("set {name}"));
                }
            }
            BackendKind::Pkcs11(Pkcs11Settings {
                module: draft.path("backend.pkcs11_module").unwrap_or_default(),
                token: draft.text("backend.pkcs11_token").unwrap_or_default(),
                pin_file,
                mechanism: match draft.text("backend.pkcs11_mechanism").as_deref() {
                    Some("aes-gcm") => Pkcs11Mechanism::AesGcm,
                    Some("aes-cbc-pad") => Pkcs11Mechanism::AesCbcPad,
                    Some(_) | None => Pkcs11Mechanism::Auto,
                },
            })
        }
        _ => {
            let memory_kib = draft.integer("backend.pin_memory_kib").and_then(|kib| u32::try_from(kib).ok());
            let pin_cost = PinCost { memory_kib: memory_kib.expect(INVARIANT), ..PinCost::DEFAULT };
            BackendKind::Software { pin_file, pin_cost }
        }
    }
}
