//! The bytes that host and guest agree on. A change here is a change of the ABI: raise `boot::ABI_VERSION`.
#![allow(clippy::unwrap_used)]

use qlib::boot::{ABI_VERSION, BOOT_MAGIC, BootInfo, MAX_CHANNELS, Range};
use qlib::qcall::{HandleId, HostStat, HostStatFs, Op, Reply, Request};
use qlib::{PhysAddr, VirtAddr};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes 0, 1, 2, … read as a `T` and written again.
fn round_trip<T: FromBytes + IntoBytes + zerocopy::Immutable>() -> Vec<u8> {
    let bytes: Vec<u8> = (0..size_of::<T>()).map(|i| i as u8).collect();
    let v = T::read_from_bytes(&bytes).unwrap();
    assert_eq!(v.as_bytes(), bytes);
    bytes
}

fn at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

#[test]
fn sizes() {
    assert_eq!(ABI_VERSION, 2);
    assert_eq!(&BOOT_MAGIC.to_le_bytes(), b"QUARKBI1");
    assert_eq!(round_trip::<PhysAddr>().len(), 8);
    assert_eq!(round_trip::<VirtAddr>().len(), 8);
    assert_eq!(round_trip::<Range>().len(), 16);
    assert_eq!(round_trip::<HandleId>().len(), 8);
    assert_eq!(round_trip::<Request>().len(), 96);
    assert_eq!(round_trip::<Reply>().len(), 32);
    assert_eq!(round_trip::<HostStat>().len(), 128);
    assert_eq!(round_trip::<HostStatFs>().len(), 72);
}

#[test]
fn requests() {
    let b = round_trip::<Request>();
    let r = Request::read_from_bytes(&b).unwrap();
    assert_eq!(r.tag, at(&b, 0));
    assert_eq!(u64::from(r.op) | u64::from(r.data_len) << 32, at(&b, 8));
    assert_eq!((r.handle.0, r.handle2.0), (at(&b, 16), at(&b, 24)));
    for (i, a) in r.args.iter().enumerate() {
        assert_eq!(*a, at(&b, 32 + 8 * i));
    }
    assert_eq!(r.data_addr, at(&b, 80));
    assert_eq!(u64::from(r.reply_cap) | u64::from(r.reserved) << 32, at(&b, 88));
}

#[test]
fn replies() {
    let b = round_trip::<Reply>();
    let r = Reply::read_from_bytes(&b).unwrap();
    assert_eq!(
        (r.tag, r.result as u64, r.handle.0),
        (at(&b, 0), at(&b, 8), at(&b, 16))
    );
    assert_eq!(u64::from(r.data_len) | u64::from(r.reserved) << 32, at(&b, 24));
    let e = Reply::of(7, Err(qlib::Errno::ENOENT));
    assert_eq!((e.tag, e.result, e.handle), (7, -2, HandleId::NONE));
}

#[test]
fn the_boot_page() {
    let mut i = BootInfo::new_zeroed();
    i.magic = BOOT_MAGIC;
    i.abi_version = 0x0102_0304;
    i.machine = 1;
    i.cpus = 2;
    i.log_level = 3;
    i.generation = [0x11; 16];
    i.entropy = [0x22; 32];
    i.image = Range { start: 10, end: 11 };
    i.text = Range { start: 12, end: 13 };
    i.heap = Range { start: 14, end: 15 };
    i.ram = Range { start: 16, end: 17 };
    i.ram_free = 18;
    i.direct_map = 19;
    i.window = Range { start: 20, end: 21 };
    i.rings = Range { start: 22, end: 23 };
    i.counter_hz = 24;
    i.realtime_offset_ns = 25;
    let b = i.as_bytes();
    assert_eq!(at(b, 0), BOOT_MAGIC);
    assert_eq!(at(b, 8), 0x1_0102_0304);
    assert_eq!(at(b, 16), 0x3_0000_0002);
    assert_eq!(&b[24..40], &[0x11; 16]);
    assert_eq!(&b[40..72], &[0x22; 32]);
    for (n, offset) in (72..200).step_by(8).enumerate() {
        assert_eq!(at(b, offset), 10 + n as u64, "offset {offset}");
    }
    assert_eq!(MAX_CHANNELS, 8);
    assert!(size_of::<BootInfo>() <= 4096);
}

#[test]
fn operations_keep_their_numbers() {
    for op in Op::ALL {
        assert_eq!(Op::try_from(*op as u32), Ok(*op));
    }
    for (op, number) in [
        (Op::Nop, 0),
        (Op::Open, 1),
        (Op::Read, 24),
        (Op::Dup, 34),
        (Op::EpollWait, 37),
        (Op::Socket, 40),
        (Op::PowerOff, 63),
    ] {
        assert_eq!(op as u32, number);
    }
    assert!(Op::try_from(u32::MAX).is_err());
}

#[test]
fn handles() {
    let h = HandleId::new(0x0102_0304, 0x0506_0708);
    assert_eq!(h.as_bytes(), &[4, 3, 2, 1, 8, 7, 6, 5]);
    assert_eq!((h.index(), h.generation()), (0x0102_0304, 0x0506_0708));
}
