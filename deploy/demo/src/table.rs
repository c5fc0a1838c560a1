//! A table of customers as CSV, some of whose columns are secret.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use kms_client::Context;

/// Columns that are encrypted, where a table has them.
const SECRET_COLUMNS: [&str; 5] = ["email", "phone", "tax_id", "iban", "notes"];
/// The column that says whose customer a row is.
const TENANT_COLUMN: &str = "tenant";
/// The column that names a row.
const ID_COLUMN: &str = "customer_id";

/// A table, as it is or with its secret columns encrypted.
#[derive(Clone)]
pub struct Table {
    name: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    tenant: usize,
    id: usize,
    secret: Vec<usize>,
}

/// The place of a value in a table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cell {
    /// Which row.
    pub row: usize,
    /// Which column.
    pub column: usize,
}

impl Table {
    /// Reads a table, which is named as its file.
    pub fn read(path: &Path) -> Result<Self> {
        let doing = || format!("reading {}", path.display());
        let name = path.file_name().and_then(|name| name.to_str()?.split('.').next()).with_context(doing)?.to_owned();
        let mut reader = csv::Reader::from_path(path).with_context(doing)?;
        let header: Vec<String> = reader.headers().with_context(doing)?.iter().map(str::to_owned).collect();
        let place = |wanted: &str| {
            header
                .iter()
                .position(|column| column == wanted)
                .with_context(|| format!("{}: no column `{wanted}`", path.display()))
        };
        let (tenant, id) = (place(TENANT_COLUMN)?, place(ID_COLUMN)?);
        let is_secret = |column: &String| SECRET_COLUMNS.contains(&column.as_str());
        let secret: Vec<usize> = (0..header.len()).filter(|place| is_secret(&header[*place])).collect();
        if secret.is_empty() {
            bail!("{}: none of the columns {SECRET_COLUMNS:?}, so nothing to encrypt", path.display());
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            rows.push(record.with_context(doing)?.iter().map(str::to_owned).collect());
        }
        let table = Self { name, header, rows, tenant, id, secret };
        let ids: HashSet<&str> = table.rows.iter().map(|row| &*row[id]).collect();
        ensure!(ids.len() == table.rows.len(), "{}: two rows have the same `{ID_COLUMN}`", path.display());
        Ok(table)
    }

    /// Writes the table.
    pub fn write(&self, path: &Path) -> Result<()> {
        let doing = || format!("writing {}", path.display());
        let mut writer = csv::Writer::from_path(path).with_context(doing)?;
        writer.write_record(&self.header).with_context(doing)?;
        for row in &self.rows {
            writer.write_record(row).with_context(doing)?;
        }
        writer.flush().with_context(doing)
    }

    /// Returns the tenants, each once, in the order they appear.
    pub fn tenants(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.rows.iter().map(|row| &row[self.tenant]).filter(|tenant| seen.insert(*tenant)).cloned().collect()
    }

    /// Returns how many rows a tenant has.
    pub fn rows_of(&self, tenant: &str) -> usize {
        self.rows.iter().filter(|row| row[self.tenant] == tenant).count()
    }

    /// Returns the names of the secret columns.
    pub fn secret_columns(&self) -> Vec<&str> {
        self.secret.iter().map(|column| &*self.header[*column]).collect()
    }

    /// Returns the places of a tenant's secret values.
    pub fn secret_cells(&self, tenant: &str) -> Vec<Cell> {
        let rows = (0..self.rows.len()).filter(|row| self.rows[*row][self.tenant] == tenant);
        rows.flat_map(|row| self.secret.iter().map(move |column| Cell { row, column: *column })).collect()
    }

    /// Returns a value.
    pub fn value(&self, cell: Cell) -> &str {
        &self.rows[cell.row][cell.column]
    }

    /// Changes a value.
    pub fn set(&mut self, cell: Cell, value: String) {
        self.rows[cell.row][cell.column] = value;
    }

    /// Returns what a value is bound to: sealed for one place, it opens at no other.
    pub fn context(&self, cell: Cell) -> Context {
        Context::new()
            .pair("table", &*self.name)
            .pair("column", &*self.header[cell.column])
            .pair("row", &*self.rows[cell.row][self.id])
    }
}
