//! What has arrived, held against the backups: the rows by number and digest and the counters
//! always, the definitions where the server is of the product that they were read from.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, SourceFile};
use super::{Content, Restore, definer};
use crate::config::{Consistency, ObjectKind};
use crate::encode::body;
use crate::error::Result;
use crate::event::Event;
use crate::live::{self, Difference, Stated};
use crate::server::catalog::{Catalog, Listing};
use crate::server::consistency::SnapshotRequest;
use crate::server::privileges::Privileges;
use crate::server::snapshot::SnapshotPool;
use crate::store::manifest::Manifest;

/// What a comparison found.
pub(super) struct Compared {
    /// What is not the same.
    pub(super) differences: Vec<Difference>,
    /// What was not compared, or may differ with the version.
    pub(super) warnings: Vec<String>,
}

impl Restore<'_> {
    /// Reads everything back and holds it against the backups.
    pub(super) fn compare(&self) -> Result<Compared> {
        let mut conn = self.connector.connect()?;
        let privileges = Privileges::read(&mut conn, &self.request.connection.database)?;
        let tables: BTreeMap<String, bool> = Listing::read(&mut conn)?
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
        let mut pool = SnapshotPool::open(&snapshot, self.interrupt)?;
        let (hidden, mut warnings) = self.hidden(&privileges);
        let catalog = {
            let mut session = pool.session()?;
            let conn = session.results_in("utf8mb4")?;
            Catalog::read(conn, &self.flavor, &hidden, &BTreeSet::new())?
        };
        let manifests: Vec<Manifest> = self.expected();
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        let mut differences = live::compare_rows(
            &mut pool,
            &catalog,
            &self.flavor,
            &manifests,
            self.observer,
            self.interrupt,
        )?;
        let definitions = self.compare_definitions(&pool, &catalog, &hidden)?;
        if self.is_version_of_the_source() {
            differences.extend(definitions);
        } else if !definitions.is_empty() {
            warnings.push(format!(
                "the server is of another version than the saved one, and states differently: {}",
                names(&definitions)
            ));
        }
        for message in &warnings {
            let message = message.clone();
            self.observer.event(&Event::Warning { message });
        }
        Ok(Compared {
            differences,
            warnings,
        })
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

    fn compare_definitions(
        &self,
        pool: &SnapshotPool,
        catalog: &Catalog,
        hidden: &[ObjectKind],
    ) -> Result<Vec<Difference>> {
        if self.request.content == Content::Data || self.source.flavor != self.flavor.name() {
            return Ok(Vec::new());
        }
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
