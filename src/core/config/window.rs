//! When repairs may start: cron expressions in their time zones.

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::findings::Findings;
use crate::api::WindowSpec;
use crate::model::Span;

/// The longest window. Longer ones are no windows.
const LONGEST: Span = Span::minutes(7 * 24 * 60);

/// A validated window: open from each time of its schedule on, for its duration. Times that
/// a change of the clocks leaves out do not come; those that come twice count twice.
#[derive(Clone, Debug)]
pub struct Window {
    schedule: Crontab,
    /// As it was written, with the time zone.
    text: String,
    duration: Span,
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.duration) == (&other.text, other.duration)
    }
}

impl Window {
    /// Five fields of cron, then an IANA time zone.
    pub fn new(text: &str, duration: Span) -> Result<Self, String> {
        let schedule = parse_crontab(text).map_err(|error| error.to_string())?;
        let text = text.to_owned();
        Ok(Self {
            schedule,
            text,
            duration,
        })
    }

    /// Whether it is open.
    pub fn is_open(&self, now: Timestamp) -> bool {
        // A start at `now - duration` ended just now.
        let first = self.next_start(self.duration.before(now));
        first.is_some_and(|start| start <= now)
    }

    /// When it opens next; none if never again.
    pub fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.schedule.find_next(MakeTimestamp(after)).ok()?;
        Some(next.timestamp())
    }
}

/// Checks the window at `at`.
pub(super) fn read(spec: &WindowSpec, at: &str, findings: &mut Findings<'_>) -> Option<Window> {
    let zone = spec.time_zone.as_deref().unwrap_or("UTC");
    if TimeZone::get(zone).is_err() {
        findings.add(
            &format!("{at}/timeZone"),
            format!("`{zone}` is not a time zone"),
            "an IANA name such as Europe/Berlin",
        );
        return None;
    }
    if spec.duration < Span::minutes(1) || spec.duration > LONGEST {
        let hint = "leave the window out if repairs may always start";
        findings.add(&format!("{at}/duration"), "is not within 1m and 7d", hint);
        return None;
    }
    let refuse = |findings: &mut Findings<'_>| {
        findings.add(
            &format!("{at}/schedule"),
            format!("`{}` is not a schedule", spec.schedule),
            "five fields of cron: minute, hour, day of month, month, day of week",
        );
    };
    if spec.schedule.split_whitespace().count() != 5 {
        refuse(findings);
        return None;
    }
    let Ok(window) = Window::new(&format!("{} {zone}", spec.schedule), spec.duration) else {
        refuse(findings);
        return None;
    };
    // The thirtieth of February.
    if window.next_start(Timestamp::UNIX_EPOCH).is_none() {
        refuse(findings);
        return None;
    }
    Some(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str, duration: &str) -> Window {
        Window::new(text, duration.parse().unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn check(window: &Window, now: &str, open: bool) {
        assert_eq!(window.is_open(at(now)), open, "{now}");
    }

    #[test]
    fn a_window_is_open_from_its_start_to_before_its_end() {
        let nights = window("0 2 * * MON-FRI Europe/Berlin", "4h");
        check(&nights, "2026-11-24T00:59:59Z", false);
        check(&nights, "2026-11-24T01:00:00Z", true);
        check(&nights, "2026-11-24T04:59:59Z", true);
        check(&nights, "2026-11-24T05:00:00Z", false);
        // A Saturday.
        check(&nights, "2026-11-28T02:00:00Z", false);
        assert_eq!(
            nights.next_start(at("2026-11-27T12:00:00Z")),
            Some(at("2026-11-30T01:00:00Z"))
        );
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_began() {
        let friday = window("0 22 * * FRI UTC", "6h");
        check(&friday, "2026-11-28T03:00:00Z", true);
        check(&friday, "2026-11-29T03:00:00Z", false);
        // Windows that overlap are one.
        let often = window("0 * * * * UTC", "90m");
        check(&often, "2026-11-24T10:10:00Z", true);
        check(&often, "2026-11-24T10:40:00Z", true);
        let always = window("* * * * * UTC", "7d");
        check(&always, "2026-11-24T10:10:59Z", true);
        // Open once a year, and the rest of it closed.
        let yearly = window("0 0 1 JAN * UTC", "7d");
        check(&yearly, "2026-01-07T23:59:59Z", true);
        check(&yearly, "2026-01-08T00:00:00Z", false);
    }

    #[test]
    fn a_start_that_the_clocks_leave_out_does_not_come_and_one_that_comes_twice_does() {
        // In Berlin clocks go from 02:00 to 03:00 on the last Sunday of March, and from
        // 03:00 back to 02:00 on the last of October.
        let night = window("30 2 * * * Europe/Berlin", "30m");
        check(&night, "2026-03-28T01:45:00Z", true);
        for minute in 0..60 {
            check(&night, &format!("2026-03-29T01:{minute:02}:00Z"), false);
        }
        check(&night, "2026-10-25T00:45:00Z", true);
        check(&night, "2026-10-25T01:45:00Z", true);
        // A duration is time that passes, whatever the clock shows.
        let long = window("0 1 * * * Europe/Berlin", "4h");
        check(&long, "2026-03-29T03:59:00Z", true);
        check(&long, "2026-10-25T02:59:00Z", true);
    }
}
