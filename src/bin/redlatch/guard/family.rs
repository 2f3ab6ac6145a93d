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
pub fn below() -> Vec<Process> {
    let us = getpid().as_raw_nonzero().get();
    if fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse().ok()) != Some(us) {
        return Vec::new();
    }
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some((parent, process)) = entry.file_name().to_str().and_then(read) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut family = Vec::new();
    let mut parents = vec![us];
    while let Some(parent) = parents.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            parents.push(process.pid.as_raw_nonzero().get());
            if process.state != 'Z' && process.state != 'X' {
                family.push(process);
            }
        }
    }
    family
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

/// Sends `signal` to `group` and to what is below this process outside of it. A process that is gone needs none.
pub fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
    let number = group.map_or(0, |group| group.as_raw_nonzero().get());
    for process in below().into_iter().filter(|process| process.group != number) {
        let _ = kill_process(process.pid, signal);
    }
}

/// The signal with this number.
pub fn numbered(number: i32) -> Option<Signal> {
    Signal::from_raw(number)
}
