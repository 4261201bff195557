//! What the configuration allows: `allow_addresses`, `allow_hosts`.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;
use url::Host;

use super::AddressClass;

/// One item of `allow_addresses`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum AllowedAddresses {
    /// A word: all addresses of a class.
    Class(AddressClass),
    /// A range; one address is a range too.
    Range(IpNet),
}

impl AllowedAddresses {
    pub(super) fn include(&self, address: IpAddr) -> bool {
        // A mapped address leads where the IPv4 address does.
        let canonical = address.to_canonical();
        let class = AddressClass::of(canonical);
        match self {
            Self::Class(allowed) => *allowed == class,
            Self::Range(range) if class.is_only_named() => *range == IpNet::from(canonical),
            Self::Range(range) => range.contains(&canonical),
        }
    }

    /// Whether it gives up all that the rules are for.
    pub(super) fn is_everything(&self) -> bool {
        matches!(self, Self::Range(range) if range.prefix_len() == 0)
    }
}

impl FromStr for AllowedAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "loopback" => return Ok(Self::Class(AddressClass::Loopback)),
            "private" => return Ok(Self::Class(AddressClass::Private)),
            "link-local" => return Ok(Self::Class(AddressClass::LinkLocal)),
            _ => {}
        }
        let address = text.parse::<IpAddr>().ok().map(IpNet::from);
        let Some(range) = address.or_else(|| text.parse().ok()) else {
            return Err("expected \"loopback\", \"private\", \"link-local\", an address such as \"10.1.2.3\" or a \
                        range such as \"10.1.0.0/16\""
                .into());
        };
        if range.trunc() != range {
            return Err(format!("the range is written \"{}\"", range.trunc()));
        }
        if matches!(range, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some()) {
            return Err("write it as IPv4: that is where it leads".into());
        }
        Ok(Self::Range(range))
    }
}

/// One item of `allow_hosts`, normalised as hosts of URLs are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum AllowedHost {
    /// This one.
    Exactly(Host),
    /// All below this name, at any depth; not the name itself.
    Below(String),
}

impl AllowedHost {
    pub(super) fn includes(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Self::Exactly(allowed), _) => allowed == host,
            (Self::Below(parent), Host::Domain(name)) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (Self::Below(_), _) => false,
        }
    }
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a host such as \"idp.example\", or \"*.corp.example\" for all below it".to_owned();
        if let Ok(IpAddr::V6(address)) = text.parse() {
            return Ok(Self::Exactly(Host::Ipv6(address)));
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        if name.ends_with('.') {
            return Err("a host has no dot at its end".into());
        }
        match (below, Host::parse(name).map_err(|_| expected())?) {
            (_, Host::Domain(name)) if name.contains('*') => Err(expected()),
            (true, Host::Domain(name)) => Ok(Self::Below(name)),
            (true, _) => Err(expected()),
            (false, host) => Ok(Self::Exactly(host)),
        }
    }
}
