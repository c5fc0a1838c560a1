//! What flags, variables and file say, each value with where it came from, and every mistake in them.
//!
//! A value that is wrong is told and left out, so that the rest is read as if it were not there.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::table::{Default, IDENTITY, ISSUER, LISTS, SETTINGS, Setting, sections};
use super::value::{Value, list, shown, suggestion};
use super::{Flags, Given};
use crate::authn::issuer::{self, ISSUERS_MAX, IssuerSettings};
use crate::authn::trust_domain::{self, TRUST_DOMAINS_MAX, TrustDomainFiles};
use crate::authn::{IdentityEntry, IdentityMapping, mapping};
use crate::mistake::{Mistake, Source, quoted};
use crate::policy::PairNames;

/// Where a value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A flag, by its name.
    Flag(String),
    /// A variable of the environment, by its name.
    Environment(String),
    /// The file, with line and column.
    File(String, usize, usize),
    /// Nobody set it.
    Default,
}

/// A value with where it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The value, as it was written.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// All that was said.
#[derive(Debug, std::default::Default)]
pub struct Draft {
    /// By the whole names of settings; those that nobody set have their default, if it is a fixed one.
    pub found: HashMap<String, Found>,
    /// The tables of identities, put together.
    pub identities: IdentityMapping,
    /// Issuers of tokens.
    pub issuers: Vec<IssuerSettings>,
    /// Trust domains with authorities of their own.
    pub trust_domains: Vec<TrustDomainFiles>,
    /// How many tables each list has.
    pub list_counts: HashMap<&'static str, usize>,
    /// Everything that is wrong.
    pub mistakes: Vec<Mistake>,
    /// Whether the file could be read as TOML: else much that is missing is there.
    pub legible: bool,
    /// The whole names of settings whose value is wrong: they are neither set nor missing.
    wrong: Vec<String>,
    base: PathBuf,
}

impl Draft {
    /// Reads the file that the flags name, if any, and puts flags and variables over it.
    pub fn read(flags: &Flags) -> Self {
        let mut draft = Self { legible: true, ..Self::default() };
        if let Some(path) = &flags.config {
            draft.base = path.parent().unwrap_or(Path::new("")).to_owned();
            let label = path.display().to_string();
            match text_of(path) {
                Ok(text) => draft.read_text(Source { file: &label, text: &text }),
                Err(mistake) => {
                    draft.legible = false;
                    draft.mistakes.push(*mistake);
                }
            }
        }
        for Given { id, text, origin } in flags.given() {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.id() == id) else { continue };
            match setting.kind.of_text(&text) {
                Ok(value) => {
                    draft.found.insert(setting.full_name(), Found { value, origin });
                }
                Err(wrong) => {
                    draft.wrong.push(setting.full_name());
                    let what = format!("{} = {}", setting.full_name(), quoted(&text));
                    draft.mistakes.push(Mistake {
                        file: origin.to_string(),
                        place: None,
                        what,
                        why: wrong.why,
                        remedy: wrong.remedy,
                    });
                }
            }
        }
        draft.fill_in_defaults();
        draft
    }

    /// Reads a file that is these bytes, without flags and variables: for fuzzing.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn of_text(text: &str) -> Self {
        let mut draft = Self { legible: true, base: PathBuf::from("etc"), ..Self::default() };
        draft.read_text(Source { file: "kms.toml", text });
        draft.fill_in_defaults();
        draft
    }

    fn fill_in_defaults(&mut self) {
        for setting in SETTINGS {
            if let Default::Is(text) = setting.default
                && !self.found.contains_key(&setting.full_name())
            {
                let value = default_of(setting, text);
                self.found.insert(setting.full_name(), Found { value, origin: Origin::Default });
            }
        }
    }

    fn read_text(&mut self, source: Source<'_>) {
        let (root, errors) = DeTable::parse_recoverable(source.text);
        self.legible = errors.is_empty();
        for error in errors {
            let why = error.message().lines().collect::<Vec<_>>().join(", ");
            let remedy = "a file of settings is TOML; `kms-server config example` prints one";
            self.mistakes.push(source.mistake(error.span(), "not TOML", why, remedy));
        }
        // In the file's order, and not in that of names.
        let mut entries: Vec<_> = root.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let tables: Vec<&str> = sections().into_iter().filter(|section| !section.is_empty()).collect();
        for (key, value) in entries {
            let name = &**key.get_ref();
            if let Some(list) = LISTS.into_iter().find(|list| *list == name) {
                self.read_list(list, source, value);
            } else if tables.contains(&name) {
                match value.get_ref() {
                    DeValue::Table(table) => {
                        let mut entries: Vec<_> = table.iter().collect();
                        entries.sort_by_key(|(key, _)| key.span().start);
                        for (key, value) in entries {
                            self.read_setting(source, name, key, value);
                        }
                    }
                    other => self.mistakes.push(source.mistake(
                        Some(value.span()),
                        format!("{name} = {}", shown(other)),
                        "it is a table of settings",
                        format!("write [{name}], and its settings in the lines below"),
                    )),
                }
            } else {
                self.read_setting(source, "", key, value);
            }
        }
        self.mistakes.sort_by_key(|mistake| mistake.place);
    }

    fn read_setting(
        &mut self,
        source: Source<'_>,
        section: &str,
        key: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let name = &**key.get_ref();
        let Some(setting) = SETTINGS.iter().find(|setting| setting.section == section && setting.name == name) else {
            self.mistakes.push(unknown(source, section, key, value.get_ref()));
            return;
        };
        match setting.kind.of_toml(value.get_ref()) {
            Ok(read) => {
                let (line, column) = source.place(key.span().start).unwrap_or((1, 1));
                let origin = Origin::File(source.file.to_owned(), line, column);
                self.found.insert(setting.full_name(), Found { value: read, origin });
            }
            Err(wrong) => {
                self.wrong.push(setting.full_name());
                let what = format!("{} = {}", setting.full_name(), shown(value.get_ref()));
                self.mistakes.push(source.mistake(Some(value.span()), what, wrong.why, wrong.remedy));
            }
        }
    }

    fn read_list(&mut self, list: &'static str, source: Source<'_>, value: &Spanned<DeValue<'_>>) {
        let span = Some(value.span());
        match list {
            IDENTITY => {
                let entries: Vec<IdentityEntry> = self.tables(list, "identity", &mapping::FIELDS, source, value);
                match IdentityMapping::try_from(entries) {
                    Ok(identities) => self.identities = identities,
                    Err(error) => {
                        let remedy = "a name in a certificate stands for one principal";
                        self.mistakes.push(source.mistake(span, "identities", error.to_string(), remedy));
                    }
                }
            }
            ISSUER => {
                let issuers: Vec<IssuerSettings> = self.tables(list, "issuer", &issuer::FIELDS, source, value);
                self.issuers = issuers.into_iter().map(|issuer| issuer.relative_to(&self.base)).collect();
                let names = self.issuers.iter().map(|issuer| issuer.issuer.clone()).collect();
                self.once_each(list, names, ISSUERS_MAX, source, value);
            }
            _ => {
                let domains: Vec<TrustDomainFiles> =
                    self.tables(list, "trust domain", &trust_domain::FIELDS, source, value);
                self.trust_domains = domains.into_iter().map(|domain| domain.relative_to(&self.base)).collect();
                let names = self.trust_domains.iter().map(|domain| domain.name.clone()).collect();
                self.once_each(list, names, TRUST_DOMAINS_MAX, source, value);
            }
        }
    }

    /// Reads the tables of a list; those with a mistake are told of and left out.
    fn tables<T: for<'de> serde::Deserialize<'de>>(
        &mut self,
        list: &'static str,
        what: &str,
        fields: &[&str],
        source: Source<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Vec<T> {
        let DeValue::Array(items) = value.get_ref() else {
            let why = format!("each {what} is a table of its own");
            let remedy = format!("write [[{list}]], and its fields in the lines below");
            self.mistakes.push(source.mistake(Some(value.span()), format!("{list} is no list of tables"), why, remedy));
            return Vec::new();
        };
        self.list_counts.insert(list, items.len());
        let mut entries = Vec::new();
        for item in items.iter() {
            match T::deserialize(ValueDeserializer::from(item.clone())) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    let why = error.message().lines().collect::<Vec<_>>().join(", ");
                    let unknown = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
                    let remedy = unknown.and_then(|word| suggestion(word, fields));
                    let remedy = remedy.unwrap_or_else(|| format!("correct this [[{list}]]"));
                    let span = error.span().unwrap_or(item.span());
                    let article = if what.starts_with('i') { "an" } else { "a" };
                    self.mistakes.push(source.mistake(Some(span), format!("not {article} {what}"), why, remedy));
                }
            }
        }
        entries
    }

    fn once_each(
        &mut self,
        list: &str,
        mut names: Vec<String>,
        max: usize,
        source: Source<'_>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let mut tell = |why: String, remedy: String| {
            self.mistakes.push(source.mistake(Some(value.span()), format!("[[{list}]]"), why, remedy));
        };
        if names.len() > max {
            tell(format!("there are {} tables, and at most {max} are taken", names.len()), "remove some".to_owned());
        }
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            tell(format!("{} is there twice", quoted(&twice[0])), format!("remove one of the two [[{list}]]"));
        }
    }

    /// Tells a mistake in what several settings say together, in the place of one of them.
    pub fn contradiction(&mut self, full_name: &str, what: String, why: &str, remedy: &str) {
        let (file, place) = match self.found.get(full_name).map(|found| &found.origin) {
            Some(Origin::File(file, line, column)) => (file.clone(), Some((*line, *column))),
            Some(origin @ (Origin::Flag(_) | Origin::Environment(_))) => (origin.to_string(), None),
            Some(Origin::Default) | None => ("settings".to_owned(), None),
        };
        self.mistakes.push(Mistake { file, place, what, why: why.to_owned(), remedy: remedy.to_owned() });
    }

    /// Returns whether somebody set it.
    pub fn is_set(&self, full_name: &str) -> bool {
        self.found.get(full_name).is_some_and(|found| found.origin != Origin::Default)
    }

    /// Returns whether nobody set it, as far as that can be told: what was set to something wrong was set.
    pub fn is_missing(&self, full_name: &str) -> bool {
        self.legible && !self.is_set(full_name) && !self.wrong.iter().any(|wrong| wrong == full_name)
    }

    /// Returns a path: one of the file is relative to the file, another to where the program was started.
    pub fn path(&self, full_name: &str) -> Option<PathBuf> {
        let found = self.found.get(full_name)?;
        match (&found.value, &found.origin) {
            (Value::Path(path), Origin::File(..)) => Some(self.base.join(path)),
            (Value::Path(path), _) => Some(path.clone()),
            (_, _) => None,
        }
    }

    /// Returns paths, which only the file has.
    pub fn paths(&self, full_name: &str) -> Vec<PathBuf> {
        match self.found.get(full_name).map(|found| &found.value) {
            Some(Value::Paths(paths)) => paths.iter().map(|path| self.base.join(path)).collect(),
            Some(_) | None => Vec::new(),
        }
    }

    /// Returns names of pairs, which only the file has.
    pub fn pair_names(&self, full_name: &str) -> PairNames {
        match self.found.get(full_name).map(|found| &found.value) {
            Some(Value::PairNames(names)) => names.clone(),
            Some(_) | None => PairNames::default(),
        }
    }

    /// Returns an address.
    pub fn address(&self, full_name: &str) -> Option<SocketAddr> {
        match self.found.get(full_name)?.value {
            Value::Address(address) => Some(address),
            _ => None,
        }
    }

    /// Returns a number.
    pub fn integer(&self, full_name: &str) -> Option<u64> {
        match self.found.get(full_name)?.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// Returns a time in milliseconds.
    pub fn millis(&self, full_name: &str) -> Option<u64> {
        match self.found.get(full_name)?.value {
            Value::Millis(time, _) => Some(time),
            _ => None,
        }
    }

    /// Returns whether a switch is on.
    pub fn switch(&self, full_name: &str) -> bool {
        matches!(self.found.get(full_name).map(|found| &found.value), Some(Value::Switch(true)))
    }

    /// Returns a word.
    pub fn text(&self, full_name: &str) -> Option<String> {
        match &self.found.get(full_name)?.value {
            Value::Text(word) => Some(word.clone()),
            _ => None,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Environment(name) => f.write_str(name),
            Origin::File(file, line, column) => write!(f, "{file}:{line}:{column}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

fn default_of(setting: &Setting, text: &str) -> Value {
    let value = DeValue::parse(text).ok().and_then(|value| setting.kind.of_toml(value.get_ref()).ok());
    value.expect("a test reads every default of the table")
}

fn unknown(source: Source<'_>, section: &str, key: &Spanned<toml::de::DeString<'_>>, value: &DeValue<'_>) -> Mistake {
    let name = &**key.get_ref();
    let names = |section: &str| -> Vec<&str> {
        SETTINGS.iter().filter(|setting| setting.section == section).map(|setting| setting.name).collect()
    };
    let tables: Vec<&str> = sections().into_iter().filter(|section| !section.is_empty()).chain(LISTS).collect();
    let is_table = section.is_empty() && matches!(value, DeValue::Table(_) | DeValue::Array(_));
    let there = if is_table { tables } else { names(section) };
    // The right name in the wrong table is more likely meant than a name that is near.
    let elsewhere = SETTINGS.iter().find(|setting| setting.name == name && setting.section != section && !is_table);
    let remedy = match (suggestion(name, &there), elsewhere) {
        (_, Some(Setting { section: "", .. })) => "move it up, before the first table".to_owned(),
        (_, Some(setting)) => format!("move it into [{}]", setting.section),
        (Some(near), None) => near,
        (None, None) => "remove it, or see `kms-server config example`".to_owned(),
    };
    let (what, why) = match (is_table, section) {
        (true, _) => (format!("unknown table {}", quoted(name)), format!("the tables are {}", list(&there))),
        (false, "") => {
            (format!("unknown setting {}", quoted(name)), format!("before the first table there are {}", list(&there)))
        }
        (false, section) => (
            format!("unknown setting {} in [{section}]", quoted(name)),
            format!("the settings there are {}", list(&there)),
        ),
    };
    source.mistake(Some(key.span()), what, why, remedy)
}

fn text_of(path: &Path) -> Result<String, Box<Mistake>> {
    let mistake = |what: String, why: String, remedy: &str| {
        Box::new(Mistake { file: path.display().to_string(), place: None, what, why, remedy: remedy.to_owned() })
    };
    let failed = |error: std::io::Error| {
        let remedy = "give another with --config, or see that it is there and this user may read it";
        mistake("the file of settings cannot be read".to_owned(), error.to_string(), remedy)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    // Who can write it names the bindings, and so gives himself everything.
    let mode = found.mode() & 0o7777;
    if found.is_file() && mode & 0o002 != 0 {
        let what = format!("everybody can write the file of settings (mode {mode:04o})");
        return Err(mistake(what, "whoever can do that says who may do what".to_owned(), "chmod o-w"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let what = format!("the file of settings has more than {FILE_BYTES_MAX} bytes");
        return Err(mistake(what, "none that is meant is so large".to_owned(), "give the right file with --config"));
    }
    Ok(text)
}

const FILE_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_and_every_example_is_a_value_of_its_kind() {
        for setting in SETTINGS {
            let value = DeValue::parse(setting.example()).unwrap();
            let read = setting.kind.of_toml(value.get_ref());
            let read = read.unwrap_or_else(|wrong| panic!("{}: {}", setting.full_name(), wrong.why));
            assert_eq!(read.to_toml(), setting.example(), "{}", setting.full_name());
        }
    }
}
