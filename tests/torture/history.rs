//! What happened, as the servers and the clients wrote it down.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use crate::support::lock::{LockState, PlaceState};

/// One change of a lock, in the order in which the server made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A lease was granted; `told_ms` is how long its owner was told that it lasts.
    Granted { owner: String, label: String, fence: u64, at_us: u64, deadline_ms: u64, told_ms: u64 },
    /// The lease got another deadline.
    Extended { deadline_ms: u64 },
    /// The lease was given back, or found to be over.
    Ended,
    /// A waiter has this place until its window ends.
    Queued { ticket: u64, owner: String, label: String, window_ms: u64 },
    /// The place is gone.
    Unqueued { ticket: u64 },
}

/// What a client believes about one lease.
#[derive(Clone, Debug)]
pub struct Section {
    pub lock: String,
    pub fence: u64,
    /// Time at which the counter was read, and last touched, on the resource's clock.
    pub enter_us: u64,
    pub exit_us: u64,
    /// `kept`: written, and the lease still held after that. `late`: written, but the lease was over when the answer
    /// came. `stale`: refused, and the lease over. `stale_while_held`: refused although the client held the lease.
    pub verdict: String,
    /// `released`, `dropped`, `unknown`, `lost`, or `lost_while_held` when the client still had time.
    pub release: String,
}

/// One write that the resource accepted.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub fence: u64,
    pub at_us: u64,
    pub value: u64,
}

/// All of one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By name of the lock.
    pub events: BTreeMap<String, Vec<Event>>,
    pub writes: BTreeMap<String, Vec<Write>>,
    pub counters: BTreeMap<String, u64>,
    pub sections: Vec<Section>,
    /// When a process was killed, by its label.
    pub deaths: HashMap<String, u64>,
    /// What a client or the controller found wrong, as text.
    pub remarks: Vec<String>,
}

impl Section {
    /// Reads a line of a client's log; `None` when it is not a section.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').map(str::to_owned);
        Some(Self {
            lock: words.next()?,
            fence: words.next()?.parse().ok()?,
            enter_us: words.next()?.parse().ok()?,
            exit_us: words.next()?.parse().ok()?,
            verdict: words.next()?,
            release: words.next()?,
        })
    }
}

impl Write {
    /// Reads an entry of the resource's list.
    pub fn parse(entry: &str) -> Option<Self> {
        let mut numbers = entry.split(' ').map(|word| word.parse().ok());
        Some(Self { fence: numbers.next()??, at_us: numbers.next()??, value: numbers.next()?? })
    }
}

/// Reads a server's append-only file: every write that its scripts made, in order, whatever became of the clients.
/// Keys lose `prefix`.
pub fn read_append_only_file(folder: &Path, prefix: &str) -> BTreeMap<String, Vec<Event>> {
    let mut locks: BTreeMap<String, (LockState, Vec<Event>)> = BTreeMap::new();
    let file = std::fs::read(append_only_file(folder)).expect("the server writes its file");
    let (mut rest, mut words) = (file.as_slice(), Vec::new());
    while !rest.is_empty() {
        rest = command(rest, &mut words);
        let [verb, key, args @ ..] = words.as_slice() else { continue };
        let Some(lock) = text(key).strip_prefix(prefix) else { continue };
        let (state, log) = locks.entry(lock.to_owned()).or_default();
        match *verb {
            b"HSET" => args.chunks_exact(2).for_each(|pair| set_field(pair[0], pair[1], state, log)),
            b"HDEL" => {
                let tickets = args.iter().filter_map(|field| text(field).strip_prefix("place:").map(number));
                log.extend(tickets.map(|ticket| Event::Unqueued { ticket }));
            }
            b"PEXPIRE" | b"PEXPIREAT" => {}
            other => panic!("{} is not a command of the scripts", text(other)),
        }
    }
    locks.into_iter().map(|(lock, (_, log))| (lock, log)).collect()
}

fn set_field(field: &[u8], value: &[u8], state: &mut LockState, log: &mut Vec<Event>) {
    if field == b"state" {
        let before = std::mem::replace(state, LockState::parse(value));
        changed(&before, state, log);
    } else if let Some(ticket) = text(field).strip_prefix("place:") {
        let place = PlaceState::parse(value);
        log.push(Event::Queued {
            ticket: number(ticket),
            window_ms: (place.closes_ms - state.behind_ms).unsigned_abs(),
            owner: text(&place.owner).to_owned(),
            label: text(&place.label).to_owned(),
        });
    }
}

/// What happened between two states. A release that hands on is one write: it leaves the one who released in the memo.
fn changed(before: &LockState, now: &LockState, log: &mut Vec<Event>) {
    let is_granted = now.fence != before.fence && now.has_lease();
    let is_given_back = before.holder == now.released && before.released != now.released;
    if before.has_lease() && (!now.has_lease() || is_granted && is_given_back) {
        log.push(Event::Ended);
    }
    let deadline_ms = (now.deadline_ms - now.behind_ms).unsigned_abs();
    if is_granted {
        log.push(Event::Granted {
            owner: now.holder(),
            label: text(&now.label).to_owned(),
            fence: now.fence.unsigned_abs(),
            at_us: now.since_us.unsigned_abs(),
            deadline_ms,
            told_ms: (now.deadline_ms - now.clock_ms).unsigned_abs(),
        });
    } else if now.has_lease() && now.deadline_ms != before.deadline_ms {
        log.push(Event::Extended { deadline_ms });
    }
}

fn append_only_file(folder: &Path) -> std::path::PathBuf {
    let parts = folder.join("appendonlydir");
    if !parts.exists() {
        return folder.join("appendonly.aof");
    }
    let files = std::fs::read_dir(parts).expect("the folder can be read").filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().expect("there is an incremental file")
}

/// Takes one command, such as `*2\r\n$4\r\nHDEL\r\n…`, off `file` and returns what follows.
fn command<'a>(file: &'a [u8], words: &mut Vec<&'a [u8]>) -> &'a [u8] {
    words.clear();
    let (count, mut rest) = length(file, b'*');
    for _ in 0..count {
        let (length, word) = length(rest, b'$');
        words.push(&word[..length]);
        rest = &word[length + 2..];
    }
    rest
}

fn length(file: &[u8], mark: u8) -> (usize, &[u8]) {
    let end = file.windows(2).position(|bytes| bytes == b"\r\n").expect("the file ends within a command");
    assert_eq!(file[0], mark);
    (text(&file[1..end]).parse().expect("a length"), &file[end + 2..])
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_else(|_| panic!("{} is no text", bytes.escape_ascii()))
}

#[track_caller]
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}
