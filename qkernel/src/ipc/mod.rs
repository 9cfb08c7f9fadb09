//! Communication between processes that is not a file: futexes, System V objects.

pub mod futex;
pub mod futex_pi;
pub mod futex_robust;
pub mod mqueue;
pub mod msgqueue;
pub mod semaphore;
pub mod shm;
pub mod sysv;
