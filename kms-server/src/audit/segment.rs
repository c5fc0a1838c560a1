//! The files of the log: `seg/<first index, 20 digits>`, preallocated and written in place.
//!
//! Not here: what is written when. A segment is made of zeros before its first frame, so that a
//! synced write changes no metadata; its spare successor is made ahead of need.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::crypto::log_mac::FrameMac;
use crate::kill_point::{Point, pass, pass_with};

use super::frame::{FRAME_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, SEGMENT_HEAD_BYTES, SegmentHead};

/// A segment that frames are being written to.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    dir: PathBuf,
    origin_hash: [u8; 32],
    segment_bytes: u64,
    file: File,
    /// Index of the segment's first leaf.
    first: u64,
    offset: u64,
    capacity: u64,
    spare_asked_for: bool,
    /// The MAC of the last frame written.
    pub(super) previous: FrameMac,
}

/// Where a log goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tail {
    /// Index of the first leaf of the last segment.
    pub segment: u64,
    /// Where in it the next frame begins.
    pub offset: u64,
    /// The next leaf's index.
    pub next: u64,
    /// The MAC of the last frame.
    pub previous: FrameMac,
}

impl SegmentWriter {
    /// Makes the first segment of a new log.
    pub(super) fn create(
        dir: &Path,
        origin_hash: [u8; 32],
        segment_bytes: u64,
        previous: FrameMac,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        sync_dir(dir.parent().unwrap_or(dir))?;
        if !list(dir)?.is_empty() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let (file, capacity) = make_segment(dir, SegmentHead { origin_hash, first: 0, previous }, segment_bytes)?;
        Ok(Self {
            dir: dir.to_owned(),
            origin_hash,
            segment_bytes,
            file,
            first: 0,
            offset: SEGMENT_HEAD_BYTES as u64,
            capacity,
            spare_asked_for: false,
            previous,
        })
    }

    /// Opens the last segment to go on at its tail.
    pub(super) fn resume(dir: &Path, origin_hash: [u8; 32], segment_bytes: u64, tail: Tail) -> io::Result<Self> {
        remove_leftovers(dir)?;
        // The last run may have ended between a segment's name and its being durable.
        sync_dir(dir)?;
        let file = OpenOptions::new().read(true).write(true).open(path_of(dir, tail.segment))?;
        let capacity = file.metadata()?.len();
        rewrite(&file, tail.offset)?;
        Ok(Self {
            dir: dir.to_owned(),
            origin_hash,
            segment_bytes,
            file,
            first: tail.segment,
            offset: tail.offset,
            capacity,
            spare_asked_for: false,
            previous: tail.previous,
        })
    }

    /// Writes a frame whose first leaf has index `first`, and returns when it is durable.
    pub(super) fn write(&mut self, frame: &[u8], first: u64, mac: FrameMac) -> io::Result<()> {
        // The length 0 that ends the segment stays behind the frame.
        if self.offset + frame.len() as u64 + 4 > self.capacity {
            pass(Point::SegmentFull);
            self.roll(first, frame.len() as u64)?;
            pass(Point::SegmentRolled);
        }
        pass_with(Point::FrameTorn, || drop(self.file.write_all_at(&frame[..frame.len() - 1], self.offset)));
        self.file.write_all_at(frame, self.offset)?;
        pass(Point::FrameUnsynced);
        self.file.sync_data()?;
        pass(Point::FrameDurable);
        self.offset += frame.len() as u64;
        self.previous = mac;
        Ok(())
    }

    /// Writes the frame that tells of a torn tail in its place, whether or not the segment has room for
    /// it: a segment may not be left with what a crash tore off.
    ///
    /// First all of it goes but a mark, which is no frame: a crash now leaves something to be told of,
    /// and one while the frame is written leaves no frame that is half made of old bytes.
    pub(super) fn write_over_torn(&mut self, frame: &[u8], mac: FrameMac) -> io::Result<()> {
        self.clear_ahead(TORN_MARK)?;
        pass(Point::TailMarked);
        self.file.write_all_at(frame, self.offset)?;
        self.file.sync_all()?;
        pass(Point::TailTold);
        self.offset += frame.len() as u64;
        self.previous = mac;
        self.capacity = self.capacity.max(self.offset + 4);
        Ok(())
    }

    /// Overwrites with zeros, but for what they begin with, all that a write may have left behind the
    /// tail: what is there may lie in memory only, or on the disk only.
    pub(super) fn clear_ahead(&self, begin: &[u8]) -> io::Result<()> {
        let length = (self.capacity - self.offset).min(TORN_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let marked = begin.len().min(bytes.len());
        bytes[..marked].copy_from_slice(&begin[..marked]);
        self.file.write_all_at(&bytes, self.offset)?;
        self.file.sync_all()
    }

    fn roll(&mut self, first: u64, frame_bytes: u64) -> io::Result<()> {
        let head = SegmentHead { origin_hash: self.origin_hash, first, previous: self.previous };
        let bytes = self.segment_bytes.max(SEGMENT_HEAD_BYTES as u64 + frame_bytes + 4);
        (self.file, self.capacity) = make_segment(&self.dir, head, bytes)?;
        self.first = first;
        self.offset = SEGMENT_HEAD_BYTES as u64;
        self.spare_asked_for = false;
        Ok(())
    }

    /// Returns the index of the segment's first leaf.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Tells once for each segment, when half of it is used, where a spare is wanted.
    pub(super) fn wants_spare(&mut self) -> Option<(PathBuf, u64)> {
        let wanted = self.offset > self.capacity / 2 && !std::mem::replace(&mut self.spare_asked_for, true);
        wanted.then(|| (self.dir.join(SPARE), self.segment_bytes))
    }

    #[cfg(test)]
    pub(super) fn make_writes_fail(&mut self) {
        self.file = File::open(path_of(&self.dir, self.first)).unwrap();
    }
}

/// Writes what a start has read once more, and syncs it: a frame that was read may lie in memory
/// only, if the last run was killed before its sync, or after one that failed.
fn rewrite(file: &File, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; ZEROS_BYTES];
    let mut at = 0;
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS_BYTES);
        file.read_exact_at(&mut buffer[..part], at)?;
        file.write_all_at(&buffer[..part], at)?;
        at += part as u64;
    }
    file.sync_all()
}

/// Removes what the last run was making and never used.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "making") {
            remove_if_there(&path)?;
        }
    }
    remove_if_there(&dir.join(SPARE))
}

/// Makes a file of zeros, to become the next segment. May take a while.
pub(super) fn make_spare(spare: &Path, bytes: u64) -> io::Result<()> {
    let making = spare.with_extension("making");
    remove_if_there(&making)?;
    // What failed half way must not take the space that the store needs.
    make_zeros(&making, bytes).inspect_err(|_| drop(remove_if_there(&making)))?;
    pass(Point::SpareMade);
    std::fs::rename(&making, spare)?;
    pass(Point::SpareNamed);
    Ok(())
}

/// Returns the segments of a log by the index of their first leaf, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(first) = name.to_str().filter(|name| name.len() == 20).and_then(|name| name.parse().ok()) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Reads a whole segment.
pub(super) fn read(dir: &Path, first: u64) -> io::Result<Vec<u8>> {
    std::fs::read(path_of(dir, first))
}

fn make_segment(dir: &Path, head: SegmentHead, bytes: u64) -> io::Result<(File, u64)> {
    // Somebody may be making the next spare: only what has the spare's name is taken, by one rename,
    // and nothing that is being made is touched.
    let path = path_of(dir, head.first);
    let making = path.with_extension("making");
    let taken = std::fs::rename(dir.join(SPARE), &making).is_ok();
    if !taken || making.metadata()?.len() < bytes {
        remove_if_there(&making)?;
        make_zeros(&making, bytes)?;
    }
    let file = OpenOptions::new().read(true).write(true).open(&making)?;
    file.write_all_at(&head.to_bytes(), 0)?;
    file.sync_all()?;
    pass(Point::SegmentHeaded);
    // The name appears only with a durable head under it.
    std::fs::rename(&making, path)?;
    pass(Point::SegmentNamed);
    sync_dir(dir)?;
    let capacity = file.metadata()?.len();
    Ok((file, capacity))
}

fn make_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let zeros = vec![0; ZEROS_BYTES];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS_BYTES);
        file.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The most that one write may leave torn: one is in flight at a time.
pub(super) const TORN_BYTES_MAX: u64 = (PAYLOAD_BYTES_MAX + FRAME_OVERHEAD_BYTES) as u64;

/// What stands for a torn tail until a frame tells of it: a length that no frame has.
const TORN_MARK: &[u8] = &[0xff; 4];

const SPARE: &str = "spare";
const ZEROS_BYTES: usize = 1 << 20;
