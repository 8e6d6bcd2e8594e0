//! What a process used, as Linux counts it.

use std::time::Duration;

use anyhow::Context as _;

/// The unit of `/proc/PID/stat` on every Linux: a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process, its ended threads included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub user: Duration,
    pub system: Duration,
}

impl Cpu {
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/stat");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}: this needs Linux"))?;
        // The name of the program stands in parentheses and may hold anything.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |number: usize| rest.split_ascii_whitespace().nth(number)?.parse::<u32>().ok();
        let ticks = field(11).zip(field(12)).with_context(|| format!("{path} has another form than expected"))?;
        Ok(Self { user: TICK.saturating_mul(ticks.0), system: TICK.saturating_mul(ticks.1) })
    }

    pub fn total(self) -> Duration {
        self.user.saturating_add(self.system)
    }

    pub fn since(self, earlier: Self) -> Self {
        Self { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

/// CPU time of this thread.
pub fn of_this_thread() -> anyhow::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}: this needs Linux"))?;
    let nanoseconds = text.split_ascii_whitespace().next().and_then(|first| first.parse().ok());
    nanoseconds.map(Duration::from_nanos).with_context(|| format!("{path} has another form than expected"))
}

/// Resident size of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    pub now: u64,
    pub peak: u64,
}

impl Resident {
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}: this needs Linux"))?;
        let kilobytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        let (now, peak) = kilobytes("VmRSS:")
            .zip(kilobytes("VmHWM:"))
            .with_context(|| format!("{path} has another form than expected"))?;
        Ok(Self { now: now * 1024, peak: peak * 1024 })
    }
}
