//! All integration tests in one binary. They run real servers on free ports and sockets.

mod bundle;
pub mod cli;
mod client;
mod conformance;
mod counts;
mod docs;
mod exhaustive;
mod faults;
mod model;
mod mutants;
mod nginx;
mod peers;
mod readme;
mod regressions;
mod scripts;
mod servers;
mod simulation;
mod support;
mod topology;
mod torture;
