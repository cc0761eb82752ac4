//! Tables that have exchanged their names during the run. A session reads a table by its name;
//! what the server states of a table (its definition, the second it was created in) tells it from
//! another that was renamed into its place, unless the two are alike in all of that. Then the
//! storage engine's own numbers do, which only a user with `PROCESS` may see; for others the
//! server's count of statements that can rename a table says that it may have happened.

use std::collections::BTreeMap;

use mysql::Conn;

use super::contents::{Contents, Item};
use crate::error::{Error, ErrorKind, Result};
use crate::server::catalog::{Listed, Listing};
use crate::server::connect::query_error;
use crate::server::driver::Ask;
use crate::server::quote_identifier;

/// What does not stay the same when tables of the database exchange their names.
pub(super) enum Marks {
    /// The storage engine's numbers of tables, with their names.
    Tables(BTreeMap<u64, String>),
    /// How often statements were run that can rename a table, anywhere on the server.
    Statements(Vec<(String, u64)>),
}

impl Marks {
    /// Whether a table may have got the name of another since. One that is altered by copy or
    /// emptied gets another number, and cannot be read in the snapshot any more.
    fn moved(&self, now: &Marks) -> bool {
        match (self, now) {
            (Marks::Tables(before), Marks::Tables(now)) => before
                .iter()
                .any(|(number, name)| now.get(number).is_some_and(|now| now != name)),
            (Marks::Statements(before), Marks::Statements(now)) => before != now,
            _ => true,
        }
    }
}

/// Takes the marks down: before the snapshot, and when all rows were read.
pub(super) fn marks(conn: &mut Conn, database: &str) -> Result<Marks> {
    // A table's name there is that of its file, of which not all characters are its own.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let folder = if database.chars().all(plain) {
        database
    } else {
        "%"
    };
    // MySQL's name for it, and MariaDB's.
    for view in ["INNODB_TABLES", "INNODB_SYS_TABLES"] {
        let query = format!(
            "SELECT TABLE_ID, NAME FROM information_schema.{view} WHERE NAME LIKE '{folder}/%'"
        );
        if let Ok(tables) = conn.query::<(u64, String), _>(query) {
            return Ok(Marks::Tables(tables.into_iter().collect()));
        }
    }
    let query = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_rename_table', 'Com_alter_table')";
    conn.query(query)
        .map(Marks::Statements)
        .map_err(|e| query_error("cannot read the server's status", e))
}

/// Refuses where the marks are others than before the snapshot, and a table whose rows were saved
/// cannot be told from another.
pub(super) fn check(
    contents: &Contents<'_>,
    listed: &Listing,
    before: &Marks,
    now: &Marks,
) -> Result<()> {
    if !before.moved(now) {
        return Ok(());
    }
    // MySQL states the second as it is in the snapshot, also when another table has the name.
    let stated = contents.flavor.is_mariadb();
    let mut seen: BTreeMap<String, Vec<&Item<'_>>> = BTreeMap::new();
    for item in &contents.items {
        let others = seen.entry(nameless(item)).or_default();
        let alike = others.iter().find(|other| {
            let saved = item.data_kind.is_some() || other.data_kind.is_some();
            let (one, two) = (
                listed.tables.get(&item.table.name),
                listed.tables.get(&other.table.name),
            );
            saved && !(stated && made_apart(one, two))
        });
        if let Some(other) = alike {
            let what = format!(
                "tables {} and {} cannot be told apart by their definitions, and tables were \
                 renamed or altered during the backup",
                quote_identifier(&other.table.name),
                quote_identifier(&item.table.name)
            );
            return Err(Error::new(ErrorKind::Failed, what).hint(
                "run again when no DDL runs; with the privilege PROCESS, only an exchange of names counts",
            ));
        }
        others.push(item);
    }
    Ok(())
}

/// Whether two tables are known to have been created in different seconds. A server under load
/// was seen to state none.
fn made_apart(one: Option<&Listed>, two: Option<&Listed>) -> bool {
    let created = |listed: Option<&Listed>| listed?.created.clone();
    let (one, two) = (created(one), created(two));
    one.is_some() && two.is_some() && one != two
}

/// The definition without the table's name, also in names that the server makes of it and
/// changes with it.
fn nameless(item: &Item<'_>) -> String {
    let name = item.table.name.replace('`', "``");
    let text = String::from_utf8_lossy(&item.definition);
    ["`", "_ibfk_", "_chk_"]
        .iter()
        .fold(text.into_owned(), |text, end| {
            text.replace(&format!("`{name}{end}"), end)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_apart_only_if_both_seconds_are_known() {
        let listed = |created: Option<&str>| Listed {
            engine: "InnoDB".into(),
            transactional: true,
            versioned: false,
            created: created.map(Into::into),
        };
        let (early, late, unknown) = (listed(Some("1")), listed(Some("2")), listed(None));
        assert!(made_apart(Some(&early), Some(&late)));
        assert!(!made_apart(Some(&early), Some(&early)));
        assert!(!made_apart(Some(&early), Some(&unknown)));
        assert!(!made_apart(Some(&unknown), Some(&unknown)));
        assert!(!made_apart(None, Some(&late)));
    }
}
