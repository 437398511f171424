//! Which parts of the lab run.

use std::path::PathBuf;

use crate::cloud::CloudOptions;
use crate::control_plane::Pace;
use crate::monitoring::MonitoringOptions;

/// Which parts run beside the control plane; the default is none.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Heartbeats and grace periods.
    pub pace: Pace,
    /// Prometheus, Alertmanager and the exporter.
    pub monitoring: Option<MonitoringOptions>,
    /// EC2, and nodes that instances become.
    pub cloud: Option<CloudOptions>,
    /// Jaeger.
    pub tracing: bool,
    /// Karpenter, with node repair on and a pool that grows by what pods ask for.
    pub karpenter: bool,
    /// Where the lab lives; a temporary directory by default.
    pub directory: Option<PathBuf>,
    /// Stay up for a look when the lab is dropped, until the process is
    /// stopped. `NODEMEND_LAB_KEEP=1` says the same from outside.
    pub keep: bool,
}
