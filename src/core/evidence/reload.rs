//! What is forgotten when rules and policies change: an answer to another question, and
//! clocks that ran for another meaning. All else is kept.

use super::Evidence;

impl Evidence {
    /// The rule of this name asks for something else now, or is gone.
    pub fn forget_rule(&mut self, name: &str) {
        self.rules.remove(name);
        self.signals.retain(|(_, signal), _| signal != name);
    }

    /// The fault of this name means something else now, or is gone.
    pub fn forget_fault(&mut self, policy: &str, fault: &str) {
        self.faults
            .retain(|(_, of, name), _| (of.as_str(), name.as_str()) != (policy, fault));
    }
}
