//! Tests of the classes and the rules; [`tricks`] has what attackers write and answer.

mod traps;
mod tricks;

use std::net::Ipv6Addr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

pub(crate) use traps::{FakeDns, Traps};

/// IANA's registries as ranges, apart from the code that is tested. The longest range that has an address counts.
const TABLE: &[(&str, AddressClass)] = &[
    ("0.0.0.0/0", AddressClass::Public),
    ("0.0.0.0/8", AddressClass::Unspecified),
    ("10.0.0.0/8", AddressClass::Private),
    ("100.64.0.0/10", AddressClass::Private),
    ("100.100.100.200/32", AddressClass::Metadata),
    ("127.0.0.0/8", AddressClass::Loopback),
    ("168.63.129.16/32", AddressClass::Metadata),
    ("169.254.0.0/16", AddressClass::LinkLocal),
    ("169.254.169.254/32", AddressClass::Metadata),
    ("169.254.170.2/32", AddressClass::Metadata),
    ("169.254.170.23/32", AddressClass::Metadata),
    ("172.16.0.0/12", AddressClass::Private),
    ("192.0.0.0/24", AddressClass::Reserved),
    ("192.0.0.192/32", AddressClass::Metadata),
    ("192.0.2.0/24", AddressClass::Reserved),
    ("192.88.99.0/24", AddressClass::Reserved),
    ("192.168.0.0/16", AddressClass::Private),
    ("198.18.0.0/15", AddressClass::Reserved),
    ("198.51.100.0/24", AddressClass::Reserved),
    ("203.0.113.0/24", AddressClass::Reserved),
    ("224.0.0.0/4", AddressClass::Multicast),
    ("240.0.0.0/4", AddressClass::Reserved),
    ("::/0", AddressClass::Reserved),
    ("::/128", AddressClass::Unspecified),
    ("::1/128", AddressClass::Loopback),
    ("2000::/3", AddressClass::Public),
    ("2001::/23", AddressClass::Reserved),
    ("2001:db8::/32", AddressClass::Reserved),
    ("2002::/16", AddressClass::Reserved),
    ("3fff::/20", AddressClass::Reserved),
    ("fc00::/7", AddressClass::Private),
    ("fd00:ec2::23/128", AddressClass::Metadata),
    ("fd00:ec2::254/128", AddressClass::Metadata),
    ("fd20:ce::254/128", AddressClass::Metadata),
    ("fe80::/10", AddressClass::LinkLocal),
    ("fec0::/10", AddressClass::Private),
    ("ff00::/8", AddressClass::Multicast),
];

fn range(text: &str) -> IpNet {
    text.parse().expect("a range")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn looked_up(address: IpAddr) -> AddressClass {
    let ranges = TABLE.iter().map(|(text, class)| (range(text), *class));
    let longest = ranges.filter(|(range, _)| range.contains(&address)).max_by_key(|(range, _)| range.prefix_len());
    longest.expect("every address is in a range of length 0").1
}

/// Rules by their texts in the configuration.
pub(crate) fn rules(addresses: &[&str], hosts: Option<&[&str]>) -> Egress {
    Egress {
        addresses: addresses.iter().map(|text| text.parse().expect(text)).collect(),
        hosts: hosts.map(|hosts| hosts.iter().map(|text| text.parse().expect(text)).collect()),
        named: BTreeSet::new(),
    }
}

/// Addresses that are spread evenly over the ranges of the table, so that small ones are met as often as large ones.
fn in_some_range() -> impl Strategy<Value = IpAddr> {
    (0..TABLE.len(), any::<u128>()).prop_map(|(row, bits)| match range(TABLE[row].0) {
        IpNet::V4(range) => {
            let host = u32::try_from(bits & u128::from(u32::from(range.hostmask()))).expect("no more than the mask");
            Ipv4Addr::from(u32::from(range.network()) | host).into()
        }
        IpNet::V6(range) => Ipv6Addr::from(u128::from(range.network()) | (bits & u128::from(range.hostmask()))).into(),
    })
}

fn ipv4() -> impl Strategy<Value = Ipv4Addr> {
    in_some_range().prop_filter_map("of IPv4", |address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

/// `prefix` and then the address: how tunnels and translators carry IPv4.
fn carried(prefix: &str, address: Ipv4Addr) -> Ipv6Addr {
    let prefix: Ipv6Addr = prefix.parse().expect("a prefix");
    Ipv6Addr::from(u128::from(prefix) | u128::from(u32::from(address)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_class_is_that_of_the_table(address in in_some_range()) {
        // Where an address leads to IPv4 it is judged by that, which the next test is about.
        let leads_elsewhere =
            range("::ffff:0:0/96").contains(&address) || range("64:ff9b::/96").contains(&address);
        prop_assume!(!leads_elsewhere);
        prop_assert_eq!(AddressClass::of(address), looked_up(address));
    }

    #[test]
    fn an_ipv4_address_is_not_better_for_being_carried_in_ipv6(v4 in ipv4()) {
        let class = looked_up(v4.into());
        let of = |prefix| AddressClass::of(carried(prefix, v4).into());
        prop_assert_eq!(of("::ffff:0:0"), class);
        prop_assert_eq!(of("64:ff9b::") == AddressClass::Public, class == AddressClass::Public);
        for never_public in ["::", "64:ff9b:1::", "2002::", "2001::", "::ffff:0:0:0"] {
            prop_assert_ne!(of(never_public), AddressClass::Public);
        }
    }

    #[test]
    fn without_permission_public_addresses_alone_are_left_of_an_answer(found in prop::collection::vec(in_some_range(), 1..9)) {
        let answer: Vec<_> = found.iter().map(|address| SocketAddr::new(*address, 0)).collect();
        let public: Vec<_> = answer.iter().copied().filter(|a| AddressClass::of(a.ip()) == AddressClass::Public).collect();
        match Egress::default().filter("a.example", answer) {
            Ok(left) => prop_assert_eq!(left, public),
            Err(_) => prop_assert!(public.is_empty()),
        }
    }
}

#[test]
fn the_ends_of_every_range_belong_to_it() {
    for (text, _) in TABLE {
        let range = range(text);
        for end in [range.network(), range.broadcast()] {
            assert_eq!(AddressClass::of(end), looked_up(end), "{end} of {text}");
        }
    }
}

#[test]
fn a_word_allows_its_class_and_a_range_what_is_in_it() {
    for (allowed, good, bad) in [
        ("loopback", &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"][..], &["10.0.0.1", "0.0.0.0", "::"][..]),
        ("private", &["10.0.0.1", "100.64.0.1", "fd00::1"], &["127.0.0.1", "169.254.0.1", "fd00:ec2::254"]),
        ("link-local", &["169.254.0.1", "fe80::1"], &["169.254.169.254", "169.254.170.2", "10.0.0.1"]),
        ("10.1.0.0/16", &["10.1.2.3", "::ffff:10.1.2.3"], &["10.2.0.1", "::10.1.2.3", "2002:a01:203::"]),
        ("fd00::/8", &["fd12::1"], &["fc00::1", "fd00:ec2::254", "fd20:ce::254"]),
        ("0.0.0.0/0", &["10.0.0.1", "127.0.0.1"], &["169.254.169.254", "0.0.0.0", "224.0.0.1", "::1"]),
        ("169.254.169.254", &["169.254.169.254", "::ffff:a9fe:a9fe"], &["169.254.169.253", "64:ff9b::a9fe:a9fe"]),
        ("127.0.0.2/32", &["127.0.0.2"], &["127.0.0.1"]),
    ] {
        let rules = rules(&[allowed], None);
        for text in good {
            assert!(rules.allows(address(text)), "{allowed}: {text}");
        }
        for text in bad {
            assert!(!rules.allows(address(text)), "{allowed}: {text}");
        }
    }
}

#[test]
fn each_mistake_in_allow_addresses_has_its_own_message() {
    for (text, expected) in [
        ("localhost", "expected \"loopback\", \"private\", \"link-local\""),
        ("10.1.0.0/33", "expected \"loopback\""),
        ("10.1", "expected \"loopback\""),
        ("10.1.2.3/16", "the range is written \"10.1.0.0/16\""),
        ("fd00::1/8", "the range is written \"fd00::/8\""),
        ("::ffff:10.0.0.1", "write it as IPv4"),
        ("::ffff:0:0/96", "write it as IPv4"),
    ] {
        let problem = text.parse::<AllowedAddresses>().expect_err(text);
        assert!(problem.contains(expected), "{text}: {problem}");
    }
}

#[test]
fn allow_hosts_is_exact_and_a_star_stands_for_what_is_below() {
    let rules = rules(&[], Some(&["IDP.example", "*.corp.example", "bücher.example", "192.0.2.1", "2001:db8::1"]));
    let has = |text: &str| {
        let host: Host = Host::parse(text).expect(text);
        rules.has_host(&match &host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        })
    };
    for good in [
        "idp.example",
        "Idp.Example",
        "a.corp.example",
        "b.a.corp.example",
        "xn--bcher-kva.example",
        "BÜCHER.example",
        "192.0.2.1",
        "0xc0000201",
        "[2001:db8::1]",
    ] {
        assert!(has(good), "{good}");
    }
    for bad in [
        "corp.example",
        ".corp.example",
        "xcorp.example",
        "idp.example.evil.example",
        "a.idp.example",
        "evil-idp.example",
        "corp.example.evil.example",
        "idp.example.",
        "a.corp.example.",
        "іdp.example", // a Cyrillic letter
        "192.0.2.10",
    ] {
        assert!(!has(bad), "{bad}");
    }
    for bad in
        ["", "*", "*.", "*.*.example", "a.*.example", "idp.example.", "idp.example:443", "https://a", "*.10.0.0.1"]
    {
        assert!(bad.parse::<AllowedHost>().is_err(), "{bad}");
    }
}

#[test]
fn a_range_of_everything_is_warned_of() {
    assert!(rules(&["0.0.0.0/0"], None).warnings().is_some() && rules(&["::/0"], None).warnings().is_some());
    assert!(rules(&["10.0.0.0/8", "loopback"], None).warnings().is_none());
}
