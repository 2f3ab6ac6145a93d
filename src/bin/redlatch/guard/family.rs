//! Everything that descends from this process. It is where orphans go, so whatever the command starts stays below it,
//! also a daemon that has left its process group and its session.

use std::{collections::HashMap, fs};

use rustix::{
    io::{Errno, Result},
    process::{
        Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
    },
};
use rustix_libc_wrappers::process::SignalExt;

/// A process below this one that has not ended.
pub struct Process {
    pub pid: Pid,
    pub group: i32,
    name: String,
    state: char,
}

impl Process {
    /// For people.
    pub fn describe(&self) -> String {
        let state = if self.state == 'D' { ", it waits for a device" } else { "" };
        format!("process {} ({}{state})", self.pid, self.name.escape_debug())
    }
}

/// From now on this process gets the orphans below it.
pub fn adopt() -> Result<()> {
    set_child_subreaper(Some(getpid()))
}

/// Takes note of every child that ended, was stopped or goes on. Returns whether nothing is left below this process: as
/// long as anything is, it has a child, because orphans are its own.
pub fn reap(mut seen: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
            Ok(Some((pid, status))) => seen(pid, status),
            Ok(None) => return false,
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

/// Everything below this process, itself excluded. Empty where /proc is not of our PID namespace: its numbers would mean
/// other processes.
///
/// Asks for the children of each alone where the kernel keeps lists of them: whoever has to end something in time cannot
/// read about every process of a busy machine.
pub fn below() -> Vec<Process> {
    let us = getpid().as_raw_nonzero().get();
    if fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse().ok()) != Some(us) {
        return Vec::new();
    }
    let mut others =
        if fs::exists(format!("/proc/{us}/task/{us}/children")).unwrap_or(false) { None } else { Some(everything()) };
    let mut family = Vec::new();
    let mut parents = vec![us];
    while let Some(parent) = parents.pop() {
        let children = match &mut others {
            Some(others) => others.remove(&parent).unwrap_or_default(),
            None => children(parent),
        };
        for process in children {
            parents.push(process.pid.as_raw_nonzero().get());
            if process.state != 'Z' && process.state != 'X' {
                family.push(process);
            }
        }
    }
    family
}

/// For people: what is below this process although it should be gone.
pub fn left() -> Vec<String> {
    let left: Vec<_> = below().iter().map(Process::describe).collect();
    if left.is_empty() { vec!["a process that cannot be seen".to_owned()] } else { left }
}

/// The children of a process: the kernel lists them by the thread that started them.
fn children(parent: i32) -> Vec<Process> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children = lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    children.filter_map(|pid| Some(read(&pid)?.1)).collect()
}

/// Every process there is, by its parent.
fn everything() -> HashMap<i32, Vec<Process>> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some((parent, process)) = entry.file_name().to_str().and_then(read) {
            children.entry(parent).or_default().push(process);
        }
    }
    children
}

/// One line of /proc: the parent and the process.
fn read(pid: &str) -> Option<(i32, Process)> {
    let number = Pid::from_raw(pid.parse().ok()?)?;
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let (head, rest) = line.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut words = rest.split(' ');
    let state = words.next()?.chars().next()?;
    let parent = words.next()?.parse().ok()?;
    let group = words.next()?.parse().ok()?;
    Some((parent, Process { pid: number, group, name: name.to_owned(), state }))
}

/// Sends `signals` to `group` and to what is below this process outside of it. A process that is gone needs none.
pub fn signal(group: Option<Pid>, signals: &[Signal]) {
    if let Some(group) = group {
        for signal in signals {
            let _ = kill_process_group(group, *signal);
        }
    }
    let number = group.map_or(0, |group| group.as_raw_nonzero().get());
    for process in below().into_iter().filter(|process| process.group != number) {
        for signal in signals {
            let _ = kill_process(process.pid, *signal);
        }
    }
}

/// The signal with this number.
pub fn numbered(number: i32) -> Option<Signal> {
    Signal::from_raw(number)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// How often this thread has read from a file.
    fn reads() -> usize {
        let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
        counts.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
    }

    #[test]
    fn those_below_are_found_without_reading_about_strangers() {
        const STRANGERS: usize = 200;
        // Orphans, which are somebody else's.
        let script = format!("for i in $(seq {STRANGERS}); do sleep 100 >&- 2>&- & echo $!; done");
        let strangers = Command::new("sh").args(["-c", &script]).output().unwrap();
        let strangers = String::from_utf8(strangers.stdout).unwrap();
        let mut child = Command::new("sh").args(["-c", "setsid cat & cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let (mut before, mut after, mut family) = (0, 0, Vec::new());
        while family.len() < 3 {
            before = reads();
            family = below();
            after = reads();
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        for stranger in strangers.lines() {
            kill_process(Pid::from_raw(stranger.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
        }
        assert_eq!(strangers.lines().count(), STRANGERS);
        assert!(after - before < STRANGERS, "{} reads", after - before);
    }
}
