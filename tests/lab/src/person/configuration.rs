//! Configuration files for a nodemend that runs against the lab.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nodemend_lab::{Lab, free_port, webhook_config};

/// Replaces a node that is not Ready for long enough to be seen, not to be waited for.
const POLICY: &str = "\
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: lab}
spec:
  mode: Enforce
  priority: 10
  nodeSelector: {}
  faults:
  - name: NotReady
    when: {all: [{condition: {type: Ready, statuses: [\"False\", Unknown]}}]}
    for: 10s
    actions: [Replace]
  - name: DiskReadOnly
    when: {all: [{signal: NodeFilesystemReadOnly}]}
    for: 10s
    actions: [Replace]
  replacement: {strategy: EC2, readyTimeout: 2m}
";

/// What was written before the lab started.
pub struct Written {
    /// nodemend's configuration; complete after [`finish`].
    pub config: PathBuf,
    /// Alertmanager's configuration.
    pub alertmanager: String,
    /// Where nodemend will show its metrics.
    pub metrics: String,
}

/// Writes what does not depend on the lab's ports.
pub fn write(home: &Path) -> Result<Written> {
    let (webhook, metrics) = (free_port()?, free_port()?);
    fs::create_dir_all(home.join("rules")).context("creating the rules' directory")?;
    fs::create_dir_all(home.join("policies")).context("creating the policies' directory")?;
    fs::write(home.join("policies/lab.yaml"), POLICY).context("writing the policy")?;
    copy_rules(&nodemend_lab::checkout().join("rules"), &home.join("rules"))?;
    let token = home.join("token");
    fs::write(&token, "lab-webhook-token\n").context("writing the token")?;
    let url = format!("http://127.0.0.1:{webhook}/webhook/alertmanager");
    let config = home.join("nodemend.yaml");
    let text = format!(
        "cluster: lab\n\
         listen: {{webhook: \"127.0.0.1:{webhook}\", metrics: \"127.0.0.1:{metrics}\"}}\n\
         alertmanager: {{webhookAuth: {{bearerTokenFile: {token}}}}}\n\
         rules: [\"rules/*.yaml\"]\n\
         policies: [\"policies/*.yaml\"]\n\
         limits: {{minNodeAge: 0s}}\n",
        token = token.display(),
    );
    fs::write(&config, text).context("writing nodemend's configuration")?;
    let alertmanager = webhook_config(&url, &token, None);
    Ok(Written {
        config,
        alertmanager,
        metrics: format!("127.0.0.1:{metrics}"),
    })
}

/// Adds what is known once the lab runs.
pub fn finish(home: &Path, lab: &Lab) -> Result<()> {
    let config = home.join("nodemend.yaml");
    let text = fs::read_to_string(&config).context("reading nodemend's configuration")?;
    let text = format!(
        "{text}prometheus: {{urls: [\"{}\"]}}\n",
        lab.prometheus().url
    );
    fs::write(&config, text).context("writing nodemend's configuration")
}

/// The environment of a nodemend that runs against the lab as this account, as a shell takes it.
pub fn environment(lab: &Lab, account: &Path) -> String {
    let kubeconfig = account.display();
    let (ec2, traces) = (&lab.ec2().url, &lab.jaeger().otlp_url);
    format!(
        "KUBECONFIG={kubeconfig} AWS_ENDPOINT_URL_EC2={ec2} AWS_REGION=us-east-1 \\\n  \
         AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab OTEL_EXPORTER_OTLP_ENDPOINT={traces}"
    )
}

fn copy_rules(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).context("listing the rules")?;
    for entry in entries {
        let path = entry.context("listing the rules")?.path();
        if let (true, Some(name)) = (
            path.extension().is_some_and(|kind| kind == "yaml"),
            path.file_name(),
        ) {
            fs::copy(&path, to.join(name))
                .with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}
