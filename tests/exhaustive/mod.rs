//! Every reachable state of a small model: queue, cancel, grant, expiry and claim, with lost and repeated messages.
//!
//! The simulation runs the real scripts along random paths; this runs the rules of the protocol along all paths, for
//! three clients and a clock of few ticks. `REDLATCH_STATES` sets how many states are visited (1000000 by default).

mod client;
mod server;

use client::{Client, Down, Stage};
use server::{Server, Verb};
use stateright::{Checker, Model, Property};

const TTL: u8 = 3;
const CLAIM: u8 = 2;
const WINDOW: u8 = 2;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A release ends the lease of whoever has it.
    ReleaseForAnybody,
    /// A hand-off repeats the last fence.
    FenceNotRaised,
    /// A hand-off takes two places out of the queue.
    PoppedTwice,
    /// A newcomer is granted a free lock although others wait.
    Overtaking,
    /// An owner that has released can be granted again.
    NoMemo,
    /// The deadline counts from the reply and not from the question.
    DeadlineFromReply,
    /// A pushed grant counts from its arrival.
    PushBelieved,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    server: Server,
    clients: Vec<Client>,
    /// How many more messages may be lost, and repeated.
    losses: u8,
    copies: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Start(usize),
    Ask(usize),
    Renew(usize),
    Release(usize),
    GiveUp(usize),
    Serve(usize),
    Repeat(usize),
    Deliver(usize),
    Break(usize),
    Tick,
}

#[derive(Clone)]
struct Lock {
    clients: usize,
    fault: Fault,
}

impl Model for Lock {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let client = Client { attempt: 0, stage: Stage::Idle, open: None, asked: 0, up: Vec::new(), down: Vec::new() };
        let server = Server::new(self.clients);
        vec![State { server, clients: vec![client; self.clients], losses: 1, copies: 1 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (id, client) in state.clients.iter().enumerate() {
            let can_send = client.open.is_none() && client.up.len() < 2;
            match client.stage {
                Stage::Idle | Stage::Left { .. } if client.attempt < 2 => actions.push(Action::Start(id)),
                Stage::Wants { .. } => {
                    actions.push(Action::Release(id));
                    if can_send {
                        actions.push(Action::Ask(id));
                    }
                }
                Stage::Holds { .. } => {
                    actions.push(Action::Release(id));
                    if can_send {
                        actions.push(Action::Renew(id));
                    }
                }
                Stage::Leaving { .. } if can_send => actions.push(Action::Release(id)),
                _ => {}
            }
            if client.open.is_some_and(|(_, age)| age > 0) {
                actions.push(Action::GiveUp(id));
            }
            if !client.up.is_empty() {
                actions.push(Action::Serve(id));
                if state.copies > 0 {
                    actions.push(Action::Repeat(id));
                }
            }
            if !client.down.is_empty() {
                actions.push(Action::Deliver(id));
            }
            if state.losses > 0 && !(client.up.is_empty() && client.down.is_empty()) {
                actions.push(Action::Break(id));
            }
        }
        actions.push(Action::Tick);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Start(id) => {
                let client = &mut next.clients[id];
                client.attempt += 1;
                client.stage = Stage::Wants { proof: None };
                client.send(Verb::Acquire);
            }
            Action::Ask(id) => next.clients[id].send(Verb::Acquire),
            Action::Renew(id) => next.clients[id].send(Verb::Extend),
            Action::Release(id) => next.clients[id].leave(),
            Action::GiveUp(id) => next.clients[id].open = None,
            Action::Serve(id) => {
                let (attempt, verb, number) = next.clients[id].up.remove(0);
                self.serve(&mut next, (id, attempt), verb, Some(number));
            }
            Action::Repeat(id) => {
                next.copies -= 1;
                let (attempt, verb, number) = next.clients[id].up.remove(0);
                self.serve(&mut next, (id, attempt), verb, Some(number));
                // The copy arrives in the next tick.
                next.server.late = Some((id, attempt, verb));
            }
            Action::Deliver(id) => {
                let message = next.clients[id].down.remove(0);
                next.clients[id].hear(message, self.fault);
            }
            Action::Break(id) => {
                next.losses -= 1;
                let client = &mut next.clients[id];
                (client.open, client.up, client.down) = (None, Vec::new(), Vec::new());
            }
            Action::Tick => {
                if let Some((id, attempt, verb)) = next.server.late.take() {
                    self.serve(&mut next, (id, attempt), verb, None);
                }
                next.server.tick();
                next.clients.iter_mut().for_each(Client::tick);
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("G1: who believes to hold it does", |_, state: &State| {
                state.clients.iter().enumerate().all(|(id, client)| match client.stage {
                    Stage::Holds { fence, life } if life > 0 => state.server.is_held_by(id, client.attempt, fence),
                    _ => true,
                })
            }),
            Property::always("G2: fences rise", |_, state: &State| !state.server.fence_repeated),
            Property::always("G3: who has released does not hold it", |_, state: &State| {
                state.clients.iter().enumerate().all(|(id, client)| match client.stage {
                    Stage::Left { held: true } => !state.server.is_of(id, client.attempt),
                    _ => true,
                })
            }),
            Property::always("G6: nobody overtakes", |_, state: &State| !state.server.overtaken),
            Property::sometimes("a push is proven and claimed", |_, state: &State| {
                state.clients.iter().any(|client| matches!(client.stage, Stage::Holds { life, .. } if life < CLAIM))
            }),
            Property::sometimes("all clients have come and gone", |_, state: &State| {
                state.clients.iter().all(|client| client.attempt > 0 && matches!(client.stage, Stage::Left { .. }))
            }),
            Property::sometimes("a lease ends while its holder's words are on their way", |_, state: &State| {
                state.clients.iter().enumerate().any(|(id, client)| {
                    !client.up.is_empty() && state.server.is_free() && state.server.knows(id, client.attempt)
                })
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.server.fence < 6 && state.clients.iter().all(|client| client.down.len() < 3)
    }
}

impl Lock {
    fn serve(&self, next: &mut State, (id, attempt): (usize, u8), verb: Verb, number: Option<u8>) {
        let (answer, pushed) = next.server.serve((id, attempt), verb, self.fault);
        if let Some(number) = number {
            next.clients[id].down.push(Down::Reply(number, answer));
        }
        if let Some((id, attempt, fence)) = pushed {
            next.clients[id].down.push(Down::Push { attempt, fence });
        }
    }
}

/// Visits `steps` steps of `clients` clients, the shortest paths first.
fn visit(clients: usize, fault: Fault, steps: usize) -> impl Checker<Lock> {
    let checker = Lock { clients, fault }.checker().threads(2).target_state_count(steps).spawn_bfs().join();
    let (states, steps) = (checker.unique_state_count(), checker.state_count());
    println!("{clients} clients, {fault:?}: {states} states, {steps} steps, up to {} deep", checker.max_depth());
    checker
}

#[test]
fn no_promise_breaks_in_any_reachable_state() {
    let states = usize::try_from(crate::support::setting("REDLATCH_STATES", 1_000_000)).unwrap();
    let two = visit(2, Fault::None, states * 2);
    two.assert_properties();
    let three = visit(3, Fault::None, states * 2);
    let broken: Vec<_> = three.discoveries().into_keys().filter(|name| name.starts_with('G')).collect();
    assert_eq!(broken, [""; 0]);
    let visited = two.unique_state_count() + three.unique_state_count();
    assert!(visited >= states, "{visited} states");
}

#[test]
fn every_broken_rule_breaks_a_promise() {
    for (fault, clients) in [
        (Fault::ReleaseForAnybody, 2),
        (Fault::FenceNotRaised, 2),
        (Fault::PoppedTwice, 3),
        (Fault::Overtaking, 3),
        (Fault::NoMemo, 2),
        (Fault::DeadlineFromReply, 2),
        (Fault::PushBelieved, 2),
    ] {
        let checker = visit(clients, fault, 4_000_000);
        let broken: Vec<_> = checker.discoveries().into_iter().filter(|(name, _)| name.starts_with('G')).collect();
        assert!(!broken.is_empty(), "{fault:?} is not noticed");
        for (name, path) in broken {
            println!("{fault:?} breaks {name} in {} steps", path.into_vec().len() - 1);
        }
    }
}
