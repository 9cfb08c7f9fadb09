//! `quark syscalls`: what the guest kernel answers.

use super::Error;
use std::io::Write;

/// The kernel's table, made from its code (`scripts/compatibility`).
const TABLE: &str = include_str!("syscalls.tsv");

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Only this state: full, partial, or an errno such as ENOSYS
    #[arg(long)]
    state: Option<String>,
    /// Only the calls whose names hold one of these words
    names: Vec<String>,
}

/// `quark syscalls`.
pub fn main(args: &Args) -> Result<i32, Error> {
    let mut text = format!(
        "{:<26}{:>7}{:>8}  {:<12}{}\n",
        "call", "x86_64", "aarch64", "state", "note"
    );
    for line in TABLE.lines() {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let (name, x86_64, aarch64, state, note) = (next(), next(), next(), next(), next());
        let wanted = args
            .state
            .as_deref()
            .is_none_or(|s| s.eq_ignore_ascii_case(state))
            && (args.names.is_empty() || args.names.iter().any(|n| name.contains(n.as_str())));
        if wanted {
            let row = format!("{name:<26}{x86_64:>7}{aarch64:>8}  {state:<12}{note}");
            text.push_str(row.trim_end());
            text.push('\n');
        }
    }
    // A reader that has seen enough closes its end.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}
