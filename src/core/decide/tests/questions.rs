//! Who is asked: leases of silent nodes, exporters.

use super::*;

fn confirm() -> Confirm {
    Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "m".into(),
        above: 0.0,
        on_unreachable: crate::api::OnUnreachable::Unknown,
    }
}

/// Whom a pass asks, of the first so many that are sick.
fn asked_of(fleet: &Fleet, second: i64) -> Vec<String> {
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let verdicts = judge_all(&world, at(second));
    let scopes = survey(&verdicts, &world, at(second));
    let questions = to_probe(&verdicts, &scopes, &world, at(second));
    questions.into_iter().map(|(uid, _)| uid).collect()
}

#[test]
fn an_unconfirmed_fault_is_asked_about_also_where_another_is_due() {
    use crate::evidence::probe::Reading;

    let mut fleet = Fleet::new(20, 0);
    let mut severe = fleet.policies[0].faults[0].clone();
    (severe.name, severe.severity) = ("Dead".into(), Severity::Critical);
    severe.confirm = Some(confirm());
    fleet.policies[0].faults.push(severe);
    fleet.watch(20, 1, 0, 60);
    let leading = |fleet: &Fleet| fleet.decide(60).0[0].fault.clone();
    assert_eq!(leading(&fleet), "NotReady");
    assert_eq!(fleet.decide(60).1, ["n000"]);
    assert_eq!(asked_of(&fleet, 60), ["n000"]);
    let mut told = |reading: Reading| {
        let probe = Input::Probe {
            uid: "n000".into(),
            confirm: confirm(),
            reading,
        };
        fleet.evidence.fold(probe, at(60));
        assert_eq!(asked_of(&fleet, 60), Vec::<String>::new(), "asked already");
        leading(&fleet)
    };
    assert_eq!(told(Reading::Unreachable(String::new())), "NotReady");
    assert_eq!(told(Reading::Samples(vec![0.0])), "NotReady");
    assert_eq!(told(Reading::Samples(vec![1.0])), "Dead");
    // That another fault could be asked about is no reason to ask anew about this one.
    fleet.policies[0].faults[0].confirm = Some(Confirm {
        port: 9101,
        ..confirm()
    });
    assert_eq!(asked_of(&fleet, 60), Vec::<String>::new());
    // What would not lead is not asked about.
    let mut fleet = Fleet::new(20, 0);
    let mut mild = fleet.policies[0].faults[0].clone();
    mild.name = "Then".into();
    mild.confirm = Some(confirm());
    fleet.policies[0].faults.push(mild);
    fleet.watch(20, 1, 0, 60);
    assert_eq!(asked_of(&fleet, 60), Vec::<String>::new());
}

#[test]
fn exporters_of_observed_nodes_are_asked_after_those_of_others() {
    let mut fleet = half_observed(100, |number| number == 10 || number > 97);
    for policy in &mut fleet.policies {
        policy.faults[0].confirm = Some(confirm());
    }
    let expect = vec![Reason::ObserveMode, Reason::Unconfirmed];
    assert_eq!(held(&fleet.decide(120).0, "n098").0, expect);
    // Two may run: no third is asked.
    assert_eq!(asked_of(&fleet, 120), ["n010", "n098"]);
    assert_eq!(fleet.would_start(120), Vec::<String>::new());
    let probe = Input::Probe {
        uid: "n098".into(),
        confirm: confirm(),
        reading: crate::evidence::probe::Reading::Samples(vec![1.0]),
    };
    fleet.evidence.fold(probe, at(120));
    assert_eq!(fleet.would_start(120), ["n098"]);
}

/// Whose leases are to be read.
fn to_be_read(fleet: &Fleet, second: i64) -> Vec<String> {
    let (verdicts, _, _) = fleet.decide(second);
    let nodes = to_read(&verdicts, &fleet.world(&Rules::default()), at(second));
    nodes.into_iter().map(|node| node.name).collect()
}

#[test]
fn h21_a_node_of_which_nothing_is_heard_waits_for_the_word_of_its_lease() {
    for read in [true, false] {
        let mut fleet = Fleet::new(10, 0);
        fleet.change = |node| {
            if node.name == "n000" {
                node.conditions[0].status = "Unknown".into();
            }
        };
        for second in (0..60).step_by(10) {
            fleet.see(10, 0, second);
            assert_eq!(to_be_read(&fleet, second), ["n000"], "at {second}");
            if read {
                let (uid, renewed) = ("n000".into(), Ok(None));
                let lease = Input::Lease { uid, renewed };
                fleet.evidence.fold(lease, at(second));
                assert_eq!(to_be_read(&fleet, second + 9), Vec::<String>::new());
            }
        }
        fleet.see(10, 0, 60);
        let expect = if read {
            (VerdictKind::Due, vec![])
        } else {
            (VerdictKind::Held, vec![Reason::Contradicted])
        };
        // Admission would start it.
        let (verdicts, admitted, _) = fleet.decide(60);
        assert_eq!((verdicts[0].kind, verdicts[0].reasons.clone()), expect);
        assert_eq!(admitted.len(), usize::from(read));
    }
}

#[test]
fn leases_that_are_begun_to_be_read_go_on_before_others() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.conditions[0].status = "Unknown".into();
    let mut settled = 0;
    for second in (0..=60).step_by(5) {
        fleet.see(200, 0, second);
        for name in to_be_read(&fleet, second) {
            let renewed = Ok(Some(at(-3600)));
            fleet
                .evidence
                .fold(Input::Lease { uid: name, renewed }, at(second));
        }
        let silent =
            |node: &&NodeView| fleet.evidence.lease(&node.uid, at(second)) == Some(Word::Silent);
        settled = fleet.evidence.nodes().filter(silent).count();
    }
    assert!(settled >= LEASES_AT_ONCE, "{settled} of 200");
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.conditions[0].status = "Unknown".into();
    fleet.see(200, 0, 0);
    let begun: Vec<String> = (150..182).map(|number| format!("n{number}")).collect();
    for uid in begun.clone() {
        let lease = Input::Lease {
            uid,
            renewed: Ok(None),
        };
        fleet.evidence.fold(lease, at(0));
    }
    fleet.see(200, 0, 10);
    assert_eq!(to_be_read(&fleet, 10), begun);
}

/// Which nodes are asked for a second opinion.
fn to_be_probed(fleet: &Fleet, second: i64) -> Vec<String> {
    let (verdicts, _, scopes) = fleet.decide(second);
    let rules = Rules::default();
    let asked = to_probe(&verdicts, &scopes, &fleet.world(&rules), at(second));
    asked.into_iter().map(|(uid, _)| uid).collect()
}

#[test]
fn who_would_start_if_its_exporter_confirmed_is_asked_once_a_minute() {
    let confirm = Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "m".into(),
        above: 0.0,
        on_unreachable: OnUnreachable::Unknown,
    };
    let mut fleet = Fleet::new(100, 4);
    fleet.watch(100, 4, 30, 60);
    assert!(to_be_probed(&fleet, 60).is_empty(), "nobody wants to know");
    fleet.policies[0].faults[0].confirm = Some(confirm.clone());
    assert!(to_be_probed(&fleet, 59).is_empty(), "none is due");
    let unconfirmed = (VerdictKind::Held, vec![Reason::Unconfirmed]);
    assert_eq!(fleet.first(60), unconfirmed);
    // Two may run at once.
    assert_eq!(to_be_probed(&fleet, 60), ["n000", "n001"]);
    let says = |fleet: &mut Fleet, node: &str, reading: Reading| {
        let input = Input::Probe {
            uid: node.into(),
            confirm: confirm.clone(),
            reading,
        };
        fleet.evidence.fold(input, at(60));
    };
    says(&mut fleet, "n000", Reading::Samples(vec![1.0]));
    assert_eq!(fleet.decide(60).1, ["n000"]);
    assert_eq!(to_be_probed(&fleet, 60), ["n001"]);
    says(&mut fleet, "n001", Reading::Samples(vec![0.0]));
    assert_eq!(held(&fleet.decide(60).0, "n001").0, [Reason::Refuted]);
    assert_eq!(to_be_probed(&fleet, 60), ["n002"]);
    says(&mut fleet, "n002", Reading::Unusable("bent".into()));
    assert_eq!(held(&fleet.decide(60).0, "n002").0, [Reason::Unconfirmed]);
    assert_eq!(to_be_probed(&fleet, 120), ["n003"]);
    assert_eq!(to_be_probed(&fleet, 121), ["n000", "n001"]);
    // What else holds a node spares it the question.
    fleet.pauses = vec![Pause {
        selector: NodeSelector::default(),
        policy: None,
        until: None,
    }];
    assert!(to_be_probed(&fleet, 121).is_empty());
}

#[test]
fn few_are_asked_in_one_pass() {
    let mut fleet = Fleet::new(100, 6);
    fleet.limits.max_in_flight = 9;
    fleet.policies[0].faults[0].confirm = Some(Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "m".into(),
        above: 0.0,
        on_unreachable: OnUnreachable::Unknown,
    });
    fleet.watch(100, 6, 30, 60);
    let asked = to_be_probed(&fleet, 60);
    assert_eq!(asked, ["n000", "n001", "n002", "n003"]);
}
