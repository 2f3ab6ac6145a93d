//! A proxy in front of a server that loses, holds, repeats and spoils what passes, and counts how often it did.
//!
//! It understands the commands that clients send, so that a rule can speak of "each third release". What the server
//! sends passes as it is, but for the replies that a rule names: those are counted off in the order of their commands.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Server,
    resp::{Command, command, reply_end},
};

/// What happens to a command that a rule picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut and the command does not arrive.
    CutBefore,
    /// The command runs; the connection is cut instead of its reply.
    CutAfter,
    /// The command arrives so much later; the client sees silence meanwhile.
    HoldRequest(Duration),
    /// The reply arrives so much later, and what comes after it.
    HoldReply(Duration),
    /// From this command on nothing passes, in neither direction, but the connection stays open.
    HalfOpen,
    /// The command arrives a second time, by a connection of its own, so much later.
    Repeat(Duration),
    /// The reply is replaced by bytes that are not Redis.
    Garbage,
    /// Command and reply pass in single bytes.
    Bytewise,
    /// The command does not arrive; this error is its reply.
    Refuse(&'static str),
    /// The same with a reply that is no error, as it goes over the wire.
    Answer(&'static str),
}

type Rule = Box<dyn FnMut(&Command) -> Option<Fault> + Send>;

/// A proxy on a free TCP port.
pub struct Proxy {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: PathBuf,
    rule: Mutex<Rule>,
    /// Digests that callers ask for, and those that the server runs instead.
    swaps: Mutex<Vec<(String, String)>>,
    bites: AtomicU64,
    passed: AtomicU64,
    connections: Mutex<Vec<(TcpStream, UnixStream)>>,
    closed: AtomicBool,
}

impl Proxy {
    /// Starts in front of `server`; everything passes until [`rule`](Self::rule) says otherwise.
    pub fn start(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("redis://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            server: server.socket(),
            rule: Mutex::new(Box::new(|_| None)),
            swaps: Mutex::default(),
            bites: AtomicU64::default(),
            passed: AtomicU64::default(),
            connections: Mutex::default(),
            closed: AtomicBool::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { url, shared }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Where it listens, as `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("redis://")
    }

    /// From now on `rule` says what happens to each command.
    pub fn rule(&self, rule: impl FnMut(&Command) -> Option<Fault> + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// Everything passes.
    pub fn pass(&self) {
        self.rule(|_| None);
    }

    /// Callers that ask for the script `asked` run `run` instead: unchanged callers with changed scripts.
    pub fn swap(&self, asked: &str, run: &str) {
        self.shared.swaps.lock().unwrap().push((asked.to_owned(), run.to_owned()));
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for (client, server) in self.shared.connections.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// How often a fault happened.
    pub fn bites(&self) -> u64 {
        self.shared.bites.load(Ordering::Relaxed)
    }

    /// How many commands have come.
    pub fn commands(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.url.trim_start_matches("redis://"));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        if shared.closed.load(Ordering::Relaxed) {
            return;
        }
        let Ok(server) = UnixStream::connect(&shared.server) else { continue };
        let _ = client.set_nodelay(true);
        shared.connections.lock().unwrap().push((client.try_clone().unwrap(), server.try_clone().unwrap()));
        let link = Arc::new(Link {
            client,
            server,
            replies: Mutex::default(),
            half_open: AtomicBool::default(),
            shared: Arc::clone(shared),
        });
        let replies = Arc::clone(&link);
        thread::spawn(move || {
            let _ = replies.bring_replies();
            replies.cut();
        });
        thread::spawn(move || {
            let _ = link.bring_commands();
            link.cut();
        });
    }
}

/// One client's connection.
struct Link {
    client: TcpStream,
    server: UnixStream,
    /// What happens to each reply that is to come.
    replies: Mutex<VecDeque<Option<Fault>>>,
    half_open: AtomicBool,
    shared: Arc<Shared>,
}

impl Link {
    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn bring_commands(&self) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 65536];
        loop {
            let read = (&self.client).read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            bytes.extend_from_slice(&chunk[..read]);
            while let Some((command, end)) = command(&bytes) {
                let mut sent: Vec<u8> = bytes.drain(..end).collect();
                self.shared.passed.fetch_add(1, Ordering::Relaxed);
                self.swap(&command, &mut sent);
                self.bring(&command, &sent)?;
            }
        }
    }

    fn swap(&self, command: &Command, sent: &mut [u8]) {
        let swaps = self.shared.swaps.lock().unwrap();
        let Some(digest) = command.digest() else { return };
        if let Some((asked, run)) = swaps.iter().find(|(asked, _)| asked == digest) {
            let at = sent.windows(asked.len()).position(|window| window == asked.as_bytes()).unwrap();
            sent[at..at + run.len()].copy_from_slice(run.as_bytes());
        }
    }

    fn bring(&self, command: &Command, sent: &[u8]) -> std::io::Result<()> {
        let fault = (self.shared.rule.lock().unwrap())(command);
        if fault.is_some() {
            self.shared.bites.fetch_add(1, Ordering::Relaxed);
        }
        let of_reply = match fault {
            Some(Fault::CutBefore) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
            Some(Fault::HalfOpen) => {
                self.half_open.store(true, Ordering::Relaxed);
                None
            }
            Some(Fault::HoldRequest(time)) => {
                thread::sleep(time);
                None
            }
            Some(Fault::Repeat(time)) => {
                self.repeat(sent, time);
                None
            }
            Some(
                Fault::CutAfter
                | Fault::HoldReply(_)
                | Fault::Garbage
                | Fault::Bytewise
                | Fault::Refuse(_)
                | Fault::Answer(_),
            ) => fault,
            None => None,
        };
        if self.half_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.replies.lock().unwrap().push_back(of_reply);
        if fault == Some(Fault::Bytewise) {
            return sent.iter().try_for_each(|byte| (&self.server).write_all(&[*byte]));
        }
        if matches!(fault, Some(Fault::Refuse(_) | Fault::Answer(_))) {
            // Something has to be answered, for the order of the replies.
            return (&self.server).write_all(b"*1\r\n$7\r\nNOTHING\r\n");
        }
        (&self.server).write_all(sent)
    }

    /// Sends the same bytes once more by a connection of its own, whose reply nobody reads.
    fn repeat(&self, sent: &[u8], later: Duration) {
        let (sent, server) = (sent.to_vec(), self.shared.server.clone());
        thread::spawn(move || {
            thread::sleep(later);
            let mut again = UnixStream::connect(server)?;
            again.write_all(&sent)?;
            again.read(&mut [0; 1024])
        });
    }

    fn bring_replies(&self) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 65536];
        loop {
            let read = (&self.server).read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            bytes.extend_from_slice(&chunk[..read]);
            while let Some(end) = reply_end(&bytes) {
                let reply: Vec<u8> = bytes.drain(..end).collect();
                // Messages are not replies to a command, but for the confirmation of a subscription.
                let is_message = reply.starts_with(b">") && !reply.windows(9).any(|word| word == b"subscribe");
                let fault = if is_message { None } else { self.replies.lock().unwrap().pop_front().flatten() };
                self.bring_reply(&reply, fault)?;
            }
        }
    }

    fn bring_reply(&self, reply: &[u8], fault: Option<Fault>) -> std::io::Result<()> {
        if self.half_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        match fault {
            Some(Fault::CutAfter) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
            Some(Fault::HoldReply(time)) => thread::sleep(time),
            Some(Fault::Garbage) => return (&self.client).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            Some(Fault::Refuse(error)) => return (&self.client).write_all(format!("-{error}\r\n").as_bytes()),
            Some(Fault::Answer(answer)) => return (&self.client).write_all(answer.as_bytes()),
            Some(Fault::Bytewise) => {
                return reply.iter().try_for_each(|byte| (&self.client).write_all(&[*byte]));
            }
            Some(Fault::CutBefore | Fault::HoldRequest(_) | Fault::HalfOpen | Fault::Repeat(_)) | None => {}
        }
        (&self.client).write_all(reply)
    }
}
