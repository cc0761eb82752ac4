//! The one flag that asks a run to stop. Whoever raises it (a signal handler, a failing
//! worker) returns at once; every loop that can last looks at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// A shared flag; clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the run was asked to stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) error once raised.
    pub fn check(&self) -> Result<()> {
        if self.is_raised() {
            Err(Error::interrupted())
        } else {
            Ok(())
        }
    }

    /// The flag itself, for signal registration.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}
