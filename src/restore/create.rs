//! Taking a `CREATE TABLE` statement apart, so that secondary indexes and foreign keys can be
//! built after the rows, where that is faster and gives the same table. Pure; works on the text
//! that the server stated, in which identifiers are quoted with backticks.

use std::collections::BTreeSet;

use crate::server::quote_identifier;

/// From this much SQL on, an index is built faster after the rows than along with them.
const DEFER_FROM: u64 = 4 << 20;

/// A table in up to three statements.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    /// Creates the table.
    pub(crate) create: String,
    /// Adds the secondary indexes, with the first one's name.
    pub(crate) keys: Option<Addition>,
    /// Adds the foreign keys, with the first one's name.
    pub(crate) foreign_keys: Option<Addition>,
}

/// An `ALTER TABLE` that adds things, all of them or none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Addition {
    pub(crate) statement: String,
    /// The name of the first thing added: if it is there, all of them are.
    pub(crate) first: String,
}

/// Decides how `table` is created. `rows_bytes` is the SQL text of its rows, `referenced` the
/// tables that foreign keys point to: their indexes must be there when those are created.
pub(crate) fn stage(
    table: &str,
    create: &str,
    rows_bytes: u64,
    referenced: &BTreeSet<String>,
) -> Staged {
    let whole = || Staged {
        create: create.to_owned(),
        keys: None,
        foreign_keys: None,
    };
    let Some(parts) = Parts::of(create) else {
        return whole();
    };
    if rows_bytes < DEFER_FROM || referenced.contains(table) || !parts.can_wait() {
        return whole();
    }
    let (mut kept, mut keys, mut foreign_keys) = (Vec::new(), Vec::new(), Vec::new());
    for item in &parts.items {
        if item.starts_with("KEY `") {
            keys.push(*item);
        } else if item.starts_with("CONSTRAINT ") && mentions(item, "FOREIGN KEY") {
            foreign_keys.push(*item);
        } else {
            kept.push(*item);
        }
    }
    if keys.is_empty() {
        return whole();
    }
    let addition = |items: &[&str]| {
        let first = items.first().and_then(|item| first_identifier(item))?;
        let list: Vec<_> = items.iter().map(|item| format!("ADD {item}")).collect();
        let statement = format!(
            "ALTER TABLE {} {}",
            quote_identifier(table),
            list.join(", ")
        );
        Some(Addition { statement, first })
    };
    Staged {
        create: format!("{}(\n  {}\n){}", parts.head, kept.join(",\n  "), parts.tail),
        keys: addition(&keys),
        foreign_keys: addition(&foreign_keys),
    }
}

/// The tables that the foreign keys of a `CREATE TABLE` point to.
pub(crate) fn references(create: &str) -> Vec<String> {
    let Some(parts) = Parts::of(create) else {
        return Vec::new();
    };
    let constraints = parts
        .items
        .iter()
        .filter(|item| item.starts_with("CONSTRAINT "));
    constraints
        .filter_map(|item| {
            let at = outside_quotes(item, " REFERENCES ")?;
            first_identifier(&item[at..])
        })
        .collect()
}

/// A `CREATE TABLE` statement: what stands before the list of columns and keys, its items, and
/// what stands behind it.
struct Parts<'a> {
    head: &'a str,
    items: Vec<&'a str>,
    tail: &'a str,
}

impl<'a> Parts<'a> {
    fn of(create: &'a str) -> Option<Parts<'a>> {
        let bytes = create.as_bytes();
        let (mut quote, mut depth) = (None, 0usize);
        let (mut open, mut item, mut items) = (0, 0, Vec::new());
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match quote {
                Some(q) if byte == b'\\' && q != b'`' => at += 1,
                Some(q) if byte == q => quote = None,
                Some(_) => {}
                None => match byte {
                    b'\'' | b'"' | b'`' => quote = Some(byte),
                    b'(' => {
                        depth += 1;
                        if depth == 1 {
                            (open, item) = (at, at + 1);
                        }
                    }
                    b',' if depth == 1 => {
                        items.push(create[item..at].trim());
                        item = at + 1;
                    }
                    b')' => {
                        depth = depth.checked_sub(1)?;
                        if depth == 0 {
                            items.push(create[item..at].trim());
                            return Some(Parts {
                                head: &create[..open],
                                items,
                                tail: &create[at + 1..],
                            });
                        }
                    }
                    _ => {}
                },
            }
            at += 1;
        }
        None
    }

    /// Whether indexes added later give the same table, and quickly: InnoDB builds them in one
    /// sorted pass. Kinds of index that the server keeps in another order, and tables that must
    /// not be altered (history), are left as they are.
    fn can_wait(&self) -> bool {
        let special = ["FULLTEXT ", "SPATIAL ", "VECTOR ", "PERIOD "];
        let plain = |item: &&str| !special.iter().any(|word| item.starts_with(word));
        outside_quotes(self.tail, "ENGINE=InnoDB").is_some()
            && outside_quotes(self.tail, "PARTITION BY").is_none()
            && outside_quotes(self.tail, "SYSTEM VERSIONING").is_none()
            && self.items.iter().all(plain)
            && self.counter_has_its_key()
    }

    /// An AUTO_INCREMENT column must lead a key; one that stays must do.
    fn counter_has_its_key(&self) -> bool {
        let counter = self
            .items
            .iter()
            .find(|item| item.starts_with('`') && mentions(item, " AUTO_INCREMENT"));
        let Some(column) = counter.and_then(|item| first_identifier(item)) else {
            return true;
        };
        let leads = format!("({}", quote_identifier(&column));
        self.items.iter().any(|item| {
            (item.starts_with("PRIMARY KEY") || item.starts_with("UNIQUE KEY"))
                && item
                    .find(" (")
                    .is_some_and(|at| item[at + 1..].starts_with(&leads))
        })
    }
}

fn mentions(text: &str, words: &str) -> bool {
    outside_quotes(text, words).is_some()
}

/// Where `words` stand outside quotes.
fn outside_quotes(text: &str, words: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut quote, mut at) = (None, 0);
    while at < bytes.len() {
        match quote {
            Some(q) if bytes[at] == b'\\' && q != b'`' => at += 1,
            Some(q) if bytes[at] == q => quote = None,
            Some(_) => {}
            None if bytes[at..].starts_with(words.as_bytes()) => return Some(at),
            None if matches!(bytes[at], b'\'' | b'"' | b'`') => quote = Some(bytes[at]),
            None => {}
        }
        at += 1;
    }
    None
}

/// The first identifier in backticks, unquoted.
fn first_identifier(text: &str) -> Option<String> {
    let mut name = String::new();
    let mut chars = text[text.find('`')? + 1..].chars().peekable();
    while let Some(c) = chars.next() {
        if c == '`' && chars.next_if_eq(&'`').is_none() {
            return Some(name);
        }
        name.push(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: &str = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'KEY `x`, (a),',\n  `a``b` varchar(9) DEFAULT 'x),y',\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`a``b`),\n  KEY `k``1` (`a``b`(3)),\n  KEY `k2` (`id`,`a``b`),\n  CONSTRAINT `f` FOREIGN KEY (`a``b`) REFERENCES `p,``q` (`x`),\n  CONSTRAINT `c` CHECK (`id` > 0)\n) ENGINE=InnoDB COMMENT='PARTITION BY'";

    fn stage_large(create: &str) -> Staged {
        stage("t", create, DEFER_FROM, &BTreeSet::new())
    }

    #[test]
    fn plain_keys_and_foreign_keys_wait_and_the_rest_stays_in_order() {
        let staged = stage_large(CREATE);
        assert_eq!(
            staged.create,
            "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'KEY `x`, (a),',\n  `a``b` varchar(9) DEFAULT 'x),y',\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`a``b`),\n  CONSTRAINT `c` CHECK (`id` > 0)\n) ENGINE=InnoDB COMMENT='PARTITION BY'"
        );
        let keys = staged.keys.unwrap();
        assert_eq!(keys.first, "k`1");
        assert_eq!(
            keys.statement,
            "ALTER TABLE `t` ADD KEY `k``1` (`a``b`(3)), ADD KEY `k2` (`id`,`a``b`)"
        );
        let foreign = staged.foreign_keys.unwrap();
        assert_eq!(foreign.first, "f");
        assert!(
            foreign
                .statement
                .starts_with("ALTER TABLE `t` ADD CONSTRAINT `f` FOREIGN KEY")
        );
        assert_eq!(references(CREATE), ["p,`q"]);
    }

    #[test]
    fn tables_that_must_not_be_altered_are_created_whole() {
        let whole = |create: &str| assert_eq!(stage_large(create).create, create);
        whole(&CREATE.replace("PRIMARY KEY (`id`),\n  ", ""));
        whole(&CREATE.replace("ENGINE=InnoDB", "ENGINE=Aria"));
        whole(&format!("{CREATE} PARTITION BY HASH (`id`)"));
        whole(&format!("{CREATE} WITH SYSTEM VERSIONING"));
        whole(&CREATE.replace("  KEY `k2`", "  FULLTEXT KEY `k2`"));
        whole("CREATE TABLE `t` (\n  `id` int(11)\n) ENGINE=InnoDB");
        whole("nonsense");
        let small = stage("t", CREATE, DEFER_FROM - 1, &BTreeSet::new());
        assert_eq!(small.create, CREATE);
        let parent = stage("t", CREATE, DEFER_FROM, &BTreeSet::from(["t".to_owned()]));
        assert_eq!(parent.create, CREATE);
    }
}
