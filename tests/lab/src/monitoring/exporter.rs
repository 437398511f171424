//! What the fake nodes' node exporters say, and how a test changes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A value that a test can set, by the name it has on a real node exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// `node_filesystem_readonly` of the root file system, 0 or 1.
    FilesystemReadonly,
    /// `node_filesystem_device_error`: statfs failed, 0 or 1.
    FilesystemDeviceError,
    /// `node_filesystem_size_bytes`.
    FilesystemSizeBytes,
    /// `node_filesystem_avail_bytes` (and `_free_bytes`).
    FilesystemAvailBytes,
    /// `node_filesystem_files`: inodes.
    FilesystemFiles,
    /// `node_filesystem_files_free`.
    FilesystemFilesFree,
    /// Growth per second of `node_disk_ioerr_total`, failed commands of the disk.
    DiskIoErrors,
    /// Growth per second of `node_disk_io_time_seconds_total`; 1 is a saturated disk.
    DiskIoTime,
    /// Growth per second of `node_network_receive_errs_total`.
    ReceiveErrors,
    /// Growth per second of `node_network_transmit_errs_total`.
    TransmitErrors,
    /// Growth per second of `node_network_receive_packets_total`.
    ReceivePackets,
    /// Growth per second of `node_network_transmit_packets_total`.
    TransmitPackets,
    /// Not 0: the exporter answers 500.
    Down,
}

/// How a metric grows: as set, or by so much a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

const ROOT: &str = r#"device="/dev/nvme0n1p1",fstype="ext4",mountpoint="/""#;
const ROOT_WITHOUT_ERROR: &str =
    r#"device="/dev/nvme0n1p1",device_error="",fstype="ext4",mountpoint="/""#;
const RUN: &str = r#"device="tmpfs",device_error="",fstype="tmpfs",mountpoint="/run""#;
const DISK: &str = r#"device="nvme0n1""#;
const NETWORK: &str = r#"device="eth0""#;

/// Metric, name, labels, kind, value (or growth) on a healthy node.
const TABLE: [(Metric, &str, &str, Kind, f64); 12] = [
    (
        Metric::FilesystemReadonly,
        "node_filesystem_readonly",
        ROOT_WITHOUT_ERROR,
        Kind::Gauge,
        0.0,
    ),
    (
        Metric::FilesystemDeviceError,
        "node_filesystem_device_error",
        ROOT_WITHOUT_ERROR,
        Kind::Gauge,
        0.0,
    ),
    (
        Metric::FilesystemSizeBytes,
        "node_filesystem_size_bytes",
        ROOT_WITHOUT_ERROR,
        Kind::Gauge,
        1e11,
    ),
    (
        Metric::FilesystemAvailBytes,
        "node_filesystem_avail_bytes",
        ROOT_WITHOUT_ERROR,
        Kind::Gauge,
        7e10,
    ),
    (
        Metric::FilesystemFiles,
        "node_filesystem_files",
        ROOT_WITHOUT_ERROR,
        Kind::Gauge,
        6_000_000.0,
    ),
    (
        Metric::FilesystemFilesFree,
        "node_filesystem_files_free",
        ROOT_WITHOUT_ERROR,
        Kind::Gauge,
        5_000_000.0,
    ),
    (
        Metric::DiskIoErrors,
        "node_disk_ioerr_total",
        DISK,
        Kind::Counter,
        0.0,
    ),
    (
        Metric::DiskIoTime,
        "node_disk_io_time_seconds_total",
        DISK,
        Kind::Counter,
        0.02,
    ),
    (
        Metric::ReceiveErrors,
        "node_network_receive_errs_total",
        NETWORK,
        Kind::Counter,
        0.0,
    ),
    (
        Metric::TransmitErrors,
        "node_network_transmit_errs_total",
        NETWORK,
        Kind::Counter,
        0.0,
    ),
    (
        Metric::ReceivePackets,
        "node_network_receive_packets_total",
        NETWORK,
        Kind::Counter,
        1000.0,
    ),
    (
        Metric::TransmitPackets,
        "node_network_transmit_packets_total",
        NETWORK,
        Kind::Counter,
        1000.0,
    ),
];

impl Metric {
    /// By the name of the exporter's metric, or `down`.
    pub fn named(name: &str) -> Option<Self> {
        if name == "down" {
            return Some(Self::Down);
        }
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// A value as it was when set, and since when it grows.
#[derive(Debug, Clone, Copy)]
struct Setting {
    base: f64,
    value: f64,
    since: Instant,
}

/// The exporters of all nodes; clones share them.
#[derive(Debug, Clone)]
pub struct Exporter {
    started: Instant,
    settings: Arc<Mutex<BTreeMap<(String, Metric), Setting>>>,
    extra: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Default for Exporter {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            settings: Arc::default(),
            extra: Arc::default(),
        }
    }
}

impl Exporter {
    /// Sets a gauge, or how much a counter grows per second from now on.
    pub fn set(&self, node: &str, metric: Metric, value: f64) {
        let now = Instant::now();
        let base = self.value(node, metric, now);
        lock(&self.settings).insert(
            (node.to_owned(), metric),
            Setting {
                base,
                value,
                since: now,
            },
        );
    }

    /// Whether the node's exporter answers at all.
    pub fn set_down(&self, node: &str, down: bool) {
        self.set(node, Metric::Down, f64::from(u8::from(down)));
    }

    /// Lines to add to a node's text, for metrics that the lab does not know.
    pub fn set_extra(&self, node: &str, text: &str) {
        lock(&self.extra).insert(node.to_owned(), text.to_owned());
    }

    /// Back to a healthy node.
    pub fn reset(&self, node: &str) {
        lock(&self.settings).retain(|(name, _), _| name != node);
        lock(&self.extra).remove(node);
    }

    /// The text of a node's exporter; none if it is down.
    pub fn text(&self, node: &str) -> Option<String> {
        let now = Instant::now();
        if self.value(node, Metric::Down, now) != 0.0 {
            return None;
        }
        let mut text = String::new();
        for (metric, name, labels, kind, _) in TABLE {
            let kind = if kind == Kind::Counter {
                "counter"
            } else {
                "gauge"
            };
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(
                text,
                "# TYPE {name} {kind}\n{name}{{{labels}}} {}",
                self.value(node, metric, now)
            );
            if name == "node_filesystem_avail_bytes" || name == "node_filesystem_size_bytes" {
                let _ = writeln!(text, "{name}{{{RUN}}} 1e9");
            } else if name == "node_filesystem_readonly" {
                let _ = writeln!(text, "{name}{{{RUN}}} 0");
            }
        }
        let available = self.value(node, Metric::FilesystemAvailBytes, now);
        let _ = writeln!(
            text,
            "# TYPE node_filesystem_free_bytes gauge\nnode_filesystem_free_bytes{{{ROOT_WITHOUT_ERROR}}} {available}"
        );
        let _ = writeln!(
            text,
            "# TYPE node_filesystem_mount_info gauge\nnode_filesystem_mount_info{{{ROOT}}} 1"
        );
        let _ = writeln!(
            text,
            "# TYPE node_disk_iodone_total counter\nnode_disk_iodone_total{{{DISK}}} {}",
            self.growth(100.0, now)
        );
        let _ = writeln!(
            text,
            "# TYPE node_network_up gauge\nnode_network_up{{{NETWORK}}} 1"
        );
        let _ = writeln!(
            text,
            "# TYPE node_uname_info gauge\nnode_uname_info{{domainname=\"(none)\",machine=\"x86_64\",nodename=\"{node}\",release=\"lab\",sysname=\"Linux\",version=\"lab\"}} 1"
        );
        let seconds = jiff::Timestamp::now().as_second();
        let _ = writeln!(
            text,
            "# TYPE node_time_seconds gauge\nnode_time_seconds {seconds}"
        );
        text.push_str(lock(&self.extra).get(node).map_or("", String::as_str));
        Some(text)
    }

    fn value(&self, node: &str, metric: Metric, now: Instant) -> f64 {
        let row = TABLE.iter().find(|row| row.0 == metric);
        let (kind, healthy) = row.map_or((Kind::Gauge, 0.0), |row| (row.3, row.4));
        let setting = lock(&self.settings)
            .get(&(node.to_owned(), metric))
            .copied();
        match (kind, setting) {
            (Kind::Gauge, Some(setting)) => setting.value,
            (Kind::Gauge, None) => healthy,
            (Kind::Counter, Some(setting)) => {
                setting.base
                    + setting.value * now.saturating_duration_since(setting.since).as_secs_f64()
            }
            (Kind::Counter, None) => self.growth(healthy, now),
        }
    }

    fn growth(&self, per_second: f64, now: Instant) -> f64 {
        per_second * now.saturating_duration_since(self.started).as_secs_f64()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_shows_only_on_its_node() {
        let exporter = Exporter::default();
        exporter.set("a", Metric::FilesystemReadonly, 1.0);
        let line = |node: &str| {
            let text = exporter.text(node).unwrap();
            text.lines()
                .find(|line| line.starts_with("node_filesystem_readonly{device=\"/dev"))
                .map(str::to_owned)
        };
        assert!(line("a").is_some_and(|line| line.ends_with(" 1")));
        assert!(line("b").is_some_and(|line| line.ends_with(" 0")));
    }

    #[test]
    fn a_counter_keeps_what_it_had_when_its_growth_changes() {
        let exporter = Exporter::default();
        let later = exporter.started + std::time::Duration::from_secs(10);
        assert!((exporter.value("a", Metric::ReceivePackets, later) - 10_000.0).abs() < 1.0);
        exporter.set("a", Metric::ReceivePackets, 0.0);
        assert!(exporter.value("a", Metric::ReceivePackets, later) < 1_000.0);
    }

    #[test]
    fn a_down_exporter_says_nothing() {
        let exporter = Exporter::default();
        exporter.set_down("a", true);
        assert_eq!(exporter.text("a"), None);
        exporter.reset("a");
        assert!(exporter.text("a").is_some());
    }
}
