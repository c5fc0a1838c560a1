//! A mistake in a file that people write: where it is, what is wrong, which rule it breaks, and what to do.

use std::fmt;
use std::ops::Range;

/// A mistake. Shown on one line: `file:line:column: what: why; remedy`.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Mistake {
    /// The file, by the label that the loader was given; or the flag or variable.
    pub file: String,
    /// Line and column, both from 1, where the mistake has a place.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// Which rule it breaks.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}: {}; {}", self.what, self.why, self.remedy)
    }
}

impl std::error::Error for Mistake {}

/// The text of a file with its label: turns a byte range into a place.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    pub fn mistake(
        &self,
        span: Option<Range<usize>>,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Mistake {
        let place = span.and_then(|span| self.place(span.start));
        let (what, why, remedy) = (what.into(), why.into(), remedy.into());
        Mistake { file: self.file.to_owned(), place, what, why, remedy }
    }

    /// Returns line and column of a byte, both from 1.
    pub fn place(&self, at: usize) -> Option<(usize, usize)> {
        let before = self.text.get(..at)?;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        Some((before.matches('\n').count() + 1, column))
    }
}

/// Returns the text in quotes, cut where it is too long to be read in a message.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

const QUOTED_CHARS_MAX: usize = 80;

/// Returns the option that `word` is most likely a misspelling of, if any is near enough.
pub(crate) fn did_you_mean<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What comes from a file may be long, and the distance costs the product of both lengths.
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let distance = |option: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &option.to_lowercase());
    let near = |option: &&str| distance(option) <= (option.len() / 3).max(1);
    options.into_iter().filter(near).min_by_key(|option| distance(option))
}

const WORD_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let source = Source { file: "b.toml", text: "a\nß = x\n" };
        let place = |start| source.mistake(Some(start..start), "", "", "").place;
        assert_eq!(place(0), Some((1, 1)));
        assert_eq!(place(2), Some((2, 1)));
        assert_eq!(place(4), Some((2, 2)));
        assert_eq!(place(9), Some((3, 1)));
        assert_eq!(place(3), None, "inside a character there is no place");
        assert_eq!(place(99), None);
    }

    #[test]
    fn a_long_text_is_quoted_by_its_beginning() {
        assert_eq!(quoted("a\n"), r#""a\n""#);
        assert_eq!(quoted(&"ß".repeat(80)), format!("\"{}\"", "ß".repeat(80)));
        assert_eq!(quoted(&"ß".repeat(81)), format!("\"{}\"...", "ß".repeat(80)));
    }

    #[test]
    fn a_suggestion_is_a_near_word_or_none() {
        let options = ["encrypter", "decrypter", "auditor"];
        assert_eq!(did_you_mean("encryptor", options), Some("encrypter"));
        assert_eq!(did_you_mean("Auditor", options), Some("auditor"));
        assert_eq!(did_you_mean("decypter", options), Some("decrypter"));
        assert_eq!(did_you_mean("adutior", options), Some("auditor"));
        assert_eq!(did_you_mean("owner", options), None);
        assert_eq!(did_you_mean("", options), None);
        assert_eq!(did_you_mean(&"e".repeat(65), options), None);
    }
}
