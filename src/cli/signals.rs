//! SIGINT, SIGTERM and SIGHUP ask the run to stop. It always cleans up: a second signal adds
//! nothing. SIGXFSZ would kill the run where a file meets a limit on its size (`ulimit -f`);
//! caught, it leaves the error of the write, which names the file.

use std::io;
use std::sync::Arc;

use schema_backup::{Error, ErrorKind, Interrupt, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::console::console;

/// From now on a signal raises `interrupt`.
pub(crate) fn install(interrupt: &Interrupt) -> Result<()> {
    let failed =
        |error: io::Error| Error::new(ErrorKind::Internal, "cannot handle signals").because(error);
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let interrupt = interrupt.clone();
    let waiter = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                if !interrupt.is_raised() {
                    interrupt.raise();
                    console().interrupted();
                }
            }
        });
    waiter.map(drop).map_err(failed)
}
