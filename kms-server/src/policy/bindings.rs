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
//! strength = ["mfa"]                      # optional: certificate, token, mfa; all of them
//! context = { purpose = ["billing"] }     # optional: pairs that the encryption context must have
//! fan_out = { tenants = 100, per = "1h" } # optional: so many different tenants for each principal
//!
//! [[group]]
//! name = "billing"
//! members = ["spiffe://example.com/billing"]
//! ```

mod form;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;

use form::{BindingForm, FanOutForm, GroupForm, List, Text, Values};

use super::fan_out::{FAN_OUT_PER_MS_MAX, FAN_OUT_PER_MS_MIN, FAN_OUT_TENANTS_MAX, FanOut};
use super::names::{Names, Pattern};
use super::network::Network;
use super::pairs::{PairNames, Wanted};
use super::role::Role;
use super::templates::{Level, Templates};
use crate::config::milliseconds;
use crate::crypto::context::PAIR_VALUE_BYTES_MAX;
use crate::mistake::{Mistake, Source, did_you_mean, quoted};
use crate::noun::{KeyName, Principal, Strength, TenantName, UnixMillis};

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
    /// Nothing means since ever. A file cannot say it; a grant can.
    pub from: Option<UnixMillis>,
    /// Nothing means for ever.
    pub expires: Option<UnixMillis>,
    /// All that must have been shown.
    pub strength: Strength,
    /// All pairs that the encryption context must have.
    pub context: Box<[Wanted]>,
    pub fan_out: Option<FanOut>,
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
pub(super) const RESERVED_IDS: [&str; 2] = [super::RULE_DEFAULT, super::RULE_SELF];

/// What a file says, and everything that is wrong with it. With a mistake in it the rest is not to be used.
#[derive(Default)]
pub(super) struct Read {
    pub bindings: Vec<Binding>,
    pub groups: Vec<Group>,
    pub mistakes: Vec<Mistake>,
}

/// Reads a file of bindings, past its mistakes: of each binding and group the first is told.
pub(super) fn read(source: Source<'_>, templates: &Templates, pairs: &PairNames) -> Read {
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
        match binding_of(source, form, &mut ids, &known, (templates, pairs)) {
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
    (templates, pairs): (&Templates, &PairNames),
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
    reader.binding(Arc::from(id), form.into_inner(), span, known, (templates, pairs))
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

fn strength(text: &str) -> Result<Strength, Refusal> {
    let all = Strength::ALL.map(|(_, name)| name);
    text.parse().map_err(|_| Refusal {
        what: format!("unknown strength {}", quoted(text)),
        why: format!("there are {}", all.join(", ")),
        remedy: match did_you_mean(text, all) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => "choose one of them".into(),
        },
    })
}

fn pair_value(text: &str) -> Result<Box<str>, Refusal> {
    if text.len() <= PAIR_VALUE_BYTES_MAX && !text.contains('\0') {
        return Ok(text.into());
    }
    Err(Refusal {
        what: format!("bad value {}", quoted(text)),
        why: format!("a value has at most {PAIR_VALUE_BYTES_MAX} bytes, and no U+0000"),
        remedy: "correct it: no encryption context could have it".into(),
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
        (templates, pairs): (&Templates, &PairNames),
    ) -> Result<Binding, Mistake> {
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
        let strength = self.optional("strength", &form.strength, strength)?.unwrap_or_default();
        let strength = strength.into_iter().fold(Strength::NONE, Strength::and);
        let context = form.context.map(|pairs_form| self.context(&pairs_form, pairs)).transpose()?.unwrap_or_default();
        let fan_out = form.fan_out.map(|fan_out| self.fan_out(&fan_out)).transpose()?;
        Ok(Binding {
            id,
            roles: roles.into(),
            principals: principals.unwrap_or_default(),
            groups: groups.unwrap_or_default(),
            tenants,
            keys,
            indexes,
            networks,
            from: None,
            expires,
            strength,
            context,
            fan_out,
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

    fn context(
        &self,
        form: &Spanned<BTreeMap<Text, Spanned<Values>>>,
        seen: &PairNames,
    ) -> Result<Box<[Wanted]>, Mistake> {
        if form.get_ref().is_empty() {
            self.refuse(
                form.span(),
                "`context` is empty",
                "an empty table asks for nothing",
                "name a pair and its values, as context = { purpose = [\"billing\"] }, or remove it",
            )?;
        }
        let mut wanted = Vec::with_capacity(form.get_ref().len());
        for (name, values) in form.get_ref() {
            let Some(seen_name) = seen.find(name.get_ref()) else {
                let near = did_you_mean(name.get_ref(), seen.iter().map(|name| &**name));
                let remedy = match near {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "add it to policy.context_pairs, or name one of those".to_owned(),
                };
                return self.refuse(
                    name.span(),
                    &format!("`context` names the pair {}", quoted(name.get_ref())),
                    "policy sees only pairs that the setting policy.context_pairs lists",
                    &remedy,
                );
            };
            let field = format!("context.{seen_name}");
            let values: Vec<Text> =
                values.get_ref().0.iter().map(|value| Spanned::new(values.span(), value.clone())).collect();
            let span = values.first().map_or(name.span(), Spanned::span);
            let values = self.list(&field, &Spanned::new(span, values), LIST_ENTRIES_MAX, pair_value)?;
            wanted.push(Wanted { name: Arc::clone(seen_name), values: values.into() });
        }
        Ok(wanted.into())
    }

    fn fan_out(&self, form: &Spanned<FanOutForm>) -> Result<FanOut, Mistake> {
        const WRITE: &str = "write it as fan_out = { tenants = 100, per = \"1h\" }";
        let FanOutForm { tenants, per } = form.get_ref();
        let count = u32::try_from(*tenants.get_ref()).ok().filter(|count| (1..=FAN_OUT_TENANTS_MAX).contains(count));
        let Some(count) = count else {
            let why = format!("a principal reaches 1 to {FAN_OUT_TENANTS_MAX} tenants");
            return self.refuse(tenants.span(), &format!("`fan_out.tenants` is {}", tenants.get_ref()), &why, WRITE);
        };
        let what = format!("bad `fan_out.per` {}", quoted(per.get_ref()));
        match milliseconds(per.get_ref()) {
            Some(per_ms) if (FAN_OUT_PER_MS_MIN..=FAN_OUT_PER_MS_MAX).contains(&per_ms) => {
                Ok(FanOut { tenants: count, per_ms })
            }
            Some(_) => self.refuse(per.span(), &what, "a window has from 1s to 30d", WRITE),
            None => self.refuse(per.span(), &what, "it is no time with its unit, as 90s, 15m, 1h or 1d", WRITE),
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
