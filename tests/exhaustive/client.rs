//! What a client does with answers, messages and time.

use super::{
    CLAIM, Fault, TTL,
    server::{Answer, Verb},
};

/// What comes to a client, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Down {
    Reply(u8, Answer),
    Push { attempt: u8, fence: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Idle,
    /// `proof`: ticks since the last answered heartbeat was sent.
    Wants {
        proof: Option<u8>,
    },
    /// `life`: ticks until its own deadline.
    Holds {
        fence: u8,
        life: u8,
    },
    Leaving {
        held: bool,
    },
    /// Its release was answered. `held`: it gave back a lease and not a place.
    Left {
        held: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub attempt: u8,
    pub stage: Stage,
    /// The number of a question without answer, and the ticks since it was sent.
    pub open: Option<(u8, u8)>,
    pub asked: u8,
    pub up: Vec<(u8, Verb, u8)>,
    pub down: Vec<Down>,
}

impl Client {
    pub fn send(&mut self, verb: Verb) {
        // No more than that many answers can be on their way.
        self.asked = (self.asked + 1) % 8;
        self.open = Some((self.asked, 0));
        self.up.push((self.attempt, verb, self.asked));
    }

    /// A cancel, a release, or a release once more.
    pub fn leave(&mut self) {
        let held = matches!(self.stage, Stage::Holds { .. } | Stage::Leaving { held: true });
        self.stage = Stage::Leaving { held };
        self.send(Verb::Release);
    }

    pub fn hear(&mut self, message: Down, fault: Fault) {
        match message {
            Down::Push { attempt, fence } => {
                let Stage::Wants { proof: Some(age) } = self.stage else { return };
                if attempt == self.attempt && self.open.is_none() {
                    let life = if fault == Fault::PushBelieved { CLAIM } else { CLAIM.saturating_sub(age) };
                    if life > 0 {
                        self.stage = Stage::Holds { fence, life };
                    }
                }
            }
            Down::Reply(number, answer) => {
                let Some((_, age)) = self.open.take_if(|(asked, _)| *asked == number) else { return };
                let life = if fault == Fault::DeadlineFromReply { TTL } else { TTL.saturating_sub(age) };
                match (&self.stage, answer) {
                    (Stage::Wants { .. }, Answer::Granted { fence }) if life > 0 => {
                        self.stage = Stage::Holds { fence, life };
                    }
                    (Stage::Wants { .. }, Answer::Queued) => self.stage = Stage::Wants { proof: Some(age) },
                    (Stage::Wants { .. }, Answer::Spent) => self.stage = Stage::Leaving { held: false },
                    (&Stage::Holds { fence, .. }, Answer::Granted { fence: now }) if fence == now && life > 0 => {
                        self.stage = Stage::Holds { fence, life };
                    }
                    (Stage::Holds { .. }, _) => self.stage = Stage::Leaving { held: false },
                    (&Stage::Leaving { held }, Answer::Released { was_held }) => {
                        self.stage = Stage::Left { held: held && was_held };
                    }
                    _ => {}
                }
            }
        }
    }

    pub fn tick(&mut self) {
        let older = |age: u8| (age + 1).min(TTL);
        if let Some((_, age)) = &mut self.open {
            *age = older(*age);
        }
        self.stage = match self.stage.clone() {
            Stage::Wants { proof } => Stage::Wants { proof: proof.map(older) },
            Stage::Holds { life: 0 | 1, .. } => Stage::Leaving { held: false },
            Stage::Holds { fence, life } => Stage::Holds { fence, life: life - 1 },
            stage => stage,
        };
    }
}
