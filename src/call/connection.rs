//! The one connection of a caller, made again when it breaks or falls silent.
//!
//! The redis crate's own manager is not used because it keeps a connection that swallows commands, and because it
//! brings pushed messages by way of another task: here they are handed over by the reader itself, so that a message
//! that came before a reply is known before that reply is.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult,
    Value, aio::MultiplexedConnection,
};

use tokio::sync::OnceCell;

use super::{
    hello::Hello,
    push,
    refusal::{self, Login},
    sentinel::{self, Sentinels},
};
use crate::{clock, protocol::Moment};

/// Pause after the first attempt to connect that fails; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A connection that can be shared. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connection(Arc<Inner>);

/// The connection in use. Its number tells it from those before.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) redis: MultiplexedConnection,
    address: String,
    number: u64,
    /// Commands in a row that got no reply within their limit.
    unanswered: Arc<AtomicU64>,
    /// Whether the messages of the channel come by this very connection; empty before that is asked for.
    hears: Arc<OnceCell<bool>>,
}

impl Live {
    pub(super) fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Subscribes to `channel` unless that was done. A refusal that will pass is an error: the connection is then to be
    /// made again, as this one would never hear anything.
    async fn listen(&self, channel: &str) -> RedisResult<bool> {
        let subscribe = async || match self.redis.clone().subscribe(channel).await {
            Ok(()) => Ok(true),
            Err(error) if push::is_denied(&error) => {
                let command = redis::cmd("SUBSCRIBE").arg(channel).to_owned();
                let error = refusal::translate_reply("SUBSCRIBE", error, &command, &Login::someone("caller"));
                tracing::warn!(%error, "no inbox: waiters poll until the connection is made again");
                Ok(false)
            }
            Err(error) => Err(error),
        };
        Box::pin(self.hears.get_or_try_init(subscribe)).await.copied()
    }

    /// Takes note of a command without reply; whether there were two in a row.
    pub(super) fn unanswered(&self) -> bool {
        self.unanswered.fetch_add(1, Ordering::Relaxed) > 0
    }
}

/// Says which server to connect to; asked before each attempt, because that may change.
pub(super) enum Seek {
    /// Always the same address. A host name is looked up anew each time.
    Fixed(Box<Client>),
    /// The sentinel at that address.
    Sentinel(Box<Client>),
    /// The primary that the sentinels name.
    Primary(Arc<Sentinels>),
    /// Any of these addresses, another one each time.
    AnyOf(Arc<Members>),
}

/// Addresses that stand for each other, and what connects to one of them.
pub(super) struct Members {
    pub(super) addresses: Mutex<Vec<ConnectionAddr>>,
    pub(super) open: Box<dyn Fn(ConnectionAddr) -> RedisResult<Client> + Send + Sync>,
}

impl Seek {
    /// Connects, to the address that is right now.
    async fn connect(&self, configs: &Configs) -> RedisResult<Opened> {
        match self {
            Self::Fixed(client) => {
                let opened = configs.open(client).await?;
                opened.hello.check_mode().map(|()| opened)
            }
            Self::Sentinel(client) => configs.open(client).await,
            Self::Primary(sentinels) => {
                let mut candidates = sentinels.candidates();
                loop {
                    let client = candidates.next().await?;
                    match configs.open(&client).await {
                        Ok(mut opened) => match sentinel::check_role(&mut opened.redis).await {
                            Ok(()) => return Ok(opened),
                            Err(error) => candidates.failed(error),
                        },
                        Err(error) => candidates.failed(error),
                    }
                }
            }
            Self::AnyOf(members) => {
                let address = fastrand::choice(&*lock(&members.addresses)).cloned();
                let none = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "no address is known"));
                configs.open(&(members.open)(address.ok_or_else(none)?)?).await
            }
        }
    }
}

/// How to connect to a server that has RESP3, and to one that has not.
struct Configs {
    resp3: AsyncConnectionConfig,
    resp2: AsyncConnectionConfig,
}

/// A fresh connection.
struct Opened {
    redis: MultiplexedConnection,
    hello: Hello,
    address: String,
    /// Whether messages can come by it.
    pushes: bool,
}

impl Configs {
    async fn open(&self, client: &Client) -> RedisResult<Opened> {
        let info = client.get_connection_info();
        let (mut redis, pushes) = push::open(client, &self.resp3, &self.resp2).await?;
        let hello = introduce(&mut redis, info.redis_settings()).await?;
        hello.check_age()?;
        Ok(Opened { redis, hello, address: info.addr().to_string(), pushes })
    }
}

struct Inner {
    seek: Seek,
    timeout: Duration,
    on_push: Box<dyn Fn(PushInfo) + Send + Sync>,
    /// Subscribed on each new connection, once somebody has asked for it.
    channel: Mutex<Option<String>>,
    live: Mutex<Option<Live>>,
    /// Number of the connection whose messages count.
    newest: AtomicU64,
    /// Held while connecting, so that everybody shares one attempt.
    attempts: tokio::sync::Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    made: u64,
    pause: Duration,
    failed: Option<(Moment, RedisError)>,
}

impl Connection {
    /// Nothing is connected before the first [`live`](Self::live). `on_push` gets the messages of the connection in
    /// use, and [`PushKind::Disconnection`] when it is given up.
    pub(super) fn new(seek: Seek, timeout: Duration, on_push: impl Fn(PushInfo) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            seek,
            timeout,
            on_push: Box::new(on_push),
            channel: Mutex::default(),
            live: Mutex::default(),
            newest: AtomicU64::default(),
            attempts: tokio::sync::Mutex::default(),
        }))
    }

    /// The connection in use, connecting if there is none.
    pub(super) async fn live(&self) -> RedisResult<Live> {
        if let Some(live) = &*lock(&self.0.live) {
            return Ok(live.clone());
        }
        let asked = clock::now();
        let mut attempts = self.0.attempts.lock().await;
        if let Some(live) = &*lock(&self.0.live) {
            return Ok(live.clone());
        }
        if let Some((at, error)) = &attempts.failed {
            if *at >= asked {
                return Err(error.clone());
            }
            clock::sleep_until(*at + attempts.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        attempts.made += 1;
        // In a box, as every call would else carry all of this with it.
        match Box::pin(self.connect(attempts.made)).await {
            Ok(live) => {
                attempts.failed = None;
                attempts.pause = Duration::ZERO;
                Ok(live)
            }
            Err(error) => {
                attempts.failed = Some((clock::now(), error.clone()));
                attempts.pause = (attempts.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                Err(error)
            }
        }
    }

    async fn connect(&self, number: u64) -> RedisResult<Live> {
        let inner = Arc::downgrade(&self.0);
        let config = || {
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.0.timeout))
                // Every command has a timeout of its own, which also covers the time of a reconnect.
                .set_response_timeout(None)
        };
        let resp3 = config().set_push_sender(move |push| {
            receive(&inner, number, push);
            Ok::<(), ()>(())
        });
        let opened = self.0.seek.connect(&Configs { resp3, resp2: config() }).await?;
        self.0.newest.store(number, Ordering::Release);
        let Opened { redis, address, pushes, .. } = opened;
        let hears = if pushes { OnceCell::new() } else { OnceCell::new_with(Some(false)) };
        let live = Live { redis, address, number, unanswered: Arc::default(), hears: Arc::new(hears) };
        let channel = lock(&self.0.channel).clone();
        if let Some(channel) = channel {
            live.listen(&channel).await?;
        }
        *lock(&self.0.live) = Some(live.clone());
        Ok(live)
    }

    /// Subscribes to `channel`, on the connection in use and on every later one; whether its messages come.
    pub(super) async fn subscribe(&self, channel: &str) -> RedisResult<bool> {
        *lock(&self.0.channel) = Some(channel.to_owned());
        let live = self.live().await?;
        live.listen(channel).await.inspect_err(|_| self.give_up(&live))
    }

    /// Whether the messages of the channel come by the connection in use, if that is known.
    pub(super) fn hears(&self) -> Option<bool> {
        lock(&self.0.live).as_ref()?.hears.get().copied()
    }

    /// Where the connection in use leads.
    pub(super) fn address(&self) -> Option<String> {
        lock(&self.0.live).as_ref().map(|live| live.address.clone())
    }

    /// Gives `live` up: it is broken, or a command on it got no reply for too long.
    pub(super) fn give_up(&self, live: &Live) {
        self.0.give_up(live.number);
    }

    /// Gives up whatever is in use: it leads to the wrong server.
    pub(super) fn leave(&self) {
        let number = lock(&self.0.live).as_ref().map(|live| live.number);
        if let Some(number) = number {
            self.0.give_up(number);
        }
    }

    /// Gives up what is in use unless it leads to `address`.
    pub(super) fn move_to(&self, address: &str) {
        if lock(&self.0.live).as_ref().is_some_and(|live| live.address != address) {
            self.leave();
        }
    }

    /// To be used by a task that must not keep the connection alive.
    pub(super) fn downgrade(&self) -> impl Fn() -> Option<Self> + Send + Sync + 'static {
        let inner = Arc::downgrade(&self.0);
        move || inner.upgrade().map(Self)
    }
}

impl Inner {
    fn give_up(&self, number: u64) {
        let given_up = lock(&self.live).take_if(|live| live.number == number);
        if given_up.is_some() {
            (self.on_push)(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
        }
    }
}

/// Lets `redlatch status --callers` see which version is connected, and asks the server who it is. Since Redis 7.2 the
/// crate tells the former by itself.
async fn introduce(redis: &mut MultiplexedConnection, settings: &RedisConnectionInfo) -> RedisResult<Hello> {
    let (Some(library), Some(version)) = (settings.lib_name(), settings.lib_ver()) else {
        return Ok(Hello(Value::Nil));
    };
    let mut pipeline = redis::pipe();
    pipeline.cmd("CLIENT").arg("SETNAME").arg(format!("{library}/{version}"));
    // Anybody may ask that, and it changes nothing.
    pipeline.cmd("HELLO");
    match redis.send_packed_commands(&pipeline, 0, 2).await {
        Err(error) if error.is_io_error() => Err(error),
        // A user without the right to a name is served nameless.
        Ok(mut replies) => Ok(Hello(replies.pop().unwrap_or(Value::Nil))),
        Err(_) => Ok(Hello(Value::Nil)),
    }
}

/// Takes what the reader of connection `number` hands over. A message of an earlier connection may be older than a
/// reply of this one, so nothing is proven by it.
fn receive(inner: &Weak<Inner>, number: u64, push: PushInfo) {
    let Some(inner) = inner.upgrade() else { return };
    if push.kind == PushKind::Disconnection {
        inner.give_up(number);
    } else if inner.newest.load(Ordering::Acquire) == number {
        (inner.on_push)(push);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_an_earlier_connection_is_not_handed_over() {
        let heard = Arc::new(AtomicU64::default());
        let on_push = {
            let heard = Arc::clone(&heard);
            move |_| {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        };
        let seek = Seek::Fixed(Box::new(Client::open("redis://127.0.0.1").unwrap()));
        let connection = Connection::new(seek, Duration::from_secs(1), on_push);
        connection.0.newest.store(2, Ordering::Release);
        let hears = |number| {
            let message = PushInfo { kind: PushKind::Message, data: Vec::new() };
            receive(&Arc::downgrade(&connection.0), number, message);
            heard.load(Ordering::Relaxed)
        };
        assert_eq!((hears(1), hears(2), hears(1)), (0, 1, 1));
    }
}
