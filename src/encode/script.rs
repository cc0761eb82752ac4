//! What stands in a file around its statements, so that the stock client loads it whatever
//! the session looks like, and finds its session afterwards as it was.

use crate::server::catalog::{Column, Table};
use crate::server::definitions::Definition;
use crate::server::flavor::Flavor;
use crate::server::{quote_identifier, quote_string};
use crate::store::manifest::{DatabaseEntry, TableKind};

/// Session variables that a file sets and puts back.
const SAVED: [&str; 8] = [
    "character_set_client",
    "character_set_results",
    "collation_connection",
    "time_zone",
    "sql_mode",
    "foreign_key_checks",
    "unique_checks",
    "autocommit",
];

/// Variables that let the server take back what it once accepted: old row formats, rows
/// older than their CHECK. On MySQL the first needs a privilege that a loader may lack.
const MARIADB_ONLY: [&str; 2] = ["innodb_strict_mode", "check_constraint_checks"];

/// What every file begins and ends with.
#[derive(Debug, Clone)]
pub struct Frame {
    header: String,
    footer: String,
}

/// What a file of rows with their history needs besides.
const HISTORY: [(&str, &str); 2] = [
    ("system_versioning_insert_history", "1"),
    ("system_versioning_alter_history", "KEEP"),
];

/// Character sets in which a backslash or a quote can be the tail of a character, so that the
/// stock client must know that the text is in one of them.
const SWALLOWING: [&str; 5] = ["big5", "cp932", "gb18030", "gbk", "sjis"];

impl Frame {
    /// For files of this server's dialect.
    pub fn new(flavor: &Flavor) -> Frame {
        let extra: &[&str] = if flavor.is_mariadb() {
            &MARIADB_ONLY
        } else {
            &[]
        };
        let all = || SAVED.iter().chain(extra);
        let save: Vec<_> = all().map(|name| format!("@sb_{name}=@@{name}")).collect();
        let restore: Vec<_> = all().map(|name| format!("{name}=@sb_{name}")).collect();
        let mut set = "time_zone='+00:00', sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', foreign_key_checks=0, unique_checks=0, autocommit=1"
            .to_owned();
        for name in extra {
            set.push_str(&format!(", {name}=0"));
        }
        Frame {
            header: format!("SET {};\nSET NAMES utf8mb4;\nSET {set};\n", save.join(", ")),
            footer: format!("SET {};\n", restore.join(", ")),
        }
    }

    /// The head of a file that holds `what` of the server `flavor`.
    pub fn header(&self, what: &str) -> Vec<u8> {
        // The comment names things: a line break in a name must not end it.
        let what = what.replace(['\n', '\r'], " ");
        format!("-- schema_backup: {what}\n{}", self.header).into_bytes()
    }

    /// The end of a file.
    pub fn footer(&self) -> &[u8] {
        self.footer.as_bytes()
    }

    /// The head of a file of rows; `versioned` ones come with their history.
    pub fn rows_header(&self, what: &str, versioned: bool) -> Vec<u8> {
        let mut header = self.header(what);
        if versioned {
            let save = HISTORY
                .map(|(name, _)| format!("@sb_{name}=@@{name}"))
                .join(", ");
            let set = HISTORY
                .map(|(name, value)| format!("{name}={value}"))
                .join(", ");
            header.extend_from_slice(format!("SET {save};\nSET {set};\n").as_bytes());
        }
        header
    }

    /// The end of a file of rows.
    pub fn rows_footer(&self, versioned: bool) -> Vec<u8> {
        let mut footer = Vec::new();
        if versioned {
            let restore = HISTORY
                .map(|(name, _)| format!("{name}=@sb_{name}"))
                .join(", ");
            footer.extend_from_slice(format!("SET {restore};\n").as_bytes());
        }
        footer.extend_from_slice(self.footer());
        footer
    }

    /// A file with one or more statements.
    pub fn file(&self, what: &str, statements: &[Vec<u8>]) -> Vec<u8> {
        let mut file = self.header(what);
        for statement in statements {
            file.extend_from_slice(statement);
        }
        file.extend_from_slice(self.footer());
        file
    }
}

/// A table or sequence, without what belongs to its rows: the server's statement, with what it
/// leaves out, and between settings that some tables need.
pub fn table(create: &[u8], table: &Table) -> Vec<u8> {
    if table.kind == TableKind::Sequence {
        return simple(create);
    }
    let mut statement = simple(&with_reference_systems(
        &without_auto_increment(create),
        table,
    ));
    if table.lax_foreign_keys {
        let name = "restrict_fk_on_non_standard_key";
        let allow = format!("SET @sb_{name}=@@{name}, {name}=0;\n").into_bytes();
        let restore = format!("SET {name}=@sb_{name};\n").into_bytes();
        statement = [&allow[..], &statement, &restore].concat();
    }
    if table.columns.iter().any(has_bare_timestamp) {
        statement = [&set_if_off(1), &statement[..], &set_if_off(0)].concat();
    }
    statement
}

/// Whether a server with `explicit_defaults_for_timestamp=0` could give the column a default
/// that it does not have.
fn has_bare_timestamp(column: &Column) -> bool {
    column.bare_timestamp && column.period.is_none()
}

/// Switches `explicit_defaults_for_timestamp` on, and off again, on a server where it is off:
/// on MySQL that takes a privilege which loaders on all other servers can do without.
fn set_if_off(value: u8) -> Vec<u8> {
    let name = "explicit_defaults_for_timestamp";
    let remember = if value == 1 {
        format!("SET @sb_{name}=@@{name};\n")
    } else {
        String::new()
    };
    format!(
        "{remember}SET @sb_set=IF(@sb_{name},'DO 0','SET {name}={value}');\n\
         PREPARE sb FROM @sb_set;\nEXECUTE sb;\nDEALLOCATE PREPARE sb;\n"
    )
    .into_bytes()
}

/// MariaDB keeps the reference system of a column of geometries, but does not state it.
fn with_reference_systems(create: &[u8], table: &Table) -> Vec<u8> {
    let mut create = create.to_vec();
    for column in table.columns.iter().filter(|column| column.srid != 0) {
        let begin = format!(
            "\n  {} {}",
            quote_identifier(&column.name),
            column.data_type
        );
        if let Some(at) = memchr::memmem::find(&create, begin.as_bytes()) {
            let option = format!(" REF_SYSTEM_ID={}", column.srid);
            let end = at + begin.len();
            create.splice(end..end, option.into_bytes());
        }
    }
    create
}

/// A statement that ends in `;`.
pub fn simple(text: &[u8]) -> Vec<u8> {
    [text, b";\n"].concat()
}

/// A statement whose text may hold semicolons and was written under other session settings.
/// An object remembers the default collation of its database, so that is set for it too.
pub fn compound(definition: &Definition, database: &DatabaseEntry) -> Vec<u8> {
    let own = &database.collation;
    let other = definition.database_collation.as_ref();
    let other = other.filter(|collation| *collation != own);
    let mut before = settings(definition);
    let mut after = String::new();
    if let Some(collation) = other {
        before.push_str(&default_collation(collation));
        after = default_collation(own);
    }
    let delimiter = delimiter_for(&definition.text);
    if definition.created.is_some() {
        after.push_str("SET timestamp=DEFAULT;\n");
    }
    let mut create = format!("DELIMITER {delimiter}\n").into_bytes();
    create.extend_from_slice(&definition.text);
    create.extend_from_slice(format!("\n{delimiter}\nDELIMITER ;\n").as_bytes());
    in_its_charset(definition, &before, &create, &after)
}

fn default_collation(collation: &str) -> String {
    let charset = collation.split('_').next().unwrap_or(collation);
    format!("ALTER DATABASE CHARACTER SET {charset} COLLATE {collation};\n")
}

/// Statements with the text of an object among them, told to the client where it matters.
fn in_its_charset(definition: &Definition, before: &str, create: &[u8], after: &str) -> Vec<u8> {
    let charset = definition.charset_client.as_deref().unwrap_or_default();
    let told = SWALLOWING.contains(&charset) && !definition.text.is_ascii();
    let (mut out, mut end) = (Vec::new(), String::new());
    if told {
        // The client passes this on as SET NAMES, so what the object needs follows it.
        out.extend_from_slice(format!("\\C {charset}\n").as_bytes());
        end = "\\C utf8mb4\n".to_owned();
    }
    for part in [before.as_bytes(), create, end.as_bytes(), after.as_bytes()] {
        out.extend_from_slice(part);
    }
    out
}

/// A view, after placeholders for the views it may need that do not exist yet, so that the
/// files of views can be loaded in any order.
pub fn view(
    definition: &Definition,
    placeholders: &[(&str, &[String])],
    flavor: &Flavor,
) -> Vec<u8> {
    let mut out = String::new();
    if flavor.is_mariadb() || flavor.version >= (9, 1, 0) {
        for (name, columns) in placeholders {
            let columns: Vec<_> = columns
                .iter()
                .map(|c| format!("NULL AS {}", quote_identifier(c)))
                .collect();
            out.push_str(&format!(
                "CREATE VIEW IF NOT EXISTS {} AS SELECT {};\n",
                quote_identifier(name),
                columns.join(",")
            ));
        }
    }
    // The server states `CREATE ALGORITHM=… VIEW`; a placeholder may be there already.
    let text = definition
        .text
        .strip_prefix(b"CREATE ")
        .unwrap_or(&definition.text);
    let create = [b"CREATE OR REPLACE ", text, b";\n"].concat();
    let mut out = out.into_bytes();
    out.extend(in_its_charset(
        definition,
        &settings(definition),
        &create,
        "",
    ));
    out
}

fn settings(definition: &Definition) -> String {
    let mut sets = Vec::new();
    if let Some(charset) = &definition.charset_client {
        sets.push(format!("character_set_client={}", quote_string(charset)));
    }
    if let Some(collation) = &definition.collation_connection {
        sets.push(format!("collation_connection={}", quote_string(collation)));
    }
    if let Some(mode) = &definition.sql_mode {
        sets.push(format!("sql_mode={}", quote_string(mode)));
    }
    if let Some(zone) = &definition.time_zone {
        sets.push(format!("time_zone={}", quote_string(zone)));
    }
    if let Some(created) = definition.created {
        sets.push(format!("timestamp={created}"));
    }
    if sets.is_empty() {
        String::new()
    } else {
        format!("SET {};\n", sets.join(", "))
    }
}

/// A delimiter that the text does not contain.
fn delimiter_for(text: &[u8]) -> String {
    let contains = |delimiter: &str| memchr::memmem::find(text, delimiter.as_bytes()).is_some();
    let usual = [";;", "$$", "//"].into_iter().map(str::to_owned);
    let more = (1u64..).map(|n| format!("$${n}$$"));
    usual
        .chain(more)
        .find(|d| !contains(d))
        .unwrap_or_else(|| ";;".into())
}

/// Takes the AUTO_INCREMENT counter out of a `CREATE TABLE` statement: a table option, so it
/// stands behind the closing parenthesis of the column list and outside quotes.
pub fn without_auto_increment(create: &[u8]) -> Vec<u8> {
    let option = b" AUTO_INCREMENT=";
    let (mut quote, mut depth, mut options) = (None, 0u32, false);
    let mut at = 0;
    while at < create.len() {
        let byte = create[at];
        match quote {
            Some(open) => {
                if byte == b'\\' && open != b'`' {
                    at += 1;
                } else if byte == open {
                    quote = None;
                }
            }
            None => match byte {
                b'\'' | b'"' | b'`' => quote = Some(byte),
                b'(' => depth += 1,
                b')' => {
                    depth = depth.saturating_sub(1);
                    options |= depth == 0;
                }
                b' ' if options && depth == 0 && create[at..].starts_with(option) => {
                    let digits = create[at + option.len()..]
                        .iter()
                        .take_while(|b| b.is_ascii_digit())
                        .count();
                    return [&create[..at], &create[at + option.len() + digits..]].concat();
                }
                _ => {}
            },
        }
        at += 1;
    }
    create.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_option_is_taken_out() {
        let create = b"CREATE TABLE `a AUTO_INCREMENT=1` (\n  `id` int NOT NULL AUTO_INCREMENT COMMENT ') AUTO_INCREMENT=9',\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB AUTO_INCREMENT=42 DEFAULT CHARSET=utf8mb4 COMMENT='it''s AUTO_INCREMENT=7'";
        let text = String::from_utf8(without_auto_increment(create)).unwrap();
        assert!(text.contains("ENGINE=InnoDB DEFAULT CHARSET"));
        assert_eq!(text.matches("AUTO_INCREMENT=").count(), 3);
        let create =
            b"CREATE TABLE `t` (\n  `c` text COMMENT 'a\\') AUTO_INCREMENT=3'\n) ENGINE=InnoDB";
        assert_eq!(without_auto_increment(create), create);
    }

    #[test]
    fn a_delimiter_is_never_in_the_text() {
        assert_eq!(delimiter_for(b"BEGIN SELECT 1; END"), ";;");
        assert_eq!(delimiter_for(b";; $$ //"), "$$1$$");
    }

    #[test]
    fn a_name_cannot_end_the_comment() {
        let flavor = Flavor {
            product: crate::server::flavor::Product::MariaDb,
            version: (10, 11, 0),
        };
        let header =
            String::from_utf8(Frame::new(&flavor).header("table `a\nDROP TABLE b`")).unwrap();
        assert!(header.starts_with("-- schema_backup: table `a DROP TABLE b`\nSET "));
    }
}
