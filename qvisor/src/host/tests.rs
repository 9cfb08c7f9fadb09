//! Requests as a guest would send them, good and bad, against a directory of their own.

use super::*;
use proptest::prelude::*;
use qlib::qcall::{HostStat, HostStatFs};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use zerocopy::{FromBytes, FromZeros};

/// A handle table as simple as can be.
#[derive(Default)]
struct Table {
    fds: BTreeMap<u64, OwnedFd>,
    next: u64,
}

impl Handles for Table {
    fn get(&self, id: HandleId) -> Result<BorrowedFd<'_>, Errno> {
        self.fds.get(&id.0).map(AsFd::as_fd).ok_or(Errno::EBADF)
    }
    fn insert(&mut self, fd: OwnedFd) -> Result<HandleId, Errno> {
        if self.fds.len() >= 64 {
            return Err(Errno::ENFILE);
        }
        self.next += 1;
        self.fds.insert(self.next, fd);
        Ok(HandleId(self.next))
    }
    fn remove(&mut self, id: HandleId) -> Result<(), Errno> {
        self.fds.remove(&id.0).map(drop).ok_or(Errno::EBADF)
    }
}

struct Guest {
    table: Table,
    root: HandleId,
    path: PathBuf,
}

impl Guest {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quark-host-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("in")).unwrap();
        std::fs::write(path.join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink("../outside", path.join("in/link")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path.join("in"), flags, Mode::empty()).unwrap();
        let mut table = Table::default();
        let root = table.insert(fd).unwrap();
        Self { table, root, path }
    }

    fn ask(
        &mut self,
        op: Op,
        handle: HandleId,
        args: &[u64],
        payload: &[u8],
    ) -> Result<(u64, HandleId, Vec<u8>), Errno> {
        let mut request = Request::new_zeroed();
        request.op = op as u32;
        (request.handle, request.handle2) = (handle, handle);
        request.args[..args.len()].copy_from_slice(args);
        request.data_len = payload.len() as u32;
        request.reply_cap = 4096;
        let mut data = Vec::new();
        let reply = serve(&request, payload, &mut self.table, &mut data);
        assert_eq!(reply.data_len as usize, data.len());
        Errno::from_ret(reply.result).map(|v| (v, reply.handle, data))
    }

    fn open(&mut self, flags: OFlags, name: &str) -> Result<HandleId, Errno> {
        let keep = u64::from(u32::MAX);
        let args = [flags.bits().into(), 0o640, keep, keep];
        self.ask(Op::Open, self.root, &args, name.as_bytes()).map(|r| r.1)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[test]
fn a_files_life() {
    let mut g = Guest::new("life");
    let file = g.open(OFlags::RDWR | OFlags::CREATE, "a").unwrap();
    assert_eq!(
        g.ask(Op::Write, file, &[u64::MAX, 0, 0, 0], b"hello").unwrap().0,
        5
    );
    assert_eq!(g.ask(Op::Write, file, &[0, 0, 0, 1], b"!").unwrap().0, 1);
    assert_eq!(g.ask(Op::Read, file, &[1, 100], b"").unwrap().2, b"ello!");
    let stat = g.ask(Op::Stat, g.root, &[], b"a").unwrap().2;
    let stat = HostStat::read_from_bytes(&stat).unwrap();
    assert_eq!((stat.size, stat.mode), (6, libc::S_IFREG | 0o640));
    g.ask(Op::ChMod, g.root, &[0o4711], b"a").unwrap();
    g.ask(Op::Link, g.root, &[1], b"ab").unwrap();
    g.ask(Op::Rename, g.root, &[1, 0], b"bc").unwrap();
    g.ask(
        Op::MkDir,
        g.root,
        &[0o755, u64::from(u32::MAX), u64::from(u32::MAX)],
        b"d",
    )
    .unwrap();
    g.ask(
        Op::SymLink,
        g.root,
        &[3, u64::from(u32::MAX), u64::from(u32::MAX)],
        b"d/sanywhere",
    )
    .unwrap();
    assert_eq!(g.ask(Op::ReadLink, g.root, &[], b"d/s").unwrap().2, b"anywhere");
    let stat = g.ask(Op::Stat, file, &[], b"").unwrap().2;
    let stat = HostStat::read_from_bytes(&stat).unwrap();
    assert_eq!((stat.mode & 0o7777, stat.nlink), (0o4711, 2));
    let fs = g.ask(Op::StatFs, file, &[], b"").unwrap().2;
    assert!(HostStatFs::read_from_bytes(&fs).unwrap().bsize > 0);
    let dir = g.open(OFlags::RDONLY | OFlags::DIRECTORY, ".").unwrap();
    let (n, _, records) = g.ask(Op::ReadDir, dir, &[], b"").unwrap();
    assert!(n as usize == records.len() && records.windows(2).any(|w| w == b"c\0"));
    g.ask(Op::Unlink, g.root, &[libc::AT_REMOVEDIR as u64], b"d")
        .unwrap_err();
    g.ask(Op::Unlink, g.root, &[0], b"d/s").unwrap();
    g.ask(Op::Unlink, g.root, &[libc::AT_REMOVEDIR as u64], b"d")
        .unwrap();
    g.ask(Op::Close, file, &[], b"").unwrap();
    assert_eq!(g.ask(Op::Read, file, &[0, 1], b"").unwrap_err(), Errno::EBADF);
}

#[test]
fn an_unnamed_file_gets_a_name_and_attributes() {
    let mut g = Guest::new("unnamed");
    let file = g.open(OFlags::RDWR | OFlags::TMPFILE, ".").unwrap();
    g.ask(Op::Write, file, &[u64::MAX, 0, 0, 0], b"hello").unwrap();
    let mut request = Request::new_zeroed();
    (request.op, request.handle, request.handle2) = (Op::Link as u32, file, g.root);
    let reply = serve(&request, b"named", &mut g.table, &mut Vec::new());
    // Without CAP_DAC_READ_SEARCH an older host gives it none.
    if rustix::process::geteuid().is_root() {
        assert_eq!(reply.result, 0);
        assert_eq!(std::fs::read(g.path.join("in/named")).unwrap(), b"hello");
    }
    match g.ask(Op::SetXattr, file, &[6, 0], b"user.xvalue") {
        // A file system of an older host may have none.
        Err(e) => assert_eq!(e, Errno::EOPNOTSUPP),
        Ok(_) => {
            assert_eq!(g.ask(Op::GetXattr, file, &[], b"user.x").unwrap().2, b"value");
            assert_eq!(g.ask(Op::ListXattr, file, &[], b"").unwrap().2, b"user.x\0");
            g.ask(Op::RemoveXattr, file, &[], b"user.x").unwrap();
        }
    }
}

#[test]
fn no_path_leaves_the_directory_or_follows_a_link() {
    let mut g = Guest::new("escape");
    for (name, error) in [
        ("link", Errno::ELOOP),
        ("../outside", Errno::EXDEV),
        ("./../outside", Errno::EXDEV),
        ("/etc/passwd", Errno::EINVAL),
        ("", Errno::ENOENT),
        ("a\0b", Errno::EINVAL),
    ] {
        assert_eq!(g.open(OFlags::RDONLY, name).unwrap_err(), error, "{name:?}");
    }
    for (op, args) in [
        (Op::MkDir, [0o755, 0, 0]),
        (Op::Unlink, [0, 0, 0]),
        (Op::MkNod, [0o100644, 0, 0]),
    ] {
        for name in ["..", "../x", "a/..", "link/x", "/x"] {
            assert!(
                g.ask(op, g.root, &args, name.as_bytes()).is_err(),
                "{op:?} {name}"
            );
        }
    }
    // Through the link nothing outside is changed; the link itself has no mode.
    assert!(g.ask(Op::ChMod, g.root, &[0o777], b"link").is_err());
    assert_eq!(std::fs::read(g.path.join("outside")).unwrap(), b"secret");
}

#[test]
fn nothing_waits_for_a_fifos_other_end() {
    let mut g = Guest::new("fifo");
    let keep = u64::from(u32::MAX);
    let fifo = u64::from(libc::S_IFIFO | 0o600);
    g.ask(Op::MkNod, g.root, &[fifo, 0, keep, keep], b"f").unwrap();
    assert_eq!(g.open(OFlags::WRONLY, "f").unwrap_err(), Errno::ENXIO);
    let read = g.open(OFlags::RDONLY, "f").unwrap();
    let write = g.open(OFlags::WRONLY, "f").unwrap();
    assert_eq!(
        g.ask(Op::Read, read, &[u64::MAX, 10], b"").unwrap_err(),
        Errno::EAGAIN
    );
    let mut total = 0;
    while let Ok((n, ..)) = g.ask(Op::Write, write, &[u64::MAX, 0, 0, 0], &[1; 4096]) {
        total += n;
    }
    assert!(total >= 4096, "a full pipe answers EAGAIN");
}

#[test]
fn sockets_talk() {
    let mut g = Guest::new("sockets");
    let server = g
        .ask(Op::Socket, HandleId::NONE, &[libc::AF_INET as u64, 1, 0], b"")
        .unwrap()
        .1;
    let mut address = [0u8; 16];
    address[0] = libc::AF_INET as u8;
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    g.ask(Op::Bind, server, &[], &address).unwrap();
    g.ask(Op::Listen, server, &[1], b"").unwrap();
    assert_eq!(g.ask(Op::Accept, server, &[], b"").unwrap_err(), Errno::EAGAIN);
    let name = g.ask(Op::SockName, server, &[], b"").unwrap().2;
    let client = g
        .ask(Op::Socket, HandleId::NONE, &[libc::AF_INET as u64, 1, 0], b"")
        .unwrap()
        .1;
    let _ = g.ask(Op::Connect, client, &[], &name);
    let (_, peer, from) = g.ask(Op::Accept, server, &[], b"").unwrap();
    assert_eq!(from.len(), 16);
    assert_eq!(g.ask(Op::SendMsg, client, &[0, 0, 0], b"ping").unwrap().0, 4);
    let data = g.ask(Op::RecvMsg, peer, &[0, 128, 64, 100], b"").unwrap().2;
    assert!(data.ends_with(b"ping"));
    assert_eq!(
        g.ask(Op::RecvMsg, peer, &[0, 0, 0, 100], b"").unwrap_err(),
        Errno::EAGAIN
    );
    let filter = [libc::SOL_SOCKET as u64, libc::SO_ATTACH_FILTER as u64];
    assert_eq!(
        g.ask(Op::SetSockOpt, client, &filter, &[0; 16]).unwrap_err(),
        Errno::ENOPROTOOPT
    );
    let packet = [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0];
    assert_eq!(
        g.ask(Op::Socket, HandleId::NONE, &packet, b"").unwrap_err(),
        Errno::EAFNOSUPPORT
    );
}

#[test]
fn every_operation_answers() {
    let mut g = Guest::new("every");
    for op in Op::ALL {
        let mut request = Request::new_zeroed();
        (request.op, request.handle, request.tag) = (*op as u32, HandleId(99), 7);
        let mut data = Vec::new();
        assert_eq!(serve(&request, b"x", &mut g.table, &mut data).tag, 7);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Whatever a guest sends: no panic, no data beyond the room, nothing outside its directory touched.
    #[test]
    fn hostile_requests(
        op in prop_oneof![9 => 0u32..64, 1 => any::<u32>()],
        handles in prop::array::uniform2(prop_oneof![8 => 1u64..4, 1 => Just(u64::MAX), 1 => any::<u64>()]),
        args in prop::array::uniform6(prop_oneof![
            4 => 0u64..8, 2 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(u64::from(u32::MAX)), 2 => 0u64..0x10000
        ]),
        room in prop_oneof![0u32..256, any::<u32>()],
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::sample::select(vec![&b"../outside"[..], b"link", b"a", b"/", b"..", b"a/b", b"ab", b"user.x", b""])
                .prop_map(<[u8]>::to_vec),
        ],
    ) {
        let mut g = Guest::new("hostile");
        g.open(OFlags::RDWR | OFlags::CREATE, "a").unwrap();
        let fifo = u64::from(libc::S_IFIFO | 0o600);
        g.ask(Op::MkNod, g.root, &[fifo, 0, u64::from(u32::MAX), u64::from(u32::MAX)], b"ab").unwrap();
        g.open(OFlags::RDONLY, "ab").unwrap();
        let mut request = Request::new_zeroed();
        (request.op, request.args, request.reply_cap) = (op, args, room);
        (request.handle, request.handle2) = (HandleId(handles[0]), HandleId(handles[1]));
        request.data_len = payload.len() as u32;
        // A length no disk has is a quick error; one the disk has would fill it.
        if op == Op::Allocate as u32 {
            request.args[1] %= 4096;
            request.args[2] %= 4096;
        }
        let mut data = Vec::new();
        let reply = serve(&request, &payload, &mut g.table, &mut data);
        prop_assert!(data.len() <= (room as usize).min(MAX_PAYLOAD));
        prop_assert!(reply.result >= -4095);
        prop_assert_eq!(std::fs::read(g.path.join("outside")).unwrap(), b"secret");
    }
}
