//! The table for people: `docs/compatibility.md` and the data of `quark syscalls` are made from the rows, and must be current.

use super::dispatch::row;
use super::{Row, Support};
use hal::Sysno;
use std::fmt::Write;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

const HEAD: &str = "\
# System calls

What QKernel answers, on x86_64 and aarch64. The page is made from the kernel's own table (`scripts/compatibility` writes it, `make test` compares it);
`quark syscalls` prints the same. *full*: as the man page says. *partial*: but for what the note says. An errno: the call always fails with it.
Every number without a name here is `ENOSYS`, as are the 32-bit and x32 calls.

";

fn name(sysno: Sysno) -> &'static str {
    sysno.name().trim_end_matches('_')
}

fn number(n: Option<u16>) -> String {
    n.map_or_else(|| "-".to_string(), |n| n.to_string())
}

fn state(row: &Row) -> (&'static str, &'static str) {
    match row.support {
        Support::Full => ("full", ""),
        Support::Partial(missing) => ("partial", missing),
        Support::Refused(errno, why) => (errno.name(), why),
    }
}

fn rows() -> Vec<&'static Row> {
    let mut rows: Vec<_> = Sysno::ALL.iter().map(|s| row(*s)).collect();
    rows.sort_by_key(|r| name(r.sysno));
    rows
}

/// One call a line: name, number on x86_64, number on aarch64, state, note.
fn data() -> String {
    let mut out = String::new();
    for r in rows() {
        let (state, note) = state(r);
        let n = r.sysno.numbers();
        let _ = writeln!(
            out,
            "{}\t{}\t{}\t{state}\t{note}",
            name(r.sysno),
            number(n.x86_64),
            number(n.aarch64)
        );
    }
    out
}

fn page() -> String {
    let mut out = String::from(HEAD);
    out.push_str("| call | x86_64 | aarch64 | | note |\n|---|---|---|---|---|\n");
    for r in rows() {
        let (state, note) = state(r);
        let n = r.sysno.numbers();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {state} | {note} |",
            name(r.sysno),
            number(n.x86_64),
            number(n.aarch64)
        );
    }
    out
}

#[test]
fn the_compatibility_page_is_current() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let write = std::env::var_os("QUARK_WRITE_PAGES").is_some();
    for (file, text) in [
        ("docs/compatibility.md", page()),
        ("qvisor/src/cli/syscalls.tsv", data()),
    ] {
        let path = top.join(file);
        if write {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{file} is not current: run scripts/compatibility");
    }
}

#[test]
fn refusals_name_a_real_errno() {
    for r in rows() {
        if let Support::Refused(errno, why) = r.support {
            assert!(
                errno.name() != "E?" && errno.0 < 512 && !why.is_empty(),
                "{}",
                name(r.sysno)
            );
        }
    }
}
