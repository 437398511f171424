//! What is forgotten when rules and policies change: an answer to another question, and
//! the age of clocks that ran for another meaning. All else is kept.

use super::Evidence;

impl Evidence {
    /// The rule of this name asks for something else now, or is gone. That its signal fired
    /// is no more known to be over than to go on.
    pub fn forget_rule(&mut self, name: &str) {
        self.plain.clear();
        self.rules.remove(name);
        for clocks in self.clocks.values_mut() {
            if let Some(clock) = clocks.signals.get_mut(name) {
                clock.restart();
            }
            clocks.disputes.remove(name);
        }
    }

    /// The fault of this name means something else now, or is gone.
    pub fn forget_fault(&mut self, policy: &str, fault: &str) {
        self.plain.clear();
        for clocks in self.clocks.values_mut() {
            if let Some(faults) = clocks.faults.get_mut(policy) {
                faults.remove(fault);
            }
        }
    }
}
