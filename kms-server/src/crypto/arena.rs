//! Locked memory for long-lived keys: it is never swapped, never in a core dump, and wiped slot by slot.
//!
//! Not a general allocator: slots of 32 bytes, made once, handed out and taken back. One region
//! per process, as there is one heap. With `memfd_secret` even root reading this process's memory
//! gets an error; without it the pages are locked and left out of dumps. Where neither works the
//! service still runs, and says so at start.

#![allow(unsafe_code)] // The one place of `crypto` that asks the kernel for memory of its own.

use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

use zeroize::Zeroize as _;

/// Bytes of a slot: every key of the service has 256 bits.
pub const SLOT_BYTES: usize = 32;

/// Slots asked for when nobody says otherwise: 2 MiB.
pub const SLOTS_DEFAULT: usize = 65_536;

/// How well the region is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protection {
    /// `memfd_secret`: unmapped from the kernel, unreadable for other processes, root's included.
    Secret,
    /// Locked in memory and left out of core dumps.
    Locked,
    /// Left out of core dumps only: the limit on locked memory is too small.
    Unlocked,
}

impl Protection {
    /// Returns words for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Protection::Secret => "memfd_secret",
            Protection::Locked => "mlock, left out of core dumps",
            Protection::Unlocked => "NOT locked: raise RLIMIT_MEMLOCK",
        }
    }
}

/// Every slot is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the locked memory for keys is full")]
pub struct ArenaFull;

/// What the process got.
#[derive(Clone, Copy, Debug)]
pub struct ArenaStatus {
    /// How it is protected.
    pub protection: Protection,
    /// All slots.
    pub slots: usize,
    /// Slots in use.
    pub used: usize,
}

/// Makes the region, once, with up to `slots` slots; later calls change nothing. Says what it got.
pub fn init(slots: usize) -> ArenaStatus {
    REGION.get_or_init(|| Region::map(slots));
    status()
}

/// Says how the region is protected and how full it is.
pub fn status() -> ArenaStatus {
    let region = region();
    let free = region.free.lock().unwrap_or_else(PoisonError::into_inner).len();
    ArenaStatus { protection: region.protection, slots: region.slots, used: region.slots - free }
}

/// 32 bytes of locked memory, wiped when dropped.
pub struct Slot(u32);

impl Slot {
    /// Takes a slot and lets `fill` write it in place.
    pub fn fill_with<E: From<ArenaFull>>(fill: impl FnOnce(&mut [u8; SLOT_BYTES]) -> Result<(), E>) -> Result<Self, E> {
        let region = region();
        let index = region.free.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or(ArenaFull)?;
        let slot = Slot(index);
        // SAFETY: `index` was on the free list, so this `Slot` is the only one that names these
        // 32 bytes; they lie inside the mapping, which is never unmapped.
        fill(unsafe { &mut *region.at(index) })?;
        Ok(slot)
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; SLOT_BYTES] {
        // SAFETY: the slot is owned by `self` and written only before it is shared.
        unsafe { &*region().at(self.0) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let region = region();
        // SAFETY: `self` owns the slot and is going away; nobody else can see it.
        unsafe { &mut *region.at(self.0) }.zeroize();
        region.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

static REGION: OnceLock<Region> = OnceLock::new();

fn region() -> &'static Region {
    REGION.get_or_init(|| Region::map(SLOTS_DEFAULT))
}

struct Region {
    base: NonNull<u8>,
    slots: usize,
    protection: Protection,
    free: Mutex<Vec<u32>>,
}

// SAFETY: `base` points to a mapping that lives as long as the process; access to its parts is
// given out slot by slot under `free`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn map(slots_wanted: usize) -> Self {
        let page = 4096;
        let mut slots = slots_wanted.clamp(SLOTS_MIN, SLOTS_MAX);
        // Both kinds of locked memory count against RLIMIT_MEMLOCK: halve until it fits.
        loop {
            let bytes = (slots * SLOT_BYTES).next_multiple_of(page);
            if let Some(base) = map_secret(bytes) {
                return Self::new(base, slots, Protection::Secret);
            }
            if let Some(base) = map_locked(bytes) {
                return Self::new(base, slots, Protection::Locked);
            }
            if slots / 2 < SLOTS_MIN {
                break;
            }
            slots /= 2;
        }
        let slots = slots_wanted.clamp(SLOTS_MIN, SLOTS_MAX);
        let base =
            map_private((slots * SLOT_BYTES).next_multiple_of(page)).expect("the system gives a few MiB of memory");
        Self::new(base, slots, Protection::Unlocked)
    }

    fn new(base: NonNull<u8>, slots: usize, protection: Protection) -> Self {
        let last = u32::try_from(slots).expect("SLOTS_MAX fits 32 bits");
        Self { base, slots, protection, free: Mutex::new((0..last).rev().collect()) }
    }

    fn at(&self, index: u32) -> *mut [u8; SLOT_BYTES] {
        assert!((index as usize) < self.slots, "a slot's index comes from the free list");
        // SAFETY: `index < slots`, and the mapping has `slots * SLOT_BYTES` bytes.
        unsafe { self.base.as_ptr().add(index as usize * SLOT_BYTES).cast() }
    }
}

fn map_secret(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: plain system calls; the descriptor is closed on every path after it was opened, and
    // a mapping stays valid without it.
    unsafe {
        let fd = i32::try_from(libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC)).ok().filter(|fd| *fd >= 0)?;
        let length = libc::off_t::try_from(bytes).ok()?;
        let base = if libc::ftruncate(fd, length) == 0 {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)
        } else {
            libc::MAP_FAILED
        };
        libc::close(fd);
        if base == libc::MAP_FAILED {
            return None;
        }
        libc::madvise(base, bytes, libc::MADV_DONTFORK);
        NonNull::new(base.cast())
    }
}

fn map_locked(bytes: usize) -> Option<NonNull<u8>> {
    let base = map_private(bytes)?;
    // SAFETY: the range was mapped by the line above.
    unsafe {
        if libc::mlock(base.as_ptr().cast(), bytes) != 0 {
            libc::munmap(base.as_ptr().cast(), bytes);
            return None;
        }
    }
    Some(base)
}

fn map_private(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: an anonymous mapping of its own; the advice is given on just that range.
    unsafe {
        let base = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if base == libc::MAP_FAILED {
            return None;
        }
        libc::madvise(base, bytes, libc::MADV_DONTDUMP);
        libc::madvise(base, bytes, libc::MADV_DONTFORK);
        NonNull::new(base.cast())
    }
}

const SLOTS_MIN: usize = 128;
const SLOTS_MAX: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(byte: u8) -> Slot {
        Slot::fill_with(|bytes| {
            bytes.fill(byte);
            Ok::<_, ArenaFull>(())
        })
        .unwrap()
    }

    #[test]
    fn a_slot_keeps_its_bytes_and_its_neighbours() {
        let (a, b) = (slot(0xaa), slot(0xbb));
        assert_eq!(a.bytes(), &[0xaa; 32]);
        assert_eq!(b.bytes(), &[0xbb; 32]);
    }

    #[test]
    fn a_dropped_slot_is_wiped() {
        let slot = slot(0xcc);
        let place = region().at(slot.0);
        drop(slot);
        // Another test may have taken the slot since; it never writes 0xcc.
        // SAFETY: the mapping is never unmapped; a torn read of bytes is still bytes.
        assert_ne!(unsafe { std::ptr::read_volatile(place) }, [0xcc; 32]);
    }

    #[test]
    fn a_failed_fill_gives_the_slot_back() {
        // Not counted through `status()`: other tests of this process take slots as well.
        let mut taken = None;
        let failed = Slot::fill_with(|bytes| {
            taken = Some(std::ptr::from_mut(bytes));
            bytes.fill(0xdd);
            Err(ArenaFull)
        });
        assert!(failed.is_err());
        // SAFETY: as above.
        assert_ne!(unsafe { std::ptr::read_volatile(taken.unwrap()) }, [0xdd; 32]);
    }
}
