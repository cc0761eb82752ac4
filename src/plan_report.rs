//! The dry run: what a backup would do, for every table, without writing anything.

use std::collections::BTreeMap;

use crate::Request;
use crate::config::Category;
use crate::error::Result;
use crate::event::{Event, Observer, Phase};
use crate::interrupt::Interrupt;
use crate::plan::chunks::ChunkKey;
use crate::plan::layout::Destinations;
use crate::plan::{PlanReport, PlannedTable};
use crate::server::catalog::{Catalog, Table, Wanted};
use crate::store::manifest::{BackupKind, TableKind};
use crate::survey::Survey;

/// Looks at the server and reports what [`backup::run`](crate::backup::run) would do.
pub fn run(
    request: &Request,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<PlanReport> {
    observer.event(&Event::Phase {
        phase: Phase::Catalog,
    });
    let destinations = Destinations::of(request)?;
    let (survey, mut conn) = Survey::take(request, &destinations, interrupt)?;
    interrupt.check()?;
    // Ignored tables are listed too, so that nothing seems to be missing.
    let tables = survey.listing.table_names();
    let wanted = Wanted {
        flavor: &survey.flavor,
        listing: &survey.listing,
        listed_before: false,
        skip: &request.config.skip_objects,
        ignored: &survey.classification.ignored_others,
        read: &tables,
        split: &tables,
    };
    let catalog = Catalog::read(&mut conn, None, &wanted)?;
    let tables = catalog
        .tables
        .values()
        .map(|table| planned(table, &survey, &destinations, request.config.chunk_size))
        .collect();
    let triggers = catalog.triggers.values().map(Vec::len).sum();
    let objects = BTreeMap::from([
        ("views".to_owned(), catalog.views.len()),
        ("triggers".to_owned(), triggers),
        ("routines".to_owned(), catalog.routines.len()),
        ("events".to_owned(), catalog.events.len()),
    ]);
    let text = |kind| {
        destinations
            .path(kind)
            .map(|path| path.display().to_string())
    };
    let recipients = |kind, category| -> Result<usize> {
        let encryption = &request.config.encryption;
        let wanted = destinations.path(kind).is_some();
        let recipients = wanted
            .then(|| encryption.recipients(category))
            .transpose()?;
        Ok(recipients.flatten().map_or(0, |all| all.count()))
    };
    Ok(PlanReport {
        server: survey.flavor.to_string(),
        database: request.connection.database.clone(),
        host_dir: destinations.host.display().to_string(),
        user_data_dir: text(BackupKind::UserData),
        user_data_recipients: recipients(BackupKind::UserData, Category::Local)?,
        ephemeral_dir: text(BackupKind::Ephemeral),
        ephemeral_recipients: recipients(BackupKind::Ephemeral, Category::Ephemeral)?,
        consistency: request.config.consistency.to_string(),
        tables,
        objects,
        warnings: survey.warnings,
    })
}

fn planned(
    table: &Table,
    survey: &Survey,
    destinations: &Destinations,
    chunk_size: u64,
) -> PlannedTable {
    let category = survey.category(&table.name);
    let text = |kind| {
        destinations
            .path(kind)
            .map(|path| path.display().to_string())
    };
    let data_kind = destinations.of_data(category);
    let key = ChunkKey::choose(table).filter(|key| !key.split.is_empty());
    let chunks = match (&key, data_kind) {
        (_, None) => 0,
        (Some(_), Some(_)) if table.kind == TableKind::Table => {
            ((table.data_bytes + chunk_size / 2) / chunk_size).max(1)
        }
        _ => 1,
    };
    PlannedTable {
        name: table.name.clone(),
        category,
        listed: survey.classification.is_listed(&table.name),
        engine: match table.kind {
            TableKind::Sequence => "SEQUENCE".into(),
            TableKind::Table => table.engine.clone(),
        },
        structure_dir: (category != Category::Ignore)
            .then(|| destinations.host.display().to_string()),
        data_dir: data_kind.and_then(text),
        estimated_rows: table.rows,
        estimated_bytes: table.data_bytes,
        chunks,
        chunk_key: key
            .filter(|_| chunks > 1)
            .map(|key| key.split)
            .unwrap_or_default(),
    }
}
