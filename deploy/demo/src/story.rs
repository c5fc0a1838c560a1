//! Tells each step as it happens: what it is, what it showed, how long it took.

#![allow(clippy::print_stdout, reason = "the demo is there to be read")]

use std::io::Write as _;

use anyhow::{Context as _, Result};
use tokio::time::{Duration, Instant};

/// Numbers the steps and measures them.
pub struct Story {
    began: Instant,
    steps: usize,
}

/// What a step showed.
pub struct Showed {
    /// What was done, in figures.
    pub did: Vec<String>,
    /// What that proves.
    pub proves: &'static str,
}

impl Story {
    /// Begins with a title.
    pub fn begin(title: &str, about: &[String]) -> Self {
        println!("\n{title}\n{}", "=".repeat(title.chars().count()));
        for line in about {
            println!("{line}");
        }
        Self { began: Instant::now(), steps: 0 }
    }

    /// Runs a step and tells it. What fails is told with the step's name.
    pub async fn step<T>(&mut self, title: &str, step: impl Future<Output = Result<(T, Showed)>>) -> Result<T> {
        self.steps += 1;
        print!("\n{:>2}  {title:.<WIDTH$} ", self.steps);
        // The title is to be seen while the step runs.
        drop(std::io::stdout().flush());
        let began = Instant::now();
        let (value, showed) = match step.await {
            Ok(done) => done,
            Err(error) => {
                println!("FAILED");
                return Err(error.context(format!("step {}: {title}", self.steps)));
            }
        };
        println!("{}", seconds(began.elapsed()));
        for line in showed.did {
            println!("    {line}");
        }
        println!("    => {}", showed.proves);
        Ok(value)
    }

    /// Says how all of it went.
    pub fn end(self) {
        println!("\nAll {} steps passed in {}.\n", self.steps, seconds(self.began.elapsed()).trim());
    }

    /// Tells something between or after the steps.
    pub fn tell(lines: &[String]) {
        println!();
        for line in lines {
            println!("{line}");
        }
    }
}

/// Measures something within a step.
pub async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(T, Duration)> {
    let began = Instant::now();
    let value = work.await?;
    Ok((value, began.elapsed()))
}

/// Returns a rate for people: `1,234 a second`.
pub fn rate(count: usize, took: Duration) -> String {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    format!("{} a second", grouped((f64::from(count) / took.as_secs_f64().max(1e-6)) as usize))
}

/// Returns a short time for people: `1.4 ms`.
pub fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

/// Returns a number with its thousands apart.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Expects two counts to be equal, and says what they count if they are not.
pub fn expect(what: &str, got: usize, expected: usize) -> Result<()> {
    (got == expected).then_some(()).with_context(|| format!("{what}: {got}, where {expected} were expected"))
}

fn seconds(time: Duration) -> String {
    format!("{:>6.2} s", time.as_secs_f64())
}

/// Columns for a step's title and the dots behind it.
const WIDTH: usize = 66;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
