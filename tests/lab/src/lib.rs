//! The real components that nodemend is tested against, on loopback ports.
//!
//! A test asks for the parts it needs, gets typed access to each, and all of
//! them end with the [`Lab`], also when the test panics.

mod apply;
mod audit;
mod cloud;
mod control_plane;
mod double;
mod forwarder;
mod http;
mod inside;
mod jaeger;
mod karpenter;
mod lab;
mod monitoring;
mod nodes;
mod options;
mod ports;
mod process;
mod programs;
mod site;
mod wait;
mod watchdog;
mod workloads;
mod yaml;

use std::path::{Path, PathBuf};

pub use audit::AuditEvent;
pub use cloud::{Call, Cloud, CloudOptions, Fate, Fault, Instance, Joining, Moto, Planned};
pub use control_plane::{ControlPlane, Pace, client_of};
pub use double::{Double, Reply, Sent};
pub use forwarder::{Forwarded, Forwarder};
pub use jaeger::{Jaeger, Span, Trace};
pub use lab::Lab;
pub use monitoring::{
    Alertmanager, AlertmanagerAlert, Exporter, Metric, Monitoring, MonitoringOptions, Prometheus,
    PrometheusAlert, Sample, webhook_config,
};
pub use nodes::{NOT_READY, NodeSpec, POOL_LABEL, ZONES};
pub use options::Options;
pub use ports::free_port;
pub use programs::Programs;
pub use wait::wait_for;
pub use workloads::Workload;

/// Chooses the one TLS provider; a second call changes nothing.
pub fn crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The checkout whose tests run. Cargo says so at run time: the one that this was built from
/// may be another, where two share what is built.
pub fn checkout() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let mut folders = package.iter().flat_map(|package| package.ancestors());
    let found = folders.find(|folder| folder.join("tests/lab/build").exists());
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    found.map_or_else(built, Path::to_owned)
}
