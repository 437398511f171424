//! The pure core of nodemend: what the records are, what the evidence means,
//! what to decide and what to do next. It does no I/O and reads no clock:
//! `now` is an argument, and equal inputs give equal outputs.

pub mod api;
pub mod config;
pub mod decide;
pub mod evidence;
pub mod model;
pub mod repair;
