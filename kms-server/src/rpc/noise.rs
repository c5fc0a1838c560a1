//! Which refusals get a record of their own. Whoever may do nothing can be refused as often as he likes: he cannot fill the
//! log. Up to [`SINGLY_PER_SECOND`] refusals of a principal in a second for one reason are recorded singly, the others are
//! counted, and told of in one record a minute; so are those of nobody, by the network that he came from, and whoever came
//! while too many were at work.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::audit::{Leaf, Log, LogFailed, Outcome};
use crate::keyring::Who;
use crate::noun::UnixMillis;

/// Refusals of one principal, or of nobody from one network, that are recorded singly in a second.
pub const SINGLY_PER_SECOND: u32 = 100;
/// How often what was counted is told of.
pub const TOLD_EVERY: std::time::Duration = std::time::Duration::from_secs(60);
/// The most sources that are told apart.
const SOURCES_MAX: usize = 10_000;

/// What was refused of late.
#[derive(Debug, Default)]
pub struct Noise(Mutex<HashMap<(Source, &'static str), Counted>>);

/// Who was refused.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Source {
    Principal(Box<str>),
    Network(IpAddr),
    /// Those beyond what is told apart.
    Others,
}

#[derive(Debug, Default)]
struct Counted {
    second: u64,
    singly: u32,
    summed: u64,
    first: UnixMillis,
    last: UnixMillis,
}

impl Noise {
    /// Tells whether a refusal for a reason gets a record of its own; if not it is counted.
    pub(super) fn is_told_singly(&self, who: &Who, reason: &'static str, now: UnixMillis) -> bool {
        self.add(who, reason, now, SINGLY_PER_SECOND)
    }

    /// Counts a refusal that gets no record of its own.
    pub(super) fn count(&self, who: &Who, reason: &'static str, now: UnixMillis) {
        self.add(who, reason, now, 0);
    }

    fn add(&self, who: &Who, reason: &'static str, now: UnixMillis, singly_max: u32) -> bool {
        let source = match (&who.sub, who.net) {
            (Some(sub), _) => Source::Principal((&**sub).into()),
            (None, Some(net)) => Source::Network(network_of(net)),
            (None, None) => Source::Others,
        };
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source, reason);
        let is_known = sources.len() < SOURCES_MAX || sources.contains_key(&key);
        let counted = sources.entry(if is_known { key } else { (Source::Others, reason) }).or_default();
        if counted.second != now / 1000 {
            (counted.second, counted.singly) = (now / 1000, 0);
        }
        if counted.singly < singly_max {
            counted.singly += 1;
            return true;
        }
        if counted.summed == 0 {
            counted.first = now;
        }
        counted.summed += 1;
        counted.last = now;
        metrics::counter!("kms_audit_refusals_summed_total").increment(1);
        false
    }

    /// Writes the records of what was counted. What cannot be written now stays counted.
    pub fn tell(&self, log: &Log) -> Result<(), LogFailed> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((source, reason), counted) in sources.iter_mut().filter(|(_, counted)| counted.summed > 0) {
            log.append(counted.leaf(source, reason))?;
            counted.summed = 0;
        }
        sources.clear();
        Ok(())
    }
}

impl Counted {
    fn leaf(&self, source: &Source, reason: &'static str) -> Leaf {
        let (sub, net) = match source {
            Source::Principal(sub) => (Some(sub.to_string().into()), None),
            Source::Network(net) => (None, Some(format!("{net}/{}", if net.is_ipv4() { 24 } else { 64 }).into())),
            Source::Others => (None, None),
        };
        let (cnt, from, to) = (Some(self.summed), Some(self.first), Some(self.last));
        Leaf { sub, net, cnt, from, to, why: Some(reason.into()), ..Leaf::of(REFUSALS) }.ended(Outcome::Denied)
    }
}

/// The network of an address: what one owner has at least.
fn network_of(net: IpAddr) -> IpAddr {
    match net.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() >> 8 << 8).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

/// What the record is called.
const REFUSALS: &str = "Refusals";

#[cfg(test)]
mod tests {
    use super::*;

    fn who(sub: Option<&str>, net: &str) -> Who {
        Who { sub: sub.map(Into::into), net: Some(net.parse().unwrap()), ..Who::service() }
    }

    #[test]
    fn the_first_of_a_second_are_told_singly_and_none_is_lost() {
        let noise = Noise::default();
        let ada = who(Some("spiffe://example.com/ada"), "10.0.0.1");
        let singly = (0..1_000).filter(|_| noise.is_told_singly(&ada, "POLICY_DENIED", 5_500)).count();
        assert_eq!(singly, SINGLY_PER_SECOND as usize);
        assert!(noise.is_told_singly(&ada, "POLICY_DENIED", 6_000), "another second");
        assert!(
            noise.is_told_singly(&who(Some("spiffe://example.com/bob"), "10.0.0.1"), "POLICY_DENIED", 5_999),
            "another caller"
        );
        let sources = noise.0.lock().unwrap();
        let counted = &sources[&(Source::Principal("spiffe://example.com/ada".into()), "POLICY_DENIED")];
        assert_eq!((counted.summed, counted.first, counted.last), (900, 5_500, 5_500));
        let leaf = counted.leaf(&Source::Network(network_of("10.1.2.3".parse().unwrap())), "POLICY_DENIED");
        assert_eq!((leaf.cnt, leaf.net.as_deref(), leaf.res), (Some(900), Some("10.1.2.0/24"), Some(Outcome::Denied)));
    }

    #[test]
    fn made_up_sources_take_a_bounded_memory() {
        let noise = Noise::default();
        for number in 0..SOURCES_MAX as u32 * 2 {
            let net = IpAddr::V4((number << 8).into());
            noise.is_told_singly(&who(None, &net.to_string()), "NO_IDENTITY", 1_000);
        }
        assert_eq!(noise.0.lock().unwrap().len(), SOURCES_MAX + 1);
        // Neighbours are one source.
        let noise = Noise::default();
        let of_nobody =
            |net: &str| (0..99).filter(|_| noise.is_told_singly(&who(None, net), "NO_IDENTITY", 1_000)).count();
        assert_eq!(of_nobody("10.0.0.1") + of_nobody("10.0.0.2"), 100);
    }
}
