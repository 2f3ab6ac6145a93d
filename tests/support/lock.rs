//! What the key of a mutex holds, for tests that look into it or bring it into a state: docs/protocol.md has the layout.

use super::Raw;

/// Field `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockState {
    /// By the lock's clock; 0 after a release.
    pub deadline_ms: i64,
    pub clock_ms: i64,
    pub behind_ms: i64,
    /// By the server's clock.
    pub expires_ms: i64,
    pub fence: i64,
    pub since_us: i64,
    /// 0 while nobody waits; then the queue has the five numbers that follow.
    pub tail: i64,
    pub head: i64,
    pub parked: i64,
    pub floor: i64,
    pub swept: i64,
    pub longest_ms: i64,
    pub holder: Vec<u8>,
    pub released: Vec<u8>,
    pub label: Vec<u8>,
}

impl Default for LockState {
    fn default() -> Self {
        Self {
            deadline_ms: 0,
            clock_ms: 0,
            behind_ms: 0,
            expires_ms: 0,
            fence: 0,
            since_us: 0,
            tail: 0,
            head: 1,
            parked: 0,
            floor: 0,
            swept: 0,
            longest_ms: 0,
            holder: Vec::new(),
            released: Vec::new(),
            label: Vec::new(),
        }
    }
}

impl LockState {
    pub fn parse(state: &[u8]) -> Self {
        let mut rest = Reader(state);
        let mut lock = Self {
            deadline_ms: rest.number(),
            clock_ms: rest.number(),
            behind_ms: rest.number(),
            expires_ms: rest.number(),
            fence: rest.number(),
            since_us: rest.number(),
            tail: rest.number(),
            ..Self::default()
        };
        let (holder, released) = (rest.byte(), rest.byte());
        if lock.tail > 0 {
            lock.head = rest.number();
            lock.parked = rest.number();
            lock.floor = rest.number();
            lock.swept = rest.number();
            lock.longest_ms = rest.number();
        }
        lock.holder = rest.bytes(holder.into());
        lock.released = rest.bytes(released.into());
        lock.label = rest.0.to_vec();
        lock
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.deadline_ms, self.clock_ms, self.behind_ms, self.expires_ms, self.fence, self.since_us];
        let mut bytes = packed(&numbers);
        bytes.extend(packed(&[self.tail]));
        bytes.extend([&self.holder, &self.released].map(|word| u8::try_from(word.len()).expect("a short word")));
        if self.tail > 0 {
            bytes.extend(packed(&[self.head, self.parked, self.floor, self.swept, self.longest_ms]));
        }
        [&*bytes, &self.holder, &self.released, &self.label].concat()
    }

    /// Whether there is a lease that nobody has given back; it may be over.
    pub fn has_lease(&self) -> bool {
        self.deadline_ms > 0
    }

    pub fn is_queue_open(&self) -> bool {
        self.tail > 0
    }

    pub fn holder(&self) -> String {
        String::from_utf8_lossy(&self.holder).into_owned()
    }

    /// A field by the name that it has here, as text.
    pub fn get(&self, field: &str) -> Vec<u8> {
        let mut copy = self.clone();
        match field {
            "holder" => copy.holder,
            "released" => copy.released,
            "label" => copy.label,
            _ => copy.number(field).to_string().into_bytes(),
        }
    }

    /// Sets a field by its name.
    pub fn set(&mut self, field: &str, value: &[u8]) {
        match field {
            "holder" => self.holder = value.to_vec(),
            "released" => self.released = value.to_vec(),
            "label" => self.label = value.to_vec(),
            _ => *self.number(field) = text(value).parse().expect("a number"),
        }
    }

    fn number(&mut self, field: &str) -> &mut i64 {
        match field {
            "deadline_ms" => &mut self.deadline_ms,
            "clock_ms" => &mut self.clock_ms,
            "behind_ms" => &mut self.behind_ms,
            "expires_ms" => &mut self.expires_ms,
            "fence" => &mut self.fence,
            "since_us" => &mut self.since_us,
            "tail" => &mut self.tail,
            "head" => &mut self.head,
            "parked" => &mut self.parked,
            "floor" => &mut self.floor,
            "swept" => &mut self.swept,
            "longest_ms" => &mut self.longest_ms,
            other => panic!("the state has no {other}"),
        }
    }
}

/// Field `place:<ticket>`. The waiter's ticket is in field `waiter:<owner>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceState {
    /// By the lock's clock.
    pub closes_ms: i64,
    pub here: bool,
    pub window_ms: i64,
    pub lease_ms: i64,
    pub retention_ms: i64,
    pub since_us: i64,
    pub owner: Vec<u8>,
    pub inbox: Vec<u8>,
    pub label: Vec<u8>,
}

impl PlaceState {
    pub fn parse(place: &[u8]) -> Self {
        let mut rest = Reader(place);
        let closes_ms = rest.number();
        let (owner, here, inbox) = (rest.byte(), rest.byte() == 1, u16::from_le_bytes([rest.byte(), rest.byte()]));
        Self {
            closes_ms,
            here,
            window_ms: rest.number(),
            lease_ms: rest.number(),
            retention_ms: rest.number(),
            since_us: rest.number(),
            owner: rest.bytes(owner.into()),
            inbox: rest.bytes(inbox.into()),
            label: rest.0.to_vec(),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = packed(&[self.closes_ms]);
        bytes.extend([u8::try_from(self.owner.len()).expect("a short token"), self.here.into()]);
        bytes.extend(u16::try_from(self.inbox.len()).expect("a short channel").to_le_bytes());
        bytes.extend(packed(&[self.window_ms, self.lease_ms, self.retention_ms, self.since_us]));
        [&*bytes, &self.owner, &self.inbox, &self.label].concat()
    }
}

impl PlaceState {
    /// Sets a field by its name.
    pub fn set(&mut self, field: &str, value: &[u8]) {
        match field {
            "owner" => self.owner = value.to_vec(),
            "inbox" => self.inbox = value.to_vec(),
            "label" => self.label = value.to_vec(),
            "here" => self.here = value == b"1",
            "closes_ms" => self.closes_ms = text(value).parse().expect("a number"),
            other => panic!("a table sets no {other}"),
        }
    }
}

/// Field `waiter:<owner>`: the ticket, and since when.
pub fn ticket_of(waiter: &[u8]) -> i64 {
    Reader(waiter).number()
}

impl Raw {
    /// The state of the mutex under `key`; one that was never held where there is none.
    #[track_caller]
    pub fn lock(&mut self, key: &str) -> LockState {
        self.must::<Option<Vec<u8>>>(&["HGET", key, "state"])
            .map_or_else(LockState::default, |state| LockState::parse(&state))
    }

    /// Changes the state of the mutex under `key`, which exists.
    #[track_caller]
    pub fn edit_lock(&mut self, key: &str, change: impl FnOnce(&mut LockState)) {
        let state: Vec<u8> = self.must(&["HGET", key, "state"]);
        let mut lock = LockState::parse(&state);
        change(&mut lock);
        self.run(&[b"HSET", key.as_bytes(), b"state", &lock.to_bytes()]).expect("HSET succeeds");
    }

    /// The place with that ticket.
    #[track_caller]
    pub fn place(&mut self, key: &str, ticket: i64) -> Option<PlaceState> {
        self.must::<Option<Vec<u8>>>(&["HGET", key, &format!("place:{ticket}")]).map(|place| PlaceState::parse(&place))
    }

    /// Puts a place under that ticket.
    #[track_caller]
    pub fn put_place(&mut self, key: &str, ticket: i64, place: &PlaceState) {
        let field = format!("place:{ticket}");
        self.run(&[b"HSET", key.as_bytes(), field.as_bytes(), &place.to_bytes()]).expect("HSET succeeds");
    }
}

/// A broken script may have written less than it should: what is missing reads as zero.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> i64 {
        let Some((number, rest)) = self.0.split_first_chunk() else { return 0 };
        self.0 = rest;
        f64::from_le_bytes(*number) as i64
    }

    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes.to_vec()
    }
}

fn packed(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| (number as f64).to_le_bytes()).collect()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}
