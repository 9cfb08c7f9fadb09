//! The settings of `/proc/sys`, with the values a Linux host has by default.

use super::ident;
use super::sysctl::Setting;
use crate::kernel;
use alloc::format;
use alloc::string::{String, ToString};
use qlib::Errno;

/// What a setting is.
pub(super) enum Class {
    /// Shown, cannot be changed.
    Fixed(&'static str),
    /// Any text.
    Text(&'static str),
    /// An integer: default, least, greatest.
    Int(i64, i64, i64),
    /// Several integers: default and how many.
    Ints(&'static str, usize),
    /// Computed; perhaps settable.
    Live(fn() -> String, Option<fn(&str) -> Result<(), Errno>>),
}

use Class::{Fixed, Int, Ints, Live, Text};

const BIG: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

const fn s(path: &'static str, class: Class) -> Setting {
    Setting { path, class }
}

fn hostname() -> String {
    String::from_utf8_lossy(&crate::ns::current().uts.names().0).into_owned()
}

fn domainname() -> String {
    let name = crate::ns::current().uts.names().1;
    if name.is_empty() {
        String::from("(none)")
    } else {
        String::from_utf8_lossy(&name).into_owned()
    }
}

fn set_hostname(name: &str) -> Result<(), Errno> {
    uts_name(false, name)
}

fn set_domainname(name: &str) -> Result<(), Errno> {
    uts_name(true, name)
}

fn uts_name(domain: bool, name: &str) -> Result<(), Errno> {
    if name.len() > 64 {
        return Err(Errno::EINVAL);
    }
    crate::ns::current().uts.set(domain, name.as_bytes());
    Ok(())
}

fn threads_max() -> String {
    let limit = crate::container::current().pids_limit();
    limit.min(u64::from(crate::task::table::PID_MAX) / 2).to_string()
}

fn file_nr() -> String {
    // Open descriptions are not counted; descriptors are an upper bound.
    let mut n = 0;
    for p in crate::task::table::processes() {
        let task = p.tasks.lock().first().cloned();
        n += task.map_or(0, |t| t.files().list().len());
    }
    format!("{n}\t0\t9223372036854775807")
}

fn pty_nr() -> String {
    crate::fs::devpts::count().to_string()
}

fn last_pid() -> String {
    crate::ns::pid::current().last().to_string()
}

fn release() -> String {
    String::from(kernel::RELEASE)
}

fn version() -> String {
    String::from(kernel::VERSION)
}

pub(super) static TABLE: &[Setting] = &[
    s("abi/vsyscall32", Fixed("0")),
    s("debug/exception-trace", Fixed("0")),
    s("fs/aio-max-nr", Fixed("65536")),
    s("fs/aio-nr", Fixed("0")),
    s("fs/dentry-state", Fixed("0\t0\t45\t0\t0\t0")),
    s("fs/epoll/max_user_watches", Int(3_500_000, 0, BIG)),
    s("fs/file-max", Int(BIG, 0, BIG)),
    s("fs/file-nr", Live(file_nr, None)),
    s("fs/inode-nr", Fixed("0\t0")),
    s("fs/inode-state", Fixed("0\t0\t0\t0\t0\t0\t0")),
    s("fs/inotify/max_queued_events", Int(16384, 0, INT)),
    s("fs/inotify/max_user_instances", Int(128, 0, INT)),
    s("fs/inotify/max_user_watches", Int(524_288, 0, INT)),
    s("fs/lease-break-time", Fixed("45")),
    s("fs/leases-enable", Fixed("0")),
    s("fs/mount-max", Fixed("100000")),
    s("fs/mqueue/msg_default", Int(10, 1, 65536)),
    s("fs/mqueue/msg_max", Int(10, 1, 65536)),
    s("fs/mqueue/msgsize_default", Int(8192, 128, 16 << 20)),
    s("fs/mqueue/msgsize_max", Int(8192, 128, 16 << 20)),
    s("fs/mqueue/queues_max", Int(256, 0, INT)),
    s("fs/nr_open", Fixed("1048576")),
    s("fs/overflowgid", Fixed("65534")),
    s("fs/overflowuid", Fixed("65534")),
    s("fs/pipe-max-size", Int(1 << 20, 4096, INT)),
    s("fs/pipe-user-pages-hard", Int(0, 0, BIG)),
    s("fs/pipe-user-pages-soft", Int(16384, 0, BIG)),
    s("fs/protected_fifos", Fixed("0")),
    s("fs/protected_hardlinks", Fixed("1")),
    s("fs/protected_regular", Fixed("0")),
    s("fs/protected_symlinks", Fixed("1")),
    s("fs/suid_dumpable", Fixed("0")),
    s("kernel/auto_msgmni", Int(0, 0, 1)),
    s("kernel/cap_last_cap", Fixed("40")),
    s("kernel/core_pattern", Text("core")),
    s("kernel/core_pipe_limit", Int(0, 0, INT)),
    s("kernel/core_uses_pid", Int(0, 0, 1)),
    s("kernel/ctrl-alt-del", Fixed("0")),
    s("kernel/dmesg_restrict", Fixed("1")),
    s("kernel/domainname", Live(domainname, Some(set_domainname))),
    s("kernel/hostname", Live(hostname, Some(set_hostname))),
    s("kernel/hung_task_timeout_secs", Fixed("0")),
    s("kernel/io_uring_disabled", Fixed("2")),
    s("kernel/keys/maxbytes", Fixed("20000")),
    s("kernel/keys/maxkeys", Fixed("200")),
    s("kernel/kptr_restrict", Fixed("2")),
    s("kernel/modules_disabled", Fixed("1")),
    s("kernel/msg_next_id", Int(-1, -1, INT)),
    s("kernel/msgmax", Int(8192, 0, INT)),
    s("kernel/msgmnb", Int(16384, 0, INT)),
    s("kernel/msgmni", Int(32000, 0, INT)),
    s("kernel/ngroups_max", Fixed("65536")),
    s("kernel/ns_last_pid", Live(last_pid, None)),
    s("kernel/numa_balancing", Fixed("0")),
    s("kernel/osrelease", Live(release, None)),
    s("kernel/ostype", Fixed("Linux")),
    s("kernel/overflowgid", Fixed("65534")),
    s("kernel/overflowuid", Fixed("65534")),
    s("kernel/panic", Fixed("0")),
    s("kernel/panic_on_oops", Fixed("1")),
    s("kernel/perf_event_paranoid", Fixed("4")),
    s("kernel/pid_max", Fixed("4194304")),
    s("kernel/poweroff_cmd", Fixed("/sbin/poweroff")),
    s("kernel/printk", Fixed("4\t4\t1\t7")),
    s("kernel/pty/max", Fixed("4096")),
    s("kernel/pty/nr", Live(pty_nr, None)),
    s("kernel/pty/reserve", Fixed("1024")),
    s("kernel/random/boot_id", Live(ident::boot_id, None)),
    s("kernel/random/entropy_avail", Fixed("256")),
    s("kernel/random/poolsize", Fixed("256")),
    s("kernel/random/urandom_min_reseed_secs", Fixed("60")),
    s("kernel/random/uuid", Live(ident::uuid, None)),
    s("kernel/random/write_wakeup_threshold", Fixed("256")),
    s("kernel/randomize_va_space", Fixed("2")),
    s("kernel/sched_child_runs_first", Fixed("0")),
    s("kernel/sched_rr_timeslice_ms", Fixed("100")),
    s("kernel/sched_rt_period_us", Fixed("1000000")),
    s("kernel/sched_rt_runtime_us", Fixed("950000")),
    s(
        "kernel/seccomp/actions_avail",
        Fixed("kill_process kill_thread trap errno user_notif trace log allow"),
    ),
    s("kernel/sem", Ints("32000\t1024000000\t500\t32000", 4)),
    s("kernel/sem_next_id", Int(-1, -1, INT)),
    s("kernel/shm_next_id", Int(-1, -1, INT)),
    s("kernel/shm_rmid_forced", Int(0, 0, 1)),
    s("kernel/shmall", Text("18446744073692774399")),
    s("kernel/shmmax", Text("18446744073692774399")),
    s("kernel/shmmni", Int(4096, 0, 32768)),
    s("kernel/sysrq", Fixed("0")),
    s("kernel/tainted", Fixed("0")),
    s("kernel/threads-max", Live(threads_max, None)),
    s("kernel/unprivileged_bpf_disabled", Fixed("2")),
    s("kernel/unprivileged_userns_clone", Fixed("0")),
    s("kernel/version", Live(version, None)),
    s("kernel/yama/ptrace_scope", Int(0, 0, 3)),
    s("net/core/default_qdisc", Text("fq_codel")),
    s("net/core/netdev_max_backlog", Int(1000, 0, INT)),
    s("net/core/optmem_max", Int(131_072, 0, INT)),
    s("net/core/rmem_default", Int(212_992, 2304, INT)),
    s("net/core/rmem_max", Int(212_992, 2304, INT)),
    s("net/core/somaxconn", Int(4096, 0, INT)),
    s("net/core/wmem_default", Int(212_992, 4608, INT)),
    s("net/core/wmem_max", Int(212_992, 4608, INT)),
    s("net/ipv4/conf/all/accept_redirects", Int(0, 0, 1)),
    s("net/ipv4/conf/all/forwarding", Int(0, 0, 1)),
    s("net/ipv4/conf/all/route_localnet", Int(0, 0, 1)),
    s("net/ipv4/conf/all/rp_filter", Int(0, 0, 2)),
    s("net/ipv4/conf/all/send_redirects", Int(0, 0, 1)),
    s("net/ipv4/conf/all/src_valid_mark", Int(0, 0, 1)),
    s("net/ipv4/conf/default/accept_redirects", Int(0, 0, 1)),
    s("net/ipv4/conf/default/forwarding", Int(0, 0, 1)),
    s("net/ipv4/conf/default/rp_filter", Int(0, 0, 2)),
    s("net/ipv4/conf/default/send_redirects", Int(0, 0, 1)),
    s("net/ipv4/icmp_echo_ignore_all", Int(0, 0, 1)),
    s("net/ipv4/ip_default_ttl", Int(64, 1, 255)),
    s("net/ipv4/ip_forward", Int(0, 0, 1)),
    s("net/ipv4/ip_local_port_range", Ints("32768\t60999", 2)),
    s("net/ipv4/ip_local_reserved_ports", Text("")),
    s("net/ipv4/ip_nonlocal_bind", Int(0, 0, 1)),
    s("net/ipv4/ip_unprivileged_port_start", Int(1024, 0, 65535)),
    s("net/ipv4/ping_group_range", Ints("1\t0", 2)),
    s("net/ipv4/tcp_available_congestion_control", Fixed("reno cubic")),
    s("net/ipv4/tcp_congestion_control", Text("cubic")),
    s("net/ipv4/tcp_fastopen", Int(1, 0, INT)),
    s("net/ipv4/tcp_fin_timeout", Int(60, 0, INT)),
    s("net/ipv4/tcp_keepalive_intvl", Int(75, 0, INT)),
    s("net/ipv4/tcp_keepalive_probes", Int(9, 0, 255)),
    s("net/ipv4/tcp_keepalive_time", Int(7200, 0, INT)),
    s("net/ipv4/tcp_max_syn_backlog", Int(1024, 0, INT)),
    s("net/ipv4/tcp_max_tw_buckets", Int(65536, 0, INT)),
    s("net/ipv4/tcp_mtu_probing", Int(0, 0, 2)),
    s("net/ipv4/tcp_rmem", Ints("4096\t131072\t6291456", 3)),
    s("net/ipv4/tcp_sack", Int(1, 0, 1)),
    s("net/ipv4/tcp_syn_retries", Int(6, 1, 127)),
    s("net/ipv4/tcp_syncookies", Int(1, 0, 2)),
    s("net/ipv4/tcp_timestamps", Int(1, 0, 2)),
    s("net/ipv4/tcp_tw_reuse", Int(2, 0, 2)),
    s("net/ipv4/tcp_window_scaling", Int(1, 0, 1)),
    s("net/ipv4/tcp_wmem", Ints("4096\t16384\t4194304", 3)),
    s("net/ipv6/bindv6only", Int(0, 0, 1)),
    s("net/ipv6/conf/all/accept_ra", Int(1, 0, 2)),
    s("net/ipv6/conf/all/disable_ipv6", Int(0, 0, 1)),
    s("net/ipv6/conf/all/forwarding", Int(0, 0, 1)),
    s("net/ipv6/conf/default/accept_ra", Int(1, 0, 2)),
    s("net/ipv6/conf/default/disable_ipv6", Int(0, 0, 1)),
    s("net/ipv6/conf/default/forwarding", Int(0, 0, 1)),
    s("net/ipv6/conf/lo/disable_ipv6", Int(0, 0, 1)),
    s("net/unix/max_dgram_qlen", Int(512, 0, INT)),
    s("user/max_cgroup_namespaces", Fixed("0")),
    s("user/max_ipc_namespaces", Fixed("0")),
    s("user/max_mnt_namespaces", Fixed("0")),
    s("user/max_net_namespaces", Fixed("0")),
    s("user/max_pid_namespaces", Fixed("0")),
    s("user/max_user_namespaces", Fixed("0")),
    s("user/max_uts_namespaces", Fixed("0")),
    s("vm/admin_reserve_kbytes", Fixed("8192")),
    s("vm/compact_unevictable_allowed", Fixed("1")),
    s("vm/dirty_background_ratio", Fixed("10")),
    s("vm/dirty_expire_centisecs", Fixed("3000")),
    s("vm/dirty_ratio", Fixed("20")),
    s("vm/dirty_writeback_centisecs", Fixed("500")),
    s("vm/drop_caches", Fixed("0")),
    s("vm/legacy_va_layout", Fixed("0")),
    s("vm/max_map_count", Fixed("65530")),
    s("vm/min_free_kbytes", Fixed("67584")),
    s("vm/mmap_min_addr", Fixed("65536")),
    s("vm/nr_hugepages", Fixed("0")),
    s("vm/nr_overcommit_hugepages", Fixed("0")),
    s("vm/oom_kill_allocating_task", Fixed("0")),
    s("vm/overcommit_kbytes", Fixed("0")),
    s("vm/overcommit_memory", Fixed("1")),
    s("vm/overcommit_ratio", Fixed("50")),
    s("vm/page-cluster", Fixed("3")),
    s("vm/panic_on_oom", Fixed("0")),
    s("vm/swappiness", Fixed("60")),
    s("vm/unprivileged_userfaultfd", Fixed("0")),
    s("vm/user_reserve_kbytes", Fixed("131072")),
    s("vm/vfs_cache_pressure", Fixed("100")),
    s("vm/zone_reclaim_mode", Fixed("0")),
];
