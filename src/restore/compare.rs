//! What has arrived, held against the backups: the rows by number and digest and the counters
//! always, the definitions where the server is of the product that they were read from.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::driver::Ask;

use super::source::{Source, SourceFile};
use super::{Content, Restore, definer};
use crate::config::{Consistency, ObjectKind};
use crate::encode::body;
use crate::error::Result;
use crate::event::Event;
use crate::live::{self, Change, Difference, Stated};
use crate::server::catalog::{Catalog, Listing, Wanted};
use crate::server::connect::query_error;
use crate::server::consistency::SnapshotRequest;
use crate::server::privileges::Privileges;
use crate::server::snapshot::SnapshotPool;
use crate::store::manifest::Manifest;

/// What a comparison of definitions found.
pub(super) struct Compared {
    /// What is not the same.
    pub(super) differences: Vec<Difference>,
    /// What was not compared, or need not be the same.
    pub(super) warnings: Vec<String>,
}

/// The target as it is now.
struct Arrived {
    pool: SnapshotPool,
    catalog: Catalog,
    /// Kinds of object whose text this user may create but not read.
    hidden: Vec<ObjectKind>,
    warnings: Vec<String>,
}

impl Restore<'_> {
    fn look(&self) -> Result<Arrived> {
        let mut conn = self.connector.connect()?;
        let privileges = Privileges::read(&mut conn, &self.request.connection.database)?;
        let tables: BTreeMap<String, bool> = Listing::at_hand(&mut conn)?
            .tables
            .into_iter()
            .map(|(name, listed)| (name, listed.transactional))
            .collect();
        drop(conn);
        let snapshot = SnapshotRequest {
            connector: &self.connector,
            flavor: &self.flavor,
            privileges: &privileges,
            threads: self.threads(),
            consistency: Consistency::None,
            tables: &tables,
        };
        let pool = SnapshotPool::open(&snapshot, self.interrupt)?;
        let (hidden, warnings) = self.hidden(&privileges);
        let catalog = {
            let mut session = pool.session()?;
            let conn = session.results_in("utf8mb4")?;
            let listing = Listing::at_hand(conn)?;
            let manifests = self.expected();
            let (read, split) = live::tables_read(&manifests);
            let wanted = Wanted {
                flavor: &self.flavor,
                listing: &listing,
                listed_before: false,
                skip: &hidden,
                ignored: &BTreeSet::new(),
                read: &read,
                split: &split,
            };
            Catalog::read(conn, None, &wanted)?
        };
        Ok(Arrived {
            pool,
            catalog,
            hidden,
            warnings,
        })
    }

    /// Reads all rows back and holds them against the manifests.
    pub(super) fn compare_rows(&self) -> Result<Vec<Difference>> {
        let manifests: Vec<Manifest> = self.expected();
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        let mut arrived = self.look()?;
        live::compare_rows(
            &mut arrived.pool,
            &arrived.catalog,
            &self.flavor,
            &manifests,
            self.observer,
            self.interrupt,
        )
    }

    /// Asks for all definitions again and holds them against the files.
    pub(super) fn compare_definitions(&self) -> Result<Compared> {
        let mut compared = Compared {
            differences: Vec::new(),
            warnings: Vec::new(),
        };
        if self.request.content == Content::Data || self.source.flavor != self.flavor.name() {
            return Ok(compared);
        }
        let mut arrived = self.look()?;
        let differences = self.definitions(&arrived)?;
        let drops = scheduler_runs(&arrived.pool)?;
        let (over, differences): (Vec<_>, Vec<_>) = differences
            .into_iter()
            .partition(|d| drops && d.kind == "event" && d.change == Change::Missing);
        compared.differences = differences;
        compared.warnings.append(&mut arrived.warnings);
        if !over.is_empty() {
            compared.warnings.push(format!(
                "the server's scheduler has dropped what is over already: {}",
                names(&over)
            ));
        }
        if !self.is_version_of_the_source() && !compared.differences.is_empty() {
            compared.warnings.push(format!(
                "the server is of another version than the saved one, and states differently: {}",
                names(&compared.differences)
            ));
            compared.differences.clear();
        }
        for message in &compared.warnings {
            let message = message.clone();
            self.observer.event(&Event::Warning { message });
        }
        Ok(compared)
    }

    /// The kinds of object whose text this user may create but not read, with a warning for each.
    fn hidden(&self, privileges: &Privileges) -> (Vec<ObjectKind>, Vec<String>) {
        let mut hidden = Vec::new();
        let mut warnings = Vec::new();
        for (_, kind) in ObjectKind::NAMES {
            let Err(error) = privileges.require_objects(kind, &self.flavor) else {
                continue;
            };
            let objects = self.source.objects.iter();
            if objects
                .map(|object| kind_of(&object.kind))
                .any(|k| k == kind)
            {
                warnings.push(format!("the {kind} were not compared: {error}"));
            }
            hidden.push(kind);
        }
        (hidden, warnings)
    }

    fn definitions(&self, arrived: &Arrived) -> Result<Vec<Difference>> {
        let Arrived {
            pool,
            catalog,
            hidden,
            ..
        } = arrived;
        let mut stated = Vec::new();
        for (kind, name, file) in definitions(self.source) {
            if kind != "table" && kind != "sequence" && hidden.contains(&kind_of(kind)) {
                continue;
            }
            let file = self.source.read(file)?;
            stated.push(Stated {
                kind,
                name,
                statements: body::statements(&file).unwrap_or_default().to_vec(),
            });
        }
        let normal: &(dyn Fn(Vec<u8>) -> Vec<u8> + Sync) = if self.request.skip_definer {
            &definer::without_any
        } else {
            &std::convert::identity
        };
        live::compare_definitions(pool, catalog, &self.flavor, &stated, normal, self.interrupt)
    }

    /// Whether the backups were made on this version, by its first two numbers.
    fn is_version_of_the_source(&self) -> bool {
        let here = (self.flavor.version.0, self.flavor.version.1);
        self.source.version() == Some(here)
    }

    /// The manifests, with the rows that were restored and no others.
    fn expected(&self) -> Vec<Manifest> {
        let backups = self.source.backups.iter().enumerate();
        backups
            .map(|(number, backup)| {
                let mut manifest = backup.manifest.clone();
                manifest.tables.retain(|name, _| {
                    let table = self.source.tables.iter().find(|table| table.name == *name);
                    table
                        .and_then(|table| table.rows.as_ref())
                        .is_some_and(|(from, _)| *from == number)
                });
                manifest
            })
            .collect()
    }
}

/// Whether the server carries out events, and drops those whose time is over.
fn scheduler_runs(pool: &SnapshotPool) -> Result<bool> {
    let mut session = pool.session()?;
    let state: Option<String> = session
        .results_in("utf8mb4")?
        .query_first("SELECT @@event_scheduler")
        .map_err(|e| query_error("cannot read the server's settings", e))?;
    Ok(state.as_deref() == Some("ON"))
}

/// The first few of them, by name.
fn names(differences: &[Difference]) -> String {
    let shown = differences.iter().take(5);
    let mut list: Vec<_> = shown.map(|d| format!("{} `{}`", d.kind, d.name)).collect();
    if differences.len() > list.len() {
        list.push(format!("and {} more", differences.len() - list.len()));
    }
    list.join(", ")
}

fn kind_of(kind: &str) -> ObjectKind {
    match kind {
        "view" => ObjectKind::Views,
        "triggers" => ObjectKind::Triggers,
        "event" => ObjectKind::Events,
        _ => ObjectKind::Routines,
    }
}

/// Kind, name and file of every definition that was restored.
fn definitions(source: &Source) -> impl Iterator<Item = (&str, &str, &SourceFile)> {
    let tables = source.tables.iter();
    let tables = tables.map(|t| (t.kind.name(), t.name.as_str(), &t.structure));
    let objects = source.objects.iter();
    tables.chain(objects.map(|o| (o.kind.as_str(), o.name.as_str(), &o.file)))
}
