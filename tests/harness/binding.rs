//! A binding as the file of bindings has it.

use std::fmt;

/// Gives roles to principals for some tenants and keys.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Its id, which the log gives as the rule that decided.
    pub id: &'a str,
    /// Names of roles.
    pub roles: &'a [&'a str],
    /// SPIFFE ids.
    pub principals: &'a [&'a str],
    /// Names of tenants, or `*`.
    pub tenants: &'a [&'a str],
    /// Names of keys, `prefix*`, or `*`. Empty for roles that act on no key.
    pub keys: &'a [&'a str],
    /// Names of blind indexes, `prefix*`, or `*`. Empty for roles that act on none.
    pub indexes: &'a [&'a str],
}

impl fmt::Display for Binding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The debug form of plain ASCII text is its TOML form.
        writeln!(f, "\n[[binding]]\nid = {:?}\nroles = {:?}", self.id, self.roles)?;
        writeln!(f, "principals = {:?}\ntenants = {:?}", self.principals, self.tenants)?;
        if !self.keys.is_empty() {
            writeln!(f, "keys = {:?}", self.keys)?;
        }
        if !self.indexes.is_empty() {
            writeln!(f, "indexes = {:?}", self.indexes)?;
        }
        Ok(())
    }
}

/// The roles that act on blind indexes too.
pub const ON_INDEXES: [&str; 2] = ["encrypter", "decrypter"];
