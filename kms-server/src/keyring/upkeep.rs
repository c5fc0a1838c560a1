//! What the one who makes changes writes beside them, without a leaf: the store's anchor moves to the
//! log's end, and answers that nobody may ask for again go.

use std::time::Duration;

use crate::kill_point::{Point, pass};
use crate::store::{Batch, Write};

use super::mutation::Mutator;

impl Mutator {
    /// A closed segment moves the anchor, so that a start reads one segment and not all.
    pub(super) async fn follow_segments(&mut self) {
        if self.position.segment != self.keyring.log.segment_first() {
            self.move_anchor().await;
        }
    }

    pub(super) async fn move_anchor(&mut self) {
        self.make_unrecorded(Vec::new()).await;
    }

    /// Removes answers that nobody may ask for again, a day at a time.
    pub(super) async fn forget_answers(&mut self) {
        let now = tokio::time::Instant::now();
        if self.broken || self.looked_at_answers.is_some_and(|last| now - last < FORGET_EVERY) {
            return;
        }
        match self.keyring.outdated_answers().await {
            // Perhaps more days: the next look is soon.
            Ok(Some(day)) => self.make_unrecorded(vec![Write::DeletePrefix(day)]).await,
            Ok(None) => self.looked_at_answers = Some(now),
            Err(error) => {
                tracing::error!(%error, "answers that are out of date could not be removed");
                self.looked_at_answers = Some(now);
            }
        }
    }

    /// Makes writes that are no mutation, and moves the store's anchor to the log's end.
    async fn make_unrecorded(&mut self, writes: Vec<Write>) {
        if self.broken || self.keyring.log.check().is_err() || self.keyring.log.anchor().size == 0 {
            return;
        }
        // The anchor may not pass what a group said at its end: an ABORTED that is not durable yet.
        if let Some(last) = self.appended
            && self.keyring.log.durable(last).await.is_err()
        {
            return;
        }
        let next = self.next_position(self.position.seq, None);
        let mut batch = Batch { writes, ..Batch::default() };
        next.join(&mut batch, &self.position);
        pass(Point::AnchorDue);
        match self.keyring.store.commit(batch).await {
            Ok(()) => {
                pass(Point::AnchorMoved);
                self.position = next;
            }
            Err(error) => {
                tracing::error!(%error, "the store's anchor could not be moved");
                self.break_off();
            }
        }
    }
}

const FORGET_EVERY: Duration = Duration::from_secs(3600);
