//! Tenants, each with one application that is bound to it alone, and with secrets that are found again wherever they
//! are.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use kms_proto::v1;
use kms_tests::needle::Needle;
use kms_tests::request::*;
use kms_tests::{Binding, Caller, Daemon, Site};

/// What a caller keeps: a blob, the uid of a managed data key, or a MAC, with all that opens it.
#[derive(Clone, Debug)]
pub struct Thing {
    /// What it is.
    pub what: What,
    /// The key that it is of.
    pub key: &'static str,
    /// What the caller keeps.
    pub bytes: Vec<u8>,
    /// What comes out; of a MAC, its message.
    pub secret: Vec<u8>,
    /// Its context.
    pub pairs: BTreeMap<String, String>,
    /// Its own bytes.
    pub aad: Vec<u8>,
}

/// What a thing is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum What {
    /// A ciphertext.
    Data,
    /// A wrapped data key.
    DataKey,
    /// The uid of a managed data key.
    Managed,
    /// A MAC.
    Mac,
}

/// One tenant, and what there is of it.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// Its id: the last part of its name.
    pub id: String,
    /// Its uid, in hex.
    pub uid: String,
    /// A key that only it has, by name. All others are named as every tenant's are.
    pub only: String,
    /// Its keys' uids in hex, by name.
    pub keys: BTreeMap<String, String>,
    /// What its application keeps.
    pub things: Vec<Thing>,
    /// The key of its blind index [`INDEX`].
    pub index: Vec<u8>,
    /// A request id that it made a data key under, and the answer.
    pub request_id: String,
    /// What it got under it.
    pub repeated: Vec<u8>,
    /// Pages to go on with, by the RPC.
    pub tokens: BTreeMap<&'static str, String>,
    /// The etag of its key [`APP`], and those of others that nobody else may learn.
    pub etags: Vec<String>,
    /// A grant that its application asked for.
    pub grant: v1::Grant,
}

/// For data and data keys, as every tenant has it.
pub const APP: &str = "app";
/// For managed data keys.
pub const ROWS: &str = "rows";
/// For MACs.
pub const MAC: &str = "mac";
/// A blind index.
pub const INDEX: &str = "mail";
/// A key that is to be destroyed in a week.
pub const LEAVING: &str = "leaving";
/// The keys that every tenant has, with their purposes.
const KEYS: [(&str, v1::KeyPurpose); 7] = [
    (APP, v1::KeyPurpose::Encrypt),
    ("other-app", v1::KeyPurpose::Encrypt),
    (ROWS, v1::KeyPurpose::Managed),
    ("other-rows", v1::KeyPurpose::Managed),
    (MAC, v1::KeyPurpose::Mac),
    ("other-mac", v1::KeyPurpose::Mac),
    (LEAVING, v1::KeyPurpose::Encrypt),
];
/// The context that all tenants have in common: then nothing but the tenant tells things apart.
pub const COMMON: [(&str, &str); 1] = [("table", "customers")];
/// What the application of a tenant may do there: everything.
const ROLES: [&str; 9] =
    ["encrypter", "decrypter", "reencrypter", "eraser", "key-admin", "tenant-admin", "auditor", "staff", "approver"];

impl Tenant {
    /// Names the tenant with this number. Some names are the beginnings of others, some differ only in case.
    pub fn new(number: usize) -> Self {
        let word = if number.is_multiple_of(2) { "tenant" } else { "Tenant" };
        Self { id: format!("{word}-{}", number / 2 + 1), only: format!("key-{:08x}", mixed(number)), ..Self::default() }
    }

    /// Returns its name.
    pub fn name(&self) -> String {
        format!("tenants/{}", self.id)
    }

    /// Returns the name of one of its keys.
    pub fn key(&self, key: &str) -> String {
        format!("{}/keys/{key}", self.name())
    }

    /// Returns the name of its application.
    pub fn app(&self) -> String {
        format!("app-of-{}", self.id)
    }

    /// The context that only it has.
    pub fn private(&self) -> Vec<(String, String)> {
        vec![("table".into(), "customers".into()), ("owner".into(), format!("context of {}", self.only))]
    }

    /// Returns the keys, with the one that only it has.
    fn keys_to_make(&self) -> Vec<(String, v1::KeyPurpose)> {
        let mut keys: Vec<_> = KEYS.iter().map(|(name, purpose)| ((*name).to_owned(), *purpose)).collect();
        keys.push((self.only.clone(), v1::KeyPurpose::Encrypt));
        keys
    }

    /// Binds its application, and only to it.
    pub fn bind(&self, site: &Site) -> Result<()> {
        site.bind(&Binding {
            id: &self.app(),
            roles: &ROLES,
            principals: &[&site.principal(&self.app())],
            tenants: &[&self.id],
            keys: &["*"],
            indexes: &["*"],
        })
    }

    /// Makes it, with its keys.
    pub async fn make(mut self, admin: Caller, app: Caller) -> Result<Self> {
        let made = admin.ask(create_tenant(&self.id)).await?.tenant.context("the tenant")?;
        self.uid = made.uid;
        for (name, purpose) in self.keys_to_make() {
            let made = app.ask(create_key_for(&self.name(), &name, purpose.into())).await?.key.context("the key")?;
            self.keys.insert(name, made.uid);
        }
        let reason = format!("reason of {}", self.only);
        let asked = app.ask(request_role(&self.name(), "decrypter", 3600, &reason)).await?;
        self.grant = asked.grant.context("the grant")?;
        Ok(self)
    }

    /// Makes the first half of what its application keeps.
    pub async fn seal_first(mut self, app: Caller) -> Result<Self> {
        self.seal(&app, "other-app", &COMMON).await?;
        Ok(self)
    }

    /// Changes rows of each kind, so that there are older ones, and makes the other half, under newer versions.
    pub async fn fill(mut self, app: Caller) -> Result<Self> {
        let private = self.private();
        let private: Vec<(&str, &str)> = private.iter().map(|(name, value)| (&**name, &**value)).collect();
        app.ask(update_tenant(&self.name(), seconds(120))).await?;
        for key in [APP, ROWS, MAC] {
            app.ask(rotate_key(&self.key(key))).await?;
        }
        let label = format!("label of {}", self.only);
        app.ask(update_key(&self.key(APP), &[("about", &label)], &["labels"])).await?;
        app.ask(disable_key(&format!("{}/versions/1", self.key(ROWS)))).await?;
        app.ask(enable_key(&format!("{}/versions/1", self.key(ROWS)))).await?;
        app.ask(schedule_key_destruction(&self.key(LEAVING), None)).await?;
        self.seal(&app, &self.only.clone(), &private).await?;

        self.index = app.ask(get_index_key(&format!("{}/indexes/{INDEX}", self.name()))).await?.plaintext;
        self.request_id = format!("request of {}", self.only).replace(' ', "-");
        let made = app.ask(self.repeatable(&self.key("other-rows"), &self.request_id)).await?;
        self.repeated = [made.uid, made.plaintext].concat();
        let keys = app.ask(list_keys(&self.name(), 2, "")).await?;
        let data_keys = app.ask(list_data_keys(&self.key(ROWS), 2, "")).await?;
        let versions = app.ask(list_key_versions(&self.key(APP), 1, "")).await?;
        self.etags = keys.keys.iter().map(|key| key.etag.clone()).collect();
        self.tokens = BTreeMap::from([
            ("ListKeys", keys.next_page_token),
            ("ListDataKeys", data_keys.next_page_token),
            ("ListKeyVersions", versions.next_page_token),
        ]);
        ensure!(self.tokens.values().all(|token| !token.is_empty()), "each list has another page");
        Ok(self)
    }

    /// A request that can be repeated under an id.
    pub fn repeatable(&self, key: &str, request_id: &str) -> v1::CreateDataKeyRequest {
        v1::CreateDataKeyRequest { request_id: request_id.into(), ..create_data_key(key, &COMMON) }
    }

    /// Seals a few things of each kind in a context: under the keys that all have, and one under another.
    async fn seal(&mut self, app: &Caller, other: &str, context: &[(&str, &str)]) -> Result<()> {
        let number = self.things.len();
        let add = |things: &mut Vec<Thing>, what, key, bytes, secret, aad| {
            things.push(Thing { what, key, bytes, secret, pairs: pairs(context), aad });
        };
        let other_key: &'static str = if other == "other-app" { "other-app" } else { ONLY };
        for (key, name) in [(APP, APP), (other_key, other)] {
            let items: Vec<_> = (0..2)
                .map(|row| v1::BatchEncryptItem {
                    plaintext: format!("plaintext {number}.{row} under {key} of {}", self.only).into(),
                    aad: aad(row),
                })
                .collect();
            let request =
                v1::BatchEncryptRequest { items: items.clone(), ..batch_encrypt(&self.key(name), &[], context) };
            let sealed = app.ask(request).await?;
            for (item, made) in items.into_iter().zip(sealed.results) {
                add(&mut self.things, What::Data, key, made.ciphertext, item.plaintext, item.aad);
            }
            let mut request = batch_generate_data_keys(&self.key(name), 2, context);
            request.items.iter_mut().enumerate().for_each(|(row, item)| item.aad = aad(row));
            for (row, made) in app.ask(request).await?.results.into_iter().enumerate() {
                add(&mut self.things, What::DataKey, key, made.wrapped_data_key, made.plaintext, aad(row));
            }
        }
        for key in [ROWS, "other-rows"] {
            let mut request = batch_create_data_keys(&self.key(key), 2, context);
            request.items.iter_mut().enumerate().for_each(|(row, item)| item.aad = aad(row));
            for (row, made) in app.ask(request).await?.results.into_iter().enumerate() {
                add(&mut self.things, What::Managed, key, made.uid, made.plaintext, aad(row));
            }
        }
        for key in [MAC, "other-mac"] {
            let message = format!("message {number} under {key} of {}", self.only).into_bytes();
            let request = v1::GenerateMacRequest { aad: aad(0), ..generate_mac(&self.key(key), &message, context) };
            let mac = app.ask(request).await?.mac;
            add(&mut self.things, What::Mac, key, mac, message, aad(0));
        }
        Ok(())
    }

    /// Returns the name of the key of a thing.
    pub fn key_of(&self, thing: &Thing) -> String {
        self.key(if thing.key == ONLY { &self.only } else { thing.key })
    }

    /// Everything of it that nobody else may be shown.
    pub fn needles(&self) -> Vec<Needle> {
        let mut needles = Vec::new();
        let mut add = |what: &str, bytes: &[u8]| needles.push(Needle::new(format!("{}: {what}", self.id), bytes));
        for thing in &self.things {
            add(&format!("the secret of a {:?}", thing.what), &thing.secret);
            match thing.what {
                What::Data | What::DataKey => add("a commitment", &thing.bytes[48..80]),
                What::Managed => add("the uid of a data key", &thing.bytes),
                What::Mac => add("a MAC", &thing.bytes[24..]),
            }
        }
        for uid in self.keys.values().chain([&self.uid]) {
            add("a uid", &hex::decode(uid).expect("a uid is shown in hex"));
        }
        for text in self.etags.iter().chain([&self.only, &self.request_id]) {
            add("a name or an etag", text.as_bytes());
        }
        add("a name", format!("tenants/{}/", self.id).as_bytes());
        add("a key of an index", &self.index);
        add("a repeated answer", &self.repeated[..16]);
        add("a repeated answer", &self.repeated[16..]);
        needles
    }
}

/// The key that only one tenant has, whatever its name.
pub const ONLY: &str = "only";

/// The bytes of a row, the same in all tenants.
pub fn aad(row: usize) -> Vec<u8> {
    format!("row-{row}").into_bytes()
}

/// Some number that no other gives.
fn mixed(number: usize) -> u32 {
    (number as u32 + 1).wrapping_mul(0x9e37_79b1)
}

/// Calls something for each tenant, several at a time.
pub async fn each<F, Fut>(daemon: &Daemon, tenants: Vec<Tenant>, work: F) -> Result<Vec<Tenant>>
where
    F: Fn(Tenant, Caller) -> Fut,
    Fut: Future<Output = Result<Tenant>> + Send + 'static,
{
    let mut done = Vec::with_capacity(tenants.len());
    let mut running = std::collections::VecDeque::new();
    for tenant in tenants {
        if running.len() == AT_ONCE {
            let next: tokio::task::JoinHandle<_> = running.pop_front().expect("it is full");
            done.push(next.await??);
        }
        let caller = daemon.caller(&tenant.app())?;
        running.push_back(tokio::spawn(work(tenant, caller)));
    }
    for next in running {
        done.push(next.await??);
    }
    Ok(done)
}

const AT_ONCE: usize = 48;
