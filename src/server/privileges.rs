//! What the connected user may do, read from `SHOW GRANTS`, so that what a missing privilege
//! would hide is refused instead of silently absent.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::connect::query_error;
use super::driver::Ask;
use super::flavor::{Flavor, Product};
use crate::config::ObjectKind;
use crate::error::{Error, ErrorKind, Result};

/// The privileges of the session, roles included, as far as one database is concerned.
#[derive(Debug, Default, Clone)]
pub struct Privileges {
    user: String,
    database: String,
    global: BTreeSet<String>,
    /// For each grantee (the user and its roles) the grants on databases that match.
    grants: BTreeMap<String, Vec<Grant>>,
    on_database: BTreeSet<String>,
    reads_mysql_proc: bool,
}

/// A grant on a database name or pattern.
#[derive(Debug, Clone)]
struct Grant {
    pattern: String,
    privileges: Vec<String>,
}

impl Privileges {
    /// Reads the grants of the session.
    pub fn read(conn: &mut Conn, database: &str) -> Result<Privileges> {
        let failed = |e| query_error("cannot read the user's privileges", e);
        let user: Option<String> = conn.query_first("SELECT CURRENT_USER()").map_err(failed)?;
        let grants: Vec<String> = conn.query("SHOW GRANTS").map_err(failed)?;
        let mut privileges = Privileges {
            user: user.unwrap_or_default(),
            database: database.to_owned(),
            ..Privileges::default()
        };
        for grant in &grants {
            privileges.add(grant);
        }
        privileges.choose_grants();
        Ok(privileges)
    }

    /// Of several grants whose patterns match the database, the server applies only the most
    /// specific one. Of those that are equally specific only what all of them grant is relied on.
    fn choose_grants(&mut self) {
        for grants in self.grants.values() {
            let best = grants
                .iter()
                .map(|grant| literal_prefix(&grant.pattern))
                .max();
            let applied: Vec<&Grant> = grants
                .iter()
                .filter(|grant| Some(literal_prefix(&grant.pattern)) == best)
                .collect();
            let granted = |privilege: &str| applied.iter().all(|g| has(&g.privileges, privilege));
            for privilege in applied.iter().flat_map(|grant| &grant.privileges) {
                if granted(privilege) {
                    self.on_database.insert(privilege.clone());
                }
            }
        }
    }

    /// Takes in one line of `SHOW GRANTS`; what it does not understand grants nothing.
    fn add(&mut self, grant: &str) {
        let Some(rest) = grant.strip_prefix("GRANT ") else {
            return;
        };
        let Some((list, rest)) = split_outside_quotes(rest, " ON ") else {
            return;
        };
        let Some((object, grantee)) = split_outside_quotes(rest, " TO ") else {
            return;
        };
        // Behind the name may stand how it authenticates and WITH GRANT OPTION.
        let grantee = grantee.split(' ').next().unwrap_or(grantee);
        let names = list.split(',').map(|p| p.trim().to_ascii_uppercase());
        // A list with column lists in it is a column grant: not enough for any of our needs.
        let names: Vec<String> = names.filter(|p| !p.contains(['(', ')'])).collect();
        let Some((schema, table)) = split_outside_quotes(object.trim(), ".") else {
            return;
        };
        let (schema, table) = (unquote(schema), unquote(table));
        match (schema.as_str(), table.as_str()) {
            ("*", "*") => self.global.extend(names),
            (pattern, "*") => {
                if like(pattern, "mysql") && has(&names, "SELECT") {
                    self.reads_mysql_proc = true;
                }
                if like(pattern, &self.database) {
                    let (pattern, privileges) = (pattern.to_owned(), names);
                    let grants = self.grants.entry(grantee.to_owned()).or_default();
                    grants.push(Grant {
                        pattern,
                        privileges,
                    });
                }
            }
            ("mysql", "proc") => self.reads_mysql_proc |= has(&names, "SELECT"),
            _ => {}
        }
    }

    /// Whether the privilege is held globally. Dynamic privileges (MySQL) count by name.
    pub fn globally(&self, privilege: &str) -> bool {
        // ALL includes everything but dynamic privileges, which MySQL lists beside it.
        let dynamic = privilege.contains('_');
        self.global.contains(privilege) || (!dynamic && self.global.contains("ALL PRIVILEGES"))
    }

    /// Whether the privilege is held globally or on the database.
    pub fn on_database(&self, privilege: &str) -> bool {
        self.globally(privilege)
            || self.on_database.contains(privilege)
            || self.on_database.contains("ALL PRIVILEGES")
    }

    /// The name the server knows the user by.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Refuses to go on where a missing privilege would hide tables or rows.
    pub fn require_reading(&self) -> Result<()> {
        if self.on_database("SELECT") {
            return Ok(());
        }
        Err(self.missing("SELECT", "tables", None))
    }

    /// Refuses to go on where a missing privilege would hide objects of `kind`, or their text.
    pub fn require_objects(&self, kind: ObjectKind, flavor: &Flavor) -> Result<()> {
        let (held, privilege) = match kind {
            ObjectKind::Views => (self.on_database("SHOW VIEW"), "SHOW VIEW"),
            ObjectKind::Triggers => (self.on_database("TRIGGER"), "TRIGGER"),
            ObjectKind::Events => (self.on_database("EVENT"), "EVENT"),
            ObjectKind::Routines => match flavor.product {
                Product::MariaDb if flavor.version >= (11, 3, 0) => (
                    self.on_database("SHOW CREATE ROUTINE")
                        || self.globally("SELECT")
                        || self.reads_mysql_proc,
                    "SHOW CREATE ROUTINE",
                ),
                Product::MariaDb => (
                    self.globally("SELECT") || self.reads_mysql_proc,
                    "SELECT on mysql.proc",
                ),
                Product::MySql => (
                    self.globally("SHOW_ROUTINE") || self.globally("SELECT"),
                    "SHOW_ROUTINE",
                ),
            },
        };
        if held {
            Ok(())
        } else {
            Err(self.missing(privilege, &kind.to_string(), Some(kind)))
        }
    }

    fn missing(&self, privilege: &str, hidden: &str, kind: Option<ObjectKind>) -> Error {
        let database = super::quote_identifier(&self.database);
        let grant = match privilege {
            "SELECT on mysql.proc" => "GRANT SELECT ON mysql.proc".to_owned(),
            "SHOW_ROUTINE" => "GRANT SHOW_ROUTINE ON *.*".to_owned(),
            _ => format!("GRANT {privilege} ON {database}.*"),
        };
        let instead = kind.map_or(String::new(), |kind| {
            format!(", or leave {kind} out with --skip {kind}")
        });
        Error::new(
            ErrorKind::Connect,
            format!(
                "{} lacks the privilege {privilege}, without which {hidden} are hidden",
                self.user
            ),
        )
        .hint(format!("{grant} TO the backup user{instead}"))
    }
}

fn has(names: &[String], privilege: &str) -> bool {
    names
        .iter()
        .any(|name| name == privilege || name == "ALL PRIVILEGES")
}

/// Splits at the first `separator` that stands outside backticks and parentheses.
fn split_outside_quotes<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let (mut quoted, mut depth) = (false, 0u32);
    for (at, c) in text.char_indices() {
        match c {
            '`' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !quoted && depth == 0 && text[at..].starts_with(separator) {
            return Some((&text[..at], &text[at + separator.len()..]));
        }
    }
    None
}

fn unquote(name: &str) -> String {
    match name.strip_prefix('`').and_then(|n| n.strip_suffix('`')) {
        Some(inner) => inner.replace("``", "`"),
        None => name.to_owned(),
    }
}

/// How specific a pattern is: the length of what stands before its first wildcard.
fn literal_prefix(pattern: &str) -> usize {
    let mut escaped = false;
    for (at, c) in pattern.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '%' | '_' if !escaped => return at,
            _ => escaped = false,
        }
    }
    usize::MAX
}

/// SQL `LIKE` as grants on databases use it: `%`, `_`, and `\` before a literal one.
fn like(pattern: &str, text: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    match pattern_rest.next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = pattern_rest.as_str();
            text.char_indices().any(|(at, _)| like(rest, &text[at..])) || like(rest, "")
        }
        Some(first) => {
            let wanted = if first == '\\' {
                pattern_rest.next().unwrap_or('\\')
            } else {
                first
            };
            let mut text_rest = text.chars();
            match text_rest.next() {
                Some(c) if (first == '_') || c == wanted => {
                    like(pattern_rest.as_str(), text_rest.as_str())
                }
                _ => false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privileges(grants: &[&str]) -> Privileges {
        let mut privileges = Privileges {
            database: "csv2_prod".into(),
            ..Privileges::default()
        };
        for grant in grants {
            privileges.add(grant);
        }
        privileges.choose_grants();
        privileges
    }

    #[test]
    fn of_several_matching_patterns_only_the_most_specific_counts() {
        let p = privileges(&[
            "GRANT SELECT, TRIGGER, EVENT ON `csv2%`.* TO `b`@`localhost`",
            "GRANT SELECT ON `csv2\\_prod`.* TO `b`@`localhost`",
            "GRANT SHOW VIEW ON `csv2\\_prod`.* TO `role`",
        ]);
        assert!(p.on_database("SELECT") && p.on_database("SHOW VIEW"));
        assert!(!p.on_database("TRIGGER") && !p.on_database("EVENT"));
        // An unescaped underscore is a wildcard too: these two are equally specific.
        let p = privileges(&[
            "GRANT SELECT ON `csv2_prod`.* TO `b`@`localhost`",
            "GRANT SELECT, TRIGGER, EVENT ON `csv2%`.* TO `b`@`localhost`",
        ]);
        assert!(p.on_database("SELECT"));
        assert!(!p.on_database("TRIGGER") && !p.on_database("EVENT"));
    }

    #[test]
    fn grants_count_where_they_apply() {
        let p = privileges(&[
            "GRANT RELOAD, PROCESS ON *.* TO `b`@`localhost` IDENTIFIED BY PASSWORD '*X'",
            "GRANT SELECT, SHOW VIEW, LOCK TABLES ON `csv2\\_prod`.* TO `b`@`localhost`",
            "GRANT TRIGGER ON `other`.* TO `b`@`localhost`",
            "GRANT SELECT (a, b), EVENT ON `csv2_prod`.`t` TO `b`@`localhost`",
            "GRANT SELECT ON `mysql`.`proc` TO `b`@`localhost`",
            "GRANT `role ON x` TO `b`@`localhost`",
        ]);
        assert!(p.globally("RELOAD") && !p.globally("SELECT"));
        assert!(p.on_database("SELECT") && p.on_database("LOCK TABLES"));
        assert!(!p.on_database("TRIGGER") && !p.on_database("EVENT"));
        assert!(p.reads_mysql_proc);
        assert!(p.require_reading().is_ok());
    }

    #[test]
    fn all_privileges_mean_all_but_dynamic_ones() {
        let p =
            privileges(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(p.on_database("TRIGGER") && p.globally("RELOAD"));
        assert!(!p.globally("BACKUP_ADMIN"));
    }

    #[test]
    fn database_patterns_match_as_the_server_does() {
        assert!(like("csv2%", "csv2_prod") && like("csv2_prod", "csv2Xprod") && like("%", ""));
        assert!(!like("csv2\\_prod", "csv2Xprod") && like("csv2\\_prod", "csv2_prod"));
        assert!(!like("csv", "csv2") && !like("csv2_", "csv2"));
    }
}
