//! How the command of `run` ended: in words, as exit code, as data.

use redlatch::{ErrorKind, Name};
use serde_json::{Value, json};

use crate::{
    guard::words::{Ended, Reason},
    outcome::Verdict,
    output::{base64_of, text_of},
    signals,
};

/// How the command ended.
pub struct End {
    pub ended: Ended,
    /// Whether it has been without protection, as it was allowed to be.
    pub unprotected: bool,
}

impl End {
    /// Whether nothing goes on that was made to end.
    pub fn is_stopped(&self) -> bool {
        self.ended.stopped.is_some() && self.ended.left.is_empty()
    }

    pub fn verdict(&self) -> Verdict {
        let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        match (&self.ended.stopped, self.ended.signal) {
            _ if !self.ended.left.is_empty() => Verdict::Lost,
            (Some(_), _) => Verdict::Lost,
            _ if self.ended.late => Verdict::Lost,
            (None, Some(signal)) => Verdict::Signalled(byte(signal)),
            (None, None) => Verdict::Exited(byte(self.ended.code.unwrap_or_default())),
        }
    }

    /// How the command ended by itself, in words.
    pub fn story(&self) -> Option<String> {
        match (self.ended.stopped, self.ended.signal, self.ended.code) {
            (None, Some(signal), _) => Some(format!("the command was ended by {}", signals::name(signal))),
            (None, None, Some(code)) => Some(format!("the command has ended with exit code {code}")),
            _ => None,
        }
    }

    /// What happened, in order.
    pub fn events(&self) -> Vec<Value> {
        let mut events = Vec::new();
        if self.ended.late {
            events.push(json!({ "event": "lost" }));
        }
        if self.ended.stopped.is_none() {
            events.push(json!({ "event": "exited", "exit_code": self.ended.code, "signal": self.ended.signal }));
        }
        if self.is_stopped() {
            events.push(json!({ "event": "stopped" }));
        } else if !self.ended.left.is_empty() {
            events.push(json!({ "event": "not_stopped", "processes": self.ended.left }));
        }
        events
    }

    pub fn data(&self, name: &Name, fence: &str) -> Value {
        let by_itself = self.ended.stopped.is_none();
        json!({
            "name": text_of(name.as_bytes()),
            "name_base64": base64_of(name.as_bytes()),
            "fence": fence,
            "stopped": self.is_stopped(),
            "not_stopped": self.ended.left,
            "child_exit_code": self.ended.code.filter(|_| by_itself),
            "child_signal": self.ended.signal.filter(|_| by_itself),
        })
    }

    /// What to say when the command was not protected to its end.
    pub fn loss(&self, name: &Name, released: Option<ErrorKind>) -> Option<String> {
        if !self.ended.left.is_empty() {
            let left = self.ended.left.join(", ");
            return Some(match self.ended.stopped {
                Some(_) => format!(
                    "lease of {name} could not be kept and the command could not be stopped, it goes on without \
                     protection: {left}"
                ),
                None => format!(
                    "the command has ended and what it left running could not be stopped, it goes on without \
                     protection: {left}"
                ),
            });
        }
        match self.ended.stopped {
            Some(Reason::Lease) if self.ended.late => Some(format!(
                "lease of {name} was lost while the command still ran: it could not be stopped before, as the processes \
                 that see to it were stopped themselves or had no time to run"
            )),
            Some(Reason::Lease) => {
                Some(format!("lease of {name} could not be kept, the command was stopped before it ended"))
            }
            Some(Reason::Terminal) => {
                Some(format!("the command of {name} got no terminal while its lease lasted, and was stopped"))
            }
            Some(Reason::Orphaned) => {
                Some(format!("the process that guarded the command of {name} was killed, and the command with it"))
            }
            None if self.unprotected => {
                Some(format!("lease of {name} was lost, the command went on without protection"))
            }
            None if self.ended.late || released == Some(ErrorKind::Lost) => {
                Some(format!("lease of {name} was lost before the command ended"))
            }
            None => None,
        }
    }
}
