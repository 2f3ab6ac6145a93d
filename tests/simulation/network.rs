//! The way between clients and server: in order per connection, slow now and then, and broken at any time.

use std::{rc::Rc, time::Duration};

use super::{
    client::Open,
    event::Event,
    server::Reply,
    world::{Call, SECOND, SLOWEST, World, number},
};

impl World<'_> {
    pub fn subscribe(&mut self, channel: Vec<u8>, connection: u64) {
        self.scripted.server().subscribed.insert(channel.clone());
        self.subscribed.push((channel, connection));
    }

    /// Sends `call`; its answer, or that none came within `limit`, is reported to the task.
    pub fn send(&mut self, client: usize, task: usize, call: Call, limit: Duration) {
        let question = self.number();
        let process = &mut self.clients[client];
        let sent = process.moment(self.now);
        let ttl = Duration::from_millis(call.args.get(1).map_or(0, |ttl| number(ttl)));
        process.tasks[task].question = Some(Open { number: question, sent, sent_us: self.now, ttl });
        self.note(|| format!("c{client}/{task} asks {question}: {:?} {}", call.verb, call.owner));
        let limit = limit.as_micros() as u64;
        if !self.clients[client].is_connected {
            let after = self.rng.u64(1..=limit.max(1));
            return self.at(after, Event::GiveUp { client, task, question });
        }
        self.transmit(client, task, question, Rc::new(call));
        self.at(limit, Event::GiveUp { client, task, question });
    }

    pub fn transmit(&mut self, client: usize, task: usize, question: u64, call: Rc<Call>) {
        let delay = self.delay();
        let process = &mut self.clients[client];
        process.to_server = process.to_server.max(self.now + delay) + 1;
        let (after, connection) = (process.to_server - self.now, process.connection);
        if self.rng.u32(..500) == 0 && !self.is_draining {
            self.bite("repeated requests");
            let late = after + self.rng.u64(..SECOND);
            self.at(late, Event::Arrive { connection: 0, client, task, question: 0, call: Rc::clone(&call) });
        }
        self.at(after, Event::Arrive { connection, client, task, question, call });
    }

    pub fn delay(&mut self) -> u64 {
        if self.rng.u32(..300) == 0 && !self.is_draining {
            self.bite("slow messages");
            return self.rng.u64(..SLOWEST);
        }
        self.plan.delay + self.rng.u64(..=self.plan.delay)
    }

    /// Sends what the server answers, unless the connection is gone.
    pub fn answer(&mut self, connection: u64, client: usize, task: usize, question: u64, call: Rc<Call>, reply: Reply) {
        if connection != self.clients[client].connection || self.broken.contains_key(&connection) {
            return;
        }
        let after = self.way_back(client);
        self.at(after, Event::Reply { connection, client, task, question, call, reply });
    }

    /// How long the next bytes from the server take to a client: never less than those before them.
    pub fn way_back(&mut self, client: usize) -> u64 {
        let delay = self.delay();
        let process = &mut self.clients[client];
        process.from_server = process.from_server.max(self.now + delay) + 1;
        process.from_server - self.now
    }

    /// Sends what the last script published.
    pub fn deliver(&mut self) {
        let published = std::mem::take(&mut self.scripted.server().published);
        for (channel, payload) in published {
            let reached = self.clients.iter().position(|client| client.inbox().as_bytes() == channel);
            let Some(client) = reached else { continue };
            let connection = self.clients[client].connection;
            if self.broken.contains_key(&connection) || !self.clients[client].is_connected {
                self.bite("messages to broken connections");
                continue;
            }
            if self.rng.u32(..200) == 0 && !self.is_draining {
                self.bite("lost messages");
                continue;
            }
            let twice = self.rng.u32(..200) == 0;
            for _ in 0..=u8::from(twice) {
                let after = self.way_back(client);
                self.at(after, Event::Message { connection, client, payload: payload.clone() });
            }
        }
    }

    /// The connection carries nothing any more. The server may read what it has, and count it for a while yet; the
    /// client notices some time later.
    pub fn break_connection(&mut self, client: usize) {
        let connection = self.clients[client].connection;
        if !self.clients[client].is_connected || self.broken.contains_key(&connection) {
            return;
        }
        self.bite("broken connections");
        self.note(|| format!("the connection of c{client} breaks"));
        self.broken.insert(connection, self.now + self.rng.u64(..=2 * self.plan.delay));
        let channel = self.clients[client].inbox().into_bytes();
        let ghost = if self.rng.bool() { self.plan.delay } else { self.rng.u64(..5 * SECOND) };
        self.at(ghost, Event::Forgotten { channel, connection });
        let notice = if self.rng.bool() { self.plan.delay } else { self.rng.u64(..SECOND) };
        self.at(notice, Event::Noticed { client, connection });
        self.clients[client].steady_since = u64::MAX;
    }

    /// The client learns that its connection is broken, and makes another.
    pub fn disconnect(&mut self, client: usize) -> Result<(), String> {
        self.note(|| format!("c{client} notices that its connection broke"));
        let connection = self.number();
        self.clients[client].is_connected = false;
        self.clients[client].connection = connection;
        let after = 10_000 + self.rng.u64(..SECOND / 2);
        self.at(after, Event::Connected { client, connection });
        for task in 0..self.clients[client].tasks.len() {
            if let Some(open) = self.clients[client].tasks[task].question.take() {
                self.unanswered(client, task, open);
            }
            self.disconnected(client, task);
            self.drive(client, task)?;
        }
        Ok(())
    }
}
