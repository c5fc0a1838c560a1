//! A token under the contract of master key backends, and under many callers at once. Which token is in the environment
//! of this process, because a module reads it there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use kms_server::backend::contract::{Subject, check};
use kms_server::backend::{
    BackendKind, BackendSettings, EpochContext, Launcher, MasterKeyBackend, Pkcs11Mechanism, Pkcs11Settings, Prepared,
};
use kms_server::crypto::EpochKey;
use kms_server::noun::random::OsRandom;
use kms_server::noun::{EpochNumber, Random, Uid};
use kms_tests::program;
use tokio::time::Instant;

/// Holds the token `kms` to the contract. The directory has the PIN in `pin`, and another in `wrong-pin`.
pub async fn run(mechanism: &str, module: &Path, directory: &Path) -> Result<()> {
    let mechanism_of = match mechanism {
        "auto" => Pkcs11Mechanism::Auto,
        "aes-gcm" => Pkcs11Mechanism::AesGcm,
        "aes-cbc-pad" => Pkcs11Mechanism::AesCbcPad,
        other => bail!("there is no mechanism {other}"),
    };
    kms_server::crypto::arena::init(1024);
    let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
    let cluster = Uid::generate(&*rng);
    // One for all: what one of them meets must not disturb the others.
    let launcher = Launcher::start_of(&program("kms-server")?)?;
    let prepare = |notes: &str, token: &str, pin: &str| {
        let settings = settings(module, directory, (notes, token, pin), mechanism_of);
        Prepared::with_launcher(settings, launcher.clone())
    };
    let (ours, absent, stranger) =
        (prepare("hsm", "kms", "pin"), prepare("hsm", "absent", "pin"), prepare("hsm-2", "kms", "wrong-pin"));
    ours.init(Arc::clone(&rng)).await?;
    stranger.init(Arc::clone(&rng)).await?;
    let open = |prepared: &Prepared| prepared.open(cluster, Arc::clone(&rng)).expect("it is prepared");
    let subject =
        Subject { cluster, open: &|| open(&ours), unreachable: &|| open(&absent), stranger: &|| open(&stranger) };
    let kept = check(subject).await;
    for promise in &kept {
        println!("  {promise}");
    }
    println!("contract: pkcs11 ({mechanism}) {0}/{0} kept", kept.len());
    Ok(())
}

/// Wraps and unwraps from many callers at once.
pub async fn queue(module: &Path, directory: &Path, callers: usize, calls: usize) -> Result<()> {
    // A slot for each key that is on its way.
    kms_server::crypto::arena::init(4 * callers + 1024);
    let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
    let launcher = Launcher::start_of(&program("kms-server")?)?;
    let settings = settings(module, directory, ("hsm", "kms", "pin"), Pkcs11Mechanism::Auto);
    let prepared = Prepared::with_launcher(settings, launcher);
    prepared.init(Arc::clone(&rng)).await?;
    let cluster = Uid::generate(&*rng);
    let context = EpochContext { cluster, epoch_id: Uid::generate(&*rng), epoch: EpochNumber::FIRST };
    let backend = prepared.open(cluster, Arc::clone(&rng))?;
    let version = backend.create_version(&context).await?;

    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (backend, version, rng): (Arc<dyn MasterKeyBackend>, _, _) =
            (Arc::clone(&backend), version.clone(), Arc::clone(&rng));
        tasks.spawn(async move {
            let key = EpochKey::generate(&*rng).expect("room in locked memory");
            let kcv = key.kcv(&context.epoch_id, context.epoch);
            let (mut failed, mut slowest) = (0, Duration::ZERO);
            for _ in 0..calls {
                let began = Instant::now();
                let unwrapped = match backend.wrap(&version, &context, &key).await {
                    Ok(wrap) => backend.unwrap(&version, &context, &wrap).await,
                    Err(error) => Err(error),
                };
                let is_right = unwrapped.is_ok_and(|key| key.kcv(&context.epoch_id, context.epoch) == kcv);
                failed += usize::from(!is_right);
                slowest = slowest.max(began.elapsed());
            }
            (failed, slowest)
        });
    }
    let ended = tasks.join_all().await;
    let (failed, slowest) =
        ended.into_iter().fold((0, Duration::ZERO), |(failed, slowest), one| (failed + one.0, slowest.max(one.1)));
    let (seconds, count) = (began.elapsed().as_secs_f64(), callers * calls);
    println!(
        "queue: pkcs11: {callers} callers x {calls} wraps and unwraps = {count}: failed {failed}, {seconds:.1} s, {:.0} per second, the slowest {} ms",
        count as f64 / seconds,
        slowest.as_millis()
    );
    Ok(())
}

fn settings(
    module: &Path,
    directory: &Path,
    (notes, token, pin): (&str, &str, &str),
    mechanism: Pkcs11Mechanism,
) -> BackendSettings {
    let kind = BackendKind::Pkcs11(Pkcs11Settings {
        module: module.to_owned(),
        token: token.to_owned(),
        pin_file: directory.join(pin),
        mechanism,
    });
    BackendSettings { dir: directory.join(notes), kind }
}
