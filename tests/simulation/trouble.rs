//! What goes wrong in a run, and how often it did.

use super::{
    client::{Client, Task},
    world::{SECOND, SLOWEST, World},
};

impl World<'_> {
    pub fn fault(&mut self) -> Result<(), String> {
        if self.scripted.server().is_full {
            self.scripted.server().is_full = false;
            self.troubled = self.now;
            return Ok(());
        }
        let client = self.rng.usize(..self.clients.len());
        match self.rng.u32(..100) {
            0..35 => self.break_connection(client),
            35..50 => {
                self.bite("stopped processes");
                let longest = [20_000, 2 * SECOND][self.rng.usize(..2)];
                let until = self.now + self.rng.u64(..longest);
                let process = &mut self.clients[client];
                process.stopped_until = process.stopped_until.max(until);
                process.steady_since = process.steady_since.max(until);
            }
            50..62 => self.crash(client)?,
            62..72 => {
                self.bite("stops of the server");
                let longest = [20_000, SECOND][self.rng.usize(..2)];
                self.server_busy_until = self.now + self.rng.u64(..longest);
                self.troubled = self.server_busy_until + SLOWEST;
            }
            72..80 => self.has_no_scripts = true,
            80..86 => {
                self.bite("losses of all data");
                self.check.data_is_lost();
                self.answers.data_is_lost();
                self.scripted.server().lose_data();
                self.seen.fill(None);
                (self.spoiled, self.troubled) = (self.now, self.now);
                self.note(|| "the server loses all data".to_owned());
            }
            86..90 => {
                self.bite("steps back of the server's clock");
                let step = self.rng.u64(..5 * SECOND);
                self.stepped_back += step;
                self.server_base -= step as i64;
                self.troubled = self.now + 10 * SECOND;
                self.note(|| "the server's clock steps back".to_owned());
            }
            90..94 => {
                self.bite("steps ahead of the server's clock");
                self.server_base += self.rng.i64(0..5_000_000);
                (self.spoiled, self.troubled) = (self.now, self.now);
                self.note(|| "the server's clock steps ahead".to_owned());
            }
            _ => {
                self.bite("full memory");
                self.scripted.server().is_full = true;
                self.troubled = u64::MAX;
            }
        }
        Ok(())
    }

    /// A process dies and another takes its place.
    pub fn crash(&mut self, client: usize) -> Result<(), String> {
        self.bite("deaths");
        self.note(|| format!("c{client} dies"));
        self.break_connection(client);
        let tasks = self.clients[client].tasks.iter().map(|_| Task::default()).collect();
        let connection = self.number();
        let id = format!("d{connection}");
        let process = Client::new(id, connection, &mut self.rng, self.now, tasks);
        self.subscribe(process.inbox().into_bytes(), connection);
        self.clients[client] = process;
        for task in 0..self.clients[client].tasks.len() {
            self.drive(client, task)?;
        }
        Ok(())
    }
}
