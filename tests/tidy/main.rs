//! Holds the structural invariants that no lint sees: who may name what, and what never appears.
//!
//! Not here: what a path is enough to find (`.clippy.toml`), dependencies (`deploy/check-deps.sh`).
//! A rule is a pure function of a file's path and text, with texts it must find and texts it must
//! leave alone; it sees code without comments, strings and characters unless it is about all text.

mod code;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use code::SourceFile;
use rules::Rule;

#[test]
fn the_repository_keeps_every_rule() {
    let files = tracked_files(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository"));
    assert!(files.iter().any(|file| file.path == "kms-server/src/crypto/mod.rs"), "the walk found the wrong folder");
    let broken: Vec<String> =
        rules::all().iter().flat_map(|rule| files.iter().flat_map(move |file| complaints(rule, file))).collect();
    assert!(broken.is_empty(), "{} places break a rule:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_rule_finds_what_was_planted_for_it() {
    for rule in rules::all() {
        assert!(!rule.finds.is_empty(), "nothing was planted for: {}", rule.says);
        for (path, text) in &rule.finds {
            assert!(
                !complaints(&rule, &SourceFile::new(path, text)).is_empty(),
                "{}: not found in {path}: {text}",
                rule.says
            );
        }
    }
}

#[test]
fn every_rule_leaves_its_neighbour_alone() {
    for rule in rules::all() {
        assert!(!rule.passes.is_empty(), "no neighbour for: {}", rule.says);
        for (path, text) in &rule.passes {
            let found = complaints(&rule, &SourceFile::new(path, text));
            assert!(found.is_empty(), "{found:?} in: {text}");
        }
    }
}

fn complaints(rule: &Rule, file: &SourceFile) -> Vec<String> {
    (rule.lines)(file).iter().map(|line| format!("{}:{line}: {}", file.path, rule.says)).collect()
}

/// Reads all text files below a folder but those that `.gitignore` names by path.
fn tracked_files(root: &Path) -> Vec<SourceFile> {
    let ignored: Vec<PathBuf> = fs::read_to_string(root.join(".gitignore"))
        .expect(".gitignore is there")
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|path| root.join(path.trim_end_matches('/')))
        .chain([root.join(".git")])
        .collect();
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository is readable") {
            let path = entry.expect("a folder of the repository is readable").path();
            if ignored.contains(&path) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let name = path.strip_prefix(root).expect("the walk began there").to_string_lossy().replace('\\', "/");
                files.push(SourceFile::new(&name, &text));
            }
        }
    }
    files
}
