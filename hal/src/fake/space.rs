//! Address spaces that are maps of bytes.

use super::Fake;
use crate::aspace::{Access, Advice, FaultOutcome, Prot, SpaceInner};
use crate::contract::{Spaces, UserAccess};
use crate::host::Handle;
use crate::{FpState, UserContext};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use qlib::boot::Range;
use qlib::{Errno, PAGE_SIZE, VirtAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone)]
struct Page {
    prot: Prot,
    bytes: Vec<u8>,
}

/// Pages by number.
#[derive(Default)]
pub struct FakeSpace(Mutex<BTreeMap<u64, Page>>);

impl FakeSpace {
    fn pages(&self) -> MutexGuard<'_, BTreeMap<u64, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn copy(&self) -> Self {
        Self(Mutex::new(self.pages().clone()))
    }
    fn access(
        &self,
        addr: u64,
        len: usize,
        need: Prot,
        mut f: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), usize> {
        let mut pages = self.pages();
        let mut done = 0;
        while done < len {
            let at = addr + done as u64;
            let Some(page) = pages.get_mut(&(at / PAGE_SIZE)) else {
                return Err(done);
            };
            if !page.prot.contains(need) {
                return Err(done);
            }
            let off = (at % PAGE_SIZE) as usize;
            let n = (len - done).min(PAGE_SIZE as usize - off);
            f(done, &mut page.bytes[off..off + n]);
            done += n;
        }
        Ok(())
    }
}

std::thread_local! {
    static CURRENT: RefCell<Option<Arc<SpaceInner>>> = const { RefCell::new(None) };
}

pub(crate) fn current() -> Arc<SpaceInner> {
    CURRENT.with(|c| {
        c.borrow_mut()
            .get_or_insert_with(|| Arc::new(SpaceInner::new(FakeSpace::default())))
            .clone()
    })
}

pub(crate) fn set_current(space: Arc<SpaceInner>) {
    CURRENT.with(|c| *c.borrow_mut() = Some(space));
}

/// The calling thread's address space, for tests that need one.
pub fn with_space() -> crate::aspace::AddressSpace {
    crate::aspace::AddressSpace(current())
}

fn pages_of(r: Range) -> core::ops::Range<u64> {
    r.start / PAGE_SIZE..r.end / PAGE_SIZE
}

impl Spaces for Fake {
    fn user_range() -> Range {
        Range {
            start: 0x1_0000,
            end: (1 << 47) - PAGE_SIZE,
        }
    }

    fn reserved() -> &'static [Range] {
        &[]
    }

    fn replace(_old: &Arc<SpaceInner>) -> Result<Arc<SpaceInner>, Errno> {
        let fresh = Arc::new(SpaceInner::new(FakeSpace::default()));
        set_current(fresh.clone());
        Ok(fresh)
    }

    fn map_anon(space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno> {
        let mut pages = space.machine.pages();
        for n in pages_of(range) {
            pages.insert(
                n,
                Page {
                    prot,
                    bytes: vec![0; PAGE_SIZE as usize],
                },
            );
        }
        Ok(())
    }

    fn map_file(
        space: &SpaceInner,
        range: Range,
        prot: Prot,
        handle: Handle,
        offset: u64,
        _shared: bool,
    ) -> Result<(), Errno> {
        for (i, n) in pages_of(range).enumerate() {
            let mut bytes = vec![0; PAGE_SIZE as usize];
            let mut dest = crate::host::Dest::kernel(&mut bytes);
            crate::host::read(handle, &mut dest, Some(offset + i as u64 * PAGE_SIZE))?;
            space.machine.pages().insert(n, Page { prot, bytes });
        }
        Ok(())
    }

    fn unmap(space: &SpaceInner, range: Range) -> Result<(), Errno> {
        let mut pages = space.machine.pages();
        for n in pages_of(range) {
            pages.remove(&n);
        }
        Ok(())
    }

    fn protect(space: &SpaceInner, range: Range, prot: Prot) -> Result<(), Errno> {
        for (_, p) in space.machine.pages().range_mut(pages_of(range)) {
            p.prot = prot;
        }
        Ok(())
    }

    fn remap(space: &SpaceInner, old: Range, new: Range) -> Result<(), Errno> {
        let mut pages = space.machine.pages();
        let mut prot = Prot::READ | Prot::WRITE;
        let mut moved = Vec::new();
        for n in pages_of(old) {
            if let Some(p) = pages.remove(&n) {
                prot = p.prot;
                moved.push(p);
            }
        }
        let mut moved = moved.into_iter();
        for n in pages_of(new) {
            let page = moved.next().unwrap_or_else(|| Page {
                prot,
                bytes: vec![0; PAGE_SIZE as usize],
            });
            pages.insert(n, page);
        }
        Ok(())
    }

    fn barrier(_space: Option<&SpaceInner>) -> Result<(), Errno> {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    fn advise(space: &SpaceInner, range: Range, advice: Advice) -> Result<(), Errno> {
        if matches!(advice, Advice::DontNeed | Advice::Free) {
            for (_, p) in space.machine.pages().range_mut(pages_of(range)) {
                p.bytes.fill(0);
            }
        }
        Ok(())
    }

    fn resident(space: &SpaceInner, range: Range, out: &mut [u8]) -> Result<(), Errno> {
        let pages = space.machine.pages();
        for (n, o) in pages_of(range).zip(out) {
            *o = pages.contains_key(&n) as u8;
        }
        Ok(())
    }

    fn fault(_space: &SpaceInner, _addr: VirtAddr, _access: Access) -> FaultOutcome {
        FaultOutcome::Unmapped
    }
}

impl UserAccess for Fake {
    fn copy_in(dst: &mut [u8], src: u64) -> Result<(), usize> {
        let len = dst.len();
        current().machine.access(src, len, Prot::READ, |at, page| {
            dst[at..at + page.len()].copy_from_slice(page)
        })
    }

    fn copy_out(dst: u64, src: &[u8]) -> Result<(), usize> {
        current().machine.access(dst, src.len(), Prot::WRITE, |at, page| {
            let n = page.len();
            page.copy_from_slice(&src[at..at + n]);
        })
    }

    fn zero(dst: u64, len: usize) -> Result<(), usize> {
        current()
            .machine
            .access(dst, len, Prot::WRITE, |_, page| page.fill(0))
    }

    fn load_u32(addr: u64) -> Result<u32, Errno> {
        let mut b = [0; 4];
        Self::copy_in(&mut b, addr).map_err(|_| Errno::EFAULT)?;
        Ok(u32::from_le_bytes(b))
    }

    fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Result<u32, Errno> {
        let mut found = 0;
        let swap = |_: usize, page: &mut [u8]| {
            let mut b = [0; 4];
            b.copy_from_slice(page);
            found = u32::from_le_bytes(b);
            if found == old {
                page.copy_from_slice(&new.to_le_bytes());
            }
        };
        current()
            .machine
            .access(addr, 4, Prot::WRITE, swap)
            .map_err(|_| Errno::EFAULT)?;
        Ok(found)
    }

    fn enter(_ctx: &UserContext, _fp: Option<&FpState>) -> ! {
        panic!("the fake machine has no user mode")
    }

    fn save_fp(fp: &mut FpState) {
        *fp = FpState::initial();
    }

    fn restore_fp(_fp: &FpState) {}
}
