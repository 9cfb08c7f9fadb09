//! What a container's cgroup has used, as `runc events --stats` tells it. Source: runc's `types/events.go`.

use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Reads files of the cgroup recorded as some paths, whichever of them has the file.
struct Reader<'a>(&'a [PathBuf]);

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find_map(|p| std::fs::read_to_string(p.join(name)).ok())
    }

    fn number(&self, name: &str) -> u64 {
        let text = self.text(name).unwrap_or_default();
        match text.trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        }
    }

    /// The `name value` lines of a file.
    fn table(&self, name: &str) -> Map<String, Value> {
        let text = self.text(name).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), Value::from(value.trim().parse::<u64>().ok()?)))
        });
        pairs.collect()
    }
}

fn of(table: &Map<String, Value>, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn cpu(r: &Reader<'_>) -> Value {
    let stat = r.table("cpu.stat");
    if r.text("cpuacct.usage").is_some() {
        // Ticks of user and system time; there are 100 a second on every Linux that programs see.
        let ticks = r.table("cpuacct.stat");
        let percpu = r.text("cpuacct.usage_percpu").unwrap_or_default();
        let percpu: Vec<u64> = percpu
            .split_ascii_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        return json!({
            "usage": {
                "total": r.number("cpuacct.usage"), "percpu": percpu,
                "kernel": of(&ticks, "system") * 10_000_000, "user": of(&ticks, "user") * 10_000_000,
            },
            "throttling": {
                "periods": of(&stat, "nr_periods"), "throttledPeriods": of(&stat, "nr_throttled"),
                "throttledTime": of(&stat, "throttled_time"),
            },
        });
    }
    json!({
        "usage": {
            "total": of(&stat, "usage_usec") * 1000, "kernel": of(&stat, "system_usec") * 1000,
            "user": of(&stat, "user_usec") * 1000,
        },
        "throttling": {
            "periods": of(&stat, "nr_periods"), "throttledPeriods": of(&stat, "nr_throttled"),
            "throttledTime": of(&stat, "throttled_usec") * 1000,
        },
    })
}

fn memory(r: &Reader<'_>) -> Value {
    let stat = r.table("memory.stat");
    if r.text("memory.usage_in_bytes").is_some() {
        let figures = |prefix: &str| {
            json!({
                "limit": r.number(&format!("{prefix}.limit_in_bytes")),
                "usage": r.number(&format!("{prefix}.usage_in_bytes")),
                "max": r.number(&format!("{prefix}.max_usage_in_bytes")),
                "failcnt": r.number(&format!("{prefix}.failcnt")),
            })
        };
        return json!({
            "cache": of(&stat, "cache"), "usage": figures("memory"), "swap": figures("memory.memsw"),
            "kernel": figures("memory.kmem"), "kernelTCP": figures("memory.kmem.tcp"), "raw": stat,
        });
    }
    let figures = |name: &str| {
        json!({
            "limit": r.number(&format!("{name}.max")), "usage": r.number(&format!("{name}.current")),
            "max": r.number(&format!("{name}.peak")), "failcnt": 0,
        })
    };
    json!({
        "cache": of(&stat, "file"), "usage": figures("memory"), "swap": figures("memory.swap"), "raw": stat,
    })
}

/// Bytes and operations per device: `major:minor Operation value` (version 1), `major:minor rbytes=… rios=…` (version 2).
fn blkio(r: &Reader<'_>) -> Value {
    let entry = |device: &str, op: &str, value: &str| -> Option<Value> {
        let (major, minor) = device.split_once(':')?;
        Some(json!({
            "major": major.parse::<u64>().ok()?, "minor": minor.parse::<u64>().ok()?, "op": op,
            "value": value.parse::<u64>().ok()?,
        }))
    };
    let old = |name: &str| -> Vec<Value> {
        let text = r.text(name).unwrap_or_default();
        let entries = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            entry(words.next()?, words.next()?, words.next()?)
        });
        entries.collect()
    };
    let Some(new) = r.text("io.stat") else {
        return json!({
            "ioServiceBytesRecursive": old("blkio.throttle.io_service_bytes"),
            "ioServicedRecursive": old("blkio.throttle.io_serviced"),
        });
    };
    let mut out = json!({"ioServiceBytesRecursive": [], "ioServicedRecursive": []});
    for line in new.lines() {
        let Some((device, rest)) = line.split_once(' ') else {
            continue;
        };
        for (key, value) in rest.split(' ').filter_map(|w| w.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => ("ioServiceBytesRecursive", "Read"),
                "wbytes" => ("ioServiceBytesRecursive", "Write"),
                "rios" => ("ioServicedRecursive", "Read"),
                "wios" => ("ioServicedRecursive", "Write"),
                _ => continue,
            };
            if let (Some(list), Some(entry)) = (out[list].as_array_mut(), entry(device, op, value)) {
                list.push(entry);
            }
        }
    }
    out
}

/// The statistics of the cgroup recorded as `paths`.
pub fn of_cgroup(paths: &[PathBuf]) -> Value {
    let r = Reader(paths);
    let limit = match r.number("pids.max") {
        u64::MAX => 0,
        limit => limit,
    };
    json!({
        "cpu": cpu(&r),
        "memory": memory(&r),
        "pids": {"current": r.number("pids.current"), "limit": limit},
        "blkio": blkio(&r),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("quark-stats-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            std::fs::write(path.join(file), text).unwrap();
        }
        path
    }

    #[test]
    fn version_1() {
        let path = cgroup(
            "v1",
            &[
                ("cpuacct.usage", "5000\n"),
                ("cpuacct.stat", "user 3\nsystem 4\n"),
                ("memory.usage_in_bytes", "700\n"),
                ("memory.stat", "cache 9\nrss 8\n"),
                ("pids.current", "3\n"),
                ("pids.max", "max\n"),
                ("blkio.throttle.io_serviced", "8:0 Read 4\n8:0 Write 5\nTotal 9\n"),
            ],
        );
        let s = of_cgroup(std::slice::from_ref(&path));
        assert_eq!(s["cpu"]["usage"]["total"], 5000);
        assert_eq!(s["cpu"]["usage"]["kernel"], 40_000_000);
        assert_eq!(
            (&s["memory"]["usage"]["usage"], &s["memory"]["cache"]),
            (&json!(700), &json!(9))
        );
        assert_eq!(s["pids"], json!({"current": 3, "limit": 0}));
        assert_eq!(s["blkio"]["ioServicedRecursive"][1]["value"], 5);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn version_2() {
        let path = cgroup(
            "v2",
            &[
                ("cpu.stat", "usage_usec 7\nuser_usec 3\nsystem_usec 4\n"),
                ("memory.current", "700\n"),
                ("memory.max", "max\n"),
                ("memory.stat", "file 9\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n"),
            ],
        );
        let s = of_cgroup(std::slice::from_ref(&path));
        assert_eq!(s["cpu"]["usage"]["total"], 7000);
        assert_eq!(s["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(s["blkio"]["ioServicedRecursive"][0]["value"], 3);
        std::fs::remove_dir_all(path).unwrap();
    }
}
