//! The configuration as files change under a running service: what is good is taken,
//! what is bad changes nothing and is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nodemend_core::config::{Limits, Settings};
use tokio::sync::watch;

use super::load::{self, Error, Loaded};

/// How often the files' contents are compared. Contents, because a `ConfigMap` changes
/// by a link far above its files, of which watches of the files would not hear.
const LOOK: Duration = Duration::from_secs(5);

/// What is in force, and what is wrong with the files if it is not what they say.
#[derive(Clone, Debug)]
pub struct Current {
    /// The last good set.
    pub loaded: Arc<Loaded>,
    /// Every mistake in the files as they are now.
    pub mistakes: Option<Arc<Error>>,
}

/// Compares the files with what was read of them last.
#[derive(Debug)]
pub struct Reload {
    file: PathBuf,
    digest: String,
    current: Current,
}

impl Reload {
    /// Starts from what was loaded of this configuration file.
    pub fn new(file: &Path, loaded: Loaded) -> Self {
        Self {
            file: file.to_owned(),
            digest: loaded.digest.clone(),
            current: Current {
                loaded: Arc::new(loaded),
                mistakes: None,
            },
        }
    }

    /// What is in force.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// What is in force now, if the files have changed, or if it is `asked` for.
    /// Files that change while they are read are left for the next look.
    pub fn look(&mut self, asked: bool) -> Option<Current> {
        let files = load::read(&self.file);
        let same = files.digest() == self.digest;
        if same && !asked || !same && load::read(&self.file).digest() != files.digest() {
            return None;
        }
        files.digest().clone_into(&mut self.digest);
        match files.load() {
            Ok(loaded) => self.adopt(loaded),
            Err(error) => {
                tracing::error!(mistakes = %error, "the configuration changed and is not used");
                self.current.mistakes = Some(Arc::new(error));
            }
        }
        Some(self.current())
    }

    fn adopt(&mut self, loaded: Loaded) {
        let running = &self.current.loaded.settings;
        if fixed(running) != fixed(&loaded.settings) {
            tracing::warn!(
                "of nodemend.yaml only rules, policies and limits are in force, the rest waits \
                 for a restart"
            );
        }
        tracing::info!(
            rules = loaded.rules.len(),
            policies = loaded.policies.len(),
            "the configuration was read again"
        );
        let settings = Settings {
            rules: loaded.settings.rules,
            policies: loaded.settings.policies,
            limits: loaded.settings.limits,
            ..running.clone()
        };
        self.current = Current {
            loaded: Arc::new(Loaded { settings, ..loaded }),
            mistakes: None,
        };
    }
}

/// What needs a restart: listeners, connections, the cluster's name.
fn fixed(settings: &Settings) -> Settings {
    Settings {
        rules: Vec::new(),
        policies: Vec::new(),
        limits: Limits::default(),
        ..settings.clone()
    }
}

/// Looks again and again, and at once when `asked` ticks, for ever. `told` hears of
/// each change before the others do.
pub async fn follow(
    mut reload: Reload,
    mut asked: tokio::signal::unix::Signal,
    current: watch::Sender<Current>,
    told: impl Fn(&Current),
) {
    loop {
        let asked = tokio::select! {
            biased;
            signal = asked.recv() => signal.is_some(),
            () = tokio::time::sleep(LOOK) => false,
        };
        if let Some(now) = tokio::task::block_in_place(|| reload.look(asked)) {
            told(&now);
            current.send_replace(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const CONFIG: &str =
        "cluster: c\nprometheus: {urls: [\"http://p\"]}\nrules: [rules/*.yaml]\npolicies: []\n";

    fn rules(alert: &str) -> String {
        format!("groups:\n- name: g\n  rules:\n  - {{alert: {alert}, expr: up == 0}}\n")
    }

    /// Files behind links, as a `ConfigMap`'s are.
    struct Mounted {
        directory: tempfile::TempDir,
        versions: usize,
    }

    impl Mounted {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut mounted = Self {
                directory,
                versions: 0,
            };
            fs::write(mounted.config(), CONFIG).unwrap();
            mounted.swap(&rules("A"));
            let data = mounted.path("..data/rules.yaml");
            fs::create_dir(mounted.path("rules")).unwrap();
            std::os::unix::fs::symlink(data, mounted.path("rules/rules.yaml")).unwrap();
            mounted
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn config(&self) -> PathBuf {
            self.path("nodemend.yaml")
        }

        /// A new directory, and the link to it replaced.
        fn swap(&mut self, rules: &str) {
            self.versions += 1;
            let version = self.path(&format!("..{}", self.versions));
            fs::create_dir(&version).unwrap();
            fs::write(version.join("rules.yaml"), rules).unwrap();
            std::os::unix::fs::symlink(version, self.path("..data_tmp")).unwrap();
            fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        }

        fn start(&self) -> Reload {
            let loaded = load::load(&self.config()).unwrap();
            Reload::new(&self.config(), loaded)
        }
    }

    fn names(current: &Current) -> Vec<&str> {
        let rules = current.loaded.rules.iter();
        rules.map(|rule| rule.name.as_str()).collect()
    }

    #[test]
    fn a_good_change_is_taken_and_a_bad_one_changes_nothing() {
        let mut mounted = Mounted::new();
        let mut reload = mounted.start();
        assert!(reload.look(false).is_none());
        mounted.swap(&rules("B"));
        let good = reload.look(false).unwrap();
        assert_eq!(names(&good), ["B"]);
        assert!(good.mistakes.is_none() && reload.look(false).is_none());
        mounted.swap("groups:\n- name: g\n  rules:\n  - alert: C\n  - alert: D\n");
        let bad = reload.look(false).unwrap();
        assert_eq!(names(&bad), ["B"]);
        assert!(Arc::ptr_eq(&bad.loaded, &good.loaded), "it was read anew");
        let mistakes = bad.mistakes.unwrap().to_string();
        assert!(mistakes.ends_with("2 mistakes"), "{mistakes}");
        assert!(reload.look(false).is_none(), "told twice");
        assert!(reload.look(true).unwrap().mistakes.is_some());
        fs::remove_file(mounted.path("..data")).unwrap();
        let gone = reload.look(false).unwrap();
        assert!(gone.mistakes.is_some() && names(&gone) == ["B"]);
        mounted.swap(&rules("B"));
        let mended = reload.look(false).unwrap();
        assert!(mended.mistakes.is_none() && names(&mended) == ["B"]);
    }

    #[test]
    fn of_the_settings_only_what_needs_no_restart_is_taken() {
        let mounted = Mounted::new();
        let mut reload = mounted.start();
        let changed = CONFIG.replace("cluster: c", "cluster: d\nlimits: {maxInFlight: 1}");
        fs::write(mounted.config(), changed).unwrap();
        let settings = reload.look(false).unwrap().loaded.settings.clone();
        assert_eq!(
            (settings.cluster.as_str(), settings.limits.max_in_flight),
            ("c", 1)
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hangup_is_heard_without_waiting() {
        use tokio::signal::unix::{SignalKind, signal};
        let mut mounted = Mounted::new();
        let reload = mounted.start();
        let (sender, mut current) = watch::channel(reload.current());
        let hangup = signal(SignalKind::hangup()).unwrap();
        let following = tokio::spawn(follow(reload, hangup, sender, |_| {}));
        mounted.swap(&rules("B"));
        let sent = std::process::Command::new("kill")
            .args(["-HUP", &std::process::id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        current.changed().await.unwrap();
        assert_eq!(names(&current.borrow()), ["B"]);
        following.abort();
    }
}
