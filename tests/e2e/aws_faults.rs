//! What goes wrong between a daemon and AWS: it serves on whatever it is, and starts with none of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use kms_proto::v1::GetStatusRequest;
use kms_tests::request::*;
use kms_tests::{Fault, Moto, patiently};
use tokio::time::Instant;

use crate::aws_kms::site_with;
use crate::{ACME_KEY, World};

/// What a caller, or who starts a daemon, was told of a fault.
struct Row {
    fault: Fault,
    phase: &'static str,
    saw: String,
    took: Duration,
    lost: usize,
}

#[tokio::test]
async fn nothing_is_lost_while_serving_and_no_start_hangs() -> Result<()> {
    let moto = Moto::start().await?;
    let mut rows = Vec::new();
    // Three daemons at a time: they wait most of it, but not for a machine that is busy.
    for faults in Fault::ALL.chunks(3) {
        let tried = faults.iter().map(|fault| fault_by_fault(&moto, *fault));
        for tried in join_all(tried.collect()).await {
            rows.extend(tried?);
        }
    }
    println!("{:<20} {:<8} {:>8} {:>5}  what was seen", "fault", "phase", "seconds", "lost");
    for Row { fault, phase, saw, took, lost } in &rows {
        println!("{:<20} {phase:<8} {:>8.2} {lost:>5}  {saw}", format!("{fault:?}"), took.as_secs_f64());
    }
    for Row { fault, phase, took, lost, .. } in &rows {
        ensure!(*lost == 0, "{fault:?} while {phase}: {lost} requests lost");
        ensure!(*phase != "start" || *took < START_TIME_MAX, "a start with {fault:?} took {took:?}");
    }
    Ok(())
}

async fn fault_by_fault(moto: &Moto, fault: Fault) -> Result<Vec<Row>> {
    let proxy = moto.proxy().await?;
    let world = World::at(site_with(&proxy, "", "info")?).await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;

    proxy.set(fault);
    let (mut lost, mut asked, mut slowest) = (0, 0, Duration::ZERO);
    let began = Instant::now();
    while asked < CALLS_MIN || began.elapsed() < SERVING_TIME {
        let before = Instant::now();
        let answer = match asked % 2 {
            0 => world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await.map(drop),
            _ => world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await.map(drop),
        };
        slowest = slowest.max(before.elapsed());
        lost += usize::from(answer.is_err());
        asked += 1;
    }
    let saw = format!("{} of {asked} answered, the slowest after {} ms", asked - lost, slowest.as_millis());
    let serving = Row { fault, phase: "serving", saw, took: began.elapsed(), lost };

    // A probe finds it: the operator is told, and still nobody else notices.
    let lost_before = lost;
    let up = async || world.daemon.metric("kms_backend_up").await.is_ok_and(|up| up == 1.0);
    patiently("a probe to find the fault", async {
        while up().await {
            let answer = world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await;
            lost += usize::from(answer.is_err());
        }
    })
    .await?;
    let found = began.elapsed();
    let status = world.admin.ask(GetStatusRequest {}).await?;
    let warning = status.warnings.first().cloned().unwrap_or_default();
    let (why, _) = told(fault);
    ensure!(
        warning.contains("a restart would fail") && warning.contains(why),
        "{fault:?}: the status says {warning:?}"
    );
    ensure!(status.backend.is_some_and(|backend| !backend.reachable), "{fault:?}: the status calls it reachable");
    ensure!(world.daemon.metric("kms_locked").await? == 0.0, "{fault:?}: one fault of minutes is no reason to lock");
    let saw = format!("the status warns: {why}; served on");
    let probe = Row { fault, phase: "probe", saw, took: found, lost: lost - lost_before };

    let site = world.daemon.stop().await?;
    let before = Instant::now();
    let ended = site.refused_serve().await?;
    let took = before.elapsed();
    let (why, check) = told(fault);
    ensure!(ended.code == Some(1), "{fault:?}: a start ended with {:?}: {}", ended.code, ended.stderr);
    ensure!(ended.stderr.contains(why), "{fault:?}: not {why:?} in: {}", ended.stderr);
    ensure!(ended.stderr.contains(check), "{fault:?}: not {check:?} in: {}", ended.stderr);
    let start = Row { fault, phase: "start", saw: format!("exit 1: {why}"), took, lost: 0 };

    // And when it is over, it starts again.
    proxy.set(Fault::None);
    let world = World::on(site.start().await?)?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await?.plaintext, b"secret");
    world.finish().await?;
    Ok(vec![start, serving, probe])
}

/// What who starts a daemon is told: why, and what to check.
fn told(fault: Fault) -> (&'static str, &'static str) {
    let network = "backend.aws_endpoint_url";
    match fault {
        Fault::None => ("", ""),
        Fault::ServerError => ("InternalFailure", network),
        Fault::Throttling => ("ThrottlingException", network),
        Fault::Slow | Fault::HalfOpen => ("nothing came of it within 8 s", network),
        Fault::Reset => ("not reached", network),
        Fault::Truncated => ("cannot be read", network),
        Fault::WrongPlaintext => ("answered with another key", "check that it is the backend"),
        Fault::RefusedCredentials => ("UnrecognizedClientException", "check the credentials"),
        Fault::AccessDenied => ("AccessDeniedException", "deploy/aws"),
    }
}

/// Runs them beside each other, in this task.
async fn join_all<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, done) in &mut all {
            if done.is_none()
                && let std::task::Poll::Ready(value) = one.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        if all.iter().all(|(_, done)| done.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

const START_TIME_MAX: Duration = Duration::from_secs(10);
/// Of each fault, so that probes fall into it.
const SERVING_TIME: Duration = Duration::from_secs(3);
const CALLS_MIN: usize = 100;
