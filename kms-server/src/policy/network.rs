//! A network: an address with a prefix length, `10.0.0.0/8` or `2001:db8::/32`.

use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses. The bits behind the prefix are zero, so that there is one spelling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// A text that is not a network, with the rule it broke.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidNetwork {
    /// It has not the form of a network.
    #[error("a network is an address and a prefix length, as 10.0.0.0/8 or 2001:db8::/32")]
    Form,
    /// Its prefix is longer than its address.
    #[error("the prefix length of this address is at most {max}")]
    Prefix {
        /// The bits of the address: 32 or 128.
        max: u8,
    },
    /// Bits behind the prefix are set: either the address or the length is not what was meant.
    #[error("bits of the address are set behind its prefix; the network of that length is {meant}")]
    HostBits {
        /// The same with those bits cleared.
        meant: String,
    },
    /// An IPv4 address in the disguise of an IPv6 one.
    #[error("an IPv4 network is written as such, not inside ::ffff:0:0/96")]
    Mapped,
}

impl Network {
    /// Tells whether the address lies in the network. An IPv4 address that came in through an
    /// IPv6 socket (`::ffff:10.0.0.1`) is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = mask_v4(self.prefix);
                u32::from(address) & mask == u32::from(base)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = mask_v6(self.prefix);
                u128::from(address) & mask == u128::from(base)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

// A shift by the whole width is no shift in Rust: a prefix of 0 is a mask of zeros.
fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = text.split_once('/').ok_or(InvalidNetwork::Form)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Form)?;
        // `parse` takes "+8" and "08", which are no spelling of a prefix.
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        if !digits || prefix.is_empty() || prefix.len() > 3 || (prefix.len() > 1 && prefix.starts_with('0')) {
            return Err(InvalidNetwork::Form);
        }
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().map_err(|_| InvalidNetwork::Prefix { max })?;
        if prefix > max {
            return Err(InvalidNetwork::Prefix { max });
        }
        let base = match address {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & mask_v4(prefix)).into()),
            // `contains` never sees such an address as IPv6: the network would match nothing.
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => return Err(InvalidNetwork::Mapped),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & mask_v6(prefix)).into()),
        };
        if base == address {
            Ok(Self { base, prefix })
        } else {
            Err(InvalidNetwork::HostBits { meant: format!("{base}/{prefix}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_first_and_last_address_and_no_neighbour() {
        for (network, first, last, before, after) in [
            ("10.0.0.0/8", "10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"),
            ("192.168.4.4/30", "192.168.4.4", "192.168.4.7", "192.168.4.3", "192.168.4.8"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.3", "10.1.2.2", "10.1.2.4"),
            ("2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db7:ffff::", "2001:db9::"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::1", "2001:db8::", "2001:db8::2"),
        ] {
            let contains = |address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
            assert!(contains(first) && contains(last), "{network}");
            assert!(!contains(before) && !contains(after), "{network}");
        }
    }

    #[test]
    fn the_whole_internet_of_one_family_is_not_the_other_family() {
        let (v4, v6) = ("0.0.0.0/0".parse::<Network>().unwrap(), "::/0".parse::<Network>().unwrap());
        let (a4, a6) = ("203.0.113.9".parse().unwrap(), "2001:db8::9".parse().unwrap());
        assert!(v4.contains(a4) && v6.contains(a6));
        assert!(!v4.contains(a6) && !v6.contains(a4));
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer() {
        let network = "10.0.0.0/8".parse::<Network>().unwrap();
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("::ffff:11.1.2.3".parse().unwrap()));
        // The older, "compatible" form is not the same address.
        assert!(!network.contains("::10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn anything_else_is_not_a_network() {
        use InvalidNetwork::*;
        for (bad, why) in [
            ("", Form),
            ("10.0.0.0", Form),
            ("10.0.0/8", Form),
            ("10.0.0.0/", Form),
            ("10.0.0.0/+8", Form),
            ("10.0.0.0/08", Form),
            ("10.0.0.0/8 ", Form),
            ("10.0.0.0/255.0.0.0", Form),
            ("localhost/8", Form),
            ("fe80::%eth0/10", Form),
            ("10.0.0.0/33", Prefix { max: 32 }),
            ("10.0.0.0/999", Prefix { max: 32 }),
            ("2001:db8::/129", Prefix { max: 128 }),
            ("10.0.0.1/8", HostBits { meant: "10.0.0.0/8".into() }),
            ("10.0.0.1/0", HostBits { meant: "0.0.0.0/0".into() }),
            ("2001:db8::1/32", HostBits { meant: "2001:db8::/32".into() }),
            ("::ffff:10.0.0.0/104", Mapped),
        ] {
            assert_eq!(bad.parse::<Network>(), Err(why), "{bad:?}");
        }
    }
}
