//! `/sys/class/net`: the network devices of whoever looks, which the network tells.

use crate::fs::inode::{FileType, InodeRef};
use crate::fs::pseudo::{Dir, Entries, Entry, Link, Meta, Tree, new_dev};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use hal::sync::{Once, SpinLock};
use qlib::Errno;

/// A network device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// Hardware address.
    pub address: Vec<u8>,
    /// MTU, bytes.
    pub mtu: u32,
    /// IFF_* flags.
    pub flags: u32,
    /// ARPHRD_* type.
    pub kind: u32,
    /// Bytes and packets received and sent.
    pub counters: [u64; 4],
}

/// Lists the devices.
pub type List = fn() -> Vec<Device>;

static DEVICES: SpinLock<Option<List>> = SpinLock::new(None);

/// Says who knows the devices.
pub fn register(list: List) {
    *DEVICES.lock() = Some(list);
}

/// IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP as sysfs shows the loopback device.
const LOOPBACK_FLAGS: u32 = 0x9;
/// ARPHRD_LOOPBACK.
const ARPHRD_LOOPBACK: u32 = 772;
/// IFF_RUNNING or IFF_UP.
const UP: u32 = 0x1;

fn all() -> Vec<Device> {
    let list = *DEVICES.lock();
    match list {
        Some(f) => f(),
        // The loopback device is always there.
        None => alloc::vec![Device {
            name: String::from("lo"),
            index: 1,
            address: alloc::vec![0; 6],
            mtu: 65536,
            flags: LOOPBACK_FLAGS,
            kind: ARPHRD_LOOPBACK,
            counters: [0; 4],
        }],
    }
}

fn dev() -> u64 {
    static DEV: Once<u64> = Once::new();
    *DEV.call_once(new_dev)
}

fn meta(ino: u64, perm: u32) -> Meta {
    Meta {
        dev: dev(),
        ino,
        perm,
        uid: 0,
        gid: 0,
    }
}

const CLASS_INO: u64 = 1;
const DEVICES_INO: u64 = 2;

/// `class/net`.
pub(super) fn class(t: &mut Tree) {
    t.add("net", Dir::new(meta(CLASS_INO, 0o755), Class));
}

/// `devices/virtual/net`.
pub(super) fn devices(t: &mut Tree) {
    t.add("net", Dir::new(meta(DEVICES_INO, 0o755), Devices));
}

struct Class;

impl Entries for Class {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let d = find(name)?;
        let target = format!("../../devices/virtual/net/{}", d.name).into_bytes();
        Ok(Link::new(meta(u64::from(d.index) << 8 | 1, 0o777), move || {
            Ok(target.clone())
        }))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let entry = |d: Device| {
            Entry::new(
                d.name.into_bytes(),
                u64::from(d.index) << 8 | 1,
                FileType::Symlink,
            )
        };
        Ok(all().into_iter().map(entry).collect())
    }
}

fn find(name: &[u8]) -> Result<Device, Errno> {
    all()
        .into_iter()
        .find(|d| d.name.as_bytes() == name)
        .ok_or(Errno::ENOENT)
}

struct Devices;

impl Entries for Devices {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        Ok(one(find(name)?))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let entry = |d: Device| {
            Entry::new(
                d.name.into_bytes(),
                u64::from(d.index) << 8 | 2,
                FileType::Directory,
            )
        };
        Ok(all().into_iter().map(entry).collect())
    }
}

fn one(d: Device) -> InodeRef {
    let mut t = Tree::new(dev());
    let hex: Vec<String> = d.address.iter().map(|b| format!("{b:02x}")).collect();
    let up = d.flags & UP != 0;
    let mut value = |name: &'static str, v: String| {
        let text = format!("{v}\n").into_bytes();
        t.file(name, move || Ok(text.clone()));
    };
    value("addr_len", format!("{}", d.address.len()));
    value("address", hex.join(":"));
    value(
        "broadcast",
        if d.kind == ARPHRD_LOOPBACK {
            hex.join(":")
        } else {
            String::from("ff:ff:ff:ff:ff:ff")
        },
    );
    value("carrier", format!("{}", u32::from(up)));
    value("dev_id", String::from("0x0"));
    value("dormant", String::from("0"));
    value("flags", format!("{:#x}", d.flags & 0xffff));
    value("ifindex", format!("{}", d.index));
    value("iflink", format!("{}", d.index));
    value("link_mode", String::from("0"));
    value("mtu", format!("{}", d.mtu));
    value(
        "operstate",
        String::from(match (d.kind, up) {
            (ARPHRD_LOOPBACK, _) => "unknown",
            (_, true) => "up",
            _ => "down",
        }),
    );
    value("tx_queue_len", String::from("1000"));
    value("type", format!("{}", d.kind));
    value("uevent", format!("INTERFACE={}\nIFINDEX={}", d.name, d.index));
    let c = d.counters;
    t.dir("statistics", |s| {
        for (name, v) in [
            ("rx_bytes", c[0]),
            ("rx_packets", c[1]),
            ("tx_bytes", c[2]),
            ("tx_packets", c[3]),
            ("collisions", 0),
            ("multicast", 0),
            ("rx_dropped", 0),
            ("rx_errors", 0),
            ("tx_dropped", 0),
            ("tx_errors", 0),
        ] {
            s.file(name, move || Ok(format!("{v}\n").into_bytes()));
        }
    });
    t.dir("queues", |_| {});
    t.finish()
}
