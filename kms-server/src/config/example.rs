//! The example: a file with every setting, its meaning, bounds and default, made from the table.

use super::table::{Default, IDENTITY, SETTINGS};

/// Returns the example. What must be set, and what has no fixed default, has a value that shows how it is written.
pub fn example() -> String {
    let mut text = format!("{HEAD}\n");
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            text += &format!("\n[{section}]\n");
        }
        let hidden = if matches!(setting.default, Default::ElseHidden(_)) { "# " } else { "" };
        let line = format!("{hidden}{} = {}", setting.name, setting.example());
        let bounds = setting.kind.bounds().map(|bounds| format!("; {bounds}")).unwrap_or_default();
        let must = if matches!(setting.default, Default::Required(_)) { "; must be set" } else { "" };
        text += &format!("{line:COMMENT_AT$} # {}{bounds}{must}\n", setting.meaning);
    }
    text + &IDENTITIES.replace("{identity}", IDENTITY)
}

const HEAD: &str = "# /etc/kms/kms.toml: all settings, with their defaults. A path is relative to this file.";
const COMMENT_AT: usize = 37;
const IDENTITIES: &str = "
# Callers whose certificates have no spiffe:// name; either by DNS name or by common name:
# [[{identity}]]
# dns = \"billing.internal\"
# principal = \"spiffe://example.com/billing\"
# [[{identity}]]
# cn = \"Backup job\"
# principal = \"spiffe://example.com/backup\"
";
