//! A credential that is stolen: how far it reaches when its binding has a fan-out limit. And what else a binding or an
//! own policy can ask for, over the wire.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use kms_server::audit::Outcome;
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Caller, Site};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{ACME_KEY, World, refused};

/// The names that are swept. Most tenants do not exist.
const SWEPT: usize = 100_000;
/// How many the binding lets a principal reach.
const LIMIT: usize = 100;
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 64;

#[tokio::test]
async fn a_stolen_credential_that_sweeps_all_tenants_reaches_a_bounded_number() -> Result<()> {
    let site = Site::temporary()?;
    site.init().await?;
    let thief = site.principal("thief");
    let mut bindings = site.read("bindings.toml")?;
    bindings += &format!(
        "[[binding]]\nid = \"support\"\nroles = [\"auditor\"]\nprincipals = [\"{thief}\", \"{}\"]\ntenants = [\"*\"]\n\
         fan_out = {{ tenants = {LIMIT}, per = \"1h\" }}\n",
        site.principal("colleague")
    );
    site.write("bindings.toml", &bindings)?;
    let daemon = site.start().await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut sweeps = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let caller: Arc<Caller> = Arc::new(daemon.caller("thief")?);
        for _ in 0..IN_FLIGHT / CONNECTIONS {
            let (caller, next) = (Arc::clone(&caller), Arc::clone(&next));
            sweeps.spawn(async move {
                let (mut reached, mut over) = (Vec::new(), 0_usize);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= SWEPT {
                        return Ok::<_, anyhow::Error>((reached, over));
                    }
                    match caller.ask(get_tenant(&format!("tenants/t{number}"))).await {
                        Ok(_) => reached.push(number),
                        Err(refused) if refused.is("TENANT_NOT_FOUND") => reached.push(number),
                        Err(refused) if refused.is("FAN_OUT_EXCEEDED") => over += 1,
                        Err(other) => anyhow::bail!("{other:?}"),
                    }
                }
            });
        }
    }
    let (mut reached, mut over) = (BTreeSet::new(), 0);
    while let Some(swept) = sweeps.join_next().await {
        let (some, refused) = swept??;
        reached.extend(some);
        over += refused;
    }
    // What it has reached stays within reach, and its colleague has as many of its own.
    let caller = daemon.caller("thief")?;
    let known = reached.first().context("it reached some")?;
    let again = caller.ask(get_tenant(&format!("tenants/t{known}"))).await;
    ensure!(again.is_err_and(|refused| refused.is("TENANT_NOT_FOUND")));
    let beyond = caller.ask(get_tenant("tenants/beyond")).await;
    refused(Code::PermissionDenied, "FAN_OUT_EXCEEDED", beyond);
    let colleague = daemon.caller("colleague")?.ask(get_tenant("tenants/beyond")).await;
    ensure!(colleague.is_err_and(|refused| refused.is("TENANT_NOT_FOUND")));

    let metric = daemon.metric("kms_fan_out_refused_total{rule=\"support\"}").await?;
    let alarms = daemon.site().output().text().matches("more tenants than its fan-out limit").count();
    println!(
        "fan-out: tenants swept {SWEPT}, reached {} of {LIMIT}, refused {over}, alarms {alarms}, metric {metric}",
        reached.len()
    );
    ensure!(reached.len() == LIMIT && over == SWEPT - LIMIT);
    ensure!((metric - (over + 1) as f64).abs() < 0.5, "{metric}");
    ensure!((1..=20).contains(&alarms), "told once a minute: {alarms}");
    let site = daemon.stop().await?;
    let records = Records::read(&site)?;
    let denied: Vec<_> = records.of("GetTenant", Outcome::Denied).collect();
    ensure!(!denied.is_empty());
    for record in denied {
        ensure!(record.leaf.rule.as_deref() == Some("support"), "{:?}", record.leaf);
        ensure!(record.leaf.why.as_deref() == Some("FAN_OUT_EXCEEDED"), "{:?}", record.leaf);
    }
    let start = records.of("Start", Outcome::Ok).next().context("of the start")?;
    ensure!(start.leaf.ev.as_deref().is_some_and(|ev| ev.starts_with("policy sha256:")), "{:?}", start.leaf);
    Ok(())
}

#[tokio::test]
async fn pairs_and_own_policies_decide_over_the_wire() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    let given = site.read("bindings.toml")?;
    let own = "@id(\"no-exports\")\nforbid (principal, action == Action::\"Encrypt\", resource in Tenant::\"tenants/acme\")\n\
               when { context.pairs has purpose && context.pairs.purpose == \"export\" };\n";
    site.write("own.cedar", own)?;
    site.change_settings("[policy]\n", "[policy]\ncedar_files = [\"own.cedar\"]\ncontext_pairs = [\"purpose\"]\n")?;
    let app = format!("[\"{}\"]", site.principal("app"));
    let narrowed = given.replace(
        &format!("principals = {app}\n"),
        &format!("principals = {app}\ncontext = {{ purpose = [\"billing\", \"export\"] }}\n"),
    );
    ensure!(narrowed != given, "the binding of app was not found in {given}");
    site.write("bindings.toml", &narrowed)?;
    let output = site.output();
    let before = output.text().matches(r#""message":"reloaded""#).count();
    world.daemon.hang_up()?;
    output.says_times(r#""message":"reloaded""#, before + 1).await?;
    for (context, allowed) in [
        (&[("purpose", "billing")][..], true),
        (&[("purpose", "billing"), ("other", "x")], true),
        (&[("purpose", "export")], false),
        (&[("purpose", "Billing")], false),
        (&[("other", "billing")], false),
        (&[], false),
    ] {
        for _ in 0..2 {
            let answer = world.app.ask(encrypt(ACME_KEY, b"x", context)).await;
            match allowed {
                true => drop(answer?),
                false => refused(Code::PermissionDenied, "POLICY_DENIED", answer),
            }
        }
    }
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let rules: BTreeSet<&str> =
        records.of("Encrypt", Outcome::Denied).filter_map(|record| record.leaf.rule.as_deref()).collect();
    ensure!(rules == BTreeSet::from(["default", "no-exports"]), "{rules:?}");
    let reload = records.of("Reload", Outcome::Ok).next().context("of the reload")?;
    ensure!(reload.leaf.ev.as_deref().is_some_and(|ev| ev.contains(" policy sha256:")), "{:?}", reload.leaf);
    Ok(())
}
