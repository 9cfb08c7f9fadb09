//! User memory. Addresses from the app are *allegations*: nothing here is ever a reference.

use crate::uapi::Plain;
use crate::{FpState, UserContext, aspace, machine};
use alloc::vec::Vec;
use core::marker::PhantomData;
use qlib::{Errno, PAGE_SIZE_USIZE};

/// A range of bytes the app named; checked to be user addresses, not to be mapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserSlice {
    addr: u64,
    len: usize,
}

/// Whether `[addr, addr + len)` lies in the app's part of the address space.
pub fn is_user_range(addr: u64, len: u64) -> bool {
    let user = aspace::user_range();
    let Some(end) = addr.checked_add(len) else {
        return false;
    };
    if addr > user.end || end > user.end {
        return false;
    }
    if len == 0 {
        return true;
    }
    crate::aspace::reserved()
        .iter()
        .all(|r| end <= r.start || addr >= r.end || !r.contains(kernel_start()))
}

/// Start of the kernel's own reserved range (the vDSO may be read by calls, the kernel may not).
fn kernel_start() -> u64 {
    crate::boot::info().image.start
}

impl UserSlice {
    /// Checks the range.
    ///
    /// # Errors
    /// EFAULT when it leaves the app's part of the address space.
    pub fn new(addr: u64, len: u64) -> Result<Self, Errno> {
        if is_user_range(addr, len) {
            Ok(Self {
                addr,
                len: len as usize,
            })
        } else {
            Err(Errno::EFAULT)
        }
    }
    /// First byte.
    pub fn addr(&self) -> u64 {
        self.addr
    }
    /// Length, bytes.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The part after `n` bytes.
    pub fn skip(&self, n: usize) -> Self {
        let n = n.min(self.len);
        Self {
            addr: self.addr + n as u64,
            len: self.len - n,
        }
    }
    /// The first `n` bytes.
    pub fn first(&self, n: usize) -> Self {
        Self {
            addr: self.addr,
            len: self.len.min(n),
        }
    }
    /// Copies all of it into a vector of at most `max` bytes.
    ///
    /// # Errors
    /// EFAULT; ENOMEM when it is longer than `max`.
    pub fn to_vec(&self, max: usize) -> Result<Vec<u8>, Errno> {
        if self.len > max {
            return Err(Errno::ENOMEM);
        }
        let mut v = alloc::vec![0; self.len];
        copy_in(&mut v, self.addr)?;
        Ok(v)
    }
    /// Copies to the app; `bytes` must fit.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > self.len {
            return Err(Errno::EFAULT);
        }
        copy_out(self.addr, bytes)
    }
    /// Zeroes the range.
    ///
    /// # Errors
    /// EFAULT.
    pub fn zero(&self) -> Result<(), Errno> {
        machine!(UserAccess::zero(self.addr, self.len)).map_err(|_| Errno::EFAULT)
    }
}

pub(crate) fn copy_in_partial(dst: &mut [u8], src: u64) -> Result<(), usize> {
    machine!(UserAccess::copy_in(dst, src))
}

pub(crate) fn copy_out_partial(dst: u64, src: &[u8]) -> Result<(), usize> {
    machine!(UserAccess::copy_out(dst, src))
}

/// Copies from the app.
///
/// # Errors
/// EFAULT.
pub fn copy_in(dst: &mut [u8], src: u64) -> Result<(), Errno> {
    if !is_user_range(src, dst.len() as u64) {
        return Err(Errno::EFAULT);
    }
    copy_in_partial(dst, src).map_err(|_| Errno::EFAULT)
}

/// Copies to the app.
///
/// # Errors
/// EFAULT.
pub fn copy_out(dst: u64, src: &[u8]) -> Result<(), Errno> {
    if !is_user_range(dst, src.len() as u64) {
        return Err(Errno::EFAULT);
    }
    copy_out_partial(dst, src).map_err(|_| Errno::EFAULT)
}

/// A pointer to a `T` that the app named.
pub struct UserPtr<T> {
    addr: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}

impl<T: Plain> UserPtr<T> {
    /// Wraps an address; nothing is checked before use.
    pub fn new(addr: u64) -> Self {
        Self {
            addr,
            of: PhantomData,
        }
    }
    /// `None` when the address is 0.
    pub fn nonnull(addr: u64) -> Option<Self> {
        (addr != 0).then(|| Self::new(addr))
    }
    /// The address.
    pub fn addr(&self) -> u64 {
        self.addr
    }
    /// Whether the address is 0.
    pub fn is_null(&self) -> bool {
        self.addr == 0
    }
    /// Pointer to the `i`-th element after this one.
    pub fn at(&self, i: usize) -> Self {
        Self::new(self.addr.wrapping_add((i * size_of::<T>()) as u64))
    }
    /// Reads the value.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read(&self) -> Result<T, Errno> {
        let mut v = T::zeroed();
        copy_in(v.bytes_mut(), self.addr)?;
        Ok(v)
    }
    /// Writes the value.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write(&self, v: &T) -> Result<(), Errno> {
        copy_out(self.addr, v.bytes())
    }
    /// Reads `n` values; the caller bounds `n`.
    ///
    /// # Errors
    /// EFAULT, or ENOMEM past 16 MiB.
    pub fn read_vec(&self, n: usize) -> Result<Vec<T>, Errno> {
        let bytes = n
            .checked_mul(size_of::<T>())
            .filter(|b| *b <= 16 << 20)
            .ok_or(Errno::ENOMEM)?;
        if !is_user_range(self.addr, bytes as u64) {
            return Err(Errno::EFAULT);
        }
        let mut v = Vec::with_capacity(n);
        for i in 0..n {
            v.push(self.at(i).read()?);
        }
        Ok(v)
    }
}

/// A NUL-terminated string that the app named.
#[derive(Clone, Copy)]
pub struct UserCStr(u64);

impl UserCStr {
    /// Wraps an address; nothing is checked before use.
    pub fn new(addr: u64) -> Self {
        Self(addr)
    }
    /// Reads up to the NUL, at most `max` bytes without it.
    ///
    /// # Errors
    /// EFAULT; ENAMETOOLONG when no NUL comes within `max` + 1 bytes.
    pub fn read(&self, max: usize) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        let mut addr = self.0;
        let mut chunk = [0u8; 256];
        loop {
            // Never past a page that might be the last one mapped.
            let in_page = PAGE_SIZE_USIZE - (addr as usize & (PAGE_SIZE_USIZE - 1));
            let n = in_page.min(chunk.len()).min(max + 1 - out.len());
            copy_in(&mut chunk[..n], addr)?;
            if let Some(end) = chunk[..n].iter().position(|b| *b == 0) {
                out.extend_from_slice(&chunk[..end]);
                return Ok(out);
            }
            out.extend_from_slice(&chunk[..n]);
            if out.len() > max {
                return Err(Errno::ENAMETOOLONG);
            }
            addr = addr.wrapping_add(n as u64);
        }
    }
}

/// Loads an aligned `u32` of the app atomically.
///
/// # Errors
/// EFAULT; EINVAL when unaligned.
pub fn load_u32(addr: u64) -> Result<u32, Errno> {
    check_word(addr)?;
    machine!(UserAccess::load_u32(addr))
}

/// Compares and exchanges an aligned `u32` of the app atomically; returns the value found.
///
/// # Errors
/// EFAULT; EINVAL when unaligned.
pub fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Result<u32, Errno> {
    check_word(addr)?;
    machine!(UserAccess::cmpxchg_u32(addr, old, new))
}

fn check_word(addr: u64) -> Result<(), Errno> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if is_user_range(addr, 4) {
        Ok(())
    } else {
        Err(Errno::EFAULT)
    }
}

/// Leaves the kernel for the app; nothing on the kernel stack is dropped. `fp` `None` = the initial state.
pub fn enter(ctx: &UserContext, fp: Option<&FpState>) -> ! {
    machine!(UserAccess::enter(ctx, fp))
}

/// Copies the calling thread's FP state as it was at the trap.
pub fn save_fp(fp: &mut FpState) {
    machine!(UserAccess::save_fp(fp));
}

/// Replaces the calling thread's FP state for its return to the app.
pub fn restore_fp(fp: &FpState) {
    machine!(UserAccess::restore_fp(fp));
}

/// The app's memory for `arch`'s signal-frame builders.
pub struct AppMemory;

impl arch::signal::UserMemory for AppMemory {
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), Errno> {
        copy_out(addr, bytes)
    }
    fn read(&mut self, addr: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        copy_in(bytes, addr)
    }
}
