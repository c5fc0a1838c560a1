//! `kms profile`: servers and identities by name, in the configuration file.
//!
//! Other tools call this a context. That word is taken here: an encryption context is what every ciphertext is bound
//! to, and `--context` gives it.

use std::fs;
use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::config::{ConfigFile, Globals, Profile};
use crate::error::Failure;
use crate::output::{Output, fields, rows};
use crate::sink::{self, Secrecy};

/// Shows and chooses among the servers and identities of the configuration file
///
/// A profile names a server, and who you are to it. The current one is used unless --profile or
/// KMS_PROFILE names another; what destroys something shows which it is.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ProfileCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the profiles
    List,
    /// Shows a profile
    Show {
        /// Which one [default: the one that is used]
        #[arg(value_name = "PROFILE")]
        name: Option<String>,
    },
    /// Makes a profile the current one, in the configuration file
    Use {
        /// Which one
        #[arg(value_name = "PROFILE")]
        name: String,
    },
}

impl ProfileCommand {
    pub fn run(&self, globals: &Globals, output: &mut Output) -> Result<(), Failure> {
        let Some(file) = ConfigFile::find(globals)? else {
            return Err(Failure::usage("there is no configuration file, and so no profile")
                .hint("`kms --help` shows its form and where it is looked for"));
        };
        match &self.command {
            Command::List => list(&file, globals, output),
            Command::Show { name } => {
                let name = match name {
                    Some(name) => name,
                    None => file.name(globals.wanted_profile())?,
                };
                output.show(&json(name, file.profile(name)?, file.name(globals.wanted_profile()).ok()), || {
                    table(name, file.profile(name).unwrap_or(&Profile::default()))
                })
            }
            Command::Use { name } => {
                file.profile(name)?;
                write(&file, &with_current(&file.text, name)?)?;
                output.note(&format!("{name} is the current profile now, in {}", file.path.display()));
                Ok(())
            }
        }
    }
}

fn list(file: &ConfigFile, globals: &Globals, output: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Profiles<'a> {
        file: String,
        profiles: Vec<Json<'a>>,
    }
    let used = file.name(globals.wanted_profile()).ok();
    let profiles = || file.profiles().map(|(name, profile)| json(name, profile, used)).collect();
    output.show(&Profiles { file: file.path.display().to_string(), profiles: profiles() }, || {
        let row = |(name, profile): (&String, &Profile)| {
            let mark = if Some(name.as_str()) == used { "*" } else { "" };
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            [mark.to_owned(), name.clone(), text(&profile.address), text(&profile.tenant)]
        };
        rows(["USED", "PROFILE", "ADDRESS", "TENANT"], file.profiles().map(row))
    })
}

/// A profile, with its fields as the file names them, but in lowerCamelCase; what is not set is left out. Stable.
#[derive(Serialize)]
struct Json<'a> {
    name: &'a str,
    used: bool,
    #[serde(flatten)]
    profile: &'a Profile,
}

fn json<'a>(name: &'a str, profile: &'a Profile, used: Option<&str>) -> Json<'a> {
    Json { name, used: used == Some(name), profile }
}

fn table(name: &str, profile: &Profile) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let path =
        |field: &Option<std::path::PathBuf>| field.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    fields([
        ("name", name.to_owned()),
        ("address", text(&profile.address)),
        ("operator address", text(&profile.operator_address)),
        ("ca file", path(&profile.ca_file)),
        ("cert file", path(&profile.cert_file)),
        ("key file", path(&profile.key_file)),
        ("server name", text(&profile.server_name)),
        ("tenant", text(&profile.tenant)),
    ])
}

/// Returns the file's text with another current profile, and all else, comments too, as it was.
fn with_current(text: &str, name: &str) -> Result<String, Failure> {
    let quoted = toml::Value::from(name).to_string();
    let line = format!("current = {quoted}\n");
    // A key of the whole file stands before the first table.
    let mut changed = String::with_capacity(text.len() + line.len());
    let (mut in_table, mut done) = (false, false);
    for old in text.split_inclusive('\n') {
        let trimmed = old.trim_start();
        in_table |= trimmed.starts_with('[');
        let key = trimmed.split('=').next().unwrap_or_default().trim();
        if !done && !in_table && (key == "current" || key == "\"current\"") {
            changed += &line;
            done = true;
        } else {
            changed += old;
        }
    }
    if !done {
        changed = line + text;
    }
    // What was written by hand may have forms that this does not know: it is asked what it reads now.
    let read: toml::Table = changed.parse().map_err(|_| not_changed())?;
    let before: toml::Table = text.parse().map_err(|_| not_changed())?;
    let without = |mut table: toml::Table| {
        table.remove("current");
        table
    };
    let is_right = read.get("current").and_then(toml::Value::as_str) == Some(name);
    if is_right && without(read) == without(before) { Ok(changed) } else { Err(not_changed()) }
}

fn not_changed() -> Failure {
    Failure::other("the configuration file has a form that cannot be changed here")
        .hint("write `current = \"PROFILE\"` into it, before its first [profile...]")
}

fn write(file: &ConfigFile, text: &str) -> Result<(), Failure> {
    let path: &Path = &file.path;
    let permissions = fs::metadata(path).map(|metadata| metadata.permissions());
    sink::write(Some(path), Secrecy::Public, text.as_bytes(), true)?;
    // A new file has taken its place.
    if let Ok(permissions) = permissions {
        let _ = fs::set_permissions(path, permissions);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_profile_is_changed_and_nothing_else() {
        let file = "# mine\ncurrent = \"a\" # for now\n\n[profile.a] # one\ncurrent = 1\n[profile.b]\n";
        let changed = with_current(file, "b").unwrap();
        assert_eq!(changed, "# mine\ncurrent = \"b\"\n\n[profile.a] # one\ncurrent = 1\n[profile.b]\n");
        assert_eq!(with_current(&changed, "b").unwrap(), changed);
        assert_eq!(with_current("[profile.a]\n", "a").unwrap(), "current = \"a\"\n[profile.a]\n");
        assert_eq!(
            with_current("", "a \"b\"").unwrap().parse::<toml::Table>().unwrap()["current"].as_str(),
            Some("a \"b\"")
        );
    }

    #[test]
    fn what_cannot_be_changed_safely_is_left_alone() {
        for text in ["x = \"\"\"\ncurrent = 1\n\"\"\"\n[profile.a]\n", "current = \"\"\"\na\"\"\"\n[profile.a]\n"] {
            assert!(with_current(text, "b").is_err(), "{text}");
        }
    }
}
