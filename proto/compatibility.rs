//! Whether programs that were built with an older interface get on with this one, on the wire and as JSON.
//!
//! `baseline.binpb` is the interface that was released last, a `FileDescriptorSet` without comments. More may be added to
//! it; what is in it stays as it is. `cargo xtask proto --bless` writes it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto, field_descriptor_proto::Label,
};

mod tests;

/// A range of reserved numbers is looked at no further than this: `to max` would be two thousand million of them.
const LONGEST_RANGE: i32 = 10_000;

/// What a program that knows `old` would miss or misread in `new`.
fn breaks(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let (old, new) = (Index::new(old), Index::new(new));
    let mut found = compare("message", &old.messages, &new.messages, of_message);
    found.extend(compare("enum", &old.enums, &new.enums, of_enum));
    found.extend(compare("service", &old.services, &new.services, of_service));
    found
}

/// Everything that has a full name, by that name.
#[derive(Default)]
struct Index<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
    services: BTreeMap<String, &'a ServiceDescriptorProto>,
}

impl<'a> Index<'a> {
    fn new(set: &'a FileDescriptorSet) -> Self {
        let mut index = Self::default();
        for file in &set.file {
            let scope = file.package();
            index.add(scope, &file.message_type, &file.enum_type);
            index.services.extend(file.service.iter().map(|service| (join(scope, service.name()), service)));
        }
        index
    }

    fn add(&mut self, scope: &str, messages: &'a [DescriptorProto], enums: &'a [EnumDescriptorProto]) {
        self.enums.extend(enums.iter().map(|it| (join(scope, it.name()), it)));
        for message in messages {
            let name = join(scope, message.name());
            self.add(&name, &message.nested_type, &message.enum_type);
            self.messages.insert(name, message);
        }
    }
}

fn join(scope: &str, name: &str) -> String {
    format!("{scope}.{name}")
}

/// Compares each of the old ones with its new form; that there is none is a break as well.
fn compare<K: Ord + Display, T>(
    what: &str,
    old: &BTreeMap<K, T>,
    new: &BTreeMap<K, T>,
    breaks_between: impl Fn(&T, &T) -> Vec<String>,
) -> Vec<String> {
    let of_one = |(key, before): (&K, &T)| match new.get(key) {
        None => vec![format!("{what} {key} is gone")],
        Some(after) => breaks_between(before, after).iter().map(|why| format!("{what} {key}: {why}")).collect(),
    };
    old.iter().flat_map(of_one).collect()
}

fn of_message(old: &&DescriptorProto, new: &&DescriptorProto) -> Vec<String> {
    let (before, after) = (fields(old), fields(new));
    let mut found = compare("field", &before, &after, |before, after| {
        if before == after { vec![] } else { vec![format!("`{before}` became `{after}`")] }
    });
    let used = after.iter().map(|(number, field)| (*number, field.name)).collect();
    found.extend(of_reserved(&Reserved::of_message(old), &Reserved::of_message(new), &used));
    found
}

fn fields(message: &DescriptorProto) -> BTreeMap<i32, Field<'_>> {
    message.field.iter().map(|field| (field.number(), Field::new(field, message))).collect()
}

/// What a field is to whoever writes or reads it.
#[derive(PartialEq)]
struct Field<'a> {
    name: &'a str,
    json_name: &'a str,
    kind: String,
    repeated: bool,
    /// Whether it can be told that it is not there.
    optional: bool,
    oneof: Option<&'a str>,
}

impl<'a> Field<'a> {
    fn new(field: &'a FieldDescriptorProto, message: &'a DescriptorProto) -> Self {
        let kind = match field.type_name() {
            "" => field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase(),
            named => named.to_owned(),
        };
        let oneof = field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
        Self {
            name: field.name(),
            json_name: field.json_name(),
            kind,
            repeated: field.label() == Label::Repeated,
            optional: field.proto3_optional(),
            // That of a single optional field is only how the compiler writes it down.
            oneof: oneof.filter(|_| !field.proto3_optional()).map(|oneof| oneof.name()),
        }
    }
}

impl Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.repeated { "repeated " } else { "" };
        let optional = if self.optional { "optional " } else { "" };
        write!(f, "{label}{optional}{} {} (JSON {})", self.kind, self.name, self.json_name)?;
        self.oneof.map_or(Ok(()), |oneof| write!(f, " of the oneof {oneof}"))
    }
}

fn of_enum(old: &&EnumDescriptorProto, new: &&EnumDescriptorProto) -> Vec<String> {
    let (before, after) = (values(old), values(new));
    let gone = before.difference(&after).map(|(number, name)| format!("value {number}, {name}, is gone or renamed"));
    let reserved = of_reserved(&Reserved::of_enum(old), &Reserved::of_enum(new), &after);
    gone.chain(reserved).collect()
}

/// Several names may stand for one number.
fn values(it: &EnumDescriptorProto) -> BTreeSet<(i32, &str)> {
    it.value.iter().map(|value| (value.number(), value.name())).collect()
}

/// Numbers and names that are never used again.
struct Reserved<'a> {
    numbers: BTreeSet<i32>,
    names: BTreeSet<&'a str>,
}

impl<'a> Reserved<'a> {
    fn of_message(message: &'a DescriptorProto) -> Self {
        // The end of such a range is the first number outside.
        let ranges = message.reserved_range.iter().map(|range| (range.start(), range.end().saturating_sub(1)));
        Self::new(ranges, &message.reserved_name)
    }

    fn of_enum(it: &'a EnumDescriptorProto) -> Self {
        Self::new(it.reserved_range.iter().map(|range| (range.start(), range.end())), &it.reserved_name)
    }

    fn new(ranges: impl Iterator<Item = (i32, i32)>, names: &'a [String]) -> Self {
        let numbers = ranges.flat_map(|(first, last)| first..=last.min(first.saturating_add(LONGEST_RANGE)));
        Self { numbers: numbers.collect(), names: names.iter().map(String::as_str).collect() }
    }
}

fn of_reserved(old: &Reserved<'_>, new: &Reserved<'_>, used: &BTreeSet<(i32, &str)>) -> Vec<String> {
    let (numbers, names): (BTreeSet<i32>, BTreeSet<&str>) = used.iter().copied().unzip();
    let again = |what: &dyn Display| format!("the reserved {what} is used again");
    let free = |what: &dyn Display| format!("{what} is no longer reserved");
    let mut found: Vec<_> = old.numbers.intersection(&numbers).map(|number| again(number)).collect();
    found.extend(old.names.intersection(&names).map(|name| again(name)));
    found.extend(old.numbers.difference(&new.numbers).map(|number| free(number)));
    found.extend(old.names.difference(&new.names).map(|name| free(name)));
    found
}

fn of_service(old: &&ServiceDescriptorProto, new: &&ServiceDescriptorProto) -> Vec<String> {
    compare("rpc", &methods(old), &methods(new), |before, after| {
        let pairs = signature(before).into_iter().zip(signature(after)).filter(|(before, after)| before != after);
        pairs.map(|(before, after)| format!("it {before}, and now it {after}")).collect()
    })
}

fn methods(service: &ServiceDescriptorProto) -> BTreeMap<&str, &MethodDescriptorProto> {
    service.method.iter().map(|method| (method.name(), method)).collect()
}

/// What goes in and what comes out.
fn signature(method: &MethodDescriptorProto) -> [String; 2] {
    let several = |stream| if stream { "a stream of " } else { "" };
    [
        format!("takes {}{}", several(method.client_streaming()), method.input_type()),
        format!("gives {}{}", several(method.server_streaming()), method.output_type()),
    ]
}
