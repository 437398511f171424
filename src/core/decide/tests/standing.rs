//! What guards say that look at the node alone, and who speaks for it.

use super::*;

/// Each guard alone, on a node that would be due.
#[test]
fn each_standing_guard_holds_with_its_reason() {
    let pause = |policy: Option<&str>, until: Option<i64>| Pause {
        selector: NodeSelector::default(),
        policy: policy.map(str::to_owned),
        until: until.map(at),
    };
    let check = |prepare: &dyn Fn(&mut Fleet), expect: &[Reason]| {
        let mut fleet = Fleet::new(10, 1);
        prepare(&mut fleet);
        fleet.watch(10, 1, 0, 60);
        let (kind, reasons) = fleet.first(60);
        assert_eq!(reasons, expect);
        let held = if expect.is_empty() {
            VerdictKind::Due
        } else {
            VerdictKind::Held
        };
        assert_eq!(kind, held);
    };
    check(&|_| {}, &[]);
    check(
        &|fleet| fleet.pauses = vec![pause(None, None)],
        &[Reason::Paused],
    );
    check(
        &|fleet| fleet.pauses = vec![pause(Some("p"), Some(61))],
        &[Reason::Paused],
    );
    check(
        &|fleet| fleet.pauses = vec![pause(Some("other"), None)],
        &[],
    );
    check(&|fleet| fleet.pauses = vec![pause(None, Some(60))], &[]);
    check(
        &|fleet| fleet.policies = vec![policy("p", Mode::Observe, 0)],
        &[Reason::ObserveMode],
    );
    check(
        &|fleet| fleet.policies.push(policy("q", Mode::Enforce, 0)),
        &[Reason::PolicyConflict],
    );
    // Also where only one of both finds a fault, whichever, or the other does not know.
    for type_ in ["Ready", "Elsewhere"] {
        for which in [0, 1] {
            check(
                &|fleet| {
                    fleet.policies.push(policy("q", Mode::Enforce, 0));
                    let leaf = &mut fleet.policies[which].faults[0].when.all[0];
                    let condition = leaf.condition.as_mut().unwrap();
                    condition.type_ = type_.into();
                    condition.statuses = vec![ConditionStatus::True];
                },
                &[Reason::PolicyConflict],
            );
        }
    }
    check(
        &|fleet| fleet.policies.push(policy("q", Mode::Enforce, -1)),
        &[],
    );
    check(
        &|fleet| fleet.repairs = vec![repair("n000", -9000, Phase::NeedsHuman)],
        &[Reason::NeedsHuman],
    );
    check(
        &|fleet| {
            fleet.starts = vec![Reservation {
                repair: "deleted".into(),
                node_uid: "n000".into(),
                at: at(0),
            }];
        },
        &[Reason::RepairDeleted],
    );
    check(
        &|fleet| fleet.change = |node| node.unschedulable = true,
        &[Reason::CordonedByOther],
    );
    check(
        &|fleet| fleet.change = |node| node.deleting = true,
        &[Reason::NodeDeleting],
    );
    check(
        &|fleet| fleet.change = |node| node.provider_id = "gce://x".into(),
        &[Reason::NoOwner],
    );
    check(
        &|fleet| {
            fleet.change = |node| {
                let note = (DO_NOT_REPAIR_ANNOTATION.to_owned(), "true".to_owned());
                node.annotations = [note].into();
            };
        },
        &[Reason::OptedOut],
    );
}

#[test]
fn a_node_asks_for_a_person_until_a_later_repair_of_it() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    fleet.repairs = vec![repair("n000", -9000, Phase::NeedsHuman)];
    let asks = (VerdictKind::Held, vec![Reason::NeedsHuman]);
    assert_eq!(fleet.first(60), asks);
    let mut later = repair("n000", -100, Phase::Aborted);
    (later.metadata.name, later.spec.ordinal) = (Some("r-2".into()), 2);
    fleet.repairs.insert(0, later);
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    fleet.repairs[0].status.as_mut().unwrap().phase = Phase::NeedsHuman;
    assert_eq!(fleet.first(60), asks);
}

#[test]
fn a_deleted_record_holds_its_node_for_an_hour_however_long_it_is_remembered() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    let deleted = |second: i64| Reservation {
        repair: "deleted".into(),
        node_uid: "n000".into(),
        at: at(second),
    };
    fleet.starts = vec![deleted(60 - 3599)];
    let held = (VerdictKind::Held, vec![Reason::RepairDeleted]);
    assert_eq!(fleet.first(60), held);
    fleet.starts = vec![deleted(60 - 3600)];
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    // Its name may be given again, and another repair may begin at the same time.
    fleet.starts = vec![deleted(30)];
    let listed = |name: &str, second: i64| {
        let mut listed = repair("n009", second, Phase::Succeeded);
        listed.metadata.name = Some(name.into());
        listed
    };
    fleet.repairs = vec![listed("deleted", 31), listed("other", 30)];
    assert_eq!(fleet.first(60).1, [Reason::RepairDeleted]);
    fleet.repairs.push(listed("deleted", 30));
    assert_eq!(fleet.first(60).0, VerdictKind::Due);
}

#[test]
fn a_node_that_another_policy_finds_sick_stays_in_the_budgets_of_its_own() {
    let mut fleet = Fleet::new(10, 1);
    fleet.policies.push(policy("q", Mode::Enforce, 0));
    let leaf = &mut fleet.policies[0].faults[0].when.all[0];
    leaf.condition.as_mut().unwrap().statuses = vec![ConditionStatus::True];
    fleet.policies[0].budgets = vec![Budget {
        name: "few".into(),
        per: Per::Cluster,
        max_repairs: None,
        max_in_flight: None,
        max_unavailable: Some(Amount::Count(1)),
    }];
    fleet.watch(10, 1, 0, 60);
    let (verdicts, _, scopes) = fleet.decide(60);
    assert_eq!(verdicts[0].reasons, [Reason::PolicyConflict]);
    assert_eq!(*verdicts[0].policy, *"p");
    let tallies: Vec<usize> = scopes.tallies.values().map(|one| one.unavailable).collect();
    assert_eq!(tallies, [1]);
}

#[test]
fn a_refused_policy_keeps_its_nodes_from_weaker_ones() {
    let mut fleet = Fleet::new(10, 1);
    fleet
        .policies
        .push(Policy::refused("bad".into(), 5, NodeSelector::default()));
    fleet.watch(10, 1, 30, 60);
    assert_eq!(
        fleet.first(60),
        (VerdictKind::Ignored, vec![Reason::PolicyRefused])
    );
}

#[test]
fn an_old_list_of_nodes_makes_nobody_due() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    fleet
        .evidence
        .settle(&Rules::default(), &fleet.policies, at(200));
    assert_eq!(fleet.first(200).0, VerdictKind::Unknown);
    assert!(fleet.decide(200).1.is_empty());
}

#[test]
fn h61_the_control_plane_is_repaired_only_if_its_policy_says_so() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        let label = (
            "node-role.kubernetes.io/control-plane".into(),
            String::new(),
        );
        node.labels = [label].into();
    };
    fleet.watch(10, 1, 0, 120);
    assert_eq!(fleet.first(120).0, VerdictKind::Ignored);
    fleet.policies[0].control_plane = true;
    assert_eq!(fleet.first(120).0, VerdictKind::Due);
}

#[test]
fn windows_hold_what_is_not_critical() {
    let mut fleet = Fleet::new(0, 0);
    let yearly = Window::new("0 0 1 JAN * UTC", Span::minutes(60)).unwrap();
    fleet.policies[0].windows = vec![yearly];
    fleet.watch(10, 1, 0, 120);
    let (verdicts, admitted, _) = fleet.decide(120);
    assert!(admitted.is_empty());
    let expect = (vec![Reason::OutsideWindow], vec!["window/p".to_owned()]);
    assert_eq!(held(&verdicts, "n000"), expect);
    fleet.policies[0].faults[0].severity = Severity::Critical;
    assert_eq!(fleet.decide(120).1, ["n000"]);
    fleet.policies[0].faults[0].severity = Severity::Warning;
    let always = Window::new("* * * * * UTC", Span::minutes(5)).unwrap();
    fleet.policies[0].windows.push(always);
    assert_eq!(fleet.decide(120).1, ["n000"]);
}

#[test]
fn approval_is_waited_for_and_is_of_one_action_and_one_repair() {
    let mut fleet = Fleet::new(0, 0);
    fleet.policies = vec![policy("p", Mode::Approve, 0)];
    fleet.policies[0].faults[0].actions = vec![Action::Reboot, Action::Replace];
    fleet.watch(10, 1, 0, 60);
    let waiting = (VerdictKind::Held, vec![Reason::AwaitingApproval]);
    assert_eq!(fleet.first(60), waiting);
    let approve = |fleet: &mut Fleet, text: &str| {
        let mut nodes: Vec<NodeView> = fleet.evidence.nodes().cloned().collect();
        let note = (APPROVED_ANNOTATION.to_owned(), text.to_owned());
        nodes[0].annotations = [note].into();
        fleet.evidence.fold(Input::Nodes(nodes), at(60));
    };
    let text = |action: &str, fault: &str, second: i64| {
        serde_json::json!({
            "uid": "n000", "policy": "p", "fault": fault, "action": action,
            "at": at(50), "until": at(second), "by": "eve",
        })
        .to_string()
    };
    for (text, approved) in [
        (text("Reboot", "NotReady", 61), true),
        (text("Reboot", "NotReady", 60), false),
        (text("Replace", "NotReady", 61), false),
        (text("Reboot", "Other", 61), false),
        (at(61).to_string(), false),
        ("yes".into(), false),
    ] {
        approve(&mut fleet, &text);
        let is_due = fleet.first(60).0 == VerdictKind::Due;
        assert_eq!(is_due, approved, "{text}");
    }
    // The next rung is another action, and even the same one would be another repair.
    approve(&mut fleet, &text("Reboot", "NotReady", 3600));
    let (verdicts, _, _) = fleet.decide(60);
    let approval = verdicts[0].approval().cloned();
    assert_eq!(approval.as_ref().map(|one| one.by.as_str()), Some("eve"));
    fleet.policies[0].mode = Mode::Enforce;
    assert_eq!(fleet.decide(60).0[0].approval(), None, "nobody asks for it");
    fleet.policies[0].mode = Mode::Approve;
    let mut made = repair("n000", 55, Phase::Aborted);
    made.spec.approval = approval;
    fleet.repairs = vec![made];
    assert_eq!(fleet.first(60), waiting);
    fleet.repairs[0].spec.approval = None;
    assert_eq!(fleet.first(60).0, VerdictKind::Due);
    // That its record is deleted makes it no less used; an earlier one was another's.
    fleet.repairs.clear();
    for (start, is_left) in [(49, true), (50, false), (55, false)] {
        let start = Reservation {
            repair: "deleted".into(),
            node_uid: "n000".into(),
            at: at(start),
        };
        fleet.starts = vec![start];
        let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
        let found = approval::approval(node, &fleet.world(&rules), at(60));
        assert_eq!(found.is_some(), is_left, "{:?}", fleet.starts);
    }
    fleet.starts.clear();
    let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
    let held = |second| approval::approval(node, &fleet.world(&rules), at(second));
    assert!(held(3599).is_some() && held(3600).is_none());
}

#[test]
fn young_nodes_and_those_that_others_take_are_left_alone() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.created = at(-500);
    fleet.see(10, 0, -60);
    fleet.watch(10, 1, 0, 60);
    assert_eq!(fleet.first(60), (VerdictKind::Held, vec![Reason::TooYoung]));
    fleet.watch(10, 1, 90, 120);
    assert_eq!(fleet.first(120).0, VerdictKind::Due);
    for taint in [
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "aws-node-termination-handler/spot-itn",
    ] {
        let mut nodes: Vec<NodeView> = fleet.evidence.nodes().cloned().collect();
        nodes[0].taints = vec![taint.into()];
        fleet.evidence.fold(Input::Nodes(nodes), at(120));
        let expect = (VerdictKind::Held, vec![Reason::OtherActor]);
        assert_eq!(fleet.first(120), expect, "{taint}");
        assert_eq!(fleet.decide(120).2.cluster().sick, 0, "it counts nowhere");
    }
}

#[test]
fn h82_nodes_that_never_were_ready_are_left_alone_until_their_grace_ends() {
    for (age, grace, expect) in [
        (10, 15, Some(at(900))),
        // The longer of both counts.
        (20, 15, Some(at(1200))),
        (10, 0, Some(at(600))),
    ] {
        let mut fleet = Fleet::new(0, 0);
        fleet.limits.min_node_age = Span::minutes(age);
        fleet.limits.startup_grace = Span::minutes(grace);
        fleet.change = |node| node.created = at(0);
        let mut due = None;
        for second in (30..1500).step_by(30) {
            fleet.see(10, 1, second);
            match fleet.first(second) {
                (VerdictKind::Due, _) => due = due.or(Some(at(second))),
                found if second > 90 => {
                    assert_eq!(found, (VerdictKind::Held, vec![Reason::TooYoung]));
                }
                _ => {}
            }
        }
        assert_eq!(due, expect, "{age} and {grace} minutes");
    }
}

#[test]
fn a_new_leader_that_alertmanager_does_not_answer_starts_nothing() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 0, 60);
    fleet
        .evidence
        .fold(Input::AskFailed("refused".into()), at(60));
    let expect = (VerdictKind::Held, vec![Reason::SilencesUnknown]);
    assert_eq!(fleet.first(60), expect);
}

#[test]
fn an_opt_out_holds_until_its_time_and_for_ever_if_that_cannot_be_read() {
    for (text, expect) in [
        ("true", true),
        ("soon", true),
        ("false", false),
        ("", false),
        ("1970-01-12T13:47:41Z", true),
        ("1970-01-12T13:47:40Z", false),
    ] {
        let mut node = node("n", true);
        node.annotations = [(DO_NOT_REPAIR_ANNOTATION.to_owned(), text.to_owned())].into();
        // 1,000,060 seconds after 1970 began.
        assert_eq!(opted_out(&node, at(60)), expect, "{text}");
    }
    assert!(!opted_out(&node("n", true), at(60)));
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        let until = if node.name == "n000" { 60 } else { 61 };
        let note = (DO_NOT_REPAIR_ANNOTATION.to_owned(), at(until).to_string());
        node.annotations = [note].into();
    };
    fleet.watch(20, 2, 0, 60);
    let (verdicts, admitted, _) = fleet.decide(60);
    assert_eq!(admitted, ["n000"]);
    assert_eq!(held(&verdicts, "n001").0, [Reason::OptedOut]);
}

#[test]
fn a_cordon_of_ours_holds_nothing_and_an_owner_matters_only_to_what_replaces() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        node.unschedulable = true;
        let ours = (QUARANTINE_ANNOTATION.to_owned(), "r".to_owned());
        node.annotations = [ours].into();
    };
    fleet.watch(10, 1, 0, 60);
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.provider_id = "gce://x".into();
    fleet.watch(10, 1, 0, 60);
    assert_eq!(fleet.first(60).1, [Reason::NoOwner]);
    fleet.policies[0].faults[0].actions = vec![Action::Cordon];
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
}

#[test]
fn a_node_that_its_owner_deletes_counts_nowhere_and_is_not_available() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        node.deleting = node.name == "n000" || node.name == "n001";
        node.unschedulable = node.name == "n002";
    };
    // n000 is down besides.
    fleet.watch(10, 1, 0, 60);
    let (verdicts, _, scopes) = fleet.decide(60);
    assert_eq!((scopes.cluster().nodes, scopes.cluster().sick), (8, 0));
    let available: Vec<bool> = verdicts.iter().map(|one| one.available).collect();
    assert_eq!(available[..4], [false, false, false, true]);
}
