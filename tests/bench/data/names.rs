//! What the nodes of the fleet are called, and when everything happens.

use jiff::Timestamp;

/// When everything happens that a benchmark measures.
pub const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// The name of a node.
pub fn name(number: usize) -> String {
    let [a, b, c] = address(number);
    format!("ip-10-{a}-{b}-{c}.eu-central-1.compute.internal")
}

/// The last three numbers of its address.
pub const fn address(number: usize) -> [usize; 3] {
    [number >> 16, number >> 8 & 255, number & 255]
}
