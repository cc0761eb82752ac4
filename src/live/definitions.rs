//! The definitions: the server states each again, it is written as a backup writes it, and
//! compared byte by byte with what the backup's file holds.

use std::collections::BTreeSet;

use super::{Change, Difference};
use crate::encode::body;
use crate::encode::script::{self, compound, view};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::server::catalog::{Catalog, Routine};
use crate::server::definitions;
use crate::server::flavor::Flavor;
use crate::server::snapshot::{Session, SnapshotPool};
use crate::store::manifest::TableKind;

/// A definition as a backup has it.
#[derive(Debug, Clone)]
pub struct Stated<'a> {
    /// `table`, `sequence`, or the kind that the manifest says.
    pub kind: &'a str,
    /// Its name; of triggers, the table's.
    pub name: &'a str,
    /// The statements of its file, see [`body::statements`].
    pub statements: Vec<u8>,
}

/// Compares definitions over all sessions, in the form that `normal` gives to both.
pub fn compare_definitions(
    pool: &SnapshotPool,
    catalog: &Catalog,
    flavor: &Flavor,
    stated: &[Stated<'_>],
    normal: &(dyn Fn(Vec<u8>) -> Vec<u8> + Sync),
    interrupt: &Interrupt,
) -> Result<Vec<Difference>> {
    let changes = pool.map(stated, interrupt, |session, stated| {
        let Some(live) = live(session, catalog, flavor, stated)? else {
            return Ok(Some(Change::Missing));
        };
        let (then, now) = (normal(stated.statements.clone()), normal(live));
        let same = match stated.kind {
            "view" => body::is_view(&then, &now),
            "table" if !flavor.is_mariadb() => said_once(&then) == said_once(&now),
            _ => then == now,
        };
        Ok((!same).then_some(Change::Definition))
    })?;
    let found = stated.iter().zip(changes);
    Ok(found
        .filter_map(|(stated, change)| Some(Difference::new(stated.kind, stated.name, change?)))
        .collect())
}

/// MySQL states a column's collation where it is the table's and not the character set's own, and
/// the character set besides once it has heard that statement: both mean the same table.
fn said_once(create: &[u8]) -> String {
    let create = String::from_utf8_lossy(create).into_owned();
    let of_table = create
        .rsplit_once(" DEFAULT CHARSET=")
        .and_then(|(_, options)| {
            let (charset, rest) = options.split_once(" COLLATE=")?;
            Some((charset, rest.split([' ', '\n', ';']).next()?))
        });
    let Some((charset, collation)) = of_table else {
        return create;
    };
    let stated = format!(" COLLATE {collation}");
    create.replace(&format!(" CHARACTER SET {charset}{stated}"), &stated)
}

/// Routines, events and triggers of the tables in `stated` that the catalog has beside those
/// in `stated`. Of tables and views it cannot be told whether they were meant to be left out.
pub fn added(catalog: &Catalog, stated: &BTreeSet<(&str, &str)>) -> Vec<Difference> {
    let routines = catalog
        .routines
        .iter()
        .map(|routine| (kind_of(routine), routine.name.as_str()));
    let events = catalog
        .events
        .iter()
        .map(|event| ("event".to_owned(), event.as_str()));
    let triggers = catalog
        .triggers
        .keys()
        .filter(|table| stated.contains(&("table", table.as_str())))
        .map(|table| ("triggers".to_owned(), table.as_str()));
    let all: BTreeSet<(String, &str)> = routines.chain(events).chain(triggers).collect();
    all.iter()
        .filter(|(kind, name)| !stated.contains(&(kind.as_str(), *name)))
        .map(|(kind, name)| Difference::new(kind, name, Change::Added))
        .collect()
}

/// A package and its body are one object.
fn kind_of(routine: &Routine) -> String {
    let kind = routine.kind.strip_suffix(" BODY").unwrap_or(&routine.kind);
    kind.to_ascii_lowercase()
}

/// What a backup would write of an object now; `None` where there is none.
fn live(
    session: &mut Session,
    catalog: &Catalog,
    flavor: &Flavor,
    stated: &Stated<'_>,
) -> Result<Option<Vec<u8>>> {
    let name = stated.name;
    let table = |kind| catalog.tables.get(name).filter(|table| table.kind == kind);
    let table = match stated.kind {
        "table" => table(TableKind::Table),
        "sequence" => table(TableKind::Sequence),
        _ => None,
    };
    Ok(match stated.kind {
        "table" | "sequence" => match table {
            Some(table) => {
                let create = definitions::table(session, table)?;
                Some(script::table(&create.text, table))
            }
            None => None,
        },
        "view" => match catalog.views.get(name) {
            Some(known) => {
                let definition = definitions::view(session, name, &known.charset_client)?;
                Some(view(&definition, &[], flavor))
            }
            None => None,
        },
        "triggers" => match catalog.triggers.get(name) {
            Some(triggers) => {
                let texts = triggers
                    .iter()
                    .map(|trigger| definitions::trigger(session, trigger));
                Some(concat(texts.collect::<Result<_>>()?, catalog))
            }
            None => None,
        },
        "event" if catalog.events.iter().any(|event| event == name) => Some(compound(
            &definitions::event(session, name)?,
            &catalog.database,
        )),
        "function" | "procedure" | "package" => {
            let parts = catalog
                .routines
                .iter()
                .filter(|routine| routine.name == name && kind_of(routine) == stated.kind);
            let texts = parts.map(|routine| definitions::routine(session, routine));
            let texts: Vec<_> = texts.collect::<Result<_>>()?;
            (!texts.is_empty()).then(|| concat(texts, catalog))
        }
        "event" => None,
        kind => {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("{kind} `{name}`: this version does not know such objects"),
            ));
        }
    })
}

fn concat(definitions: Vec<definitions::Definition>, catalog: &Catalog) -> Vec<u8> {
    let texts = definitions.iter();
    texts
        .flat_map(|text| compound(text, &catalog.database))
        .collect()
}
