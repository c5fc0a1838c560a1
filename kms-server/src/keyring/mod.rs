//! The keys: tenants, keys, versions, epochs, and where their rows lie. Knows no wire and no vendor.

pub mod row_key;

#[cfg(test)]
mod row_vectors;
