//! What comes in: data from stdin or a file, contexts from arguments.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use clap::Args;
use kms_client::{Context, DataKeyUid, Mac};
use zeroize::Zeroizing;

use crate::app::App;
use crate::error::Failure;

/// Where data comes from.
#[derive(Debug, Args)]
pub struct DataIn {
    /// Reads from a file [default: stdin]
    #[arg(long = "in", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl DataIn {
    /// Reads plaintext, as it is.
    pub fn plaintext(&self, app: &mut App<'_>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.read(app, "the plaintext")
    }

    /// Reads a message, as it is.
    pub fn message(&self, app: &mut App<'_>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.read(app, "the message")
    }

    /// Reads a ciphertext or a wrapped data key: raw bytes, or their base64.
    pub fn blob(&self, app: &mut App<'_>) -> Result<Vec<u8>, Failure> {
        let bytes = self.read(app, "the ciphertext")?;
        decode_blob(&bytes).ok_or_else(|| {
            Failure::other("this is no ciphertext: it neither begins with the bytes 92 6b 35 nor is it base64")
                .hint("the base64 of every ciphertext begins with kms1")
        })
    }

    fn read(&self, app: &mut App<'_>, noun: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let file = self.file.as_deref().filter(|path| *path != Path::new("-"));
        match file {
            Some(path) => File::open(path)
                .and_then(read_bounded)
                .map_err(|error| Failure::other(format!("cannot read {}: {error}", path.display())))?,
            None => {
                if io::stdin().is_terminal() {
                    app.output.note(&format!("reading {noun} from the terminal: end it with Ctrl-D"));
                }
                read_bounded(io::stdin().lock())
                    .map_err(|error| Failure::other(format!("cannot read stdin: {error}")))?
            }
        }
        .ok_or_else(|| {
            Failure::other(format!("{noun} is longer than the 4 MiB that a request may have"))
                .hint("64 KiB is the most for one value; for more, `kms data-key generate` and seal on your side")
        })
    }
}

/// Reads all there is. Nothing if it is more than could ever be sent: the server says what is too long, but need not
/// be shown a whole disk.
fn read_bounded(from: impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= INPUT_BYTES_MAX).then_some(bytes))
}

/// Reads a MAC from a file: raw bytes, or their base64.
pub fn read_mac(file: &Path) -> Result<Mac, Failure> {
    let unreadable = |error: io::Error| Failure::other(format!("cannot read {}: {error}", file.display()));
    let bytes = File::open(file).and_then(read_bounded).map_err(unreadable)?;
    bytes
        .and_then(|bytes| decode_blob(&bytes))
        .map(Mac::from)
        .ok_or_else(|| Failure::other(format!("{} is no MAC: its base64 would begin with kms1", file.display())))
}

/// Parses a MAC in base64.
pub fn mac(text: &str) -> Result<Mac, String> {
    decode_blob(text.as_bytes()).map(Mac::from).ok_or_else(|| "a MAC in base64 begins with kms1".to_owned())
}

/// Parses the uid of a data key: 32 hexadecimal digits, or as JSON has it, 16 bytes in base64.
pub fn uid(text: &str) -> Result<DataKeyUid, String> {
    let of_base64 = || DataKeyUid::try_from(&*decode_base64(text.as_bytes())?).ok();
    text.parse()
        .ok()
        .or_else(of_base64)
        .ok_or_else(|| "the uid of a data key has 32 hexadecimal digits, or is its 16 bytes in base64".to_owned())
}

/// Understands raw bytes, which begin with the magic, and base64 with or without padding and line breaks.
fn decode_blob(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.starts_with(&MAGIC) {
        return Some(bytes.to_vec());
    }
    decode_base64(bytes).filter(|blob| blob.starts_with(&MAGIC))
}

fn decode_base64(bytes: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, config).decode(text).ok()
}

/// Every ciphertext begins with it, and so its base64 with `kms1`.
const MAGIC: [u8; 3] = [0x92, 0x6b, 0x35];
const INPUT_BYTES_MAX: u64 = 4 << 20;

/// The encryption context of a command.
#[derive(Debug, Args)]
pub struct ContextArgs {
    /// A pair of the encryption context; may be given again
    #[arg(long = "context", value_name = "K=V", value_parser = pair)]
    pairs: Vec<(String, String)>,
    /// Binds the bytes of a file too
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
}

impl ContextArgs {
    pub fn read(&self) -> Result<Context, Failure> {
        context(&self.pairs, self.aad_file.as_deref())
    }
}

/// Makes a context. A name that is given twice is a mistake, of which one value would be lost in silence.
pub fn context(pairs: &[(String, String)], aad_file: Option<&Path>) -> Result<Context, Failure> {
    Ok(unique("--context", pairs)?.into_iter().collect::<Context>().aad(read_aad(aad_file)?))
}

pub fn read_aad(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let Some(path) = file else { return Ok(Vec::new()) };
    let aad = File::open(path)
        .and_then(read_bounded)
        .map_err(|error| Failure::other(format!("cannot read {}: {error}", path.display())))?;
    aad.map(|aad| aad.to_vec()).ok_or_else(|| Failure::other(format!("{} is too long for an aad", path.display())))
}

/// Makes a map of pairs that were given as arguments.
pub fn unique(flag: &str, pairs: &[(String, String)]) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let mut map = std::collections::BTreeMap::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("{flag} gives {name:?} twice")));
        }
    }
    Ok(map)
}

/// Parses `name=value`. The value may have more of `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("a pair is written NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::BASE64_STANDARD;

    #[test]
    fn a_ciphertext_is_understood_raw_and_as_base64() {
        let blob = [&MAGIC[..], &[1, 1, 0xff, 0x0a, 0]].concat();
        let text = BASE64_STANDARD.encode(&blob);
        assert!(text.starts_with("kms1") && text.ends_with('='));
        for form in [
            blob.clone(),
            text.clone().into_bytes(),
            format!("{text}\n").into_bytes(),
            text.trim_end_matches('=').into(),
            format!("{}\r\n{}\n", &text[..5], &text[5..]).into_bytes(),
        ] {
            assert_eq!(decode_blob(&form).as_deref(), Some(&blob[..]), "{form:?}");
        }
    }

    #[test]
    fn what_is_neither_is_no_ciphertext() {
        for bytes in [&b""[..], b"hello", b"aGVsbG8=", b"kms1!", b"k", &[0x92, 0x6b]] {
            assert_eq!(decode_blob(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_uid_is_understood_in_digits_and_as_json_has_it() {
        let bytes: [u8; 16] = std::array::from_fn(|n| n as u8 * 16);
        let expected = DataKeyUid::from(bytes);
        assert_eq!(uid("00102030405060708090a0b0c0d0e0f0"), Ok(expected));
        assert_eq!(uid(&BASE64_STANDARD.encode(bytes)), Ok(expected));
        for bad in
            ["", "00", "kms1", &"0".repeat(30), &BASE64_STANDARD.encode([0; 15]), &BASE64_STANDARD.encode([0; 17])]
        {
            assert!(uid(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_is_what_begins_as_one() {
        let blob = [&MAGIC[..], &[1, 7], &[0; 51]].concat();
        assert_eq!(mac(&BASE64_STANDARD.encode(&blob)).unwrap().as_bytes(), blob);
        assert!(mac("").is_err() && mac("aGVsbG8=").is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mac");
        for (bytes, good) in [(blob, true), (b"hello".to_vec(), false)] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(read_mac(&file).is_ok(), good);
        }
        assert!(read_mac(&folder.path().join("none")).is_err());
    }

    #[test]
    fn no_more_is_read_than_could_be_sent() {
        let exactly = io::repeat(7).take(INPUT_BYTES_MAX);
        assert_eq!(read_bounded(exactly).unwrap().unwrap().len() as u64, INPUT_BYTES_MAX);
        assert!(read_bounded(io::repeat(7)).unwrap().is_none());
    }

    #[test]
    fn a_pair_is_split_at_the_first_sign_and_a_name_is_given_once() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err());
        let twice = [pair("a=1").unwrap(), pair("a=1").unwrap()];
        assert!(context(&twice, None).is_err());
        assert_eq!(context(&twice[..1], None).unwrap(), Context::from([("a", "1")]));
    }
}
