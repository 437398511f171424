//! Answers that wait for a pass. In a storm a pass may take minutes, while every rule is
//! asked on its interval: of each rule the latest answer waits, and of those that it
//! replaced only what it does not speak of.
//!
//! What evidence makes of an answer decides what may go:
//!
//! - What fires, and who has data, is what the latest answer says.
//! - Of each node it remembers when its series was last seen, and whether the node was seen
//!   without it since: the last word on a dying node, which an answer that lacks that node
//!   does not take back. So the presence of a node in an older answer stays until a newer
//!   one has it, together with the series that may be about it.
//! - A failure counts since the first that nothing followed.
//! - Clocks, also the two words after a gap, go by passes, never by answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use nodemend_core::evidence::identity::Labels;
use nodemend_core::evidence::{Answer, Input};

/// Of so many replaced answers parts may be kept; of older ones only that their nodes were
/// seen, which makes what fired on them unknown.
const MAX_EARLIER: usize = 8;

/// What Prometheus said to each rule since this was last emptied. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<BTreeMap<String, Letter>>>);

impl Waiting {
    /// Puts an answer in, asked for at `asked`, in place of an older one to this rule.
    pub fn put(&self, rule: &str, asked: Timestamp, answer: Answer) {
        let mut letters = self.lock();
        let letter = letters.entry(rule.to_owned()).or_default();
        match answer {
            Answer::Failed(message) => {
                let since = letter.failed.take().map_or(asked, |(since, _)| since);
                letter.failed = Some((since, message));
            }
            Answer::Series { firing, present } => letter.replace(Packed {
                asked,
                firing: firing.iter().map(pairs).collect(),
                present: present.map(|series| series.iter().map(pairs).collect()),
            }),
        }
    }

    /// Takes all of it out. An answer is unpacked only as it is reached.
    pub fn take(&self) -> impl Iterator<Item = Input> + use<> {
        let letters = std::mem::take(&mut *self.lock());
        let letters = letters.into_iter();
        letters.flat_map(|(name, letter)| letter.inputs(name))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Letter>> {
        // A panic elsewhere leaves at worst an answer out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be told of one rule, in this order.
#[derive(Debug, Default)]
struct Letter {
    /// The oldest first.
    earlier: Vec<Packed>,
    latest: Option<Packed>,
    /// Since when it failed after the latest answer, and how it did last.
    failed: Option<(Timestamp, String)>,
}

impl Letter {
    fn replace(&mut self, new: Packed) {
        self.failed = None;
        self.earlier.extend(self.latest.take());
        // Where there is no presence, nothing is remembered beyond the latest.
        let told: BTreeSet<Series<'_>> = new.present.iter().flat_map(Pack::iter).collect();
        let about = labels_of(&told);
        self.earlier
            .retain_mut(|earlier| new.present.is_some() && earlier.forget(&told, &about));
        self.latest = Some(new);
        while self.earlier.len() > MAX_EARLIER {
            let second = self.earlier.remove(1);
            let first = &mut self.earlier[0];
            first.firing = Pack::default();
            let both = [&first.present, &second.present];
            let both = both.into_iter().flatten().flat_map(Pack::iter);
            first.present = Some(both.collect());
        }
    }

    fn inputs(self, name: String) -> impl Iterator<Item = Input> {
        let answers = self.earlier.into_iter().chain(self.latest);
        let answers = answers.map(|packed| (packed.asked, packed.answer()));
        let failed = self.failed.into_iter();
        let failed = failed.map(|(since, message)| (since, Answer::Failed(message)));
        answers
            .chain(failed)
            .map(move |(asked, answer)| Input::Rule {
                name: name.clone(),
                asked,
                answer,
            })
    }
}

#[derive(Debug)]
struct Packed {
    asked: Timestamp,
    firing: Pack,
    present: Option<Pack>,
}

impl Packed {
    /// Forgets the nodes that are told of anew, and are `about` these labels. Says whether
    /// anything is left.
    fn forget(&mut self, told: &BTreeSet<Series<'_>>, about: &BTreeSet<Label<'_>>) -> bool {
        let present = self.present.iter().flat_map(Pack::iter);
        let left: Vec<Series<'_>> = present.filter(|one| !told.contains(one)).collect();
        let kept = labels_of(&left);
        // One series too many says nothing of a node that is not present here; with one too
        // few the node was seen without it. One that has no label in common with any node's
        // presence may be about any.
        let firing = self.firing.iter().filter(|series| {
            let has = |any: &BTreeSet<Label<'_>>| series.iter().any(|label| any.contains(label));
            has(&kept) || !has(about)
        });
        let (firing, left) = (firing.collect(), left.into_iter().collect::<Pack>());
        let any = !left.sizes.is_empty();
        (self.firing, self.present) = (firing, Some(left));
        any
    }

    fn answer(self) -> Answer {
        Answer::Series {
            firing: self.firing.unpacked(),
            present: self.present.map(|present| present.unpacked()),
        }
    }
}

type Label<'a> = (&'a str, &'a str);
/// The labels of a series, in order.
type Series<'a> = Vec<Label<'a>>;

/// What series say of what they are about.
fn labels_of<'a, 'b: 'a>(series: impl IntoIterator<Item = &'a Series<'b>>) -> BTreeSet<Label<'b>> {
    let labels = series.into_iter().flatten().copied();
    labels.filter(|(name, _)| *name != "job").collect()
}

fn pairs(labels: &Labels) -> Series<'_> {
    let pairs = labels.iter();
    pairs.map(|(name, value)| (&**name, &**value)).collect()
}

/// Series in a few pieces of memory: as maps they take about eight times as much.
#[derive(Debug, Default)]
struct Pack {
    /// Names and values, one after the other.
    text: String,
    /// Of each of them, in bytes.
    lengths: Vec<u32>,
    /// How many labels each series has.
    sizes: Vec<u32>,
}

impl Pack {
    fn iter(&self) -> impl Iterator<Item = Series<'_>> {
        let (mut text, mut lengths) = (self.text.as_str(), self.lengths.iter());
        let mut next = move || {
            let (part, rest) = text.split_at_checked(*lengths.next()? as usize)?;
            text = rest;
            Some(part)
        };
        let sizes = self.sizes.iter();
        sizes.map(move |size| {
            let labels = (0..*size).map(|_| Some((next()?, next()?)));
            labels.flatten().collect()
        })
    }

    fn unpacked(&self) -> Vec<Labels> {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        self.iter()
            .map(|series| series.into_iter().map(owned).collect())
            .collect()
    }
}

impl<'a> FromIterator<Series<'a>> for Pack {
    fn from_iter<T: IntoIterator<Item = Series<'a>>>(series: T) -> Self {
        // No answer has as many bytes.
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut pack = Self::default();
        for labels in series {
            pack.sizes.push(number(labels.len()));
            for part in labels.into_iter().flat_map(|(name, value)| [name, value]) {
                pack.lengths.push(number(part.len()));
                pack.text.push_str(part);
            }
        }
        pack.text.shrink_to_fit();
        pack.lengths.shrink_to_fit();
        pack.sizes.shrink_to_fit();
        pack
    }
}

#[cfg(test)]
mod tests {
    use nodemend_core::config::{Rule, Rules};
    use nodemend_core::evidence::Evidence;
    use nodemend_core::model::{NodeView, SignalState, Span};

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    /// What an answer says of a node.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Word {
        Fires,
        Clear,
        Nothing,
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Of some nodes, and of one more that has data in every answer.
    fn answer(words: &[(&str, Word)]) -> Answer {
        answer_by(words, "instance")
    }

    /// What fires says its node by this label.
    fn answer_by(words: &[(&str, Word)], by: &str) -> Answer {
        let said = |word: &[Word], by: &str| -> Vec<Labels> {
            let nodes = words.iter().filter(|(_, said)| word.contains(said));
            nodes
                .map(|(node, _)| labels(&[(by, *node), ("job", "node")]))
                .collect()
        };
        let mut present = said(&[Word::Fires, Word::Clear], "instance");
        present.push(labels(&[("instance", "other"), ("job", "node")]));
        Answer::Series {
            firing: said(&[Word::Fires], by),
            present: Some(present),
        }
    }

    fn rules() -> Rules {
        Rules::from_iter([Rule {
            name: "R".into(),
            expr: "up == 0".into(),
            for_: Span::default(),
            keep_firing_for: Span::minutes(15),
            presence: Some("up".into()),
            interval: Span::seconds(30),
            labels: BTreeMap::new(),
        }])
    }

    /// What comes of inputs, for nodes that are not Ready, after one pass.
    fn states(inputs: impl Iterator<Item = Input>, nodes: &[&str]) -> Vec<SignalState> {
        let view = |name: &&str| NodeView {
            name: (*name).into(),
            uid: format!("uid-{name}"),
            ..NodeView::default()
        };
        let views: Vec<NodeView> = nodes.iter().chain(&["other"]).map(view).collect();
        let mut evidence = Evidence::default();
        evidence.fold(Input::Nodes(views.clone()), NOW);
        for input in inputs {
            evidence.fold(input, NOW);
        }
        evidence.settle(&rules(), &[], NOW);
        let states = views.iter().take(nodes.len());
        states
            .map(|view| evidence.signal(view, "R", &rules(), NOW).state)
            .collect()
    }

    fn asked(number: usize) -> Timestamp {
        Span::seconds(60 - u32::try_from(number).unwrap()).before(NOW)
    }

    fn input(number: usize, answer: Answer) -> Input {
        Input::Rule {
            name: "R".into(),
            asked: asked(number),
            answer,
        }
    }

    #[test]
    fn h78_of_what_waits_the_last_word_on_each_node_counts() {
        // Where the expression drops the label that presence says its node by, too.
        for by in ["instance", "node"] {
            check_last_words(by);
        }
    }

    fn check_last_words(by: &str) {
        let words = [Word::Fires, Word::Clear, Word::Nothing];
        let mut firing = 0;
        for number in 0..words.len().pow(6) {
            // Two nodes in three answers, each in every way.
            let word = |place: u32| words[number / words.len().pow(place) % words.len()];
            let answers: Vec<Answer> = (0..3)
                .map(|turn| answer_by(&[("a", word(2 * turn)), ("b", word(2 * turn + 1))], by))
                .collect();
            let waiting = Waiting::default();
            for (turn, answer) in answers.iter().enumerate() {
                waiting.put("R", asked(turn), answer.clone());
            }
            let all = answers.into_iter().enumerate();
            let expect = states(all.map(|(turn, answer)| input(turn, answer)), &["a", "b"]);
            assert_eq!(states(waiting.take(), &["a", "b"]), expect, "{by} {number}");
            firing += expect
                .iter()
                .filter(|one| **one == SignalState::Firing)
                .count();
        }
        // By the last answer 486 do; the others are words that it does not take back.
        assert_eq!(firing, 2 * (243 + 81 + 27));
    }

    #[test]
    fn a_failure_waits_beside_the_answer_before_it_and_not_after_one() {
        let failed = |text: &str| Answer::Failed(text.into());
        let sound = || answer(&[("a", Word::Fires)]);
        let waiting = Waiting::default();
        for (number, answer) in [failed("a"), sound(), failed("b"), failed("c")]
            .into_iter()
            .enumerate()
        {
            waiting.put("R", asked(number), answer);
        }
        let found: Vec<Input> = waiting.take().collect();
        assert_eq!(found, [input(1, sound()), input(2, failed("c"))]);
        waiting.put("R", asked(0), failed("a"));
        waiting.put("R", asked(1), sound());
        let found: Vec<Input> = waiting.take().collect();
        assert_eq!(found, [input(1, sound())]);
        assert_eq!(waiting.take().count(), 0);
    }

    #[test]
    fn h20_what_waits_does_not_grow_with_the_length_of_a_pass() {
        let waiting = Waiting::default();
        let nodes: Vec<String> = (0..100).map(|number| format!("node-{number}")).collect();
        // One node after the other falls silent for good, then they come and go.
        for turn in 0..300_usize {
            let word = |number: usize| match (turn < 100, number) {
                (true, number) if number < turn => Word::Nothing,
                (false, number) if number % 7 == turn % 7 => Word::Nothing,
                _ => Word::Fires,
            };
            let words: Vec<(&str, Word)> = nodes
                .iter()
                .enumerate()
                .map(|(number, node)| (node.as_str(), word(number)))
                .collect();
            waiting.put("R", asked(0), answer(&words));
            let letters = waiting.lock();
            let letter = &letters["R"];
            assert!(letter.earlier.len() <= MAX_EARLIER);
            let of = |packed: &Packed| packed.firing.sizes.len();
            let firing: usize = letter.earlier.iter().chain(&letter.latest).map(of).sum();
            assert!(firing <= nodes.len(), "{firing} after {turn}");
        }
        assert_eq!(waiting.take().count(), 2);
    }

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let odd = [
            labels(&[]),
            labels(&[("", ""), ("a", "é\u{0}"), ("b", "x=\"y\",z")]),
            labels(&[("a", "")]),
        ];
        let pack: Pack = odd.iter().map(pairs).collect();
        assert_eq!(pack.unpacked(), odd);
    }
}
