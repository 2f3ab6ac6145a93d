//! What happened, as the servers and the clients wrote it down.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

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
    let mut events: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    let text = std::fs::read_to_string(append_only_file(folder)).expect("the server writes its file");
    let (mut rest, mut words) = (text.as_str(), Vec::new());
    while !rest.is_empty() {
        rest = command(rest, &mut words);
        let [verb, key, args @ ..] = words.as_slice() else { continue };
        let Some(lock) = key.strip_prefix(prefix) else { continue };
        if !events.contains_key(lock) {
            events.insert(lock.to_owned(), Vec::new());
        }
        let log = events.get_mut(lock).expect("it was inserted");
        match *verb {
            "HSET" => set_fields(args, log),
            "HDEL" => args.iter().for_each(|field| match field.strip_prefix("place:") {
                Some(ticket) => log.push(Event::Unqueued { ticket: number(ticket) }),
                None if *field == "deadline_ms" => log.push(Event::Ended),
                None => {}
            }),
            "PEXPIRE" | "PEXPIREAT" => {}
            other => panic!("{other} is not a command of the scripts"),
        }
    }
    events
}

fn set_fields(args: &[&str], log: &mut Vec<Event>) {
    let fields = || args.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let field = |name| fields().find(|(field, _)| *field == name).map(|(_, value)| value);
    let deadline_ms = field("deadline_ms").map(number);
    match (field("owner"), deadline_ms) {
        (Some(owner), Some(deadline_ms)) => {
            let (at_us, label) =
                field("holder").and_then(|holder| holder.split_once(' ')).expect("a grant has a holder");
            let fence = number(field("fence").expect("a grant has a fence"));
            let told_ms = number(field("granted_ms").expect("a grant has a length"));
            let (owner, label) = (owner.to_owned(), label.to_owned());
            log.push(Event::Granted { owner, label, fence, at_us: number(at_us), deadline_ms, told_ms });
        }
        (None, Some(deadline_ms)) => log.push(Event::Extended { deadline_ms }),
        _ => {}
    }
    for (field, value) in fields() {
        if let Some(ticket) = field.strip_prefix("place:") {
            let words: Vec<&str> = value.splitn(6, ' ').collect();
            log.push(Event::Queued {
                ticket: number(ticket),
                window_ms: number(words[0]),
                owner: words[3].to_owned(),
                label: words[5].to_owned(),
            });
        }
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

/// Takes one command, such as `*2\r\n$4\r\nHDEL\r\n…`, off `text` and returns what follows.
fn command<'a>(text: &'a str, words: &mut Vec<&'a str>) -> &'a str {
    words.clear();
    let (count, mut rest) = length(text, '*');
    for _ in 0..count {
        let (length, text) = length(rest, '$');
        words.push(&text[..length]);
        rest = &text[length + 2..];
    }
    rest
}

fn length(text: &str, mark: char) -> (usize, &str) {
    let (line, rest) = text.split_once("\r\n").expect("the file ends within a command");
    (line.strip_prefix(mark).and_then(|length| length.parse().ok()).expect("a length"), rest)
}

#[track_caller]
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}
