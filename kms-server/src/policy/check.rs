//! Reads the files of a policy, and tells every mistake in them. No daemon is needed.

use std::path::Path;
use std::sync::Arc;

use super::bindings::{self, Read};
use super::own::{OWN_FILES_MAX, OwnPolicy, OwnReader};
use super::pairs::PairNames;
use super::templates::{TEMPLATES, Templates};
use super::{File, Files, PolicyError};
use crate::crypto::sha256;
use crate::mistake::{Mistake, Source};

/// What was read, and what is wrong with it.
pub(super) struct ReadFiles {
    pub bindings: Read,
    pub own: Vec<OwnPolicy>,
    pub own_mistakes: Vec<Mistake>,
}

/// Reads all files, past their mistakes.
pub(super) fn read(files: &Files<'_>, templates: &Templates) -> Result<ReadFiles, PolicyError> {
    let source = Source { file: files.bindings.label, text: files.bindings.text };
    let bindings = bindings::read(source, templates, files.pairs);
    let (own, own_mistakes) = read_own(files, &bindings)?;
    Ok(ReadFiles { bindings, own, own_mistakes })
}

fn read_own(files: &Files<'_>, read: &Read) -> Result<(Vec<OwnPolicy>, Vec<Mistake>), PolicyError> {
    if files.own.is_empty() {
        return Ok(Default::default());
    }
    let groups: Vec<Arc<str>> = read.groups.iter().map(|group| Arc::clone(&group.name)).collect();
    let ids = read.bindings.iter().map(|binding| Arc::clone(&binding.id));
    let mut reader = OwnReader::new(files.pairs, ids, &groups).map_err(PolicyError::Templates)?;
    if let Some(beyond) = files.own.get(OWN_FILES_MAX) {
        let source = Source { file: beyond.label, text: beyond.text };
        let what = format!("{} files of policies", files.own.len());
        let why = format!("there are at most {OWN_FILES_MAX}");
        reader.mistakes.push(source.mistake(None, what, why, "put several policies into one file"));
        return Ok((Vec::new(), reader.mistakes));
    }
    for File { label, text } in files.own {
        reader.file(Source { file: label, text });
    }
    Ok((reader.found, reader.mistakes))
}

/// Returns every mistake in files of bindings (`.toml`) and of own policies (`.cedar`), each with its label, that
/// belong to one policy. What is of another kind is a mistake too.
pub fn check(files: &[(&str, &str)], context_pairs: &[&str]) -> Vec<Mistake> {
    let plain = |file: &str, what: String, why: &str, remedy: &str| Mistake {
        file: file.to_owned(),
        place: None,
        what,
        why: why.to_owned(),
        remedy: remedy.to_owned(),
    };
    let mut mistakes = Vec::new();
    let pairs = PairNames::of(context_pairs).unwrap_or_else(|why| {
        mistakes.push(plain(
            "policy.context_pairs",
            "bad names of pairs".to_owned(),
            &why.to_string(),
            "correct the list",
        ));
        PairNames::default()
    });
    let of = |extension: &str| {
        let named = |file: &&(&str, &str)| Path::new(file.0).extension().is_some_and(|found| found == extension);
        files.iter().filter(named).map(|&(label, text)| File { label, text }).collect::<Vec<_>>()
    };
    let (bindings, own) = (of("toml"), of("cedar"));
    let known = |label: &str| bindings.iter().chain(&own).any(|file| file.label == label);
    for (label, _) in files.iter().filter(|(label, _)| !known(label)) {
        let what = "neither bindings nor policies".to_owned();
        mistakes.push(plain(label, what, "its name ends in neither .toml nor .cedar", "rename it, or leave it out"));
    }
    if let Some(second) = bindings.get(1) {
        let why = "a policy has one file of bindings";
        mistakes.push(plain(second.label, "a second file of bindings".to_owned(), why, "check them one by one"));
    }
    let bindings = bindings.first().copied().unwrap_or(File { label: "bindings", text: "" });
    let read =
        Templates::shipped().and_then(|templates| read(&Files { bindings, own: &own, pairs: &pairs }, templates));
    match read {
        Ok(read) => mistakes.extend(read.bindings.mistakes.into_iter().chain(read.own_mistakes)),
        Err(error) => {
            let remedy = "report it: this build cannot work";
            mistakes.push(plain("kms-server", "a fault of this build".to_owned(), &error.to_string(), remedy));
        }
    }
    mistakes
}

/// Returns the hash of all that decides.
//
// PRINT v1 = SHA-256("kms policy v1" || PART*), PART = u64 len || bytes, in this order: templates, schema, bindings,
// u64 count of pairs, each name, u64 count of own files, and of each its label and its text. Big-endian.
pub(super) fn print(files: &Files<'_>) -> [u8; 32] {
    let mut bytes = b"kms policy v1".to_vec();
    let mut part = |part: &[u8]| {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    };
    part(TEMPLATES.as_bytes());
    part(include_str!("schema.cedarschema").as_bytes());
    part(files.bindings.text.as_bytes());
    part(&(files.pairs.iter().count() as u64).to_be_bytes());
    files.pairs.iter().for_each(|name| part(name.as_bytes()));
    part(&(files.own.len() as u64).to_be_bytes());
    for File { label, text } in files.own {
        part(label.as_bytes());
        part(text.as_bytes());
    }
    sha256(&bytes)
}
