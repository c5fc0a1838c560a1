//! What an application does: it keeps ciphertexts in its own table and asks the service to seal and
//! to open them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kms_client::{Ciphertext, Client, Context, Error, KeyRef};

use crate::table::{Cell, Table};

/// An application of one tenant.
pub struct Application {
    client: Client,
    key: KeyRef,
    replies: Replies,
}

/// How many replies all applications got, successes and refusals alike.
#[derive(Clone, Default)]
pub struct Replies(Arc<AtomicUsize>);

impl Replies {
    /// Returns how many.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for a reply, and counts it.
    async fn of<T>(&self, reply: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let reply = reply.await;
        self.0.fetch_add(1, Ordering::Relaxed);
        reply
    }
}

/// What came of opening many values.
#[derive(Default)]
pub struct Opened {
    /// Values that opened to what they had been.
    pub equal: usize,
    /// Those of them that are under an older version of their key.
    pub stale: usize,
}

/// Calls of an application that are under way at the same time.
pub const IN_FLIGHT_MAX: usize = 32;

impl Application {
    /// Makes an application that uses a key.
    pub fn new(client: Client, key: KeyRef, replies: &Replies) -> Self {
        Self { client, key, replies: replies.clone() }
    }

    /// Seals the values of these cells of a table, and puts the ciphertexts into the same cells of another.
    pub async fn seal(&self, plain: &Table, cells: &[Cell], sealed: &mut Table) -> Result<()> {
        let calls = cells.iter().map(|cell| async move {
            let value = plain.value(*cell).as_bytes();
            let sealed = self.replies.of(self.client.encrypt(&self.key, value, &plain.context(*cell))).await;
            sealed.map(|sealed| (*cell, sealed.ciphertext)).with_context(|| format!("sealing {cell:?}"))
        });
        let ciphertexts: Vec<(Cell, Ciphertext)> = at_once(calls).try_collect().await?;
        put(sealed, ciphertexts);
        Ok(())
    }

    /// Opens the ciphertexts of these cells, and compares with the values they had been.
    pub async fn open(&self, sealed: &Table, cells: &[Cell], plain: &Table) -> Result<Opened> {
        let calls = cells.iter().map(|cell| async move {
            let (blob, context) = (ciphertext(sealed, *cell)?, sealed.context(*cell));
            let opened = self.replies.of(self.client.decrypt(&self.key, &blob, &context)).await;
            let opened = opened.with_context(|| format!("opening {cell:?}"))?;
            let equal = opened.plaintext.expose() == plain.value(*cell).as_bytes();
            ensure!(equal, "{cell:?} opened to something else than what was sealed");
            Ok(opened.stale)
        });
        let stale: Vec<bool> = at_once(calls).try_collect().await?;
        Ok(Opened { equal: stale.len(), stale: stale.into_iter().filter(|stale| *stale).count() })
    }

    /// Moves the ciphertexts of these cells to the newest version of the key, inside the service.
    pub async fn re_encrypt(&self, sealed: &mut Table, cells: &[Cell]) -> Result<()> {
        let from = &*sealed;
        let calls = cells.iter().map(|cell| async move {
            let (blob, context) = (ciphertext(from, *cell)?, from.context(*cell));
            let moved = self.replies.of(self.client.re_encrypt(&self.key, &blob, &context)).await;
            moved.map(|moved| (*cell, moved.ciphertext)).with_context(|| format!("re-encrypting {cell:?}"))
        });
        let ciphertexts: Vec<(Cell, Ciphertext)> = at_once(calls).try_collect().await?;
        put(sealed, ciphertexts);
        Ok(())
    }

    /// Tries to open ciphertexts that it must not, and returns how many were refused for this reason. `places` says
    /// which ciphertext is tried as if it stood in which cell.
    pub async fn is_refused(
        &self,
        key: &KeyRef,
        sealed: &Table,
        places: &[(Cell, Cell)],
        reason: &str,
    ) -> Result<usize> {
        let calls = places.iter().map(|(taken_from, put_into)| async move {
            let (blob, context) = (ciphertext(sealed, *taken_from)?, sealed.context(*put_into));
            match self.replies.of(self.client.decrypt(key, &blob, &context)).await {
                Err(error) if error.reason() == Some(reason) => Ok(()),
                Err(error) => Err(error).with_context(|| format!("{taken_from:?} was refused, but not with {reason}")),
                Ok(_) => anyhow::bail!("{taken_from:?} opened, which it must not"),
            }
        });
        let refused: Vec<()> = at_once(calls).try_collect().await?;
        Ok(refused.len())
    }

    /// Asks once, and returns how it was refused.
    pub async fn refusal(&self, key: &KeyRef, sealed: &Table, cell: Cell) -> Result<Error> {
        let (blob, context) = (ciphertext(sealed, cell)?, sealed.context(cell));
        let opened = self.replies.of(self.client.decrypt(key, &blob, &context)).await;
        opened.err().context("it opened, which it must not")
    }

    /// Tries to seal something, and returns whether that is forbidden.
    pub async fn may_not_seal(&self) -> Result<bool> {
        match self.replies.of(self.client.encrypt(&self.key, b"", &Context::new())).await {
            Err(error) if error.reason() == Some("POLICY_DENIED") => Ok(true),
            Err(error) => Err(error).context("sealing was refused, but not by policy"),
            Ok(_) => Ok(false),
        }
    }
}

fn at_once<F: Future>(calls: impl Iterator<Item = F>) -> impl stream::Stream<Item = F::Output> {
    stream::iter(calls).buffer_unordered(IN_FLIGHT_MAX)
}

fn ciphertext(sealed: &Table, cell: Cell) -> Result<Ciphertext> {
    let bytes = STANDARD.decode(sealed.value(cell)).with_context(|| format!("{cell:?} holds no base64"))?;
    Ok(Ciphertext::from(bytes))
}

fn put(table: &mut Table, ciphertexts: Vec<(Cell, Ciphertext)>) {
    for (cell, ciphertext) in ciphertexts {
        table.set(cell, STANDARD.encode(ciphertext.as_bytes()));
    }
}
