//! What to do about each reason of the API: one line, with the command to type where there is one.

use kms_client::{IndexRef, KeyRef, TenantRef, VersionNumber};
use kms_proto::v1::ErrorReason;

/// What a command was about.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    tenant: Option<TenantRef>,
    key: Option<KeyRef>,
    version: Option<VersionNumber>,
    index: Option<IndexRef>,
}

impl Subject {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn tenant(tenant: &TenantRef) -> Self {
        Self { tenant: Some(tenant.clone()), ..Self::default() }
    }

    pub fn key(key: &KeyRef) -> Self {
        Self { tenant: Some(key.tenant().clone()), key: Some(key.clone()), ..Self::default() }
    }

    pub fn index(index: &IndexRef) -> Self {
        Self { tenant: Some(index.tenant().clone()), index: Some(index.clone()), ..Self::default() }
    }

    #[must_use]
    pub fn version(self, version: Option<VersionNumber>) -> Self {
        Self { version, ..self }
    }
}

/// Returns what to do.
pub fn of(reason: ErrorReason, operation: Option<&str>, subject: &Subject) -> String {
    let tenant = subject.tenant.as_ref().map_or("TENANT".to_owned(), |tenant| tenant.tenant().to_owned());
    let key = subject.key.as_ref().map_or("KEY".to_owned(), KeyRef::to_string);
    let version = subject.version.map_or("N".to_owned(), |version| version.to_string());
    match reason {
        ErrorReason::FieldInvalid => {
            "the message names the field; `--help` of the command says what it takes".to_owned()
        }
        ErrorReason::ContextInvalid if operation.map(action_of) == Some("ReEncrypt") => {
            "at most 32 pairs and 8,192 bytes with the aad; a wrapped data key may not go to another context".to_owned()
        }
        ErrorReason::ContextInvalid => {
            "at most 32 pairs and 8,192 bytes with the aad; names have 1 to 256 bytes and do not begin with `kms1`"
                .to_owned()
        }
        ErrorReason::PlaintextTooLarge => {
            format!("64 KiB is the most: for more, `kms data-key generate --key {key}` and seal on your side")
        }
        ErrorReason::PurposeNotSupported => format!(
            "`kms key get {key}` shows its purpose: `encrypt` is for values and portable data keys, `managed` for \
             `kms data-key create`, `mac` for `kms mac`"
        ),
        ErrorReason::WrongKind => {
            "`kms decrypt` opens what `kms encrypt` sealed, `kms data-key decrypt` unwraps data keys, `kms mac verify` \
             takes what `kms mac generate` made"
                .to_owned()
        }
        ErrorReason::DecryptFailed => {
            "same key, context and aad as when it was encrypted? operators find the exact cause in the audit record"
                .to_owned()
        }
        ErrorReason::PageTokenInvalid => "list again without --page-token".to_owned(),
        ErrorReason::RequestIdReused => {
            "every intended change needs an id of its own: leave --request-id away, or choose another".to_owned()
        }
        ErrorReason::EtagMismatch => {
            "somebody changed it since: look at it again, and repeat the command if it is still what you want"
                .to_owned()
        }
        ErrorReason::NoIdentity => {
            "the server knows callers by the one spiffe:// URI in their certificate: is cert_file the right one?"
                .to_owned()
        }
        ErrorReason::PolicyDenied => {
            let action = operation.map_or("this", action_of);
            let what = subject.key.as_ref().map(KeyRef::to_string);
            let what = what.or(subject.index.as_ref().map(IndexRef::to_string));
            let what = what.or(subject.tenant.as_ref().map(TenantRef::to_string)).unwrap_or("this server".to_owned());
            let (roles, explain) = (roles_of(action), explained(action, subject));
            let asked = match (granted_role_of(action), &subject.tenant) {
                (Some(role), Some(tenant)) => format!(
                    "staff asks a second person for it by `kms grant request --role {role} --tenant {} --reason WHY --for \
                     1h`; else ",
                    tenant.tenant()
                ),
                _ => String::new(),
            };
            format!(
                "no binding of yours allows {action} on {what} (`kms whoami` lists them): {asked}an operator adds a binding with \
                 the role {roles} to the server's bindings file and has it read by `kms operator reload`; `{explain}` says \
                 what is missing"
            )
        }
        ErrorReason::TenantNotFound => format!("`kms tenant list` shows all, `kms tenant create {tenant}` creates it"),
        ErrorReason::KeyNotFound => {
            format!("`kms key list --tenant {tenant}` shows all, `kms key create {key}` creates it")
        }
        ErrorReason::VersionNotFound => format!("`kms key versions {key}` shows all"),
        ErrorReason::TenantAlreadyExists => format!("`kms tenant get {tenant}` shows it"),
        ErrorReason::KeyAlreadyExists => format!("`kms key get {key}` shows it"),
        ErrorReason::NameWasDestroyed => "the name of what was destroyed is never used again: take another".to_owned(),
        ErrorReason::TenantSuspended => format!("`kms tenant resume {tenant}` lets it work again"),
        ErrorReason::TenantPendingDestruction => {
            format!("`kms tenant cancel-destruction {tenant}` takes it back until its date")
        }
        ErrorReason::TenantDestroyed => {
            format!("this is final; `kms tenant get {tenant}` shows how far the destruction has come")
        }
        ErrorReason::KeyDisabled => format!("`kms key enable {key}` enables it"),
        ErrorReason::KeyPendingDestruction => {
            format!("`kms key cancel-destruction {key}` takes it back until its date")
        }
        ErrorReason::KeyDestroyed => "this is final: what was encrypted with it cannot be opened again".to_owned(),
        ErrorReason::VersionDisabled => {
            format!("`kms key enable {key} --version {version}` enables it; `kms key versions {key}` shows which")
        }
        ErrorReason::VersionPendingDestruction => {
            format!("`kms key cancel-destruction {key} --version {version}` takes it back until its date")
        }
        ErrorReason::VersionDestroyed => {
            "this is final: what was encrypted under this version cannot be opened again".to_owned()
        }
        ErrorReason::StateConflict => match &subject.key {
            Some(_) => format!("`kms key get {key}` and `kms key versions {key}` show the states as they are"),
            None => format!("`kms tenant get {tenant}` shows the state as it is"),
        },
        ErrorReason::VersionsExhausted => "create another key, and `kms re-encrypt --to-key` to it".to_owned(),
        ErrorReason::WaitTooShort => {
            "give a longer --wait; the shortest is the server's setting destruction.wait_min; less takes a second person: \
             --request-approval REASON"
                .to_owned()
        }
        ErrorReason::WaitTooLong => "give a shorter --wait; 365d is the longest".to_owned(),
        ErrorReason::Conflict => "nothing was done: look again, then repeat".to_owned(),
        ErrorReason::MessageTooLarge => "4 MiB is the most for one request, and for its answer".to_owned(),
        ErrorReason::MessageInvalid | ErrorReason::MethodUnknown => {
            "are client and server of the same version, and is it the right address? `kms --version`, `kms status`"
                .to_owned()
        }
        ErrorReason::Deadline => {
            "a change may still have been carried out: look before repeating; --timeout allows more time".to_owned()
        }
        ErrorReason::Overloaded | ErrorReason::CacheFull => "nothing was done: try again a little later".to_owned(),
        ErrorReason::ShuttingDown => "nothing was done: try again when it has restarted".to_owned(),
        ErrorReason::AuditUnavailable => {
            "nothing is answered that cannot be recorded: operators look at `kms status` and at the disk of the audit \
             log"
            .to_owned()
        }
        ErrorReason::StoreUnavailable => "operators look at `kms status` and at the server's log".to_owned(),
        ErrorReason::BackendUnavailable => "operators look at `kms status` and at what holds the master key".to_owned(),
        ErrorReason::DataKeyNotFound => {
            format!("`kms data-key list --key {key}` shows all, to whoever has the role `auditor`")
        }
        ErrorReason::DataKeyDestroyed => {
            "this is final: what was sealed with this data key cannot be opened again".to_owned()
        }
        ErrorReason::MacInvalid => "same message, key, context and aad as when it was made?".to_owned(),
        ErrorReason::VersionInUse => format!(
            "`kms key versions {key}` shows how many data keys each version wraps; after `kms key rotate` the server moves \
             them to the new one: try again when none is left"
        ),
        ErrorReason::Locked => {
            "it wiped its keys: it serves again when its master key backend gives them back, or after `kms operator \
             unlock`; the server's log says why it was locked"
                .to_owned()
        }
        ErrorReason::ApprovalRequired => {
            "nothing was done: repeat it with --request-approval REASON, which asks a second person, and without once that \
             one has approved it"
                .to_owned()
        }
        ErrorReason::ExportNotSupported => {
            "what holds the master key makes copies by its own means, if at all".to_owned()
        }
        ErrorReason::TokenInvalid => {
            "get a new token from its issuer; issuers, audiences and algorithms are the server's [[issuer]] settings"
                .to_owned()
        }
        ErrorReason::RateLimited => "nothing was done: try again a little later, or ask for a higher limit".to_owned(),
        ErrorReason::FanOutExceeded => {
            "the binding reaches no more tenants for now; if that is no misuse, its `fan_out` is too small".to_owned()
        }
        ErrorReason::GrantNotFound => format!("`{}` shows those of the last 30 days", grants_of(subject)),
        ErrorReason::GrantState => format!(
            "`{}` shows the states: where it is over ask for a new one, where too many wait `kms grant revoke` some of yours",
            grants_of(subject)
        ),
        ErrorReason::SecondPersonRequired => {
            "two persons are needed: somebody else with the role `approver` must approve what you asked for".to_owned()
        }
        ErrorReason::ReloadFailed => {
            "mend the file that it names, and try again: the server goes on as before".to_owned()
        }
        ErrorReason::GrantChanged => {
            "nothing was approved: `kms grant get` shows what it is for, and the hash of that".to_owned()
        }
        ErrorReason::Unspecified | ErrorReason::Internal => {
            "tell the operators the request's id: the server's log says more".to_owned()
        }
    }
}

/// Returns the command that lists the grants in question.
fn grants_of(subject: &Subject) -> String {
    match &subject.tenant {
        Some(tenant) => format!("kms grant list --tenant {}", tenant.tenant()),
        None => "kms grant list --cluster".to_owned(),
    }
}

/// Returns the command that explains why an action is refused.
fn explained(action: &str, subject: &Subject) -> String {
    let what = match (&subject.key, &subject.index, &subject.tenant) {
        (Some(key), _, _) => format!("--key {key}"),
        (None, Some(index), _) => format!("--index {index}"),
        (None, None, Some(tenant)) => format!("--tenant {}", tenant.tenant()),
        (None, None, None) => "--cluster".to_owned(),
    };
    format!("kms policy explain --action {action} {what}")
}

/// Returns the action that policies know of a call: of a batch, that of its single form.
fn action_of(operation: &str) -> &str {
    match operation {
        "BatchEncrypt" => "Encrypt",
        "BatchDecrypt" => "Decrypt",
        "BatchReEncrypt" => "ReEncrypt",
        "BatchGenerateDataKeys" => "GenerateDataKey",
        "BatchDecryptDataKeys" => "DecryptDataKey",
        "BatchCreateDataKeys" => "CreateDataKey",
        "BatchGetDataKeys" => "GetDataKey",
        "BatchDestroyDataKeys" => "DestroyDataKey",
        "BatchGenerateMacs" => "GenerateMac",
        "BatchVerifyMacs" => "VerifyMac",
        single => single,
    }
}

/// Returns which of the shipped roles may do what an action does.
fn roles_of(action: &str) -> &'static str {
    match action {
        "Encrypt" | "GenerateDataKey" | "CreateDataKey" | "GenerateMac" => "`encrypter`",
        "Decrypt" | "DecryptDataKey" | "GetDataKey" | "VerifyMac" => "`decrypter`",
        "GetIndexKey" => "`encrypter` or `decrypter`, and the index in its `indexes`,",
        "ReEncrypt" => "`reencrypter` (to another key or context: `decrypter` there, `encrypter` here)",
        "GetTenant" => "`tenant-admin`, `key-admin` or `auditor`",
        "ListTenants" => "`tenant-admin` or `auditor`, for all tenants,",
        "GetKey" | "ListKeys" | "ListKeyVersions" => "`key-admin` or `auditor`",
        "ListDataKeys" => "`auditor`",
        "DestroyDataKey" => "`eraser` or `key-admin`",
        "GetStatus" | "Lock" | "Unlock" | "ExportKeystore" | "Reload" => "`operator`",
        "RequestGrant" => "`staff`",
        "ApproveGrant" => "`approver`",
        "RevokeGrant" => "`approver`, `tenant-admin` or `staff`",
        "GetGrant" | "ListGrants" => "`staff`, `approver`, `tenant-admin` or `auditor`",
        "TestPermissions" => "`auditor`, for all tenants,",
        _ if action.contains("Tenant") => "`tenant-admin`",
        _ => "`key-admin`",
    }
}

/// Returns the least role that may do what an action does and can be had in a tenant by a grant. For staff, who see
/// production case by case.
fn granted_role_of(action: &str) -> Option<&'static str> {
    match action {
        "Encrypt" | "GenerateDataKey" | "CreateDataKey" | "GenerateMac" => Some("encrypter"),
        "Decrypt" | "DecryptDataKey" | "GetDataKey" | "VerifyMac" => Some("decrypter"),
        "ReEncrypt" => Some("reencrypter"),
        "GetTenant" | "GetKey" | "ListKeys" | "ListKeyVersions" | "ListDataKeys" => Some("auditor"),
        "UpdateTenant" | "SuspendTenant" | "ResumeTenant" | "DestroyTenant" | "CancelTenantDestruction" => {
            Some("tenant-admin")
        }
        "CreateKey"
        | "UpdateKey"
        | "EnableKey"
        | "DisableKey"
        | "RotateKey"
        | "ScheduleKeyDestruction"
        | "CancelKeyDestruction" => Some("key-admin"),
        // DestroyDataKey, which no grant gives; the cluster's, index keys, what is about grants, and a tenant that is yet to be.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons() -> Vec<ErrorReason> {
        (1..).map_while(|number| ErrorReason::try_from(number).ok()).collect()
    }

    #[test]
    fn every_reason_has_a_hint_of_one_line_without_a_full_stop() {
        // The compiler holds `of` to all of them; this, that the list has no hole.
        assert_eq!(reasons().len(), 57, "is the hint of the new reason what a person needs?");
        for reason in reasons() {
            for operation in [None, Some("Encrypt"), Some("ReEncrypt"), Some("ListTenants")] {
                let hint = of(reason, operation, &Subject::none());
                assert!(hint.len() > 15 && !hint.contains('\n') && !hint.ends_with('.'), "{reason:?}: {hint}");
            }
        }
    }

    #[test]
    fn a_hint_names_what_the_command_was_about() {
        let key = Subject::key(&KeyRef::new("acme", "app").unwrap());
        assert_eq!(of(ErrorReason::KeyDisabled, None, &key), "`kms key enable tenants/acme/keys/app` enables it");
        let version = key.clone().version(Some(VersionNumber::new(3).unwrap()));
        assert!(of(ErrorReason::VersionDisabled, None, &version).contains("tenants/acme/keys/app --version 3"));
        let tenant = Subject::tenant(&TenantRef::new("acme").unwrap());
        assert_eq!(of(ErrorReason::TenantSuspended, None, &tenant), "`kms tenant resume acme` lets it work again");
        assert_eq!(
            of(ErrorReason::PolicyDenied, Some("Encrypt"), &key),
            "no binding of yours allows Encrypt on tenants/acme/keys/app (`kms whoami` lists them): staff asks a second \
             person for it by `kms grant request --role encrypter --tenant acme --reason WHY --for 1h`; else an operator \
             adds a binding with the role `encrypter` to the server's bindings file and has it read by `kms operator reload`; \
             `kms policy explain --action Encrypt --key tenants/acme/keys/app` says what is missing"
        );
        assert!(of(ErrorReason::GrantNotFound, None, &tenant).contains("`kms grant list --tenant acme`"));
        assert!(of(ErrorReason::GrantState, None, &Subject::none()).contains("`kms grant list --cluster`"));
    }

    #[test]
    fn a_batch_is_refused_and_permitted_as_its_single_form() {
        let index = Subject::index(&IndexRef::new("acme", "email").unwrap());
        let hint = of(ErrorReason::PolicyDenied, Some("GetIndexKey"), &index);
        assert!(hint.contains("GetIndexKey on tenants/acme/indexes/email") && hint.contains("`indexes`"), "{hint}");
        let hint = of(ErrorReason::PolicyDenied, Some("BatchEncrypt"), &Subject::none());
        assert!(hint.contains("allows Encrypt on"), "{hint}");
    }

    #[test]
    fn a_grant_is_proposed_only_where_one_can_be_had() {
        let tenant = Subject::tenant(&TenantRef::new("acme").unwrap());
        let proposes = |action: &str, subject: &Subject| {
            of(ErrorReason::PolicyDenied, Some(action), subject).contains("kms grant request")
        };
        for action in ["BatchDecrypt", "DestroyTenant", "GetTenant", "ScheduleKeyDestruction", "ListKeys"] {
            assert!(proposes(action, &tenant) && !proposes(action, &Subject::none()), "{action}");
        }
        for action in ["RequestGrant", "ApproveGrant", "GetIndexKey", "ListTenants", "CreateTenant", "Lock", "Reload"] {
            assert!(!proposes(action, &tenant), "{action}");
        }
        let hint = of(ErrorReason::PolicyDenied, Some("ApproveGrant"), &Subject::none());
        assert!(hint.contains("the role `approver` to") && hint.contains("--action ApproveGrant --cluster`"), "{hint}");
    }

    #[test]
    fn every_call_has_a_role() {
        assert_eq!(roles_of("Reload"), "`operator`");
        assert_eq!(roles_of("ApproveGrant"), "`approver`");
        assert_eq!(roles_of("DestroyTenant"), "`tenant-admin`");
        assert_eq!(roles_of("ScheduleKeyDestruction"), "`key-admin`");
        assert_eq!(roles_of("DecryptDataKey"), "`decrypter`");
        assert_eq!(roles_of(action_of("BatchGetDataKeys")), "`decrypter`");
        assert_eq!(roles_of(action_of("BatchDestroyDataKeys")), "`eraser` or `key-admin`");
    }
}
