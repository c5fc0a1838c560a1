//! The file of bindings: TOML in, bindings and groups out. What is not fully right is refused.
//!
//! ```toml
//! [[binding]]
//! id = "billing-acme"                     # appears in the audit log as `rule`
//! roles = ["encrypter", "decrypter"]
//! principals = ["spiffe://example.com/billing"]   # and, or instead: groups = ["billing"]
//! tenants = ["acme"]                      # names, or "*"
//! keys = ["*"]                            # names, "prefix*", or "*"; also indexes = [...]
//! networks = ["10.0.0.0/8"]               # optional
//! expires = 2027-01-01T00:00:00Z          # optional
//!
//! [[group]]
//! name = "billing"
//! members = ["spiffe://example.com/billing"]
//! ```

mod form;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;

use form::{BindingForm, GroupForm, List, Text};

use super::names::{Names, Pattern};
use super::network::Network;
use super::role::Role;
use super::templates::{Level, Templates};
use crate::mistake::{Mistake, Source, did_you_mean, quoted};
use crate::noun::{KeyName, Principal, TenantName, UnixMillis};

/// The largest file.
pub const BINDINGS_FILE_BYTES_MAX: usize = 4 << 20;
/// The most bindings in it.
pub const BINDINGS_MAX: usize = 10_000;
/// The most groups in it.
pub const GROUPS_MAX: usize = 1_000;
/// The most entries of any list in it but `members`.
pub const LIST_ENTRIES_MAX: usize = 1_000;
/// The most members of a group.
pub const MEMBERS_MAX: usize = 10_000;
/// The most principals and groups in all bindings together: each costs some kilobytes of memory.
pub const GRANTS_MAX: usize = 20_000;

/// Who gets what, where, and until when.
pub(super) struct Binding {
    pub id: Arc<str>,
    pub roles: Arc<[Role]>,
    pub principals: Vec<Principal>,
    pub groups: Vec<Arc<str>>,
    pub tenants: Tenants,
    pub keys: Option<Names>,
    pub indexes: Option<Names>,
    /// Nothing means anywhere.
    pub networks: Option<Vec<Network>>,
    /// Nothing means for ever.
    pub expires: Option<UnixMillis>,
}

/// The tenants of a binding.
pub(super) enum Tenants {
    Every,
    /// In byte order.
    Named(Vec<TenantName>),
}

impl Tenants {
    pub fn entries(&self) -> Vec<String> {
        match self {
            Self::Every => vec!["*".to_owned()],
            Self::Named(tenants) => tenants.iter().map(TenantName::to_string).collect(),
        }
    }

    pub fn covers(&self, tenant: &TenantName) -> bool {
        match self {
            Self::Every => true,
            Self::Named(tenants) => tenants.binary_search(tenant).is_ok(),
        }
    }
}

/// A name for several principals.
pub(super) struct Group {
    pub name: Arc<str>,
    pub members: Vec<Principal>,
}

/// The rules that a binding names when there is none: `rule` in the audit log must stay clear.
const RESERVED_IDS: [&str; 2] = [super::RULE_DEFAULT, super::RULE_SELF];

/// What a file says, and everything that is wrong with it. With a mistake in it the rest is not to be used.
#[derive(Default)]
pub(super) struct Read {
    pub bindings: Vec<Binding>,
    pub groups: Vec<Group>,
    pub mistakes: Vec<Mistake>,
}

/// Reads a file of bindings, past its mistakes: of each binding and group the first is told.
pub(super) fn read(source: Source<'_>, templates: &Templates) -> Read {
    let mut read = Read::default();
    if source.text.len() > BINDINGS_FILE_BYTES_MAX {
        read.mistakes.push(source.mistake(
            None,
            format!("the file has {} bytes", source.text.len()),
            format!("a file of bindings has at most {BINDINGS_FILE_BYTES_MAX}"),
            "use groups, prefixes and \"*\" instead of long lists",
        ));
        return read;
    }
    let form = form::read(source, &mut read.mistakes);
    let counts = [(form.group.len(), GROUPS_MAX, "groups"), (form.binding.len(), BINDINGS_MAX, "bindings")];
    for (count, max, of) in counts {
        if let Err(mistake) = bounded(source, count, max, of) {
            read.mistakes.push(mistake);
            return read;
        }
    }
    let mut names = HashMap::new();
    let mut known: HashSet<String> = form.group.iter().map(|group| group.get_ref().name.get_ref().clone()).collect();
    known.extend(form.unreadable_groups);
    for form in form.group {
        match group_of(source, form.into_inner(), &mut names) {
            Ok(group) => read.groups.push(group),
            Err(mistake) => read.mistakes.push(mistake),
        }
    }
    let mut ids = HashMap::new();
    let mut grants = 0;
    for form in form.binding {
        match binding_of(source, form, &mut ids, &known, templates) {
            Ok(binding) => {
                grants += binding.principals.len() + binding.groups.len();
                read.bindings.push(binding);
            }
            Err(mistake) => read.mistakes.push(mistake),
        }
    }
    if let Err(mistake) = bounded(source, grants, GRANTS_MAX, "principals and groups in all bindings together") {
        read.mistakes.push(mistake);
    }
    read.mistakes.sort_by_key(|mistake| mistake.place);
    read
}

fn binding_of(
    source: Source<'_>,
    form: Spanned<BindingForm>,
    ids: &mut HashMap<String, Range<usize>>,
    known: &HashSet<String>,
    templates: &Templates,
) -> Result<Binding, Mistake> {
    let span = form.span();
    let id = name(source, &form.get_ref().id, "binding id")?;
    unique(source, ids, &form.get_ref().id, "binding id")?;
    if RESERVED_IDS.contains(&&*id) {
        return Err(source.mistake(
            Some(form.get_ref().id.span()),
            format!("binding id {id:?} is taken"),
            "the audit log uses it for decisions that no binding made",
            "choose another id",
        ));
    }
    let reader = Reader { source, at: format!("binding {id:?}") };
    reader.binding(Arc::from(id), form.into_inner(), span, known, templates)
}

fn group_of(source: Source<'_>, form: GroupForm, names: &mut HashMap<String, Range<usize>>) -> Result<Group, Mistake> {
    let name = name(source, &form.name, "group name")?;
    unique(source, names, &form.name, "group name")?;
    let reader = Reader { source, at: format!("group {name:?}") };
    let members = reader.list("members", &form.members, MEMBERS_MAX, principal)?;
    Ok(Group { name: Arc::from(name), members })
}

fn bounded(source: Source<'_>, count: usize, max: usize, of: &str) -> Result<(), Mistake> {
    if count <= max {
        return Ok(());
    }
    let remedy = "use groups, prefixes and \"*\" instead of many entries";
    Err(source.mistake(None, format!("{count} {of}"), format!("there are at most {max}"), remedy))
}

fn name(source: Source<'_>, text: &Text, of: &str) -> Result<String, Mistake> {
    match text.get_ref().parse::<KeyName>() {
        Ok(name) => Ok(name.to_string()),
        Err(why) => {
            let what = format!("bad {of} {}", quoted(text.get_ref()));
            Err(source.mistake(Some(text.span()), what, why.to_string(), "choose another"))
        }
    }
}

fn unique(source: Source<'_>, seen: &mut HashMap<String, Range<usize>>, text: &Text, of: &str) -> Result<(), Mistake> {
    let Some(first) = seen.insert(text.get_ref().clone(), text.span()) else {
        return Ok(());
    };
    let first = source.mistake(Some(first), "", "", "").place.unwrap_or((1, 1));
    Err(source.mistake(
        Some(text.span()),
        format!("{of} {:?} is there twice", text.get_ref()),
        format!("it stands in line {} already", first.0),
        "rename or remove one of the two",
    ))
}

/// Why an entry of a list is not taken, and what to do about it.
struct Refusal {
    what: String,
    why: String,
    remedy: String,
}

fn principal(text: &str) -> Result<Principal, Refusal> {
    text.parse().map_err(|why: crate::noun::principal::InvalidPrincipal| Refusal {
        what: format!("bad principal {}", quoted(text)),
        why: why.to_string(),
        remedy: "write the SPIFFE ID of the workload, as spiffe://example.com/billing".into(),
    })
}

fn role(text: &str) -> Result<Role, Refusal> {
    text.parse().map_err(|_| {
        let all = Role::ALL.map(Role::as_str);
        Refusal {
            what: format!("unknown role {}", quoted(text)),
            why: format!("the roles are {}", all.join(", ")),
            remedy: match did_you_mean(text, all) {
                Some(role) => format!("did you mean \"{role}\"?"),
                None => "choose one of them".into(),
            },
        }
    })
}

// Nothing is "*".
fn tenant(text: &str) -> Result<Option<TenantName>, Refusal> {
    if text == "*" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|why: crate::noun::name::InvalidName| Refusal {
        what: format!("bad tenant {}", quoted(text)),
        why: format!("a tenant's name {why}"),
        remedy: "write the name of one tenant, or \"*\"; tenants have no prefixes".into(),
    })
}

fn pattern(text: &str) -> Result<Pattern, Refusal> {
    text.parse().map_err(|why: crate::noun::name::InvalidName| Refusal {
        what: format!("bad name {}", quoted(text)),
        why: format!("a name {why}"),
        remedy: "write a name, \"prefix*\", or \"*\"".into(),
    })
}

fn network(text: &str) -> Result<Network, Refusal> {
    text.parse().map_err(|why: super::network::InvalidNetwork| Refusal {
        what: format!("bad network {}", quoted(text)),
        why: why.to_string(),
        remedy: "correct the address or the prefix length".into(),
    })
}

/// Reads the fields of one binding or group, which it names in every mistake.
struct Reader<'a> {
    source: Source<'a>,
    at: String,
}

impl Reader<'_> {
    fn mistake(&self, span: Range<usize>, refusal: Refusal) -> Mistake {
        let what = format!("{}: {}", self.at, refusal.what);
        self.source.mistake(Some(span), what, refusal.why, refusal.remedy)
    }

    fn refuse<T>(&self, span: Range<usize>, what: &str, why: &str, remedy: &str) -> Result<T, Mistake> {
        let [what, why, remedy] = [what, why, remedy].map(String::from);
        Err(self.mistake(span, Refusal { what, why, remedy }))
    }

    fn binding(
        &self,
        id: Arc<str>,
        form: BindingForm,
        span: Range<usize>,
        known: &HashSet<String>,
        templates: &Templates,
    ) -> Result<Binding, Mistake> {
        for (field, reserved) in [("strength", &form.strength), ("context", &form.context), ("fan_out", &form.fan_out)]
        {
            if let Some(value) = reserved {
                self.refuse(
                    value.span(),
                    &format!("`{field}` is reserved"),
                    "this version does not enforce it, and a limit that is not enforced is none",
                    &format!("remove `{field}`, or wait for the version that has it"),
                )?;
            }
        }
        let roles = self.list("roles", &form.roles, LIST_ENTRIES_MAX, role)?;
        let principals = self.optional("principals", &form.principals, principal)?;
        let groups = self.optional("groups", &form.groups, |text| group(text, known))?;
        if principals.is_none() && groups.is_none() {
            self.refuse(
                span,
                "neither `principals` nor `groups`",
                "a binding says who it is for",
                "add principals = [\"spiffe://...\"] or groups = [\"...\"]",
            )?;
        }
        let tenants = self.tenants(&form.tenants)?;
        let keys = self.names("keys", &form.keys)?;
        let indexes = self.names("indexes", &form.indexes)?;
        let covered = |level| match level {
            Level::Cluster => matches!(tenants, Tenants::Every),
            Level::Tenants => true,
            Level::Keys => keys.is_some(),
            Level::Indexes => indexes.is_some(),
        };
        self.no_role_is_idle(&roles, &form.roles, templates, covered)?;
        for (level, list) in [(Level::Keys, &form.keys), (Level::Indexes, &form.indexes)] {
            let used = roles.iter().any(|&role| templates.levels(role).any(|of| of == level));
            if let (Some(list), false) = (list, used) {
                self.refuse(
                    list.span(),
                    &format!("`{level}` limits nothing here"),
                    &format!("none of the roles acts on {level}"),
                    &format!("remove `{level}`, or give a role that acts on {level}"),
                )?;
            }
        }
        let networks = self.optional("networks", &form.networks, network)?;
        let expires = form.expires.map(|value| self.expires(&value)).transpose()?;
        Ok(Binding {
            id,
            roles: roles.into(),
            principals: principals.unwrap_or_default(),
            groups: groups.unwrap_or_default(),
            tenants,
            keys,
            indexes,
            networks,
            expires,
        })
    }

    // A role that gives nothing is not what its writer meant, and is found late: at a denial.
    fn no_role_is_idle(
        &self,
        roles: &[Role],
        list: &List,
        templates: &Templates,
        covered: impl Fn(Level) -> bool,
    ) -> Result<(), Mistake> {
        for (&role, text) in roles.iter().zip(list.get_ref()) {
            if templates.levels(role).any(&covered) {
                continue;
            }
            let levels: Vec<&str> = templates
                .levels(role)
                .map(|level| if level == Level::Cluster { "the cluster" } else { level.as_str() })
                .collect();
            let add: Vec<&str> = templates
                .levels(role)
                .map(|level| match level {
                    Level::Cluster | Level::Tenants => "tenants = [\"*\"]",
                    Level::Keys => "keys = [...]",
                    Level::Indexes => "indexes = [...]",
                })
                .collect();
            self.refuse(
                text.span(),
                &format!("role \"{role}\" gives nothing here"),
                &format!("it acts on {}, and the binding covers none", levels.join(" and ")),
                &format!("write {}, or remove the role", add.join(" or ")),
            )?;
        }
        Ok(())
    }

    fn tenants(&self, list: &List) -> Result<Tenants, Mistake> {
        let entries = self.list("tenants", list, LIST_ENTRIES_MAX, tenant)?;
        self.star_stands_alone("tenants", list)?;
        // With a star in it there is no other entry, and a star is no name.
        let names: Option<Vec<TenantName>> = entries.into_iter().collect();
        Ok(names.map_or(Tenants::Every, |mut names| {
            names.sort_unstable();
            Tenants::Named(names)
        }))
    }

    fn names(&self, field: &str, list: &Option<List>) -> Result<Option<Names>, Mistake> {
        if let Some(list) = list {
            self.star_stands_alone(field, list)?;
        }
        Ok(self.optional(field, list, pattern)?.map(Names::new))
    }

    fn star_stands_alone(&self, field: &str, list: &List) -> Result<(), Mistake> {
        match list.get_ref().iter().find(|entry| entry.get_ref() == "*") {
            Some(star) if list.get_ref().len() > 1 => self.refuse(
                star.span(),
                &format!("`{field}` has \"*\" beside other entries"),
                "\"*\" covers them all, so that the others limit nothing",
                "keep either \"*\" or the others",
            ),
            Some(_) | None => Ok(()),
        }
    }

    fn expires(&self, value: &Spanned<toml::Value>) -> Result<UnixMillis, Mistake> {
        const WRITE: &str = "write it as 2027-01-01T00:00:00Z, without quotes";
        let toml::Value::Datetime(datetime) = value.get_ref() else {
            return self.refuse(value.span(), "`expires` is no date-time", "it is a date-time of TOML", WRITE);
        };
        if datetime.date.is_none() || datetime.time.is_none() || datetime.offset.is_none() {
            let why = "without date, time and offset from UTC it is no moment";
            return self.refuse(value.span(), "`expires` is incomplete", why, WRITE);
        }
        match datetime.to_string().parse::<jiff::Timestamp>() {
            // What expired before 1970 has expired.
            Ok(moment) => Ok(UnixMillis::try_from(moment.as_millisecond()).unwrap_or(0)),
            Err(error) => self.refuse(value.span(), "`expires` is no moment", &error.to_string(), WRITE),
        }
    }

    fn optional<T>(
        &self,
        field: &str,
        list: &Option<List>,
        read: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Result<Option<Vec<T>>, Mistake> {
        list.as_ref().map(|list| self.list(field, list, LIST_ENTRIES_MAX, read)).transpose()
    }

    fn list<T>(
        &self,
        field: &str,
        list: &List,
        max: usize,
        read: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Mistake> {
        let entries = list.get_ref();
        if entries.is_empty() {
            self.refuse(
                list.span(),
                &format!("`{field}` is empty"),
                "an empty list can be read as all or as none",
                "list at least one entry, or remove the table",
            )?;
        }
        if entries.len() > max {
            self.refuse(
                list.span(),
                &format!("`{field}` has {} entries", entries.len()),
                &format!("a list has at most {max}"),
                "use a group, a prefix or \"*\", or write several bindings",
            )?;
        }
        let mut seen = HashSet::with_capacity(entries.len());
        let mut values = Vec::with_capacity(entries.len());
        for entry in entries {
            let text = entry.get_ref();
            if !seen.insert(text) {
                self.refuse(
                    entry.span(),
                    &format!("`{field}` has {} twice", quoted(text)),
                    "the second one changes nothing, so that another was meant",
                    "correct or remove it",
                )?;
            }
            values.push(read(text).map_err(|refusal| self.mistake(entry.span(), refusal))?);
        }
        Ok(values)
    }
}

fn group(text: &str, known: &HashSet<String>) -> Result<Arc<str>, Refusal> {
    match known.get(text) {
        Some(name) => Ok(Arc::from(&**name)),
        None => Err(Refusal {
            what: format!("unknown group {}", quoted(text)),
            why: "no [[group]] in this file has that name".into(),
            remedy: match did_you_mean(text, known.iter().map(String::as_str)) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => "add the group, or correct the name".into(),
            },
        }),
    }
}
