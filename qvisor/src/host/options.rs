//! Socket options a guest may use: those whose values carry no address of ours and reach nothing beyond the socket.

use libc as c;
use qlib::Errno;
use rustix::fd::BorrowedFd;
use rustix::net::AddressFamily;

/// Options of `SOL_SOCKET`. Left out: filters and BPF programs (they carry addresses), SO_PEERCRED and its kin (host
/// process ids), SO_MARK and device binding (they need privileges the guest has not).
const SOCKET: &[i32] = &[
    c::SO_REUSEADDR,
    c::SO_TYPE,
    c::SO_ERROR,
    c::SO_DONTROUTE,
    c::SO_BROADCAST,
    c::SO_SNDBUF,
    c::SO_RCVBUF,
    // The host refuses these two without CAP_NET_ADMIN, which no thread of ours has.
    c::SO_SNDBUFFORCE,
    c::SO_RCVBUFFORCE,
    c::SO_KEEPALIVE,
    c::SO_OOBINLINE,
    c::SO_LINGER,
    c::SO_REUSEPORT,
    c::SO_RCVLOWAT,
    c::SO_SNDLOWAT,
    c::SO_RCVTIMEO,
    c::SO_SNDTIMEO,
    c::SO_ACCEPTCONN,
    c::SO_PROTOCOL,
    c::SO_DOMAIN,
    c::SO_TIMESTAMP,
    c::SO_TIMESTAMPNS,
    c::SO_PRIORITY,
    c::SO_BUSY_POLL,
    c::SO_INCOMING_CPU,
    c::SO_COOKIE,
    c::SO_ZEROCOPY,
];

/// Options of `IPPROTO_TCP`. Left out: TCP_ZEROCOPY_RECEIVE (it carries an address), TCP_REPAIR, TCP_ULP.
const TCP: &[i32] = &[
    c::TCP_NODELAY,
    c::TCP_MAXSEG,
    c::TCP_CORK,
    c::TCP_KEEPIDLE,
    c::TCP_KEEPINTVL,
    c::TCP_KEEPCNT,
    c::TCP_SYNCNT,
    c::TCP_LINGER2,
    c::TCP_DEFER_ACCEPT,
    c::TCP_WINDOW_CLAMP,
    c::TCP_INFO,
    c::TCP_QUICKACK,
    c::TCP_CONGESTION,
    c::TCP_USER_TIMEOUT,
    c::TCP_FASTOPEN,
    c::TCP_FASTOPEN_CONNECT,
    c::TCP_NOTSENT_LOWAT,
    c::TCP_SAVE_SYN,
    c::TCP_SAVED_SYN,
    c::TCP_INQ,
];

/// Options of `IPPROTO_IP`. Left out: packet filter tables, IP_TRANSPARENT.
const IP: &[i32] = &[
    c::IP_TOS,
    c::IP_TTL,
    c::IP_HDRINCL,
    c::IP_OPTIONS,
    c::IP_RECVOPTS,
    c::IP_PKTINFO,
    c::IP_MTU_DISCOVER,
    c::IP_RECVERR,
    c::IP_RECVTTL,
    c::IP_RECVTOS,
    c::IP_MTU,
    c::IP_FREEBIND,
    c::IP_MULTICAST_IF,
    c::IP_MULTICAST_TTL,
    c::IP_MULTICAST_LOOP,
    c::IP_ADD_MEMBERSHIP,
    c::IP_DROP_MEMBERSHIP,
    c::IP_ADD_SOURCE_MEMBERSHIP,
    c::IP_DROP_SOURCE_MEMBERSHIP,
    c::IP_BIND_ADDRESS_NO_PORT,
    c::IP_MULTICAST_ALL,
    c::IP_RECVORIGDSTADDR,
];

/// Options of `IPPROTO_IPV6`.
const IPV6: &[i32] = &[
    c::IPV6_V6ONLY,
    c::IPV6_UNICAST_HOPS,
    c::IPV6_MULTICAST_IF,
    c::IPV6_MULTICAST_HOPS,
    c::IPV6_MULTICAST_LOOP,
    c::IPV6_ADD_MEMBERSHIP,
    c::IPV6_DROP_MEMBERSHIP,
    c::IPV6_RECVPKTINFO,
    c::IPV6_PKTINFO,
    c::IPV6_RECVHOPLIMIT,
    c::IPV6_HOPLIMIT,
    c::IPV6_TCLASS,
    c::IPV6_RECVTCLASS,
    c::IPV6_MTU_DISCOVER,
    c::IPV6_MTU,
    c::IPV6_RECVERR,
];

/// Options of `IPPROTO_UDP`: UDP_CORK, UDP_SEGMENT, UDP_GRO.
const UDP: &[i32] = &[1, 103, 104];

/// Options of `SOL_RAW`: ICMP_FILTER, IPV6_CHECKSUM; and of `IPPROTO_ICMPV6`: ICMPV6_FILTER. ping cannot do without.
const RAW: &[i32] = &[1, 7];
const ICMPV6: &[i32] = &[1];
const SOL_RAW: i32 = 255;

/// Options of `SOL_NETLINK`. Left out: rings, which are mapped, and NETLINK_LISTEN_ALL_NSID.
const NETLINK: &[i32] = &[
    c::NETLINK_ADD_MEMBERSHIP,
    c::NETLINK_DROP_MEMBERSHIP,
    c::NETLINK_PKTINFO,
    c::NETLINK_BROADCAST_ERROR,
    c::NETLINK_NO_ENOBUFS,
    c::NETLINK_LIST_MEMBERSHIPS,
    c::NETLINK_CAP_ACK,
    c::NETLINK_EXT_ACK,
    c::NETLINK_GET_STRICT_CHK,
];

fn options(level: i32) -> Option<&'static [i32]> {
    Some(match level {
        c::SOL_SOCKET => SOCKET,
        c::IPPROTO_TCP => TCP,
        c::IPPROTO_IP => IP,
        c::IPPROTO_IPV6 => IPV6,
        c::IPPROTO_UDP => UDP,
        c::IPPROTO_ICMPV6 => ICMPV6,
        c::SOL_NETLINK => NETLINK,
        SOL_RAW => RAW,
        _ => return None,
    })
}

/// What Linux answers who sets an option that it does not know, of `len` bytes.
pub fn unknown_to_set(level: i32, len: usize) -> Errno {
    if level == c::SOL_SOCKET && len < size_of::<c::c_int>() {
        Errno::EINVAL
    } else {
        Errno::ENOPROTOOPT
    }
}

/// What Linux answers who reads an option that it does not know.
pub fn unknown_to_get(fd: BorrowedFd<'_>, level: i32) -> Errno {
    let over_ipv4 = || rustix::net::sockopt::socket_domain(fd) == Ok(AddressFamily::INET);
    if options(level).is_none() && over_ipv4() {
        Errno::EOPNOTSUPP
    } else {
        Errno::ENOPROTOOPT
    }
}

/// Whether option `option` of `level` may be read and set for a guest.
pub fn permitted(level: i32, option: i32) -> bool {
    options(level).is_some_and(|list| list.contains(&option))
}

/// Whether control data holds only well-formed messages of the network levels: no descriptors, no credentials.
pub fn control_is_plain(mut control: &[u8]) -> bool {
    // struct cmsghdr on 64 bits: length (8), level (4), type (4); messages are aligned to 8.
    while !control.is_empty() {
        let Some((header, _)) = control.split_at_checked(16) else {
            return false;
        };
        let (mut len, mut level) = ([0; 8], [0; 4]);
        len.copy_from_slice(&header[..8]);
        level.copy_from_slice(&header[8..12]);
        let (len, level) = (u64::from_ne_bytes(len), i32::from_ne_bytes(level));
        let network = matches!(level, c::IPPROTO_IP | c::IPPROTO_IPV6 | c::IPPROTO_UDP);
        let Ok(len) = usize::try_from(len) else {
            return false;
        };
        if !network || len < 16 || len > control.len() {
            return false;
        }
        control = &control[len.next_multiple_of(8).min(control.len())..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: u64, level: i32, kind: i32) -> Vec<u8> {
        let mut m = len.to_ne_bytes().to_vec();
        m.extend(level.to_ne_bytes());
        m.extend(kind.to_ne_bytes());
        m.extend([0; 8]);
        m
    }

    #[test]
    fn descriptors_and_credentials_do_not_pass() {
        assert!(control_is_plain(&message(20, c::IPPROTO_IP, c::IP_TOS)));
        assert!(!control_is_plain(&message(20, c::SOL_SOCKET, c::SCM_RIGHTS)));
        assert!(!control_is_plain(&message(20, c::SOL_SOCKET, c::SCM_CREDENTIALS)));
        let mut two = message(20, c::IPPROTO_IP, c::IP_TOS);
        two.extend(message(20, c::SOL_SOCKET, c::SCM_RIGHTS));
        assert!(!control_is_plain(&two), "not behind another either");
    }

    #[test]
    fn malformed_lengths_do_not_pass() {
        for len in [0, 8, 15, 25, u64::MAX] {
            assert!(
                !control_is_plain(&message(len, c::IPPROTO_IP, c::IP_TOS)),
                "{len}"
            );
        }
        assert!(!control_is_plain(&[0; 15]));
    }

    #[test]
    fn options_with_addresses_are_refused() {
        for (level, option) in [
            (c::SOL_SOCKET, c::SO_ATTACH_FILTER),
            (c::SOL_SOCKET, c::SO_ATTACH_BPF),
            (c::IPPROTO_TCP, c::TCP_ZEROCOPY_RECEIVE),
            (c::IPPROTO_IP, 64),
            (263, 1),
        ] {
            assert!(!permitted(level, option), "{level} {option}");
        }
        assert!(permitted(c::IPPROTO_TCP, c::TCP_NODELAY));
    }
}
