//! Every batch of new managed data keys is sent twice, and interrupted at random: by a way that is cut, by a kill.
//! No data key is made twice, and none that was acknowledged is lost.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use kms_proto::v1;
use kms_tests::cut::{Cut, CutWay};
use kms_tests::request::*;
use kms_tests::stored::StoredDataKeys;
use kms_tests::{Daemon, Random, Refused, Site, seed};

use crate::data_keys::{ROW, ROWS, create_managed};
use crate::{ACME, at_scale};

/// A batch that is asked for.
struct Asked {
    request: v1::BatchCreateDataKeysRequest,
    count: usize,
    answer: Option<v1::BatchCreateDataKeysResponse>,
}

impl Asked {
    /// Takes an answer, which must be the one before if there was one.
    fn hear(&mut self, answer: v1::BatchCreateDataKeysResponse) -> Result<()> {
        let whole = answer.results.iter().all(|made| made.error.is_none() && made.plaintext.len() == 32);
        ensure!(whole && answer.results.len() == self.count, "{} of {}", answer.results.len(), self.count);
        match &self.answer {
            Some(before) => ensure!(before.results == answer.results, "another answer under the same id"),
            None => self.answer = Some(answer),
        }
        Ok(())
    }
}

/// How a sending is interrupted.
#[derive(Clone, Copy, Debug)]
enum How {
    Cut(Cut, bool),
    /// Killed after so many turns of the runtime.
    Kill(usize),
    /// Given up after so many turns, on a connection that stays.
    TakenBack(usize),
    /// Not at all, but sent again before it is answered.
    Both,
}

fn choose(random: &mut Random, (up, down): (usize, usize)) -> How {
    // The handshake is most of the bytes: half of the cuts lie behind it.
    let mut at = |bytes: usize| {
        let half = bytes / 2;
        if random.below(2) == 0 { random.below(bytes) } else { half + random.below(half + 200) }
    };
    let (up, down) = (at(up), at(down));
    match random.below(16) {
        0..5 => How::Cut(Cut::Up(up), random.below(2) == 0),
        5..10 => How::Cut(Cut::Down(down), true),
        10..12 => How::Kill(1 << random.below(13)),
        12..15 => How::TakenBack(1 << random.below(12)),
        _ => How::Both,
    }
}

/// Waits for a call for so many turns of the runtime.
async fn turns<T>(turns: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = std::pin::pin!(call);
    for _ in 0..turns {
        tokio::select! {
            biased;
            ended = &mut call => return Some(ended),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}

/// Sends a batch, and lets something come in between. Returns the daemon that serves then, and the answer.
async fn interrupted(
    daemon: Daemon,
    request: v1::BatchCreateDataKeysRequest,
    how: How,
) -> Result<(Daemon, Option<Result<v1::BatchCreateDataKeysResponse, Refused>>)> {
    match how {
        How::Cut(cut, reset) => {
            let way = CutWay::to(daemon.services(), cut, reset).await?;
            let answer = daemon.caller_by("app", &way.address())?.ask(request).await;
            way.passed().await?;
            Ok((daemon, Some(answer)))
        }
        How::Kill(after) => {
            let caller = daemon.caller("app")?;
            let asking = tokio::spawn(async move { caller.ask(request).await });
            let asking = match turns(after, asking).await {
                Some(answer) => return Ok((daemon.kill().await?.start().await?, Some(answer?))),
                None => daemon.kill(),
            };
            Ok((asking.await?.start().await?, None))
        }
        How::TakenBack(after) => {
            let answer = turns(after, daemon.caller("app")?.ask(request)).await;
            Ok((daemon, answer))
        }
        How::Both => {
            let (one, other) = (daemon.caller("app")?, daemon.caller("app")?);
            let (answer, also) = tokio::join!(one.ask(request.clone()), other.ask(request));
            ensure!(answer.as_ref().ok().map(|one| &one.results) == also.as_ref().ok().map(|one| &one.results));
            Ok((daemon, Some(answer)))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_are_sent_twice_and_interrupted_make_their_data_keys_once() -> Result<()> {
    let seed = seed();
    println!("retries: seed {seed}");
    let mut random = Random::new(seed);
    let site = Site::temporary()?;
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter"])?;
    let mut daemon = site.start().await?;
    let admin = daemon.caller("admin")?;
    admin.ask(create_tenant("acme")).await?;
    admin.ask(create_managed(ACME, "rows")).await?;
    let under = |number: usize, count: usize| v1::BatchCreateDataKeysRequest {
        request_id: format!("batch-{number}"),
        ..batch_create_data_keys(ROWS, count, ROW)
    };
    // How many bytes such a call takes when nothing is cut.
    let mut batches = vec![Asked { request: under(0, COUNT_MAX), count: COUNT_MAX, answer: None }];
    let way = CutWay::to(daemon.services(), Cut::Never, false).await?;
    batches[0].hear(daemon.caller_by("app", &way.address())?.ask(under(0, COUNT_MAX)).await?)?;
    let bytes = way.passed().await?;

    let (mut sent, mut interruptions, mut kills, mut refused) = (1, 0, 0, 0);
    for number in 1..at_scale(60, 1_500) {
        let count = 1 + random.below(COUNT_MAX);
        let mut asked = Asked { request: under(number, count), count, answer: None };
        // Sometimes the second time is interrupted as well, and there is a third.
        loop {
            let how = choose(&mut random, bytes);
            kills += usize::from(matches!(how, How::Kill(_)));
            sent += if matches!(how, How::Both) { 2 } else { 1 };
            let at = || format!("seed {seed}, batch {number}, {how:?}");
            let answer;
            (daemon, answer) = interrupted(daemon, asked.request.clone(), how).await.with_context(at)?;
            match answer {
                Some(Ok(answer)) => asked.hear(answer).with_context(at)?,
                Some(Err(error)) if error.reason.is_some() => {
                    refused += 1;
                    println!("wrong: {}: {error}", at());
                }
                Some(Err(_)) | None => interruptions += 1,
            }
            if random.below(4) != 0 {
                break;
            }
        }
        sent += 1;
        let again = daemon.caller("app")?.ask(asked.request.clone()).await;
        asked.hear(again.with_context(|| format!("seed {seed}, batch {number}, at last"))?)?;
        batches.push(asked);
    }

    let app = daemon.caller("app")?;
    let (mut lost, mut wrong) = (0, 0);
    let mut acknowledged = BTreeSet::new();
    for asked in &batches {
        let made = &asked.answer.as_ref().context("each was answered")?.results;
        let uids: Vec<Vec<u8>> = made.iter().map(|made| made.uid.clone()).collect();
        let got = app.ask(batch_get_data_keys(ROWS, &uids, ROW)).await?.results;
        for (made, got) in made.iter().zip(&got) {
            lost += usize::from(got.error.is_some());
            wrong += usize::from(got.error.is_none() && got.plaintext != made.plaintext);
        }
        acknowledged.extend(uids);
    }
    let intended: usize = batches.iter().map(|asked| asked.count).sum();
    let site = daemon.stop().await?;
    let stored = StoredDataKeys::read(&site).await?;
    stored.check_counters()?;
    let duplicate = stored.rows.len() as i64 - intended as i64;
    println!(
        "retries: batches {}, sent {sent} times, interrupted {interruptions}, duplicate {duplicate}, lost {lost}",
        batches.len()
    );
    println!("retries: kills {kills}, data keys intended {intended}, in the store {}", stored.rows.len());
    assert_eq!((duplicate, lost, wrong, refused), (0, 0, 0, 0), "seed {seed}");
    assert_eq!(acknowledged.len(), intended, "no two have one uid");
    assert!(interruptions > batches.len() / 4 && kills > 0, "hardly anything was interrupted");
    crate::world::check(&site)
}

/// The most data keys of a batch.
const COUNT_MAX: usize = 40;
