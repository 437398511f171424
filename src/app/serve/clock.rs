//! What time it is.

use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;

/// The service's one clock: the wall's at the start, and from then on a monotonic one.
/// A wall clock that jumps makes no fault older and no window shorter.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub(super) fn now() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (wall, began) = START.get_or_init(|| (Timestamp::now(), instant()));
    wall.checked_add(began.elapsed()).unwrap_or(*wall)
}

/// For how long something takes.
#[expect(clippy::disallowed_methods, reason = "measures how long a pass takes")]
pub(super) fn instant() -> Instant {
    Instant::now()
}
