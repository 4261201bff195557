//! Where a credential's requests may go.
//!
//! Three kinds of host are judged in three places. What the operator wrote into a URL is the operator's word. What stands
//! in a URL that came from elsewhere, such as an issuer's metadata, is judged before a request is made. What a name
//! resolves to is judged by the resolver of the very connection ([`resolver`]).

mod address;
mod resolver;
mod rules;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use thiserror::Error;
use url::{Host, Url};

use self::rules::{AllowedAddresses, AllowedHost};
use crate::config::reader::Section;

pub use address::AddressClass;
pub(crate) use resolver::{GuardedResolver, Lookup, SystemLookup};

/// Names under which clouds tell a machine its secrets. A resolver of ours would find out; a proxy's would not.
const METADATA_NAMES: [&str; 7] = [
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.tencentyun.com",
];

/// The rules of one credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Egress {
    addresses: Vec<AllowedAddresses>,
    /// `None`: any host.
    hosts: Option<Vec<AllowedHost>>,
    /// The hosts that need a permission and have it, because the operator wrote them into a URL.
    named: BTreeSet<Host>,
}

/// All that a name resolves to is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the host resolves to a {0} address, which only `http = {{ allow_addresses = [...] }}` of the credential can allow"
)]
pub struct ForbiddenAnswer(pub AddressClass);

impl Egress {
    /// Reads `allow_addresses` and `allow_hosts` of the table `http`.
    pub(super) fn read(http: &Section<'_>) -> Self {
        let hosts = http.has("allow_hosts").then(|| items(http, "allow_hosts"));
        if http.value("allow_hosts").is_some_and(|value| value.get().as_array().is_some_and(|items| items.is_empty())) {
            http.problem_at("allow_hosts", "without a host none could be reached; leave it out to allow any");
        }
        Self { addresses: items(http, "allow_addresses"), hosts, named: BTreeSet::new() }
    }

    /// Takes the hosts of configured URLs for allowed, each exactly as it is written there. It is the name `localhost` or
    /// the literal address that is allowed, not whatever else leads to the same place.
    pub(super) fn name<'a>(&mut self, urls: impl IntoIterator<Item = &'a Url>) {
        let hosts = urls.into_iter().filter_map(Url::host).filter(|host| class_of_host(host) != AddressClass::Public);
        self.named.extend(hosts.map(|host| host.to_owned()));
    }

    /// The rules of the connections to a proxy, which are all that its client makes.
    pub(super) fn towards(&self, proxy: &Url) -> Self {
        let mut rules = Self { named: BTreeSet::new(), ..self.clone() };
        rules.name([proxy]);
        rules
    }

    /// Whether `allow_hosts` has this host, or is not set.
    pub(super) fn has_host(&self, host: &Host<&str>) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|allowed| allowed.includes(host)))
    }

    /// Judges a host by what is written. `Err`: the class of the address that it is, or that its name stands for.
    pub(super) fn check_host(&self, host: &Host<&str>) -> Result<(), AddressClass> {
        let class = class_of_host(host);
        let is_allowed = match (host, class) {
            (_, AddressClass::Public) => true,
            _ if self.named.contains(&host.to_owned()) => true,
            (Host::Ipv4(address), _) => self.allows((*address).into()),
            (Host::Ipv6(address), _) => self.allows((*address).into()),
            (Host::Domain(_), AddressClass::Loopback) => self.allows(Ipv4Addr::LOCALHOST.into()),
            (Host::Domain(_), _) => self.allows(Ipv4Addr::new(169, 254, 169, 254).into()),
        };
        if is_allowed { Ok(()) } else { Err(class) }
    }

    /// Of what a name resolves to, what may be connected to.
    fn filter(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ForbiddenAnswer> {
        // `localhost` in a configured URL means this machine, and nothing else that its name might be made to lead to.
        let is_local = is_local_name(name) && self.named.contains(&Host::Domain(name.to_owned()));
        let allowed =
            |address: IpAddr| self.allows(address) || (is_local && AddressClass::of(address) == AddressClass::Loopback);
        let forbidden = found.iter().map(SocketAddr::ip).find(|address| !allowed(*address));
        let left: Vec<_> = found.into_iter().filter(|address| allowed(address.ip())).collect();
        match forbidden {
            Some(forbidden) if left.is_empty() => Err(ForbiddenAnswer(AddressClass::of(forbidden))),
            _ => Ok(left),
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        AddressClass::of(address) == AddressClass::Public
            || self.addresses.iter().any(|allowed| allowed.include(address))
    }

    /// What a person should hear about these rules, though they are followed.
    pub(super) fn warnings(&self) -> Option<String> {
        let everything = "http.allow_addresses has a range of all addresses: a name that an attacker can change, or an \
                          issuer's metadata, leads the broker to internal services";
        self.addresses.iter().any(AllowedAddresses::is_everything).then(|| everything.into())
    }
}

/// The items of a list, as far as they can be read; the others are problems.
fn items<T: std::str::FromStr<Err = String>>(section: &Section<'_>, key: &'static str) -> Vec<T> {
    let items = section.value(key).and_then(|value| value.items()).unwrap_or_default();
    let read = items.iter().filter_map(|item| {
        let text = item.string()?;
        text.parse().map_err(|problem: String| item.problem(problem)).ok()
    });
    read.collect()
}

/// What a host is by its text alone. A name that tells nothing counts as public: its addresses are judged once known.
fn class_of_host(host: &Host<&str>) -> AddressClass {
    match host {
        Host::Ipv4(address) => AddressClass::of((*address).into()),
        Host::Ipv6(address) => AddressClass::of((*address).into()),
        Host::Domain(name) if is_local_name(name) => AddressClass::Loopback,
        Host::Domain(name) if METADATA_NAMES.contains(name) => AddressClass::Metadata,
        Host::Domain(_) => AddressClass::Public,
    }
}

/// RFC 6761 section 6.3, and what hosts files commonly have.
fn is_local_name(name: &str) -> bool {
    let others = ["localhost.localdomain", "ip6-localhost", "ip6-loopback"];
    name == "localhost" || name.ends_with(".localhost") || others.contains(&name)
}

#[cfg(test)]
pub(super) mod tests;
