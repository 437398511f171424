//! How long something is so, in time that was observed. Only what is so, or was a
//! short while ago, has a clock.

use jiff::{SignedDuration, Timestamp};

use super::{CLEAR_AFTER, CLOCK_SKEW, NODES_STALE};
use crate::model::{Span, Truth};

/// What a clock's gaps are measured by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long it must be so to count.
    pub wait: Span,
    /// After a gap it must be so for this long, which is two evaluations.
    pub resume: Span,
}

/// How long something is so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clock {
    /// Since when, in time that counts; none until it is first so.
    pub since: Option<Timestamp>,
    /// Since when it is not so, while that may still pass.
    pub clear_since: Option<Timestamp>,
    settled: Timestamp,
    /// Since when nothing is known. It ends only after a while of knowing.
    pub gap: Option<Timestamp>,
    known_again: Option<Timestamp>,
    /// Whether it lost its age to what nobody saw: that it is young then says nothing of
    /// how long it is so.
    pub restarted: bool,
}

impl Clock {
    pub fn start(now: Timestamp) -> Self {
        Self {
            since: None,
            clear_since: None,
            settled: now,
            gap: None,
            known_again: None,
            restarted: false,
        }
    }

    /// As an earlier leader kept it. It stood still from when that one last looked. Of
    /// what was not `clear` for it, youth is no proof.
    pub fn restored(since: Timestamp, stood: Timestamp, clear: bool) -> Self {
        Self {
            since: Some(since.min(stood)),
            gap: Some(stood),
            restarted: !clear,
            ..Self::start(stood)
        }
    }

    /// Begins anew once something is known, as what it measured means something else now: of
    /// that nothing was ever known.
    pub fn restart(&mut self) {
        *self = Self {
            since: Some(self.settled),
            gap: Some(Timestamp::MIN),
            ..Self::start(self.settled)
        };
    }

    /// Keeps the time. A gap pauses it, whether the source was silent or nobody looked (a
    /// wall clock that jumps is the same); one longer than `pace.wait` starts it anew, a
    /// shorter one is over once the source said the same for `pace.resume`. `CLEAR_AFTER`
    /// of clear resets it. A wall clock that went back never lengthens it, and is a gap of
    /// unknown length.
    pub fn tick(&mut self, truth: Truth, pace: Pace, now: Timestamp) {
        self.restarted |= CLOCK_SKEW.after(now) < self.settled;
        let before = self.settled.min(now);
        let passed = now.duration_since(before);
        self.settled = self.settled.max(now);
        if passed > NODES_STALE.signed() {
            self.gap.get_or_insert(before);
            self.known_again = None;
        }
        match truth {
            Truth::True => {
                self.clear_since = None;
                self.resume(pace, passed, now);
                self.since = Some(self.since.map_or(now, |since| since.min(now)));
            }
            Truth::Unknown => {
                self.gap.get_or_insert(before);
                (self.known_again, self.clear_since) = (None, None);
                self.pause(passed, now);
            }
            Truth::False => {
                self.known_again = None;
                if let Some(gap) = self.gap.take() {
                    self.pause(passed, now);
                    if now.duration_since(gap) > pace.wait.signed() {
                        self.since = None;
                    }
                }
                let clear = *self.clear_since.get_or_insert(now);
                if CLEAR_AFTER.after(clear) <= now {
                    self.since = None;
                }
            }
        }
    }

    fn resume(&mut self, pace: Pace, passed: SignedDuration, now: Timestamp) {
        let Some(gap) = self.gap else { return };
        if self.since.is_none() || now.duration_since(gap) > pace.wait.signed() {
            (self.since, self.gap, self.known_again) = (None, None, None);
            self.restarted = true;
            return;
        }
        self.pause(passed, now);
        if pace.resume.after(*self.known_again.get_or_insert(now)) <= now {
            (self.gap, self.known_again) = (None, None);
        }
    }

    fn pause(&mut self, passed: SignedDuration, now: Timestamp) {
        let since = self.since.and_then(|since| since.checked_add(passed).ok());
        self.since = since.map(|since| since.min(now));
    }
}

/// Ticks the clock in this place. There is none before the first time, and none after it
/// was reset: such a clock holds nothing.
pub(super) fn tick(clock: &mut Option<Clock>, truth: Truth, pace: Pace, now: Timestamp) {
    if clock.is_none() && truth != Truth::True {
        return;
    }
    let running = clock.get_or_insert_with(|| Clock::start(now));
    running.tick(truth, pace, now);
    if running.since.is_none() {
        *clock = None;
    }
}
