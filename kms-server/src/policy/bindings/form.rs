//! The shape of a file of bindings: TOML in, forms out, with the places of all they have. What they say is not asked here.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use crate::mistake::{Mistake, Source, did_you_mean};

pub(super) type Text = Spanned<String>;
pub(super) type List = Spanned<Vec<Text>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileForm {
    #[serde(default)]
    pub(super) binding: Vec<Spanned<BindingForm>>,
    #[serde(default)]
    pub(super) group: Vec<Spanned<GroupForm>>,
    /// Names of groups that cannot be read otherwise: bindings may name them.
    #[serde(skip)]
    pub(super) unreadable_groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingForm {
    pub(super) id: Text,
    pub(super) roles: List,
    pub(super) principals: Option<List>,
    pub(super) groups: Option<List>,
    pub(super) tenants: List,
    pub(super) keys: Option<List>,
    pub(super) indexes: Option<List>,
    pub(super) networks: Option<List>,
    pub(super) expires: Option<Spanned<toml::Value>>,
    pub(super) strength: Option<List>,
    pub(super) context: Option<Spanned<BTreeMap<Text, Spanned<Values>>>>,
    pub(super) fan_out: Option<Spanned<FanOutForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FanOutForm {
    pub(super) tenants: Spanned<i64>,
    pub(super) per: Text,
}

/// One text, or a list of them.
pub(super) struct Values(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }
            fn visit_str<E>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = items.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        from.deserialize_any(OneOrMany)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupForm {
    pub(super) name: Text,
    pub(super) members: List,
}

const FIELDS: [&str; 17] = [
    "binding",
    "group",
    "id",
    "roles",
    "principals",
    "groups",
    "tenants",
    "keys",
    "indexes",
    "networks",
    "expires",
    "strength",
    "context",
    "fan_out",
    "per",
    "name",
    "members",
];

/// Reads what has the right shape, past what has not.
pub(super) fn read(source: Source<'_>, mistakes: &mut Vec<Mistake>) -> FileForm {
    match toml::from_str::<FileForm>(source.text) {
        Ok(form) => form,
        Err(error) => {
            let (form, errors) = legible(source.text);
            mistakes.extend(errors.iter().map(|error| unreadable(source, error)));
            if errors.is_empty() {
                // What is wrong is in no part alone.
                mistakes.push(unreadable(source, &error));
            }
            form
        }
    }
}

/// Returns the parts of a file that can be read by themselves, and why the others cannot.
fn legible(text: &str) -> (FileForm, Vec<toml::de::Error>) {
    let mut form = FileForm { binding: Vec::new(), group: Vec::new(), unreadable_groups: Vec::new() };
    let (root, mut errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // After a slip in the syntax the rest may read as what it is not.
        return (form, errors);
    }
    let span = root.span();
    for (key, value) in root.into_inner() {
        match (&**key.get_ref(), value.get_ref()) {
            ("binding", DeValue::Array(items)) => each(items, &mut form.binding, &mut errors, |_| {}),
            ("group", DeValue::Array(items)) => {
                let unreadable = |item: &DeValue<'_>| {
                    let name =
                        item.as_table().and_then(|table| table.get("name")).and_then(|name| name.get_ref().as_str());
                    form.unreadable_groups.extend(name.map(str::to_owned));
                };
                each(items, &mut form.group, &mut errors, unreadable);
            }
            _ => {
                // Alone in a file it is refused for what is wrong with it.
                let alone = Spanned::new(span.clone(), DeTable::from_iter([(key, value)]));
                errors.extend(FileForm::deserialize(toml::Deserializer::from(alone)).err());
            }
        }
    }
    (form, errors)
}

fn each<'i, T: Deserialize<'i>>(
    items: &DeArray<'i>,
    forms: &mut Vec<Spanned<T>>,
    errors: &mut Vec<toml::de::Error>,
    mut unreadable: impl FnMut(&DeValue<'i>),
) {
    for item in items.iter() {
        match Spanned::<T>::deserialize(ValueDeserializer::from(item.clone())) {
            Ok(form) => forms.push(form),
            Err(error) => {
                errors.push(error);
                unreadable(item.get_ref());
            }
        }
    }
}

// Syntax, wrong types, unknown and missing fields: all that TOML and serde see for us.
fn unreadable(source: Source<'_>, error: &toml::de::Error) -> Mistake {
    // A message may quote a value of the file, whatever its length.
    let why = error.message().lines().collect::<Vec<_>>().join(", ");
    let why: String = why.chars().take(TOML_MESSAGE_CHARS_MAX).collect();
    let unknown = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let remedy = match unknown.and_then(|word| did_you_mean(word, FIELDS)) {
        Some(field) => format!("did you mean \"{field}\"?"),
        None => "a file of bindings has [[binding]] and [[group]] tables, see its reference".into(),
    };
    source.mistake(error.span(), "not a file of bindings", why, remedy)
}

const TOML_MESSAGE_CHARS_MAX: usize = 400;
