//! A PIN that does not fit: each try waits longer, over restarts, and nobody is ever shut out.

use std::time::Duration;

use tokio::sync::Notify;

use super::*;

/// Does not wait, but remembers how long it should have.
#[derive(Default)]
struct Remembered(Mutex<Vec<Duration>>);

#[async_trait]
impl Pause for Remembered {
    async fn pause(&self, time: Duration) {
        self.0.lock().unwrap().push(time);
    }
}

impl Remembered {
    fn seconds(&self) -> Vec<f64> {
        self.0.lock().unwrap().drain(..).map(|time| time.as_secs_f64()).collect()
    }
}

/// Never comes back, as a process that is killed while it waits.
#[derive(Default)]
struct ForEver(Notify);

#[async_trait]
impl Pause for ForEver {
    async fn pause(&self, _: Duration) {
        self.0.notify_one();
        std::future::pending().await
    }
}

/// A place with a version, a wrap under it, and its PIN.
struct Guarded {
    place: Place,
    version: MasterKeyRef,
    wrap: Vec<u8>,
    pin: Vec<u8>,
    pause: Arc<Remembered>,
}

impl Guarded {
    async fn new() -> Self {
        let place = Place::new().await;
        let (version, wrap) = wrapped(&place.open(), 1).await;
        let pin = fs::read(place.pin_file()).unwrap();
        Self { place, version, wrap, pin, pause: Arc::default() }
    }

    /// A backend as a new process would have it.
    fn restarted(&self, pause: Arc<dyn Pause>) -> SoftwareHsm {
        let rng = Arc::clone(&self.place.taken) as _;
        SoftwareHsm::open(&self.place.dir(), &self.place.pin_file(), CLUSTER, CHEAP, rng, pause)
    }

    fn put_pin(&self, pin: &[u8]) {
        fs::write(self.place.pin_file(), pin).unwrap();
    }

    fn count_file(&self) -> PathBuf {
        self.place.dir().join(attempts::FILE_NAME)
    }

    async fn try_it(&self) -> Result<EpochKey, BackendError> {
        self.restarted(Arc::clone(&self.pause) as _).unwrap(&self.version, &context(1), &self.wrap).await
    }
}

#[tokio::test]
async fn each_wrong_try_makes_the_next_one_wait_longer_over_restarts_until_one_is_right() {
    let guarded = Guarded::new().await;
    guarded.put_pin(b"wrong");
    for failed in 1..=9 {
        let said = pin_refused(guarded.try_it().await);
        assert!(said.contains(&format!("{failed} tr")) && said.contains("not a lock"), "{said}");
    }
    assert_eq!(guarded.pause.seconds(), [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    let detail = guarded.restarted(Arc::new(NoPause)).status().await.unwrap().detail;
    assert!(detail.ends_with("; the PIN did not fit 9 times since it last did"), "{detail}");
    assert_eq!(fs::metadata(guarded.count_file()).unwrap().mode() & 0o7777, 0o600);

    // The right one waits too, or else waiting would tell which is right; and it always opens.
    guarded.put_pin(&guarded.pin);
    guarded.try_it().await.unwrap();
    assert_eq!(guarded.pause.seconds(), [30.0]);
    assert!(!guarded.count_file().exists());
    guarded.try_it().await.unwrap();
    assert_eq!(guarded.pause.seconds(), [0.0; 0]);
}

#[tokio::test]
async fn a_try_that_is_cut_off_was_counted() {
    let guarded = Guarded::new().await;
    guarded.put_pin(b"wrong");
    pin_refused(guarded.try_it().await);
    for counted in 2..5 {
        let pause = Arc::new(ForEver::default());
        let killed = guarded.restarted(Arc::clone(&pause) as _);
        tokio::select! {
            _ = killed.unwrap(&guarded.version, &CONTEXT, &guarded.wrap) => panic!("it did not wait"),
            () = pause.0.notified() => {}
        }
        assert_eq!(fs::read_to_string(guarded.count_file()).unwrap(), format!("kms1-wrong-pin 1 {counted}\n"));
    }
}

#[tokio::test]
async fn tries_side_by_side_wait_one_after_the_other() {
    let guarded = Guarded::new().await;
    guarded.put_pin(b"wrong");
    let hsm = guarded.restarted(Arc::clone(&guarded.pause) as _);
    let once = || hsm.unwrap(&guarded.version, &CONTEXT, &guarded.wrap);
    let (a, b, c) = tokio::join!(once(), once(), once());
    for refused in [a, b, c] {
        pin_refused(refused);
    }
    assert_eq!(guarded.pause.seconds(), [0.5, 1.0]);
}

const CONTEXT: EpochContext =
    EpochContext { cluster: CLUSTER, epoch_id: Uid::from_bytes([0xe0; 16]), epoch: EpochNumber::FIRST };

#[tokio::test]
async fn what_shows_without_the_pin_is_no_try_of_it() {
    let guarded = Guarded::new().await;
    guarded.put_pin(b"");
    pin_refused(guarded.try_it().await);
    fs::remove_file(guarded.place.pin_file()).unwrap();
    unavailable(guarded.try_it().await);
    fs::write(guarded.place.pin_file(), &guarded.pin).unwrap();
    fs::set_permissions(guarded.place.pin_file(), Permissions::from_mode(0o644)).unwrap();
    denied(guarded.try_it().await);
    fs::set_permissions(guarded.place.pin_file(), Permissions::from_mode(0o600)).unwrap();
    let keystore = guarded.place.file(&guarded.version);
    let whole = fs::read(&keystore).unwrap();
    fs::write(&keystore, b"another file").unwrap();
    denied(guarded.try_it().await);
    fs::write(&keystore, whole).unwrap();
    guarded.try_it().await.unwrap();
    assert_eq!(guarded.pause.seconds(), [0.0; 0]);
}

#[tokio::test]
async fn whatever_lies_in_the_place_of_the_count_shuts_nobody_out() {
    let guarded = Guarded::new().await;
    let place = guarded.count_file();
    let elsewhere = guarded.place.root.path().join("elsewhere");
    fs::write(&elsewhere, "not ours").unwrap();
    let contents: [&[u8]; 6] =
        [b"", b"\0\xff", b"kms1-wrong-pin 1 99999999999\n", b"kms1-wrong-pin 2 1\n", b"1", &[b'x'; 100_000]];
    let clear = || {
        if place.is_dir() {
            fs::remove_dir_all(&place).unwrap();
        } else if place.symlink_metadata().is_ok() {
            fs::remove_file(&place).unwrap();
        }
    };
    for content in contents {
        for pin in [&b"wrong"[..], &guarded.pin] {
            clear();
            fs::write(&place, content).unwrap();
            fs::set_permissions(&place, Permissions::from_mode(0o600)).unwrap();
            guarded.put_pin(pin);
            assert_eq!(guarded.try_it().await.is_ok(), pin == guarded.pin);
        }
    }
    clear();
    std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    guarded.put_pin(b"wrong");
    pin_refused(guarded.try_it().await);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "not ours", "what a link leads to is not written");
    assert_eq!(guarded.pause.seconds(), [0.0; 0], "an unreadable count is none");
    // The largest number there is waits as long as the seventh.
    fs::write(&place, format!("kms1-wrong-pin 1 {}\n", u32::MAX)).unwrap();
    pin_refused(guarded.try_it().await);
    guarded.put_pin(&guarded.pin);
    guarded.try_it().await.unwrap();
    assert_eq!(guarded.pause.seconds(), [30.0, 30.0]);
}

#[tokio::test]
async fn where_nothing_can_be_counted_a_wrong_try_is_answered_late_and_a_right_one_at_once() {
    let guarded = Guarded::new().await;
    // No file takes the place of a directory that has something in it: this fails for root as well.
    fs::create_dir_all(guarded.count_file().join("something")).unwrap();
    guarded.put_pin(b"wrong");
    pin_refused(guarded.try_it().await);
    assert_eq!(guarded.pause.seconds(), [attempts::WAIT_UNKEPT.as_secs_f64()]);
    guarded.put_pin(&guarded.pin);
    guarded.try_it().await.unwrap();
    assert_eq!(guarded.pause.seconds(), [0.0; 0]);
}
