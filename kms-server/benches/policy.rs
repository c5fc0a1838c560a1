//! What a decision costs: of policy as requests ask it, through [`InForce`], with as many bindings as a file may have.
//!
//! A timing is no test: it says whether a target is met, and ends well either way. Every row asks its questions in
//! turn, so that what it finds is not the one line of memory that it found before; and like the daemon it wipes what it
//! frees.

#![expect(clippy::print_stdout, reason = "what is measured is printed")]

mod timing;

use std::alloc::System;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kms_server::noun::clock::SystemClock;
use kms_server::noun::{Clock as _, Principal, Strength};
use kms_server::policy::{
    Action, Decision, File, Files, Granted, InForce, Names, PairNames, Pairs, Policy, Reach, Request, Resource, Role,
    Whose,
};
use zeroizing_alloc::ZeroAlloc;

use timing::Table;

#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// As many as a file may have.
const BINDINGS: usize = 10_000;
const BINDINGS_WRITTEN: &str = "10,000 bindings";
/// How many different questions are asked in turn.
const QUESTIONS: usize = 1_000;
/// What the issue of this calls fast: a remembered decision, and one decided anew.
const REMEMBERED_US: f64 = 0.3;
const ANEW_US: f64 = 15.0;

const APP: &str = "spiffe://example.com/prod/app";
const STRANGER: &str = "spiffe://example.com/prod/stranger";
const STAFF: &str = "spiffe://example.com/staff/ann";
const NET: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
const NOW: u64 = 1_800_000_000_000;

fn main() -> Result<()> {
    let mut table = Table::default();
    table.head();
    remembered_and_anew(&mut table)?;
    own_policies(&mut table)?;
    granted(&mut table)?;
    fan_out(&mut table)?;
    println!("{}", table.verdict());
    Ok(())
}

fn remembered_and_anew(table: &mut Table) -> Result<()> {
    let app = Asker::new(APP)?;
    let one = [key(0, "k0")?];
    let single = policy(&binding("b0", APP, "t0", "*", ""), "", &[])?;
    let per_tenant: String = (0..BINDINGS)
        .map(|n| binding(&format!("b{n}"), APP, &format!("t{n}"), "*", "networks = [\"10.0.0.0/8\"]"))
        .collect();
    let began = tokio::time::Instant::now();
    let of_each_tenant = policy(&per_tenant, "", &[])?;
    table.once(&format!("{BINDINGS_WRITTEN} read, as at a start and at a reload"), began.elapsed());
    let in_each_tenant = keys(QUESTIONS, 7)?;

    table.title("one binding per tenant, all of them the caller's");
    let all = InForce::new(policy(&per_tenant, "", &[])?);
    let ask = |resource| all.authorize(&app.asks(resource));
    table.row(&format!("remembered decision, {BINDINGS_WRITTEN}"), Some(REMEMBERED_US), allowed(&in_each_tenant, ask)?);
    table.row("  the same question each time", Some(REMEMBERED_US), allowed(&one, ask)?);
    table.row("decided anew, 1 binding", None, allowed(&one, |resource| single.anew(&app.asks(resource)))?);
    let anew = |resource| of_each_tenant.anew(&app.asks(resource));
    table.row(&format!("decided anew, {BINDINGS_WRITTEN}"), Some(ANEW_US), allowed(&in_each_tenant, anew)?);
    // More questions than are remembered, so that each comes as if for the first time.
    let many = keys(100_000, 1)?;
    table.row("asked for the first time, and remembered", Some(ANEW_US), allowed(&many, ask)?);
    table.row("denied: a tenant of nobody", None, denied(&keys_of("nobody", QUESTIONS)?, ask)?);
    let stranger = Asker::new(STRANGER)?;
    let strange = |resource| all.authorize(&stranger.asks(resource));
    table.row("denied: a principal without bindings", None, denied(&in_each_tenant, strange)?);

    table.title("100 of the bindings are the caller's, the others of 100 others");
    // Ten to each tenant, and every hundredth is the caller's.
    let who =
        |n: usize| if n.is_multiple_of(100) { APP.to_owned() } else { format!("spiffe://example.com/s{}", n % 100) };
    let text: String =
        (0..BINDINGS).map(|n| binding(&format!("b{n}"), &who(n), &format!("t{}", n / 10), "k*", "")).collect();
    let (reference, all) = (policy(&text, "", &[])?, InForce::new(policy(&text, "", &[])?));
    let its_own: Vec<Resource> = (0..QUESTIONS).map(|n| key(n % 100 * 10, &format!("k{n}"))).collect::<Result<_>>()?;
    let not_its_own: Vec<Resource> =
        (0..QUESTIONS).map(|n| key(n % 100 * 10 + 1, &format!("k{n}"))).collect::<Result<_>>()?;
    let uncovered: Vec<Resource> =
        (0..QUESTIONS).map(|n| key(n % 100 * 10, &format!("x{n}"))).collect::<Result<_>>()?;
    let ask = |resource| all.authorize(&app.asks(resource));
    let anew = |resource| reference.anew(&app.asks(resource));
    table.row(&format!("remembered decision, {BINDINGS_WRITTEN}"), Some(REMEMBERED_US), allowed(&its_own, ask)?);
    table.row(&format!("decided anew, {BINDINGS_WRITTEN}"), Some(ANEW_US), allowed(&its_own, anew)?);
    table.row("denied: a tenant of others", None, denied(&not_its_own, ask)?);
    table.row("denied: a key that the binding does not cover", None, denied(&uncovered, ask)?);
    for (name, whose) in [("one's own bindings", Whose::TheirOwn), ("everybody's", Whose::Everybodys)] {
        let explain = turns(&uncovered, |resource| all.explain(&app.asks(resource), whose));
        table.row(&format!("explain what is denied, from {name}"), None, explain);
        let explain = turns(&its_own, |resource| all.explain(&app.asks(resource), whose));
        table.row(&format!("explain what is allowed, from {name}"), None, explain);
    }

    table.title("100 of the bindings are the caller's, all of them in the tenant that is asked about");
    let of = |n: usize| if n.is_multiple_of(100) { "one".to_owned() } else { format!("t{}", n / 10) };
    let text: String =
        (0..BINDINGS).map(|n| binding(&format!("b{n}"), &who(n), &of(n), &format!("k{n}"), "")).collect();
    let reference = policy(&text, "", &[])?;
    let its_own: Vec<Resource> =
        (0..100).map(|n| Ok(Resource::Key("one".parse()?, format!("k{}", n * 100).parse()?))).collect::<Result<_>>()?;
    let anew = |resource| reference.anew(&app.asks(resource));
    table.row(&format!("decided anew, {BINDINGS_WRITTEN}"), Some(ANEW_US), allowed(&its_own, anew)?);
    Ok(())
}

/// Twenty policies of the users, beside the bindings: some are about the request, or all of them.
fn own_policies(table: &mut Table) -> Result<()> {
    let bindings: String = (0..BINDINGS).map(|n| binding(&format!("b{n}"), APP, &format!("t{n}"), "*", "")).collect();
    let night = "unless { context.net.isInRange(ip(\"10.0.0.0/8\")) && context.auth.certificate }";
    let purpose = |n: usize| format!("when {{ context.pairs has purpose && context.pairs.purpose == \"p{n}\" }}");
    let about = |n: usize| match n % 2 {
        0 => format!("@id(\"own{n}\") forbid (principal, action, resource is Key) {night};\n"),
        _ => format!("@id(\"own{n}\") forbid (principal, action == Action::\"Encrypt\", resource) {};\n", purpose(n)),
    };
    let not_about = |n: usize| match n % 2 {
        0 => format!("@id(\"own{n}\") forbid (principal, action == Action::\"Decrypt\", resource) {night};\n"),
        _ => {
            let who = format!("Principal::\"{STRANGER}{n}\"");
            format!(
                "@id(\"own{n}\") permit (principal == {who}, action, resource in Tenant::\"tenants/t{n}\") {};\n",
                purpose(n)
            )
        }
    };
    let questions = keys(QUESTIONS, 7)?;
    let app = Asker { pairs: Some([("purpose".to_owned(), "billing".to_owned())].into()), ..Asker::new(APP)? };
    table.title(&format!("20 own policies (.cedar) beside {BINDINGS_WRITTEN}"));
    let some: String = (0..20).map(|n| if n < 4 { about(n) } else { not_about(n) }).collect();
    let reference = policy(&bindings, &some, &["purpose"])?;
    let all = InForce::new(policy(&bindings, &some, &["purpose"])?);
    let ask = |resource| all.authorize(&app.asks(resource));
    table.row("remembered with own policies", Some(REMEMBERED_US), allowed(&questions, ask)?);
    let anew = |resource| reference.anew(&app.asks(resource));
    table.row("decided anew with 20 own policies, 4 of them about it", None, allowed(&questions, anew)?);
    let nobodys = keys_of("nobody", QUESTIONS)?;
    table.row("denied with 20 own policies, 4 of them about it", None, denied(&nobodys, ask)?);
    let every: String = (0..20).map(about).collect();
    let reference = policy(&bindings, &every, &["purpose"])?;
    let anew = |resource| reference.anew(&app.asks(resource));
    table.row("decided anew with 20 own policies, all of them about it", None, allowed(&questions, anew)?);
    Ok(())
}

fn granted(table: &mut Table) -> Result<()> {
    let staff = Asker::new(STAFF)?;
    let mut bindings: String =
        (1..BINDINGS).map(|n| binding(&format!("b{n}"), APP, &format!("t{n}"), "*", "")).collect();
    bindings +=
        &format!("[[binding]]\nid = \"staff\"\nroles = [\"staff\"]\nprincipals = [\"{STAFF}\"]\ntenants = [\"*\"]\n");
    let all = InForce::new(policy(&bindings, "", &[])?);
    let grant = |n: usize| -> Result<Granted> {
        Ok(Granted {
            id: format!("g{n}").into(),
            principal: STAFF.parse()?,
            roles: [Role::Encrypter].into(),
            tenant: format!("t{n}").parse()?,
            keys: Some(Names::read(&["*"])?),
            indexes: None,
            from: None,
            expires: NOW + 3_600_000,
        })
    };
    all.set_grants((0..100).map(grant).collect::<Result<_>>()?)?;
    table.title(&format!("100 grants beside {BINDINGS_WRITTEN}"));
    let ask = |resource| all.authorize(&staff.asks(resource));
    let questions: Vec<Resource> = (0..QUESTIONS).map(|n| key(n % 100, &format!("k{n}"))).collect::<Result<_>>()?;
    table.row("allowed by a grant", None, allowed(&questions, ask)?);
    let questions: Vec<Resource> = (0..QUESTIONS).map(|n| key(100 + n, "k")).collect::<Result<_>>()?;
    table.row("denied: no grant for the tenant", None, denied(&questions, ask)?);
    Ok(())
}

fn fan_out(table: &mut Table) -> Result<()> {
    let app = Asker::new(APP)?;
    let with = |line: &str| policy(&binding("b", APP, "*", "*", line), "", &[]).map(InForce::new);
    let limited = with("fan_out = { tenants = 10000, per = \"1h\" }")?;
    let unlimited = with("")?;
    let questions = keys(QUESTIONS, 7)?;
    table.title("fan-out: at most 10,000 tenants per hour");
    let decision = limited.authorize(&app.asks(questions.first().context("no questions")?));
    ensure!(decision.fan_out.is_some(), "the binding has no limit");
    let known = |resource| limited.reach(&decision, &app.principal, resource, || SystemClock.since_boot());
    table.row("fan-out: known tenant", None, turns(&questions, known));
    // A window that slides on: each tenant is new, and one that was used longest ago falls out of it.
    let sliding = with("fan_out = { tenants = 10000, per = \"5s\" }")?;
    let decision_sliding = sliding.authorize(&app.asks(questions.first().context("no questions")?));
    let sweep = keys(20_000, 1)?;
    let mut now = SystemClock.since_boot();
    let new = |resource| {
        now += Duration::from_millis(1);
        black_box(SystemClock.since_boot());
        sliding.reach(&decision_sliding, &app.principal, resource, || now)
    };
    table.row("fan-out: new tenant", None, turns(&sweep, new));
    let narrow = with("fan_out = { tenants = 1, per = \"1h\" }")?;
    let decision_narrow = narrow.authorize(&app.asks(questions.first().context("no questions")?));
    let one_too_many = |resource| narrow.reach(&decision_narrow, &app.principal, resource, || SystemClock.since_boot());
    let first = key(BINDINGS, "k")?;
    ensure!(one_too_many(&first) == Reach::Within, "the first tenant is within every limit");
    table.row("fan-out: one tenant too many", None, turns(&questions, one_too_many));

    // As the pipeline does both.
    let ask = |all: &InForce, resource: &Resource| {
        let decision = all.authorize(&app.asks(resource));
        all.reach(&decision, &app.principal, resource, || SystemClock.since_boot())
    };
    table.difference(
        ("remembered decision, its binding without fan_out", turns(&questions, |resource| ask(&unlimited, resource))),
        ("remembered decision, its binding with fan_out", turns(&questions, |resource| ask(&limited, resource))),
        "overhead of fan_out on the request path",
    );
    Ok(())
}

/// Who asks, with what all its questions have in common.
struct Asker {
    principal: Principal,
    pairs: Option<Pairs>,
}

impl Asker {
    fn new(principal: &str) -> Result<Self> {
        Ok(Self { principal: principal.parse()?, pairs: None })
    }

    fn asks<'a>(&'a self, resource: &'a Resource) -> Request<'a> {
        Request {
            principal: &self.principal,
            strength: Strength::CERTIFICATE,
            net: NET,
            now: NOW,
            action: Action::Encrypt,
            resource,
            pairs: self.pairs.as_ref(),
        }
    }
}

/// Returns what asks about these in turn, so many times, once it is sure that each of them is allowed.
fn allowed<'a>(of: &'a [Resource], ask: impl Fn(&'a Resource) -> Decision) -> Result<impl FnMut(u32)> {
    ensure!(of.iter().all(|resource| ask(resource).allowed), "something is denied that should be measured as allowed");
    Ok(turns(of, ask))
}

/// As [`allowed`], of what is denied.
fn denied<'a>(of: &'a [Resource], ask: impl Fn(&'a Resource) -> Decision) -> Result<impl FnMut(u32)> {
    let is_denied = |decision: Decision| !decision.allowed && !decision.errors;
    ensure!(
        of.iter().all(|resource| is_denied(ask(resource))),
        "something is allowed that should be measured as denied"
    );
    Ok(turns(of, ask))
}

fn turns<'a, T>(of: &'a [Resource], mut ask: impl FnMut(&'a Resource) -> T) -> impl FnMut(u32) {
    let mut next = of.iter().cycle();
    move |times| {
        for resource in next.by_ref().take(times as usize) {
            black_box(ask(black_box(resource)));
        }
    }
}

fn policy(bindings: &str, own: &str, pairs: &[&str]) -> Result<Policy> {
    let bindings = File { label: "bindings.toml", text: bindings };
    let own = [File { label: "own.cedar", text: own }];
    Ok(Policy::read(&Files { bindings, own: &own, pairs: &PairNames::of(pairs)? })?)
}

fn binding(id: &str, who: &str, tenant: &str, keys: &str, line: &str) -> String {
    format!(
        "[[binding]]\nid = \"{id}\"\nroles = [\"encrypter\", \"decrypter\"]\nprincipals = [\"{who}\"]\n\
         tenants = [\"{tenant}\"]\nkeys = [\"{keys}\"]\n{line}\n"
    )
}

fn key(tenant: usize, name: &str) -> Result<Resource> {
    Ok(Resource::Key(format!("t{tenant}").parse()?, name.parse()?))
}

/// Returns different keys, of as many of the tenants as there are, in an order that is not theirs.
fn keys(count: usize, step: usize) -> Result<Vec<Resource>> {
    (0..count).map(|n| key(n * step % BINDINGS, &format!("k{}", n / BINDINGS))).collect()
}

fn keys_of(tenant: &str, count: usize) -> Result<Vec<Resource>> {
    (0..count).map(|n| Ok(Resource::Key(tenant.parse()?, format!("k{n}").parse()?))).collect()
}
