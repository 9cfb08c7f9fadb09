//! sysfs: CPUs, memory nodes, network devices and a few switches, as libraries and tools look them up.
//! Source: `sysfs(5)`, Linux `Documentation/ABI`.

mod cpu;
pub mod net;

use crate::fs::inode::InodeRef;
use crate::fs::pseudo::{Tree, new_dev_of};

/// SYSFS_MAGIC.
const MAGIC: u64 = 0x6265_6572;

/// The root of a sysfs for a mount.
pub fn new_root() -> InodeRef {
    let mut t = Tree::new(new_dev_of(MAGIC));
    t.dir("block", |_| {});
    t.dir("bus", |b| {
        b.dir("cpu", |c| {
            c.dir("devices", cpu::links).dir("drivers", |_| {});
        });
        for name in ["pci", "platform", "usb", "virtio"] {
            b.dir(name, |p| {
                p.dir("devices", |_| {}).dir("drivers", |_| {});
            });
        }
    });
    t.dir("class", |c| {
        for name in ["block", "dmi", "mem", "misc"] {
            c.dir(name, |_| {});
        }
        net::class(c);
        for name in ["power_supply", "thermal", "tty"] {
            c.dir(name, |_| {});
        }
    });
    t.dir("dev", |d| {
        d.dir("block", |_| {}).dir("char", |_| {});
    });
    t.dir("devices", |d| {
        d.dir("system", |s| {
            s.dir("cpu", cpu::fill);
            s.dir("node", cpu::nodes);
        });
        d.dir("virtual", |v| {
            v.dir("dmi", |_| {});
            net::devices(v);
        });
    });
    t.dir("firmware", |_| {});
    t.dir("fs", |f| {
        f.dir("cgroup", |_| {});
        f.dir("fuse", |f| {
            f.dir("connections", |_| {});
        });
    });
    t.dir("hypervisor", |_| {});
    t.dir("kernel", |k| {
        k.text("fscaps", "1\n");
        k.text("kexec_crash_loaded", "0\n");
        k.text("kexec_loaded", "0\n");
        k.dir("mm", |m| {
            m.dir("hugepages", |_| {});
            m.dir("ksm", |k| {
                k.text("run", "0\n");
            });
            m.dir("transparent_hugepage", |h| {
                h.text("defrag", "always defer defer+madvise [madvise] never\n");
                h.text("enabled", "always [madvise] never\n");
                h.text("hpage_pmd_size", "2097152\n");
                h.text("shmem_enabled", "always within_size advise [never] deny force\n");
            });
        });
        k.text("profiling", "0\n");
        k.dir("security", |_| {});
        k.text("uevent_seqnum", "0\n");
    });
    t.dir("module", |_| {});
    t.dir("power", |p| {
        p.text("state", "\n");
    });
    t.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::file::File;
    use crate::task::creds::Creds;
    use alloc::string::String;

    fn text(root: &InodeRef, path: &str) -> String {
        let mut at = root.clone();
        for part in path.split('/') {
            at = at.lookup(part.as_bytes()).unwrap();
        }
        let file = File::new(at.open(0, &Creds::default()).unwrap(), None, 0);
        let mut buf = [0; 4096];
        let n = file.read_kernel(&mut buf, 0).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    }

    #[test]
    fn what_libraries_look_up() {
        crate::tests::boot();
        let root = new_root();
        assert_eq!(text(&root, "devices/system/cpu/online"), "0-1\n");
        assert_eq!(text(&root, "devices/system/cpu/cpu1/topology/core_id"), "1\n");
        assert_eq!(text(&root, "devices/system/node/node0/cpumap"), "3\n");
        assert!(text(&root, "kernel/mm/transparent_hugepage/enabled").contains("[madvise]"));
        assert_eq!(text(&root, "devices/virtual/net/lo/mtu"), "65536\n");
        let class = root.lookup(b"class").unwrap().lookup(b"net").unwrap();
        let link = class.lookup(b"lo").unwrap().read_link().unwrap();
        assert_eq!(link, b"../../devices/virtual/net/lo");
    }
}
