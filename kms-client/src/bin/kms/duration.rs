//! Durations as people write them: `7d`, `12h 30m`, `0s`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Parses a duration of weeks, days and smaller units. A day is 24 hours; months and years have no fixed length.
pub fn parse(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| format!("{text:?} is no duration: write it as 7d, 12h or 0s"))?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "months and years have no fixed length: write days".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())
}

/// Returns a duration as `parse` takes it, without fractions of a second.
pub fn text(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut parts = Vec::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= seconds {
            parts.push(format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if parts.is_empty() { "less than 1s".to_owned() } else { parts.join(" ") }
}

/// Returns a duration as `parse` takes it, to the millisecond.
pub fn exact(duration: Duration) -> String {
    let whole = if duration.as_secs() == 0 { String::new() } else { text(duration) };
    match duration.subsec_millis() {
        0 if whole.is_empty() => "0s".to_owned(),
        0 => whole,
        millis => format!("{whole} {millis}ms").trim_start().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_hours_and_seconds_are_understood() {
        for (text, seconds) in [
            ("7d", 7 * 86_400),
            ("0s", 0),
            ("12h", 43_200),
            ("1w", 7 * 86_400),
            ("1h 30m", 5_400),
            ("90 minutes", 5_400),
            ("2 days", 172_800),
            ("P7D", 7 * 86_400),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn a_duration_is_written_so_that_it_is_understood_again() {
        for text_ in ["7d", "1h", "1d 12h", "400d 23h 59m 59s"] {
            assert_eq!(text(parse(text_).unwrap()), text_);
        }
        assert_eq!(text(parse("36h").unwrap()), "1d 12h");
        assert_eq!(text(Duration::from_millis(1)), "less than 1s");
    }

    #[test]
    fn an_exact_duration_keeps_its_milliseconds() {
        for text in ["0s", "5m", "250ms", "1s 500ms", "1d 1ms"] {
            assert_eq!(exact(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn what_has_no_fixed_length_or_is_negative_is_refused() {
        for text in ["", "7", "soon", "-1s", "1s ago", "1month", "1y", "7d later"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
