//! `/dev/null`, `zero`, `full`, `random` and `urandom`. Source: `null(4)`, `full(4)`, `random(4)`.

use crate::fs::file::{File, FileOps, MapBacking};
use crate::syscall::Ctx;
use core::any::Any;
use hal::host::{Dest, Src};
use hal::user::UserPtr;
use qlib::Errno;

/// RNDGETENTCNT.
const RNDGETENTCNT: u32 = 0x8004_5200;
/// RNDADDTOENTCNT, RNDADDENTROPY, RNDZAPENTCNT, RNDCLEARPOOL, RNDRESEEDCRNG.
const RND_PRIVILEGED: [u32; 5] = [0x4004_5201, 0x4008_5203, 0x5204, 0x5206, 0x5207];

/// A memory device.
pub enum Memory {
    /// Reads end of file, swallows writes.
    Null,
    /// Reads zeros.
    Zero,
    /// Reads zeros, is always full.
    Full,
    /// Reads random bytes.
    Random,
}

impl FileOps for Memory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        let mut page = [0; 1024];
        while !matches!(self, Memory::Null) && dst.remaining() > 0 {
            let n = dst.remaining().min(page.len());
            if matches!(self, Memory::Random) {
                hal::clock::random(&mut page[..n]);
            }
            match dst.put(&page[..n]) {
                Ok(put) => done += put,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
            // Gigabytes from /dev/zero must not outlive a kill.
            if crate::task::interrupted() && done >= 1 << 16 {
                break;
            }
        }
        Ok(done)
    }
    fn write(&self, _file: &File, src: &mut Src<'_>, _offset: u64) -> Result<usize, Errno> {
        if matches!(self, Memory::Full) {
            return Err(Errno::ENOSPC);
        }
        let n = src.remaining();
        src.advance(n);
        Ok(n)
    }
    fn seek(&self, _file: &File, _offset: i64, _whence: u32, _current: u64) -> Result<u64, Errno> {
        Ok(0)
    }
    fn map(&self, _file: &File) -> Result<MapBacking, Errno> {
        match self {
            Memory::Zero => Ok(MapBacking::Anonymous),
            _ => Err(Errno::ENODEV),
        }
    }
    fn ioctl(&self, _file: &File, _ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        match self {
            Memory::Random if request == RNDGETENTCNT => UserPtr::new(arg).write(&256i32).map(|()| 0),
            Memory::Random if RND_PRIVILEGED.contains(&request) => Err(Errno::EPERM),
            Memory::Random => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;

    fn read(m: Memory, buf: &mut [u8]) -> usize {
        let f = File::new(Arc::new(m), None, 2);
        f.ops().read(&f, &mut Dest::kernel(buf), 0).unwrap()
    }

    #[test]
    fn what_they_read_and_take() {
        let mut buf = [7; 3000];
        assert_eq!(read(Memory::Null, &mut buf), 0);
        assert_eq!(read(Memory::Zero, &mut buf), 3000);
        assert!(buf.iter().all(|b| *b == 0));
        assert_eq!(read(Memory::Random, &mut buf), 3000);
        assert!(buf.iter().filter(|b| **b == 0).count() < 200);
        let full = File::new(Arc::new(Memory::Full), None, 2);
        assert_eq!(
            full.ops().write(&full, &mut Src::kernel(b"x"), 0),
            Err(Errno::ENOSPC)
        );
        let null = File::new(Arc::new(Memory::Null), None, 2);
        assert_eq!(null.ops().write(&null, &mut Src::kernel(b"xyz"), 0), Ok(3));
    }
}
