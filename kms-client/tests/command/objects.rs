//! Tenants, keys, identity and status, as tables and as JSON. What is compared here is what scripts rely on.

use crate::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_shown() {
    let world = World::new().await;
    assert_eq!(
        world.run("tenant create acme").await.text(),
        "name     tenants/acme\nuid      00000000000000000000000000000000\nstate    ACTIVE\nlease    5m\n\
         created  2026-01-02T03:04:05Z\netag     e1\n"
    );
    assert_eq!(
        world.run("tenant get tenants/acme --output json").await.text(),
        r#"{
  "name": "tenants/acme",
  "uid": "00000000000000000000000000000000",
  "state": "TENANT_STATE_ACTIVE",
  "createTime": "2026-01-02T03:04:05Z",
  "etag": "e1",
  "dataKeyLease": "300s"
}
"#
    );
    assert!(world.run("tenant create acme --data-key-lease 10m").await.text().contains("\nlease    10m\n"));
    assert!(world.run("tenant update acme --data-key-lease 1s500ms").await.text().contains("\nlease    1s 500ms\n"));
    let suspended = world.run("tenant suspend acme").await.text();
    assert!(
        suspended.contains("SUSPENDED") && suspended.contains("\nleases end  2026-01-02T03:09:05Z\n"),
        "{suspended}"
    );
    assert!(world.run("tenant resume acme").await.text().contains("ACTIVE"));
    assert!(world.run("tenant cancel-destruction acme").await.text().contains("SUSPENDED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_destroyed_after_a_wait_or_at_once() {
    let world = World::new().await;
    let pending = world.run("tenant destroy acme --wait 7d --yes --name acme").await;
    assert_eq!(pending.code, 0);
    assert_eq!(pending.stderr, "note: until then, `kms tenant cancel-destruction acme` takes it back\n");
    let fenced = world.run("tenant destroy acme --wait 0s --yes --name tenants/acme --output json").await.text();
    assert!(fenced.contains("\"state\": \"TENANT_STATE_FENCED\""), "{fenced}");
    assert!(
        fenced.ends_with(
            "\"fenceTime\": \"2026-01-02T03:04:05Z\",\n  \"etag\": \"e1\",\n  \"leaseEndTime\": \
             \"2026-01-02T03:09:05Z\"\n}\n"
        ),
        "{fenced}"
    );
    world.run("tenant destroy acme --yes --name acme").await;
    let seen = world.fake.requests().join("\n");
    assert!(seen.contains("seconds: 604800") && seen.contains("seconds: 0") && seen.contains("wait: None"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_shown_whole_or_up_to_a_limit() {
    let world = World::new().await;
    let all = world.run("tenant list").await.text();
    assert!(
        all.starts_with("TENANT  STATE   CREATED               DESTRUCTION\nt0      ACTIVE  2026-01-02T03:04:05Z  -\n")
    );
    assert_eq!(all.lines().count(), 6);
    let some = world.run("key list --limit 3").await;
    assert_eq!(some.stderr, "note: there are more: --page-token 3 goes on\n");
    assert_eq!(String::from_utf8(some.stdout).unwrap().lines().count(), 4);
    let rest = world.run("key list --page-token 3").await.text();
    assert_eq!(
        rest,
        "KEY  PURPOSE  STATE    PRIMARY  CREATED               DESTRUCTION\nk3   ENCRYPT  ENABLED  1        \
         2026-01-02T03:04:05Z  -\nk4   ENCRYPT  ENABLED  1        2026-01-02T03:04:05Z  -\n"
    );
    let json = world.run("tenant list --limit 1 --output json").await.text();
    assert!(json.starts_with("{\n  \"tenants\": [\n    {\n      \"name\": \"tenants/t0\",\n"), "{json}");
    assert!(json.ends_with("  ],\n  \"nextPageToken\": \"1\"\n}\n"), "{json}");
    let versions = world.run("key versions app --limit 1 --output json").await.text();
    assert_eq!(
        versions,
        r#"{
  "keyVersions": [
    {
      "name": "tenants/acme/keys/app/versions/1",
      "version": 1,
      "state": "KEY_STATE_ENABLED",
      "createTime": "2026-01-02T03:04:05Z",
      "etag": "e1"
    }
  ],
  "nextPageToken": "1"
}
"#
    );
    assert!(world.run("key versions app").await.text().starts_with("VERSION  STATE    CREATED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown() {
    let world = World::new().await;
    let created = world.run("key create app --label team=billing --label env=a=b --output json").await.text();
    assert_eq!(
        created,
        r#"{
  "name": "tenants/acme/keys/app",
  "uid": "11111111111111111111111111111111",
  "purpose": "KEY_PURPOSE_ENCRYPT",
  "state": "KEY_STATE_ENABLED",
  "primaryVersion": 1,
  "labels": {
    "env": "a=b",
    "team": "billing"
  },
  "createTime": "2026-01-02T03:04:05Z",
  "updateTime": "2026-01-02T03:04:05Z",
  "etag": "e1"
}
"#
    );
    let updated = world.run("key update app --label team=billing").await.text();
    assert_eq!(
        updated,
        "name             tenants/acme/keys/app\nuid              11111111111111111111111111111111\npurpose          \
         ENCRYPT\nstate            ENABLED\nprimary version  1\nlabels           team=billing\ncreated          \
         2026-01-02T03:04:05Z\nupdated          2026-01-02T03:04:05Z\netag             e1\n"
    );
    assert!(!world.run("key update app --no-labels").await.text().contains("labels"));
    assert!(world.run("key rotate app").await.text().contains("primary version  2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_one_version_of_it_is_changed() {
    let world = World::new().await;
    assert!(world.run("key disable app").await.text().contains("state            DISABLED\n"));
    assert!(world.run("key enable app").await.text().contains("state            ENABLED\n"));
    assert_eq!(
        world.run("key disable app --version 2").await.text(),
        "name        tenants/acme/keys/app/versions/2\nstate       DISABLED\ncreated     2026-01-02T03:04:05Z\nleases \
         end  2026-01-02T03:09:05Z\netag        e1\n"
    );
    assert!(world.run("key enable app --version 2").await.text().contains("ENABLED"));
    let pending = world.run("key destroy app --wait 12h --yes --name app").await;
    assert_eq!(pending.stderr, "note: until then, `kms key cancel-destruction tenants/acme/keys/app` takes it back\n");
    let version = world.run("key destroy app --version 2 --yes --name app/versions/2 --output json").await.text();
    assert!(version.contains("\"destroyTime\": \"2026-01-02T03:04:05Z\""), "{version}");
    assert!(world.run("key destroy app --wait 0s --yes --name app").await.text().contains("DESTROYED"));
    assert!(world.run("key cancel-destruction app").await.text().contains("DISABLED"));
    assert!(world.run("key cancel-destruction app --version 2").await.text().contains("versions/2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_keys_that_each_version_wraps_are_shown_where_there_are_any() {
    let world = World::new().await;
    assert_eq!(
        world.run("key versions managed --limit 2").await.stdout,
        b"VERSION  STATE    CREATED               DESTRUCTION  DATA-KEYS\n1        ENABLED  2026-01-02T03:04:05Z  -    \
          \x20       0\n2        ENABLED  2026-01-02T03:04:05Z  -            100\n"
    );
    let others = world.run("key versions app").await.text();
    assert!(others.starts_with("VERSION  STATE    CREATED               DESTRUCTION\n"), "{others}");
    let created = world.run("key create people --purpose managed").await.text();
    assert!(created.contains("purpose          MANAGED\n"), "{created}");
    assert!(world.run("key create receipts --purpose mac").await.text().contains("purpose          MAC\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoami_shows_the_principal_and_what_is_bound_to_it() {
    let world = World::new().await;
    assert_eq!(
        world.run("whoami").await.text(),
        "\
principal    spiffe://example.com/test
auth method  MTLS_AND_TOKEN
strength     certificate token mfa

BINDING                                 ROLES                TENANTS  KEYS  EXPIRES
test-all                                encrypter,decrypter  *        app*  -
grant/00000000000000000000000000000000  auditor              acme     *     2026-01-02T03:04:05Z
"
    );
    assert_eq!(
        world.run("whoami --output json").await.text(),
        r#"{
  "principal": "spiffe://example.com/test",
  "authMethod": "AUTH_METHOD_MTLS_AND_TOKEN",
  "bindings": [
    {
      "id": "test-all",
      "roles": [
        "encrypter",
        "decrypter"
      ],
      "tenants": [
        "*"
      ],
      "keys": [
        "app*"
      ]
    },
    {
      "id": "grant/00000000000000000000000000000000",
      "roles": [
        "auditor"
      ],
      "tenants": [
        "acme"
      ],
      "keys": [
        "*"
      ],
      "expireTime": "2026-01-02T03:04:05Z"
    }
  ],
  "strength": [
    "certificate",
    "token",
    "mfa"
  ]
}
"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_what_the_server_is() {
    let world = World::new().await;
    assert_eq!(
        world.run("status").await.text(),
        "\
state      SERVING
version    0.1.0
node       node-1
cluster    22222222222222222222222222222222
started    2026-01-02T03:04:05Z
epoch      1, since 2026-01-02T03:04:05Z
backend    software, reachable: keystore file, 1 master-key version
memory     memfd_secret, 3 of 1024 slots used
audit log  example.com/kms/log-1, 42 records
store      memory, 7 mutations

CACHE    ENTRIES  MAX
tenants  1        100

warning  the store is in memory: all is lost at a restart
"
    );
    let json = world.run("status --output json").await.text();
    for part in [
        "\"state\": \"SERVER_STATE_SERVING\"",
        "\"slotsMax\": \"1024\"",
        "\"number\": 1,",
        "\"auditLog\": {\n    \"origin\": \"example.com/kms/log-1\",\n    \"size\": \"42\"\n  }",
        "\"entriesMax\": \"100\"",
        "\"reachable\": true\n  }",
        "\"warnings\": [\n    \"the store is in memory: all is lost at a restart\"\n  ]",
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
}
