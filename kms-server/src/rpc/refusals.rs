//! Tells of peers that TLS refused: each in the metric, the first of a minute in the log, the others
//! in one line by reason. Whoever is on the network can be refused as often as he likes; he cannot
//! fill the log.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::handshake::Refusal;

/// What was refused lately.
#[derive(Debug)]
pub struct Refusals(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    /// When it began, since the machine started.
    began: Duration,
    told: u32,
    untold: BTreeMap<Refusal, u64>,
}

impl Default for Refusals {
    fn default() -> Self {
        // Each reason is there from the start: what appears only with the first one has no rate.
        for refusal in Refusal::ALL {
            metrics::counter!("kms_tls_refused_total", "reason" => refusal.as_str()).increment(0);
        }
        Self(Mutex::default())
    }
}

impl Refusals {
    /// Counts a refusal, and tells of it if few were told of lately.
    pub(super) fn add(&self, refusal: Refusal, peer: SocketAddr, error: &io::Error, now: Duration) {
        metrics::counter!("kms_tls_refused_total", "reason" => refusal.as_str()).increment(1);
        self.tell_untold(now);
        if self.is_told(refusal) {
            tracing::info!(%peer, reason = refusal.as_str(), %error, "TLS refused a connection");
        }
    }

    /// Tells of what was not told singly, once its minute is over.
    pub fn tell_untold(&self, now: Duration) {
        if let Some(untold) = self.end_minute(now) {
            let count: u64 = untold.values().sum();
            let reasons: Vec<String> = untold.iter().map(|(refusal, count)| format!("{refusal}={count}")).collect();
            tracing::warn!(count, reasons = reasons.join(" "), "TLS refused more connections than are told of singly");
        }
    }

    fn is_told(&self, refusal: Refusal) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.told < TOLD_PER_MINUTE {
            minute.told += 1;
            return true;
        }
        *minute.untold.entry(refusal).or_default() += 1;
        false
    }

    fn end_minute(&self, now: Duration) -> Option<BTreeMap<Refusal, u64>> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(minute.began) < MINUTE {
            return None;
        }
        let ended = std::mem::replace(&mut *minute, Minute { began: now, ..Minute::default() });
        Some(ended.untold).filter(|untold| !untold.is_empty())
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const TOLD_PER_MINUTE: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_in_a_bounded_number_of_lines() {
        let refusals = Refusals::default();
        let (mut lines, mut summed) = (0, 0);
        // An hour of one refusal every ten milliseconds.
        for tick in 0..360_000_u64 {
            let now = Duration::from_millis(1_000_000 + tick * 10);
            if let Some(untold) = refusals.end_minute(now) {
                lines += 1;
                summed += untold.values().sum::<u64>();
            }
            lines += u64::from(refusals.is_told(Refusal::NotTls));
        }
        let rest = refusals.end_minute(Duration::from_secs(1 << 20)).unwrap();
        assert_eq!(lines, 60 * 20 + 59);
        assert_eq!(summed + rest[&Refusal::NotTls] + 60 * 20, 360_000, "none is lost");
    }

    #[test]
    fn the_few_of_a_quiet_day_are_told_each() {
        let refusals = Refusals::default();
        for hour in 1..100 {
            assert_eq!(refusals.end_minute(Duration::from_secs(hour * 3600)), None);
            assert!(refusals.is_told(Refusal::NoCertificate));
        }
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<&str> = Refusal::ALL.map(Refusal::as_str).into();
        assert_eq!(words.len(), Refusal::ALL.len());
    }
}
