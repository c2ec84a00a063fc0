//! The limits of a run.

use crate::config::Timeouts;
use crate::end::{End, Limit};
use crate::journal::Stage;
use std::time::Duration;

/// Decides when a run takes too long. Knows no clock: it is told the time since the start.
#[derive(Debug)]
pub struct Watchdog {
    timeouts: Timeouts,
    activity: u64,
    active_at: Duration,
}

impl Watchdog {
    /// How often the console is flushed and the limits are looked at, unless a limit is so short that it asks for more.
    const TICK: Duration = Duration::from_millis(100);
    const LEAST_TICK: Duration = Duration::from_millis(5);

    /// A watchdog at time zero.
    pub fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, activity: 0, active_at: Duration::ZERO }
    }

    /// How often [`Self::check`] wants to be called.
    pub fn tick(&self) -> Duration {
        let Timeouts { boot, command, silence, total } = self.timeouts;
        [boot, command, silence, total].into_iter().flatten().map(|limit| limit / 8).fold(Self::TICK, Duration::min).max(Self::LEAST_TICK)
    }

    /// Looks at the limits at `now`; `activity` counts signs of life and never goes down.
    pub fn check(&mut self, now: Duration, stage: Stage, activity: u64) -> Option<End> {
        if activity != self.activity {
            (self.activity, self.active_at) = (activity, now);
        }
        let over = |limit: Option<Duration>, since: Duration| limit.filter(|limit| now.saturating_sub(since) >= *limit);
        if let Some(limit) = over(self.timeouts.total, Duration::ZERO) {
            return Some(End::Timeout(Limit::Total, limit));
        }
        // The stage's own limit goes before silence: it says more.
        let staged = match stage {
            Stage::Booting => over(self.timeouts.boot, Duration::ZERO).map(|limit| (Limit::Boot, limit)),
            Stage::Working(since) => over(self.timeouts.command, since).map(|limit| (Limit::Command, limit)),
            Stage::Finished => None,
        };
        staged.map(|(which, limit)| End::Timeout(which, limit)).or_else(|| over(self.timeouts.silence, self.active_at).map(End::Silence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn all() -> Timeouts {
        Timeouts { boot: Some(s(10)), command: Some(s(20)), silence: Some(s(5)), total: Some(s(100)) }
    }

    #[test]
    fn each_limit_has_its_own_end() {
        let mut dog = Watchdog::new(all());
        assert_eq!(dog.check(s(4), Stage::Booting, 0), None);
        assert_eq!(dog.check(s(5), Stage::Booting, 0), Some(End::Silence(s(5))));
        assert_eq!(dog.check(s(5), Stage::Booting, 1), None, "a sign of life in time");
        assert_eq!(dog.check(s(10), Stage::Booting, 2), Some(End::Timeout(Limit::Boot, s(10))));
        assert_eq!(dog.check(s(10), Stage::Working(s(9)), 3), None);
        assert_eq!(dog.check(s(29), Stage::Working(s(9)), 4), Some(End::Timeout(Limit::Command, s(20))));
        assert_eq!(dog.check(s(60), Stage::Finished, 5), None);
        assert_eq!(dog.check(s(100), Stage::Finished, 6), Some(End::Timeout(Limit::Total, s(100))));
    }

    #[test]
    fn without_limits_nothing_ends() {
        let mut dog = Watchdog::new(Timeouts::NONE);
        assert_eq!(dog.check(s(1 << 30), Stage::Booting, 0), None);
        assert_eq!(dog.tick(), Watchdog::TICK);
        let short = Timeouts { silence: Some(Duration::from_millis(80)), ..Timeouts::NONE };
        assert_eq!(Watchdog::new(short).tick(), Duration::from_millis(10));
    }
}
