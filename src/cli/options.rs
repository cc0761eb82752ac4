//! How the flags apply over the files they name: what each verb of the library is asked.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schema_backup::config::{
    self, Compression, CompressionByCategory, Config, ConnectionOverrides, ConnectionSettings,
    Consistency, Environment, Identities, ObjectKind, Secret,
};
use schema_backup::restore::{self, Content};
use schema_backup::service::ServiceAction;
use schema_backup::store::open::Backup;
use schema_backup::verify::{Against, VerifyRequest};
use schema_backup::{Request, Result};

use super::args::{RestoreArgs, VerifyArgs};

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
    identities: Vec<PathBuf>,
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
            identities: args.identity,
        }
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
        ask_passphrase: impl FnMut(&Path) -> Result<Secret>,
    ) -> Result<restore::Request> {
        let identities = self.identities(&restoring.identities, ask_passphrase)?;
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
            identities,
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
        ask_passphrase: impl FnMut(&Path) -> Result<Secret>,
    ) -> Result<VerifyRequest> {
        let identities = self.identities(&args.identity, ask_passphrase)?;
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
            identities,
        })
    }

    /// What encrypted backups are read with, if files with it are named.
    fn identities(
        &self,
        files: &[PathBuf],
        ask: impl FnMut(&Path) -> Result<Secret>,
    ) -> Result<Option<Arc<Identities>>> {
        if files.is_empty() {
            return Ok(None);
        }
        Identities::read(files, self.connection.exposure, ask).map(|all| Some(Arc::new(all)))
    }

    /// The host directories (the one of `--host-name`, else all there are) and the root of the
    /// user data backups, for `list`. With a directory given by flag it does without a
    /// configuration where there is none.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::Verb;
    use crate::cli::command::tests::command;

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
            encryption: config::EncryptionByCategory::default(),
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
        let no_passphrase = |_: &Path| panic!("no passphrase is needed");
        let options = command("x -p -j 4 --consistency none").unwrap().options;
        let request = options.verify_request(&args, ask, no_passphrase).unwrap();
        assert_eq!(request.directories, [Path::new("a"), Path::new("b")]);
        assert_eq!(request.sample.unwrap().of, 3);
        assert!(request.against.is_none() && args.json);

        let args = VerifyArgs {
            against: true,
            ..args
        };
        let ask = || Ok(Secret::new("s".into()));
        let against = options.verify_request(&args, ask, no_passphrase).unwrap();
        let against = against.against.unwrap();
        assert_eq!(against.consistency, Consistency::None);
        assert!(against.connection.password.is_some());
    }
}
