//! The shape of the gRPC interface, read from its descriptors: documented, named as buf's linter would have it, and
//! without a way for an administrator's answer to carry a secret.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto, field_descriptor_proto::Type,
};
use tokencache_proto::FILE_DESCRIPTOR_SET;

const PACKAGE: &str = "tokencache.v1";

/// Words that a field which holds a secret would have in its name.
const SECRET_WORDS: [&str; 7] =
    ["access_token", "refresh_token", "secret", "password", "authorization", "cookie", "key"];

/// Numbers of the descriptors' own fields, of which the paths of comments consist (descriptor.proto).
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const MEMBERS: i32 = 2;
const ONEOFS: i32 = 8;

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("valid descriptors");
    let files: Vec<_> = set.file.into_iter().filter(|file| file.package() == PACKAGE).collect();
    assert!(files.len() >= 2, "{} files of the package", files.len());
    files
}

/// What has no comment before it in a file.
fn undocumented(file: &FileDescriptorProto) -> Vec<String> {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let documented: BTreeSet<&[i32]> = locations
        .filter(|location| !location.leading_comments().trim().is_empty())
        .map(|location| location.path.as_slice())
        .collect();
    let missing = |(path, _): &(Vec<i32>, String)| !documented.contains(path.as_slice());
    elements(file).into_iter().filter(missing).map(|(_, name)| name).collect()
}

/// Everything that is to be documented, with its path.
fn elements(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut found = Vec::new();
    for (i, message) in numbered(&file.message_type) {
        add_message(&[MESSAGES, i], message, &mut found);
    }
    for (i, enumeration) in numbered(&file.enum_type) {
        found.push((vec![ENUMS, i], enumeration.name().to_owned()));
        for (j, value) in numbered(&enumeration.value) {
            found.push((vec![ENUMS, i, MEMBERS, j], value.name().to_owned()));
        }
    }
    for (i, service) in numbered(&file.service) {
        found.push((vec![SERVICES, i], service.name().to_owned()));
        for (j, method) in numbered(&service.method) {
            found.push((vec![SERVICES, i, MEMBERS, j], format!("{}.{}", service.name(), method.name())));
        }
    }
    found
}

fn add_message(path: &[i32], message: &DescriptorProto, found: &mut Vec<(Vec<i32>, String)>) {
    found.push((path.to_vec(), message.name().to_owned()));
    for (i, field) in numbered(&message.field) {
        found.push(([path, &[MEMBERS, i]].concat(), format!("{}.{}", message.name(), field.name())));
    }
    // An optional field is a oneof of its own, which nobody has written.
    let written =
        |oneof: &i32| message.field.iter().any(|field| field.oneof_index == Some(*oneof) && !field.proto3_optional());
    for (i, oneof) in numbered(&message.oneof_decl).filter(|(i, _)| written(i)) {
        found.push(([path, &[ONEOFS, i]].concat(), format!("{}.{}", message.name(), oneof.name())));
    }
}

fn numbered<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(items)
}

/// What buf's linter, in its standard category, would say of the names.
fn misnamed(file: &FileDescriptorProto) -> Vec<String> {
    let mut found = Vec::new();
    let path = format!("{}/", PACKAGE.replace('.', "/"));
    found.extend((!file.name().starts_with(&path)).then(|| format!("{} is not in {path}", file.name())));
    file.message_type.iter().for_each(|message| misnamed_in_message(message, &mut found));
    file.enum_type.iter().for_each(|enumeration| misnamed_in_enum(enumeration, &mut found));
    file.service.iter().for_each(|service| misnamed_in_service(service, &mut found));
    found
}

fn misnamed_in_message(message: &DescriptorProto, found: &mut Vec<String>) {
    found.extend((!is_pascal(message.name())).then(|| message.name().to_owned()));
    let names = message.field.iter().map(|field| field.name());
    let names = names.chain(message.oneof_decl.iter().map(|oneof| oneof.name()));
    found.extend(names.filter(|name| !is_snake(name)).map(|name| format!("{}.{name}", message.name())));
}

fn misnamed_in_enum(enumeration: &EnumDescriptorProto, found: &mut Vec<String>) {
    let prefix = format!("{}_", to_upper_snake(enumeration.name()));
    for value in &enumeration.value {
        let zero_is_unspecified = value.number() != 0 || value.name() == format!("{prefix}UNSPECIFIED");
        if !value.name().starts_with(&prefix) || !zero_is_unspecified {
            found.push(value.name().to_owned());
        }
    }
}

fn misnamed_in_service(service: &ServiceDescriptorProto, found: &mut Vec<String>) {
    found.extend(
        (!is_pascal(service.name()) || !service.name().ends_with("Service")).then(|| service.name().to_owned()),
    );
    for method in &service.method {
        let message = |kind: &str| format!(".{PACKAGE}.{}{kind}", method.name());
        let pair = [message("Request"), message("Response")];
        if !is_pascal(method.name()) || [method.input_type(), method.output_type()] != [&pair[0][..], &pair[1][..]] {
            found.push(format!("{}.{}", service.name(), method.name()));
        }
    }
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn to_upper_snake(name: &str) -> String {
    let mut upper = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !upper.is_empty() {
            upper.push('_');
        }
        upper.push(c.to_ascii_uppercase());
    }
    upper
}

/// Every field that an answer of the administrator's service can carry, as `Message.field`, with its descriptor.
fn answers_of_the_admin(files: &[FileDescriptorProto]) -> BTreeMap<String, FieldDescriptorProto> {
    let messages: BTreeMap<String, &DescriptorProto> = files
        .iter()
        .flat_map(|file| &file.message_type)
        .map(|message| (format!(".{PACKAGE}.{}", message.name()), message))
        .collect();
    let services = files.iter().flat_map(|file| &file.service);
    let admin = services.filter(|service| service.name() == "AdminService").flat_map(|service| &service.method);
    let mut open: Vec<String> = admin.map(|method| method.output_type().to_owned()).collect();
    let (mut seen, mut fields) = (BTreeSet::new(), BTreeMap::new());
    while let Some(name) = open.pop() {
        let Some(message) = messages.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
        for field in &message.field {
            open.push(field.type_name().to_owned());
            fields.insert(format!("{}.{}", message.name(), field.name()), field.clone());
        }
    }
    fields
}

/// Whether a field could hand out a secret: by its type, or because it is a text with a telling name.
fn could_tell_a_secret(field: &FieldDescriptorProto) -> bool {
    let is_token = field.type_name() == format!(".{PACKAGE}.Token");
    let is_text = matches!(field.r#type(), Type::String | Type::Bytes);
    let words = |word: &str| format!("_{}_", field.name()).contains(&format!("_{word}_"));
    is_token || (is_text && SECRET_WORDS.iter().any(|word| words(word)))
}

#[test]
fn everything_in_the_interface_is_documented() {
    let missing: Vec<_> = files().iter().flat_map(undocumented).collect();
    assert!(missing.is_empty(), "without a comment: {}", missing.join(", "));
}

#[test]
fn names_are_as_the_linter_wants_them() {
    let bad: Vec<_> = files().iter().flat_map(misnamed).collect();
    assert!(bad.is_empty(), "badly named: {}", bad.join(", "));
}

#[test]
fn no_answer_of_the_admin_service_can_carry_a_secret() {
    let fields = answers_of_the_admin(&files());
    assert!(fields.contains_key("TokenStatus.fingerprint"), "the search goes deep: {:?}", fields.keys());
    let telling: Vec<_> = fields.iter().filter(|(_, field)| could_tell_a_secret(field)).map(|(name, _)| name).collect();
    assert!(telling.is_empty(), "{telling:?}");
}

#[test]
fn what_would_be_wrong_is_found() {
    let mut file = files().into_iter().find(|file| !file.service.is_empty()).expect("a service");
    file.source_code_info = None;
    assert_eq!(undocumented(&file).len(), elements(&file).len());

    let count = |change: fn(&mut FileDescriptorProto)| {
        let mut file = file.clone();
        change(&mut file);
        misnamed(&file).len()
    };
    assert_eq!(count(|_| {}), 0);
    assert_eq!(count(|file| file.service[0].name = Some("Tokens".into())), 1);
    assert_eq!(count(|file| file.service[0].method[0].output_type = Some(".tokencache.v1.Token".into())), 1);
    assert_eq!(count(|file| file.enum_type[0].value[1].name = Some("VALID".into())), 1);
    assert_eq!(count(|file| file.enum_type[0].value[0].name = Some("OTHER".into())), 1);
    assert_eq!(count(|file| file.message_type[0].field[0].name = Some("camelCase".into())), 1);
    assert_eq!(count(|file| file.name = Some("elsewhere.proto".into())), 1);
}

#[test]
fn a_field_with_a_secret_would_be_found() {
    let field = |kind: Type, name: &str, of: &str| FieldDescriptorProto {
        name: Some(name.into()),
        r#type: Some(kind.into()),
        type_name: Some(of.into()),
        ..FieldDescriptorProto::default()
    };
    assert!(could_tell_a_secret(&field(Type::Message, "current", ".tokencache.v1.Token")));
    assert!(could_tell_a_secret(&field(Type::String, "client_secret", "")));
    assert!(could_tell_a_secret(&field(Type::Bytes, "refresh_token", "")));
    assert!(!could_tell_a_secret(&field(Type::String, "next_page_token", "")));
    assert!(!could_tell_a_secret(&field(Type::Uint32, "token_count", "")));
}
