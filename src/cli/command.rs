//! What the command line means: plain, validated data. How it applies over the files it names
//! stands in [`options`](super::options).

use std::path::{Path, PathBuf};
use std::time::Duration;

use schema_backup::config::{self, ConnectionOverrides, Exposure};
use schema_backup::service::ServiceAction;
use schema_backup::{Error, ErrorKind, Result};

use super::args::{
    Args, ConnectionArgs, OutputArgs, PlaceArgs, ProgressKind, SpeedArgs, TlsArgs, VerbArgs,
    VerifyArgs, WhatArgs,
};
use super::options::{Options, Restoring};

/// One call of the program.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) verb: Verb,
    pub(crate) options: Options,
    pub(crate) output: Output,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    Backup,
    Plan { json: bool },
    List { json: bool },
    Restore(Restoring),
    Verify(VerifyArgs),
}

/// How much to say, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) progress: ProgressKind,
    pub(crate) quiet: bool,
    pub(crate) verbosity: u8,
}

impl Output {
    /// Whether stderr is for programs.
    pub(crate) fn json(self) -> bool {
        self.progress == ProgressKind::Json
    }

    /// Whether the end of a backup is told on stdout.
    pub(crate) fn summary(self) -> bool {
        !self.quiet && !self.json()
    }
}

impl Command {
    /// Checks what clap cannot, and makes paths absolute.
    pub(crate) fn from_args(args: Args) -> Result<Command> {
        let Args {
            verb,
            what,
            place,
            connection,
            tls,
            speed,
            output,
        } = args;
        let verb = match verb {
            None | Some(VerbArgs::Backup) => Verb::Backup,
            Some(VerbArgs::Plan { json }) => Verb::Plan { json },
            Some(VerbArgs::List { json }) => Verb::List { json },
            Some(VerbArgs::Restore(args)) => Verb::Restore(args.into()),
            Some(VerbArgs::Verify(args)) => Verb::Verify(args),
        };
        let services = services(&what)?;
        refuse_misplaced(&verb, &what, &place, &connection, &speed)?;
        refuse_contradictions(&connection, &tls, &output)?;
        if let Some(name) = &place.host_name {
            config::host::validate_host_name(name)?;
        }
        let options = Options {
            config: what.config,
            ask_password: connection.ask_password,
            connection: overrides(connection, tls),
            backup_dir: directory("--backup-dir", place.backup_dir)?,
            user_data_dir: directory("--user-data-dir", place.user_data_dir)?,
            host_name: place.host_name,
            ephemeral_dir: directory("--ephemeral-directory", what.ephemeral_directory)?,
            services,
            threads: speed.threads,
            compression: place.compress,
            chunk_size: speed.chunk_size,
            consistency: speed.consistency,
            lock_wait_timeout: speed.lock_wait_timeout.map(Duration::from_secs),
            skip_objects: what.skip,
        };
        let output = Output {
            progress: output.progress.unwrap_or(ProgressKind::Auto),
            quiet: output.quiet,
            verbosity: output.verbose,
        };
        Ok(Command {
            verb,
            options,
            output,
        })
    }
}

fn services(what: &WhatArgs) -> Result<ServiceAction> {
    match (what.model, what.target) {
        (true, true) => Err(usage("-m/--model and -t/--target exclude each other")),
        (true, false) => Ok(ServiceAction::Restart),
        (false, true) => Ok(ServiceAction::LeaveStopped),
        (false, false) => Ok(ServiceAction::None),
    }
}

/// Flags of one verb mean nothing to another: accepted and ignored they would deceive.
fn refuse_misplaced(
    verb: &Verb,
    what: &WhatArgs,
    place: &PlaceArgs,
    connection: &ConnectionArgs,
    speed: &SpeedArgs,
) -> Result<()> {
    let runs = what.model || what.target || what.ephemeral_directory.is_some();
    let name = match verb {
        Verb::Backup | Verb::Plan { .. } => None,
        Verb::List { .. } => Some("list"),
        Verb::Verify(_) => Some("verify"),
        Verb::Restore(_) => Some("restore"),
    };
    if let Some(name) = name.filter(|_| runs) {
        return Err(usage(&format!("-m, -t and -e do not apply to {name}")));
    }
    if let Verb::Restore(_) = verb {
        refuse_for_restore(what, place, connection, speed)?;
    }
    Ok(())
}

fn refuse_for_restore(
    what: &WhatArgs,
    place: &PlaceArgs,
    connection: &ConnectionArgs,
    speed: &SpeedArgs,
) -> Result<()> {
    if connection.database.is_some() {
        return Err(usage("--database does not apply to restore")
            .hint("--into names the database to restore into"));
    }
    let given = [
        ("--config", what.config.is_some()),
        ("--skip", what.skip.is_some()),
        ("--backup-dir", place.backup_dir.is_some()),
        ("--user-data-dir", place.user_data_dir.is_some()),
        ("--host-name", place.host_name.is_some()),
        ("--compress", place.compress.is_some()),
        ("--chunk-size", speed.chunk_size.is_some()),
        ("--consistency", speed.consistency.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(usage(&format!("{flag} does not apply to restore"))),
        None => Ok(()),
    }
}

fn refuse_contradictions(
    connection: &ConnectionArgs,
    tls: &TlsArgs,
    output: &OutputArgs,
) -> Result<()> {
    if output.quiet && output.verbose > 0 {
        return Err(usage("-q/--quiet and -v/--verbose exclude each other"));
    }
    if connection.ask_password && connection.password_file.is_some() {
        return Err(usage(
            "-p/--ask-password and --password-file exclude each other",
        ));
    }
    if tls.ssl_cert.is_some() != tls.ssl_key.is_some() {
        return Err(usage("--ssl-cert and --ssl-key need each other"));
    }
    Ok(())
}

fn overrides(connection: ConnectionArgs, tls: TlsArgs) -> ConnectionOverrides {
    ConnectionOverrides {
        host: connection.host,
        port: connection.port,
        socket: connection.socket,
        user: connection.user,
        database: connection.database,
        password: None,
        password_file: connection.password_file,
        defaults_file: connection.defaults_file,
        defaults_extra_file: connection.defaults_extra_file,
        db_config: connection.db_config,
        ssl_mode: tls.ssl_mode,
        ssl_ca: tls.ssl_ca,
        ssl_cert: tls.ssl_cert,
        ssl_key: tls.ssl_key,
        exposure: if connection.allow_readable_credentials {
            Exposure::Allowed
        } else {
            Exposure::Refused
        },
    }
}

fn directory(flag: &str, path: Option<PathBuf>) -> Result<Option<PathBuf>> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| {
            usage(&format!("{flag}: cannot use `{}`", path.display())).because(error)
        })
    };
    path.as_deref().map(absolute).transpose()
}

fn usage(context: &str) -> Error {
    Error::new(ErrorKind::Config, context)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::args;
    use super::*;

    /// What a command line means that clap accepts.
    pub(in crate::cli) fn command(line: &str) -> Result<Command> {
        let words: Vec<_> = line.split_whitespace().map(Into::into).collect();
        Command::from_args(args::parse(&words).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    fn rejected(line: &str) -> clap::Error {
        let words: Vec<_> = line.split_whitespace().map(Into::into).collect();
        args::parse(&words).expect_err(line)
    }

    #[test]
    fn clap_accepts_its_own_definition() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn no_verb_is_backup() {
        assert_eq!(command("x").unwrap().verb, Verb::Backup);
        assert_eq!(command("x -v backup").unwrap().verb, Verb::Backup);
        assert_eq!(
            command("x plan --json").unwrap().verb,
            Verb::Plan { json: true }
        );
        assert_eq!(command("x list").unwrap().verb, Verb::List { json: false });
    }

    #[test]
    fn flags_work_before_and_after_the_verb() {
        for line in [
            "x -j 8 --host db -q -u me plan",
            "x plan -j8 --host=db -q --user me",
        ] {
            let command = command(line).unwrap();
            assert_eq!(command.options.threads.unwrap().get(), 8);
            assert_eq!(command.options.connection.host.as_deref(), Some("db"));
            assert_eq!(command.options.connection.user.as_deref(), Some("me"));
            assert!(command.output.quiet);
        }
        assert_eq!(command("x -vv plan").unwrap().output.verbosity, 2);
        assert_eq!(
            command("x --progress json plan").unwrap().output.progress,
            ProgressKind::Json
        );
    }

    #[test]
    fn exclusions_hold_across_the_verb() {
        for line in [
            "x -m -t",
            "x -m backup -t",
            "x -q backup -v",
            "x -p --password-file f",
            "x --ssl-cert c",
            "x list -m",
            "x restore d -m",
            "x restore d --database e",
            "x restore d --chunk-size 1M",
            "x verify d -e f",
        ] {
            assert_eq!(
                command(line).unwrap_err().kind(),
                ErrorKind::Config,
                "{line}"
            );
        }
    }

    #[test]
    fn services_follow_model_and_target() {
        assert_eq!(command("x").unwrap().options.services, ServiceAction::None);
        assert_eq!(
            command("x -m").unwrap().options.services,
            ServiceAction::Restart
        );
        assert_eq!(
            command("x --target").unwrap().options.services,
            ServiceAction::LeaveStopped
        );
    }

    #[test]
    fn bad_values_are_usage_errors() {
        for line in [
            "x -j 0",
            "x -j many",
            "x --chunk-size 0",
            "x --compress gzip",
            "x --compress zstd:77",
            "x --consistency perhaps",
            "x --lock-wait-timeout 0",
            "x --port 70000",
            "x --skip views,tables",
            "x --progress loud",
            "x --json",
            "x backup --json",
            "x restor",
            "x restore",
            "x restore d --data-only --structure-only",
            "x verify",
            "x verify d --sample 0/3",
        ] {
            assert_eq!(rejected(line).exit_code(), 2, "{line}");
        }
        assert_eq!(rejected("x --help").exit_code(), 0);
        assert_eq!(rejected("x plan --version").exit_code(), 0);
    }

    #[test]
    fn directories_become_absolute() {
        let dir = command("x -e sub/eph")
            .unwrap()
            .options
            .ephemeral_dir
            .unwrap();
        assert!(dir.is_absolute() && dir.ends_with("sub/eph"));
    }
}
