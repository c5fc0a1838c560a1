//! How results are printed: tables for people, JSON for scripts. Data to stdout, all else to stderr.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ContentArrangement};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Failure, printable};
use crate::exit::Exit;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; data as it is
    #[default]
    Table,
    /// For scripts
    Json,
}

#[derive(Clone, Default)]
pub struct Output {
    pub format: Format,
    /// The one field of the answer that is printed.
    pub field: Option<String>,
    /// Whether what is not data is left away.
    pub quiet: bool,
}

impl Output {
    /// Prints a result as JSON, or as what `table` makes of it; or one field of it.
    pub fn show(&mut self, json: &impl Serialize, table: impl FnOnce() -> String) -> Result<(), Failure> {
        if let Some(path) = self.field.clone() {
            let answer =
                serde_json::to_value(json).map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?;
            let value = field(&answer, &path)?;
            return self.write(Zeroizing::new(value + "\n").as_bytes());
        }
        match self.format {
            Format::Json => {
                let text = self.json_text(json)?;
                self.write(&text)
            }
            Format::Table => self.write(table().as_bytes()),
        }
    }

    /// Prints what an object has become.
    pub fn show_change(&mut self, json: &impl Serialize, table: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.quiet && self.field.is_none() { Ok(()) } else { self.show(json, table) }
    }

    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text.as_bytes())
    }

    /// Tells something besides the result. Scripts that read JSON are spared.
    pub fn note(&mut self, text: &str) {
        if self.format == Format::Table && !self.quiet {
            // There is nobody left to tell that it cannot be told.
            let _ = writeln!(io::stderr().lock(), "note: {}", printable(text));
        }
    }

    /// Tells why one item of a batch failed. Scripts that read JSON find it in the answer.
    pub fn item_failure(&mut self, item: &str, error: &kms_client::ItemError) {
        if self.format == Format::Table {
            let _ = writeln!(io::stderr().lock(), "error: {item}: {}", printable(&error.to_string()));
        }
    }

    pub fn failure(&mut self, failure: &Failure) {
        if failure.exit == Exit::PipeClosed {
            return;
        }
        let text = match self.format {
            Format::Table => failure.lines().into_bytes(),
            Format::Json => self.json_text(&failure.json()).map_or(Vec::new(), |text| text.to_vec()),
        };
        let _ = io::stderr().lock().write_all(&text);
    }

    /// Returns JSON with its line break. It may hold plaintext, so it is wiped.
    pub fn json_text(&self, value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut text = Zeroizing::new(Vec::new());
        serde_json::to_writer_pretty(&mut *text, value)
            .map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?;
        text.push(b'\n');
        Ok(text)
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text).and_then(|()| stdout.flush()).map_err(not_written)
    }
}

/// Finds one value in an answer, such as `state`, or `keyVersions.0.state`: a string as it is, all else as JSON.
fn field(answer: &Value, path: &str) -> Result<String, Failure> {
    let mut here = answer;
    for name in path.split('.') {
        let inside = match here {
            Value::Object(fields) => fields.get(name),
            Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        here = inside.ok_or_else(|| {
            let has = match here {
                Value::Object(fields) => {
                    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
                    names.sort_unstable();
                    names.join(", ")
                }
                Value::Array(items) => format!("items from 0, {} of them", items.len()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => "nothing inside".to_owned(),
            };
            Failure::usage(format!("the answer has no field {path:?}"))
                .hint(format!("where {name:?} was looked for, there are: {has}"))
        })?;
    }
    Ok(match here {
        Value::String(text) => printable(text),
        other => other.to_string(),
    })
}

/// What it means that stdout cannot be written.
pub fn not_written(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::pipe_closed(),
        _ => Failure::other(format!("cannot write to stdout: {error}")),
    }
}

/// Lays out rows under a header.
pub fn rows<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = new_table();
    table.set_header(header.map(Cell::new));
    table.add_rows(rows.into_iter().map(|row| row.map(|text| Cell::new(cell(&text)))));
    laid_out(table)
}

/// Lays out names and values, one a line. What has no value is left out.
pub fn fields(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = new_table();
    for (name, value) in pairs {
        if !value.is_empty() {
            table.add_row([Cell::new(name), Cell::new(cell(&value))]);
        }
    }
    laid_out(table)
}

fn new_table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    // The same whatever the width of the terminal, so that lines can be cut and searched.
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    table
}

fn laid_out(mut table: comfy_table::Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// An empty cell would make columns hard to count for `awk`.
fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_their_header_without_spaces_at_the_ends() {
        let text = rows(["NAME", "STATE"], [["tenants/acme".into(), "ACTIVE".into()], ["b".into(), String::new()]]);
        assert_eq!(text, "NAME          STATE\ntenants/acme  ACTIVE\nb             -\n");
        assert_eq!(rows(["NAME"], []), "NAME\n");
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let text = fields([("name", "tenants/acme".into()), ("fenced", String::new()), ("state", "ACTIVE".into())]);
        assert_eq!(text, "name   tenants/acme\nstate  ACTIVE\n");
    }

    #[test]
    fn what_moves_a_cursor_is_written_out() {
        assert_eq!(fields([("labels", "a=\u{1b}[2J\n".into())]), "labels  a=\\u{1b}[2J\\n\n");
    }

    #[test]
    fn one_field_is_found_by_its_path() {
        let answer =
            serde_json::json!({"name": "a", "n": 7, "labels": {"x": "1"}, "list": [{"state": "S"}], "no": false});
        for (path, value) in [
            ("name", "a"),
            ("n", "7"),
            ("labels.x", "1"),
            ("list.0.state", "S"),
            ("no", "false"),
            ("labels", r#"{"x":"1"}"#),
        ] {
            assert_eq!(field(&answer, path).unwrap(), value);
        }
        for path in ["", "nam", "list.1", "name.x", "list.state"] {
            assert_eq!(field(&answer, path).unwrap_err().exit, Exit::Usage, "{path}");
        }
        assert!(field(&answer, "nam").unwrap_err().lines().contains("there are: labels, list, n, name, no"));
    }

    #[test]
    fn whoever_stops_reading_causes_no_error() {
        let failure = not_written(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit.code(), 0);
        assert_eq!(not_written(io::Error::from(io::ErrorKind::StorageFull)).exit.code(), 1);
    }
}
