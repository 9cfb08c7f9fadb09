//! The network as text: `/proc/net` and `/sys/class/net`. Inet sockets and interfaces are the host's, so its tables are
//! shown, with the users that the guest knows; unix sockets are the kernel's own.

use super::host::HostSocket;
use super::unix::{Summary, UnixSocket};
use super::{SocketFile, family, kind};
use crate::fs::file::File;
use crate::fs::proc::host_text;
use crate::fs::proc::net::register;
use crate::fs::pseudo::Text;
use crate::fs::sys::net::Device;
use crate::ns::net::{self, NetNs};
use crate::put;
use crate::task::table;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::host::{self, HostFile, SystemGroup};
use hashbrown::HashMap;

/// Lets `/proc/net` and `/sys/class/net` show them.
pub fn init() {
    register("unix", unix);
    crate::fs::sys::net::register(devices);
}

/// Every open socket of every process, once.
pub fn sockets() -> Vec<Arc<File>> {
    let mut found: HashMap<usize, Arc<File>> = HashMap::new();
    for p in table::processes() {
        let Some(task) = p.tasks.lock().first().cloned() else {
            continue;
        };
        for (_, file) in task.files().list() {
            if file.downcast::<SocketFile>().is_some() {
                found.insert(Arc::as_ptr(&file) as usize, file);
            }
        }
    }
    found.into_values().collect()
}

/// Users of the sockets by inode number.
pub fn owners() -> HashMap<u64, u32> {
    let all = sockets();
    let known = all.iter().filter_map(|f| f.downcast::<SocketFile>());
    known.map(|s| (s.ino(), s.owner())).collect()
}

/// What the tables do not tell of a socket of the host.
#[derive(Clone, Copy, Default)]
pub struct Detail {
    /// Connections that may wait, of a listening socket.
    pub backlog: u32,
    /// IPV6_V6ONLY.
    pub v6_only: bool,
}

/// Details of the host's sockets in a network by inode number.
pub fn details(net: &NetNs) -> HashMap<u64, Detail> {
    let most = crate::fs::proc::sysctl::get_int_in(net, "net/core/somaxconn").unwrap_or(4096) as u32;
    let all = sockets();
    let known = all.iter().filter_map(|f| f.downcast::<SocketFile>());
    known
        .filter_map(|s| {
            let socket = s.socket().as_any().downcast_ref::<HostSocket>()?;
            if !core::ptr::eq(net, &**socket.net()) {
                return None;
            }
            let detail = Detail {
                backlog: socket.backlog().map_or(0, |b| b.min(most)),
                v6_only: socket.v6_only(),
            };
            Some((s.ino(), detail))
        })
        .collect()
}

/// The unix sockets of a network: inode number, owner, and what they are.
pub fn unix_sockets(net: &NetNs) -> Vec<(u64, u32, Summary)> {
    let all = sockets();
    let known = all.iter().filter_map(|f| f.downcast::<SocketFile>());
    let mut list: Vec<(u64, u32, Summary)> = known
        .filter_map(|s| {
            let unix = s.socket().as_any().downcast_ref::<UnixSocket>()?;
            core::ptr::eq(net, &**unix.net()).then(|| (s.ino(), s.owner(), unix.summary()))
        })
        .collect();
    list.sort_by_key(|l| l.0);
    list
}

fn unix(net: &NetNs) -> Vec<u8> {
    /// __SO_ACCEPTCON.
    const ACCEPTS: u32 = 1 << 16;
    let mut t = Text::new();
    put!(t, "Num       RefCount Protocol Flags    Type St Inode Path\n");
    for (ino, _, s) in unix_sockets(net) {
        let flags = if s.listening { ACCEPTS } else { 0 };
        let state = if s.connected { 3 } else { 1 };
        put!(
            t,
            "{:016x}: {:08X} {:08X} {flags:08X} {:04X} {state:02X} {ino:5}",
            0,
            2,
            0,
            s.kind
        );
        if !s.path.is_empty() {
            put!(t, " ");
            let shown: Vec<u8> = s.path.iter().map(|b| if *b == 0 { b'@' } else { *b }).collect();
            t.bytes(&shown);
        }
        put!(t, "\n");
    }
    t.finish()
}

/// Begin and end of the word number `n` of a line.
fn word(line: &str, n: usize) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut seen = 0;
    while at < line.len() {
        let start = at + line[at..].find(|c: char| c != ' ')?;
        let end = line[start..].find(' ').map_or(line.len(), |e| start + e);
        if seen == n {
            return Some((start, end));
        }
        seen += 1;
        at = end;
    }
    None
}

/// Puts the guest's users into a table of the host's sockets.
pub fn with_owners(text: &str) -> String {
    const UID: usize = 7;
    const INODE: usize = 9;
    let owners = owners();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let uid = word(line, INODE)
            .and_then(|(a, b)| line[a..b].parse().ok())
            .and_then(|ino: u64| owners.get(&ino));
        match (uid, word(line, UID - 1), word(line, UID)) {
            (Some(uid), Some((_, before)), Some((_, end))) => {
                out.push_str(&line[..before]);
                out.push_str(&alloc::format!(" {uid:5}"));
                out.push_str(&line[end..]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The host's table of the name in a network; `None` where there is none.
pub fn of_host(net: &NetNs, name: &str) -> Option<Vec<u8>> {
    let text = host_text::string(&net.service, SystemGroup::Net, name)?;
    let sockets = matches!(
        name,
        "tcp" | "tcp6" | "udp" | "udp6" | "udplite" | "udplite6" | "raw" | "raw6" | "icmp" | "icmp6"
    );
    Some(if sockets { with_owners(&text) } else { text }.into_bytes())
}

const IFREQ: usize = 40;
const IFNAME: usize = 16;

/// An interface query: the bytes behind the name.
fn query(socket: &HostFile, name: &str, request: u32) -> Option<[u8; IFREQ - IFNAME]> {
    let mut r = vec![0u8; IFREQ];
    let n = name.len().min(IFNAME - 1);
    r[..n].copy_from_slice(&name.as_bytes()[..n]);
    host::ioctl(socket.handle(), request, &mut r).ok()?;
    r[IFNAME..].try_into().ok()
}

/// The interfaces in the calling task's network.
fn devices() -> Vec<Device> {
    const SIOCGIFFLAGS: u32 = 0x8913;
    const SIOCGIFMTU: u32 = 0x8921;
    const SIOCGIFHWADDR: u32 = 0x8927;
    const SIOCGIFINDEX: u32 = 0x8933;
    let net = net::current();
    let text = host_text::string(&net.service, SystemGroup::Net, "dev").unwrap_or_default();
    let Ok(socket) = net.socket(family::INET, kind::DGRAM, 0) else {
        return Vec::new();
    };
    let number = |b: [u8; IFREQ - IFNAME]| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
    let one = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let name = name.trim();
        let counts: Vec<u64> = rest
            .split_ascii_whitespace()
            .map_while(|w| w.parse().ok())
            .collect();
        let count = |i: usize| counts.get(i).copied().unwrap_or(0);
        let hardware = query(&socket, name, SIOCGIFHWADDR)?;
        let flags = query(&socket, name, SIOCGIFFLAGS)?;
        Some(Device {
            name: String::from(name),
            index: number(query(&socket, name, SIOCGIFINDEX)?),
            address: hardware[2..8].to_vec(),
            mtu: number(query(&socket, name, SIOCGIFMTU)?),
            flags: u32::from(u16::from_ne_bytes([flags[0], flags[1]])),
            kind: u32::from(u16::from_ne_bytes([hardware[0], hardware[1]])),
            counters: [count(0), count(1), count(8), count(9)],
        })
    };
    let mut all: Vec<Device> = text.lines().filter_map(one).collect();
    all.sort_by_key(|d| d.index);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_are() {
        let line = "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1";
        let (a, b) = word(line, 9).unwrap();
        assert_eq!(&line[a..b], "12345");
        let (a, b) = word(line, 0).unwrap();
        assert_eq!(&line[a..b], "0:");
        assert_eq!(word("a b", 2), None);
        assert_eq!(word("", 0), None);
    }
}
