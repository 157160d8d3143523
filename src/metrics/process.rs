//! What the process uses.

use std::time::Duration;

/// Memory and time of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes that are resident.
    pub resident_bytes: u64,
    /// Time of the processors, its own and that of the system for it.
    pub cpu: Duration,
}

/// What it uses now; nothing where there is no `/proc`.
pub fn used() -> Used {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second();
    parse(&read("/proc/self/statm"), &read("/proc/self/stat"), page, ticks).unwrap_or_default()
}

fn parse(statm: &str, stat: &str, page: u64, ticks: u64) -> Option<Used> {
    let resident: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    // The name of the program, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let spent: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let cpu = Duration::from_millis(spent * 1000 / ticks.max(1));
    Some(Used { resident_bytes: resident * page, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_read_whatever_the_program_is_called() {
        let stat = "1 (a ) b) S 0 1 1 0 -1 4 0 0 0 0 150 50 0 0 20 0 1 0";
        let used = parse("900 100 30 1 0 1 0", stat, 4096, 100);
        assert_eq!(used, Some(Used { resident_bytes: 409_600, cpu: Duration::from_secs(2) }));
        assert_eq!(parse("", "", 4096, 100), None);
    }

    #[test]
    fn this_process_uses_something() {
        assert!(used().resident_bytes > 1 << 20);
    }
}
