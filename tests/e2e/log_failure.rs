//! The log's file is made to fail under load: no reply leaves without its record.

use anyhow::Result;
use kms_tests::records::{Records, end_in_segment};
use kms_tests::request::*;
use kms_tests::{Caller, Refused, Settings};

use crate::{ACME, ACME_KEY, Load, World, at_scale};

const CLIENTS: usize = 16;

async fn seal(caller: Caller, _: usize) -> Result<(), Refused> {
    caller.ask(encrypt(ACME_KEY, b"secret", &[("row", "7")])).await.map(drop)
}

/// Lets the log grow by so many bytes, then fails every write to it, and holds the log against the
/// replies that got out.
async fn fail_after(bytes: u64) -> Result<()> {
    // One segment for all: a new one would begin below the limit again.
    let world = World::with(&Settings { segment_bytes: 64 << 20, ..Settings::default() }).await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    let load = Load::start((0..CLIENTS).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?, seal);
    load.more(20 * CLIENTS).await?;
    let end = end_in_segment(world.daemon.site())?;
    world.daemon.limit_file_bytes(end + bytes)?;

    let ends = load.ended().await?;
    for end in &ends {
        let refused = end.as_ref().expect_err("it went on sealing without a log");
        // The connection is dropped; whoever comes back is told why.
        assert!(refused.reason.is_none() || refused.is("AUDIT_UNAVAILABLE"), "{refused}");
    }
    // It serves nothing any more: what is used, what only reads, what changes.
    for _ in 0..3 {
        let again = world.daemon.caller("app")?;
        let admin = world.daemon.caller("admin")?;
        for refusal in [
            again.ask(decrypt(ACME_KEY, &blob, &[])).await.err(),
            again.ask(encrypt(ACME_KEY, b"x", &[])).await.err(),
            again.ask(kms_proto::v1::GetCallerIdentityRequest {}).await.err(),
            admin.ask(get_tenant(ACME)).await.err(),
            admin.ask(rotate_key(ACME_KEY)).await.err(),
        ] {
            let refused = refusal.expect("it answered without a log");
            assert!(refused.reason.is_none() || refused.is("AUDIT_UNAVAILABLE"), "{refused}");
        }
    }
    assert_eq!(world.daemon.probe("/readyz").await?, 503, "it says that it is ready");
    assert_eq!(world.daemon.probe("/livez").await?, 200, "it says that it is dead, though it answers");

    let records = Records::read(world.daemon.site())?;
    let held = records.hold(world.daemon.site().ledger());
    println!(
        "log fails after {bytes} more bytes: replies {}, with a record {}, without {}",
        held.replies,
        held.with_record,
        held.without.len()
    );
    assert!(held.without.is_empty(), "{:?}", held.without);
    assert!(held.replies >= 20 * CLIENTS);

    // It still stops when it is told to.
    world.daemon.terminate()?;
    let (_, site) = world.daemon.ended().await?;
    // With a log that can be written again, all is as the records say.
    let world = World::on(site.start().await?)?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext, b"kept");
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    assert!(world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.stale);
    world.finish().await
}

#[tokio::test]
async fn no_reply_leaves_without_a_record_when_the_log_fails_at_once() -> Result<()> {
    fail_after(0).await
}

#[tokio::test]
async fn no_reply_leaves_without_a_record_when_the_log_fails_in_the_middle_of_a_frame() -> Result<()> {
    // Some of all sizes, so that the failure meets a frame's every part.
    for number in 0..at_scale(3, 100) as u64 {
        fail_after([100, 1_337, 50_000][number as usize % 3] + number * 7).await?;
    }
    Ok(())
}
