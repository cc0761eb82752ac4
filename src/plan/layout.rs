//! Which directory takes which data. Decided, and checked for being safe, before anything is
//! written: private data must not end up below the directory that lives in git.

use std::path::{Path, PathBuf};

use crate::Request;
use crate::config::Category;
use crate::error::{Error, ErrorKind, Result};
use crate::store::manifest::BackupKind;

/// The directories of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destinations {
    /// All structure and the global data: `<csv2_backup_dir>/<host>`.
    pub host: PathBuf,
    /// The local data, in a new directory below this one for each backup.
    pub user_data: Option<PathBuf>,
    /// The ephemeral data (`-e`).
    pub ephemeral: Option<PathBuf>,
}

impl Destinations {
    /// The directories that `request` names; an error where two of them are in each other's
    /// way.
    pub fn of(request: &Request) -> Result<Destinations> {
        let destinations = Destinations {
            host: request.config.csv2_backup_dir.join(&request.host_name),
            user_data: request.config.user_data_backup_dir.clone(),
            ephemeral: request.ephemeral_dir.clone(),
        };
        let public = resolve(&request.config.csv2_backup_dir);
        let private = [
            ("user_data_backup_dir", &destinations.user_data),
            ("the ephemeral directory", &destinations.ephemeral),
        ];
        for (name, dir) in private {
            let Some(dir) = dir else { continue };
            let resolved = resolve(dir);
            if resolved.starts_with(&public) || public.starts_with(&resolved) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("{name} {} and csv2_backup_dir {} overlap", dir.display(), request.config.csv2_backup_dir.display()),
                )
                .hint("private data must lie outside the directory that is shared; choose another one"));
            }
        }
        if let (Some(user_data), Some(ephemeral)) =
            (&destinations.user_data, &destinations.ephemeral)
        {
            let (user_data, ephemeral) = (resolve(user_data), resolve(ephemeral));
            if user_data.starts_with(&ephemeral) || ephemeral.starts_with(&user_data) {
                return Err(Error::new(
                    ErrorKind::Config,
                    "user_data_backup_dir and the ephemeral directory overlap",
                )
                .hint("choose another directory with -e"));
            }
        }
        Ok(destinations)
    }

    /// Which directory takes the data of tables of this category; `None` if none does.
    pub fn of_data(&self, category: Category) -> Option<BackupKind> {
        match category {
            Category::Global => Some(BackupKind::Host),
            Category::Local => self.user_data.as_ref().map(|_| BackupKind::UserData),
            Category::Ephemeral => self.ephemeral.as_ref().map(|_| BackupKind::Ephemeral),
            Category::Ignore => None,
        }
    }

    /// The directory of that kind.
    pub fn path(&self, kind: BackupKind) -> Option<&Path> {
        match kind {
            BackupKind::Host => Some(&self.host),
            BackupKind::UserData => self.user_data.as_deref(),
            BackupKind::Ephemeral => self.ephemeral.as_deref(),
        }
    }

    /// Private directories that lie inside a git work tree, where they might be committed.
    pub fn private_in_git(&self) -> Vec<PathBuf> {
        let private = self.user_data.iter().chain(&self.ephemeral);
        private
            .filter(|dir| resolve(dir).ancestors().any(|a| a.join(".git").exists()))
            .cloned()
            .collect()
    }
}

/// The path with links resolved, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) {
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    absolute
}
