//! Tables that have exchanged their names during the run. A session reads a table by its name;
//! what the server states of a table (its definition, the second it was last renamed in) tells it
//! from another that was renamed into its place, unless the two are alike in all of that; and a
//! partition that has changed places with a table is told by nothing of the kind. The storage
//! engine's own numbers tell all, but only a user with `PROCESS` may see them; for others the
//! server's count of statements that can rename a table says that it may have happened.

use std::collections::BTreeMap;

use mysql::Conn;

use super::contents::{Contents, Item};
use crate::error::{Error, ErrorKind, Result};
use crate::server::catalog::{Listed, Listing};
use crate::server::connect::query_error;
use crate::server::driver::Ask;
use crate::server::flavor::Flavor;
use crate::server::quote_identifier;
use crate::store::names;

/// What tells of tables of the database that exchange their names.
pub(super) struct Marks {
    /// A second before they were taken, by the server's clock, as it states times; empty where
    /// times do not tell.
    just_before: String,
    names: Names,
}

/// What does not stay the same when tables exchange their names, or a table and a partition.
enum Names {
    /// The storage engine's own.
    Tables(Numbers),
    /// How often statements were run that can rename a table, anywhere on the server.
    Statements(Vec<(String, u64)>),
}

/// The storage engine's numbers of the database's tables and partitions.
struct Numbers {
    /// By the name of the file: `database/table`, or `database/table#P#partition`.
    by_file: BTreeMap<String, u64>,
    /// The greatest that is given to a table of any database.
    latest: u64,
}

impl Numbers {
    /// Files that have now what was another one before, and whether a partition may be involved. A
    /// table that is altered by copy or emptied gets a new number, and so has one that is new;
    /// neither can be read in the snapshot.
    fn replaced<'a>(&'a self, now: &'a Numbers) -> impl Iterator<Item = (&'a str, bool)> {
        let other = |(file, number): &(&String, &u64)| {
            let then = self.by_file.get(*file);
            then.is_some_and(|then| then != *number) && **number <= self.latest
        };
        let files = now.by_file.iter().filter(other);
        files.map(|(file, number)| {
            let mut all = self.by_file.iter();
            // What comes from another database may be a partition.
            let from_table = all.any(|(from, then)| then == number && !is_partition(from));
            (file.as_str(), is_partition(file) || !from_table)
        })
    }
}

/// Whether a file is a partition's.
fn is_partition(file: &str) -> bool {
    file.contains("#P#") || file.contains("#p#")
}

/// Whether a file can be of that table, or of a partition of it. Not all characters of a table's
/// name are its file's.
fn can_be_of(file: &str, table: &str) -> bool {
    let name = file.split_once('/').map_or(file, |(_, name)| name);
    let name = name.split('#').next().unwrap_or_default();
    name.contains('@') || name.eq_ignore_ascii_case(table)
}

impl Marks {
    /// Whether a table was last altered or renamed so long before that another change since
    /// shows in what the server states of it, which is looked at when its rows were read.
    pub(super) fn would_show(&self, listing: &Listing, table: &str) -> bool {
        listing
            .tables
            .get(table)
            .is_some_and(|listed| self.is_after(listed))
    }

    fn is_after(&self, listed: &Listed) -> bool {
        let changed = listed.created.as_deref();
        // Other engines keep the second of creation.
        listed.engine == "InnoDB"
            && changed.is_some_and(|changed| changed < self.just_before.as_str())
    }
}

/// Takes the marks down: before the snapshot, and when all rows were read.
pub(super) fn marks(conn: &mut Conn, flavor: &Flavor, database: &str) -> Result<Marks> {
    // The server may take the second of a change from a clock that is a little late. On Windows it
    // states the one of creation, which a rename leaves as it is; MySQL states it as it is in the
    // snapshot, also when another table has the name. There the mark is empty, and no table's second
    // comes before it.
    let query = format!(
        "SELECT IF({} OR @@version_compile_os LIKE 'Win%', '', CAST(NOW() - INTERVAL 1 SECOND AS CHAR))",
        !flavor.is_mariadb()
    );
    let just_before = conn
        .query_first(query)
        .map_err(|e| query_error("cannot read the server's clock", e))?
        .unwrap_or_default();
    let names = names(conn, database)?;
    Ok(Marks { just_before, names })
}

/// Whether the server gives a table's file, or a database's folder, just that name: it writes
/// other characters in another way, and puts `@@@` behind names of devices.
pub(super) fn is_name_of_file(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(plain) && !names::is_device(name)
}

/// A pattern of what stands for the database in its tables' names in the storage engine, which are
/// those of their files.
pub(super) fn folder(database: &str) -> String {
    if is_name_of_file(database) {
        database.replace('_', r"\\_")
    } else {
        "%".to_owned()
    }
}

fn names(conn: &mut Conn, database: &str) -> Result<Names> {
    let folder = folder(database);
    // MySQL's name for it, and MariaDB's.
    for view in ["INNODB_TABLES", "INNODB_SYS_TABLES"] {
        let tables = conn.query(format!(
            "SELECT NAME, TABLE_ID FROM information_schema.{view} WHERE NAME LIKE '{folder}/%'"
        ));
        let latest = conn.query_first(format!(
            "SELECT MAX(TABLE_ID) FROM information_schema.{view}"
        ));
        if let (Ok(tables), Ok(Some(Some(latest)))) = (tables, latest) {
            return Ok(Names::Tables(Numbers {
                by_file: tables.into_iter().collect(),
                latest,
            }));
        }
    }
    let query = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_rename_table', 'Com_alter_table')";
    conn.query(query)
        .map(Names::Statements)
        .map_err(|e| query_error("cannot read the server's status", e))
}

/// Refuses where the marks are others than before the snapshot, and a table whose rows were saved
/// may have been read under its name when it was another one.
pub(super) fn check(contents: &Contents<'_>, before: &Marks, now: &Marks) -> Result<()> {
    let may_be_another = |item: &Item<'_>| item.data_kind.is_some() && !item.would_show;
    match (&before.names, &now.names) {
        (Names::Tables(before), Names::Tables(now)) => {
            for (file, with_partition) in before.replaced(now) {
                let replaced = contents.items.iter().find(|item| {
                    // The second of a rename says nothing of partitions.
                    let told = !with_partition && !may_be_another(item);
                    item.data_kind.is_some() && can_be_of(file, &item.table.name) && !told
                });
                if let Some(item) = replaced {
                    let what = format!(
                        "table {}: it, or a partition of it, was exchanged for another during the backup",
                        quote_identifier(&item.table.name)
                    );
                    return Err(
                        Error::new(ErrorKind::Failed, what).hint("run again when no DDL runs")
                    );
                }
            }
            Ok(())
        }
        (Names::Statements(before), Names::Statements(now)) if before == now => Ok(()),
        _ => check_alike(contents, may_be_another),
    }
}

/// Refuses where names may have been exchanged, if there are tables that cannot be told apart: of
/// one definition, or of the same columns where a partition of one can have become another.
fn check_alike(contents: &Contents<'_>, may_be_another: impl Fn(&Item<'_>) -> bool) -> Result<()> {
    let mut seen: BTreeMap<String, Vec<(&Item<'_>, String)>> = BTreeMap::new();
    for item in &contents.items {
        let columns = item.table.columns.iter();
        let columns: Vec<_> = columns
            .map(|column| format!("{} {}", column.name, column.data_type))
            .collect();
        let others = seen.entry(columns.join("\n")).or_default();
        let definition = nameless(&item.structure()?.statement, &item.table.name);
        let alike = others.iter().find(|(other, other_definition)| {
            let saved = item.data_kind.is_some() || other.data_kind.is_some();
            let of_partitions = is_partitioned(&definition) || is_partitioned(other_definition);
            let of_names =
                (may_be_another(item) || may_be_another(other)) && definition == *other_definition;
            saved && (of_partitions || of_names)
        });
        if let Some((other, _)) = alike {
            let what = format!(
                "tables {} and {} cannot be told apart by their definitions, and tables were \
                 renamed or altered during the backup",
                quote_identifier(&other.table.name),
                quote_identifier(&item.table.name)
            );
            return Err(Error::new(ErrorKind::Failed, what).hint(
                "run again when no DDL runs; with the privilege PROCESS, only an exchange of these counts",
            ));
        }
        others.push((item, definition));
    }
    Ok(())
}

/// Whether a table's definition may say so.
fn is_partitioned(definition: &str) -> bool {
    definition.contains("PARTITION BY")
}

/// A table's definition without its name, also in names that the server makes of it and changes
/// with it.
fn nameless(definition: &[u8], table: &str) -> String {
    let name = table.replace('`', "``");
    let places = [
        ("TABLE `", "`"),
        ("REFERENCES `", "`"),
        ("CONSTRAINT `", "_ibfk_"),
        ("CONSTRAINT `", "_chk_"),
    ];
    let text = String::from_utf8_lossy(definition).into_owned();
    places.iter().fold(text, |text, (before, behind)| {
        text.replace(
            &format!("{before}{name}{behind}"),
            &format!("{before}{behind}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_by_what_was_there_before() {
        let numbers = |files: &[(&str, u64)], latest| Numbers {
            by_file: files.iter().map(|(f, n)| ((*f).into(), *n)).collect(),
            latest,
        };
        let before = numbers(&[("d/a", 1), ("d/b", 2), ("d/p#P#x", 3), ("d/c", 4)], 9);
        let replaced = |files: &[(&str, u64)]| {
            let now = numbers(files, 12);
            let files = before.replaced(&now);
            let named = files.map(|(file, with_partition)| (file.to_owned(), with_partition));
            named.collect::<Vec<_>>()
        };
        let named = |file: &str, with_partition| (file.to_owned(), with_partition);
        assert_eq!(
            replaced(&[("d/a", 2), ("d/b", 1)]),
            [named("d/a", false), named("d/b", false)]
        );
        assert_eq!(
            replaced(&[("d/b", 3), ("d/p#P#x", 2)]),
            [named("d/b", true), named("d/p#P#x", true)]
        );
        // From another database.
        assert_eq!(replaced(&[("d/a", 7)]), [named("d/a", true)]);
        // Gone or renamed; emptied, or altered by copy; new.
        assert!(replaced(&[("d/old", 1), ("d/b", 2), ("d/c", 11), ("d/e", 12)]).is_empty());

        assert!(is_partition("d/p#P#x") && is_partition("d/p#p#x#sp#y") && !is_partition("d/p"));
        assert!(can_be_of("d/p#P#x", "p") && can_be_of("d/P", "p") && !can_be_of("d/p2", "p"));
        assert!(can_be_of("d/@00e4", "ä"));
    }

    #[test]
    fn definitions_are_alike_but_for_the_name() {
        let create = |table: &str| {
            nameless(
                format!(
                    "CREATE TABLE `{table}` (\n  `a` int,\n  CONSTRAINT `{table}_ibfk_1` FOREIGN KEY \
                     (`a`) REFERENCES `{table}` (`a`))"
                )
                .as_bytes(),
                table,
            )
        };
        assert_eq!(create("a"), create("b"));
        assert!(
            create("a").contains("`a` int"),
            "a column of that name stays"
        );
        assert!(is_partitioned("/*!50500 PARTITION BY RANGE  COLUMNS(`a`)"));
    }

    #[test]
    fn only_a_change_well_before_the_marks_is_told_from_a_later_one() {
        let marks = Marks {
            just_before: "2026-11-25 20:40:23".into(),
            names: Names::Statements(Vec::new()),
        };
        let is_after = |engine: &str, created: Option<&str>| {
            marks.is_after(&Listed {
                engine: engine.into(),
                created: created.map(Into::into),
                ..Listed::plain()
            })
        };
        assert!(is_after("InnoDB", Some("2026-11-25 20:40:22")));
        assert!(!is_after("InnoDB", Some("2026-11-25 20:40:23")));
        assert!(!is_after("InnoDB", None));
        assert!(!is_after("Aria", Some("2026-11-25 20:40:22")));
    }
}
