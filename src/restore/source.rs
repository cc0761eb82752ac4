//! What is to be restored: one or more backup directories seen as one, before any server is
//! asked. Everything that can be known to be wrong with them is found here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use glob::Pattern;

use super::{Content, Request};
use crate::config::Category;
use crate::error::{Error, ErrorKind, Result};
use crate::store::manifest::{BackupKind, DataEntry, DatabaseEntry, FileEntry, TableKind};
use crate::store::open::{self, Backup};

/// A file and the backup it lies in.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    pub(super) backup: usize,
    pub(super) entry: FileEntry,
}

/// A table or sequence.
#[derive(Debug, Clone)]
pub(super) struct SourceTable {
    pub(super) name: String,
    pub(super) kind: TableKind,
    pub(super) structure: SourceFile,
    /// Its rows, in the backup of that number.
    pub(super) rows: Option<(usize, DataEntry)>,
    pub(super) auto_increment: Option<u64>,
}

/// A view, routine or event, a package, or all triggers of a table.
#[derive(Debug, Clone)]
pub(super) struct SourceObject {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) file: SourceFile,
}

/// The backups, and what of them is to be restored.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) backups: Vec<Backup>,
    pub(super) database: DatabaseEntry,
    /// `mariadb` or `mysql`.
    pub(super) flavor: String,
    /// Sequences first: the defaults of tables may need them.
    pub(super) tables: Vec<SourceTable>,
    /// In the order in which they can be created.
    pub(super) objects: Vec<SourceObject>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

impl Source {
    /// Opens the directories of `request` and decides what of them is restored. Fails where one
    /// is not complete, or where they do not fit together.
    pub(super) fn open(request: &Request) -> Result<Source> {
        let backups = request
            .dirs
            .iter()
            .map(|dir| Backup::open(dir))
            .collect::<Result<Vec<_>>>()?;
        let Some(first) = backups.first() else {
            return Err(config("no backup directory is named"));
        };
        let mut source = Source {
            database: first.manifest.database.clone(),
            flavor: first.manifest.flavor.clone(),
            tables: Vec::new(),
            objects: Vec::new(),
            warnings: Vec::new(),
            backups,
        };
        source.refuse_strangers()?;
        source.unlock(request)?;
        source.collect_tables()?;
        source.collect_objects();
        source.choose(request)?;
        source.check_presence()?;
        Ok(source)
    }

    /// The directory of a backup, for messages.
    fn dir(&self, backup: usize) -> PathBuf {
        self.backups[backup].dir.clone()
    }

    /// The backups must be of one database and one product.
    fn refuse_strangers(&mut self) -> Result<()> {
        let (first, others) = match self.backups.split_first() {
            Some((first, others)) => (first, others),
            None => return Ok(()),
        };
        for other in others {
            let (a, b) = (&first.manifest, &other.manifest);
            let what = if other.dir == first.dir {
                "are the same directory".to_owned()
            } else if a.database.name != b.database.name {
                format!(
                    "are backups of different databases, `{}` and `{}`",
                    a.database.name, b.database.name
                )
            } else if a.flavor != b.flavor {
                format!("are of different products, {} and {}", a.flavor, b.flavor)
            } else {
                continue;
            };
            let (a, b) = (first.dir.display(), other.dir.display());
            return Err(config(format!("{a} and {b} {what}")));
        }
        let started: BTreeSet<_> = self
            .backups
            .iter()
            .filter_map(|backup| Some(backup.run.as_ref()?.started.as_str()))
            .collect();
        if started.len() > 1 {
            let list: Vec<_> = started.into_iter().collect();
            self.warnings.push(format!(
                "the directories come from different runs ({}): their tables may not fit together",
                list.join(", ")
            ));
        }
        Ok(())
    }

    /// Makes encrypted backups readable, if their rows are wanted.
    fn unlock(&mut self, request: &Request) -> Result<()> {
        if let Some(identities) = &request.identities {
            open::unlock_all(self.backups.iter_mut(), identities)?;
        } else if request.content == Content::Structure {
            return Ok(());
        }
        self.backups.iter().try_for_each(Backup::require_unlocked)
    }

    fn collect_tables(&mut self) -> Result<()> {
        let mut tables: BTreeMap<String, SourceTable> = BTreeMap::new();
        for (number, backup) in self.backups.iter().enumerate() {
            for (name, entry) in &backup.manifest.tables {
                let found = SourceTable {
                    name: name.clone(),
                    kind: entry.kind,
                    structure: SourceFile {
                        backup: number,
                        entry: entry.structure.clone(),
                    },
                    rows: entry.data.clone().map(|data| (number, data)),
                    auto_increment: entry.auto_increment,
                };
                let Some(known) = tables.get_mut(name) else {
                    tables.insert(name.clone(), found);
                    continue;
                };
                if let (Some((a, _)), Some((b, _))) = (&known.rows, &found.rows) {
                    let (a, b) = (self.dir(*a), self.dir(*b));
                    let what = format!("{} and {} both hold", a.display(), b.display());
                    return Err(config(format!("{what} the rows of table `{name}`"))
                        .hint("name one backup of each kind"));
                }
                if known.structure.entry.sha256 != found.structure.entry.sha256 {
                    self.warnings.push(format!(
                        "table `{name}` is stated differently in the directories: the one beside its rows counts"
                    ));
                }
                if found.rows.is_some() {
                    *known = found;
                }
            }
        }
        self.tables = tables.into_values().collect();
        self.tables
            .sort_by_key(|table| table.kind != TableKind::Sequence);
        Ok(())
    }

    fn collect_objects(&mut self) {
        for (number, backup) in self.backups.iter().enumerate() {
            for object in &backup.manifest.objects {
                self.objects.push(SourceObject {
                    kind: object.kind.clone(),
                    name: object.name.clone(),
                    file: SourceFile {
                        backup: number,
                        entry: object.file.clone(),
                    },
                });
            }
        }
        let host = self
            .backups
            .iter()
            .any(|b| b.manifest.kind == BackupKind::Host);
        if !host {
            self.warnings.push(
                "no host directory is named: views, triggers, routines and events are not restored"
                    .to_owned(),
            );
        }
    }

    /// Leaves out what `request` does not ask for.
    fn choose(&mut self, request: &Request) -> Result<()> {
        if !request.tables.is_empty() {
            let patterns = request
                .tables
                .iter()
                .map(|text| {
                    Pattern::new(text)
                        .map_err(|e| config(format!("--tables: `{text}` is no pattern")).because(e))
                })
                .collect::<Result<Vec<_>>>()?;
            for pattern in &patterns {
                if !self.tables.iter().any(|table| pattern.matches(&table.name)) {
                    let what = format!("--tables: no table of the backup matches `{pattern}`");
                    return Err(config(what));
                }
            }
            let wanted = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
            self.tables.retain(|table| wanted(&table.name));
            self.objects
                .retain(|object| object.kind == "triggers" && wanted(&object.name));
        }
        match request.content {
            Content::All => self.warn_of_tables_without_rows(),
            Content::Structure => {
                for table in &mut self.tables {
                    (table.rows, table.auto_increment) = (None, None);
                }
            }
            Content::Data => {
                self.tables.retain(|table| table.rows.is_some());
                self.objects.clear();
            }
        }
        Ok(())
    }

    /// Tables whose rows the backup has elsewhere would come back empty without a word.
    fn warn_of_tables_without_rows(&mut self) {
        let saved = |table: &&SourceTable| {
            let number = table.structure.backup;
            let entry = self.backups[number].manifest.tables.get(&table.name);
            entry.is_some_and(|entry| entry.category == Category::Local)
        };
        let missing = self.tables.iter().filter(|table| table.rows.is_none());
        let missing: Vec<_> = missing
            .filter(saved)
            .map(|table| format!("`{}`", table.name))
            .collect();
        if !missing.is_empty() {
            self.warnings.push(format!(
                "no directory with user data is named: these tables are created without their rows: {}",
                missing.join(", ")
            ));
        }
    }

    /// Looks at every file that will be read, before anything is written.
    fn check_presence(&self) -> Result<()> {
        for file in self.files() {
            let backup = &self.backups[file.backup];
            if let Err(flaw) = backup.file(&file.entry) {
                return Err(backup.flawed(&file.entry, &flaw));
            }
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = SourceFile> {
        let of_table = |table: &SourceTable| {
            let rows = table.rows.iter().flat_map(|(backup, data)| {
                data.chunks.iter().map(|chunk| SourceFile {
                    backup: *backup,
                    entry: chunk.file.clone(),
                })
            });
            rows.chain([table.structure.clone()]).collect::<Vec<_>>()
        };
        let tables = self.tables.iter().flat_map(of_table);
        tables.chain(self.objects.iter().map(|object| object.file.clone()))
    }

    /// The version of the server that was saved, by its first two numbers, as far as that is on
    /// record; of several the newest.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let runs = self.backups.iter().filter_map(|backup| backup.run.as_ref());
        let versions = runs.filter_map(|run| {
            let mut parts = run.server.rsplit(' ').next()?.split('.');
            let mut part = || parts.next()?.parse().ok();
            Some((part()?, part()?))
        });
        versions.max()
    }

    /// The whole of a structure file.
    pub(super) fn read(&self, file: &SourceFile) -> Result<Vec<u8>> {
        self.backups[file.backup].read(&file.entry)
    }
}

fn config(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, context)
}
