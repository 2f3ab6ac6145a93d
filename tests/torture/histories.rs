//! Histories made by hand: the checker accepts the good ones and rejects every bad one.

use super::{
    checker::check,
    history::{Event, History, Section, Write},
};

const LOCK: &str = "stock";

fn granted(owner: &str, fence: u64, at_ms: u64, deadline_ms: u64) -> Event {
    let (owner, label) = (owner.to_owned(), format!("rust/{owner}"));
    Event::Granted { owner, label, fence, at_us: at_ms * 1000, deadline_ms, told_ms: deadline_ms - at_ms }
}

fn queued(ticket: u64, owner: &str, window_ms: u64) -> Event {
    Event::Queued { ticket, owner: owner.to_owned(), label: format!("rust/{owner}"), window_ms }
}

fn section(fence: u64, enter_ms: u64, exit_ms: u64, verdict: &str) -> Section {
    let line = format!("{LOCK} {fence} {} {} {verdict} released", enter_ms * 1000, exit_ms * 1000);
    Section::parse(&line).unwrap()
}

fn writes(fences: &[u64]) -> Vec<Write> {
    fences.iter().zip(1..).map(|(&fence, value)| Write { fence, at_us: 155_000, value }).collect()
}

/// Two leases, one after the other, each with one write.
fn good() -> History {
    let mut history = History::default();
    let events = [granted("a", 10, 100, 200), Event::Ended, granted("b", 11, 150, 250), Event::Ended];
    history.events.insert(LOCK.to_owned(), events.to_vec());
    history.sections = vec![section(10, 110, 120, "kept"), section(11, 151, 160, "kept")];
    history.writes.insert(LOCK.to_owned(), writes(&[10, 11]));
    history.counters.insert(LOCK.to_owned(), 2);
    history
}

fn with_events(events: &[Event]) -> History {
    let mut history = History::default();
    history.events.insert(LOCK.to_owned(), events.to_vec());
    history
}

#[track_caller]
fn rejects(history: &History, expected: &str) {
    let found = check(history);
    assert!(found.iter().any(|violation| format!("{violation:?}").starts_with(expected)), "{found:?}");
}

#[test]
fn accepts_leases_that_follow_each_other() {
    assert_eq!(check(&good()), []);
}

#[test]
fn accepts_a_grant_after_the_deadline_of_a_holder_that_died() {
    assert_eq!(check(&with_events(&[granted("a", 10, 100, 200), granted("b", 11, 200, 300)])), []);
}

#[test]
fn rejects_a_grant_while_another_lease_runs() {
    rejects(&with_events(&[granted("a", 10, 100, 200), granted("b", 11, 199, 300)]), "Overlap");
}

#[test]
fn rejects_a_lease_that_is_longer_than_told() {
    let mut long = granted("a", 10, 100, 200);
    let Event::Granted { told_ms, .. } = &mut long else { unreachable!() };
    *told_ms = 99;
    rejects(&with_events(&[long]), "LongerThanTold");
}

#[test]
fn rejects_a_grant_before_the_deadline_that_a_renewal_set() {
    let extended = Event::Extended { deadline_ms: 400 };
    rejects(&with_events(&[granted("a", 10, 100, 200), extended, granted("b", 11, 300, 500)]), "Overlap");
}

#[test]
fn rejects_a_fence_that_repeats() {
    let events = [granted("a", 10, 100, 200), Event::Ended, granted("b", 10, 150, 250)];
    rejects(&with_events(&events), "FenceNotAbove");
}

#[test]
fn rejects_a_fence_that_falls() {
    let events = [granted("a", 10, 100, 200), Event::Ended, granted("b", 9, 150, 250)];
    rejects(&with_events(&events), "FenceNotAbove");
}

#[test]
fn rejects_two_sections_with_one_fence() {
    let mut history = good();
    history.sections.push(section(10, 121, 122, "kept"));
    rejects(&history, "ForeignFence");
}

#[test]
fn rejects_a_fence_that_no_server_granted() {
    let mut history = good();
    history.sections.push(section(12, 300, 301, "kept"));
    rejects(&history, "ForeignFence");
}

#[test]
fn rejects_a_write_before_its_grant() {
    let mut history = good();
    history.writes.get_mut(LOCK).unwrap()[1].at_us = 149_000;
    rejects(&history, "ForeignFence");
}

#[test]
fn rejects_a_holder_that_goes_on_after_the_next_grant() {
    let mut history = good();
    history.sections[0] = section(10, 110, 155, "kept");
    rejects(&history, "HeldTooLong");
}

#[test]
fn rejects_a_stale_write_of_a_client_that_was_sure_to_hold() {
    let mut history = good();
    history.sections[0] = section(10, 110, 120, "stale_while_held");
    rejects(&history, "LostWhileHeld");
}

#[test]
fn rejects_a_loss_before_the_local_deadline() {
    let mut history = good();
    history.sections[0].release = "lost_while_held".to_owned();
    rejects(&history, "LostWhileHeld");
}

#[test]
fn rejects_a_counter_that_lost_a_write() {
    let mut history = good();
    history.counters.insert(LOCK.to_owned(), 1);
    rejects(&history, "CounterOff");
}

#[test]
fn rejects_two_writes_that_read_the_same_value() {
    let mut history = good();
    history.writes.get_mut(LOCK).unwrap()[1].value = 1;
    rejects(&history, "CounterOff");
}

#[test]
fn rejects_a_written_section_without_an_accepted_write() {
    let mut history = good();
    history.writes.insert(LOCK.to_owned(), writes(&[10]));
    history.counters.insert(LOCK.to_owned(), 1);
    rejects(&history, "WriteMissing");
}

#[test]
fn rejects_a_grant_that_passes_a_waiter_which_is_alive() {
    let events = [queued(1, "a", 200), queued(2, "b", 200), granted("b", 10, 150, 300)];
    rejects(&with_events(&events), "Overtaken");
    rejects(&with_events(&[queued(1, "a", 200), granted("newcomer", 10, 150, 300)]), "Overtaken");
}

#[test]
fn accepts_a_grant_that_passes_the_dead_and_the_late() {
    let mut history = with_events(&[queued(1, "a", 200), queued(2, "b", 140), granted("c", 10, 150, 300)]);
    history.deaths.insert("rust/a".to_owned(), 149_000);
    assert_eq!(check(&history), []);
}

#[test]
fn rejects_a_key_that_is_left_behind() {
    let mut history = good();
    history.remarks.push("left behind: redlatch:m1:stock:queue".to_owned());
    rejects(&history, "Remark");
}
