//! What the settings are, and where each came from.

use super::draft::{Draft, Origin};
use super::table::{Default, LISTS, SETTINGS};

/// A setting, for people and programs.
#[derive(Debug, serde::Serialize)]
pub struct Shown {
    /// Its whole name.
    pub name: String,
    /// Its value as TOML; nothing where nobody set it and it has no fixed default.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: String,
}

/// Returns all settings. No secret is among them: a setting names the file that has it.
pub fn show(draft: &Draft) -> Vec<Shown> {
    let mut all: Vec<Shown> = SETTINGS
        .iter()
        .map(|setting| {
            let name = setting.full_name();
            match draft.found.get(&name) {
                Some(found) => {
                    let origin = match &found.origin {
                        Origin::Flag(flag) => format!("flag {flag}"),
                        Origin::Environment(variable) => format!("environment {variable}"),
                        Origin::File(file, line, _) => format!("file {file}:{line}"),
                        Origin::Default => "default".to_owned(),
                    };
                    Shown { name, value: Some(found.value.to_toml()), origin }
                }
                None if matches!(setting.default, Default::Required(_)) => {
                    Shown { name, value: None, origin: "nowhere: must be set".to_owned() }
                }
                None => Shown { name, value: None, origin: format!("default ({})", setting.meaning) },
            }
        })
        .collect();
    for list in LISTS {
        if let Some(count) = draft.list_counts.get(list) {
            all.push(Shown {
                name: list.to_owned(),
                value: Some(format!("{count} tables")),
                origin: "file".to_owned(),
            });
        }
    }
    all
}
