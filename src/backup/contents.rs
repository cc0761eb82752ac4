//! What goes into a backup, as it grows: the plan for each table, then the files written for
//! it. From it come the manifests and the summary.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::exchange::Marks;
use super::referring::Referring;
use crate::Request;
use crate::config::{Category, ObjectKind};
use crate::encode::script::Frame;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Summary;
use crate::plan::layout::Destinations;
use crate::server::catalog::{Catalog, Table};
use crate::server::flavor::Flavor;
use crate::store::manifest::{
    BackupKind, DataEntry, FORMAT, FileEntry, Manifest, ObjectEntry, TableEntry, TableKind,
};
use crate::survey::Survey;

/// A table and what has been saved of it.
pub(super) struct Item<'a> {
    pub table: &'a Table,
    pub category: Category,
    /// The directory that takes its rows, if any.
    pub data_kind: Option<BackupKind>,
    /// Whether what the server states of it, without its definition, would show that it was
    /// renamed during the run, or altered, if it is no sequence.
    pub would_show: bool,
    /// Whether its structure is read with its rows, and not before them.
    pub structure_waits: bool,
    pub structure: OnceLock<Structure>,
    pub data: Option<DataEntry>,
}

impl Item<'_> {
    /// What it is, and its name.
    pub(super) fn describe(&self) -> String {
        let what = match self.table.kind {
            TableKind::Table => "table",
            TableKind::Sequence => "sequence",
        };
        format!("{what} `{}`", self.table.name)
    }

    /// What was saved of its structure.
    pub(super) fn structure(&self) -> Result<&Structure> {
        self.structure.get().ok_or_else(|| {
            let what = format!("the structure of {} was not saved", self.describe());
            Error::new(ErrorKind::Internal, what)
        })
    }
}

/// What creates a table or sequence.
pub(super) struct Structure {
    /// The file, which every directory that holds the table has under one name.
    pub file: FileEntry,
    /// The statement in it.
    pub statement: Vec<u8>,
}

/// Everything that a run saves.
pub(super) struct Contents<'a> {
    pub catalog: &'a Catalog,
    pub flavor: &'a Flavor,
    pub frame: Frame,
    pub max_allowed_packet: u64,
    pub items: Vec<Item<'a>>,
    /// Views, triggers, routines, events, in the order in which they can be created.
    pub objects: Vec<ObjectEntry>,
    skipped: Vec<ObjectKind>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(
        survey: &'a Survey,
        catalog: &'a Catalog,
        destinations: &Destinations,
        marks: &Marks,
        referring: &Referring,
        request: &Request,
    ) -> Self {
        let items = catalog.tables.values().map(|table| {
            let category = survey.category(&table.name);
            let data_kind = destinations
                .of_data(category)
                .filter(|_| table.holds_rows());
            let would_show = marks.would_show(&survey.listing, &table.name);
            let is_told = would_show
                // ALTER SEQUENCE does not show.
                && table.kind == TableKind::Table
                && !referring.may_be(&table.name);
            Item {
                table,
                category,
                data_kind,
                would_show,
                structure_waits: is_told && data_kind.is_some(),
                structure: OnceLock::new(),
                data: None,
            }
        });
        Contents {
            catalog,
            flavor: &survey.flavor,
            frame: Frame::new(&survey.flavor),
            max_allowed_packet: survey.max_allowed_packet,
            items: items.collect(),
            objects: Vec::new(),
            skipped: request.config.skip_objects.clone(),
        }
    }

    /// An error that names all that cannot be backed up, before anything is read.
    pub(super) fn refuse_what_would_not_come_back(&self) -> Result<()> {
        let saved = self.items.iter().filter(|item| item.data_kind.is_some());
        let tables = saved.filter_map(|item| {
            let why = item.table.unsavable()?;
            Some(format!("table `{}` ({why})", item.table.name))
        });
        let views = self.catalog.invalid_views();
        let views = views.map(|name| format!("view `{name}` (what it needs is gone)"));
        let all: Vec<_> = tables.chain(views).collect();
        if all.is_empty() {
            return Ok(());
        }
        let what = format!("cannot be backed up: {}", all.join(", "));
        Err(Error::new(ErrorKind::Failed, what)
            .hint("put the names on the `ignore` list to leave them out"))
    }

    /// The manifest of the directory of that kind.
    pub(super) fn manifest(&self, kind: BackupKind) -> Result<Manifest> {
        let held = self
            .items
            .iter()
            .filter(|item| kind == BackupKind::Host || item.data_kind == Some(kind));
        let tables = held.map(|item| {
            let here = item.data_kind == Some(kind);
            let entry = TableEntry {
                category: item.category,
                kind: item.table.kind,
                structure: item.structure()?.file.clone(),
                columns: item
                    .table
                    .stored_columns()
                    .map(|c| c.name.clone())
                    .collect(),
                versioned: item.table.versioned,
                auto_increment: item.table.auto_increment.filter(|_| here),
                data: item.data.clone().filter(|_| here),
            };
            Ok((item.table.name.clone(), entry))
        });
        Ok(Manifest {
            format: FORMAT,
            kind,
            flavor: self.flavor.name().into(),
            database: self.catalog.database.clone(),
            tables: tables.collect::<Result<BTreeMap<_, _>>>()?,
            objects: if kind == BackupKind::Host {
                self.objects.clone()
            } else {
                Vec::new()
            },
            skipped_objects: self.skipped.clone(),
            private: None,
        })
    }

    /// What has been saved, without the times and places.
    pub(super) fn summary(&self) -> Summary {
        let data = || self.items.iter().filter_map(|item| item.data.as_ref());
        let chunks = || data().flat_map(|data| &data.chunks);
        let triggers: usize = self.catalog.triggers.values().map(Vec::len).sum();
        let sequences = self
            .items
            .iter()
            .filter(|item| item.table.kind == TableKind::Sequence)
            .count();
        let catalog = self.catalog;
        Summary {
            structures: self.items.len() - sequences,
            objects: catalog.views.len()
                + catalog.routines.len()
                + catalog.events.len()
                + triggers
                + sequences,
            tables: data().count(),
            rows: data().map(|data| data.rows).sum(),
            raw_bytes: chunks().map(|chunk| chunk.raw_bytes).sum(),
            stored_bytes: chunks().map(|chunk| chunk.file.bytes).sum(),
            ..Summary::default()
        }
    }
}
