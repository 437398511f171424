//! Configuration files: found, opened, handed to the core, and every mistake of
//! all of them told at once.

use std::fmt;
use std::fs;
use std::path::Path;

use nodemend_core::api::Mode;
use nodemend_core::config::{
    self, Connection, Credentials, Document, Pattern, Policy, Problem, Rules, Settings,
};
use nodemend_core::model::digest;

use crate::http::{Tls, TlsFiles};

/// Everything that the service is configured by.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// `nodemend.yaml`.
    pub settings: Settings,
    /// The rules to poll.
    pub rules: Rules,
    /// The policies from files.
    pub policies: Vec<Policy>,
    /// The digest of the files that this was read from.
    pub digest: String,
}

/// Every mistake that was found.
#[derive(Debug)]
pub struct Error(pub Vec<Problem>);

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        write!(
            f,
            "{count} {}",
            if count == 1 { "mistake" } else { "mistakes" }
        )
    }
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) name: String,
    pub(super) text: String,
}

impl Text {
    pub(super) fn document(&self) -> Document<'_> {
        Document {
            file: &self.name,
            text: &self.text,
        }
    }
}

/// The files as they were read, judged only as far as one names the others.
#[derive(Debug)]
pub struct Files {
    pub(super) config: Text,
    pub(super) rules: Vec<Text>,
    pub(super) policies: Vec<Text>,
    pub(super) problems: Vec<Problem>,
    /// Absolute patterns that match no file here; where the service runs they may.
    pub(super) absent: Vec<Problem>,
    digest: String,
}

/// Reads the configuration file, and the rule and policy files that it names,
/// relative to it.
pub fn read(file: &Path) -> Files {
    let name = file.display().to_string();
    let (mut problems, mut absent) = (Vec::new(), Vec::new());
    let text = fs::read_to_string(file).unwrap_or_else(|error| {
        problems.push(unreadable(&name, &error));
        String::new()
    });
    let config = Text { name, text };
    let named = config::named(&config.document());
    let home = file.parent().unwrap_or(Path::new(""));
    let mut texts =
        |patterns: &[Pattern]| texts(&config.name, home, patterns, &mut problems, &mut absent);
    let (rules, policies) = (texts(&named.rules), texts(&named.policies));
    let mut files = Files {
        config,
        rules,
        policies,
        problems,
        absent,
        digest: String::new(),
    };
    files.digest = files.digest_of();
    files
}

/// Reads the files and judges them.
pub fn load(file: &Path) -> Result<Loaded, Error> {
    read(file).load()
}

impl Files {
    /// The same for the same contents.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    fn digest_of(&self) -> String {
        let problems = self.problems.iter().chain(&self.absent);
        let problems: Vec<String> = problems.map(ToString::to_string).collect();
        let files = self.rules.iter().chain(&self.policies);
        let parts: Vec<&str> = [self.config.text.as_str()]
            .into_iter()
            .chain(files.flat_map(|file| [file.name.as_str(), &file.text]))
            .chain(problems.iter().map(String::as_str))
            .collect();
        digest(&parts, 64)
    }

    /// Judges what was read.
    pub fn load(self) -> Result<Loaded, Error> {
        let mut problems = self.problems;
        if self.config.text.is_empty() && !problems.is_empty() {
            // It could not be read.
            return Err(Error(problems));
        }
        problems.extend(self.absent);
        let name = &self.config.name;
        let settings = config::settings(&self.config.document());
        let settings = settings.map_err(|found| problems.extend(found)).ok();
        if let Some(settings) = &settings {
            problems.extend(check_webhook(name, settings));
            let (prometheus, alertmanager) = (&settings.prometheus, &settings.alertmanager);
            problems.extend(without_sdk(name, "prometheus", prometheus));
            problems.extend(without_sdk(name, "alertmanager", alertmanager));
        }
        let rules = config::rules(&documents(&self.rules));
        let rules = rules.map_err(|found| problems.extend(found)).ok();
        let policies = config::policies(&documents(&self.policies));
        let policies = policies.map_err(|found| problems.extend(found)).ok();
        problems.extend(policies.iter().flatten().filter_map(without_cloud));
        match (settings, rules, policies) {
            (Some(settings), Some(rules), Some(policies)) if problems.is_empty() => Ok(Loaded {
                settings,
                rules,
                policies,
                digest: self.digest,
            }),
            _ => Err(Error(problems)),
        }
    }
}

/// Why this build cannot do what a policy asks for.
pub fn without_cloud(policy: &Policy) -> Option<Problem> {
    (policy.mode != Mode::Observe && cfg!(not(feature = "ec2"))).then(|| {
        problem(
            &policy.name,
            "this nodemend was built without EC2 and cannot repair".into(),
            "build it with the feature ec2, or write mode: Observe",
        )
    })
}

/// Why this build cannot sign requests.
fn without_sdk(config: &str, field: &str, connection: &Connection) -> Option<Problem> {
    let signed = matches!(connection.credentials, Credentials::SigV4 { .. });
    (signed && cfg!(not(feature = "ec2"))).then(|| {
        problem(
            config,
            format!("{field}.sigv4: this nodemend was built without the AWS SDK"),
            "build it with the feature ec2",
        )
    })
}

fn problem(file: &str, message: String, hint: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 0,
        column: 0,
        message,
        hint: hint.to_owned(),
    }
}

/// A file that is there and says nothing.
pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Problem {
    let message = format!("cannot be read: {error}");
    problem(file, message, "it must be a text that this user may read")
}

fn documents(texts: &[Text]) -> Vec<Document<'_>> {
    texts.iter().map(Text::document).collect()
}

/// The files that the patterns match, in the order of their names, each once.
fn texts(
    config: &str,
    home: &Path,
    patterns: &[Pattern],
    problems: &mut Vec<Problem>,
    absent: &mut Vec<Problem>,
) -> Vec<Text> {
    let mut found = std::collections::BTreeMap::new();
    for pattern in patterns {
        // The directory's own name is no pattern, whatever characters it has.
        let home = glob::Pattern::escape(&home.display().to_string());
        let whole = Path::new(&home).join(&pattern.text).display().to_string();
        let refusal = |message: String, hint: &str| Problem {
            line: pattern.line,
            column: pattern.column,
            ..problem(config, message, hint)
        };
        let paths = match glob::glob(&whole) {
            Ok(paths) => paths,
            Err(error) => {
                let message = format!("`{}` is not a pattern: {error}", pattern.text);
                problems.push(refusal(message, "such as rules/*.yaml"));
                continue;
            }
        };
        let paths: Vec<_> = paths.flatten().filter(|path| path.is_file()).collect();
        if paths.is_empty() {
            let message = format!("`{}` matches no file", pattern.text);
            if Path::new(&pattern.text).is_absolute() {
                absent.push(refusal(message, "the service needs one"));
            } else {
                problems.push(refusal(message, "it is relative to this file"));
            }
        }
        for path in paths {
            let name = path.display().to_string();
            match fs::read_to_string(&path) {
                Ok(text) => {
                    found.insert(name.clone(), Text { name, text });
                }
                Err(error) => problems.push(unreadable(&name, &error)),
            }
        }
    }
    found.into_values().collect()
}

/// Where the webhook's certificates are.
pub fn tls_files(settings: &Settings) -> Option<TlsFiles> {
    let ours = settings.webhook_tls.as_ref()?;
    let auth = &settings.webhook_auth;
    let clients = auth.client_certificate.as_ref();
    let others =
        auth.bearer_token_file.is_some() || auth.basic.is_some() || auth.token_review.is_some();
    Some(TlsFiles {
        cert: (&ours.cert_file).into(),
        key: (&ours.key_file).into(),
        client_ca: clients.map(|clients| (&clients.ca_file).into()),
        client_required: clients.is_some() && !others,
    })
}

fn check_webhook(config: &str, settings: &Settings) -> Vec<Problem> {
    const AUTH: &str = "alertmanager.webhookAuth";
    let auth = &settings.webhook_auth;
    let token = auth
        .bearer_token_file
        .as_ref()
        .and_then(|file| check_secret(config, &format!("{AUTH}.bearerTokenFile"), file));
    let password = auth.basic.as_ref().map(|basic| &basic.password_file);
    let password =
        password.and_then(|file| check_secret(config, &format!("{AUTH}.basic.passwordFile"), file));
    let tls = tls_files(settings)
        .and_then(|files| Tls::open(files, |_| ()).err())
        .map(|error| {
            let hint = "both in PEM, readable by this user";
            problem(config, format!("listen.tls: {error}"), hint)
        });
    [token, password, tls].into_iter().flatten().collect()
}

fn check_secret(config: &str, field: &str, file: &str) -> Option<Problem> {
    let message = match fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => "is empty".to_owned(),
        Ok(_) => return None,
        Err(error) => format!("cannot be read: {error}"),
    };
    let message = format!("{field}: {file} {message}");
    Some(problem(config, message, "it is what Alertmanager sends"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) -> std::path::PathBuf {
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory.join("nodemend.yaml")
    }

    #[test]
    fn the_mistakes_of_all_files_are_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let config = write(
            directory.path(),
            &[
                (
                    "nodemend.yaml",
                    "cluster: c\nprometheus: {urls: [\"http://p\"]}\nrules: [r/*.yaml, none/*.yaml]\npolicies: [p/*.yaml]\n",
                ),
                ("r/a.yaml", "groups:\n- name: g\n  rules:\n  - alert: A\n"),
                (
                    "p/a.yaml",
                    "apiVersion: nodemend.dev/v1alpha1\nkind: RepairPolicy\nmetadata: {name: p}\nspec: {faults: [{name: f}]}\n",
                ),
            ],
        );
        let Err(error) = load(&config) else {
            panic!("nothing was found")
        };
        let text = error.to_string();
        for part in ["none/*.yaml` matches no file", "r/a.yaml:4", "p/a.yaml:4"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn an_empty_token_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        let text = format!(
            "cluster: c\nalertmanager: {{webhookAuth: {{bearerTokenFile: {}}}}}\n",
            token.display()
        );
        let config = write(
            directory.path(),
            &[("nodemend.yaml", &text), ("token", "\n")],
        );
        assert!(load(&config).is_err_and(|error| error.to_string().contains("is empty")));
        fs::write(&token, "secret").unwrap();
        assert!(load(&config).is_ok());
    }

    #[test]
    fn certificates_and_passwords_that_cannot_be_used_are_mistakes() {
        let directory = tempfile::tempdir().unwrap();
        let text = "cluster: c\nlisten: {tls: {certFile: none.crt, keyFile: none.key}}\nalertmanager: {webhookAuth: {basic: {username: a, passwordFile: none.txt}}}\n";
        let config = write(directory.path(), &[("nodemend.yaml", text)]);
        let Err(error) = load(&config) else {
            panic!("nothing was found")
        };
        let text = error.to_string();
        for part in [
            "basic.passwordFile: none.txt cannot be read",
            "listen.tls: none.crt cannot be read",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn signatures_need_the_sdk() {
        let directory = tempfile::tempdir().unwrap();
        for server in ["prometheus", "alertmanager"] {
            let text = format!(
                "cluster: c\n{server}: {{urls: [\"http://p\"], sigv4: {{region: eu-central-1}}}}\n"
            );
            let loaded = load(&write(directory.path(), &[("nodemend.yaml", &text)]));
            assert_eq!(loaded.is_ok(), cfg!(feature = "ec2"), "{loaded:?}");
        }
    }

    #[test]
    fn what_is_shipped_loads() {
        let root = nodemend_lab::checkout();
        for policies in ["rules/policies", "rules/policies/kube-prometheus"] {
            let directory = tempfile::tempdir().unwrap();
            let text = format!(
                "cluster: c\nprometheus: {{urls: [\"http://p\"]}}\nrules: [\"{0}/rules/*.yaml\"]\npolicies: [\"{0}/{policies}/*.yaml\"]\n",
                root.display()
            );
            let config = write(directory.path(), &[("nodemend.yaml", &text)]);
            let loaded = load(&config).unwrap_or_else(|error| panic!("{error}"));
            assert!(loaded.rules.len() >= 5 && loaded.policies.len() == 1);
        }
    }
}
