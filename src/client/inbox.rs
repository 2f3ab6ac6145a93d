//! The one subscription of a client, by which releases tell its waiters that they hold the lease.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use crate::{Error, Fence, call::Caller};

/// What a waiter hears.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wake {
    /// A release handed the lease to this waiter.
    Granted { fence: Fence, lease: Duration },
    /// A release handed the lease to this waiter, but nothing says since when: the message came by way of another
    /// server, or is none that a script sends.
    Told,
    /// Those before this waiter are gone: it is the head of the queue now and watches the holder's lease.
    Head,
    /// The connection broke, so a message may be lost: ask.
    Ask,
}

/// Routes messages to the waiters of this process.
#[derive(Clone)]
pub(super) struct Inbox {
    inner: Arc<Inner>,
}

struct Inner {
    channel: String,
    /// Whether a message that comes after a reply was sent after it.
    in_order: bool,
    waiters: Mutex<HashMap<String, mpsc::UnboundedSender<Wake>>>,
}

/// A registered waiter; dropping it ends the registration.
pub(super) struct Listener {
    inbox: Inbox,
    owner: String,
    wakes: mpsc::UnboundedReceiver<Wake>,
}

impl Inbox {
    pub(super) fn new(channel: String, in_order: bool) -> Self {
        Self { inner: Arc::new(Inner { channel, in_order, waiters: Mutex::default() }) }
    }

    /// The channel, once its subscription is confirmed on the connection in use; `None` while no messages come by that.
    pub(super) async fn channel(&self, caller: &Caller) -> Result<Option<&str>, Error> {
        match caller.subscribe(&self.inner.channel).await {
            Ok(hears) => Ok(hears.then_some(self.inner.channel.as_str())),
            // The node that would bring the messages is another one than that of the lock.
            Err(error) if caller.endpoint().is_cluster() => {
                tracing::debug!(%error, "no inbox for now");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Registers `owner` before its first enqueue, so that no grant can come too early.
    pub(super) fn listen(&self, owner: &str) -> Listener {
        let (sender, wakes) = mpsc::unbounded_channel();
        self.waiters().insert(owner.to_owned(), sender);
        Listener { inbox: self.clone(), owner: owner.to_owned(), wakes }
    }

    /// Takes a push message. Called by the connection's reader in the order of arrival, before any later reply.
    pub(super) fn receive(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message => {
                let Some(Value::BulkString(payload)) = push.data.get(1) else { return };
                let Some((owner, wake)) = parse(payload) else { return };
                let wake = match wake {
                    Wake::Granted { .. } if !self.inner.in_order => Wake::Told,
                    wake => wake,
                };
                // Without a waiter there is nothing to do: whoever gave up has sent a release after its acquire.
                if let Some(waiter) = self.waiters().get(owner) {
                    let _ = waiter.send(wake);
                }
            }
            PushKind::Disconnection => {
                for waiter in self.waiters().values() {
                    let _ = waiter.send(Wake::Ask);
                }
            }
            _ => {}
        }
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Wake>>> {
        self.inner.waiters.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Listener {
    /// The next message.
    pub(super) async fn next(&mut self) -> Wake {
        // The registration keeps a sender, so the channel is never closed.
        self.wakes.recv().await.unwrap_or(Wake::Ask)
    }

    /// A message that has come already.
    pub(super) fn heard(&mut self) -> Option<Wake> {
        self.wakes.try_recv().ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inbox.waiters().remove(&self.owner);
    }
}

/// `owner fence lease_ms`, as the scripts write it, with two zeros when the owner is the head of the queue now. Anything
/// else that begins with an owner token proves nothing, but that somebody wants it to ask.
fn parse(payload: &[u8]) -> Option<(&str, Wake)> {
    let text = std::str::from_utf8(payload).ok()?;
    let (owner, rest) = text.split_once(' ').unwrap_or((text, ""));
    Some((owner, if rest == "0 0" { Wake::Head } else { grant(rest).unwrap_or(Wake::Told) }))
}

fn grant(text: &str) -> Option<Wake> {
    let (fence, lease) = text.split_once(' ')?;
    Some(Wake::Granted { fence: fence.parse().ok()?, lease: Duration::from_millis(lease.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(in_order: bool, said: &str) -> Wake {
        let inbox = Inbox::new("inbox".to_owned(), in_order);
        let mut listener = inbox.listen("o:1");
        let data = vec![Value::BulkString(b"inbox".to_vec()), Value::BulkString(said.into())];
        inbox.receive(PushInfo { kind: PushKind::Message, data });
        listener.heard().expect("the message is for this waiter")
    }

    #[test]
    fn a_message_by_way_of_another_server_proves_nothing() {
        assert!(matches!(hears(true, "o:1 7 3000"), Wake::Granted { lease, .. } if lease == Duration::from_secs(3)));
        assert!(matches!(hears(false, "o:1 7 3000"), Wake::Told));
    }

    #[test]
    fn two_zeros_tell_the_head_of_the_queue_and_grant_nothing() {
        for in_order in [true, false] {
            assert!(matches!(hears(in_order, "o:1 0 0"), Wake::Head));
        }
    }

    #[test]
    fn what_no_script_sends_is_no_grant() {
        for said in
            ["o:1", "o:1 ", "o:1 7", "o:1 7 ", "o:1 7 3000 1", "o:1 -7 3000", "o:1 7 1e3", "o:1 9007199254740992 1"]
        {
            assert!(matches!(hears(true, said), Wake::Told), "{said}");
        }
    }
}
