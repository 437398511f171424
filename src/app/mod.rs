//! Wiring: `serve` joins the adapters to the controller, `demo` joins the simulated
//! fleet to it; `load` reads the configuration files, `reload` reads them again, `check`
//! tells their mistakes; `report` tells what is on record.

pub mod check;
pub mod demo;
pub mod load;
pub mod reload;
pub mod report;
pub mod scenario;
pub mod serve;
