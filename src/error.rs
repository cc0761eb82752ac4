//! The one error type. Every error says what failed and where, in one lower-case line, and
//! carries a hint where the user can act. Its [`ErrorKind`] decides the exit code, in one
//! exhaustive match, so that a new kind does not compile until someone has chosen its code.

use std::fmt;

/// What went wrong, by what the user or a calling script would do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A defect of this program: a broken invariant or a panic of a worker.
    Internal,
    /// The command line or a configuration file cannot be used as it is.
    Config,
    /// The run started and could not be completed: a connection was lost, a table could not
    /// be read, a service could not be restarted.
    Failed,
    /// What is on disk differs from what it should be.
    Differs,
    /// The server cannot be reached, or refused the credentials or a privilege.
    Connect,
    /// All connections could not be brought to one consistent snapshot.
    Snapshot,
    /// The destination cannot be written: disk full, read-only, held by another run.
    Write,
    /// The user interrupted the run.
    Interrupted,
}

impl ErrorKind {
    /// The stable exit code of the program for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Config => 2,
            ErrorKind::Failed => 3,
            ErrorKind::Differs => 4,
            ErrorKind::Connect => 10,
            ErrorKind::Snapshot => 11,
            ErrorKind::Write => 12,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// An error: its kind, what was being done, what caused it, and what the user can do.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `context` is lower case, one line, without a full stop.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Error {
            kind,
            context: context.into(),
            hint: None,
            source: None,
        }
    }

    /// A file or directory that cannot be written. Names the path.
    pub fn write(path: &std::path::Path, doing: &str, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{
            FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        let hint = match source.kind() {
            StorageFull | QuotaExceeded => Some(format!(
                "free some space there, or choose another directory{}; what was backed up before \
                 is whole",
                room(path)
            )),
            PermissionDenied | ReadOnlyFilesystem => {
                Some("the user running schema_backup needs write permission there".to_owned())
            }
            FileTooLarge => Some(
                "a limit on the size of files was met: see `ulimit -f`, and the file system's own"
                    .to_owned(),
            ),
            _ => None,
        };
        let error = Error::new(
            ErrorKind::Write,
            format!("cannot {doing} {}", path.display()),
        );
        let error = error.because(source);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Adds the cause; it is printed after the context.
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Adds a cause that is boxed already.
    pub fn because_boxed(mut self, source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        self.source = Some(source);
        self
    }

    /// Adds what the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says in front of the error what it happened to, such as ``table `users` ``.
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.context = format!("{outer}: {}", self.context);
        self
    }

    /// Gives the error another kind, where the caller knows better what it means.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the user can do about it, if anything is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The error that a raised interrupt turns into.
    pub fn interrupted() -> Self {
        Error::new(ErrorKind::Interrupted, "interrupted")
    }
}

/// What is left of the file system that `path` lies on, in brackets, if it can be told.
fn room(path: &std::path::Path) -> String {
    let there = path.ancestors().find(|path| path.exists());
    match there.and_then(|there| rustix::fs::statvfs(there).ok()) {
        Some(stat) => format!(
            " ({} bytes and {} inodes are free)",
            stat.f_bavail.saturating_mul(stat.f_frsize),
            stat.f_favail
        ),
        None => String::new(),
    }
}

impl fmt::Display for Error {
    /// One line: the context, then each cause. Line breaks inside causes become spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.context.clone();
        let mut cause: Option<&dyn std::error::Error> = match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        };
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        for (i, part) in line
            .split(['\n', '\r'])
            .filter(|p| !p.trim().is_empty())
            .enumerate()
        {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(part.trim())?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let cause = std::io::Error::other("first\nsecond");
        let error = Error::new(ErrorKind::Failed, "cannot read rows")
            .because(cause)
            .within("table `t`");
        assert_eq!(
            error.to_string(),
            "table `t`: cannot read rows: first second"
        );
        assert_eq!(error.kind().exit_code(), 3);
    }
}
