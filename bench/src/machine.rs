//! What the machine and the processes did meanwhile: `/proc`, read before and after.
//!
//! Figures from a loaded or stolen-from machine are worth less, so they are never printed without
//! these beside them.

use std::fs;

use serde::Serialize;

/// Where a run took place.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// The bench's version.
    pub bench_version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// How many logical processors.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// What the kernel tells time by.
    pub clocksource: String,
    /// Transparent huge pages.
    pub huge_pages: String,
    /// The frequency governor, where there is one.
    pub governor: String,
}

/// The counters of one process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessSample {
    /// Processor time so far.
    pub cpu_seconds: f64,
    /// Resident memory that is the process's own.
    pub resident_own_bytes: u64,
    /// Resident pages of mapped files.
    pub resident_mapped_bytes: u64,
}

/// The counters of the whole machine, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSample {
    /// All time of all processors.
    pub total: u64,
    /// Time doing nothing.
    pub idle: u64,
    /// Time that the hypervisor gave to others.
    pub steal: u64,
}

/// What a process used in the measured window.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessUse {
    /// The process.
    pub pid: u32,
    /// `bench` or `broker`.
    pub role: &'static str,
    /// Processor seconds.
    pub cpu_seconds: f64,
    /// Processor seconds for a million records.
    pub cpu_seconds_per_million_records: f64,
    /// Processors busy on average.
    pub cores_busy: f64,
    /// Own resident memory in the end.
    pub resident_own_bytes: u64,
    /// Resident pages of mapped files in the end.
    pub resident_mapped_bytes: u64,
}

/// What everything used.
#[derive(Debug, Clone, Serialize)]
pub struct Use {
    /// Per process, the bench first.
    pub processes: Vec<ProcessUse>,
    /// Share of all processor time that was used by anyone, 0 to 1.
    pub host_busy: f64,
    /// Share that the hypervisor took away, 0 to 1.
    pub host_steal: f64,
}

/// The counters of all that is watched, at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    processes: Vec<(u32, &'static str, Option<ProcessSample>)>,
    host: Option<HostSample>,
}

impl Environment {
    /// Of this machine.
    pub fn read() -> Environment {
        let text = |path: &str| -> String {
            let text = fs::read_to_string(path);
            text.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
        };
        let field = |path: &str, name: &str| {
            let found = text(path).lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            });
            found.unwrap_or_else(|| "unknown".into())
        };
        let kilobytes = field("/proc/meminfo", "MemTotal");
        let kilobytes = kilobytes.split(' ').next().and_then(|count| count.parse::<u64>().ok());
        let system = "/sys/devices/system";
        Environment {
            bench_version: env!("CARGO_PKG_VERSION"),
            kernel: text("/proc/sys/kernel/osrelease"),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
            clocksource: text(&format!("{system}/clocksource/clocksource0/current_clocksource")),
            huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled"),
            governor: text(&format!("{system}/cpu/cpu0/cpufreq/scaling_governor")),
        }
    }
}

impl Sample {
    /// Reads the counters of this process, of the brokers, and of the host.
    pub fn read(broker_pids: &[u32]) -> Sample {
        let own = std::process::id();
        let watched =
            std::iter::once((own, "bench")).chain(broker_pids.iter().map(|pid| (*pid, "broker")));
        let processes = watched.map(|(pid, role)| (pid, role, read_process(pid))).collect();
        let host = fs::read_to_string("/proc/stat").ok().and_then(|text| parse_host(&text));
        Sample { processes, host }
    }

    /// What was used since `before`, over `seconds` and for `records`.
    pub fn since(&self, before: &Sample, seconds: f64, records: u64) -> Use {
        let processes = self.processes.iter().zip(&before.processes).filter_map(|(now, then)| {
            let (now_sample, then_sample) = (now.2?, then.2?);
            let cpu_seconds = now_sample.cpu_seconds - then_sample.cpu_seconds;
            Some(ProcessUse {
                pid: now.0,
                role: now.1,
                cpu_seconds,
                cpu_seconds_per_million_records: cpu_seconds * 1e6 / records.max(1) as f64,
                cores_busy: cpu_seconds / seconds.max(1e-9),
                resident_own_bytes: now_sample.resident_own_bytes,
                resident_mapped_bytes: now_sample.resident_mapped_bytes,
            })
        });
        let share = |part: fn(&HostSample) -> u64| match (self.host, before.host) {
            (Some(now), Some(then)) if now.total > then.total => {
                (part(&now).saturating_sub(part(&then))) as f64 / (now.total - then.total) as f64
            }
            (Some(_) | None, Some(_) | None) => 0.0,
        };
        Use {
            processes: processes.collect(),
            host_busy: 1.0 - share(|host| host.idle),
            host_steal: share(|host| host.steal),
        }
    }
}

fn read_process(pid: u32) -> Option<ProcessSample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_process(&stat, &status)
}

fn parse_process(stat: &str, status: &str) -> Option<ProcessSample> {
    // The command's name may hold spaces and brackets; what follows the last one is numbers.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let kilobytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(ProcessSample {
        // utime and stime, fields 14 and 15 of proc(5), counted from the state in field 3.
        cpu_seconds: (ticks(11)? + ticks(12)?) as f64 / TICKS_PER_SECOND,
        resident_own_bytes: kilobytes("RssAnon:")? * 1024,
        resident_mapped_bytes: (kilobytes("RssFile:")? + kilobytes("RssShmem:")?) * 1024,
    })
}

fn parse_host(stat: &str) -> Option<HostSample> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).take(8).map_while(|field| field.parse().ok()).collect();
    let [_, _, _, idle, wait, _, _, steal] = ticks[..] else { return None };
    Some(HostSample { total: ticks.iter().sum(), idle: idle + wait, steal })
}

/// `USER_HZ`, which Linux has fixed at 100 for all programs.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat = "12 (a) (b c) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 4 0 100 0 0";
        let status = "Name:\tx\nRssAnon:\t  100 kB\nRssFile:\t 7 kB\nRssShmem:\t 1 kB\n";
        let sample = parse_process(stat, status).expect("all fields are there");
        assert_eq!(sample.cpu_seconds, 3.0);
        assert_eq!(sample.resident_own_bytes, 102_400);
        assert_eq!(sample.resident_mapped_bytes, 8_192);
    }

    #[test]
    fn steal_and_idle_are_read_from_the_right_columns() {
        let stat = "cpu  10 0 20 60 5 0 1 4 0 0\ncpu0 1 2 3\n";
        assert_eq!(parse_host(stat), Some(HostSample { total: 100, idle: 65, steal: 4 }));
        assert_eq!(parse_host("cpu  1 2"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let before = Sample::read(&[]);
        let used = Sample::read(&[]).since(&before, 1.0, 10);
        assert_eq!(used.processes.len(), 1);
        assert!(used.processes[0].resident_own_bytes > 0);
    }
}
