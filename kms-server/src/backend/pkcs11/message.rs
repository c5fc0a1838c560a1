//! What the daemon and the process of a module say to each other: one request, one answer.
//!
//! ```text
//! frame   = u32 length (1 to 16,384) || payload;   payload = kind || fields
//! field   = u16 length || bytes, or one byte
//! request = 01 open: module, token     02 login: PIN          03 look          04 find: label
//!           05 create: label, id, mechanism                   06 wrap: label, id, mechanism, bound, key
//!           07 unwrap: label, id, bound, wrap                 08 permit: label, id, on          09 destroy: label, id
//! answer  = 81 token: label, maker, model, serial, firmware, flags     82 done     83 key: id, enabled
//!           84 wrapped: wrap     85 unwrapped: key     86 wrong key     87 refused: refusal, text
//!           88 trouble: step, code     89 PIN: code     8a not opened: reason, text
//! ```
//! Both ends are the same program, so there is no version. But the module is foreign code within one end: what comes
//! from there is held to its bounds, and a text is cut to what can be shown in one line.
//!
//! **Invariant:** no bytes make a decoder panic, and what is not read to its last byte is no message
//! (`no_bytes_make_the_decoders_panic`).

use zeroize::Zeroizing;

/// The longest payload, in bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// The longest text of an answer, in characters.
const TEXT_CHARS_MAX: usize = 400;

/// What the daemon asks.
pub(super) enum Request {
    /// Loads the module, finds the token, opens a session.
    Open { module: Vec<u8>, token: String },
    /// Logs the user in.
    Login { pin: Zeroizing<Vec<u8>> },
    /// Tells of the token as it is now.
    Look,
    /// Finds a key by its label.
    Find { label: String },
    /// Makes a key, or finds it.
    Create { label: String, id: Vec<u8>, mechanism: Choice },
    /// Wraps an epoch key.
    Wrap { label: String, id: Vec<u8>, mechanism: Choice, bound: Vec<u8>, key: Zeroizing<Vec<u8>> },
    /// Unwraps one.
    Unwrap { label: String, id: Vec<u8>, bound: Vec<u8>, wrap: Vec<u8> },
    /// Lets a key be used, or not.
    Permit { label: String, id: Vec<u8>, on: bool },
    /// Destroys a key.
    Destroy { label: String, id: Vec<u8> },
}

/// What the process of the module answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// The token that was opened.
    Token(Box<TokenInfo>),
    /// It is done.
    Done,
    /// The key that was found or made.
    Key { id: Vec<u8>, enabled: bool },
    /// A wrap in its stored form.
    Wrapped(Vec<u8>),
    /// An epoch key.
    Unwrapped(SecretKey),
    /// The wrap is not of this key, or not of what it is bound to.
    WrongKey,
    /// The token was reached and did not do it.
    Refused { refusal: Refusal, text: String },
    /// Something does not work; that says nothing of the key.
    Trouble { step: Step, code: String },
    /// The token did not take the PIN.
    Pin { code: String },
    /// There is no session.
    NotOpened { reason: NotOpened, text: String },
}

/// An epoch key on its way through the daemon. Wiped on drop.
pub(super) struct SecretKey(pub(super) Zeroizing<[u8; 32]>);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretKey").finish_non_exhaustive()
    }
}

/// What a token says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct TokenInfo {
    pub(super) label: String,
    pub(super) maker: String,
    pub(super) model: String,
    pub(super) serial: String,
    pub(super) firmware: String,
    /// One more wrong PIN locks it.
    pub(super) final_try: bool,
    /// The user's PIN is locked.
    pub(super) locked: bool,
}

macro_rules! codes {
    ($(#[$doc:meta])* $Name:ident { $($(#[$line:meta])* $Variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum $Name { $($(#[$line])* $Variant,)* }

        impl $Name {
            const fn code(self) -> u8 {
                match self { $($Name::$Variant => $code,)* }
            }

            fn of_code(code: u8) -> Option<Self> {
                match code { $($code => Some($Name::$Variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// Which mechanism a wrap is to have.
    Choice {
        /// AES-GCM where it works, else AES-CBC with padding.
        Auto = 0,
        /// AES-GCM.
        Gcm = 1,
        /// AES-CBC with padding.
        CbcPad = 2,
    }
}

codes! {
    /// Why a token that was reached did not do it.
    Refusal {
        /// There is no such key.
        Absent = 1,
        /// There is more than one.
        Several = 2,
        /// It may not be used.
        Disabled = 3,
        /// It is not what a master key must be; the text says what.
        Unfit = 4,
        /// The token cannot do it, or does not let us; the text says what it answered.
        NotAllowed = 5,
    }
}

codes! {
    /// Why there is no session.
    NotOpened {
        /// The module could not be loaded.
        Load = 1,
        /// No token has that label; the text lists those that are there.
        NoToken = 2,
        /// More than one has.
        Several = 3,
    }
}

codes! {
    /// What was done when it did not work.
    Step {
        Initialize = 1,
        ListTokens = 2,
        OpenSession = 3,
        Login = 4,
        AskSession = 5,
        Find = 6,
        Read = 7,
        Generate = 8,
        Encrypt = 9,
        Decrypt = 10,
        Change = 11,
        Destroy = 12,
        /// A process that is asked for a token before it opened one.
        Closed = 13,
        /// A login that did not come to the PIN.
        BeforeLogin = 14,
    }
}

impl Step {
    /// Returns the module's function, by the name in its manual.
    pub(super) const fn function(self) -> &'static str {
        match self {
            Step::Initialize => "C_Initialize",
            Step::ListTokens => "C_GetTokenInfo",
            Step::OpenSession => "C_OpenSession",
            Step::Login | Step::BeforeLogin => "C_Login",
            Step::AskSession => "C_GetSessionInfo",
            Step::Find => "C_FindObjects",
            Step::Read => "C_GetAttributeValue",
            Step::Generate => "C_GenerateKey",
            Step::Encrypt => "C_Encrypt",
            Step::Decrypt => "C_Decrypt",
            Step::Change => "C_SetAttributeValue",
            Step::Destroy => "C_DestroyObject",
            Step::Closed => "a call without a session",
        }
    }
}

impl Answer {
    /// Whether it can be the answer to this request.
    pub(super) fn answers(&self, request: &Request) -> bool {
        match self {
            Answer::Token(_) => matches!(request, Request::Open { .. } | Request::Look),
            Answer::Done => {
                matches!(request, Request::Login { .. } | Request::Permit { .. } | Request::Destroy { .. })
            }
            Answer::Key { .. } => matches!(request, Request::Find { .. } | Request::Create { .. }),
            Answer::Wrapped(_) => matches!(request, Request::Wrap { .. }),
            Answer::Unwrapped(_) | Answer::WrongKey => matches!(request, Request::Unwrap { .. }),
            Answer::Pin { .. } => matches!(request, Request::Login { .. }),
            Answer::NotOpened { .. } => matches!(request, Request::Open { .. }),
            Answer::Refused { .. } => !matches!(request, Request::Open { .. } | Request::Login { .. } | Request::Look),
            Answer::Trouble { .. } => true,
        }
    }

    /// Whether it holds whatever the session has been through. Anything else may come of a token that was pulled or of
    /// a login that lapsed, and is believed only from a session that was opened for this very call.
    pub(super) fn stands(&self) -> bool {
        match self {
            Answer::Token(_)
            | Answer::Done
            | Answer::Key { .. }
            | Answer::Wrapped(_)
            | Answer::Unwrapped(_)
            | Answer::WrongKey => true,
            Answer::Refused { .. } | Answer::Trouble { .. } | Answer::Pin { .. } | Answer::NotOpened { .. } => false,
        }
    }
}

/// Writes a payload. Growing would leave copies behind, so there is room for the longest from the start.
struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn of(kind: u8) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 + PAYLOAD_BYTES_MAX));
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(kind);
        Self(bytes)
    }

    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn field(mut self, bytes: &[u8]) -> Self {
        // Nothing of ours is longer; what is cut does not pass on the other side.
        let bytes = &bytes[..bytes.len().min(FIELD_BYTES_MAX)];
        self.0.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.field(shown(text).as_bytes())
    }

    /// Returns the frame.
    fn end(mut self) -> Zeroizing<Vec<u8>> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

const FIELD_BYTES_MAX: usize = 4096;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn switch(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length > FIELD_BYTES_MAX {
            return None;
        }
        let (field, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        self.field().map(<[u8]>::to_vec)
    }

    fn secret(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.field().map(|field| Zeroizing::new(field.to_vec()))
    }

    fn string(&mut self) -> Option<String> {
        std::str::from_utf8(self.field()?).ok().map(str::to_owned)
    }

    fn text(&mut self) -> Option<String> {
        self.field().map(|field| shown(&String::from_utf8_lossy(field)))
    }
}

/// Returns a text as one line can show it.
pub(super) fn shown(text: &str) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(TEXT_CHARS_MAX).map(line).collect()
}

/// Returns the length of a payload that a frame begins with, if it is one.
pub(super) fn payload_bytes(head: [u8; 4]) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(head)).ok()?;
    (1..=PAYLOAD_BYTES_MAX).contains(&length).then_some(length)
}

impl Request {
    /// Returns its frame.
    pub(super) fn frame(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Request::Open { module, token } => Writer::of(0x01).field(module).field(token.as_bytes()),
            Request::Login { pin } => Writer::of(0x02).field(pin),
            Request::Look => Writer::of(0x03),
            Request::Find { label } => Writer::of(0x04).field(label.as_bytes()),
            Request::Create { label, id, mechanism } => {
                Writer::of(0x05).field(label.as_bytes()).field(id).byte(mechanism.code())
            }
            Request::Wrap { label, id, mechanism, bound, key } => {
                Writer::of(0x06).field(label.as_bytes()).field(id).byte(mechanism.code()).field(bound).field(key)
            }
            Request::Unwrap { label, id, bound, wrap } => {
                Writer::of(0x07).field(label.as_bytes()).field(id).field(bound).field(wrap)
            }
            Request::Permit { label, id, on } => Writer::of(0x08).field(label.as_bytes()).field(id).byte(u8::from(*on)),
            Request::Destroy { label, id } => Writer::of(0x09).field(label.as_bytes()).field(id),
        }
        .end()
    }

    /// Reads a payload.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let read = &mut reader;
        let request = match read.byte()? {
            0x01 => Request::Open { module: read.bytes()?, token: read.string()? },
            0x02 => Request::Login { pin: read.secret()? },
            0x03 => Request::Look,
            0x04 => Request::Find { label: read.string()? },
            0x05 => {
                Request::Create { label: read.string()?, id: read.bytes()?, mechanism: Choice::of_code(read.byte()?)? }
            }
            0x06 => Request::Wrap {
                label: read.string()?,
                id: read.bytes()?,
                mechanism: Choice::of_code(read.byte()?)?,
                bound: read.bytes()?,
                key: read.secret()?,
            },
            0x07 => {
                Request::Unwrap { label: read.string()?, id: read.bytes()?, bound: read.bytes()?, wrap: read.bytes()? }
            }
            0x08 => Request::Permit { label: read.string()?, id: read.bytes()?, on: read.switch()? },
            0x09 => Request::Destroy { label: read.string()?, id: read.bytes()? },
            _ => return None,
        };
        reader.0.is_empty().then_some(request)
    }
}

impl Answer {
    /// Returns its frame.
    pub(super) fn frame(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Answer::Token(token) => {
                let texts = [&token.label, &token.maker, &token.model, &token.serial, &token.firmware];
                let flags = u8::from(token.final_try) | u8::from(token.locked) << 1;
                texts.iter().fold(Writer::of(0x81), |writer, text| writer.text(text)).byte(flags)
            }
            Answer::Done => Writer::of(0x82),
            Answer::Key { id, enabled } => Writer::of(0x83).field(id).byte(u8::from(*enabled)),
            Answer::Wrapped(wrap) => Writer::of(0x84).field(wrap),
            Answer::Unwrapped(key) => Writer::of(0x85).field(&*key.0),
            Answer::WrongKey => Writer::of(0x86),
            Answer::Refused { refusal, text } => Writer::of(0x87).byte(refusal.code()).text(text),
            Answer::Trouble { step, code } => Writer::of(0x88).byte(step.code()).text(code),
            Answer::Pin { code } => Writer::of(0x89).text(code),
            Answer::NotOpened { reason, text } => Writer::of(0x8a).byte(reason.code()).text(text),
        }
        .end()
    }

    /// Reads a payload.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let read = &mut reader;
        let answer = match read.byte()? {
            0x81 => {
                let (label, maker, model) = (read.text()?, read.text()?, read.text()?);
                let (serial, firmware, flags) = (read.text()?, read.text()?, read.byte()?);
                if flags > 3 {
                    return None;
                }
                let (final_try, locked) = (flags & 1 != 0, flags & 2 != 0);
                Answer::Token(Box::new(TokenInfo { label, maker, model, serial, firmware, final_try, locked }))
            }
            0x82 => Answer::Done,
            0x83 => Answer::Key { id: read.bytes()?, enabled: read.switch()? },
            0x84 => Answer::Wrapped(read.bytes()?),
            0x85 => {
                let mut key = Zeroizing::new([0; 32]);
                let field = read.field()?;
                if field.len() != key.len() {
                    return None;
                }
                key.copy_from_slice(field);
                Answer::Unwrapped(SecretKey(key))
            }
            0x86 => Answer::WrongKey,
            0x87 => Answer::Refused { refusal: Refusal::of_code(read.byte()?)?, text: read.text()? },
            0x88 => Answer::Trouble { step: Step::of_code(read.byte()?)?, code: read.text()? },
            0x89 => Answer::Pin { code: read.text()? },
            0x8a => Answer::NotOpened { reason: NotOpened::of_code(read.byte()?)?, text: read.text()? },
            _ => return None,
        };
        reader.0.is_empty().then_some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noun::Random as _;
    use crate::noun::random::OsRandom;

    fn requests() -> Vec<Request> {
        let (label, id) = ("kms1-00-00000001".to_owned(), vec![7; 16]);
        vec![
            Request::Open { module: b"/lib/module.so".to_vec(), token: "kms".into() },
            Request::Login { pin: Zeroizing::new(b"1234".to_vec()) },
            Request::Look,
            Request::Find { label: label.clone() },
            Request::Create { label: label.clone(), id: id.clone(), mechanism: Choice::Auto },
            Request::Wrap {
                label: label.clone(),
                id: id.clone(),
                mechanism: Choice::CbcPad,
                bound: vec![1; 60],
                key: Zeroizing::new(vec![2; 32]),
            },
            Request::Unwrap { label: label.clone(), id: id.clone(), bound: vec![1; 60], wrap: vec![3; 62] },
            Request::Permit { label: label.clone(), id: id.clone(), on: true },
            Request::Destroy { label, id },
        ]
    }

    fn answers() -> Vec<Answer> {
        let token = TokenInfo { label: "kms".into(), serial: "77".into(), locked: true, ..TokenInfo::default() };
        vec![
            Answer::Token(Box::new(token)),
            Answer::Done,
            Answer::Key { id: vec![7; 16], enabled: false },
            Answer::Wrapped(vec![3; 62]),
            Answer::Unwrapped(SecretKey(Zeroizing::new([9; 32]))),
            Answer::WrongKey,
            Answer::Refused { refusal: Refusal::Unfit, text: "it can be extracted".into() },
            Answer::Trouble { step: Step::Decrypt, code: "CKR_GENERAL_ERROR".into() },
            Answer::Pin { code: "CKR_PIN_INCORRECT".into() },
            Answer::NotOpened { reason: NotOpened::NoToken, text: "other".into() },
        ]
    }

    type Again = fn(&[u8]) -> Option<Zeroizing<Vec<u8>>>;

    /// The frame of each message, and what its payload is read as and written again.
    fn trips() -> Vec<(Zeroizing<Vec<u8>>, Again)> {
        let request = |payload: &[u8]| Request::parse(payload).map(|request| request.frame());
        let answer = |payload: &[u8]| Answer::parse(payload).map(|answer| answer.frame());
        let requests = requests().into_iter().map(|made| (made.frame(), request as Again));
        requests.chain(answers().into_iter().map(|made| (made.frame(), answer as Again))).collect()
    }

    #[test]
    fn what_was_written_is_read_and_nothing_less_or_more() {
        for (frame, again) in trips() {
            let length = payload_bytes(frame[..4].try_into().unwrap()).unwrap();
            assert_eq!(length, frame.len() - 4);
            assert_eq!(*again(&frame[4..]).unwrap(), *frame);
            for cut in 4..frame.len() {
                assert!(again(&frame[4..cut]).is_none(), "cut at {cut}: {frame:02x?}");
            }
            assert!(again(&[&frame[4..], &[0]].concat()).is_none());
        }
    }

    #[test]
    fn no_bytes_make_the_decoders_panic() {
        let rng = OsRandom::new();
        let random = |count: usize| {
            let mut bytes = vec![0; count];
            rng.fill(&mut bytes);
            bytes
        };
        for (frame, again) in trips() {
            for at in 4..frame.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff, random(1)[0]] {
                    let mut changed = frame.to_vec();
                    changed[at] = value;
                    drop(again(&changed[4..]));
                }
            }
        }
        for round in 0..20_000 {
            let mut bytes = random(1 + round % 90);
            // So that the kinds are met more often than by chance.
            if round % 2 == 0 {
                bytes[0] = (round % 11) as u8 | if round % 4 == 0 { 0x80 } else { 0 };
            }
            drop((Request::parse(&bytes), Answer::parse(&bytes)));
        }
        assert!(Request::parse(&[]).is_none() && Answer::parse(&[]).is_none());
    }

    #[test]
    fn a_frame_has_a_bound_and_is_never_empty() {
        let length = |bytes: u32| payload_bytes(bytes.to_be_bytes());
        assert_eq!(length(0), None);
        assert_eq!(length(1), Some(1));
        assert_eq!(length(16_384), Some(16_384));
        assert_eq!(length(16_385), None);
        assert_eq!(length(u32::MAX), None);
    }

    #[test]
    fn a_text_of_a_module_is_one_short_line() {
        let told = Answer::Trouble { step: Step::Find, code: format!("a\nb\x1b[31m{}", "c".repeat(1000)) };
        let Some(Answer::Trouble { code, .. }) = Answer::parse(&told.frame()[4..]) else { panic!("it is one") };
        assert!(code.starts_with("a b [31mccc") && code.chars().count() == TEXT_CHARS_MAX);
        // A process that does not keep to it is held to it by the reader.
        let crafted = [&[0x89, 0x00, 0x03][..], b"a\nb"].concat();
        assert!(matches!(Answer::parse(&crafted), Some(Answer::Pin { code }) if code == "a b"));
    }

    #[test]
    fn no_secret_is_shown() {
        assert_eq!(format!("{:?}", answers().remove(4)), "Unwrapped(SecretKey { .. })");
    }
}
