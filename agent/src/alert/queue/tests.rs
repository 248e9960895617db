use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::alert::{
    identity::Identity,
    rules::tests::{at, exhausted},
};

const LEASE: Style = Style::Lease { resend: Duration::from_secs(60) };
const GROUPED: Style = Style::Grouped { wait: Duration::from_secs(10) };
const LIMIT: usize = 5;

fn alert(host: usize) -> Arc<Alert> {
    let finding = exhausted("crawler", 7, &format!("10.0.0.{host}:80"));
    Arc::new(Alert {
        identity: Identity::of(&finding),
        severity: finding.severity,
        finding,
        also: Vec::new(),
        others: 0,
        started_at: at(0),
        last_seen: at(0),
        ended_at: None,
    })
}

fn tell(queue: &mut Queue, change: Change, host: usize, second: u64) {
    queue.tell(&Transition { change, alert: alert(host) }, at(second), LIMIT);
}

fn next(queue: &Queue, second: u64, style: Style) -> Next {
    queue.next(at(second), style, &|_| "all".to_owned(), false)
}

fn host(step: &Step) -> String {
    step.alert.identity.remote.clone().unwrap_or_default().replace("10.0.0.", "").replace(":80", "")
}

fn sent(next: &Next) -> Vec<(StepKind, String)> {
    match next {
        Next::Send(batch) => batch.steps.iter().map(|step| (step.kind, host(step))).collect(),
        Next::Wait(_) | Next::Idle => Vec::new(),
    }
}

/// Sends what there is until nothing is left, and says what that was.
fn drain(queue: &mut Queue, second: u64, style: Style) -> Vec<Vec<(StepKind, String)>> {
    let mut all = Vec::new();
    while let Next::Send(batch) = next(queue, second, style) {
        all.push(sent(&Next::Send(batch.clone())));
        queue.delivered(&batch, at(second), style);
        assert!(all.len() < 50, "it never ends: {all:?}");
    }
    all
}

fn word(kind: StepKind, host: &str) -> Vec<(StepKind, String)> {
    vec![(kind, host.to_owned())]
}

#[test]
fn an_outage_costs_all_but_the_newest_state() {
    let mut queue = Queue::default();
    tell(&mut queue, Change::Fired, 1, 0);
    for second in [3600, 7200, 10_800] {
        tell(&mut queue, Change::Repeated, 1, second);
    }
    let mut newest = (*alert(1)).clone();
    newest.finding.evidence = vec!["failed 9000 times".to_owned()];
    queue.refresh(&newest.identity.id(), &Arc::new(newest.clone()));
    let Next::Send(batch) = next(&queue, 11_000, Style::Single) else { panic!("it is owed") };
    assert_eq!(*batch.steps[0].alert, newest, "with the numbers of now");
    assert_eq!(drain(&mut queue, 11_000, Style::Single), [word(StepKind::Fire, "1")]);
    assert_eq!(queue.owed(), 0);
    tell(&mut queue, Change::Resolved, 1, 11_100);
    assert_eq!(drain(&mut queue, 11_100, Style::Single), [word(StepKind::Resolve, "1")]);
    assert_eq!(queue, Queue { next_number: queue.next_number, ..Queue::default() }, "nothing is kept of it");
}

#[test]
fn what_came_and_went_during_an_outage_is_told_in_order() {
    for style in [Style::Single, GROUPED] {
        let mut queue = Queue::default();
        tell(&mut queue, Change::Fired, 1, 0);
        tell(&mut queue, Change::Resolved, 1, 100);
        let told = drain(&mut queue, 500, style);
        assert_eq!(told, [word(StepKind::Fire, "1"), word(StepKind::Resolve, "1")], "{style:?}");
    }
    // Alertmanager would tell nobody of one that is over before it looked.
    let mut queue = Queue::default();
    tell(&mut queue, Change::Fired, 1, 0);
    tell(&mut queue, Change::Resolved, 1, 100);
    assert_eq!(drain(&mut queue, 500, LEASE), [word(StepKind::Fire, "1")]);
    assert_eq!(next(&queue, 500, LEASE), Next::Wait(at(560)));
    assert_eq!(drain(&mut queue, 560, LEASE), [word(StepKind::Resolve, "1")]);
    assert_eq!(next(&queue, 561, LEASE), Next::Idle);
    // Gone and back: for the receiver it never went.
    let mut queue = Queue::default();
    tell(&mut queue, Change::Fired, 1, 0);
    drain(&mut queue, 0, Style::Single);
    tell(&mut queue, Change::Resolved, 1, 100);
    tell(&mut queue, Change::Fired, 1, 200);
    assert_eq!(drain(&mut queue, 500, Style::Single), [word(StepKind::Fire, "1")]);
}

#[test]
fn what_fires_is_renewed_before_its_lease_ends() {
    let mut queue = Queue::default();
    tell(&mut queue, Change::Fired, 1, 0);
    drain(&mut queue, 0, LEASE);
    tell(&mut queue, Change::Fired, 2, 40);
    drain(&mut queue, 40, LEASE);
    assert_eq!(next(&queue, 41, LEASE), Next::Wait(at(60)));
    let both = vec![(StepKind::Renew, "1".to_owned()), (StepKind::Renew, "2".to_owned())];
    let mut renewed = sent(&next(&queue, 75, LEASE));
    renewed.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(renewed, both, "what would be due soon comes along");
    // After a restart at once, and never by a process that ends.
    let restarted: Queue = serde_json::from_slice(&serde_json::to_vec(&queue).unwrap()).unwrap();
    assert_eq!(sent(&next(&restarted, 41, LEASE)).len(), 2);
    assert!(matches!(queue.next(at(75), LEASE, &|_| String::new(), true), Next::Wait(_) | Next::Idle));
    // A clock that was set back does not let a lease run out.
    drain(&mut queue, 100, LEASE);
    assert_eq!(sent(&next(&queue, 20, LEASE)).len(), 2);
}

#[test]
fn a_group_waits_for_others_and_shows_all_that_fires() {
    let mut queue = Queue::default();
    tell(&mut queue, Change::Fired, 1, 0);
    tell(&mut queue, Change::Fired, 2, 4);
    assert_eq!(next(&queue, 5, GROUPED), Next::Wait(at(10)));
    assert_eq!(
        queue.next(at(5), GROUPED, &|_| String::new(), true),
        queue.next(at(10), GROUPED, &|_| String::new(), false)
    );
    let told = drain(&mut queue, 10, GROUPED);
    assert_eq!(told.len(), 1, "one message: {told:?}");
    assert_eq!(told[0].len(), 2);
    tell(&mut queue, Change::Resolved, 1, 100);
    let Next::Send(batch) = next(&queue, 110, GROUPED) else { panic!("it is owed") };
    assert_eq!(sent(&Next::Send(batch.clone())), word(StepKind::Resolve, "1"));
    assert_eq!(batch.others.len(), 1, "the other one fires");
    // Another group, another message.
    let by_remote = |alert: &Alert| alert.identity.remote.clone().unwrap_or_default();
    tell(&mut queue, Change::Fired, 3, 100);
    let Next::Send(batch) = queue.next(at(110), GROUPED, &by_remote, false) else { panic!("it is owed") };
    assert_eq!((batch.steps.len(), batch.others.len()), (1, 0));
}

#[test]
fn only_the_alert_at_fault_is_dropped() {
    for style in [LEASE, GROUPED] {
        let mut queue = Queue::default();
        (1..=3).for_each(|host| tell(&mut queue, Change::Fired, host, 0));
        let mut taken = Vec::new();
        for _ in 0..20 {
            let Next::Send(batch) = next(&queue, 20, style) else { break };
            if batch.steps.iter().any(|step| host(step) == "2") {
                queue.refused(&batch);
            } else {
                taken.extend(sent(&Next::Send(batch.clone())));
                queue.delivered(&batch, at(20), style);
            }
        }
        taken.sort_by(|one, other| one.1.cmp(&other.1));
        assert_eq!(taken, [(StepKind::Fire, "1".to_owned()), (StepKind::Fire, "3".to_owned())], "{style:?}");
        assert_eq!((queue.dropped(), queue.owed()), (1, 0));
        tell(&mut queue, Change::Resolved, 2, 30);
        assert_eq!(queue.owed(), 0, "nobody knows of it, so nobody is told that it is over");
    }
}

#[test]
fn an_answer_is_not_taken_for_one_to_what_came_meanwhile() {
    let mut queue = Queue::default();
    tell(&mut queue, Change::Fired, 1, 0);
    let Next::Send(batch) = next(&queue, 0, Style::Single) else { panic!("it is owed") };
    tell(&mut queue, Change::Resolved, 1, 1);
    queue.delivered(&batch, at(2), Style::Single);
    let Next::Send(batch) = next(&queue, 2, Style::Single) else { panic!("its end is owed") };
    assert_eq!(batch.steps[0].kind, StepKind::Resolve);
    tell(&mut queue, Change::Fired, 1, 3);
    queue.delivered(&batch, at(4), Style::Single);
    assert_eq!(drain(&mut queue, 5, Style::Single), [word(StepKind::Fire, "1")]);
}

#[test]
fn the_oldest_that_are_over_make_room_and_are_counted() {
    let mut queue = Queue::default();
    for host in 1..=20 {
        tell(&mut queue, Change::Fired, host, 0);
        tell(&mut queue, Change::Resolved, host, 1);
    }
    assert_eq!((queue.owed(), queue.dropped()), (LIMIT, 15));
    tell(&mut queue, Change::Fired, 30, 2);
    assert_eq!((queue.owed(), queue.dropped()), (LIMIT, 16));
    let told = drain(&mut queue, 3, Style::Single);
    assert!(told.contains(&word(StepKind::Fire, "30")) && told.contains(&word(StepKind::Fire, "20")), "{told:?}");
}

#[test]
fn a_new_receiver_is_told_what_fires_and_one_that_missed_the_end_of_an_alert_is_told_that() {
    let mut queue = Queue::default();
    let firing = [(alert(1).identity.id(), alert(1))];
    queue.reconcile(&firing, at(0), LIMIT);
    queue.reconcile(&firing, at(1), LIMIT);
    assert_eq!(drain(&mut queue, 1, Style::Single), [word(StepKind::Fire, "1")]);
    queue.reconcile(&firing, at(2), LIMIT);
    assert_eq!(next(&queue, 2, Style::Single), Next::Idle);
    queue.reconcile(&[], at(3), LIMIT);
    assert_eq!(drain(&mut queue, 3, Style::Single), [word(StepKind::Resolve, "1")]);
}

proptest! {
    /// Whatever comes, and whenever the receiver answers: it hears of the end only after the beginning, and at last knows
    /// exactly what fires.
    #[test]
    fn a_receiver_ends_up_knowing_what_is_true(
        told in prop::collection::vec((0_usize..4, any::<bool>(), 0_u8..4), 1..60),
        style in prop::sample::select(vec![Style::Single, GROUPED, LEASE]),
    ) {
        let mut queue = Queue::default();
        let mut truth = std::collections::BTreeSet::new();
        let mut known = std::collections::BTreeSet::new();
        let take = |queue: &mut Queue, second: u64, known: &mut std::collections::BTreeSet<String>| {
            let Next::Send(batch) = next(queue, second, style) else { return Ok(false) };
            for step in &batch.steps {
                match step.kind {
                    StepKind::Fire => { known.insert(host(step)); }
                    StepKind::Renew => prop_assert!(known.contains(&host(step)), "renews what was never told"),
                    StepKind::Resolve => prop_assert!(known.remove(&host(step)), "ends what was never told"),
                }
            }
            queue.delivered(&batch, at(second), style);
            Ok(true)
        };
        let mut second = 0;
        for (host, fires, answers) in told {
            second += 7;
            // The rules never tell that something is over that does not fire.
            if fires {
                let change = if truth.insert(host) { Change::Fired } else { Change::Repeated };
                tell(&mut queue, change, host, second);
            } else if truth.remove(&host) {
                tell(&mut queue, Change::Resolved, host, second);
            }
            for _ in 0..answers {
                take(&mut queue, second, &mut known)?;
            }
            if answers == 3 {
                queue = serde_json::from_slice(&serde_json::to_vec(&queue).unwrap()).unwrap();
            }
        }
        // Long enough for every wait, short of a lease.
        for _ in 0..300 {
            second += 1;
            take(&mut queue, second, &mut known)?;
        }
        prop_assert_eq!(known, truth.iter().map(ToString::to_string).collect());
        prop_assert_eq!(queue.owed(), 0);
        prop_assert_eq!(queue.dropped(), 0);
    }
}
