//! From the answer's fields to the types of this library, in one place for what all nouns need.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use crate::{Error, VersionNumber};

/// Takes a field that every answer has.
pub(crate) fn required<T>(field: Option<T>, name: &'static str) -> Result<T, Error> {
    field.ok_or_else(|| Error::malformed(name))
}

pub(crate) fn time(field: Option<Timestamp>, name: &'static str) -> Result<SystemTime, Error> {
    required(time_or_none(field, name)?, name)
}

pub(crate) fn time_or_none(field: Option<Timestamp>, name: &'static str) -> Result<Option<SystemTime>, Error> {
    let Some(time) = field else { return Ok(None) };
    if !TIMESTAMP_SECONDS.contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        return Err(Error::malformed(name));
    }
    SystemTime::try_from(time).map(Some).map_err(|_| Error::malformed(name))
}

pub(crate) fn version(field: u32, name: &'static str) -> Result<VersionNumber, Error> {
    VersionNumber::new(field).map_err(|_| Error::malformed(name))
}

/// Takes a length of time, which is not negative.
pub(crate) fn duration_or_none(
    field: Option<prost_types::Duration>,
    name: &'static str,
) -> Result<Option<Duration>, Error> {
    let Some(duration) = field else { return Ok(None) };
    match (u64::try_from(duration.seconds), u32::try_from(duration.nanos)) {
        (Ok(seconds @ ..=DURATION_SECONDS_MAX), Ok(nanos @ ..1_000_000_000)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(Error::malformed(name)),
    }
}

/// Encodes a length of time. More than protobuf can say is more than any server allows, so it is cut off there.
pub(crate) fn duration(duration: Option<Duration>) -> Option<prost_types::Duration> {
    duration.map(|duration| prost_types::Duration {
        seconds: duration.as_secs().min(DURATION_SECONDS_MAX) as i64,
        nanos: duration.subsec_nanos() as i32,
    })
}

/// The years 1 to 9999, as google.protobuf.Timestamp has them: what RFC 3339 can write.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// 10,000 years, as google.protobuf.Duration has it.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_keeps_its_nanoseconds_and_is_cut_off_at_what_protobuf_can_say() {
        let nanos = duration(Some(Duration::new(7, 5))).unwrap();
        assert_eq!((nanos.seconds, nanos.nanos), (7, 5));
        assert_eq!(duration(Some(Duration::MAX)).unwrap().seconds, 315_576_000_000);
        assert_eq!(duration(None), None);
    }

    #[test]
    fn a_time_that_is_missing_or_out_of_range_is_malformed() {
        assert!(time(None, "create_time").is_err());
        for (seconds, nanos) in [(253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(time_or_none(Some(Timestamp { seconds, nanos }), "create_time").is_err(), "{seconds} {nanos}");
        }
        assert_eq!(time_or_none(None, "create_time").unwrap(), None);
        let one = time(Some(Timestamp { seconds: 1, nanos: 5 }), "create_time").unwrap();
        assert_eq!(one, SystemTime::UNIX_EPOCH + Duration::new(1, 5));
    }
}
