//! A keystore file of the software HSM: one version of the master key under a PIN.
//!
//! ```text
//! file = "kms1hsm" 01 || master id 16 || u24 version || u32 memory KiB || u32 passes || u32 lanes ||
//!        salt 16 || u32 export serial (0 = original) || blob 128
//! ```
//! The blob (kind 16) is under Argon2id 1.3 (RFC 9106) of the PIN; its aad is the 59 bytes before
//! it. Parameters above 1 GiB / 16 / 16 are refused: a forged file must not exhaust the machine.

use argon2::{Algorithm, Argon2, Params, Version};

use crate::noun::{EpochNumber, Random, Uid};

use super::arena::ArenaFull;
use super::chain::{EpochPlace, WRAPPED_KEY_BYTES, WrappedKey, unwrap, wrap};
use super::construction::OpenError;
use super::context::hash_of_own;
use super::header::{Header, Kind};
use super::kdf;
use super::secret::{MasterKey, PinKey};

/// The serial of a file that is no export.
pub const ORIGINAL: u32 = 0;

/// Bytes of a keystore file.
pub const FILE_BYTES: usize = HEAD_BYTES + WRAPPED_KEY_BYTES;

const HEAD_BYTES: usize = 59;
const MAGIC: &[u8] = b"kms1hsm";
const FORMAT: u8 = 1;
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// How hard it is to try a PIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PinCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PinCost {
    /// 64 MiB, 3 passes, 1 lane.
    pub const DEFAULT: PinCost = PinCost { memory_kib: 65_536, passes: 3, lanes: 1 };
}

/// Why a keystore file does not give its key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeystoreError {
    /// Of another size.
    #[error(
        "it has {0} bytes, and a keystore file has 187: it was cut or is another file; put back the file as it was made"
    )]
    Size(usize),
    /// Not a keystore file.
    #[error("it is no keystore file: it does not begin with kms1hsm; put back the file as it was made")]
    Format,
    /// Of another format than this release has.
    #[error("it is a keystore file of format {0}, and this release reads format 1: use the release that made it")]
    Version(u8),
    /// A version number or wrapped key that none has.
    #[error("its numbers are none that a keystore file has: it was changed; put back the file as it was made")]
    Head,
    /// Parameters out of bounds.
    #[error("the keystore file asks for more than 1 GiB, 16 passes or 16 lanes")]
    Cost,
    /// Of another master key or version than expected.
    #[error("the keystore file is of another master key or version")]
    Other,
    /// Wrong PIN, another cluster, or a changed file.
    #[error("the PIN is wrong, or the keystore file was changed or is of another cluster")]
    PinOrDamage,
    /// No room in locked memory.
    #[error("the locked memory for keys is full")]
    ArenaFull,
}

impl From<ArenaFull> for KeystoreError {
    fn from(_: ArenaFull) -> Self {
        KeystoreError::ArenaFull
    }
}

/// The public part of a keystore file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeystoreHead {
    /// The master key's id: the same in all files of one master key.
    pub master_id: Uid,
    /// The version, which is the number of its epoch.
    pub version: EpochNumber,
    /// What a try of the PIN costs.
    pub cost: PinCost,
    /// 0 for the original, counted up for exports.
    pub export_serial: u32,
    salt: [u8; 16],
}

impl KeystoreHead {
    /// Makes the public part of a new file, with a salt of its own.
    pub fn new(master_id: Uid, version: EpochNumber, cost: PinCost, export_serial: u32, rng: &dyn Random) -> Self {
        let mut salt = [0; 16];
        rng.fill(&mut salt);
        Self { master_id, version, cost, export_serial, salt }
    }

    /// Reads the public part of a file.
    pub fn parse(file: &[u8]) -> Result<Self, KeystoreError> {
        // First what it is: the file of a newer release may well have another size.
        match file.split_at_checked(MAGIC.len()) {
            Some((MAGIC, [FORMAT, ..])) => {}
            Some((MAGIC, [other, ..])) => return Err(KeystoreError::Version(*other)),
            Some(_) | None => return Err(KeystoreError::Format),
        }
        let file: &[u8; FILE_BYTES] = file.try_into().map_err(|_| KeystoreError::Size(file.len()))?;
        let u32_at = |at: usize| u32::from_be_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]);
        let cost = PinCost { memory_kib: u32_at(27), passes: u32_at(31), lanes: u32_at(35) };
        if cost.memory_kib > MEMORY_KIB_MAX || cost.passes > PASSES_MAX || cost.lanes > LANES_MAX {
            return Err(KeystoreError::Cost);
        }
        Ok(Self {
            master_id: Uid::from_slice(&file[8..24]).ok_or(KeystoreError::Head)?,
            version: EpochNumber::from_u24([file[24], file[25], file[26]]).ok_or(KeystoreError::Head)?,
            cost,
            export_serial: u32_at(55),
            salt: *file[39..].first_chunk().ok_or(KeystoreError::Head)?,
        })
    }

    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..7].copy_from_slice(MAGIC);
        bytes[7] = FORMAT;
        bytes[8..24].copy_from_slice(self.master_id.as_bytes());
        bytes[24..27].copy_from_slice(&self.version.to_u24());
        bytes[27..31].copy_from_slice(&self.cost.memory_kib.to_be_bytes());
        bytes[31..35].copy_from_slice(&self.cost.passes.to_be_bytes());
        bytes[35..39].copy_from_slice(&self.cost.lanes.to_be_bytes());
        bytes[39..55].copy_from_slice(&self.salt);
        bytes[55..].copy_from_slice(&self.export_serial.to_be_bytes());
        bytes
    }

    fn blob_header(&self) -> Header {
        EpochPlace { id: self.master_id, number: self.version }.header(Kind::MasterKey)
    }
}

/// Makes the file of a master key version. Takes as long as the PIN's cost says.
pub fn seal(
    master: &MasterKey,
    head: &KeystoreHead,
    cluster: Uid,
    pin: &[u8],
    rng: &dyn Random,
) -> Result<[u8; FILE_BYTES], KeystoreError> {
    let head_bytes = head.to_bytes();
    let pin_key = pin_key(pin, head)?;
    let blob = wrap(pin_key.bytes(), head.blob_header(), &context(cluster, &head_bytes), master.bytes(), rng);
    let mut file = [0; FILE_BYTES];
    file[..HEAD_BYTES].copy_from_slice(&head_bytes);
    file[HEAD_BYTES..].copy_from_slice(blob.as_bytes());
    Ok(file)
}

/// Opens the file of a master key version. Takes as long as the PIN's cost says.
pub fn open(file: &[u8], cluster: Uid, pin: &[u8]) -> Result<(KeystoreHead, MasterKey), KeystoreError> {
    let head = KeystoreHead::parse(file)?;
    let blob = WrappedKey::from_slice(&file[HEAD_BYTES..]).ok_or(KeystoreError::Head)?;
    let pin_key = pin_key(pin, &head)?;
    let context = context(cluster, &file[..HEAD_BYTES]);
    let master = MasterKey::fill_with(|out| unwrap(pin_key.bytes(), head.blob_header(), &context, &blob, out))
        .map_err(
            |error: OpenError| {
                if error.is_for_want_of_room() { KeystoreError::ArenaFull } else { KeystoreError::PinOrDamage }
            },
        )?;
    Ok((head, master))
}

/// Returns the bytes of a PIN file less one trailing line end.
pub fn pin_of_file(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn pin_key(pin: &[u8], head: &KeystoreHead) -> Result<PinKey, KeystoreError> {
    let params = Params::new(head.cost.memory_kib, head.cost.passes, head.cost.lanes, Some(32))
        .map_err(|_| KeystoreError::Cost)?;
    let key = PinKey::fill_with(|out| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(pin, &head.salt, out)
            .map_err(|_| KeystoreError::Cost)
    });
    kdf::scrub_stack();
    key
}

fn context(cluster: Uid, head: &[u8]) -> super::context::ContextHash {
    hash_of_own("", head, &[("kms1", "master-key"), ("cluster", &cluster.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noun::random::OsRandom;

    const CLUSTER: Uid = Uid::from_bytes([0xc1; 16]);

    fn file() -> [u8; FILE_BYTES] {
        let rng = OsRandom::new();
        let cost = PinCost { memory_kib: 8, passes: 1, lanes: 1 };
        let master = MasterKey::generate(&rng).unwrap();
        let head = KeystoreHead::new(Uid::generate(&rng), EpochNumber::FIRST, cost, ORIGINAL, &rng);
        seal(&master, &head, CLUSTER, b"pin", &rng).unwrap()
    }

    #[test]
    fn every_bit_flip_of_a_keystore_file_is_refused() {
        let file = file();
        open(&file, CLUSTER, b"pin").unwrap();
        let mut refusals = std::collections::BTreeMap::<String, usize>::new();
        for bit in 0..FILE_BYTES * 8 {
            let mut flipped = file;
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Such a try takes what it asks for, up to the bound; the three costliest of them are left out here, and
            // are refused by the same line as their neighbours.
            if KeystoreHead::parse(&flipped).is_ok_and(|head| head.cost.memory_kib >= 1 << 17) {
                continue;
            }
            match open(&flipped, CLUSTER, b"pin") {
                Ok(_) => panic!("bit {bit} of byte {} changes nothing", bit / 8),
                Err(error) => *refusals.entry(format!("{error:?}")).or_default() += 1,
            }
        }
        println!("{} bits of a keystore file flipped: {refusals:?}", FILE_BYTES * 8);
    }

    #[test]
    fn every_other_length_of_a_keystore_file_is_refused() {
        let file = file();
        for end in 0..FILE_BYTES {
            let expected = if end < 8 { KeystoreError::Format } else { KeystoreError::Size(end) };
            assert_eq!(open(&file[..end], CLUSTER, b"pin").map(drop), Err(expected), "end {end}");
        }
        let longer = [&file[..], &[0]].concat();
        assert_eq!(open(&longer, CLUSTER, b"pin").map(drop), Err(KeystoreError::Size(FILE_BYTES + 1)));
    }

    #[test]
    fn a_newer_format_is_told_from_another_file() {
        let mut file = file();
        file[7] = 2;
        assert_eq!(KeystoreHead::parse(&file), Err(KeystoreError::Version(2)));
        assert_eq!(KeystoreHead::parse(&[&file[..], b"more"].concat()), Err(KeystoreError::Version(2)));
        assert_eq!(KeystoreHead::parse(b"-----BEGIN CERTIFICATE-----"), Err(KeystoreError::Format));
    }

    #[test]
    fn another_pin_and_another_cluster_open_nothing() {
        let file = file();
        assert_eq!(open(&file, CLUSTER, b"pim").map(drop), Err(KeystoreError::PinOrDamage));
        assert_eq!(open(&file, Uid::from_bytes([0xc2; 16]), b"pin").map(drop), Err(KeystoreError::PinOrDamage));
    }
}
