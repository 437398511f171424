//! Wiring: `serve` joins the adapters to the controller, `demo` joins the simulated
//! fleet to it; `load` reads the configuration files that both use.

pub mod demo;
pub mod load;
pub mod serve;
