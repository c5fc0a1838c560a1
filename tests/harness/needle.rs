//! Something that must not be found, in every form in which it might have been written down, and the search for it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A secret with a name.
#[derive(Clone, Debug)]
pub struct Needle {
    /// What it is.
    pub what: String,
    forms: Vec<Vec<u8>>,
}

impl Needle {
    /// Takes a secret of at least [`BYTES_MIN`] bytes: less is found by chance.
    pub fn new(what: impl Into<String>, secret: &[u8]) -> Self {
        assert!(secret.len() >= BYTES_MIN, "a needle of {} bytes is found by chance", secret.len());
        let mut forms = vec![secret.to_vec(), hex::encode(secret).into(), hex::encode_upper(secret).into()];
        for skip in 0..3 {
            // Behind others' bytes it begins at any of 3 places of the alphabet's 4; all but its edges is the same.
            let whole = &secret[skip..skip + (secret.len() - skip) / 3 * 3];
            forms.extend([STANDARD_NO_PAD.encode(whole).into_bytes(), URL_SAFE_NO_PAD.encode(whole).into_bytes()]);
        }
        // As programs print bytes: a list, with spaces and without, and text with escapes.
        let list = format!("{secret:?}");
        let list = list.trim_matches(['[', ']']);
        forms.extend(
            [list.replace(' ', ""), list.to_owned(), secret.escape_ascii().to_string()].map(String::into_bytes),
        );
        forms.push(secret.utf8_chunks().flat_map(|part| part.valid().escape_default()).collect::<String>().into());
        if let Ok(text) = std::str::from_utf8(secret) {
            forms.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
            forms.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
        }
        forms.retain(|form| form.len() >= BYTES_MIN);
        forms.sort();
        forms.dedup();
        Self { what: what.into(), forms }
    }
}

/// The shortest secret that is looked for.
pub const BYTES_MIN: usize = 8;

/// Many needles, looked for at once.
pub struct Search<'a> {
    needles: &'a [Needle],
    /// For each two bytes that some form begins with, those forms.
    by_begin: Vec<Vec<(usize, &'a [u8])>>,
}

impl<'a> Search<'a> {
    /// Makes ready to look for these.
    pub fn for_all(needles: &'a [Needle]) -> Self {
        let mut by_begin = vec![Vec::new(); 1 << 16];
        for (number, needle) in needles.iter().enumerate() {
            for form in &needle.forms {
                by_begin[begin(form)].push((number, &form[..]));
            }
        }
        Self { needles, by_begin }
    }

    /// Returns which are in these bytes, each once.
    pub fn find_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut found = vec![false; self.needles.len()];
        for at in 0..bytes.len().saturating_sub(1) {
            for (number, form) in &self.by_begin[begin(&bytes[at..])] {
                found[*number] |= bytes[at..].starts_with(form);
            }
        }
        let found = self.needles.iter().zip(found).filter(|(_, found)| *found);
        found.map(|(needle, _)| format!("{} in {place}", needle.what)).collect()
    }

    /// Returns how many forms are looked for.
    pub fn forms(&self) -> usize {
        self.needles.iter().map(|needle| needle.forms.len()).sum()
    }
}

fn begin(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    fn found(needle: &Needle, text: &[u8]) -> bool {
        !Search::for_all(std::slice::from_ref(needle)).find_in("here", text).is_empty()
    }

    #[test]
    fn every_form_is_found_and_nothing_else() {
        let text = "canary-5d1c0e \"quoted\"".as_bytes();
        let random: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(167) ^ 0xd3).collect();
        for secret in [text, &random[..]] {
            let needle = Needle::new("it", secret);
            let mut forms = vec![
                secret.to_vec(),
                hex::encode(secret).into(),
                hex::encode_upper(secret).into(),
                format!("{secret:?}").into(),
                format!("{secret:02x?}").replace(", ", "").trim_matches(['[', ']']).to_owned().into(),
                secret.escape_ascii().to_string().into(),
            ];
            for before in [&b""[..], b"a", b"ab", b"abc"] {
                for after in [&b""[..], b"x", b"xy"] {
                    let whole = [before, secret, after].concat();
                    forms.push(STANDARD.encode(&whole).into());
                    forms.push(URL_SAFE.encode(&whole).into());
                }
            }
            if let Ok(text) = std::str::from_utf8(secret) {
                forms.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
                forms.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
                forms.push(serde_json::to_string(text).unwrap().into());
            }
            for form in forms {
                let embedded = [b"{\"x\":\"", &form[..], b"\"}\n"].concat();
                assert!(found(&needle, &embedded), "{}", String::from_utf8_lossy(&form));
            }
            assert!(!found(&needle, &secret[..secret.len() - 1]));
            assert!(!found(&needle, b"") && !found(&needle, &secret[..1]));
        }
    }
}
