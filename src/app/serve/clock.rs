//! What time it is, and whether that is right.

use std::sync::OnceLock;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use nodemend_core::evidence::CLOCK_SKEW;

/// The service's one clock: the wall's at the start, and from then on a monotonic one.
/// A wall clock that jumps makes no fault older and no window shorter.
pub(super) fn now() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (start, began) = START.get_or_init(|| (wall(), instant()));
    start.checked_add(began.elapsed()).unwrap_or(*start)
}

/// What the machine's clock says.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall() -> Timestamp {
    Timestamp::now()
}

/// Our clock beside the API server's. Replicas whose clocks differ would take each other's
/// times for later, or for older, than they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// Not compared yet.
    Unknown,
    /// They agree, as far as it matters.
    Right,
    /// The machine's clock is wrong; what to say of it.
    Wrong(String),
    /// The machine's clock is right, but was not when this process started, or stood still
    /// with it: only a new process reads it again.
    Set,
}

/// The clocks at two moments between which the API server said what its own shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    ours: Timestamp,
    wall: Timestamp,
}

impl Moments {
    pub(super) fn read() -> Self {
        Self {
            ours: now(),
            wall: wall(),
        }
    }
}

/// Compares the clocks. The server's is told in whole seconds.
pub(super) fn compare(asked: Moments, server: Timestamp, answered: Moments) -> Dial {
    let ours = ahead(asked.ours, server, answered.ours);
    let wall = ahead(asked.wall, server, answered.wall);
    let wrong = |by: SignedDuration| by.unsigned_abs() > CLOCK_SKEW.signed().unsigned_abs();
    match (wrong(ours), wrong(wall)) {
        (false, _) => Dial::Right,
        (true, false) => Dial::Set,
        (true, true) => {
            let way = if ours.is_positive() {
                "ahead of"
            } else {
                "behind"
            };
            let by = ours.unsigned_abs().as_secs();
            Dial::Wrong(format!(
                "the clock of this machine is {by} s {way} the API server's: set it right"
            ))
        }
    }
}

/// By how much a clock is ahead for certain, negative if it is behind.
fn ahead(asked: Timestamp, server: Timestamp, answered: Timestamp) -> SignedDuration {
    let least = asked.duration_since(server) - SignedDuration::from_secs(1);
    let most = answered.duration_since(server);
    if least.is_positive() {
        least
    } else {
        most.min(SignedDuration::ZERO)
    }
}

/// For how long something takes.
#[expect(clippy::disallowed_methods, reason = "measures how long a pass takes")]
pub(super) fn instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// The server said 100 s; ours and the machine's clock when it was asked, and how long
    /// it took.
    #[track_caller]
    fn check(ours: i64, wall: i64, took: i64, expect: &Dial) {
        let moments = |after| Moments {
            ours: at(ours + after),
            wall: at(wall + after),
        };
        assert_eq!(compare(moments(0), at(100), moments(took)), *expect);
    }

    #[test]
    fn h55_a_clock_that_is_not_the_api_servers_is_told() {
        let wrong = |text: &str| {
            Dial::Wrong(format!(
                "the clock of this machine is {text} the API server's: set it right"
            ))
        };
        for (ours, took) in [(100, 0), (106, 0), (95, 0), (80, 15), (60, 600)] {
            check(ours, ours, took, &Dial::Right);
        }
        check(107, 107, 0, &wrong("6 s ahead of"));
        check(3701, 3701, 1, &wrong("3600 s ahead of"));
        check(90, 90, 3, &wrong("7 s behind"));
        check(160, 100, 0, &Dial::Set);
        check(40, 101, 1, &Dial::Set);
        check(100, 500, 1, &Dial::Right);
    }
}
