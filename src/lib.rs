//! The service around the pure core.

pub mod alertmanager;
pub mod app;
pub mod cli;
pub mod cloud;
pub mod cluster;
pub mod controller;
pub mod exec;
pub mod fetch;
pub mod http;
pub mod prometheus;
pub mod sim;
pub mod telemetry;
