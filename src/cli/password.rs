//! Asking for the password (`-p`), and for the passphrase of an identity that has one.

use std::io;
use std::path::Path;

use schema_backup::config::Secret;
use schema_backup::{Error, ErrorKind, Interrupt, Result};

use super::human::printable;

/// Asks for the password; see [`prompt`].
pub(crate) fn ask(interrupt: &Interrupt) -> Result<Secret> {
    prompt("Password: ", interrupt, |error| {
        error
            .within("cannot ask for the password (-p)")
            .hint("without a terminal, use --password-file FILE or SCHEMA_BACKUP_PASSWORD")
    })
}

/// Asks for the passphrase of an identity file; see [`prompt`].
pub(crate) fn ask_passphrase(file: &Path, interrupt: &Interrupt) -> Result<Secret> {
    let name = file.display().to_string();
    let question = format!("Passphrase of {}: ", printable(&name));
    prompt(&question, interrupt, |error| {
        error
            .within(format_args!("cannot ask for the passphrase of {name}"))
            .hint("without a terminal, use an identity without a passphrase; age -d makes one")
    })
}

/// Asks on the terminal, without echo; blocks until the user has answered. Without a terminal,
/// with Ctrl-C or at the end of input it is an error.
fn prompt(
    question: &str,
    interrupt: &Interrupt,
    cannot: impl FnOnce(Error) -> Error,
) -> Result<Secret> {
    let answer = rpassword::prompt_password(question);
    interrupt.check()?;
    match answer {
        Ok(password) => Ok(Secret::new(password)),
        // The terminal is raw while it asks: Ctrl-C comes back as this.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Error::interrupted()),
        Err(error) => Err(cannot(Error::new(ErrorKind::Config, error.to_string()))),
    }
}
