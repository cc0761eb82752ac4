//! Tables that have exchanged their names during the run. A session reads a table by its name;
//! what the server states of a table (its definition, the second it was last renamed in) tells it
//! from another that was renamed into its place, unless the two are alike in all of that. Then the
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

/// What tells of tables of the database that exchange their names.
pub(super) struct Marks {
    /// A second before they were taken, by the server's clock, as it states times; empty where
    /// times do not tell.
    just_before: String,
    names: Names,
}

/// What does not stay the same when tables exchange their names.
enum Names {
    /// The storage engine's numbers of tables, with their names.
    Tables(BTreeMap<u64, String>),
    /// How often statements were run that can rename a table, anywhere on the server.
    Statements(Vec<(String, u64)>),
}

impl Names {
    /// Whether a table may have got the name of another since. One that is altered by copy or
    /// emptied gets another number, and cannot be read in the snapshot any more.
    fn moved(&self, now: &Names) -> bool {
        match (self, now) {
            (Names::Tables(before), Names::Tables(now)) => before
                .iter()
                .any(|(number, name)| now.get(number).is_some_and(|now| now != name)),
            (Names::Statements(before), Names::Statements(now)) => before != now,
            _ => true,
        }
    }
}

impl Marks {
    /// Whether a table was last renamed so long before that a rename since shows in what the
    /// server states of it, which is looked at when its rows were read.
    fn is_after(&self, listed: &Listed) -> bool {
        let renamed = listed.created.as_deref();
        // Other engines keep the second of creation.
        listed.engine == "InnoDB"
            && renamed.is_some_and(|renamed| renamed < self.just_before.as_str())
    }
}

/// Takes the marks down: before the snapshot, and when all rows were read.
pub(super) fn marks(conn: &mut Conn, database: &str) -> Result<Marks> {
    // The server may take the second of a change from a clock that is a little late. On Windows it
    // states the one of creation, which a rename leaves as it is: nothing is before.
    let just_before = conn
        .query_first(
            "SELECT IF(@@version_compile_os LIKE 'Win%', '', CAST(NOW() - INTERVAL 1 SECOND AS CHAR))",
        )
        .map_err(|e| query_error("cannot read the server's clock", e))?
        .unwrap_or_default();
    let names = names(conn, database)?;
    Ok(Marks { just_before, names })
}

fn names(conn: &mut Conn, database: &str) -> Result<Names> {
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
            return Ok(Names::Tables(tables.into_iter().collect()));
        }
    }
    let query = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_rename_table', 'Com_alter_table')";
    conn.query(query)
        .map(Names::Statements)
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
    if !before.names.moved(&now.names) {
        return Ok(());
    }
    // MySQL states the second as it is in the snapshot, also when another table has the name.
    let stated = contents.flavor.is_mariadb();
    let may_be_another = |item: &Item<'_>| {
        let listed = listed.tables.get(&item.table.name);
        let would_show = stated && listed.is_some_and(|listed| before.is_after(listed));
        item.data_kind.is_some() && !would_show
    };
    let mut seen: BTreeMap<String, Vec<&Item<'_>>> = BTreeMap::new();
    for item in &contents.items {
        let others = seen.entry(nameless(item)).or_default();
        let alike = others
            .iter()
            .find(|other| may_be_another(item) || may_be_another(other));
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
    fn only_a_change_well_before_the_marks_is_told_from_a_later_one() {
        let marks = Marks {
            just_before: "2026-11-25 20:40:23".into(),
            names: Names::Statements(Vec::new()),
        };
        let settled = |engine: &str, created: Option<&str>| {
            marks.is_after(&Listed {
                engine: engine.into(),
                transactional: true,
                versioned: false,
                created: created.map(Into::into),
            })
        };
        assert!(settled("InnoDB", Some("2026-11-25 20:40:22")));
        assert!(!settled("InnoDB", Some("2026-11-25 20:40:23")));
        assert!(!settled("InnoDB", None));
        assert!(!settled("Aria", Some("2026-11-25 20:40:22")));
    }
}
