//! What holds for the software HSM beyond the contract: its files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::backend::{BackendKind, BackendSettings, Prepared, contract, prepare};
use crate::crypto::header::Kind;
use crate::noun::random::OsRandom;

mod wrong_pin;

const CHEAP: PinCost = PinCost { memory_kib: 64, passes: 1, lanes: 1 };
const CLUSTER: Uid = Uid::from_bytes([0xc1; 16]);

/// A backend in a directory of its own, and all the randomness that it took.
struct Place {
    root: TempDir,
    taken: Arc<Recorder>,
}

/// Passes randomness on and remembers it: the only way to see a master key from here.
struct Recorder {
    rng: OsRandom,
    taken: Mutex<Vec<Vec<u8>>>,
}

impl Random for Recorder {
    fn fill(&self, out: &mut [u8]) {
        self.rng.fill(out);
        self.taken.lock().unwrap().push(out.to_vec());
    }
}

/// Waits for nothing: what waits is in `wrong_pin`.
struct NoPause;

#[async_trait]
impl Pause for NoPause {
    async fn pause(&self, _: std::time::Duration) {}
}

impl Place {
    async fn new() -> Self {
        let taken = Arc::new(Recorder { rng: OsRandom::new(), taken: Mutex::default() });
        let place = Self { root: TempDir::new().unwrap(), taken };
        SoftwareHsm::init(&place.dir(), &place.pin_file(), Arc::clone(&place.taken) as _).await.unwrap();
        place
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("hsm")
    }

    fn pin_file(&self) -> PathBuf {
        self.root.path().join("secret/pin")
    }

    fn prepared(&self) -> Prepared {
        let kind = BackendKind::Software { pin_file: self.pin_file(), pin_cost: PinCost::DEFAULT };
        prepare(&BackendSettings { dir: self.dir(), kind }).unwrap()
    }

    fn open(&self) -> SoftwareHsm {
        self.open_for(CLUSTER)
    }

    fn open_for(&self, cluster: Uid) -> SoftwareHsm {
        let pause = Arc::new(NoPause);
        SoftwareHsm::open(&self.dir(), &self.pin_file(), cluster, CHEAP, Arc::clone(&self.taken) as _, pause)
    }

    fn file(&self, version: &MasterKeyRef) -> PathBuf {
        self.dir().join(&version.0)
    }

    /// Every file with its bytes and mode, but for the count of wrong PINs.
    fn everything(&self) -> Vec<(PathBuf, Vec<u8>, u32)> {
        let mut all = Vec::new();
        for dir in [self.dir(), self.root.path().join("secret")] {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with(attempts::FILE_NAME) {
                    continue;
                }
                all.push((path.clone(), fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode()));
            }
        }
        all.sort();
        all
    }

    fn keystore_holds(&self, needle: &[u8]) -> bool {
        fs::read_dir(self.dir())
            .unwrap()
            .any(|entry| fs::read(entry.unwrap().path()).unwrap().windows(needle.len()).any(|window| window == needle))
    }
}

fn context(epoch: u32) -> EpochContext {
    EpochContext { cluster: CLUSTER, epoch_id: Uid::from_bytes([0xe0; 16]), epoch: EpochNumber::new(epoch).unwrap() }
}

fn key() -> EpochKey {
    EpochKey::generate(&OsRandom::new()).unwrap()
}

/// A version with a key wrapped under it.
async fn wrapped(hsm: &SoftwareHsm, epoch: u32) -> (MasterKeyRef, Vec<u8>) {
    let version = hsm.create_version(&context(epoch)).await.unwrap();
    let wrap = hsm.wrap(&version, &context(epoch), &key()).await.unwrap();
    (version, wrap)
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Asserts a refusal, and returns what it says.
#[track_caller]
fn denied<T>(result: Result<T, BackendError>) -> String {
    match result {
        Err(error @ BackendError::Denied(_)) => chain(&error),
        Err(other) => panic!("not refused but {}", chain(&other)),
        Ok(_) => panic!("not refused"),
    }
}

/// As [`denied`], or a PIN that does not fit: the two look alike.
#[track_caller]
fn not_opened<T>(result: Result<T, BackendError>) -> String {
    if matches!(result, Err(BackendError::Credentials(_))) { pin_refused(result) } else { denied(result) }
}

/// As [`denied`], for a PIN.
#[track_caller]
fn pin_refused<T>(result: Result<T, BackendError>) -> String {
    match result {
        Err(error @ BackendError::Credentials(_)) => chain(&error),
        other => panic!("not a refused PIN but {:?}", other.err()),
    }
}

#[track_caller]
fn unavailable<T>(result: Result<T, BackendError>) -> String {
    match result {
        Err(error @ BackendError::Unavailable(_)) => chain(&error),
        Err(other) => panic!("not unavailable but {}", chain(&other)),
        Ok(_) => panic!("not unavailable"),
    }
}

#[tokio::test]
async fn software_hsm_keeps_the_contract() {
    let place = Place::new().await;
    let nowhere = || {
        Arc::new(SoftwareHsm::open(
            &place.root.path().join("not mounted"),
            &place.pin_file(),
            CLUSTER,
            CHEAP,
            Arc::clone(&place.taken) as _,
            Arc::new(NoPause),
        ))
    };
    let other_pin = place.root.path().join("other pin");
    private_file::create(&other_pin, b"of somebody else").unwrap();
    let subject = contract::Subject {
        cluster: CLUSTER,
        open: &|| Arc::new(place.open()),
        unreachable: &|| nowhere(),
        stranger: &|| {
            let (rng, pause) = (Arc::clone(&place.taken) as _, Arc::new(NoPause));
            Arc::new(SoftwareHsm::open(&place.dir(), &other_pin, CLUSTER, CHEAP, rng, pause))
        },
    };
    let kept = contract::check(subject).await;
    println!("contract: software {}/{} kept", kept.len(), kept.len());
    assert_eq!(kept.len(), 14);
}

#[tokio::test]
async fn the_files_of_the_vectors_open_at_full_cost() {
    let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/kms1_vectors.json")).unwrap();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let wrapped = &vectors["wrapped_epoch_key"];
    let cluster = Uid::from_slice(&bytes(&wrapped["cluster"])).unwrap();
    let epoch_id = Uid::from_slice(&bytes(&vectors["wrapped_tenant_key"]["epoch_id"])).unwrap();
    let version = MasterKeyRef(format!("{}-00000007.kms1hsm", wrapped["master_id"].as_str().unwrap()));

    let place = Place::new().await;
    fs::write(place.file(&version), bytes(&vectors["keystore_file"]["file"])).unwrap();
    fs::set_permissions(place.file(&version), Permissions::from_mode(0o600)).unwrap();
    fs::write(place.pin_file(), vectors["keystore_file"]["pin"].as_str().unwrap()).unwrap();
    let hsm = place.prepared().open(cluster, Arc::new(OsRandom::new())).unwrap();
    let context = EpochContext { cluster, epoch_id, epoch: EpochNumber::new(7).unwrap() };
    let key = hsm.unwrap(&version, &context, &bytes(&wrapped["blob"])).await.unwrap();
    assert_eq!(hex::encode(key.kcv(&epoch_id, context.epoch)), vectors["epoch_kcv"].as_str().unwrap());

    // And what is made at full cost has the parameters of the vector.
    let next = EpochContext { epoch: EpochNumber::new(8).unwrap(), ..context };
    let made = hsm.create_version(&next).await.unwrap();
    let head = KeystoreHead::parse(&fs::read(place.file(&made)).unwrap()).unwrap();
    assert_eq!(head.cost, PinCost::DEFAULT);
    let wrap = hsm.wrap(&made, &next, &key).await.unwrap();
    assert_eq!(wrap.len(), bytes(&wrapped["blob"]).len());
    hsm.unwrap(&made, &next, &wrap).await.unwrap();
}

#[tokio::test]
async fn a_wrap_is_128_bytes_of_kind_11_under_the_version() {
    let place = Place::new().await;
    let (version, wrap) = wrapped(&place.open(), 1).await;
    let wrap = WrappedKey::from_slice(&wrap).unwrap();
    let header = wrap.header().unwrap();
    assert_eq!(wrap.as_bytes().len(), 128);
    assert_eq!((header.kind, header.version.get()), (Kind::EpochKey, 1));
    assert_eq!(version.0, format!("{}-00000001.kms1hsm", header.key_id));
}

#[tokio::test]
async fn every_changed_bit_of_a_wrap_is_a_wrong_key() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    for bit in 0..wrap.len() * 8 {
        let mut flipped = wrap.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(hsm.unwrap(&version, &context(1), &flipped).await, Err(BackendError::WrongKey)), "bit {bit}");
    }
    for end in 0..wrap.len() {
        assert!(
            matches!(hsm.unwrap(&version, &context(1), &wrap[..end]).await, Err(BackendError::WrongKey)),
            "end {end}"
        );
    }
}

#[tokio::test]
async fn init_makes_a_private_directory_and_pin_and_keeps_what_is_there() {
    let place = Place::new().await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(place.dir()), 0o700);
    assert_eq!(mode(place.pin_file()), 0o600);
    let pin = fs::read_to_string(place.pin_file()).unwrap();
    assert_eq!((pin.len(), pin.trim_end().split('-').count()), (40, 8));
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0);

    let (version, wrap) = wrapped(&place.open(), 1).await;
    assert_eq!(mode(place.file(&version)), 0o600);
    let before = place.everything();
    place.prepared().init(Arc::new(OsRandom::new())).await.unwrap();
    assert_eq!(place.everything(), before);
    place.open().unwrap(&version, &context(1), &wrap).await.unwrap();
}

#[tokio::test]
async fn neither_master_key_nor_pin_ever_lies_in_the_keystore() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, _) = wrapped(&hsm, 1).await;
    let pin = fs::read(place.pin_file()).unwrap();
    // The 32-byte draws of this version are its master key alone: salts have 16, IVs 12 bytes.
    let masters: Vec<_> = place.taken.taken.lock().unwrap().iter().filter(|draw| draw.len() == 32).cloned().collect();
    assert_eq!(masters.len(), 1);
    let file = fs::read(place.file(&version)).unwrap();
    assert!(place.keystore_holds(&file[39..55]), "the search finds what is there");
    let absent = |what: &[u8]| what.windows(8).all(|part| !place.keystore_holds(part));
    assert!(absent(&masters[0]));
    assert!(absent(&pin));
    hsm.disable_version(&version).await.unwrap();
    hsm.destroy_version(&version).await.unwrap();
    assert!(absent(&masters[0]));
    assert!(absent(&pin));
}

#[tokio::test]
async fn nothing_of_a_destroyed_file_is_left() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    let (other, wrap_of_other) = wrapped(&hsm, 2).await;
    let path = place.file(&version);
    let file = fs::read(&path).unwrap();
    // A second name of the same blocks: it shows what becomes of them.
    let blocks = place.root.path().join("blocks");
    fs::hard_link(&path, &blocks).unwrap();
    hsm.destroy_version(&version).await.unwrap();

    assert!(!path.exists());
    let commitment = 59 + 48..59 + 80;
    for needle in [&file[39..55], &file[commitment.clone()][..16], &file[commitment][16..], &file[..31]] {
        assert!(!place.keystore_holds(needle));
    }
    let overwritten = fs::read(&blocks).unwrap();
    assert_eq!(overwritten.len(), file.len());
    assert!(
        file.windows(8).all(|part| overwritten.windows(8).all(|window| window != part)),
        "overwritten through the descriptor"
    );
    assert!(denied(hsm.unwrap(&version, &context(1), &wrap).await).contains("was destroyed"));
    hsm.unwrap(&other, &context(2), &wrap_of_other).await.unwrap();
}

#[tokio::test]
async fn a_version_number_is_never_used_twice() {
    let place = Place::new().await;
    let hsm = place.open();
    let (third, _) = {
        wrapped(&hsm, 1).await;
        wrapped(&hsm, 3).await
    };
    assert!(denied(hsm.create_version(&context(2)).await).contains("has had version 3"));
    hsm.destroy_version(&third).await.unwrap();
    for hsm in [hsm, place.open()] {
        assert!(denied(hsm.create_version(&context(3)).await).contains("was destroyed"));
        assert!(denied(hsm.create_version(&context(2)).await).contains("has had version 3"));
    }
    wrapped(&place.open(), 4).await;
}

#[tokio::test]
async fn a_copy_put_back_stays_dead_and_is_destroyed_again() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    wrapped(&hsm, 2).await;
    let (path, copy) = (place.file(&version), place.root.path().join("copy"));
    fs::copy(&path, &copy).unwrap();
    hsm.destroy_version(&version).await.unwrap();
    fs::copy(&copy, &path).unwrap();
    assert!(denied(hsm.unwrap(&version, &context(1), &wrap).await).contains("was destroyed"));
    assert!(denied(hsm.create_version(&context(1)).await).contains("was destroyed"));
    assert!(hsm.status().await.unwrap().detail.ends_with("came back, destroy them again: 1"));
    hsm.destroy_version(&version).await.unwrap();
    assert!(!path.exists());
    assert!(hsm.status().await.unwrap().detail.ends_with("newest version 2; 1 enabled, 0 disabled, 1 destroyed"));
}

#[tokio::test]
async fn an_interrupted_destruction_refuses_and_can_be_ended() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    // Ended right after the marker.
    fs::write(place.dir().join(format!("{}.destroyed", version.0)), "").unwrap();
    denied(hsm.unwrap(&version, &context(1), &wrap).await);
    assert!(place.file(&version).exists());
    hsm.destroy_version(&version).await.unwrap();
    assert!(!place.file(&version).exists());
}

#[tokio::test]
async fn an_interrupted_creation_leaves_no_second_key_and_harms_no_first() {
    let place = Place::new().await;
    let hsm = place.open();
    // Ended before the file had its name: whatever lies there is no key of anything.
    let stray = place.dir().join(format!(".{}-00000001.kms1hsm.tmp", Uid::from_bytes([5; 16])));
    fs::write(&stray, "half").unwrap();
    let (first, wrap) = wrapped(&hsm, 1).await;
    assert!(!stray.exists());
    // Ended between the two names of one finished file.
    let second_name = place.dir().join(format!(".{}.tmp", first.0));
    fs::hard_link(place.file(&first), &second_name).unwrap();
    wrapped(&hsm, 2).await;
    assert!(!second_name.exists());
    hsm.unwrap(&first, &context(1), &wrap).await.unwrap();
}

#[tokio::test]
async fn disabling_leaves_the_key_file_as_it_was() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    let file = fs::read(place.file(&version)).unwrap();
    hsm.disable_version(&version).await.unwrap();
    assert_eq!(fs::read(place.file(&version)).unwrap(), file);
    assert!(denied(hsm.unwrap(&version, &context(1), &wrap).await).contains("is disabled"));
    assert!(denied(hsm.create_version(&context(1)).await).contains("is disabled"));
}

#[tokio::test]
async fn a_wrong_pin_is_refused_and_changes_nothing() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    let right = fs::read(place.pin_file()).unwrap();
    fs::write(place.pin_file(), "another pin\n").unwrap();
    let before = place.everything();
    pin_refused(hsm.unwrap(&version, &context(1), &wrap).await);
    pin_refused(hsm.wrap(&version, &context(1), &key()).await);
    pin_refused(hsm.create_version(&context(1)).await);
    assert_eq!(place.everything(), before);
    fs::write(place.pin_file(), right).unwrap();
    hsm.unwrap(&version, &context(1), &wrap).await.unwrap();
}

#[tokio::test]
async fn a_pin_is_its_files_bytes_less_one_line_end() {
    let place = Place::new().await;
    fs::write(place.pin_file(), "a pin ").unwrap();
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    for same in ["a pin \n", "a pin \r\n"] {
        fs::write(place.pin_file(), same).unwrap();
        hsm.unwrap(&version, &context(1), &wrap).await.unwrap();
    }
    for other in ["a pin", "a pin \n\n", " a pin ", "A pin "] {
        fs::write(place.pin_file(), other).unwrap();
        pin_refused(hsm.unwrap(&version, &context(1), &wrap).await);
    }
    for bad in ["", "\n", "\r\n", &"x".repeat(1_025), &"x".repeat(100_000)] {
        fs::write(place.pin_file(), bad).unwrap();
        assert!(pin_refused(hsm.unwrap(&version, &context(1), &wrap).await).contains("must have 1 to 1024"));
    }
    fs::write(place.pin_file(), "x".repeat(1_024) + "\r\n").unwrap();
    wrapped(&hsm, 2).await;
}

#[tokio::test]
async fn files_that_others_may_use_are_refused() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    let pin_file = place.pin_file();
    for (path, mode, good) in [
        (place.file(&version), 0o644, 0o600),
        (place.file(&version), 0o660, 0o600),
        (pin_file.clone(), 0o640, 0o600),
        (pin_file, 0o604, 0o400),
        (place.dir(), 0o722, 0o700),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let said = denied(hsm.unwrap(&version, &context(1), &wrap).await);
        for part in [&format!("{mode:04o}"), path.to_str().unwrap(), "chmod"] {
            assert!(said.contains(part), "{said}");
        }
        denied(hsm.status().await);
        fs::set_permissions(&path, Permissions::from_mode(good)).unwrap();
        hsm.unwrap(&version, &context(1), &wrap).await.unwrap();
    }
}

#[tokio::test]
async fn a_keystore_file_is_no_link_but_the_pin_may_be_one() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    let move_behind_link = |path: PathBuf| {
        let target = place.root.path().join("target").with_extension(path.file_name().unwrap());
        fs::rename(&path, &target).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    move_behind_link(place.pin_file());
    hsm.unwrap(&version, &context(1), &wrap).await.unwrap();
    move_behind_link(place.file(&version));
    assert!(denied(hsm.unwrap(&version, &context(1), &wrap).await).contains("no regular file"));
    // Destroying the link would leave the key.
    assert!(denied(hsm.destroy_version(&version).await).contains("no regular file"));
}

#[tokio::test]
async fn a_keystore_of_another_cluster_is_refused() {
    let place = Place::new().await;
    let (version, wrap) = wrapped(&place.open(), 1).await;
    let other = Uid::from_bytes([0xc2; 16]);
    let stranger = place.open_for(other);
    let theirs = EpochContext { cluster: other, ..context(1) };
    assert!(not_opened(stranger.unwrap(&version, &theirs, &wrap).await).contains("is of another cluster"));
    not_opened(stranger.create_version(&theirs).await);
    // Nor does a backend make anything for a cluster that it was not opened for.
    assert!(not_opened(place.open().create_version(&theirs).await).contains("serves cluster"));
    assert!(not_opened(place.open().wrap(&version, &theirs, &key()).await).contains("serves cluster"));
    assert!(not_opened(place.open().wrap(&version, &context(2), &key()).await).contains("not that of epoch 2"));
}

#[tokio::test]
async fn a_changed_or_cut_keystore_file_never_opens() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    let path = place.file(&version);
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0x01;
        fs::write(&path, flipped).unwrap();
        not_opened(hsm.unwrap(&version, &context(1), &wrap).await);
        fs::write(&path, &good[..at]).unwrap();
        not_opened(hsm.unwrap(&version, &context(1), &wrap).await);
        refused += 2;
    }
    fs::write(&path, [&good[..], &[0]].concat()).unwrap();
    not_opened(hsm.unwrap(&version, &context(1), &wrap).await);
    fs::write(&path, &good).unwrap();
    hsm.unwrap(&version, &context(1), &wrap).await.unwrap();
    println!("damaged keystore files refused: {refused}/{}", good.len() * 2);
    assert_eq!(refused, 374);
}

#[tokio::test]
async fn a_file_under_the_name_of_another_version_is_refused() {
    let place = Place::new().await;
    let hsm = place.open();
    let (first, wrap) = wrapped(&hsm, 1).await;
    let (second, _) = wrapped(&hsm, 2).await;
    fs::copy(place.file(&second), place.file(&first)).unwrap();
    assert!(denied(hsm.unwrap(&first, &context(1), &wrap).await).contains("another master key or version"));
}

#[tokio::test]
async fn what_is_missing_is_told_apart() {
    let place = Place::new().await;
    let hsm = place.open();
    let (first, wrap) = wrapped(&hsm, 1).await;
    wrapped(&hsm, 2).await;
    let aside = place.root.path().join("aside");

    // One file: somebody took it. It was not destroyed, and nothing may say so.
    fs::rename(place.file(&first), &aside).unwrap();
    assert!(denied(hsm.unwrap(&first, &context(1), &wrap).await).contains("restore it from its export"));
    denied(hsm.disable_version(&first).await);
    let before = place.everything();
    assert!(denied(hsm.destroy_version(&first).await).contains("put it back"));
    assert_eq!(place.everything(), before);
    // Its number is not free for a new key either.
    denied(hsm.create_version(&context(1)).await);
    fs::rename(&aside, place.file(&first)).unwrap();

    // The PIN: it may come with a mount.
    fs::rename(place.pin_file(), &aside).unwrap();
    unavailable(hsm.unwrap(&first, &context(1), &wrap).await);
    unavailable(hsm.status().await);
    fs::rename(&aside, place.pin_file()).unwrap();

    // Everything: the place where the directory should be mounted.
    fs::rename(place.dir(), &aside).unwrap();
    fs::create_dir(place.dir()).unwrap();
    assert!(unavailable(hsm.unwrap(&first, &context(1), &wrap).await).contains("mount the right one"));
    unavailable(hsm.create_version(&context(3)).await);
    unavailable(hsm.destroy_version(&first).await);
    fs::remove_dir(place.dir()).unwrap();
    unavailable(hsm.unwrap(&first, &context(1), &wrap).await);
    fs::rename(&aside, place.dir()).unwrap();
    hsm.unwrap(&first, &context(1), &wrap).await.unwrap();
}

#[tokio::test]
async fn files_of_two_master_keys_are_refused() {
    let (one, other) = (Place::new().await, Place::new().await);
    let (version, wrap) = wrapped(&one.open(), 1).await;
    let (stranger, _) = wrapped(&other.open(), 1).await;
    fs::copy(other.file(&stranger), one.dir().join(&stranger.0)).unwrap();
    assert!(denied(one.open().unwrap(&version, &context(1), &wrap).await).contains("two master keys"));
}

#[tokio::test]
async fn a_reference_cannot_lead_out_of_the_directory() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    for bad in [
        format!("../hsm/{}", version.0),
        place.file(&version).display().to_string(),
        format!("./{}", version.0),
        String::new(),
        "x".repeat(2_048),
    ] {
        let bad = MasterKeyRef(bad);
        assert!(denied(hsm.unwrap(&bad, &context(1), &wrap).await).contains("is not the name of a keystore file"));
        denied(hsm.destroy_version(&bad).await);
    }
}

#[tokio::test]
async fn no_error_tells_the_pin() {
    let place = Place::new().await;
    let hsm = place.open();
    let (version, wrap) = wrapped(&hsm, 1).await;
    let mut said = Vec::new();
    fs::write(place.pin_file(), "hunter2 hunter2\n").unwrap();
    said.push(pin_refused(hsm.unwrap(&version, &context(1), &wrap).await));
    fs::set_permissions(place.pin_file(), Permissions::from_mode(0o644)).unwrap();
    said.push(denied(hsm.unwrap(&version, &context(1), &wrap).await));
    fs::set_permissions(place.pin_file(), Permissions::from_mode(0o600)).unwrap();
    fs::write(place.pin_file(), "hunter2".repeat(200)).unwrap();
    said.push(pin_refused(hsm.unwrap(&version, &context(1), &wrap).await));
    said.push(hsm.status().await.map_or_else(|error| format!("{error:?}"), |status| status.detail));
    for text in said {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
