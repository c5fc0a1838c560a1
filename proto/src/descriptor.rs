//! The compiled `.proto` files as the tests walk them.
//!
//! Not `prost_types`: its `FieldOptions` know no `debug_redact`.

use std::collections::BTreeMap;

use prost::Message as _;

#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<Message>,
    #[prost(message, repeated, tag = "5")]
    enum_type: Vec<Enum>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub field: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    nested_type: Vec<Message>,
    #[prost(message, optional, tag = "7")]
    options: Option<MessageOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageOptions {
    #[prost(bool, tag = "7")]
    map_entry: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Field {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub number: u32,
    #[prost(enumeration = "prost_types::field_descriptor_proto::Type", tag = "5")]
    pub r#type: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(message, optional, tag = "8")]
    options: Option<FieldOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldOptions {
    #[prost(bool, tag = "16")]
    debug_redact: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Enum {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub value: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EnumValue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Service {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub method: Vec<Method>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Method {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub input_type: String,
}

impl Field {
    /// Whether the `.proto` marks it `debug_redact`.
    pub fn redacts(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.debug_redact)
    }
}

/// Everything that the files hold.
pub struct Api {
    /// By full name, such as `kms.v1.Key`; with imported messages and the entries of maps.
    pub messages: BTreeMap<String, Message>,
    /// Those of `kms.v1`.
    pub enums: Vec<Enum>,
    /// Those of `kms.v1`.
    pub services: Vec<Service>,
}

impl Api {
    /// Reads what the build has written.
    pub fn load() -> Self {
        let files = FileSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap().file;
        let mut api = Self { messages: BTreeMap::new(), enums: Vec::new(), services: Vec::new() };
        for file in files {
            for message in file.message_type {
                api.take(&file.package, message);
            }
            if file.package == PACKAGE {
                api.enums.extend(file.enum_type);
                api.services.extend(file.service);
            }
        }
        api
    }

    fn take(&mut self, scope: &str, message: Message) {
        let full_name = format!("{scope}.{}", message.name);
        for nested in message.nested_type.clone() {
            self.take(&full_name, nested);
        }
        self.messages.insert(full_name, message);
    }

    /// Every message of `kms.v1` but the entries of maps, by full name.
    pub fn own_messages(&self) -> impl Iterator<Item = (&str, &Message)> {
        let is_own = |name: &str| name.strip_prefix(PACKAGE).is_some_and(|rest| rest.starts_with('.'));
        self.messages
            .iter()
            .map(|(name, message)| (name.as_str(), message))
            .filter(move |(name, message)| is_own(name) && !Self::is_map_entry(message))
    }

    /// Finds the message that a descriptor names with a leading dot.
    pub fn message(&self, type_name: &str) -> &Message {
        &self.messages[type_name.strip_prefix('.').unwrap()]
    }

    /// Finds the message that a field holds, if it holds one; for a map, its entry.
    pub fn held_by(&self, field: &Field) -> Option<&Message> {
        (field.r#type() == Type::Message).then(|| self.message(&field.type_name))
    }

    /// Whether a message is the entry of a map: field 1 its name, field 2 its value.
    pub fn is_map_entry(message: &Message) -> bool {
        message.options.as_ref().is_some_and(|options| options.map_entry)
    }
}

pub use prost_types::field_descriptor_proto::Type;

const PACKAGE: &str = "kms.v1";
