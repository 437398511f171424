//! The service around the pure core.

pub mod app;
pub mod cli;
pub mod controller;
pub mod exec;
pub mod prometheus;
pub mod sim;
pub mod telemetry;
