//! What a client does: the state machines of `protocol` decide, and this carries it out as the client's drivers do.

use std::time::Duration;

use redlatch::{
    Fence,
    protocol::{Acquiring, Answer, Errand, Moment, Next, Releasing, Step, Tenure},
};

use super::{
    check::Verb,
    client::{Open, State},
    server::Reply,
    world::{Call, RETENTION, World, code, fence, field, number},
};

impl World<'_> {
    /// Goes on with a task until it has to wait.
    pub fn drive(&mut self, client: usize, task: usize) -> Result<(), String> {
        loop {
            let now = self.clients[client].moment(self.now);
            let (is_draining, timeout) = (self.is_draining(), self.timeout());
            let slot = &mut self.clients[client].tasks[task];
            let is_asking = slot.question.is_some();
            match &mut slot.state {
                State::Done if is_draining => return Ok(()),
                State::Done => {
                    slot.state = State::Idle;
                    let pause = [0, 50, 5000][self.rng.usize(..3)];
                    let pause = Duration::from_micros(self.rng.u64(..=pause));
                    self.timer(client, task, now + pause);
                    return Ok(());
                }
                State::Idle if is_draining => slot.state = State::Done,
                State::Idle => self.begin(client, task),
                State::Acquiring { .. } | State::Releasing { .. } if is_asking => return Ok(()),
                State::Acquiring { acquiring, waits, terms, heard, .. } => match acquiring.step(now) {
                    Step::Ask(question) => {
                        self.ask(client, task, question.window, question.give_up);
                        return Ok(());
                    }
                    Step::Wait(at) => {
                        self.timer(client, task, at);
                        return Ok(());
                    }
                    Step::Granted { fence, tenure } => {
                        let (proven, late, ttl) = (*heard, acquiring.late(), terms.ttl);
                        self.hold(client, task, (fence, tenure), ttl, (proven, late));
                    }
                    Step::Held { .. } if !*waits => {
                        let late = acquiring.late().filter(|late| now < *late);
                        if late.is_some() {
                            self.abandon(client, task);
                        } else {
                            slot.state = State::Done;
                        }
                    }
                    Step::Held { .. } | Step::Lost | Step::Silent => self.abandon(client, task),
                },
                State::Holding { tenure, until, owner, late, .. } => {
                    if now >= *until {
                        let end = tenure.deadline().max(now + timeout);
                        let (owner, late) = (std::mem::take(owner), *late);
                        let slot = &mut self.clients[client].tasks[task];
                        slot.question = None;
                        slot.state = State::Releasing { owner, releasing: Releasing::new(now, end, None), late };
                        continue;
                    }
                    match tenure.next(now) {
                        Next::Lost => self.abandon(client, task),
                        Next::Renew if !is_asking => {
                            let (owner, lock) = (owner.clone(), slot.lock);
                            // Now and then the holder asks for another length.
                            let ttl = if self.rng.u32(..10) == 0 { self.any_ttl() } else { tenure.ttl() };
                            let limit = timeout.min(ttl / 6);
                            let args = [owner.clone(), ttl.as_millis().to_string(), RETENTION.as_millis().to_string()];
                            let args = args.map(String::into_bytes).to_vec();
                            self.send(client, task, Call { verb: Verb::Extend, lock, owner, args }, limit);
                        }
                        Next::Renew => {
                            let at = tenure.deadline().min(*until);
                            self.timer(client, task, at);
                            return Ok(());
                        }
                        Next::Wait(at) => {
                            if at > tenure.deadline() {
                                return Err(format!("G9: {owner} would hear of the loss after the deadline"));
                            }
                            let at = at.min(*until);
                            self.timer(client, task, at);
                            return Ok(());
                        }
                    }
                }
                State::Releasing { owner, releasing, late } => match releasing.next(now) {
                    Errand::Ask => {
                        let (owner, lock, limit) = (owner.clone(), slot.lock, timeout);
                        let args = vec![owner.clone().into_bytes()];
                        self.send(client, task, Call { verb: Verb::Release, lock, owner, args }, limit);
                        return Ok(());
                    }
                    Errand::Wait(at) => {
                        self.timer(client, task, at);
                        return Ok(());
                    }
                    Errand::Done(_) => match late.take().filter(|late| now < *late) {
                        Some(late) => *releasing = Releasing::new(now, late, Some(late)),
                        None => slot.state = State::Done,
                    },
                },
            }
        }
    }

    fn begin(&mut self, client: usize, task: usize) {
        let (lock, terms) = self.terms();
        let process = &mut self.clients[client];
        let now = process.moment(self.now);
        let owner = process.next_owner();
        let waits = self.rng.u32(..6) > 0;
        let limit = (self.rng.u32(..3) == 0).then(|| now + Duration::from_micros(self.rng.u64(1..2_000_000)));
        let acquiring = if waits {
            Acquiring::in_queue(terms.clone(), true, limit, now)
        } else {
            Acquiring::once(terms.clone(), now)
        };
        let slot = &mut process.tasks[task];
        slot.lock = lock;
        slot.state = State::Acquiring { owner, terms, acquiring, waits, heard: self.now, joined: None };
        if self.rng.u32(..12) == 0 {
            let longest = [200, 20_000, 1_000_000][self.rng.usize(..3)];
            let after = self.rng.u64(..longest);
            self.cancel_after(client, task, after);
        }
    }

    fn ask(&mut self, client: usize, task: usize, window: Duration, give_up: Moment) {
        let process = &mut self.clients[client];
        let not_after_us = process.server_clock.at(give_up).unwrap_or(0);
        let inbox = process.inbox();
        let slot = &process.tasks[task];
        let State::Acquiring { owner, terms, waits, .. } = &slot.state else { return };
        let (owner, ttl, lock) = (owner.clone(), terms.ttl, slot.lock);
        let inbox = if *waits { inbox.as_str() } else { "" };
        let floor = if self.rng.u32(..50) == 0 { self.rng.u64(..2_000_000_000_000_000) } else { 0 };
        let call = self.acquire_call(lock, &owner, ttl, (window, not_after_us, floor), inbox);
        self.send(client, task, call, self.timeout());
    }

    fn hold(
        &mut self,
        client: usize,
        task: usize,
        (fence, tenure): (Fence, Tenure),
        ttl: Duration,
        (proven, late): (u64, Option<Moment>),
    ) {
        let now = self.clients[client].moment(self.now);
        let longest = [0, 0, 1000, 1000, 20_000, 2 * ttl.as_micros() as u64][self.rng.usize(..6)];
        let until = now + Duration::from_micros(self.rng.u64(..=longest));
        let slot = &mut self.clients[client].tasks[task];
        let Some(owner) = slot.owner().map(str::to_owned) else { return };
        slot.state = State::Holding { owner, fence, tenure, until, proven, late };
        self.note(|| format!("c{client}/{task} holds fence {fence}"));
        if self.rng.u32(..20) == 0 {
            let after = self.rng.u64(..=longest);
            self.cancel_after(client, task, after);
        }
    }

    /// The future or the lease is dropped: what it may hold is given back in the background.
    fn abandon(&mut self, client: usize, task: usize) {
        let now = self.clients[client].moment(self.now);
        let slot = &mut self.clients[client].tasks[task];
        let (owner, late, lasts) = match &slot.state {
            State::Acquiring { owner, acquiring, terms, .. } => {
                (owner.clone(), acquiring.late(), terms.ttl.max(terms.claim))
            }
            State::Holding { owner, late, tenure, .. } => (owner.clone(), *late, tenure.ttl()),
            State::Releasing { .. } | State::Idle | State::Done => return,
        };
        slot.question = None;
        slot.state = State::Releasing { owner, releasing: Releasing::new(now, now + lasts, late), late: None };
    }

    /// Whether there was something to cancel.
    pub fn cancel(&mut self, client: usize, task: usize) -> bool {
        let state = &self.clients[client].tasks[task].state;
        let is_cancelled = matches!(state, State::Acquiring { .. } | State::Holding { .. });
        self.abandon(client, task);
        is_cancelled
    }

    pub fn answered(&mut self, client: usize, task: usize, open: Open, reply: &Reply) -> Result<(), String> {
        let jitter = self.rng.f64();
        let process = &mut self.clients[client];
        let now = process.moment(self.now);
        let slot = &mut process.tasks[task];
        let Some(code) = code(reply) else {
            // The server refuses: an attempt fails with that, a renewal or a release is tried again.
            match &mut slot.state {
                State::Holding { tenure, .. } => tenure.unanswered(now + (open.ttl / 20).min(Duration::from_secs(1))),
                State::Releasing { releasing, .. } => releasing.unanswered(false, now),
                State::Acquiring { .. } | State::Idle | State::Done => self.abandon(client, task),
            }
            return Ok(());
        };
        let millis = |at| Duration::from_millis(field(reply, at));
        match &mut slot.state {
            State::Acquiring { acquiring, heard, joined, .. } => {
                let answer = match code {
                    1 => Answer::Granted { fence: fence(reply) },
                    2 => Answer::Queued { position: field(reply, 3), remaining: millis(1), server_us: field(reply, 2) },
                    3 => Answer::Held { remaining: millis(1) },
                    4 => Answer::TooLate { remaining: millis(1) },
                    _ => Answer::Spent,
                };
                if code <= 2 {
                    *heard = open.sent_us;
                }
                if code == 2 {
                    joined.get_or_insert(self.now);
                }
                acquiring.answered(open.sent, answer, now, jitter);
                process.server_clock.learn(field(reply, 2), now);
            }
            State::Holding { tenure, proven, fence: ours, .. } => {
                if code != 1 || fence(reply) != *ours {
                    tenure.end(now);
                } else if now < tenure.deadline() {
                    tenure.extended(open.sent, open.ttl, millis(1));
                    *proven = open.sent_us;
                }
            }
            State::Releasing { releasing, .. } => releasing.answered(open.sent, code != 5, field(reply, 1) == 1, now),
            State::Idle | State::Done => {}
        }
        Ok(())
    }

    pub fn unanswered(&mut self, client: usize, task: usize, open: Open) {
        let jitter = self.rng.f64();
        let process = &mut self.clients[client];
        let now = process.moment(self.now);
        match &mut process.tasks[task].state {
            State::Acquiring { acquiring, .. } => acquiring.unanswered(open.sent, now, jitter),
            State::Holding { tenure, .. } => tenure.unanswered(now + (open.ttl / 20).min(Duration::from_secs(1))),
            State::Releasing { releasing, .. } => releasing.unanswered(true, now),
            State::Idle | State::Done => {}
        }
    }

    pub fn disconnected(&mut self, client: usize, task: usize) {
        let jitter = self.rng.f64();
        let process = &mut self.clients[client];
        let now = process.moment(self.now);
        if let State::Acquiring { acquiring, .. } = &mut process.tasks[task].state {
            acquiring.disconnected(now, jitter);
        }
    }

    /// A message has reached the inbox of `client`.
    pub fn hears(&mut self, client: usize, payload: &[u8]) -> Result<(), String> {
        let now = self.clients[client].moment(self.now);
        let text = String::from_utf8_lossy(payload).into_owned();
        let mut words = text.split(' ');
        let (Some(owner), Some(fence), Some(lease)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("a message says {text:?}"));
        };
        let lease = Duration::from_millis(number(lease.as_bytes()));
        let fence: Fence = fence.parse().map_err(|_| format!("a message has the fence {fence:?}"))?;
        let Some(task) = self.clients[client].tasks.iter().position(|task| task.owner() == Some(owner)) else {
            return Ok(());
        };
        self.note(|| format!("c{client}/{task} hears {text}"));
        match &mut self.clients[client].tasks[task].state {
            // It has become the head of the queue.
            State::Acquiring { acquiring, .. } if fence.get() == 0 => acquiring.told(now),
            State::Acquiring { acquiring, .. } => acquiring.pushed(fence, lease, now),
            State::Releasing { releasing, .. } => releasing.pushed(now),
            State::Holding { .. } | State::Idle | State::Done => return Ok(()),
        }
        self.drive(client, task)
    }
}
