//! `/proc/net`: tables that were registered, else the host's; where the host shows none, the headers alone.

use super::who::Who;
use crate::fs::inode::{FileType, InodeRef};
use crate::fs::pseudo::{Dir, Entries, Entry, TextFile};
use crate::ns::net::NetNs;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use qlib::Errno;

/// Makes the text of one table of a network.
pub type Table = fn(&NetNs) -> Vec<u8>;

/// Name, and text while nobody knows more.
const TABLES: &[(&str, &str)] = &[
    (
        "arp",
        "IP address       HW type     Flags       HW address            Mask     Device\n",
    ),
    ("dev", DEV),
    ("dev_mcast", ""),
    ("fib_trie", ""),
    ("icmp", SOCKETS),
    ("icmp6", SOCKETS6),
    ("if_inet6", ""),
    (
        "igmp",
        "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n",
    ),
    ("ipv6_route", ""),
    (
        "netlink",
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
    ),
    ("netstat", ""),
    (
        "packet",
        "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n",
    ),
    ("protocols", ""),
    ("ptype", "Type Device      Function\n"),
    ("raw", SOCKETS),
    ("raw6", SOCKETS6),
    ("route", ROUTE),
    ("rt_acct", ""),
    (
        "rt_cache",
        "Iface\tDestination\tGateway \tFlags\t\tRefCnt\tUse\tMetric\tSource\t\tMTU\tWindow\tIRTT\tTOS\tHHRef\tHHUptod\tSpecDst\n",
    ),
    ("snmp", ""),
    ("snmp6", ""),
    ("sockstat", ""),
    ("sockstat6", ""),
    ("tcp", TCP),
    ("tcp6", TCP6),
    ("udp", SOCKETS),
    ("udp6", SOCKETS6),
    ("udplite", SOCKETS),
    (
        "unix",
        "Num       RefCount Protocol Flags    Type St Inode Path\n",
    ),
    ("wireless", WIRELESS),
];

const DEV: &str = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";
const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n";
const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const SOCKETS: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n";
const SOCKETS6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
const WIRELESS: &str = "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n";

static REGISTERED: SpinLock<Vec<(&'static str, Table)>> = SpinLock::new(Vec::new());

/// Says who makes the table `name` of `/proc/net`; the last call counts.
pub fn register(name: &'static str, table: Table) {
    let mut all = REGISTERED.lock();
    all.retain(|(n, _)| *n != name);
    all.push((name, table));
}

fn text(net: &NetNs, name: &'static str, fallback: &'static str) -> Vec<u8> {
    let table = REGISTERED
        .lock()
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, t)| *t);
    match table {
        Some(t) => t(net),
        None => crate::net::tables::of_host(net, name).unwrap_or_else(|| fallback.as_bytes().to_vec()),
    }
}

/// `/proc/PID/net`: the network that the process is in.
pub(super) fn dir(who: &Who, k: u64) -> InodeRef {
    Dir::new(who.meta(k, 0o555), Net(who.clone()))
}

struct Net(Who);

const FIRST: u64 = 0x1000;

impl Net {
    /// All names: fixed ones, then registered ones besides.
    fn names(&self) -> Vec<(&'static str, &'static str)> {
        let mut all = TABLES.to_vec();
        let extra: Vec<_> = REGISTERED.lock().iter().map(|(n, _)| (*n, "")).collect();
        for e in extra {
            if !all.iter().any(|(n, _)| *n == e.0) {
                all.push(e);
            }
        }
        all
    }
}

impl Entries for Net {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let all = self.names();
        let (i, (name, fallback)) = all
            .iter()
            .enumerate()
            .find(|(_, (n, _))| n.as_bytes() == name)
            .ok_or(Errno::ENOENT)?;
        let (name, fallback, who) = (*name, *fallback, self.0.clone());
        Ok(TextFile::new(self.0.meta(FIRST + i as u64, 0o444), move || {
            // A zombie is in none any more.
            let set = who.live().map_err(|_| Errno::EINVAL)?.namespaces();
            Ok(text(&set.net, name, fallback))
        }))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let all = self.names();
        let entry = |(i, (n, _)): (usize, &(&'static str, &'static str))| {
            Entry::new(n.as_bytes(), self.0.ino(FIRST + i as u64), FileType::Regular)
        };
        Ok(all.iter().enumerate().map(entry).collect())
    }
}
