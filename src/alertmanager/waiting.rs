//! What Alertmanager said that waits for a pass: the latest answer, and whether it failed
//! after that. An answer lists all that fires, so that a newer one takes nothing of an older
//! one, but for silences: those that a member which is missing may know of still hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodemend_core::evidence::Input;
use nodemend_core::evidence::silence::Asked;

/// What was said since this was last emptied. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<Letter>>);

#[derive(Debug, Default)]
struct Letter {
    asked: Option<Asked>,
    failed: Option<String>,
}

impl Waiting {
    /// Puts in what `ask::Client::ask` gave; nothing else is taken.
    pub fn put(&self, input: Input) {
        let mut letter = self.lock();
        match input {
            Input::Asked(mut new) => {
                if let Some(old) = letter.asked.take() {
                    new.keep_silences(old.silences, Some(old.at));
                }
                (letter.asked, letter.failed) = (Some(new), None);
            }
            Input::AskFailed(message) => letter.failed = Some(message),
            _ => {}
        }
    }

    /// Takes all of it out.
    pub fn take(&self) -> impl Iterator<Item = Input> + use<> {
        let Letter { asked, failed } = std::mem::take(&mut *self.lock());
        let asked = asked.into_iter().map(Input::Asked);
        asked.chain(failed.map(Input::AskFailed))
    }

    fn lock(&self) -> MutexGuard<'_, Letter> {
        // A panic elsewhere leaves at worst an answer out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use nodemend_core::evidence::silence::Silence;
    use nodemend_core::model::Span;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn silence(id: &str, ends: u32) -> Silence {
        Silence {
            id: id.into(),
            created_by: "ann".into(),
            starts_at: Span::minutes(60).before(NOW),
            ends_at: Span::seconds(ends).after(NOW),
            holds: true,
            matchers: Vec::new(),
        }
    }

    fn asked(at: u32, missing: Option<&str>, silences: &[Silence]) -> Asked {
        Asked {
            at: Span::seconds(at).after(NOW),
            running_since: Span::minutes(60).before(NOW),
            receivers: Vec::new(),
            missing: missing.map(str::to_owned),
            alerts: Vec::new(),
            silences: silences.to_vec(),
        }
    }

    fn check(answers: &[Input], expect: &[Input]) {
        let waiting = Waiting::default();
        for answer in answers {
            waiting.put(answer.clone());
        }
        assert_eq!(waiting.take().collect::<Vec<_>>(), expect);
        assert_eq!(waiting.take().count(), 0);
    }

    #[test]
    fn one_answer_waits_and_one_failure_after_it() {
        let whole = |at| Input::Asked(asked(at, None, &[]));
        let failed = |text: &str| Input::AskFailed(text.into());
        check(&[whole(0), whole(60), whole(120)], &[whole(120)]);
        check(&[failed("a"), whole(60)], &[whole(60)]);
        check(
            &[whole(0), failed("a"), failed("b")],
            &[whole(0), failed("b")],
        );
    }

    #[test]
    fn h12_a_silence_that_a_missing_member_may_know_of_waits_on() {
        let [short, long] = [silence("short", 30), silence("long", 600)];
        let both = [short.clone(), long.clone()];
        let part = |at, silences: &[Silence]| Input::Asked(asked(at, Some("gone"), silences));
        let whole = |at, silences: &[Silence]| Input::Asked(asked(at, None, silences));
        check(&[whole(0, &both), part(60, &[])], &[part(60, &[long])]);
        // Whoever tells of it knows better, and so do all members together.
        let [_, later] = [silence("short", 30), silence("long", 900)];
        let told = std::slice::from_ref(&later);
        check(&[whole(0, &both), part(60, told)], &[part(60, told)]);
        check(&[part(0, &both), whole(60, &[])], &[whole(60, &[])]);
        let young = Asked {
            running_since: NOW,
            ..asked(60, None, &[])
        };
        let expect = Asked {
            silences: vec![silence("long", 600)],
            ..young.clone()
        };
        check(
            &[whole(0, &both), Input::Asked(young)],
            &[Input::Asked(expect)],
        );
    }
}
