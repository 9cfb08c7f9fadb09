//! The filters that confine the sandbox's host calls: allow-lists kept as data (`*.json`), compiled to BPF; and the
//! container's own profile ([`profile`]), which the guest kernel enforces on the app.

mod compile;
mod names;
pub mod profile;
#[cfg(test)]
mod tests;

use compile::{Condition, MAX_INSTRUCTIONS, Rule};
use libc::sock_filter;
use names::{Arch, Number};
use qlib::boot::Range;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a thread of QVisor, or a process of the sandbox, is there for. Each has an allow-list of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A process of the `process` machine: QKernel and the apps.
    Process,
    /// The sandbox process's first thread: events, requests, signals, the container's status.
    Server,
    /// Serves requests of the `process` machine.
    Broker,
    /// The first thread of the process of a virtual machine, which waits for the guest's end.
    Keeper,
    /// Runs a virtual CPU.
    Vcpu,
    /// Serves requests of a virtual machine.
    Worker,
    /// Waits for the readiness of host objects.
    Poll,
    /// Carries control messages into a virtual machine.
    Control,
    /// Drives the io_uring.
    Engine,
    /// Carries a virtual machine's requests to the services of its containers.
    Relay,
    /// Serves a container's requests for sockets and texts of its own namespaces.
    Service,
}

impl Role {
    const fn list(self) -> &'static str {
        match self {
            Self::Process => include_str!("process.json"),
            Self::Server => include_str!("server.json"),
            Self::Broker => include_str!("broker.json"),
            Self::Keeper => include_str!("keeper.json"),
            Self::Vcpu => include_str!("vcpu.json"),
            Self::Worker => include_str!("worker.json"),
            Self::Poll => include_str!("poll.json"),
            Self::Control => include_str!("control.json"),
            Self::Engine => include_str!("engine.json"),
            Self::Relay => include_str!("relay.json"),
            Self::Service => include_str!("service.json"),
        }
    }
}

/// Lists that others build on (`with`).
const PARTS: [(&str, &str); 2] = [
    ("common", include_str!("common.json")),
    ("serve", include_str!("serve.json")),
];

/// Why a filter could not be made or installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The allow-list is not well-formed.
    #[error("seccomp allow-list: {0}")]
    List(#[from] serde_json::Error),
    /// The allow-list names a call that does not exist.
    #[error("seccomp allow-list: unknown host call {0}")]
    Unknown(String),
    /// The allow-list has a call in two entries of which one checks nothing.
    #[error("seccomp allow-list: {0} is allowed twice")]
    Twice(String),
    /// The allow-list has a number that is none.
    #[error("seccomp allow-list: {0}: bad number or argument")]
    Number(String),
    /// The program is longer than the kernel takes.
    #[error("seccomp allow-list: too long")]
    TooLong,
    /// The host refused the filter.
    #[error("cannot install the seccomp filter: {0}")]
    Install(#[from] std::io::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(rename = "about")]
    _about: Vec<String>,
    #[serde(default)]
    with: Vec<String>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    checked: Vec<Checked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    name: String,
    #[serde(rename = "why", default)]
    _why: String,
    when: Vec<When>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    arg: u32,
    #[serde(rename = "in", default)]
    values: Vec<String>,
    mask: Option<String>,
    eq: Option<String>,
}

fn parse_number(name: &str, text: &str) -> Result<u32, Error> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Error::Number(name.to_owned()))
}

fn condition(name: &str, when: &When) -> Result<Condition, Error> {
    let bad = || Error::Number(name.to_owned());
    let (mask, values) = match (&when.mask, &when.eq, when.values.as_slice()) {
        (Some(mask), Some(eq), []) => (parse_number(name, mask)?, vec![parse_number(name, eq)?]),
        (None, None, [_, ..]) => (
            u32::MAX,
            when.values
                .iter()
                .map(|v| parse_number(name, v))
                .collect::<Result<_, _>>()?,
        ),
        _ => return Err(bad()),
    };
    if when.arg > 5 {
        return Err(bad());
    }
    Ok(Condition {
        arg: when.arg,
        mask,
        values,
    })
}

/// The rules of `role` by call number of `arch`.
fn rules(arch: Arch, role: Role) -> Result<BTreeMap<u32, Rule>, Error> {
    let own: List = serde_json::from_str(role.list())?;
    let mut rules = BTreeMap::new();
    for part in &own.with {
        let (_, text) = PARTS
            .iter()
            .find(|(name, _)| name == part)
            .ok_or_else(|| Error::Unknown(part.clone()))?;
        add(arch, &serde_json::from_str(text)?, &mut rules)?;
    }
    add(arch, &own, &mut rules)?;
    Ok(rules)
}

/// Adds what `list` allows. Conditions of several entries of one call are alternatives.
fn add(arch: Arch, list: &List, rules: &mut BTreeMap<u32, Rule>) -> Result<(), Error> {
    for name in &list.allow {
        match names::number(arch, name) {
            // What a part allows under conditions is not to be opened by the way.
            Number::Is(number) if rules.contains_key(&number) => return Err(Error::Twice(name.clone())),
            Number::Is(number) => {
                rules.insert(number, Rule::new());
            }
            Number::Absent => {}
            Number::Unknown => return Err(Error::Unknown(name.clone())),
        }
    }
    for entry in &list.checked {
        // An entry without conditions would check nothing.
        if entry.when.is_empty() {
            return Err(Error::Number(entry.name.clone()));
        }
        let conditions = entry
            .when
            .iter()
            .map(|w| condition(&entry.name, w))
            .collect::<Result<Vec<_>, _>>()?;
        match names::number(arch, &entry.name) {
            Number::Is(number) => match rules.get_mut(&number) {
                // Allowed anyway.
                Some(rule) if rule.is_empty() => return Err(Error::Twice(entry.name.clone())),
                Some(rule) => rule.push(conditions),
                None => {
                    rules.insert(number, vec![conditions]);
                }
            },
            Number::Absent => {}
            Number::Unknown => return Err(Error::Unknown(entry.name.clone())),
        }
    }
    Ok(())
}

fn program(role: Role, text: Option<Range>) -> Result<Vec<sock_filter>, Error> {
    let arch = Arch::host();
    let program = compile::compile(arch, text, &rules(arch, role)?);
    if program.len() > MAX_INSTRUCTIONS {
        Err(Error::TooLong)
    } else {
        Ok(program)
    }
}

/// The filter of the `process` machine: calls from outside `text` raise SIGSYS, calls from inside are checked against
/// the allow-list, whoever makes them; what is not allowed kills the process.
pub fn process_filter(text: Range) -> Result<Vec<sock_filter>, Error> {
    program(Role::Process, Some(text))
}

/// The filter of a thread of QVisor: what is not on its list kills the process it belongs to. The sandbox process, whose end
/// nobody else can explain, first says which call it was ([`crate::sys::refused`]): there it raises SIGSYS.
pub fn thread_filter(role: Role) -> Result<Vec<sock_filter>, Error> {
    let mut program = program(role, None)?;
    if matches!(role, Role::Server | Role::Broker | Role::Service) {
        compile::trap(&mut program);
    }
    Ok(program)
}

/// Host call `number` in words for a person.
pub fn describe(number: u32) -> String {
    match names::name(Arch::host(), number) {
        Some(name) => format!("{name} ({number})"),
        None => number.to_string(),
    }
}

/// Installs a filter on the calling thread and all it will create.
pub fn install(program: &[sock_filter]) -> Result<(), Error> {
    Ok(crate::sys::install_filter(program)?)
}
