//! Tables with foreign keys. The server makes that part of a definition from the storage engine's
//! own tables, and it changes with the name of the table referred to: nothing that is stated of
//! the table itself tells of it.

use std::collections::BTreeSet;

use mysql::Conn;

use super::exchange::{folder, is_name_of_file};
use crate::server::driver::Ask;

/// The tables of the database whose definitions may change with the names of others.
pub(super) enum Referring {
    /// Their names, in lower case, as those of their files.
    Files {
        plain: BTreeSet<String>,
        /// Whether there are names of which not all characters are the tables'.
        others: bool,
    },
    /// It may be any: only a user with `PROCESS` is told, and only by MariaDB.
    Any,
}

impl Referring {
    pub(super) fn read(conn: &mut Conn, database: &str) -> Referring {
        // The server cuts long names off here, which those of plain characters never are.
        if !is_name_of_file(database) {
            return Referring::Any;
        }
        let query = format!(
            "SELECT FOR_NAME FROM information_schema.INNODB_SYS_FOREIGN WHERE FOR_NAME LIKE '{}/%'",
            folder(database)
        );
        conn.query(query).map_or(Referring::Any, Referring::of)
    }

    fn of(files: Vec<String>) -> Referring {
        let names = files.iter().map(|file| {
            let name = file.split_once('/').map_or(&file[..], |(_, name)| name);
            name.to_ascii_lowercase()
        });
        let (plain, others): (BTreeSet<_>, BTreeSet<_>) =
            names.partition(|name| is_name_of_file(name));
        Referring::Files {
            plain,
            others: !others.is_empty(),
        }
    }

    /// Whether a table may be one of them.
    pub(super) fn may_be(&self, table: &str) -> bool {
        match self {
            Referring::Files { plain, .. } if is_name_of_file(table) => {
                plain.contains(&table.to_ascii_lowercase())
            }
            Referring::Files { others, .. } => *others,
            Referring::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_told_may_be_any() {
        let referring = |files: &[&str]| {
            let files = files.iter().map(|file| (*file).to_owned());
            Referring::of(files.collect())
        };
        let some = referring(&["d/child", "d/Other_1"]);
        assert!(some.may_be("child") && some.may_be("Child") && some.may_be("other_1"));
        assert!(!some.may_be("parent") && !some.may_be("größe"));
        let encoded = referring(&["d/gr@00f6@00dfe"]);
        assert!(encoded.may_be("größe") && encoded.may_be("a-b") && !encoded.may_be("parent"));
        assert!(referring(&["d/AUX@@@"]).may_be("aux") && !some.may_be("aux"));
        assert!(!referring(&[]).may_be("child") && Referring::Any.may_be("child"));
    }
}
