//! Grants: who may agree to what, for how long, and what a crash leaves of it.

use super::*;

const ADA: &str = "spiffe://example.com/staff/ada";
const BOB: &str = "spiffe://example.com/staff/bob";
const EVE: &str = "spiffe://example.com/staff/eve";

fn under(id: &str) -> Terms {
    Terms { request_id: Some(id.parse().unwrap()), ..Terms::default() }
}

fn role(tenant: &str, duration_ms: u64) -> Change {
    let (tenant, role, reason) = (name(tenant), "decrypter", "ticket 4711");
    let hash = ContentHash::of_role(&tenant, role, duration_ms, reason);
    let what = GrantFor::Role { role: role.into(), duration_ms };
    Change::RequestGrant { tenant: Some(tenant), what, hash, reason: reason.into() }
}

fn operation(tenant: Option<&str>, operation: &str, hash: ContentHash) -> Change {
    let what = GrantFor::Operation { operation: operation.into(), request: [1, 2, 3].into() };
    Change::RequestGrant { tenant: tenant.map(name), what, hash, reason: "customer left".into() }
}

fn grant_of(changed: &Changed) -> &GrantView {
    match &changed.object {
        Object::Grant(grant) => grant,
        other => panic!("{other:?}"),
    }
}

fn approve(grant: &GrantView) -> Change {
    Change::ApproveGrant { tenant: grant.tenant.clone(), grant: grant.uid, hash: grant.hash }
}

fn revoke(grant: &GrantView) -> Change {
    Change::RevokeGrant { tenant: grant.tenant.clone(), grant: grant.uid }
}

impl Running {
    async fn asked_for(&self, change: Change, sub: &str) -> GrantView {
        grant_of(&self.ask(change, Terms::default(), sub).await.unwrap()).clone()
    }

    async fn state(&self, grant: &GrantView) -> GrantState {
        self.keyring.grant(grant.tenant.as_ref(), grant.uid).await.unwrap().state
    }
}

impl World {
    fn in_force(&self) -> usize {
        self.roles.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_role_is_in_force_from_its_approval_to_its_end() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let grant = running.asked_for(role("acme", HOUR), ADA).await;
    assert_eq!((grant.state, world.in_force()), (GrantState::Pending, 0));
    world.clock.pass(HOUR);
    let approved = running.asked_for(approve(&grant), BOB).await;
    assert_eq!((approved.state, approved.end), (GrantState::Approved, world.clock.now() + HOUR));
    let told = world.roles.lock().unwrap().clone();
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (&*told.principal, &*told.role, told.tenant.as_str(), told.end),
        (ADA, "decrypter", "acme", approved.end)
    );
    assert_eq!(told.from, world.clock.now());

    // Over a restart, and over a crash.
    running.stop().await;
    world.roles.lock().unwrap().clear();
    let running = world.start().await;
    assert_eq!(world.in_force(), 1);
    world.clock.pass(HOUR);
    assert_eq!(running.state(&grant).await, GrantState::Expired);
    assert!(matches!(
        running.ask(revoke(&grant), Terms::default(), ADA).await,
        Err(Error::GrantState(GrantState::Expired))
    ));
    running.crash().await;
    let running = world.start().await;
    assert_eq!(world.in_force(), 0);
    running.stop().await;
    let leaves = world.leaves();
    let of = |op: &str| leaves.iter().rev().find(|stored| stored.leaf.op.as_deref() == Some(op)).unwrap().leaf.clone();
    for (op, sub, by2) in [("RequestGrant", ADA, None), ("ApproveGrant", BOB, Some(ADA))] {
        let leaf = of(op);
        assert_eq!(
            (leaf.sub.as_deref(), leaf.by2.as_deref(), leaf.ten.as_deref()),
            (Some(sub), by2, Some("acme")),
            "{op}"
        );
        let evidence = format!("grant {}: role decrypter for 3600 s: ticket 4711", grant.uid);
        assert_eq!(leaf.ev.as_deref(), Some(&*evidence), "{op}");
    }
}

#[tokio::test]
async fn nobody_approves_what_he_asked_for_nor_what_he_did_not_look_at() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let grant = running.asked_for(role("acme", HOUR), ADA).await;
    assert!(matches!(running.ask(approve(&grant), Terms::default(), ADA).await, Err(Error::SecondPersonRequired)));
    let other = ContentHash::of_role(&name("acme"), "decrypter", HOUR + 1000, "ticket 4711");
    let blind = Change::ApproveGrant { tenant: grant.tenant.clone(), grant: grant.uid, hash: other };
    assert!(matches!(running.ask(blind, Terms::default(), BOB).await, Err(Error::GrantChanged)));
    let elsewhere = Change::ApproveGrant { tenant: None, grant: grant.uid, hash: grant.hash };
    assert!(matches!(running.ask(elsewhere, Terms::default(), BOB).await, Err(Error::GrantNotFound)));
    assert_eq!((running.state(&grant).await, world.in_force()), (GrantState::Pending, 0));
    assert!(matches!(running.ask(role("acme", DAY), Terms::default(), ADA).await, Err(Error::GrantTooLong(_))));
    world.clock.pass(DAY);
    assert!(matches!(
        running.ask(approve(&grant), Terms::default(), BOB).await,
        Err(Error::GrantState(GrantState::Expired))
    ));
    running.stop().await;
}

#[tokio::test]
async fn what_was_taken_back_is_not_in_force_and_stays_so() {
    let world = World::new().await;
    let mut running = world.start().await;
    running.tenant_with_key("acme").await;
    for (revoker, is_approved) in [(ADA, false), (BOB, true), (EVE, true)] {
        let grant = running.asked_for(role("acme", HOUR), ADA).await;
        if is_approved {
            running.asked_for(approve(&grant), BOB).await;
            assert_eq!(world.in_force(), 1);
        }
        let revoked = running.asked_for(revoke(&grant), revoker).await;
        assert_eq!(
            (revoked.state, revoked.revoker.as_deref(), world.in_force()),
            (GrantState::Revoked, Some(revoker), 0)
        );
        for change in [revoke(&grant), approve(&grant)] {
            let refused = running.ask(change, Terms::default(), BOB).await;
            assert!(matches!(refused, Err(Error::GrantState(GrantState::Revoked))), "{refused:?}");
        }
        running.crash().await;
        running = world.start().await;
        assert_eq!((running.state(&grant).await, world.in_force()), (GrantState::Revoked, 0));
    }
    running.stop().await;
}

#[tokio::test]
async fn a_crash_leaves_a_grant_as_its_row_has_it() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let grant = running.asked_for(role("acme", HOUR), ADA).await;
    for (fault, change, state) in [
        (Fault::Before, approve(&grant), GrantState::Pending),
        (Fault::After, approve(&grant), GrantState::Approved),
        (Fault::Before, revoke(&grant), GrantState::Approved),
        (Fault::After, revoke(&grant), GrantState::Revoked),
    ] {
        let running = world.start().await;
        *world.store.fault.lock().unwrap() = fault;
        assert!(running.ask(change, Terms::default(), BOB).await.is_err());
        // Nothing can be taken back any more on this node, so that nothing is given.
        assert_eq!(world.in_force(), 0, "{fault:?} {state:?}");
        running.crash().await;
        let running = world.start().await;
        assert_eq!(running.state(&grant).await, state);
        assert_eq!(world.in_force(), usize::from(state == GrantState::Approved));
        running.stop().await;
    }
    drop(running);
}

#[tokio::test]
async fn an_approved_operation_is_carried_out_once_by_whoever_asked_for_it() {
    let mut world = World::new().await;
    world.settings.wait_ms_min = 7 * DAY;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    let change = || schedule("acme", Some(version(1)), 0);
    let ask = |sub: &'static str| running.ask(change(), Terms::default(), sub);
    assert!(matches!(ask(ADA).await, Err(Error::WaitTooShort(_))));
    let hash = ContentHash::of_change(change(), None);
    let grant = running.asked_for(operation(Some("acme"), "ScheduleKeyDestruction", hash), ADA).await;
    assert!(matches!(ask(ADA).await, Err(Error::WaitTooShort(_))), "nobody approved it");
    running.asked_for(approve(&grant), BOB).await;
    assert_eq!(world.in_force(), 0, "an operation is no role");
    for sub in [BOB, EVE] {
        assert!(matches!(ask(sub).await, Err(Error::WaitTooShort(_))), "{sub} did not ask for it");
    }
    for other in [schedule("acme", Some(version(1)), 1), schedule("acme", None, 0), destroy("acme", Some(0))] {
        assert!(
            matches!(running.ask(other.clone(), Terms::default(), ADA).await, Err(Error::WaitTooShort(_))),
            "{other:?}"
        );
    }
    let with_etag = Terms { etag: Some(running.keyring.tenant(&name("acme")).await.unwrap().etag), ..Terms::default() };
    assert!(
        matches!(running.ask(change(), with_etag, ADA).await, Err(Error::WaitTooShort(_))),
        "another state is meant"
    );
    // Looking uses nothing up.
    running.ask(change(), Terms { rehearse: true, ..Terms::default() }, ADA).await.unwrap();
    assert_eq!(running.state(&grant).await, GrantState::Approved);

    let done = running.ask(change(), under("once"), ADA).await.unwrap();
    assert!(matches!(done.how, How::Made(_)));
    assert_eq!(running.state(&grant).await, GrantState::Used);
    let again = running.ask(change(), under("once"), ADA).await.unwrap();
    assert!(matches!(again.how, How::Before(_)));
    assert!(matches!(
        running.ask(change(), under("twice"), ADA).await,
        Err(Error::WaitTooShort(_) | Error::VersionState(_))
    ));
    running.stop().await;
    let leaves = world.leaves();
    let done = leaves.iter().rev().find(|stored| stored.leaf.op.as_deref() == Some("DestroyKeyVersion")).unwrap();
    assert_eq!((done.leaf.sub.as_deref(), done.leaf.by2.as_deref()), (Some(ADA), Some(BOB)));
    assert!(done.leaf.ev.as_deref().unwrap().ends_with(": customer left"), "{:?}", done.leaf.ev);
}

#[tokio::test]
async fn two_persons_destroy_a_tenant_at_once_and_its_grants_go_with_it() {
    let mut world = World::new().await;
    world.settings.wait_ms_min = 7 * DAY;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    let kept = running.asked_for(role("globex", HOUR), ADA).await;
    let hash = ContentHash::of_change(destroy("acme", Some(0)), None);
    let grant = running.asked_for(operation(Some("acme"), "DestroyTenant", hash), ADA).await;
    running.asked_for(approve(&grant), BOB).await;
    world.clock.pass(HOUR);
    assert!(
        matches!(running.ask(destroy("acme", Some(0)), Terms::default(), ADA).await, Err(Error::WaitTooShort(_))),
        "too late"
    );
    let grant = running.asked_for(operation(Some("acme"), "DestroyTenant", hash), ADA).await;
    running.asked_for(approve(&grant), BOB).await;
    running.ask(destroy("acme", Some(0)), Terms::default(), ADA).await.unwrap();
    assert!(running.keyring.grants(Some(&name("acme")), None, 10).await.is_err());
    let left = world.store.inner.list(Family::Ops, &row_key::all_grants().key, None, 10).await.unwrap().rows;
    assert_eq!(left.len(), 1, "no row of a grant outlives its tenant");
    assert_eq!(running.state(&kept).await, GrantState::Pending);
    running.stop().await;
}

#[tokio::test]
async fn grants_of_the_cluster_take_turns_and_are_used_once() {
    let world = World::new().await;
    let running = world.start().await;
    let hash = ContentHash::of_operation("ExportKeystore");
    let grant = running.asked_for(operation(None, "ExportKeystore", hash), ADA).await;
    running.asked_for(approve(&grant), BOB).await;
    let give = |change: Change, sub: &'static str| running.ask(change, Terms::default(), sub);
    let (used, taken, used_again) = tokio::join!(
        give(Change::UseGrant { hash }, ADA),
        give(revoke(&grant), BOB),
        give(Change::UseGrant { hash }, ADA)
    );
    let done = [used.is_ok(), taken.is_ok(), used_again.is_ok()];
    assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    running.stop().await;
}

#[tokio::test]
async fn nobody_fills_a_place() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    for _ in 0..100 {
        running.asked_for(role("acme", HOUR), EVE).await;
    }
    assert!(matches!(running.ask(role("acme", HOUR), Terms::default(), EVE).await, Err(Error::TooManyGrants)));
    let first = running.asked_for(role("acme", HOUR), ADA).await;
    // Taken back again and again: what is over makes room.
    for _ in 0..950 {
        let grant = running.asked_for(role("acme", HOUR), ADA).await;
        running.asked_for(revoke(&grant), ADA).await;
    }
    let listed = running.keyring.grants(Some(&name("acme")), None, 5_000).await.unwrap();
    assert_eq!(listed.items.len(), 1_000);
    assert_eq!(running.state(&first).await, GrantState::Pending);
    world.clock.pass(32 * DAY);
    let last = running.asked_for(role("acme", HOUR), ADA).await;
    let listed = running.keyring.grants(Some(&name("acme")), None, 5_000).await.unwrap();
    assert_eq!(listed.items.iter().map(|grant| grant.uid).collect::<Vec<_>>(), [last.uid]);
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_grant_gives_nothing_and_stops_nothing() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let uid = running.keyring.tenant(&name("acme")).await.unwrap().uid;
    let [one, other] =
        [running.asked_for(role("acme", HOUR), ADA).await, running.asked_for(role("acme", HOUR), ADA).await];
    for grant in [&one, &other] {
        running.asked_for(approve(grant), BOB).await;
    }
    assert_eq!(world.in_force(), 2);
    running.stop().await;
    let at = |grant: &GrantView| row_key::grant(Some(uid), grant.uid);
    let whole = world.store.inner.get(&at(&one)).await.unwrap().unwrap();
    // The row of one where the other lies.
    let writes = vec![Write::Put(at(&other), whole)];
    world.store.inner.commit(Batch { preconditions: Vec::new(), writes }).await.unwrap();
    let running = world.start().await;
    assert_eq!(world.in_force(), 1);
    assert!(running.keyring.grant(Some(&name("acme")), other.uid).await.is_err());
    running.asked_for(role("acme", HOUR), ADA).await;
    running.stop().await;
}

#[tokio::test]
async fn a_clock_that_was_ahead_gives_nothing_when_it_is_right_again() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let grant = running.asked_for(role("acme", HOUR), ADA).await;
    world.clock.step(HOUR);
    running.asked_for(approve(&grant), BOB).await;
    running.stop().await;
    world.clock.now.fetch_sub(HOUR, Ordering::SeqCst);
    let running = world.start().await;
    assert_eq!((running.state(&grant).await, world.in_force()), (GrantState::Expired, 0));
    // It would hold when that time comes: before, it can be taken back.
    running.asked_for(revoke(&grant), BOB).await;
    world.clock.pass(HOUR);
    assert_eq!(running.state(&grant).await, GrantState::Revoked);
    running.stop().await;
}

#[tokio::test]
async fn a_node_that_failed_never_gives_by_a_grant_again() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let grant = running.asked_for(role("acme", HOUR), ADA).await;
    // Some other part of it.
    running.keyring.mark_broken();
    assert!(running.ask(approve(&grant), Terms::default(), BOB).await.is_err());
    assert_eq!(world.in_force(), 0);
    running.crash().await;
}
