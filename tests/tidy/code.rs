//! A file as the rules see it: its text, and its code with comments and literals blanked.

/// A file of the repository.
pub struct SourceFile {
    /// Its path from the root, with slashes.
    pub path: String,
    /// All of it.
    pub text: String,
    /// The same lines with comments, strings and characters blanked; empty unless it is Rust.
    pub code: String,
}

impl SourceFile {
    /// Takes a file in.
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { blank(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// Returns whether all of the file is only compiled into tests.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || matches!(name, "contract.rs" | "vectors.rs" | "tests.rs")
    }

    /// Returns the number of lines before the tests at the file's end.
    ///
    /// They begin at `#[cfg(test)]` over a module with a body: the same over `mod contract;` hides nothing behind it.
    pub fn product_lines(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().map(str::trim).collect();
        (0..lines.len())
            .find(|&at| {
                lines[at] == "#[cfg(test)]"
                    && lines[at + 1..]
                        .iter()
                        .find(|line| !line.starts_with("#["))
                        .is_some_and(|line| words(line).any(|word| word == "mod") && line.ends_with('{'))
            })
            .unwrap_or(lines.len())
    }

    /// Returns the numbers of the code lines that fit.
    pub fn code_lines(&self, fits: impl Fn(&str) -> bool) -> Vec<usize> {
        numbered(&self.code, fits)
    }

    /// Returns the numbers of the code lines that fit, those of tests left out.
    pub fn product_code_lines(&self, fits: impl Fn(&str) -> bool) -> Vec<usize> {
        let end = if self.is_test() { 0 } else { self.product_lines() };
        self.code_lines(fits).into_iter().filter(|line| *line <= end).collect()
    }

    /// Returns the numbers of the code lines that fit, those of tests only.
    pub fn test_code_lines(&self, fits: impl Fn(&str) -> bool) -> Vec<usize> {
        let product = self.product_code_lines(&fits);
        self.code_lines(&fits).into_iter().filter(|line| !product.contains(line)).collect()
    }

    /// Returns the numbers of the lines that fit, comments and literals included.
    pub fn text_lines(&self, fits: impl Fn(&str) -> bool) -> Vec<usize> {
        numbered(&self.text, fits)
    }
}

fn numbered(text: &str, fits: impl Fn(&str) -> bool) -> Vec<usize> {
    text.lines().zip(1..).filter(|(line, _)| fits(line)).map(|(_, number)| number).collect()
}

/// Returns the identifiers and keywords of a line.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Returns the lower-case parts of an identifier: `AwsKms` and `aws_kms` are both `aws`, `kms`.
pub fn parts(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut after_lower = false;
    for c in word.chars() {
        if c == '_' || (c.is_uppercase() && after_lower) {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().expect("never empty").extend(c.to_lowercase());
        }
        after_lower = c != '_' && !c.is_uppercase();
    }
    parts
}

/// Returns whether a line names the crate, and not a module of that name in another: `name::` or `use name`.
pub fn names_crate(line: &str, name: &str) -> bool {
    let tokens = tokens(line);
    let is_word = |token: &&str| token.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    (0..tokens.len()).any(|at| {
        let back = |n: usize| at.checked_sub(n).map(|i| tokens[i]);
        let is_root = back(1) != Some("::") || !back(2).as_ref().is_some_and(is_word);
        tokens[at] == name && is_root && (tokens.get(at + 1) == Some(&"::") || tokens.contains(&"use"))
    })
}

/// Returns a line's words, its `::`, and every other character that is not a space.
fn tokens(line: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if word > 0 {
            word
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Blanks comments, strings and characters, and keeps every line where it is.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        match literal_or_comment_end(&chars, at) {
            Some(end) => {
                out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

/// Returns where the comment or literal ends that begins here, if one does.
fn literal_or_comment_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some((at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len())),
        '/' if next == Some('*') => {
            let (mut depth, mut i) = (0_usize, at);
            while i < chars.len() {
                match (chars[i], chars.get(i + 1)) {
                    ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
                    ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            Some(i.min(chars.len()))
        }
        '"' => Some(after_closing(chars, at + 1, '"')),
        'r' if matches!(next, Some('"' | '#')) && !(at > 0 && is_word_but_prefix(chars[at - 1])) => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + 1 + hashes) != Some(&'"') {
                return None; // A raw identifier such as r#type.
            }
            let mut i = at + 2 + hashes;
            while i < chars.len() {
                if chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
                    return Some(i + 1 + hashes);
                }
                i += 1;
            }
            Some(chars.len())
        }
        // A quote opens a character when it is closed after one, or after an escape; else it is a lifetime.
        '\'' if next == Some('\\') => Some(after_closing(chars, at + 1, '\'')),
        '\'' if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

fn after_closing(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `b` and `c` may stand before the `r` of a raw string; another letter means that a word ends in r.
fn is_word_but_prefix(c: char) -> bool {
    (c.is_alphanumeric() || c == '_') && !matches!(c, 'b' | 'c')
}

#[test]
fn blanking_keeps_code_and_lines() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */\n d */ e", "a             \n      e"),
        (r#"f("a\"b") + g"#, "f(      ) + g"),
        ("f(r#\"a\"b\n\"#) + g", "f(      \n  ) + g"),
        ("br\"a\\\" + g", "b      + g"),
        ("'a' + '\\'' + '\"' + b", "    +      +     + b"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("let r#type = 1; for r in x {}", "let r#type = 1; for r in x {}"),
    ] {
        assert_eq!(blank(text), code, "{text}");
    }
}

#[test]
fn tests_begin_at_a_module_with_a_body() {
    let lines = |text| SourceFile::new("a.rs", text).product_lines();
    assert_eq!(lines("a\nb\n#[cfg(test)]\nmod tests {\n}"), 2);
    assert_eq!(lines("a\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}"), 1);
    assert_eq!(lines("#[cfg(test)]\npub mod contract;\nb\nc"), 4);
}

#[test]
fn a_crate_is_told_from_a_module_of_another() {
    for line in [
        "use ring::aead;",
        "ring::digest::digest(a)",
        "use ring;",
        "pub use ring as r;",
        "f(::ring::x)",
        "use {ring, subtle};",
    ] {
        assert!(names_crate(line, "ring"), "{line}");
    }
    for line in
        ["rustls::crypto::ring::provider()", "let ring = 1;", "use string::a;", "ring_buffer::new()", "use a::ring;"]
    {
        assert!(!names_crate(line, "ring"), "{line}");
    }
}

#[test]
fn a_word_has_the_same_parts_in_both_cases() {
    for (word, expected) in [
        ("AwsKms", "aws kms"),
        ("aws_kms", "aws kms"),
        ("AWS_KMS", "aws kms"),
        ("Pkcs11", "pkcs11"),
        ("draws", "draws"),
    ] {
        assert_eq!(parts(word).join(" "), expected);
    }
}
