//! Threads that are confined before they do their work.

use std::io;
use std::sync::mpsc::channel;

/// Starts a thread that first calls `confine`; returns once it has. A thread that cannot be confined does no work.
///
/// # Errors
/// The host has no room for a thread; what `confine` says.
pub fn spawn(
    name: String,
    stack: usize,
    confine: impl FnOnce() -> io::Result<()> + Send + 'static,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let (tell, told) = channel();
    std::thread::Builder::new()
        .name(name)
        .stack_size(stack)
        .spawn(move || {
            let confined = confine();
            let good = confined.is_ok();
            let heard = tell.send(confined);
            drop(tell);
            if good && heard.is_ok() {
                work();
            }
        })?;
    told.recv()
        .unwrap_or_else(|_| Err(io::Error::other("a thread ended before it was confined")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_waits_for_the_confinement() {
        let (tell, told) = channel();
        let also = tell.clone();
        spawn(
            "confined".to_owned(),
            64 << 10,
            move || also.send(1).map_err(io::Error::other),
            move || assert!(tell.send(2).is_ok()),
        )
        .unwrap();
        assert_eq!(told.iter().collect::<Vec<i32>>(), [1, 2]);
    }

    #[test]
    fn a_thread_that_cannot_be_confined_does_nothing() {
        let (tell, told) = channel::<()>();
        let failed = spawn(
            "open".to_owned(),
            64 << 10,
            || Err(io::Error::from_raw_os_error(libc::EPERM)),
            move || assert!(tell.send(()).is_ok()),
        );
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(told.recv().is_err());
    }
}
