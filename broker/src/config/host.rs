//! What the configuration asks of the host.

#![allow(
    clippy::disallowed_types,
    reason = "asks the host for its address, once at start"
)]

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The IPv4 address from which this host would reach the outside; none where it has no way there. Nothing is sent:
/// connecting a datagram socket only chooses the route.
pub(super) fn outward_address() -> Option<IpAddr> {
    // An address of the block for documentation (RFC 5737), which no interface has.
    let elsewhere = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(elsewhere).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
