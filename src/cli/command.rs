//! What the command line means: plain, validated data, and how it applies over the files
//! it names.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schema_backup::config::{
    self, Compression, CompressionByCategory, Config, ConnectionOverrides, ConnectionSettings,
    Consistency, Environment, ObjectKind, Secret,
};
use schema_backup::restore::{self, Content};
use schema_backup::service::ServiceAction;
use schema_backup::store::open::Backup;
use schema_backup::verify::{Against, VerifyRequest};
use schema_backup::{Error, ErrorKind, Request, Result};

use super::args::{
    Args, ConnectionArgs, PlaceArgs, ProgressKind, RestoreArgs, SpeedArgs, VerbArgs, VerifyArgs,
};

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

/// What `restore` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restoring {
    pub(crate) dirs: Vec<PathBuf>,
    into: Option<String>,
    tables: Vec<String>,
    content: Content,
    overwrite: bool,
    resume: bool,
    skip_definer: bool,
    pub(crate) dry_run: bool,
}

impl From<RestoreArgs> for Restoring {
    fn from(args: RestoreArgs) -> Self {
        Restoring {
            dirs: args.dirs,
            into: args.into,
            tables: args.tables,
            content: match (args.structure_only, args.data_only) {
                (true, _) => Content::Structure,
                (_, true) => Content::Data,
                (false, false) => Content::All,
            },
            overwrite: args.overwrite,
            resume: args.resume,
            skip_definer: args.skip_definer,
            dry_run: args.dry_run,
        }
    }
}

/// What the flags say over the configuration; `None` leaves a setting as the files have it.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) config: Option<PathBuf>,
    pub(crate) connection: ConnectionOverrides,
    pub(crate) ask_password: bool,
    pub(crate) backup_dir: Option<PathBuf>,
    pub(crate) user_data_dir: Option<PathBuf>,
    pub(crate) host_name: Option<String>,
    pub(crate) ephemeral_dir: Option<PathBuf>,
    pub(crate) services: ServiceAction,
    pub(crate) threads: Option<NonZeroUsize>,
    pub(crate) compression: Option<Compression>,
    pub(crate) chunk_size: Option<u64>,
    pub(crate) consistency: Option<Consistency>,
    pub(crate) lock_wait_timeout: Option<Duration>,
    pub(crate) skip_objects: Option<Vec<ObjectKind>>,
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
        let services = match (what.model, what.target) {
            (true, true) => return Err(usage("-m/--model and -t/--target exclude each other")),
            (true, false) => ServiceAction::Restart,
            (false, true) => ServiceAction::LeaveStopped,
            (false, false) => ServiceAction::None,
        };
        let runs = services != ServiceAction::None || what.ephemeral_directory.is_some();
        let name = match &verb {
            Verb::Backup | Verb::Plan { .. } => None,
            Verb::List { .. } => Some("list"),
            Verb::Verify(_) => Some("verify"),
            Verb::Restore(_) => Some("restore"),
        };
        if let Some(name) = name.filter(|_| runs) {
            return Err(usage(&format!("-m, -t and -e do not apply to {name}")));
        }
        if let Verb::Restore(_) = verb {
            refuse_for_restore(&what.config, &what.skip, &place, &connection, &speed)?;
        }
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
        if let Some(name) = &place.host_name {
            config::host::validate_host_name(name)?;
        }
        let connection_overrides = ConnectionOverrides {
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
        };
        let options = Options {
            config: what.config,
            connection: connection_overrides,
            ask_password: connection.ask_password,
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

impl Options {
    /// Reads the files and applies the flags over them. `ask` is called for `-p`.
    pub(crate) fn request(&self, ask: impl FnOnce() -> Result<Secret>) -> Result<Request> {
        let mut config = config::load_config(&config::find_config(self.config.as_deref())?)?;
        self.apply(&mut config);
        let host_name = self.host_name()?;
        let mut overrides = self.connection.clone();
        if self.ask_password {
            overrides.password = Some(ask()?);
        }
        Ok(Request {
            connection: ConnectionSettings::resolve(&overrides, &Environment::from_process())?,
            config,
            host_name,
            ephemeral_dir: self.ephemeral_dir.clone(),
            services: self.services,
        })
    }

    /// What `restore` needs; no configuration is read. `ask` is called for `-p`.
    pub(crate) fn restore_request(
        &self,
        restoring: &Restoring,
        ask: impl FnOnce() -> Result<Secret>,
    ) -> Result<restore::Request> {
        let mut overrides = self.connection.clone();
        overrides.database = match &restoring.into {
            Some(into) => Some(into.clone()),
            // What is named first says where everything goes.
            None => restoring
                .dirs
                .first()
                .map(|dir| Backup::open(dir).map(|backup| backup.manifest.database.name))
                .transpose()?,
        };
        if self.ask_password {
            overrides.password = Some(ask()?);
        }
        Ok(restore::Request {
            connection: ConnectionSettings::resolve(&overrides, &Environment::from_process())?,
            dirs: restoring.dirs.clone(),
            tables: restoring.tables.clone(),
            content: restoring.content,
            overwrite: restoring.overwrite,
            resume: restoring.resume,
            skip_definer: restoring.skip_definer,
            dry_run: restoring.dry_run,
            threads: self.threads,
            lock_wait_timeout: self
                .lock_wait_timeout
                .unwrap_or(Config::DEFAULT_LOCK_WAIT_TIMEOUT),
        })
    }

    /// What `verify` needs to know; it does without a configuration. `ask` is called for `-p`.
    pub(crate) fn verify_request(
        &self,
        args: &VerifyArgs,
        ask: impl FnOnce() -> Result<Secret>,
    ) -> Result<VerifyRequest> {
        let mut connection = self.connection.clone();
        if args.against && self.ask_password {
            connection.password = Some(ask()?);
        }
        let against = args.against.then(|| Against {
            connection,
            environment: Environment::from_process(),
            consistency: self.consistency.unwrap_or_default(),
            lock_wait_timeout: self
                .lock_wait_timeout
                .unwrap_or(Config::DEFAULT_LOCK_WAIT_TIMEOUT),
        });
        Ok(VerifyRequest {
            directories: args.directories.clone(),
            sample: args.sample,
            threads: self.threads,
            against,
        })
    }

    /// The host directories (the one of `--host-name`, else all there are) and the root of the
    /// user data backups, for `list`. With a directory given by flag it does without a configuration where there is none.
    pub(crate) fn backup_dirs(&self) -> Result<(Vec<PathBuf>, Option<PathBuf>)> {
        let given = self.backup_dir.is_some() || self.user_data_dir.is_some();
        let (mut backup_dir, mut user_data_dir) = match config::find_config(self.config.as_deref())
        {
            Err(_) if given && self.config.is_none() => (None, None),
            found => {
                let config = config::load_config(&found?)?;
                (Some(config.csv2_backup_dir), config.user_data_backup_dir)
            }
        };
        // What is asked for by flag is what is shown.
        if given {
            backup_dir = self.backup_dir.clone();
            user_data_dir = self
                .user_data_dir
                .clone()
                .or(user_data_dir.filter(|_| backup_dir.is_some()));
        }
        let host_dirs = match (backup_dir, &self.host_name) {
            (Some(dir), Some(_)) => vec![dir.join(self.host_name()?)],
            (Some(dir), None) => schema_backup::store::list::host_dirs(&dir)?,
            (None, _) => Vec::new(),
        };
        Ok((host_dirs, user_data_dir))
    }

    fn host_name(&self) -> Result<String> {
        match &self.host_name {
            Some(name) => Ok(name.clone()),
            None => config::host::fully_qualified_host_name(),
        }
    }

    /// Flags win over the file.
    fn apply(&self, config: &mut Config) {
        fn set<T: Clone>(value: &mut T, flag: &Option<T>) {
            if let Some(flag) = flag {
                *value = flag.clone();
            }
        }
        set(&mut config.csv2_backup_dir, &self.backup_dir);
        set(&mut config.chunk_size, &self.chunk_size);
        set(&mut config.consistency, &self.consistency);
        set(&mut config.lock_wait_timeout, &self.lock_wait_timeout);
        set(&mut config.skip_objects, &self.skip_objects);
        if self.user_data_dir.is_some() {
            config.user_data_backup_dir.clone_from(&self.user_data_dir);
        }
        if self.threads.is_some() {
            config.threads = self.threads;
        }
        if let Some(method) = self.compression {
            config.compression = CompressionByCategory {
                global: method,
                local: method,
                ephemeral: method,
            };
        }
    }
}

/// Flags of a backup mean nothing to a restore: accepted and ignored they would deceive.
fn refuse_for_restore(
    config: &Option<PathBuf>,
    skip: &Option<Vec<ObjectKind>>,
    place: &PlaceArgs,
    connection: &ConnectionArgs,
    speed: &SpeedArgs,
) -> Result<()> {
    if connection.database.is_some() {
        return Err(usage("--database does not apply to restore")
            .hint("--into names the database to restore into"));
    }
    let given = [
        ("--config", config.is_some()),
        ("--skip", skip.is_some()),
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
mod tests {
    use super::super::args;
    use super::*;

    fn command(line: &str) -> Result<Command> {
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
    fn flags_win_over_the_file() {
        let mut config = Config {
            path: "/etc/f".into(),
            csv2_backup_dir: "/a".into(),
            user_data_backup_dir: None,
            providers: Vec::new(),
            consumers: Vec::new(),
            lists: config::TableLists::default(),
            threads: None,
            compression: CompressionByCategory::default(),
            chunk_size: 1,
            consistency: Consistency::Binlog,
            lock_wait_timeout: Duration::from_secs(1),
            link_unchanged: true,
            skip_objects: vec![ObjectKind::Views],
            notices: Vec::new(),
        };
        command("x").unwrap().options.apply(&mut config);
        assert_eq!(
            (config.chunk_size, config.consistency),
            (1, Consistency::Binlog)
        );
        assert_eq!(config.skip_objects, [ObjectKind::Views]);

        let line = "x --backup-dir /b --user-data-dir /u -j 3 --compress zstd:7 --chunk-size 1M \
                    --consistency none --lock-wait-timeout 5 --skip events,routines";
        command(line).unwrap().options.apply(&mut config);
        assert_eq!(config.csv2_backup_dir, Path::new("/b"));
        assert_eq!(
            config.user_data_backup_dir.as_deref(),
            Some(Path::new("/u"))
        );
        assert_eq!(config.threads.unwrap().get(), 3);
        assert_eq!(config.compression.global, Compression::Zstd(7));
        assert_eq!(config.compression.local, Compression::Zstd(7));
        assert_eq!(config.chunk_size, 1 << 20);
        assert_eq!(config.consistency, Consistency::None);
        assert_eq!(config.lock_wait_timeout, Duration::from_secs(5));
        assert_eq!(
            config.skip_objects,
            [ObjectKind::Events, ObjectKind::Routines]
        );
    }

    #[test]
    fn verify_needs_directories_and_no_configuration() {
        let Verb::Verify(args) = command("x verify a b --sample 2/3 --json -j 4")
            .unwrap()
            .verb
        else {
            panic!("another verb");
        };
        let ask = || panic!("no password is needed");
        let options = command("x -p -j 4 --consistency none").unwrap().options;
        let request = options.verify_request(&args, ask).unwrap();
        assert_eq!(request.directories, [Path::new("a"), Path::new("b")]);
        assert_eq!(request.sample.unwrap().of, 3);
        assert!(request.against.is_none() && args.json);

        let args = VerifyArgs {
            against: true,
            ..args
        };
        let ask = || Ok(Secret::new("s".into()));
        let against = options.verify_request(&args, ask).unwrap().against.unwrap();
        assert_eq!(against.consistency, Consistency::None);
        assert!(against.connection.password.is_some());
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
