//! What is damaged where, and what was acknowledged before: written by a test, read by `kms-trial`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::Random;

/// A data directory as it was left, with all that was acknowledged of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Expected {
    /// The settings of the cluster, whose data directory is made anew for each trial.
    pub settings: PathBuf,
    /// The directory as it was left.
    pub pristine: PathBuf,
    /// What the choice of bits follows from.
    pub seed: u64,
    /// At most so many bytes of each kind are damaged; all if there are fewer.
    pub flips_max: usize,
    /// The same for some kinds, by name.
    pub flips_max_of: BTreeMap<String, usize>,
    /// How often each file is cut off.
    pub cuts: usize,
    /// The kinds of files that are damaged; all if there are none.
    pub kinds: Vec<String>,
    /// Tenants by name.
    pub tenants: BTreeMap<String, Tenant>,
    /// What was sealed.
    pub blobs: Vec<Blob>,
    /// Managed data keys.
    pub data_keys: Vec<DataKey>,
    /// Records in the log.
    pub leaves: usize,
    /// The directory's files, once it was read.
    #[serde(skip)]
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A tenant; states in the service's own words.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Tenant {
    /// Its state.
    pub state: String,
    /// Its keys by name; none of one that is destroyed.
    pub keys: BTreeMap<String, Key>,
}

/// A key.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Key {
    /// Its state.
    pub state: String,
    /// Its versions' states, oldest first.
    pub versions: Vec<String>,
}

/// A ciphertext.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Blob {
    /// Its tenant.
    pub tenant: String,
    /// Its key.
    pub key: String,
    /// The ciphertext.
    pub bytes: Vec<u8>,
    /// What was sealed.
    pub plaintext: Vec<u8>,
    /// Whether it opens.
    pub opens: bool,
}

/// A managed data key.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct DataKey {
    /// Its tenant.
    pub tenant: String,
    /// Its key.
    pub key: String,
    /// Its uid.
    pub uid: Vec<u8>,
    /// The key itself.
    pub plaintext: Vec<u8>,
    /// What becomes of who asks for it.
    pub fate: Fate,
}

/// What there is of a managed data key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Fate {
    /// It is given out.
    #[default]
    Lives,
    /// It was destroyed.
    Destroyed,
    /// Its key or tenant is not in use, or gone.
    Unused,
}

/// One place to damage.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The file, within the data directory.
    pub file: PathBuf,
    /// What kind of file that is.
    pub kind: String,
    /// What is done to it.
    pub action: Action,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// One bit is turned.
    Flip {
        /// The byte.
        at: usize,
        /// The bit.
        bit: u32,
    },
    /// The end is lost.
    Cut {
        /// What is left.
        to: usize,
    },
    /// It is gone.
    Remove,
}

impl Expected {
    /// Writes it, for `kms-trial` to read.
    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec(self)?).with_context(|| format!("writing {}", file.display()))
    }

    /// Reads it, and the directory as it was left.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let mut expected: Self = serde_json::from_slice(&text)?;
        expected.files = contents(&expected.pristine)?;
        Ok(expected)
    }

    /// Returns every trial, always the same and in the same order.
    pub fn trials(&self) -> Result<Vec<Trial>> {
        let mut random = Random::new(self.seed);
        let mut by_kind: BTreeMap<String, Vec<Trial>> = BTreeMap::new();
        let (mut cuts, mut removals) = (Vec::new(), Vec::new());
        let files = contents(&self.pristine)?;
        let last_segment = files.keys().rfind(|path| is_segment(path)).cloned();
        for (file, bytes) in &files {
            let kind = kind_of(file, last_segment.as_deref());
            if !self.kinds.is_empty() && !self.kinds.contains(&kind) {
                continue;
            }
            let trial = |action| Trial { file: file.clone(), kind: kind.clone(), action };
            // Behind the last frame a segment is of zeros.
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for at in 0..bytes.len() {
                let in_room = is_segment(file) && at >= written;
                let kind = if in_room { ROOM.to_owned() } else { kind.clone() };
                let flip = Trial { kind: kind.clone(), ..trial(Action::Flip { at, bit: random.below(8) as u32 }) };
                by_kind.entry(kind).or_default().push(flip);
            }
            if !bytes.is_empty() {
                cuts.extend((0..self.cuts).map(|_| trial(Action::Cut { to: random.below(bytes.len()) })));
            }
            removals.push(trial(Action::Remove));
        }
        let mut trials = Vec::new();
        for (kind, mut flips) in by_kind {
            let flips_max = self.flips_max_of.get(&kind).map_or(self.flips_max, |of_kind| self.flips_max.min(*of_kind));
            while flips.len() > flips_max {
                flips.swap_remove(random.below(flips.len()));
            }
            trials.append(&mut flips);
        }
        trials.append(&mut cuts);
        trials.append(&mut removals);
        Ok(trials)
    }

    /// Returns how many bytes there are of each kind.
    pub fn bytes(&self) -> Result<BTreeMap<String, usize>> {
        let every = Self { flips_max: usize::MAX, flips_max_of: BTreeMap::new(), cuts: 0, ..self.clone() };
        let mut bytes = BTreeMap::new();
        for trial in every.trials()? {
            if matches!(trial.action, Action::Flip { .. }) {
                *bytes.entry(trial.kind).or_default() += 1;
            }
        }
        Ok(bytes)
    }

    /// Makes the data directory as it was left.
    pub fn restore(&self, data: &Path) -> Result<()> {
        match fs::remove_dir_all(data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        fs::create_dir_all(data)?;
        for (file, bytes) in &self.files {
            let path = data.join(file);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }
}

/// Returns all files of a folder with their bytes, by their paths in it.
pub fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("reading {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path)?;
                found.insert(path.strip_prefix(folder).expect("it was found there").to_owned(), bytes);
            }
        }
    }
    Ok(found)
}

fn is_segment(file: &Path) -> bool {
    file.starts_with("seg") && file.file_name().is_some_and(|name| name.len() == 20)
}

/// The room behind the last frame of a segment.
pub const ROOM: &str = "log, room";

fn kind_of(file: &Path, last_segment: Option<&Path>) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let extension = file.extension().unwrap_or_default().to_string_lossy();
    let kind = match (file.components().count(), &*name, &*extension) {
        _ if Some(file) == last_segment => "log, last segment",
        _ if is_segment(file) => "log, older segment",
        (2, _, "sst") => "store, table",
        (2, _, "log") => "store, write-ahead log",
        (2, name, _) if name.starts_with("MANIFEST") => "store, manifest",
        (2, name, _) if name.starts_with("OPTIONS") => "store, options",
        (2, name, _) if name.starts_with("LOG") => "store, messages",
        (2, _, "kms1hsm") => "keystore",
        (2, "destructions", _) => "ledger",
        _ => return file.display().to_string(),
    };
    kind.to_owned()
}
