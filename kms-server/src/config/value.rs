//! What a setting may be, and how its text or its TOML becomes a value.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::mistake::{did_you_mean, quoted};
use crate::policy::PairNames;
use crate::telemetry;

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A path; in the file it is relative to the file.
    Path,
    /// A list of paths.
    Paths,
    /// A list of names of pairs of encryption contexts.
    PairNames,
    /// An address with its port.
    Address,
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Integer {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// Of what, where the name does not say it.
        unit: &'static str,
    },
    /// A time such as `7d`.
    Time {
        /// The shortest, in milliseconds.
        min_ms: u64,
        /// The longest.
        max_ms: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A name as tenants have.
    Name,
    /// The C2SP origin of a log.
    Origin,
    /// What to log.
    Filter,
    /// A word of another system's, such as an ARN: printable, without spaces at its ends.
    Text,
}

/// A setting's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A path, as it was written.
    Path(PathBuf),
    /// Paths, as they were written.
    Paths(Vec<PathBuf>),
    /// Names of pairs.
    PairNames(PairNames),
    /// An address.
    Address(SocketAddr),
    /// Yes or no.
    Switch(bool),
    /// A number.
    Integer(u64),
    /// A time in milliseconds, and how it was written.
    Millis(u64, String),
    /// A word.
    Text(String),
}

/// Why a value is none, and what to write instead.
#[derive(Debug)]
pub struct Wrong {
    /// Which rule it breaks.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl Kind {
    /// Reads the text of a flag or variable.
    pub fn of_text(self, text: &str) -> Result<Value, Wrong> {
        match self {
            Kind::Path => Ok(Value::Path(text.into())),
            Kind::Address => text.parse().map(Value::Address).map_err(|_| Wrong {
                why: "it is no address with a port, and host names are not looked up".to_owned(),
                remedy: "write it like 127.0.0.1:8443, [::1]:8443, or 0.0.0.0:8443 for all addresses".to_owned(),
            }),
            Kind::Integer { .. } => self.integer(text.parse().ok()),
            Kind::Time { .. } => self.time(text),
            Kind::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(words) => Err(Wrong {
                why: format!("there is only {}", list(words)),
                remedy: suggestion(text, words).unwrap_or_else(|| "write one of them".to_owned()),
            }),
            Kind::Name if text.parse::<crate::noun::TenantName>().is_ok() => Ok(Value::Text(text.to_owned())),
            Kind::Name => Err(Wrong {
                why: "it is no name".to_owned(),
                remedy: "use 1 to 64 of A-Z a-z 0-9 . _ ~ -, beginning with a letter or a digit".to_owned(),
            }),
            Kind::Origin if is_origin(text) => Ok(Value::Text(text.to_owned())),
            Kind::Origin => Err(Wrong {
                why: "it is no C2SP origin".to_owned(),
                remedy: "use 1 to 255 bytes without white space and without +".to_owned(),
            }),
            Kind::Filter => match telemetry::check_filter(text) {
                Ok(()) => Ok(Value::Text(text.to_owned())),
                Err(why) => Err(Wrong {
                    why: format!("it is no filter: {why}"),
                    remedy: "write error, warn, info, debug or trace, or such as info,kms_server::rpc=debug".to_owned(),
                }),
            },
            Kind::Text if is_word(text) => Ok(Value::Text(text.to_owned())),
            Kind::Text => Err(Wrong {
                why: "it is empty, too long, or has characters that cannot be printed".to_owned(),
                remedy: format!("write 1 to {TEXT_BYTES_MAX} printable bytes"),
            }),
            Kind::Switch => match text {
                "true" => Ok(Value::Switch(true)),
                "false" => Ok(Value::Switch(false)),
                _ => Err(self.other_type()),
            },
            Kind::Paths | Kind::PairNames => Err(self.other_type()),
        }
    }

    /// Reads what the file has.
    pub fn of_toml(self, value: &DeValue<'_>) -> Result<Value, Wrong> {
        match (self, value) {
            (Kind::Integer { .. }, DeValue::Integer(number)) => {
                self.integer(u64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            (Kind::Switch, DeValue::Boolean(on)) => Ok(Value::Switch(*on)),
            (Kind::Paths, DeValue::Array(items)) => {
                let paths: Option<Vec<PathBuf>> =
                    items.iter().map(|item| item.get_ref().as_str().map(PathBuf::from)).collect();
                paths.map(Value::Paths).ok_or_else(|| self.other_type())
            }
            (Kind::PairNames, DeValue::Array(items)) => {
                let names: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
                PairNames::of(&names.ok_or_else(|| self.other_type())?).map(Value::PairNames).map_err(|why| Wrong {
                    why: why.to_string(),
                    remedy: "write names of pairs as callers give them, each once".to_owned(),
                })
            }
            (Kind::Integer { .. } | Kind::Switch | Kind::Paths | Kind::PairNames, _) => Err(self.other_type()),
            (_, DeValue::String(text)) => self.of_text(text),
            (_, _) => Err(self.other_type()),
        }
    }

    /// Says which values there are, where they have bounds.
    pub fn bounds(self) -> Option<String> {
        match self {
            Kind::Integer { min, max, unit } => Some(format!("{min} to {max} {unit}").trim_end().to_owned()),
            Kind::Time { min_ms, max_ms } => Some(format!("{} to {}", time_text(min_ms), time_text(max_ms))),
            Kind::Choice(words) if words.len() > 1 => Some(format!("one of {}", words.join(", "))),
            Kind::Choice(_)
            | Kind::Path
            | Kind::Paths
            | Kind::PairNames
            | Kind::Address
            | Kind::Switch
            | Kind::Name
            | Kind::Origin
            | Kind::Filter
            | Kind::Text => None,
        }
    }

    fn integer(self, number: Option<u64>) -> Result<Value, Wrong> {
        let Kind::Integer { min, max, .. } = self else { return Err(self.other_type()) };
        number.filter(|number| (min..=max).contains(number)).map(Value::Integer).ok_or_else(|| Wrong {
            why: "it is out of bounds, or no whole number".to_owned(),
            remedy: format!("write a number from {}", self.bounds().unwrap_or_default()),
        })
    }

    fn time(self, text: &str) -> Result<Value, Wrong> {
        let Kind::Time { min_ms, max_ms } = self else { return Err(self.other_type()) };
        let bounds = self.bounds().unwrap_or_default();
        match milliseconds(text) {
            None => Err(Wrong {
                why: "it is no time".to_owned(),
                remedy: format!("write it like 7d, 12h, 90s or 500ms, from {bounds}"),
            }),
            Some(time) if !(min_ms..=max_ms).contains(&time) => {
                Err(Wrong { why: "it is out of bounds".to_owned(), remedy: format!("write a time from {bounds}") })
            }
            Some(time) => Ok(Value::Millis(time, text.to_owned())),
        }
    }

    fn other_type(self) -> Wrong {
        let (why, remedy) = match self {
            Kind::Integer { .. } => ("it is a whole number", "write it with digits alone and without quotes"),
            Kind::Switch => ("it is a switch", "write true or false, without quotes"),
            Kind::Paths => ("it is a list of paths", "write it like [\"a.pem\", \"b.pem\"]"),
            Kind::PairNames => ("it is a list of names", "write it like [\"purpose\"]"),
            Kind::Path => ("it is a path", "write it in quotes"),
            Kind::Time { .. } => ("it is a time", "write it in quotes, like \"7d\" or \"90s\""),
            Kind::Address => ("it is an address with a port", "write it in quotes, like \"127.0.0.1:8443\""),
            Kind::Choice(_) | Kind::Name | Kind::Origin | Kind::Filter | Kind::Text => {
                ("it is a text", "write it in quotes")
            }
        };
        Wrong { why: why.to_owned(), remedy: remedy.to_owned() }
    }
}

impl Value {
    /// Returns the value as the file would have it.
    pub fn to_toml(&self) -> String {
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Value::Path(path) => text(&path.to_string_lossy()),
            Value::Paths(paths) => {
                format!("[{}]", paths.iter().map(|path| text(&path.to_string_lossy())).collect::<Vec<_>>().join(", "))
            }
            Value::PairNames(names) => {
                format!("[{}]", names.iter().map(|name| text(name)).collect::<Vec<_>>().join(", "))
            }
            Value::Address(address) => text(&address.to_string()),
            Value::Switch(on) => on.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Millis(_, written) => text(written),
            Value::Text(word) => text(word),
        }
    }
}

/// Returns how a value of the file is shown in a message.
pub fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    }
}

/// Returns words as a list for people.
pub fn list<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Returns the remedy for a word that is near one of those there are.
pub fn suggestion<'a, S: AsRef<str> + 'a>(word: &str, words: impl IntoIterator<Item = &'a S>) -> Option<String> {
    did_you_mean(word, words.into_iter().map(AsRef::as_ref)).map(|near| format!("did you mean `{near}`?"))
}

fn is_word(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.trim() == text && !text.contains(char::is_control)
}

const TEXT_BYTES_MAX: usize = 2_048;

fn is_origin(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// Reads a time such as `7d`, `12h`, `500ms` or `0s`. A day has 24 hours.
pub fn milliseconds(text: &str) -> Option<u64> {
    let span: jiff::Span = text.parse().ok()?;
    let total = span.total((jiff::Unit::Millisecond, jiff::SpanRelativeTo::days_are_24_hours())).ok()?;
    if !(0.0..=1e15).contains(&total) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Bounded by the lines above.
    Some(total as u64)
}

/// Returns a time in the largest unit that it is whole in.
pub fn time_text(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_days_too_and_shown_in_the_largest_unit() {
        for (text, expected) in
            [("0s", 0), ("7d", 604_800_000), ("12h", 43_200_000), ("500ms", 500), ("1d 12h", 129_600_000)]
        {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        for (ms, expected) in [(0, "0s"), (10, "10ms"), (600_000, "10m"), (31_536_000_000, "365d"), (1_500, "1500ms")] {
            assert_eq!(time_text(ms), expected);
        }
    }
}
