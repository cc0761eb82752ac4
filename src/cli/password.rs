//! Asking for the password (`-p`).

use std::io;

use schema_backup::config::Secret;
use schema_backup::{Error, ErrorKind, Interrupt, Result};

/// Asks on the terminal, without echo; blocks until the user has answered. Without a terminal,
/// with Ctrl-C or at the end of input it is an error.
pub(crate) fn ask(interrupt: &Interrupt) -> Result<Secret> {
    let answer = rpassword::prompt_password("Password: ");
    interrupt.check()?;
    match answer {
        Ok(password) => Ok(Secret::new(password)),
        // The terminal is raw while it asks: Ctrl-C comes back as this.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Error::interrupted()),
        Err(error) => Err(
            Error::new(ErrorKind::Config, "cannot ask for the password (-p)")
                .because(error)
                .hint("without a terminal, use --password-file FILE or SCHEMA_BACKUP_PASSWORD"),
        ),
    }
}
