//! The online half: a fresh snapshot of the live database, held against the backups whose
//! manifests are sound.

use std::collections::{BTreeMap, BTreeSet};

use super::directories::sound_files;
use super::report::{AgainstReport, DirectoryReport};
use super::{Against, Directory};
use crate::config::{ConnectionSettings, ObjectKind};
use crate::encode::body;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Phase};
use crate::interrupt::Interrupt;
use crate::live::{Stated, added, compare_definitions, compare_rows, tables_read};
use crate::server::catalog::{Catalog, Listing, Wanted};
use crate::server::connect::Connector;
use crate::server::consistency::SnapshotRequest;
use crate::server::flavor::Flavor;
use crate::server::privileges::Privileges;
use crate::server::snapshot::SnapshotPool;
use crate::store::manifest::{BackupKind, FileEntry, Manifest};
use crate::store::open::Backup;

/// A connected database that the backups can be compared with.
pub(super) struct Live<'a> {
    against: &'a Against,
    settings: ConnectionSettings,
    connector: Connector,
    flavor: Flavor,
    privileges: Privileges,
    listing: Listing,
    /// Kinds of objects that are not compared.
    skipped: Vec<ObjectKind>,
}

impl<'a> Live<'a> {
    /// Connects to the database that `against` names, else to the one the backups are of, and
    /// refuses where it cannot be compared: a wrong password is told before files are read.
    /// `None` where no manifest is sound.
    pub(super) fn connect(
        against: &'a Against,
        directories: &[Directory],
        observer: &dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Option<Live<'a>>> {
        // Without an identity there are no digests to compare with.
        sound(directories).try_for_each(Backup::require_unlocked)?;
        let manifests: Vec<&Manifest> = sound(directories).map(|b| &b.manifest).collect();
        let Some(first) = manifests.first() else {
            return Ok(None);
        };
        if manifests
            .iter()
            .any(|manifest| manifest.database.name != first.database.name)
        {
            let what = "the directories hold backups of different databases";
            return Err(
                Error::new(ErrorKind::Config, what).hint("compare those of one database at a time")
            );
        }
        let mut overrides = against.connection.clone();
        overrides
            .database
            .get_or_insert_with(|| first.database.name.clone());
        let settings = ConnectionSettings::resolve(&overrides, &against.environment)?;
        observer.event(&Event::Phase {
            phase: Phase::Catalog,
        });
        let patience = against.lock_wait_timeout;
        let (connector, mut conn) = Connector::open(&settings, patience, interrupt)?;
        let flavor = Flavor::detect(&mut conn)?;
        if let Some(other) = manifests.iter().find(|m| m.flavor != flavor.name()) {
            let what = format!(
                "the backup was made on {}, and the server is {flavor}",
                other.flavor
            );
            return Err(Error::new(ErrorKind::Config, what)
                .hint("compare with a server of the same product"));
        }
        let privileges = Privileges::read(&mut conn, &settings.database)?;
        privileges.require_reading()?;
        let listing = Listing::at_hand(&mut conn)?;
        // Only the host directory has the other objects.
        let host = manifests.iter().find(|m| m.kind == BackupKind::Host);
        let kinds = ObjectKind::NAMES.map(|(_, kind)| kind);
        let skipped: Vec<ObjectKind> = match host {
            Some(host) => host.skipped_objects.clone(),
            None => kinds.to_vec(),
        };
        for kind in kinds.into_iter().filter(|kind| !skipped.contains(kind)) {
            if kind != ObjectKind::Views || !listing.views.is_empty() {
                privileges.require_objects(kind, &flavor)?;
            }
        }
        observer.event(&Event::Connected {
            server: flavor.to_string(),
            database: settings.database.clone(),
        });
        Ok(Some(Live {
            against,
            settings,
            connector,
            flavor,
            privileges,
            listing,
            skipped,
        }))
    }

    /// Takes the snapshot and compares. Files with a finding are left out: what they hold is
    /// not what the database had.
    pub(super) fn compare(
        &self,
        directories: &[Directory],
        reports: &[DirectoryReport],
        threads: usize,
        observer: &dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<AgainstReport> {
        let manifests: Vec<&Manifest> = sound(directories).map(|b| &b.manifest).collect();
        observer.event(&Event::Phase {
            phase: Phase::Snapshot,
        });
        let tables = self.tables(&manifests);
        let mut pool = SnapshotPool::open(
            &SnapshotRequest {
                connector: &self.connector,
                flavor: &self.flavor,
                privileges: &self.privileges,
                threads,
                consistency: self.against.consistency,
                tables: &tables,
            },
            interrupt,
        )?;
        let snapshot = pool.info().describe();
        observer.event(&Event::Snapshot {
            description: snapshot.clone(),
        });
        let mut session = pool.session()?;
        let conn = session.results_in("utf8mb4")?;
        // The files were read since the first, which may have taken hours.
        let listing = Listing::at_hand(conn)?;
        let (read, split) = tables_read(manifests.iter().copied());
        let wanted = Wanted {
            flavor: &self.flavor,
            listing: &listing,
            listed_before: false,
            skip: &self.skipped,
            ignored: &BTreeSet::new(),
            read: &read,
            split: &split,
        };
        let catalog = Catalog::read(conn, None, &wanted)?;
        drop(session);

        observer.event(&Event::Phase {
            phase: Phase::Compare,
        });
        let stated = stated(directories, reports)?;
        let mut differences = compare_definitions(
            &pool,
            &catalog,
            &self.flavor,
            &stated,
            &std::convert::identity,
            interrupt,
        )?;
        let known: BTreeSet<(&str, &str)> = manifests
            .iter()
            .flat_map(|manifest| definitions(manifest))
            .map(|(kind, name, _)| (kind, name))
            .collect();
        differences.extend(added(&catalog, &known));
        let rows = compare_rows(
            &mut pool,
            &catalog,
            &self.flavor,
            &manifests,
            observer,
            interrupt,
        )?;
        differences.extend(rows);
        let mut seen = BTreeSet::new();
        // A table that is gone lacks its definition and its rows.
        differences.retain(|difference| seen.insert(difference.to_string()));
        let data = || {
            let tables = manifests.iter().flat_map(|m| m.tables.values());
            tables.filter_map(|table| table.data.as_ref())
        };
        Ok(AgainstReport {
            server: self.flavor.to_string(),
            database: self.settings.database.clone(),
            snapshot,
            tables: data().count(),
            rows: data().map(|data| data.rows).sum(),
            definitions: stated.len(),
            differences,
        })
    }

    /// The tables whose rows are read, with whether they have transactions.
    fn tables(&self, manifests: &[&Manifest]) -> BTreeMap<String, bool> {
        let saved = manifests.iter().flat_map(|manifest| &manifest.tables);
        let saved = saved.filter(|(_, table)| table.data.is_some());
        saved
            .filter_map(|(name, _)| {
                Some((name.clone(), self.listing.tables.get(name)?.transactional))
            })
            .collect()
    }
}

fn sound(directories: &[Directory]) -> impl Iterator<Item = &Backup> {
    directories.iter().filter_map(|directory| match directory {
        Directory::Sound(backup) => Some(&**backup),
        Directory::Damaged(_) => None,
    })
}

/// Kind, name and file of every definition in a manifest.
fn definitions(manifest: &Manifest) -> impl Iterator<Item = (&str, &str, &FileEntry)> {
    let tables = manifest.tables.iter();
    let tables = tables.map(|(name, table)| (table.kind.name(), name.as_str(), &table.structure));
    let objects = manifest.objects.iter();
    tables.chain(objects.map(|o| (o.kind.as_str(), o.name.as_str(), &o.file)))
}

/// The definitions in the files that are sound, each once: several directories have those of
/// the tables whose data they hold.
fn stated<'a>(
    directories: &'a [Directory],
    reports: &[DirectoryReport],
) -> Result<Vec<Stated<'a>>> {
    let mut stated = Vec::new();
    let mut seen = BTreeSet::new();
    for (directory, report) in directories.iter().zip(reports) {
        let Directory::Sound(backup) = directory else {
            continue;
        };
        let sound = sound_files(report);
        for (kind, name, entry) in definitions(&backup.manifest) {
            if !sound.contains(entry.file.as_str()) || !seen.insert((kind, name, &entry.sha256)) {
                continue;
            }
            let file = backup.read(entry)?;
            let statements = body::statements(&file).unwrap_or_default().to_vec();
            stated.push(Stated {
                kind,
                name,
                statements,
            });
        }
    }
    Ok(stated)
}
