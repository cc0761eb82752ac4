//! Tables that have exchanged their names during the run. A session reads a table by its name;
//! what the server states of a table (its definition, the second it was created in) tells it from
//! another that was renamed into its place, unless the two are alike in all of that. Then the
//! storage engine's own numbers do, which only a user with `PROCESS` may see; for others the
//! server's count of statements that can rename a table says that it may have happened.

use std::collections::BTreeMap;

use mysql::Conn;
use mysql::prelude::Queryable;

use super::contents::{Contents, Item};
use crate::error::{Error, ErrorKind, Result};
use crate::server::catalog::Listing;
use crate::server::connect::query_error;
use crate::server::quote_identifier;

/// What does not stay the same when tables of the database exchange their names.
pub(super) type Marks = Vec<(String, u64)>;

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
            "SELECT NAME, TABLE_ID FROM information_schema.{view} WHERE NAME LIKE '{folder}/%' ORDER BY NAME"
        );
        if let Ok(numbers) = conn.query(query) {
            return Ok(numbers);
        }
    }
    let query = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_rename_table', 'Com_alter_table')";
    conn.query(query)
        .map_err(|e| query_error("cannot read the server's status", e))
}

/// Refuses where the marks are others than before the snapshot, and a table whose rows were saved
/// cannot be told from another.
pub(super) fn check(
    contents: &Contents<'_>,
    listed: &Listing,
    before: &Marks,
    after: &Marks,
) -> Result<()> {
    if before == after {
        return Ok(());
    }
    let mut alike: BTreeMap<_, &Item<'_>> = BTreeMap::new();
    for item in &contents.items {
        let created = listed
            .tables
            .get(&item.table.name)
            .and_then(|t| t.created.as_ref());
        let Some(other) = alike.insert((created, nameless(item)), item) else {
            continue;
        };
        if item.data_kind.is_some() || other.data_kind.is_some() {
            let what = format!(
                "tables {} and {} cannot be told apart (created in the same second, of one \
                 definition), and tables were renamed or altered during the backup",
                quote_identifier(&other.table.name),
                quote_identifier(&item.table.name)
            );
            return Err(Error::new(ErrorKind::Failed, what).hint("run again when no DDL runs"));
        }
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
