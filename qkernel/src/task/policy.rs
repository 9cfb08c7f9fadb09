//! How a task wants to be scheduled. Kept, shown and inherited; the machine's scheduler treats all tasks alike. Source:
//! `sched(7)`.

/// `SCHED_OTHER`.
pub const OTHER: u32 = 0;
/// `SCHED_FIFO`.
pub const FIFO: u32 = 1;
/// `SCHED_RR`.
pub const ROUND_ROBIN: u32 = 2;
/// `SCHED_BATCH`.
pub const BATCH: u32 = 3;
/// `SCHED_IDLE`.
pub const IDLE: u32 = 5;
/// `SCHED_DEADLINE`.
pub const DEADLINE: u32 = 6;

/// A task's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// One of the numbers above, but [`DEADLINE`].
    pub kind: u32,
    /// 1–99 of a real-time policy, else 0.
    pub priority: u32,
    /// Children do not inherit what is better than usual.
    pub reset_on_fork: bool,
}

/// Whether a policy's number is that of a real-time policy with priorities.
pub fn is_real_time(kind: u32) -> bool {
    matches!(kind, FIFO | ROUND_ROBIN)
}

impl Policy {
    /// What a new task of a parent with this policy and `nice` (a nice value + 20) begins with.
    pub fn inherited(self, nice: u32) -> (Self, u32) {
        if !self.reset_on_fork {
            return (self, nice);
        }
        let fresh = Self {
            reset_on_fork: false,
            ..self
        };
        match is_real_time(self.kind) {
            true => (Self::default(), 20),
            false => (fresh, nice.max(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_better_than_usual_is_not_inherited_when_it_is_to_be_reset() {
        let p = |kind, priority, reset_on_fork| Policy {
            kind,
            priority,
            reset_on_fork,
        };
        assert_eq!(p(FIFO, 7, false).inherited(3), (p(FIFO, 7, false), 3));
        assert_eq!(p(FIFO, 7, true).inherited(3), (p(OTHER, 0, false), 20));
        assert_eq!(p(BATCH, 0, true).inherited(3), (p(BATCH, 0, false), 20));
        assert_eq!(p(IDLE, 0, true).inherited(30), (p(IDLE, 0, false), 30));
    }
}
