//! The interface against the one that was released last, and each rule against an interface that breaks it.

use std::{env, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
    descriptor_proto::ReservedRange,
    enum_descriptor_proto::EnumReservedRange,
    field_descriptor_proto::{Label, Type},
};

use super::breaks;
use crate::FILE_DESCRIPTOR_SET;

/// Set by `cargo xtask proto`: `bless` writes the baseline, `exact` wants it to have all that the interface has.
const VARIABLE: &str = "TOKENCACHE_PROTO_BASELINE";

fn baseline_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto/baseline.binpb")
}

fn decoded(bytes: &[u8]) -> FileDescriptorSet {
    FileDescriptorSet::decode(bytes).expect("descriptors")
}

/// The interface as it is, without comments and places.
fn current() -> FileDescriptorSet {
    let mut set = decoded(FILE_DESCRIPTOR_SET);
    set.file.iter_mut().for_each(|file| file.source_code_info = None);
    set
}

#[test]
fn programs_that_know_the_last_release_get_on_with_this_interface() {
    let wish = env::var(VARIABLE).unwrap_or_default();
    if wish == "bless" {
        fs::write(baseline_file(), current().encode_to_vec()).expect("the baseline");
    }
    let baseline = decoded(&fs::read(baseline_file()).expect("the baseline"));
    let found = breaks(&baseline, &current());
    assert!(found.is_empty(), "{}\n\nif this is wanted: cargo xtask proto --bless", found.join("\n"));
    // Otherwise the test would hold for an empty one.
    assert!(baseline.file.iter().map(|file| file.service.len()).sum::<usize>() >= 2);
    let exact = wish != "exact" || baseline == current();
    assert!(exact, "the baseline lacks what a release is about to add: cargo xtask proto --bless");
}

#[test]
fn the_whole_interface_is_compared() {
    let mut gone = current();
    gone.file.iter_mut().for_each(|file| {
        file.service.clear();
        file.message_type.clear();
        file.enum_type.clear();
    });
    let found = breaks(&current(), &gone);
    for name in
        ["tokencache.v1.TokenService", "tokencache.v1.AdminService", "tokencache.v1.Token", "tokencache.v1.Freshness"]
    {
        assert!(found.iter().any(|line| line.ends_with(&format!(" {name} is gone"))), "{name}: {found:?}");
    }
}

/// A small interface: a message with fields, a nested one, an enum, a service.
fn sample() -> FileDescriptorSet {
    let field = |number: i32, name: &str, kind: Type| FieldDescriptorProto {
        name: Some(name.into()),
        json_name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..Default::default()
    };
    let chosen = FieldDescriptorProto { oneof_index: Some(0), ..field(4, "chosen", Type::Bool) };
    let inner = FieldDescriptorProto { type_name: Some(".x.Outer.Inner".into()), ..field(3, "inner", Type::Message) };
    let outer = DescriptorProto {
        name: Some("Outer".into()),
        field: vec![field(1, "name", Type::String), field(2, "count", Type::Int32), inner, chosen],
        nested_type: vec![DescriptorProto {
            name: Some("Inner".into()),
            field: vec![field(1, "deep", Type::Bytes)],
            ..Default::default()
        }],
        oneof_decl: vec![OneofDescriptorProto { name: Some("choice".into()), ..Default::default() }],
        reserved_range: vec![ReservedRange { start: Some(10), end: Some(12) }],
        reserved_name: vec!["old".into()],
        ..Default::default()
    };
    let value = |number: i32, name: &str| EnumValueDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        ..Default::default()
    };
    let state = EnumDescriptorProto {
        name: Some("State".into()),
        value: vec![value(0, "STATE_UNSPECIFIED"), value(1, "STATE_GOOD")],
        reserved_range: vec![EnumReservedRange { start: Some(5), end: Some(5) }],
        ..Default::default()
    };
    let get = MethodDescriptorProto {
        name: Some("Get".into()),
        input_type: Some(".x.Outer".into()),
        output_type: Some(".x.Outer.Inner".into()),
        ..Default::default()
    };
    let service = ServiceDescriptorProto { name: Some("Things".into()), method: vec![get], ..Default::default() };
    let file = FileDescriptorProto {
        package: Some("x".into()),
        message_type: vec![outer],
        enum_type: vec![state],
        service: vec![service],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }
}

/// What is found after a change of the sample.
fn after(change: impl Fn(&mut FileDescriptorProto)) -> Vec<String> {
    let mut new = sample();
    change(&mut new.file[0]);
    breaks(&sample(), &new)
}

#[test]
fn what_is_added_breaks_nothing() {
    let found = after(|file| {
        let outer = &mut file.message_type[0];
        let (mut field, mut nested) = (outer.field[0].clone(), outer.nested_type[0].clone());
        (field.number, field.name, field.json_name) = (Some(9), Some("new".into()), Some("new".into()));
        nested.name = Some("Newer".into());
        outer.field.push(field);
        outer.nested_type.push(nested);
        outer.reserved_name.push("never".into());
        outer.reserved_range.push(ReservedRange { start: Some(20), end: Some(i32::MAX) });
        let mut value = file.enum_type[0].value[0].clone();
        (value.number, value.name) = (Some(2), Some("STATE_NEW".into()));
        file.enum_type[0].value.push(value);
        let mut method = file.service[0].method[0].clone();
        method.name = Some("List".into());
        file.service[0].method.push(method);
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_order_of_things_means_nothing() {
    let found = after(|file| {
        file.message_type[0].field.reverse();
        file.enum_type[0].value.reverse();
    });
    assert_eq!(found, Vec::<String>::new());
}

type Change = fn(&mut FileDescriptorProto);

#[test]
fn a_field_that_changes_is_a_break() {
    let cases: [(Change, &str); 12] = [
        (|file| drop(file.message_type[0].field.remove(0)), "message x.Outer: field 1 is gone"),
        (|file| file.message_type[0].field[0].number = Some(7), "message x.Outer: field 1 is gone"),
        (|file| file.message_type[0].nested_type[0].field.clear(), "message x.Outer.Inner: field 1 is gone"),
        (
            |file| file.message_type[0].field[0].name = Some("title".into()),
            "field 1: `string name (JSON name)` became `string title (JSON name)`",
        ),
        (|file| file.message_type[0].field[0].json_name = Some("Name".into()), "became `string name (JSON Name)`"),
        (|file| file.message_type[0].field[1].r#type = Some(Type::Sint32.into()), "became `sint32 count (JSON count)`"),
        (
            |file| file.message_type[0].field[2].type_name = Some(".x.Outer".into()),
            "became `.x.Outer inner (JSON inner)`",
        ),
        (|file| file.message_type[0].field[0].label = Some(Label::Repeated.into()), "became `repeated string name"),
        (|file| file.message_type[0].field[0].proto3_optional = Some(true), "became `optional string name"),
        (
            |file| file.message_type[0].field[3].oneof_index = None,
            "of the oneof choice` became `bool chosen (JSON chosen)`",
        ),
        (
            |file| file.message_type[0].field[0].oneof_index = Some(0),
            "became `string name (JSON name) of the oneof choice`",
        ),
        (|file| file.message_type[0].oneof_decl[0].name = Some("other".into()), "of the oneof other`"),
    ];
    for (change, expected) in cases {
        let found = after(change);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}

#[test]
fn what_is_gone_or_speaks_otherwise_is_a_break() {
    let cases: [(Change, &str); 11] = [
        (|file| file.message_type[0].nested_type.clear(), "message x.Outer.Inner is gone"),
        (|file| file.enum_type.clear(), "enum x.State is gone"),
        (|file| file.service.clear(), "service x.Things is gone"),
        (|file| file.service[0].method.clear(), "service x.Things: rpc Get is gone"),
        (|file| file.service[0].method[0].name = Some("Fetch".into()), "service x.Things: rpc Get is gone"),
        (
            |file| file.service[0].method[0].input_type = Some(".x.In".into()),
            "it takes .x.Outer, and now it takes .x.In",
        ),
        (|file| file.service[0].method[0].output_type = Some(".x.Out".into()), "and now it gives .x.Out"),
        (|file| file.service[0].method[0].client_streaming = Some(true), "and now it takes a stream of .x.Outer"),
        (|file| file.service[0].method[0].server_streaming = Some(true), "and now it gives a stream of .x.Outer.Inner"),
        (|file| drop(file.enum_type[0].value.remove(1)), "enum x.State: value 1, STATE_GOOD, is gone or renamed"),
        (|file| file.enum_type[0].value[1].name = Some("STATE_FINE".into()), "value 1, STATE_GOOD, is gone or renamed"),
    ];
    for (change, expected) in cases {
        let found = after(change);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
    let package = after(|file| file.package = Some("y".into()));
    assert_eq!(package.len(), 4, "{package:?}");
}

#[test]
fn what_is_reserved_stays_so() {
    let cases: [(Change, &str); 5] = [
        (|file| file.message_type[0].reserved_range.clear(), "message x.Outer: 10 is no longer reserved"),
        (|file| file.message_type[0].reserved_name.clear(), "message x.Outer: old is no longer reserved"),
        (|file| file.enum_type[0].reserved_range.clear(), "enum x.State: 5 is no longer reserved"),
        (
            |file| {
                let mut field = file.message_type[0].field[0].clone();
                (field.number, field.name) = (Some(11), Some("old".into()));
                file.message_type[0].field.push(field);
            },
            "message x.Outer: the reserved old is used again",
        ),
        (
            |file| {
                let mut value = file.enum_type[0].value[0].clone();
                (value.number, value.name) = (Some(5), Some("STATE_FIVE".into()));
                file.enum_type[0].value.push(value);
            },
            "enum x.State: the reserved 5 is used again",
        ),
    ];
    for (change, expected) in cases {
        let found = after(change);
        assert!(found.iter().any(|line| line == expected), "{expected}: {found:?}");
    }
    // The end of a message's range is not in it.
    let found = after(|file| file.message_type[0].reserved_range[0].end = Some(11));
    assert_eq!(found, ["message x.Outer: 11 is no longer reserved"]);
}
