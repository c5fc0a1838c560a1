//! What a caller should get, alone or as a table.

use std::fmt::Debug;

use kms_tests::Refused;
use tonic::Code;

/// Expects a refusal.
#[track_caller]
pub fn refused<T: Debug>(code: Code, reason: &str, result: Result<T, Refused>) {
    match result {
        Err(refused) if refused.code == code && refused.is(reason) => {}
        other => panic!("expected {code:?} {reason}, got {other:?}"),
    }
}

/// A table of what callers should get. It is checked as a whole, so that one wrong row does not
/// hide the next.
pub struct Expected {
    of: &'static str,
    rows: usize,
    wrong: Vec<String>,
}

impl Expected {
    /// Begins a table.
    pub fn of(of: &'static str) -> Self {
        Self { of, rows: 0, wrong: Vec::new() }
    }

    /// Adds a row that should be refused.
    pub fn refused<T: Debug>(&mut self, what: &str, code: Code, reason: &str, got: Result<T, Refused>) {
        let right = matches!(&got, Err(refused) if refused.code == code && refused.is(reason));
        self.row(right, what, &format!("{code:?} {reason}"), &format!("{got:?}"));
    }

    /// Adds a row that should work: the neighbour of one that should not.
    pub fn works<T: Debug>(&mut self, what: &str, got: Result<T, Refused>) {
        self.row(got.is_ok(), what, "success", &format!("{got:?}"));
    }

    /// Adds a row that is right or not.
    pub fn row(&mut self, right: bool, what: &str, expected: &str, got: &str) {
        self.rows += 1;
        if !right {
            self.wrong.push(format!("  {what}: expected {expected}, got {got}"));
        }
    }

    /// Fails with all rows that were wrong.
    #[track_caller]
    pub fn check(self) {
        let Self { of, rows, wrong } = self;
        println!("{of}: {}/{rows} as expected", rows - wrong.len());
        assert!(wrong.is_empty(), "{of}: {} of {rows} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}
