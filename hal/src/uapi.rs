//! Linux's user-space ABI types and constants of this architecture (`linux-raw-sys`), and the marker for types that may
//! be copied to and from the app byte by byte.

pub use linux_raw_sys::{auxvec, elf, errno, general, ioctl, net, netlink, prctl, system};

/// Types whose every bit pattern is valid and that hold no pointer the kernel would follow.
///
/// # Safety
/// Implementors are `repr(C)` plain old data without references; any bytes make a valid value.
pub unsafe trait Plain: Copy + 'static {
    /// The all-zero value: padding included, so that no kernel bytes leak to the app.
    fn zeroed() -> Self {
        // SAFETY: the trait promises that any bytes make a valid value.
        unsafe { core::mem::zeroed() }
    }
    /// The value's bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: `self` is `size_of::<Self>()` initialised bytes; values start from `zeroed`, so padding is zero.
        unsafe { core::slice::from_raw_parts((self as *const Self).cast(), size_of::<Self>()) }
    }
    /// The value's bytes, writable.
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: any bytes make a valid value.
        unsafe { core::slice::from_raw_parts_mut((self as *mut Self).cast(), size_of::<Self>()) }
    }
}

macro_rules! plain {
    ($($t:ty),* $(,)?) => {
        $(
            // SAFETY: integers, or `repr(C)` structures of integers, arrays and raw pointers from Linux's headers.
            unsafe impl Plain for $t {}
        )*
    };
}

plain!(
    u8, u16, u32, u64, i8, i16, i32, i64, usize, isize, [u32; 2], [u32; 3], [i32; 2], [u64; 2], [i64; 2]
);
plain!(
    general::stat,
    general::statx,
    general::statfs64,
    general::timespec,
    general::timeval,
    general::timezone,
    general::itimerval,
    general::itimerspec,
    general::__kernel_timespec,
    general::__kernel_itimerspec,
    general::iovec,
    general::pollfd,
    general::epoll_event,
    general::rlimit,
    general::rlimit64,
    general::rusage,
    general::winsize,
    general::termio,
    general::termios,
    general::termios2,
    general::flock,
    general::clone_args,
    general::open_how,
    general::robust_list_head,
    general::sigevent,
    general::siginfo_t,
    general::f_owner_ex,
    system::new_utsname,
    net::msghdr,
    net::mmsghdr,
    net::cmsghdr,
    net::linger,
    net::ucred,
    net::sockaddr_in,
    net::sockaddr_in6,
    netlink::nlmsghdr,
);

/// Implements [`Plain`] for structures of QKernel whose layout the zerocopy traits already prove.
#[macro_export]
macro_rules! plain_struct {
    ($($t:ty),* $(,)?) => {
        $(
            const _: fn() = || {
                fn needs<T: zerocopy::FromBytes + zerocopy::IntoBytes + Copy>() {}
                needs::<$t>();
            };
            // SAFETY: zerocopy's traits, checked just above, prove that any bytes make a valid value.
            unsafe impl $crate::uapi::Plain for $t {}
        )*
    };
}
