//! The kernel's own figures, for whoever runs the sandbox: `quark metrics`.

use crate::fs::File;
use crate::task::table;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashSet;

/// Names and values.
pub fn all() -> Vec<(Vec<u8>, u64)> {
    let processes = table::processes();
    let mut files: HashSet<usize> = HashSet::new();
    let mut descriptors = 0;
    for p in &processes {
        let task = p.tasks.lock().first().cloned();
        for (_, file) in task.map(|t| t.files().list()).unwrap_or_default() {
            descriptors += 1;
            files.insert(Arc::<File>::as_ptr(&file) as usize);
        }
    }
    let heap = hal::heap_usage();
    let host = hal::host_usage();
    [
        ("heap_allocated_bytes", heap.allocated as u64),
        ("heap_claimed_bytes", heap.claimed as u64),
        ("processes", processes.len() as u64),
        ("tasks", table::task_count() as u64),
        ("descriptors", descriptors),
        ("open_files", files.len() as u64),
        (
            "oom_kills",
            crate::container::all().iter().map(|c| c.oom_kills()).sum(),
        ),
        ("host_requests", host.requests),
        ("window_read_bytes", host.window_read_bytes),
    ]
    .into_iter()
    .map(|(name, value)| (name.as_bytes().to_vec(), value))
    .collect()
}
