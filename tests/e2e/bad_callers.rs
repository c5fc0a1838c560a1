//! Callers that do not prove who they are get nothing: neither an answer nor a hint.

use anyhow::Result;
use kms_proto::v1::GetCallerIdentityRequest;
use kms_tests::request::*;
use kms_tests::{Authority, Caller, Identity, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::{ACME_KEY, Expected, World};

#[tokio::test]
async fn callers_without_an_identity_get_nothing() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    let (ours, foreign) = (site.authority(), Authority::new()?);
    let (app, admin) = (site.principal("app"), site.principal("admin"));
    let mut expected = Expected::of("callers without an identity");

    // No certificate that counts: the connection may be refused, or each call on it.
    let refused_anywhere: [(&str, Option<Identity>); 5] = [
        ("no certificate", None),
        ("a foreign authority's", Some(foreign.client(&app)?)),
        ("a foreign authority's, for the administrator", Some(foreign.client(&admin)?)),
        ("an expired one", Some(ours.expired_client(&app)?)),
        ("one for servers", Some(ours.server_with(&app)?)),
    ];
    for (what, identity) in refused_anywhere {
        let caller = world.daemon.caller_with(identity.as_ref())?;
        for (rpc, got) in attempts(&caller).await {
            let right = got
                .as_ref()
                .is_err_and(|r| r.reason.is_none() || (r.code == Code::Unauthenticated && r.is("NO_IDENTITY")));
            expected.row(
                right,
                &format!("{what}: {rpc}"),
                "no connection, or UNAUTHENTICATED NO_IDENTITY",
                &format!("{got:?}"),
            );
        }
    }
    // A good certificate that names nobody, or two.
    let other = site.principal("other");
    let nobody: [(&str, &[&str]); 5] = [
        ("no name", &[]),
        ("two principals", &[&app, &other]),
        ("the same principal twice", &[&app, &app]),
        ("a name that is no SPIFFE id", &["https://test.example/app"]),
        ("a SPIFFE id without a path", &["spiffe://test.example"]),
    ];
    for (what, uris) in nobody {
        let caller = world.daemon.caller_with(Some(&ours.client_of(uris)?))?;
        for (rpc, got) in attempts(&caller).await {
            expected.refused(&format!("{what}: {rpc}"), Code::Unauthenticated, "NO_IDENTITY", got);
        }
    }
    // A principal that nothing is bound to is somebody, who may ask nothing but who it is.
    let stranger = world.daemon.caller("stranger")?;
    let me = stranger.ask(GetCallerIdentityRequest {}).await;
    let right = me.as_ref().is_ok_and(|me| me.principal == site.principal("stranger") && me.bindings.is_empty());
    expected.row(right, "a stranger asks who it is", "itself, without bindings", &format!("{me:?}"));
    let got = stranger.ask(encrypt(ACME_KEY, b"x", &[])).await;
    expected.refused("a stranger seals", Code::PermissionDenied, "POLICY_DENIED", got);
    let got = stranger.ask(kms_proto::v1::GetStatusRequest {}).await;
    expected.refused("a stranger asks for the status", Code::PermissionDenied, "POLICY_DENIED", got);
    expected.check();
    world.finish().await
}

async fn attempts(caller: &Caller) -> Vec<(&'static str, Result<(), kms_tests::Refused>)> {
    vec![
        ("Encrypt", caller.ask(encrypt(ACME_KEY, b"x", &[])).await.map(drop)),
        ("GetCallerIdentity", caller.ask(GetCallerIdentityRequest {}).await.map(drop)),
        ("CreateTenant", caller.ask(create_tenant("new")).await.map(drop)),
        ("GetStatus", caller.ask(kms_proto::v1::GetStatusRequest {}).await.map(drop)),
    ]
}

#[tokio::test]
async fn there_is_no_way_in_without_tls() -> Result<()> {
    let world = World::new().await?;
    for address in [world.daemon.services(), world.daemon.operator()] {
        // gRPC in the clear.
        let channel = Endpoint::from_shared(format!("http://{address}"))?.timeout(kms_tests::PATIENCE).connect_lazy();
        let got = kms_tests::wire::send_bytes(channel, "/kms.v1.CryptoService/Encrypt", b"").await;
        assert!(got.as_ref().is_err_and(|refused| refused.reason.is_none()), "{got:?}");
        // What is no TLS at all gets no answer in the clear either.
        for greeting in [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &[0; 64],
            b"\x16\x03\x01",
        ] {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.write_all(greeting).await?;
            stream.shutdown().await?;
            let mut answer = Vec::new();
            // A reset is an end too.
            drop(kms_tests::patiently("the end of a connection without TLS", stream.read_to_end(&mut answer)).await?);
            // A TLS alert (record type 21) is the only thing to say.
            assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        }
    }
    // Whoever sends nothing, or stops in the middle, holds nobody up.
    let mut idle = Vec::new();
    for _ in 0..32 {
        idle.push(tokio::net::TcpStream::connect(world.daemon.services()).await?);
    }
    world.daemon.caller("app")?.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    drop(idle);
    world.finish().await
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away_and_places_come_back() -> Result<()> {
    let world = World::new().await?;
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    // 64 from one address is the default. Of 100 that say nothing, some are closed before they could say anything.
    let mut idle = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let mut stream = tokio::net::TcpStream::connect(world.daemon.services()).await?;
        idle.spawn(async move { drop(stream.read(&mut [0]).await) });
    }
    for closed in 0..36 {
        let end = kms_tests::patiently("the end of a connection over the limit", idle.join_next()).await?;
        assert!(end.is_some_and(|end| end.is_ok()), "after {closed}");
    }
    // Who is connected already does not notice.
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    idle.abort_all();
    while idle.join_next().await.is_some() {}
    // Each place comes back when the daemon sees that its connection is closed.
    let let_in = async {
        while world.daemon.caller("app")?.ask(encrypt(ACME_KEY, b"x", &[])).await.is_err() {}
        anyhow::Ok(())
    };
    kms_tests::patiently("a place for the next caller", let_in).await??;
    world.finish().await
}

#[tokio::test]
async fn the_probes_say_whether_it_serves_and_nothing_else() -> Result<()> {
    let world = World::new().await?;
    let mut expected = Expected::of("probes");
    for (path, code) in
        [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/", 404), ("/kms.v1.CryptoService/Encrypt", 404)]
    {
        let got = world.daemon.probe(path).await?;
        expected.row(got == code, path, &code.to_string(), &got.to_string());
    }
    // Whoever balances load asks over gRPC: HealthCheckResponse { status: SERVING }.
    for (what, channel) in [
        ("health of the services", world.app.channel(Listener::Services)),
        ("health of the operator listener", world.admin.channel(Listener::Operator)),
    ] {
        let got = kms_tests::wire::send_bytes(channel, "/grpc.health.v1.Health/Check", b"").await;
        expected.row(got.as_ref().is_ok_and(|got| got == &[8, 1]), what, "SERVING", &format!("{got:?}"));
    }
    expected.check();
    world.finish().await
}
