//! The structure of tables and all other objects: read from the server over all sessions at
//! once, written as one file each. That of a table waits for its rows where it may: then the server
//! has the table open anyway, and keeps DDL away from both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Stagings;
use super::contents::{Contents, Item, Structure};
use crate::encode::script::{self, Frame, compound, view};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::server::catalog::{Listed, Listing};
use crate::server::definitions::{self, Definition};
use crate::server::snapshot::{Session, SnapshotPool};
use crate::store::manifest::{BackupKind, ObjectEntry, TableKind};
use crate::store::names;

/// Definitions that are asked for together. They are in memory together, too.
const TOGETHER: usize = 50;

/// Writes all structure files.
pub(super) fn save(
    contents: &mut Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    interrupt: &Interrupt,
) -> Result<()> {
    save_tables(contents, pool, stagings, interrupt)?;
    // Views may call functions, which are not looked at before they run.
    save_routines(contents, pool, stagings, interrupt)?;
    save_views(contents, pool, stagings, interrupt)?;
    save_triggers(contents, pool, stagings, interrupt)?;
    save_events(contents, pool, stagings, interrupt)
}

fn save_tables(
    contents: &mut Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    interrupt: &Interrupt,
) -> Result<()> {
    let items: Vec<_> = contents
        .items
        .iter()
        .filter(|item| !item.structure_waits)
        .collect();
    let writer = StructureWriter::new(contents, stagings);
    // Every session is to have some.
    let together = TOGETHER.min(items.len().div_ceil(pool.size())).max(1);
    let parts: Vec<_> = items.chunks(together).collect();
    pool.map(&parts, interrupt, |session, items| {
        let definitions = definitions(session, items)?;
        let mut items = items.iter().zip(definitions);
        items.try_for_each(|(item, definition)| {
            interrupt.check()?;
            writer.write(item, definition)
        })
    })?;
    Ok(())
}

/// Writes the structure of tables and sequences.
pub(super) struct StructureWriter<'a> {
    frame: &'a Frame,
    stagings: &'a Stagings,
}

impl<'a> StructureWriter<'a> {
    pub(super) fn new(contents: &'a Contents<'_>, stagings: &'a Stagings) -> Self {
        StructureWriter {
            frame: &contents.frame,
            stagings,
        }
    }

    fn write(&self, item: &Item<'_>, statement: Vec<u8>) -> Result<()> {
        let name = &item.table.name;
        let file = match item.table.kind {
            TableKind::Table => names::table_structure(name),
            TableKind::Sequence => names::sequence_structure(name),
        };
        let text = self
            .frame
            .file(&item.describe(), std::slice::from_ref(&statement));
        if let Some(kind) = item.data_kind.filter(|kind| *kind != BackupKind::Host) {
            self.stagings.of(kind)?.write(&file, &text)?;
        }
        let file = self.stagings.of(BackupKind::Host)?.write(&file, &text)?;
        // Each is written once: a second file of that name is an error.
        item.structure.get_or_init(|| Structure { file, statement });
        Ok(())
    }
}

/// The statements that create tables and sequences, without what belongs to their data.
fn definitions(session: &mut Session, items: &[&Item<'_>]) -> Result<Vec<Vec<u8>>> {
    let tables: Vec<_> = items.iter().map(|item| item.table).collect();
    let creates = definitions::tables(session, &tables)?;
    let creates = creates.into_iter().zip(tables);
    let statements = creates.map(|(create, table)| script::table(&create.text, table));
    Ok(statements.collect())
}

/// What the server states of tables. Under load it was seen to state no time of one for more than
/// ten seconds; where it did `before`, it is asked until it does again.
fn listed_now(
    session: &mut Session,
    names: &[&str],
    before: &Listing,
    interrupt: &Interrupt,
) -> Result<BTreeMap<String, Listed>> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let is_timed = |listed: Option<&Listed>| listed.is_some_and(|listed| listed.created.is_some());
    let deadline = Instant::now() + PATIENCE;
    let (mut now, mut asked) = (BTreeMap::new(), names.to_vec());
    loop {
        let conn = session.results_in("utf8mb4")?;
        now.extend(Listed::read(conn, &asked, before.tables.len())?);
        asked.retain(|name| {
            let untimed = now.get(*name).is_some_and(|now| !is_timed(Some(now)));
            untimed && is_timed(before.tables.get(*name))
        });
        if asked.is_empty() || Instant::now() > deadline {
            return Ok(now);
        }
        interrupt.check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Looks at tables whose rows were read again, while the session still keeps DDL away from them.
/// One that was altered, or whose name another table has taken, may not be what was read under
/// its name in the snapshot. `before` is what there was before the snapshot. Saves the structure
/// of tables of which that has waited.
pub(super) fn check_unchanged(
    session: &mut Session,
    items: &[&Item<'_>],
    before: &Listing,
    writer: &StructureWriter<'_>,
    interrupt: &Interrupt,
) -> Result<()> {
    let names: Vec<&str> = items.iter().map(|item| item.table.name.as_str()).collect();
    let now = listed_now(session, &names, before, interrupt).map_err(|error| match items {
        _ if error.kind() == ErrorKind::Interrupted => error,
        [item] => error.within(item.describe()),
        _ => {
            let (tables, first) = (names.len(), names.first().unwrap_or(&""));
            error.within(format_args!(
                "checking {tables} tables from table `{first}` on"
            ))
        }
    })?;
    for item in items {
        let name = &item.table.name;
        check_alike(before.tables.get(name), now.get(name))
            .map_err(|error| error.within(item.describe()))?;
    }
    for items in items.chunks(TOGETHER) {
        interrupt.check()?;
        for (item, definition) in items.iter().zip(definitions(session, items)?) {
            interrupt.check()?;
            match item.structure.get() {
                None => writer.write(item, definition),
                Some(saved) if saved.statement == definition => Ok(()),
                Some(_) => Err(altered("its definition is another")),
            }
            .map_err(|error| error.within(item.describe()))?;
        }
    }
    Ok(())
}

/// Whether a table, as the server states it now, can be what it was.
fn check_alike(then: Option<&Listed>, now: Option<&Listed>) -> Result<()> {
    if let (Some(then), Some(now)) = (then, now)
        && now.can_be(then)
    {
        return Ok(());
    }
    let describe = |listed: Option<&Listed>| listed.map_or("none".into(), Listed::describe);
    Err(altered(&format!(
        "{}, then {}",
        describe(then),
        describe(now)
    )))
}

fn altered(why: &str) -> Error {
    let what = format!("it was altered or replaced during the backup ({why})");
    Error::new(ErrorKind::Failed, what).hint("run again when no DDL runs")
}

fn save_views(
    contents: &mut Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    interrupt: &Interrupt,
) -> Result<()> {
    let views: Vec<_> = contents.catalog.views.iter().collect();
    let texts = pool.map(&views, interrupt, |session, (name, view)| {
        definitions::view(session, name, &view.charset_client)
    })?;
    let texts: BTreeMap<&str, &Definition> = views
        .iter()
        .map(|(name, _)| name.as_str())
        .zip(&texts)
        .collect();
    let needs: BTreeMap<&str, BTreeSet<&str>> = texts
        .iter()
        .map(|(name, text)| (*name, mentioned_views(name, text, &texts)))
        .collect();
    for name in dependency_order(&needs) {
        let placeholders: Vec<_> = all_needed(name, &needs)
            .into_iter()
            .map(|needed| (needed, &contents.catalog.views[needed].columns[..]))
            // A view that is invalid at the source has no columns there.
            .filter(|(_, columns)| !columns.is_empty())
            .collect();
        let statement = view(texts[name], &placeholders, contents.flavor);
        save_object(
            contents,
            stagings,
            "view",
            name,
            names::view(name),
            &[statement],
        )?;
    }
    Ok(())
}

fn save_routines(
    contents: &mut Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    interrupt: &Interrupt,
) -> Result<()> {
    let routines = &contents.catalog.routines;
    let texts = pool.map(routines, interrupt, |session, routine| {
        definitions::routine(session, routine)
    })?;
    let mut files: BTreeMap<(String, &str), Vec<Vec<u8>>> = BTreeMap::new();
    for (routine, text) in routines.iter().zip(&texts) {
        // A package and its body share a file, because their order matters.
        let kind = routine.kind.strip_suffix(" BODY").unwrap_or(&routine.kind);
        let statements = files
            .entry((kind.to_ascii_lowercase(), &routine.name))
            .or_default();
        statements.push(compound(text, &contents.catalog.database));
    }
    for ((kind, name), statements) in files {
        save_object(
            contents,
            stagings,
            &kind,
            name,
            names::routine(&kind, name),
            &statements,
        )?;
    }
    Ok(())
}

/// One file for each table, because the order of its triggers matters.
fn save_triggers(
    contents: &mut Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    interrupt: &Interrupt,
) -> Result<()> {
    let tables: Vec<_> = contents.catalog.triggers.iter().collect();
    let texts = pool.map(&tables, interrupt, |session, (_, triggers)| {
        triggers
            .iter()
            .map(|trigger| definitions::trigger(session, trigger))
            .collect::<Result<Vec<_>>>()
    })?;
    for ((table, _), texts) in tables.iter().zip(&texts) {
        let database = &contents.catalog.database;
        let statements: Vec<_> = texts.iter().map(|text| compound(text, database)).collect();
        save_object(
            contents,
            stagings,
            "triggers",
            table,
            names::triggers(table),
            &statements,
        )?;
    }
    Ok(())
}

fn save_events(
    contents: &mut Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    interrupt: &Interrupt,
) -> Result<()> {
    let events = &contents.catalog.events;
    let texts = pool.map(events, interrupt, |session, event| {
        definitions::event(session, event)
    })?;
    for (event, text) in events.iter().zip(&texts) {
        save_object(
            contents,
            stagings,
            "event",
            event,
            names::event(event),
            &[compound(text, &contents.catalog.database)],
        )?;
    }
    Ok(())
}

fn save_object(
    contents: &mut Contents<'_>,
    stagings: &Stagings,
    kind: &str,
    name: &str,
    file: String,
    statements: &[Vec<u8>],
) -> Result<()> {
    let of = if kind == "triggers" { " of table" } else { "" };
    let text = contents
        .frame
        .file(&format!("{kind}{of} `{name}`"), statements);
    let file = stagings.of(BackupKind::Host)?.write(&file, &text)?;
    contents.objects.push(ObjectEntry {
        kind: kind.into(),
        name: name.into(),
        file,
    });
    Ok(())
}

/// The other views whose quoted names stand in a view's text. May name too many (a column of
/// the same name; any name beyond ASCII where the text is in another character set), which
/// costs a placeholder, never too few.
fn mentioned_views<'a>(
    name: &str,
    definition: &Definition,
    views: &BTreeMap<&'a str, &Definition>,
) -> BTreeSet<&'a str> {
    let charset = definition.charset_client.as_deref().unwrap_or("utf8mb4");
    let mentioned = |other: &str| {
        let quoted = crate::server::quote_identifier(other);
        let unreadable = !other.is_ascii() && !charset.starts_with("utf8");
        unreadable || memchr::memmem::find(&definition.text, quoted.as_bytes()).is_some()
    };
    views
        .keys()
        .copied()
        .filter(|other| *other != name && mentioned(other))
        .collect()
}

/// Names such that what a view needs comes before it, as far as there is such an order.
fn dependency_order<'a>(needs: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<&'a str> {
    let (mut order, mut seen) = (Vec::with_capacity(needs.len()), BTreeSet::new());
    for root in needs.keys() {
        // Depth first, without recursion: views can be nested deeply.
        let mut stack = vec![(*root, false)];
        while let Some((name, expanded)) = stack.pop() {
            if expanded {
                order.push(name);
            } else if seen.insert(name) {
                stack.push((name, true));
                stack.extend(needs[name].iter().rev().map(|needed| (*needed, false)));
            }
        }
    }
    order
}

/// What a view needs, directly or not.
fn all_needed<'a>(name: &str, needs: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut all = BTreeSet::new();
    let mut stack: Vec<&str> = needs[name].iter().copied().collect();
    while let Some(needed) = stack.pop() {
        if needed != name && all.insert(needs.get_key_value(needed).map_or("", |(k, _)| *k)) {
            stack.extend(&needs[needed]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_come_after_what_they_need() {
        let needs = BTreeMap::from([
            ("a", BTreeSet::from(["c"])),
            ("b", BTreeSet::new()),
            ("c", BTreeSet::from(["b"])),
            ("x", BTreeSet::from(["y"])),
            ("y", BTreeSet::from(["x"])),
        ]);
        let order = dependency_order(&needs);
        assert_eq!(order, ["b", "c", "a", "y", "x"]);
        assert_eq!(all_needed("a", &needs), BTreeSet::from(["b", "c"]));
        assert_eq!(all_needed("x", &needs), BTreeSet::from(["y"]));
    }
}
