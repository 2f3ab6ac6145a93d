//! The one subscription of a client, by which releases tell its waiters that they hold the lease.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::{OnceCell, mpsc};

use crate::{Error, ErrorKind, Fence, call::Caller};

/// What a waiter hears.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wake {
    /// A release handed the lease to this waiter.
    Granted { fence: Fence, lease: Duration },
    /// A release handed the lease to this waiter, some time ago: the message came by way of another server.
    Told,
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
    subscribed: OnceCell<bool>,
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
        Self { inner: Arc::new(Inner { channel, in_order, subscribed: OnceCell::new(), waiters: Mutex::default() }) }
    }

    /// The channel, once its subscription is confirmed; `None` when the server's ACL does not allow it.
    pub(super) async fn channel(&self, caller: &Caller) -> Result<Option<&str>, Error> {
        let subscribed = self
            .inner
            .subscribed
            .get_or_try_init(|| async {
                match caller.subscribe(&self.inner.channel).await {
                    Ok(()) => Ok(true),
                    Err(error) if error.kind() == ErrorKind::Refused => {
                        tracing::warn!(%error, "no inbox: the waiters of this client poll; grant its user the channel and connect again");
                        Ok(false)
                    }
                    Err(error) => Err(error),
                }
            })
            .await?;
        Ok(subscribed.then_some(self.inner.channel.as_str()))
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
                let Some((owner, grant)) = parse(payload) else { return };
                let wake = if self.inner.in_order { grant } else { Wake::Told };
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

/// `owner fence lease_ms`, as the release script writes it.
fn parse(payload: &[u8]) -> Option<(&str, Wake)> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    let (owner, fence, lease) = (words.next()?, words.next()?, words.next()?);
    Some((owner, Wake::Granted { fence: fence.parse().ok()?, lease: Duration::from_millis(lease.parse().ok()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(in_order: bool) -> Wake {
        let inbox = Inbox::new("inbox".to_owned(), in_order);
        let mut listener = inbox.listen("o:1");
        let data = vec![Value::BulkString(b"inbox".to_vec()), Value::BulkString(b"o:1 7 3000".to_vec())];
        inbox.receive(PushInfo { kind: PushKind::Message, data });
        listener.heard().expect("the message is for this waiter")
    }

    #[test]
    fn a_message_by_way_of_another_server_proves_nothing() {
        assert!(matches!(hears(true), Wake::Granted { lease, .. } if lease == Duration::from_secs(3)));
        assert!(matches!(hears(false), Wake::Told));
    }
}
