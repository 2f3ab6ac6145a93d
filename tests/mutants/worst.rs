//! The faults that break a guarantee in use, whatever the table says: properties and torture have to notice each of them
//! as well, as the simulation does.

use super::{Mutant, faults::known_faults};

const WORST: [&str; 16] = [
    "acquire grants a held lock",
    "a retry is a new grant",
    "the lease is twice as long as told",
    "the fence is not raised",
    "the fence is raised by release only to the clock",
    "a newcomer overtakes",
    "who comes first has the lock",
    "a waiter that asks again goes to the end",
    "extend without comparing the owner",
    "extend of a lease that ran out",
    "extend shortens the lease",
    "release without comparing the owner",
    "release takes the lock from another holder",
    "two places are popped at once",
    "acquire waits for Redis' expiry",
    "waiters that died are granted",
];

pub fn worst_faults() -> Vec<Mutant> {
    let mutants: Vec<_> = known_faults().into_iter().filter(|mutant| WORST.contains(&mutant.name.as_str())).collect();
    assert_eq!(mutants.len(), WORST.len(), "each of them is a known fault");
    mutants
}
