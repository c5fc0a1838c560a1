//! `kms policy check`

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::error::{Failure, printable};
use crate::exit::Exit;
use crate::output::Output;

/// Checks bindings and your own policies, before a server reads them
///
/// The files together are one policy: bindings in one that ends in .toml, Cedar policies in those
/// that end in .cedar. Tells every mistake with its place; nothing is sent anywhere.
///
/// Ends with 0 if there is no mistake, with 1 if there is one.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Check {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A pair of the encryption context that policies may see, as in the server's settings
    /// (policy.context_pairs); may be given again
    #[arg(long = "context-pair", value_name = "NAME", verbatim_doc_comment)]
    context_pairs: Vec<String>,
}

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Mistake {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    /// What is wrong.
    what: String,
    /// Which rule it breaks.
    why: String,
    /// What to do.
    remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}: {}; {}", self.what, self.why, self.remedy)
    }
}

/// The answer in JSON.
#[derive(Serialize)]
struct Checked<'a> {
    files: usize,
    mistakes: &'a [Mistake],
}

impl Check {
    pub fn run(&self, output: &mut Output) -> Result<Exit, Failure> {
        let mut texts = Vec::with_capacity(self.files.len());
        for path in &self.files {
            texts.push((path.display().to_string(), read(path)?));
        }
        let files: Vec<(&str, &str)> = texts.iter().map(|(label, text)| (label.as_str(), text.as_str())).collect();
        let pairs: Vec<&str> = self.context_pairs.iter().map(String::as_str).collect();
        let mistakes = check_files(&files, &pairs);
        output.show(&Checked { files: files.len(), mistakes: &mistakes }, || text(files.len(), &mistakes))?;
        Ok(if mistakes.is_empty() { Exit::Ok } else { Exit::Other })
    }
}

fn text(files: usize, mistakes: &[Mistake]) -> String {
    if mistakes.is_empty() {
        return format!("{files} {}, no mistakes\n", if files == 1 { "file" } else { "files" });
    }
    mistakes.iter().map(|mistake| printable(&mistake.to_string()) + "\n").collect()
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::other(format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::other(format!("{} has more than 16 MiB, which no server reads", path.display())));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::other(format!("{} is not text: byte {at} is no UTF-8", path.display()))
    })
}

/// Checks the files of one policy, as the server does when it reads them.
fn check_files(files: &[(&str, &str)], context_pairs: &[&str]) -> Vec<Mistake> {
    let told = |mistake: kms_server::policy::Mistake| Mistake {
        file: mistake.file,
        line: mistake.place.map(|(line, _)| line),
        column: mistake.place.map(|(_, column)| column),
        what: mistake.what,
        why: mistake.why,
        remedy: mistake.remedy,
    };
    kms_server::policy::check(files, context_pairs).into_iter().map(told).collect()
}

/// More than any server reads of a file of bindings or policies.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_one_line_with_its_place() {
        let mistake = Mistake {
            file: "b.toml".to_owned(),
            line: Some(3),
            column: Some(7),
            what: "unknown role \"a\u{1b}\"".to_owned(),
            why: "roles are those that templates say".to_owned(),
            remedy: "did you mean \"auditor\"?".to_owned(),
        };
        let says =
            "b.toml:3:7: unknown role \"a\\u{1b}\": roles are those that templates say; did you mean \"auditor\"?\n";
        assert_eq!(text(1, std::slice::from_ref(&mistake)), says);
        let nowhere = Mistake { line: None, column: None, what: "no".to_owned(), ..mistake };
        assert!(text(1, &[nowhere]).starts_with("b.toml: no: roles"));
        assert_eq!((text(1, &[]).as_str(), text(2, &[]).as_str()), ("1 file, no mistakes\n", "2 files, no mistakes\n"));
    }
}
