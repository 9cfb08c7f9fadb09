//! The thread-pool engine: workers take requests from the submission ring in turn and serve them by host calls.

use super::poller::Poller;
use super::{Spawn, WORKERS};
use crate::seccomp::Role;
use crate::vm::kvm::rings::Area;
use crate::vm::kvm::service::{Service, held};
use qlib::Errno;
use qlib::qcall::{Op, Reply, Request};
use qlib::ring::Consumer;
use std::io;
use std::sync::{Arc, Mutex};
use zerocopy::{FromZeros, IntoBytes};

struct Threads {
    service: Arc<Service>,
    submissions: Mutex<Consumer<Area>>,
    poller: Poller,
}

/// Starts the workers, and the thread that waits for readiness.
pub fn start(service: &Arc<Service>, submissions: Consumer<Area>, spawn: Spawn<'_>) -> io::Result<()> {
    let threads = Arc::new(Threads {
        service: service.clone(),
        submissions: Mutex::new(submissions),
        poller: Poller::new()?,
    });
    let t = threads.clone();
    spawn(
        Role::Poll,
        "quark-poll".to_owned(),
        Box::new(move || {
            t.poller
                .run(|tag, events| t.service.complete(Reply::of(tag, Ok(events))));
        }),
    )?;
    for i in 0..WORKERS {
        let t = threads.clone();
        spawn(
            Role::Worker,
            format!("quark-qcall{i}"),
            Box::new(move || t.work()),
        )?;
    }
    Ok(())
}

impl Threads {
    /// Takes the next request; waits for the doorbell when there is none. One worker at a time is here, the others serve.
    fn next(&self) -> Option<Request> {
        let mut ring = held(&self.submissions);
        let mut request = Request::new_zeroed();
        loop {
            match ring.pop(request.as_mut_bytes()) {
                Ok(true) if self.serve_in_order(&request) => {}
                Ok(true) => return Some(request),
                Ok(false) => match ring.sleep() {
                    Ok(true) => {
                        // Any error but EINTR would come at once for ever.
                        if let Err(e) = self.service.bells.submissions.read()
                            && e.raw_os_error() != Some(libc::EINTR)
                        {
                            return None;
                        }
                        ring.awake();
                    }
                    Ok(false) => {}
                    Err(_) => return self.service.broken(),
                },
                Err(_) => return self.service.broken(),
            }
        }
    }

    fn work(&self) {
        let mut payload = Vec::new();
        let mut data = Vec::new();
        while let Some(request) = self.next() {
            if let Some(reply) = self.service.serve(&request, &mut payload, &mut data) {
                self.service.complete(reply);
            }
        }
    }

    /// Serves what must be served in the ring's order, by whoever holds the ring; `false` when it may overtake others. A
    /// cancellation must find the request that was pushed before it, and not the next one of the same tag.
    fn serve_in_order(&self, r: &Request) -> bool {
        let result = match Op::try_from(r.op) {
            Ok(Op::PollWait) => match self.service.handles.get(r.handle) {
                Ok(file) => self.poller.add(r.tag, file, r.args[0] as u16),
                Err(e) => Some(Err(e)),
            },
            Ok(Op::Cancel) => {
                let found = self.poller.cancel(r.args[0]);
                if found {
                    self.service.complete(Reply::of(r.args[0], Err(Errno::ECANCELED)));
                }
                Some(if found { Ok(0) } else { Err(Errno::ENOENT) })
            }
            _ => match self.service.serve_in_order(r) {
                None => return false,
                known => known,
            },
        };
        if let Some(result) = result {
            self.service.complete(Reply::of(r.tag, result));
        }
        true
    }
}
