//! One document per mistake, and what is said of it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

/// Each problem as `line:column message`.
fn shown(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.message))
        .collect()
}

fn check<T: fmt::Debug>(result: Result<T, Vec<Problem>>, expect: &[&str]) {
    let problems = result.expect_err("it should be refused");
    assert_eq!(shown(&problems), expect);
    for problem in problems {
        assert!(!problem.hint.is_empty(), "no hint: {problem}");
    }
}

fn document(text: &str) -> Document<'_> {
    Document {
        file: "test.yaml",
        text,
    }
}

const SMALLEST: &str = "\
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: general}
spec:
  mode: Enforce
  nodeSelector: {matchLabels: {workload: general}}
  replacement: {strategy: EC2}
  faults:
  - {name: DiskFailing, when: {all: [{signal: NodeDiskIOErrors}]}, actions: [Replace]}
";

/// The smallest policy with one piece of text exchanged for another.
fn check_policy(from: &str, to: &str, expect: &[&str]) {
    assert!(SMALLEST.contains(from), "{from}");
    check(
        policies(&[document(&SMALLEST.replacen(from, to, 1))]),
        expect,
    );
}

#[test]
fn the_smallest_policy_gets_safe_defaults() {
    let policies = policies(&[document(SMALLEST)]).unwrap();
    let [policy] = policies.as_slice() else {
        panic!("{policies:?}")
    };
    assert_eq!(policy.name, "general");
    assert_eq!(policy.mode, Mode::Enforce);
    assert_eq!(policy.ready_timeout, Span::minutes(15));
    assert_eq!(policy.drain_timeout, Span::minutes(15));
    assert_eq!(policy.max_attempts, 2);
    assert_eq!(policy.max_pod_grace_period, None);
    assert_eq!(policy.faults[0].actions, [Action::Replace]);
    assert_eq!(policy.faults[0].for_, Span::default());
}

#[test]
fn five_mistakes_are_reported_at_once() {
    let text = "\
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: general}
spec:
  mode: Approve
  nodeSelektor: {}
  drain:
    timeout: 0s
  faults:
  - name: DiskFailing
    for: ten minutes
    when:
      all: [{fault: Missing}]
    actions: [Replace]
";
    check(
        policies(&[document(text)]),
        &[
            "5:9 Approve needs a strategy",
            "6:3 unknown field `nodeSelektor`",
            "8:14 must be longer than 0s",
            "11:10 `ten minutes` is not a duration",
            "13:21 no fault `Missing` in this policy",
        ],
    );
}

#[test]
fn mistakes_of_shape() {
    check_policy(
        "kind: RepairPolicy",
        "kind: Policy",
        &["2:7 `kind` must be RepairPolicy"],
    );
    check_policy(
        "v1alpha1",
        "v1",
        &["1:13 `apiVersion` must be nodemend.dev/v1alpha1"],
    );
    check_policy(
        "name: general",
        "labels: {}",
        &["3:11 field `name` is missing"],
    );
    check_policy(
        "general}\nspec",
        "General}\nspec",
        &["3:18 `General` is not a name"],
    );
    check_policy(
        "mode: Enforce",
        "mode: enforce",
        &["5:9 `enforce` is not known here"],
    );
    check_policy("mode: Enforce", "mode:", &["5:3 `null` is not known here"]);
    check_policy(
        "mode: Enforce",
        "priority: 3000000000",
        &["5:13 `3000000000` is more than 2147483647"],
    );
    check_policy(
        "workload: general",
        "workload: true",
        &["6:42 `true` is not of type string"],
    );
    check_policy(
        "{strategy: EC2}",
        "{strategy: EC2, maxAttempts: 9}",
        &["7:45 `9` is more than 5"],
    );
    check_policy(
        "{strategy: EC2}",
        "{strategy: EC2, ec2: {launchTemplate: {id: template, version: $Latest}}}",
        &[
            "7:59 `template` is not written as expected",
            "7:78 `$Latest` is not written as expected",
        ],
    );
    check_policy(
        "actions: [Replace]",
        "actions: [Replace], for: ''",
        &["9:93 `` is not a duration"],
    );
}

#[test]
fn mistakes_of_yaml() {
    check_policy(
        "mode: Enforce",
        "mode: [",
        &["6:3 is not YAML: invalid indentation"],
    );
    check_policy(
        "mode: Enforce",
        "mode: Enforce\n  mode: Observe",
        &["6:3 is not YAML: duplicated key in mapping"],
    );
    check_policy(
        "mode: Enforce",
        "mode: &m Enforce\n  priority: *m",
        &["6:13 aliases are not supported"],
    );
    check_policy(
        "mode: Enforce",
        "1: Enforce",
        &["5:3 a key must be a string"],
    );
    check_policy(
        "mode: Enforce",
        "mode: !odd [Enforce]",
        &["5:9 tags are not supported"],
    );
}

#[test]
fn a_star_in_a_text_is_no_alias() {
    for expr in [
        "|\n      *up",
        "|\n      *up == 0",
        ">-\n      *up\n      == 0",
        "'*up'",
        "\"*up\"",
    ] {
        assert!(
            rules(&[document(&RULES.replace("rate(errors[5m]) > 0", expr))]).is_ok(),
            "{expr}"
        );
    }
}

#[test]
fn deep_nesting_is_refused_without_a_crash() {
    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        assert!(policies(&[document(&text)]).is_err());
    }
    let indented: String = (0..5_000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .take(1_000)
        .collect();
    assert!(policies(&[document(&indented)]).is_err());
}

#[test]
fn what_is_not_built_is_said() {
    for (strategy, column) in [
        ("Auto", 17),
        ("Karpenter", 17),
        ("AutoScalingGroup", 17),
        ("ClusterAPI", 17),
    ] {
        let expect = format!("7:{column} NotSupportedYet: strategy {strategy}");
        check_policy(
            "strategy: EC2",
            &format!("strategy: {strategy}"),
            &[&expect],
        );
    }
    check_policy(
        "{strategy: EC2}",
        "{strategy: EC2, order: TerminateFirst}",
        &["7:32 NotSupportedYet: order TerminateFirst"],
    );
    check_policy(
        "{strategy: EC2}",
        "{strategy: EC2, onRecovered: Keep}",
        &["7:32 NotSupportedYet: onRecovered Keep"],
    );
    check_policy(
        "  replacement:",
        "  drain: {onTimeout: Force}\n  replacement:",
        &["7:11 NotSupportedYet: onTimeout Force"],
    );
    check_policy(
        "  replacement:",
        "  budgets: [{name: a}, {name: b, maxRepairs: 1}, {name: b, maxInFlight: 1}, {name: c, maxUnavailable: '1.5', maxRepairs: 1, within: 0s}]\n  replacement:",
        &[
            "7:13 limits nothing",
            "7:24 is half a rate",
            "7:57 a budget `b` exists already",
            "7:103 `1.5` is neither a number nor a percentage",
            "7:133 must be longer than 0s",
        ],
    );
    for (window, expect) in [
        (
            "schedule: '0 2 * * MON', duration: 4h, timeZone: Mars/Base",
            "7:63 `Mars/Base` is not a time zone",
        ),
        (
            "schedule: '0 2 * * MON', duration: 8d",
            "7:49 is not within 1m and 7d",
        ),
        (
            "schedule: '0 2 * * MON', duration: 0s",
            "7:49 is not within 1m and 7d",
        ),
        (
            "schedule: '0 25 * * MON', duration: 1h",
            "7:24 `0 25 * * MON` is not a schedule",
        ),
        (
            "schedule: '0 2 * * MON UTC', duration: 1h",
            "7:24 `0 2 * * MON UTC` is not a schedule",
        ),
        (
            "schedule: '0 2 30 FEB *', duration: 1h",
            "7:24 `0 2 30 FEB *` is not a schedule",
        ),
    ] {
        check_policy(
            "  replacement:",
            &format!("  windows: [{{{window}}}]\n  replacement:"),
            &[expect],
        );
    }
    check_policy(
        "[Replace]",
        "[Replace, Reboot]",
        &["9:87 Reboot can never follow Replace"],
    );
    check_policy(
        "[Replace]",
        "[Reboot, Reboot]",
        &["9:86 Reboot is there already"],
    );
}

#[test]
fn ladders_of_actions() {
    let actions = |text: &str| {
        let text = SMALLEST.replacen("[Replace]", text, 1);
        policies(&[document(&text)]).map(|mut policies| policies.remove(0).faults.remove(0).actions)
    };
    let (reboot, replace, cordon) = (Action::Reboot, Action::Replace, Action::Cordon);
    assert_eq!(actions("[Reboot, Replace]"), Ok(vec![reboot, replace]));
    assert_eq!(actions("[Reboot, Cordon]"), Ok(vec![reboot, cordon]));
    check_policy(
        "[Replace]",
        "[Cordon, Replace]",
        &["9:86 Replace can never follow Cordon"],
    );
    check_policy(
        "[Replace]",
        "[Reboot, Cordon, Reboot]",
        &["9:94 Reboot is there already"],
    );
    // Where nothing but the node object is touched, nobody has to replace it.
    let cordons = SMALLEST.replacen("[Replace]", "[Cordon]", 1);
    let cordons = cordons.replacen("  replacement: {strategy: EC2}\n", "", 1);
    assert!(policies(&[document(&cordons)]).is_ok());
    check_policy(
        "  replacement: {strategy: EC2}\n  faults:\n  - {name: DiskFailing, when: {all: [{signal: NodeDiskIOErrors}]}, actions: [Replace]}",
        "  faults:\n  - {name: DiskFailing, when: {all: [{signal: NodeDiskIOErrors}]}, actions: [Reboot, Cordon]}",
        &["5:9 Enforce needs a strategy"],
    );
}

#[test]
fn mistakes_of_meaning() {
    check_policy(
        "  replacement: {strategy: EC2}\n",
        "",
        &["5:9 Enforce needs a strategy"],
    );
    check_policy(", actions: [Replace]", "", &["8:3 no fault has an action"]);
    check_policy(
        "{all: [{signal: NodeDiskIOErrors}]}",
        "{}",
        &["9:31 says nothing"],
    );
    check_policy(
        "{signal: NodeDiskIOErrors}",
        "{}",
        &["9:38 is not one thing"],
    );
    check_policy(
        "{signal: NodeDiskIOErrors}",
        "{signal: A, fault: DiskFailing}",
        &[
            "9:12 rests on itself: DiskFailing -> DiskFailing",
            "9:38 is not one thing",
        ],
    );
    check_policy(
        "all: [{signal: NodeDiskIOErrors}]",
        "atLeast: {count: 2, of: [{signal: A}]}",
        &["9:49 2 of 1 can never hold"],
    );
    check_policy(
        "{strategy: EC2}",
        "{strategy: EC2, readyTimeout: 0s}",
        &["7:46 must be longer than 0s"],
    );
    check_policy(
        "  replacement:",
        "  drain: {maxPodGracePeriod: 500ms}\n  replacement:",
        &["7:30 is below 1s"],
    );
    let selector = "{matchLabels: {workload: general}}";
    check_policy(
        selector,
        "{matchExpressions: [{key: a, operator: In}]}",
        &["6:37 In needs values"],
    );
    check_policy(
        selector,
        "{matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
        &["6:72 Exists takes no values"],
    );
    let by_hand = "  - {name: ByHand, when: {all: [{signal: B}]}}\n  - {name: D";
    check_policy("  - {name: D", by_hand, &["9:12 `ByHand` is taken"]);
    let fault = "  - {name: DiskFailing, when: {all: [{signal: B}]}}\n  - {name: D";
    check_policy(
        "  - {name: D",
        fault,
        &["10:12 a fault `DiskFailing` exists already"],
    );
}

#[test]
fn a_circle_of_faults_is_reported_once() {
    let faults = "  - {name: A, when: {all: [{fault: B}]}, actions: [Replace]}
  - {name: B, when: {none: [{fault: A}]}}
  - {name: D";
    check_policy(
        "  - {name: D",
        faults,
        &["9:12 rests on itself: A -> B -> A"],
    );
}

#[test]
fn a_policy_name_is_unique_over_all_files() {
    let twice = format!("{SMALLEST}---\n{SMALLEST}");
    check(
        policies(&[document(&twice)]),
        &["13:18 a policy `general` exists already"],
    );
    assert_eq!(
        policies(&[document(&twice.replacen("general}", "other}", 1))])
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn an_object_gets_the_same_checks_and_names_the_field() {
    let good = policies(&[document(SMALLEST)]).unwrap().remove(0);
    let mut object: crate::api::RepairPolicy = crate::api::RepairPolicy::new(
        "general",
        serde_json::from_value(serde_json::json!({
            "mode": "Enforce",
            "nodeSelector": {"matchLabels": {"workload": "general"}},
            "replacement": {"strategy": "EC2"},
            "faults": [{"name": "DiskFailing", "when": {"all": [{"signal": "NodeDiskIOErrors"}]}, "actions": ["Replace"]}],
        }))
        .unwrap(),
    );
    assert_eq!(policy(&object).unwrap(), good);
    object.spec.faults[0].when = When::default();
    object.spec.replacement.max_attempts = Some(9);
    let problems = policy(&object).unwrap_err();
    assert_eq!(
        shown(&problems),
        [
            "0:0 spec.faults[0].when: says nothing",
            "0:0 spec.replacement.maxAttempts: `9` is more than 5"
        ]
    );
    assert_eq!(problems[0].file, "general");
}

const RULES: &str = "\
groups:
- name: disk
  interval: 30s
  rules:
  - alert: NodeDiskIOErrors
    expr: rate(errors[5m]) > 0
    for: 2m
    keep_firing_for: 15m
    labels: {severity: critical}
    annotations: {summary: s, nodemend_presence: node_uname_info}
";

fn check_rules(from: &str, to: &str, expect: &[&str]) {
    assert!(RULES.contains(from), "{from}");
    check(rules(&[document(&RULES.replacen(from, to, 1))]), expect);
}

#[test]
fn a_rule_is_read_whole() {
    let labels = |severity: &str| BTreeMap::from([("severity".into(), severity.into())]);
    let expect = Rule {
        name: "NodeDiskIOErrors".into(),
        expr: "rate(errors[5m]) > 0".into(),
        for_: Span::minutes(2),
        keep_firing_for: Span::minutes(15),
        presence: Some("node_uname_info".into()),
        interval: Span::seconds(30),
        labels: labels("critical"),
    };
    assert_eq!(*rules(&[document(RULES)]).unwrap(), [expect]);
    let plain = rules(&[document(
        &RULES.replace("  interval: 30s\n", "  limit: 5\n  query_offset: 1m\n"),
    )])
    .unwrap();
    assert_eq!(plain[0].interval, Span::minutes(1));
    let group = "  labels: {severity: info, team: nodes}\n  interval";
    let both = rules(&[document(&RULES.replace("  interval", group))]).unwrap();
    let mut expect = labels("critical");
    expect.insert("team".into(), "nodes".into());
    assert_eq!(both[0].labels, expect, "the rule's own comes first");
}

#[test]
fn mistakes_in_rules() {
    check_rules(
        "alert: NodeDiskIOErrors",
        "record: a:b",
        &["5:5 recording rules are not polled"],
    );
    check_rules("alert: NodeDiskIOErrors", "alert: ''", &["5:12 is empty"]);
    check_rules(
        "alert: NodeDiskIOErrors\n    expr",
        "expr",
        &["5:5 field `alert` is missing"],
    );
    check_rules("rate(errors[5m]) > 0", "' '", &["6:11 is empty"]);
    check_rules(
        "expr: rate(errors[5m]) > 0",
        "labels_: {}",
        &["5:5 field `expr` is missing", "6:5 unknown field `labels_`"],
    );
    check_rules("30s", "0s", &["3:13 is below 1s"]);
    check_rules(
        "30s",
        "2m",
        &["3:13 is above 1m: an answer that is older than 2m says nothing"],
    );
    check_rules("for: 2m", "for: 2 m", &["7:10 `2 m` is not a duration"]);
    check_rules(
        "severity: critical",
        "severity: 1",
        &["9:24 `1` is not of type string"],
    );
    check_rules("node_uname_info", "''", &["10:50 is empty"]);
    for presence in ["up == 1", "'last_over_time(up[15m])'"] {
        let not_plain = "10:50 is not a plain selector: of anything else Prometheus gives the \
                         time at which it is asked, and data of any age looks fresh";
        check_rules("node_uname_info", presence, &[not_plain]);
    }
    let twice = RULES.replace("groups:\n", "");
    check(
        rules(&[document(&format!("{RULES}{twice}"))]),
        &[
            "11:9 a group `disk` exists already in this file",
            "14:12 an alert `NodeDiskIOErrors` exists already",
        ],
    );
}

#[test]
fn problems_come_in_the_order_of_files_and_a_broken_file_hides_no_other() {
    let broken = RULES.replace("30s", "0s");
    let problems = rules(&[
        Document {
            file: "b.yaml",
            text: &broken,
        },
        Document {
            file: "a.yaml",
            text: "groups: [",
        },
    ]);
    let lines: Vec<String> = problems
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("a.yaml:"), "{lines:?}");
    assert_eq!(
        lines[1],
        "b.yaml:3:13: is below 1s (leave it out for the default of 1m)"
    );
}

#[test]
fn hints_say_what_to_write() {
    let hint = |from: &str, to: &str| {
        policies(&[document(&SMALLEST.replacen(from, to, 1))])
            .unwrap_err()
            .remove(0)
            .hint
    };
    assert_eq!(
        hint("  replacement: {strategy: EC2}\n", ""),
        "write `replacement.strategy: EC2`"
    );
    assert_eq!(
        hint("mode: Enforce", "mode: enforce"),
        "one of `Observe`, `Approve`, `Enforce`"
    );
    assert_eq!(
        hint("matchLabels: {workload", "matchlabels: {workload"),
        "known here: matchExpressions, matchLabels"
    );
    assert_eq!(
        hint("workload: general", "workload: true"),
        "put it in quotes"
    );
}

#[test]
fn signals_that_no_rule_provides_are_named() {
    let text = SMALLEST.replace(
        "[{signal: NodeDiskIOErrors}]",
        "[{signal: NodeDiskIOErrors}, {signal: KubeNodeNotReady}]",
    );
    let policies = policies(&[document(&text)]).unwrap();
    assert_eq!(
        check_signals(&policies, &rules(&[document(RULES)]).unwrap()),
        ["KubeNodeNotReady"]
    );
    assert_eq!(
        check_signals(&policies, &[]),
        ["KubeNodeNotReady", "NodeDiskIOErrors"]
    );
}

#[test]
fn settings_have_defaults_for_all_but_the_cluster() {
    let settings = settings(&document("cluster: prod\n")).unwrap();
    assert_eq!(settings.listen_webhook.to_string(), "127.0.0.1:9095");
    assert_eq!(settings.listen_metrics.to_string(), "0.0.0.0:9096");
    assert_eq!(settings.max_body, 33_554_432);
    assert_eq!(settings.prometheus.timeout, Span::seconds(10));
    assert_eq!(settings.limits, Limits::default());
}

#[test]
fn settings_are_read_whole() {
    let text = "\
cluster: prod-eu-1
listen: {webhook: '[::]:1', metrics: '127.0.0.1:2', tls: {certFile: c, keyFile: k}}
webhook: {maxBodyBytes: 2048}
alertmanager:
  urls: ['http://alertmanager:9093']
  receivers: [nodemend]
  webhookAuth:
    bearerTokenFile: /etc/nodemend/token
    basic: {username: am, passwordFile: p}
    tokenReview: {serviceAccounts: [monitoring/alertmanager]}
    clientCertificate: {caFile: ca, subjectAltNames: [am.example]}
prometheus: {urls: ['http://prometheus:9090'], timeout: 5s, externalLabels: {cluster: prod}}
probes: {allowLoopback: true}
clusterJobs: [ksm]
poolLabels: [pool]
rules: [rules/*.yaml]
policies: [rules/policies/*.yaml]
limits:
  maxInFlight: 1
  maxRepairs: [{count: 3, within: 2h}]
  breaker: {share: 5%, nodes: 7, minNodes: 2, cooldown: 1m}
  minNodeAge: 0s
  startupGrace: 5m
";
    let breaker = Breaker {
        share: 5,
        nodes: 7,
        min_nodes: 2,
        cooldown: Span::minutes(1),
    };
    let expect = Settings {
        cluster: "prod-eu-1".into(),
        listen_webhook: "[::]:1".parse().unwrap(),
        listen_metrics: "127.0.0.1:2".parse().unwrap(),
        webhook_auth: WebhookAuth {
            anonymous: false,
            bearer_token_file: Some("/etc/nodemend/token".into()),
            basic: Some(Basic {
                username: "am".into(),
                password_file: "p".into(),
            }),
            token_review: Some(TokenReview {
                audience: "nodemend".into(),
                service_accounts: vec!["monitoring/alertmanager".into()],
            }),
            client_certificate: Some(ClientCertificate {
                ca_file: "ca".into(),
                subject_alt_names: vec!["am.example".into()],
            }),
        },
        webhook_tls: Some(TlsFiles {
            cert_file: "c".into(),
            key_file: "k".into(),
        }),
        max_body: 2048,
        alertmanager: Connection {
            urls: vec!["http://alertmanager:9093".into()],
            timeout: Span::seconds(10),
            ..Connection::default()
        },
        receivers: vec!["nodemend".into()],
        prometheus: Connection {
            urls: vec!["http://prometheus:9090".into()],
            timeout: Span::seconds(5),
            ..Connection::default()
        },
        external_labels: BTreeMap::from([("cluster".into(), "prod".into())]),
        probe_loopback: true,
        rules: vec!["rules/*.yaml".into()],
        policies: vec!["rules/policies/*.yaml".into()],
        cluster_jobs: vec!["ksm".into()],
        limits: Limits {
            max_in_flight: 1,
            max_repairs: vec![(3, Span::minutes(120))],
            breaker,
            min_node_age: Span::default(),
            startup_grace: Span::minutes(5),
            pool_labels: vec!["pool".into()],
        },
    };
    assert_eq!(settings(&document(text)).unwrap(), expect);
    let guarded = settings(&document(
        "cluster: a\nalertmanager: {webhookAuth: {bearerTokenFile: t}}\n",
    ))
    .unwrap();
    assert_eq!(guarded.listen_webhook.to_string(), "0.0.0.0:9095");
    let open = "cluster: a\nlisten: {webhook: '0.0.0.0:1'}\nalertmanager: {webhookAuth: {anonymous: true}}";
    assert!(settings(&document(open)).unwrap().webhook_auth.anonymous);
}

#[test]
fn mistakes_in_settings() {
    let check = |text: &str, expect: &[&str]| check(settings(&document(text)), expect);
    check("", &["0:0 field `cluster` is missing"]);
    check("cluster: ''", &["1:10 is empty"]);
    check("cluster: a\n---\ncluster: b", &["3:1 is a second document"]);
    check(
        "cluster: a\nlisten: {page: '127.0.0.1:9097'}",
        &["2:10 NotSupportedYet: listen.page"],
    );
    check(
        "cluster: a\nlisten: {webhook: '0.0.0.0:9095'}",
        &["2:19 the webhook is open to anyone"],
    );
    let auth = |auth: &str| format!("cluster: a\nalertmanager: {{webhookAuth: {{{auth}}}}}");
    for (text, expect) in [
        (
            "anonymous: true, bearerTokenFile: t",
            "2:41 asks for nothing, the others do",
        ),
        (
            "basic: {username: 'a:b', passwordFile: p}",
            "2:48 a username holds no colon",
        ),
        (
            "tokenReview: {serviceAccounts: [alertmanager]}",
            "2:62 `alertmanager` is not a service account",
        ),
        (
            "tokenReview: {serviceAccounts: []}",
            "2:61 has fewer than 1 items",
        ),
        (
            "clientCertificate: {caFile: c, subjectAltNames: [a]}",
            "2:30 there are no client certificates without TLS",
        ),
    ] {
        check(&auth(text), &[expect]);
    }
    check(
        &(auth("anonymous: false") + "\nlisten: {webhook: '0.0.0.0:1'}"),
        &["3:19 the webhook is open to anyone"],
    );
    check(
        "cluster: a\nlisten: {metrics: ':9096'}",
        &["2:19 `:9096` is not an address"],
    );
    check(
        "cluster: a\nprometheus: {urls: ['http://p'], timeout: 0s}",
        &["2:43 must be longer than 0s"],
    );
    for (labels, expect) in [
        ("a-b: c", "2:31 `a-b` is not a label's name"),
        ("1a: c", "2:31 `1a` is not a label's name"),
        ("'': c", "2:31 `` is not a label's name"),
        ("alertname: c", "2:31 says which alert it is"),
        ("a: ''", "2:34 is empty"),
    ] {
        let text = format!("cluster: a\nprometheus: {{externalLabels: {{{labels}}}}}");
        check(&text, &[expect]);
    }
    check(
        "cluster: a\nrules: ['*.yaml']",
        &["2:1 there is no Prometheus to ask"],
    );
    check(
        "cluster: a\nlimits: {maxInFlight: 0}",
        &["2:23 `0` is less than 1"],
    );
    check(
        "cluster: a\nlimits: {breaker: {share: 0%}}",
        &["2:27 `0%` is not a percentage"],
    );
    check(
        "cluster: a\nlimits: {maxRepairs: [{count: 1, within: 0s}]}",
        &["2:42 must be longer than 0s"],
    );
    for (url, message) in [
        ("ftp://a", "is not an http or https URL"),
        ("http://me:secret@a", "holds credentials"),
        ("http://", "is not a URL"),
        ("http://a?b", "has a query or a fragment"),
    ] {
        check(
            &format!("cluster: a\nprometheus: {{urls: ['{url}']}}"),
            &[&format!("2:21 {message}")],
        );
        check(
            &format!("cluster: a\nalertmanager: {{urls: ['{url}']}}"),
            &[&format!("2:23 {message}")],
        );
    }
}

/// What follows `prometheus:` or `alertmanager:` in the settings, and a mistake in it.
fn check_connection(text: &str, expect: &[&str]) {
    for server in ["prometheus", "alertmanager"] {
        let text = format!("cluster: a\n{server}:\n{text}\n  urls: ['http://s']\n");
        check(settings(&document(&text)), expect);
    }
}

#[test]
fn a_connection_is_read_whole() {
    let read = |text: &str| {
        let text = format!("cluster: a\nprometheus: {text}\nalertmanager: {text}\n");
        let settings = settings(&document(&text)).unwrap();
        assert_eq!(settings.alertmanager, settings.prometheus);
        settings.prometheus
    };
    let plain = read("{urls: ['http://p']}");
    assert_eq!(
        (plain.credentials, plain.ca_file),
        (Credentials::None, None)
    );
    let bearer = read(
        "{urls: ['http://p'], auth: {bearerTokenFile: /t}, tls: {caFile: /ca, certFile: /c, keyFile: /k}, headers: {X-Scope-OrgID: team}}",
    );
    assert_eq!(bearer.credentials, Credentials::BearerFile("/t".into()));
    assert_eq!(bearer.ca_file.as_deref(), Some("/ca"));
    assert_eq!(bearer.identity, Some(("/c".into(), "/k".into())));
    assert_eq!(
        bearer.headers,
        [("x-scope-orgid".to_owned(), "team".to_owned())].into()
    );
    let shown = format!("{bearer:?}");
    assert!(
        shown.contains("x-scope-orgid") && !shown.contains("team"),
        "{shown}"
    );
    let basic = read("{urls: ['http://p'], auth: {basic: {username: u, passwordFile: /p}}}");
    let expect = Credentials::Basic {
        username: "u".into(),
        password_file: "/p".into(),
    };
    assert_eq!(basic.credentials, expect);
    let region = "eu-central-1".to_owned();
    let signed = read("{urls: ['http://p'], sigv4: {region: eu-central-1}}");
    assert_eq!(signed.credentials, Credentials::SigV4 { region });
}

#[test]
fn mistakes_in_a_connection() {
    for how in ["headers: {X-A: x}", "sigv4: {region: eu-central-1}"] {
        check(
            settings(&document(&format!("cluster: a\nprometheus: {{{how}}}"))),
            &["2:1 says how to ask, but not whom"],
        );
    }
    check_connection("  auth: {}", &["3:3 is not one thing"]);
    check_connection(
        "  auth: {bearerTokenFile: t, basic: {username: u, passwordFile: p}}",
        &["3:3 is not one thing"],
    );
    check_connection(
        "  auth: {basic: {username: 'a:b', passwordFile: p}}",
        &["3:28 has a colon or a control character"],
    );
    check_connection(
        "  auth: {basic: {username: u}}",
        &["3:17 field `passwordFile` is missing"],
    );
    check_connection(
        "  tls: {certFile: c}",
        &["3:3 is half a client certificate"],
    );
    check_connection(
        "  tls: {insecureSkipVerify: true}",
        &["3:9 unknown field `insecureSkipVerify`"],
    );
    check_connection(
        "  auth: {bearerTokenFile: t}\n  sigv4: {region: eu-central-1}",
        &["4:3 there is `auth` already"],
    );
    check_connection(
        "  sigv4: {region: 'eu/central'}",
        &["3:19 `eu/central` is not a region"],
    );
}

#[test]
fn mistakes_in_headers_do_not_show_values() {
    for (header, place, message) in [
        ("'a b': x", "4:5", "header `a b` is not a header's name"),
        ("'': x", "4:5", "header `` is not a header's name"),
        (
            "Authorization: secret",
            "4:5",
            "header `Authorization` is set by auth",
        ),
        (
            "X-Amz-Date: now",
            "4:5",
            "header `X-Amz-Date` is set by auth",
        ),
        ("Host: h", "4:5", "header `Host` is set by the client"),
        ("X-A: \"se\\ncret\"", "4:10", "is not a header's value"),
        ("X-A: 'secret '", "4:10", "is not a header's value"),
        ("X-A: é", "4:10", "is not a header's value"),
        ("X-A: ''", "4:10", "is not a header's value"),
        ("X-A: x\n    x-a: y", "5:5", "header `x-a` is there twice"),
    ] {
        check_connection(
            &format!("  headers:\n    {header}"),
            &[&format!("{place} {message}")],
        );
    }
}

#[test]
fn a_fault_is_the_same_if_all_it_rests_on_is() {
    let read = |text: &str| policies(&[document(text)]).unwrap().remove(0);
    let text = SMALLEST.to_owned()
        + "  - {name: Part, when: {all: [{signal: A}]}}\n"
        + "  - {name: Whole, when: {any: [{fault: Part}]}, actions: [Replace]}\n";
    let old = read(&text);
    let longer = read(
        &text
            .replace("{any:", "{all:")
            .replace("{name: Part, ", "{name: Part, severity: Critical, "),
    );
    assert!(old.same_fault(&longer, "Part") && !old.same_fault(&longer, "Whole"));
    let other = read(&text.replace("signal: A", "signal: B"));
    assert!(!old.same_fault(&other, "Part") && !old.same_fault(&other, "Whole"));
    assert!(old.same_fault(&other, "DiskFailing") && !old.same_fault(&other, "None"));
}

/// The smallest policy with this second opinion.
fn confirmed(confirm: &str) -> Result<Vec<Policy>, Vec<Problem>> {
    let with = format!("[Replace], confirm: {confirm}");
    policies(&[document(&SMALLEST.replacen("[Replace]", &with, 1))])
}

#[test]
fn a_second_opinion_is_read_whole() {
    let read = |text: &str| confirmed(text).unwrap().remove(0).faults.remove(0).confirm;
    let smallest = Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "m_1".into(),
        above: 0.0,
        on_unreachable: OnUnreachable::Unknown,
    };
    assert_eq!(
        read("{port: 9100, metric: m_1, above: '0'}"),
        Some(smallest.clone())
    );
    let whole = Confirm {
        port: 65535,
        path: "/m?a[]=b".into(),
        above: -0.5,
        on_unreachable: OnUnreachable::Confirm,
        ..smallest
    };
    let text =
        "{port: 65535, path: '/m?a[]=b', metric: m_1, above: '-0.5', onUnreachable: Confirm}";
    assert_eq!(read(text), Some(whole));
}

#[test]
fn mistakes_in_a_second_opinion() {
    for (confirm, expect) in [
        (
            "{port: 0, metric: m, above: '0'}",
            "9:104 `0` is less than 1",
        ),
        (
            "{port: 65536, metric: m, above: '0'}",
            "9:104 `65536` is more than 65535",
        ),
        (
            "{port: 1, metric: 'm{}', above: '0'}",
            "9:115 `m{}` is not a metric's name",
        ),
        (
            "{port: 1, metric: 1m, above: '0'}",
            "9:115 `1m` is not a metric's name",
        ),
        (
            "{port: 1, metric: '', above: '0'}",
            "9:115 `` is not a metric's name",
        ),
        (
            "{port: 1, metric: m, above: x}",
            "9:125 `x` is not a finite number",
        ),
        (
            "{port: 1, metric: m, above: inf}",
            "9:125 `inf` is not a finite number",
        ),
        (
            "{port: 1, metric: m, above: 'NaN'}",
            "9:125 `NaN` is not a finite number",
        ),
        (
            "{port: 1, metric: m, above: 0}",
            "9:125 `0` is not of type string",
        ),
        (
            "{port: 1, path: metrics, metric: m, above: '0'}",
            "9:113 is not a path",
        ),
        (
            "{port: 1, path: '/a b', metric: m, above: '0'}",
            "9:113 is not a path",
        ),
        (
            "{port: 1, path: '/a#b', metric: m, above: '0'}",
            "9:113 is not a path",
        ),
    ] {
        check(confirmed(confirm), &[expect]);
    }
    check_policy(
        "  - {name: Disk",
        "  - {name: Part, when: {all: [{signal: A}]}, confirm: {port: 1, metric: m, above: '0'}}\n  - {name: Disk",
        &["9:46 confirms nothing"],
    );
    // A part is true at once: who names it would act before this is over.
    check_policy(
        "  - {name: Disk",
        "  - {name: Part, when: {all: [{signal: A}]}, for: 30m}\n  - {name: Disk",
        &["9:46 nothing waits for it"],
    );
}

#[test]
fn an_amount_is_a_number_or_a_percentage_quoted_or_not() {
    let read = |text: &str| {
        let with = format!("  budgets: [{{name: b, maxUnavailable: {text}}}]\n  replacement:");
        policies(&[document(&SMALLEST.replacen("  replacement:", &with, 1))])
    };
    for (text, expect) in [
        ("1", Amount::Count(1)),
        ("\"1\"", Amount::Count(1)),
        ("0", Amount::Count(0)),
        ("10%", Amount::Percent(10)),
        ("\"10%\"", Amount::Percent(10)),
    ] {
        let policy = read(text).unwrap().remove(0);
        assert_eq!(policy.budgets[0].max_unavailable, Some(expect), "{text}");
    }
    for (text, expect) in [
        ("-1", "`-1` is less than 0"),
        ("1.5", "`1.5` is not of type integer or string"),
        ("true", "`true` is not of type integer or string"),
        ("'-1'", "`-1` is neither a number nor a percentage"),
        ("101%", "`101%` is neither a number nor a percentage"),
        ("9999999999", "`9999999999` is more than 999999999"),
    ] {
        check(read(text), &[&format!("7:39 {expect}")]);
    }
    let spec = serde_json::json!({
        "faults": [{"name": "f", "when": {"all": [{"signal": "s"}]}, "actions": ["Replace"]}],
        "budgets": [{"name": "b", "maxUnavailable": 1}],
    });
    let policy = stored_policy("p", &spec).unwrap();
    assert_eq!(policy.budgets[0].max_unavailable, Some(Amount::Count(1)));
}

#[test]
fn a_schedule_that_is_too_short_is_not_called_empty() {
    check_policy(
        "  replacement:",
        "  windows: [{schedule: '@daily', duration: 1h}]\n  replacement:",
        &["7:24 `@daily` is not a schedule"],
    );
}

#[test]
fn editors_get_a_schema_that_agrees() {
    let schema = policy_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut value = yaml::parse(&document(SMALLEST)).unwrap().remove(0).value;
    assert!(validator.is_valid(&value), "{schema}");
    for (pointer, wrong) in [
        ("/kind", serde_json::json!("Policy")),
        ("/spec/mode", serde_json::json!("enforce")),
        ("/spec/faults/0/actions", serde_json::json!("Replace")),
        (
            "/spec",
            serde_json::json!({"faults": [], "nodeSelektor": {}}),
        ),
    ] {
        let right = value.pointer(pointer).cloned().unwrap();
        *value.pointer_mut(pointer).unwrap() = wrong;
        assert!(!validator.is_valid(&value), "{pointer}");
        *value.pointer_mut(pointer).unwrap() = right;
    }
    let mode = &schema["properties"]["spec"]["properties"]["mode"];
    assert!(
        mode.to_string().contains("Everything but the act"),
        "{mode}"
    );
    assert!(!schema.to_string().contains("x-kubernetes"));
    let settings = jsonschema::validator_for(&settings_schema()).unwrap();
    assert!(settings.is_valid(&serde_json::json!({"cluster": "c", "limits": {"maxInFlight": 1}})));
    assert!(!settings.is_valid(&serde_json::json!({"limits": {"maxInFlight": 1}})));
}

#[test]
fn a_settings_file_names_its_files_whatever_else_is_wrong() {
    let text = "rules: [a.yaml, 1,\n  b/*.yaml]\npolicies: {}\nmode: wrong\n";
    let pattern = |text: &str, line, column| Pattern {
        text: text.into(),
        line,
        column,
    };
    let expect = Named {
        rules: vec![pattern("a.yaml", 1, 9), pattern("b/*.yaml", 2, 3)],
        policies: vec![],
    };
    assert_eq!(named(&document(text)), expect);
    assert_eq!(named(&document("")), Named::default());
}
