//! README.md, taken apart: its fenced blocks, and whether what a command printed is what it shows.

use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The heading that it stands under.
    pub section: String,
    /// What follows the opening fence.
    pub language: String,
    /// What lies between the fences.
    pub text: String,
}

/// The commands of one `sh` block, with what README says they print.
#[derive(Debug)]
pub struct Step {
    pub commands: String,
    pub printed: Option<String>,
}

/// Returns the folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Returns the text of README.md.
pub fn text() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md is there")
}

/// Takes a text apart into its fenced blocks.
pub fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut section, mut open) = (Vec::new(), String::new(), None::<Block>);
    for line in text.lines() {
        match (open.as_mut(), line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{line}\n"),
            (None, Some(language)) => {
                open = Some(Block { section: section.clone(), language: language.to_owned(), text: String::new() });
            }
            (None, None) => {
                if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
                    heading.clone_into(&mut section);
                }
            }
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// Returns the commands of a section. A `text` block right behind an `sh` block is what it prints.
pub fn steps(blocks: &[Block], section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_behind_commands = false;
    for block in blocks.iter().filter(|block| block.section == section) {
        match (block.language.as_str(), steps.last_mut()) {
            ("sh", _) => steps.push(Step { commands: block.text.clone(), printed: None }),
            ("text", Some(step)) if is_behind_commands => step.printed = Some(block.text.clone()),
            _ => {}
        }
        is_behind_commands = block.language == "sh";
    }
    assert!(!steps.is_empty(), "README has no commands under {section:?}");
    steps
}

/// Returns the one block of a language under a heading that begins so.
pub fn block<'a>(blocks: &'a [Block], language: &str, begins: &str) -> &'a Block {
    let mut found = blocks.iter().filter(|block| block.language == language && block.text.starts_with(begins));
    let block = found.next().unwrap_or_else(|| panic!("README has no {language} block that begins with {begins:?}"));
    assert!(found.next().is_none(), "README has two {language} blocks that begin with {begins:?}");
    block
}

/// Returns the first shown line that was not printed, in the order in which the lines are shown. `...` stands for
/// anything: alone for any lines, in a line for any text.
pub fn first_not_printed<'a>(shown: &'a str, printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines();
    shown
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && *line != "...")
        .find(|line| !printed.any(|printed| fits(line, printed.trim_end())))
}

fn fits(shown: &str, printed: &str) -> bool {
    let Some((first, rest)) = shown.split_once("...") else { return shown == printed };
    let Some(mut left) = printed.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split("...").collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

#[test]
fn a_text_is_taken_apart_into_blocks_and_steps() {
    let text = "## A\n```sh\nx\ny\n```\n\n```text\nout\n```\n```text\nother\n```\n## B\n```toml\n## a = 1\n```\n";
    let blocks = blocks(text);
    assert_eq!(blocks.len(), 4);
    let steps = steps(&blocks, "A");
    assert_eq!((steps[0].commands.as_str(), steps[0].printed.as_deref()), ("x\ny\n", Some("out\n")));
    assert_eq!(block(&blocks, "toml", "## a").section, "B");
}

#[test]
fn what_is_shown_must_have_been_printed_in_its_order() {
    let printed = "name  acme\nuid   75a2\nstate ACTIVE\n";
    for good in
        ["name  acme\n...\nstate ACTIVE\n", "uid   ...\n", "n...me\nstate ...", "", "...a...c...e\n", "uid   75...\n"]
    {
        assert_eq!(first_not_printed(good, printed), None, "{good:?}");
    }
    for (bad, line) in [
        ("name  acm\n", "name  acm"),
        ("state ACTIVE\nname  acme\n", "name  acme"),
        ("uid   ...9\n", "uid   ...9"),
        ("uid   75a2...5a2\n", "uid   75a2...5a2"),
    ] {
        assert_eq!(first_not_printed(bad, printed), Some(line), "{bad:?}");
    }
}
