//! `startContainer` hooks: programs of the container's own file system that run inside before the container's program.
//! Source: `config.md#posix-platform-hooks` of the OCI runtime specification.

use crate::error::{Context, OsError};
use oci_spec::runtime::Hook;
use qlib::control::ProcessSpec;
use qlib::qcall::HandleId;
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// A hook to be run inside.
pub struct InsideHook {
    program: ProcessSpec,
    /// The state, waiting in a pipe: made at once, for the sandbox is confined when the hook is run.
    stdin: OwnedFd,
    /// Its program, for messages.
    pub path: String,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

impl InsideHook {
    /// The hook as `hook` describes it; it has user, rights and limits of the container's `init`, and gets `state`.
    pub fn new(hook: &Hook, init: &ProcessSpec, state: &serde_json::Value) -> Result<Self, OsError> {
        let bytes = |list: &Option<Vec<String>>| -> Vec<Vec<u8>> {
            list.iter().flatten().map(|s| s.clone().into_bytes()).collect()
        };
        // The program is found by its path; the first argument is only its name, which QKernel takes the path from.
        let mut args = bytes(hook.args());
        let path = hook.path().as_os_str().as_bytes().to_vec();
        match args.first_mut() {
            Some(first) => *first = path,
            None => args.push(path),
        }
        let timeout = hook.timeout().and_then(|t| u64::try_from(t).ok());
        Ok(Self {
            program: ProcessSpec {
                args,
                env: bytes(hook.env()),
                cwd: b"/".to_vec(),
                terminal: false,
                stdio: vec![HandleId(0), HandleId::NONE, HandleId::NONE],
                ..init.clone()
            },
            stdin: filled_pipe(state.to_string().as_bytes())?,
            path: hook.path().display().to_string(),
            timeout: timeout.filter(|t| *t > 0).map(Duration::from_secs),
        })
    }

    /// The program as the guest is told of it, and its descriptors: the state on stdin, nothing else.
    pub fn program(self) -> (ProcessSpec, Vec<OwnedFd>) {
        (self.program, vec![self.stdin])
    }
}

/// The reading end of a pipe that holds `text` and then ends.
fn filled_pipe(text: &[u8]) -> Result<OwnedFd, OsError> {
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (read, write) = rustix::pipe::pipe_with(flags).doing("make a pipe for a hook")?;
    // All of it must fit, for nobody stays to write the rest.
    if text.len() > 60 << 10 {
        fcntl_setpipe_size(&write, text.len() + (8 << 10)).doing("make room for a hook's state")?;
    }
    let mut left = text;
    while !left.is_empty() {
        let n = rustix::io::write(&write, left).doing("write a hook's state")?;
        left = &left[n..];
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    #[test]
    fn the_state_waits_on_stdin() {
        let hook = HookBuilder::default()
            .path("/bin/hook")
            .args(["name", "a"].map(str::to_owned))
            .timeout(3)
            .build()
            .unwrap();
        let init = ProcessSpec {
            uid: 7,
            env: vec![b"A=1".to_vec()],
            ..ProcessSpec::default()
        };
        let state = serde_json::json!({"id": "x".repeat(100_000)});
        let inside = InsideHook::new(&hook, &init, &state).unwrap();
        assert_eq!(inside.timeout, Some(Duration::from_secs(3)));
        let (program, fds) = inside.program();
        assert_eq!(program.args, [b"/bin/hook".to_vec(), b"a".to_vec()]);
        assert!(program.env.is_empty() && program.uid == 7);
        let mut text = Vec::new();
        std::io::Read::read_to_end(
            &mut std::fs::File::from(fds.into_iter().next().unwrap()),
            &mut text,
        )
        .unwrap();
        assert_eq!(text, state.to_string().into_bytes());
    }
}
