//! Which managed data keys were made: the first uid of each batch, how many it has, and a hash of what was given out.
//!
//! In a file, one line for each batch, so that a later run goes on where an earlier one was stopped. A batch that was
//! made and not written down is never asked for.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use kms_server::crypto::sha256;
use kms_tests::Random;

/// Managed data keys that one request made.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    first: [u8; 16],
    pub count: usize,
    /// Of the data keys, one after the other.
    pub hash: [u8; 32],
}

/// All of them.
pub struct Made {
    file: File,
    pub batches: Vec<Batch>,
    pub keys: usize,
}

impl Batch {
    /// Returns the uid of one of them: those of a batch count from its first.
    pub fn uid(&self, place: usize) -> Vec<u8> {
        let place = u32::try_from(place).expect("a batch has at most 10,000");
        [&self.first[..12], &place.to_be_bytes()].concat()
    }

    pub fn uids(&self) -> Vec<Vec<u8>> {
        (0..self.count).map(|place| self.uid(place)).collect()
    }
}

/// The aad of a key: what it has of its own in its context.
pub fn aad(uid: &[u8]) -> Vec<u8> {
    aad_at(u32::from_be_bytes(uid[12..].try_into().expect("a uid has 16 bytes")) as usize)
}

pub fn aad_at(place: usize) -> Vec<u8> {
    format!("row {place}").into_bytes()
}

impl Made {
    /// Opens the file of what was made.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut batches = Vec::new();
        for line in BufReader::new(&file).lines() {
            let line = line?;
            // One may have been cut off, when it was the last.
            let Some(batch) = parse(&line) else { continue };
            batches.push(batch);
        }
        let keys = batches.iter().map(|batch| batch.count).sum();
        Ok(Self { file, batches, keys })
    }

    /// Notes a batch that was made, with the keys that were given out.
    pub fn add(&mut self, first_uid: &[u8], plaintexts: &[&[u8]]) -> Result<Batch> {
        let first = first_uid.try_into().context("a uid has 16 bytes")?;
        let batch = Batch { first, count: plaintexts.len(), hash: sha256(&plaintexts.concat()) };
        write!(self.file, "\n{} {} {}", hex::encode(batch.first), batch.count, hex::encode(batch.hash))?;
        self.batches.push(batch);
        self.keys += batch.count;
        Ok(batch)
    }

    /// Chooses uids among those of some batches.
    pub fn choose(batches: &[Batch], count: usize, random: &mut Random) -> Vec<Vec<u8>> {
        let mut ends = Vec::with_capacity(batches.len());
        let mut keys = 0;
        for batch in batches {
            keys += batch.count;
            ends.push(keys);
        }
        let one = |_| {
            let place = random.below(keys);
            let at = ends.partition_point(|end| *end <= place);
            batches[at].uid(place + batches[at].count - ends[at])
        };
        (0..count).map(one).collect()
    }
}

fn parse(line: &str) -> Option<Batch> {
    let (first, rest) = line.split_once(' ')?;
    let (count, hash) = rest.split_once(' ')?;
    Some(Batch {
        first: hex::decode(first).ok()?.try_into().ok()?,
        count: count.parse().ok()?,
        hash: hex::decode(hash).ok()?.try_into().ok()?,
    })
}
