//! Drives the built program from outside, as its users do, against real servers that the
//! tests start themselves on private sockets in temporary directories (see [`server`]).
//!
//! What comes back is judged without the program's own code: `sha256sum -c`, the stock client
//! that loads the files, and SQL that compares two databases ([`compare`]). Where no server
//! can be had the tests skip, visibly; with `CI` set they fail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compare;
mod corpus;
mod proxy;
mod server;
mod site;

mod access;
mod categories;
mod cli;
mod connections;
mod consistency;
mod determinism;
mod edges;
mod encryption;
mod faults;
mod grants;
mod handed_in;
mod hostile;
mod injection;
mod keys;
mod memory;
mod misconfigured;
mod odd;
mod protocols;
mod random;
mod restore;
mod secrets;
mod servers;
mod services;
mod settings;
mod source;
mod stable_bounds;
mod verify;
