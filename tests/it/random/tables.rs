//! Random tables: names, columns, keys, and the statements that fill them.

use fastrand::Rng;

use super::types::{InKey, Palette, Spec, Type, one_in, pick};

/// A table, and the statements that make and fill it.
pub(super) struct Table {
    pub(super) name: String,
    pub(super) statements: Vec<String>,
}

struct Column {
    name: String,
    spec: Spec,
    not_null: bool,
    auto_increment: bool,
    /// The expression of a generated column, and whether it is stored.
    generated: Option<(String, bool)>,
}

/// Beginnings of names; a number follows that keeps them apart, whatever their case.
const NAMES: [&str; 20] = [
    "c",
    "C",
    "Total",
    "order",
    "select ",
    "a`b",
    "it's ",
    "say \"x\" ",
    "a.b.",
    "two  words ",
    "päth/",
    "%s",
    "back\\",
    "#",
    "-- ",
    "a*b?",
    "[x]",
    "日本",
    "$",
    "NULL",
];

/// Rows of one INSERT.
const BATCH: usize = 80;

/// The most rows that are put into a table; keys may leave fewer.
const ROWS: usize = 400;

/// The table of this number.
pub(super) fn table(rng: &mut Rng, number: usize, palette: &Palette) -> Table {
    let name = format!("{}{number}", pick(rng, &NAMES));
    let engine = match rng.u32(..20) {
        0 | 1 => "MyISAM",
        2 if palette.mariadb => "Aria",
        _ => "InnoDB",
    };
    let mut columns: Vec<_> = (0..rng.usize(1..=9))
        .map(|n| column(rng, n, palette))
        .collect();
    let mut keys = keys(rng, &mut columns, engine == "InnoDB");
    for n in 0..rng.usize(..3) {
        let at = columns.len();
        let generated = generated(rng, at, &columns[..at - n], engine == "InnoDB");
        if generated.spec.key == InKey::Whole && one_in(rng, 3) {
            keys.push(format!("KEY g{n} ({})", quote(&generated.name)));
        }
        columns.push(generated);
    }
    // Not all: one column must be seen.
    let mut parts: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| column.sql(rng, at > 0))
        .collect();
    parts.extend(keys);
    let comment = if one_in(rng, 5) {
        " COMMENT 'it''s \\\\ \"a\" `b` %s ö'"
    } else {
        ""
    };
    let create = format!(
        "CREATE TABLE {} (\n  {}\n) ENGINE={engine}{comment}",
        quote(&name),
        parts.join(",\n  ")
    );
    let mut statements = vec![create];

    columns.retain(|column| column.generated.is_none());
    let rows = if one_in(rng, 12) {
        0
    } else {
        rng.usize(1..=ROWS)
    };
    let names: Vec<_> = columns.iter().map(|column| quote(&column.name)).collect();
    let rows: Vec<_> = (0..rows).map(|_| row(rng, &columns)).collect();
    for batch in rows.chunks(BATCH) {
        statements.push(format!(
            "INSERT IGNORE INTO {} ({}) VALUES\n{}",
            quote(&name),
            names.join(", "),
            batch.join(",\n")
        ));
    }
    Table { name, statements }
}

fn column(rng: &mut Rng, number: usize, palette: &Palette) -> Column {
    let spec = palette.spec(rng);
    // What has no lenient default is nullable.
    let can = !matches!(spec.ty, Type::Json | Type::Geometry | Type::Vector(_));
    Column {
        name: format!("{}{number}", pick(rng, &NAMES)),
        not_null: can && one_in(rng, 3),
        auto_increment: false,
        generated: None,
        spec,
    }
}

fn row(rng: &mut Rng, columns: &[Column]) -> String {
    let value = |rng: &mut Rng, column: &Column| {
        if column.auto_increment {
            // The highest value would leave no next one.
            return (*pick(rng, &["NULL", "NULL", "NULL", "7", "100"])).to_owned();
        }
        if !column.not_null && one_in(rng, 8) {
            return "NULL".to_owned();
        }
        column.spec.ty.value(rng)
    };
    let values: Vec<_> = columns.iter().map(|column| value(rng, column)).collect();
    format!("({})", values.join(", "))
}

/// Keys over the columns, or none. The primary key's columns become NOT NULL, and one integer
/// may count by itself.
fn keys(rng: &mut Rng, columns: &mut [Column], innodb: bool) -> Vec<String> {
    let mut keys = Vec::new();
    let able: Vec<usize> = (0..columns.len())
        .filter(|&at| columns[at].spec.key != InKey::Never)
        .collect();
    if able.is_empty() {
        return keys;
    }
    for number in 0..rng.usize(..4) {
        let mut parts = able.clone();
        rng.shuffle(&mut parts);
        parts.truncate(*pick(rng, &[1, 1, 1, 2, 3]));
        let primary = number == 0 && !one_in(rng, 3);
        if primary {
            parts.iter().for_each(|&at| columns[at].not_null = true);
            let first = &mut columns[parts[0]];
            // MyISAM's counters within a group begin again.
            first.auto_increment =
                matches!(first.spec.ty, Type::Integer { bits: 16.., .. }) && one_in(rng, 2);
        }
        let list: Vec<_> = parts
            .iter()
            .map(|&at| columns[at].in_key(rng, innodb))
            .collect();
        let list = list.join(", ");
        keys.push(match rng.u32(..2) {
            _ if primary => format!("PRIMARY KEY ({list})"),
            0 => format!(
                "UNIQUE KEY {} ({list})",
                quote(&format!("{}{number}", pick(rng, &NAMES)))
            ),
            _ => format!(
                "KEY {} ({list})",
                quote(&format!("{}{number}", pick(rng, &NAMES)))
            ),
        });
    }
    keys
}

/// A column computed from one of the others.
fn generated(rng: &mut Rng, number: usize, from: &[Column], innodb: bool) -> Column {
    let source = pick(rng, from);
    let name = quote(&source.name);
    // Whether a CHAR keeps its spaces depends on the session, which a stored value must not.
    let fixed = source.spec.sql.starts_with("CHAR");
    let stored = rng.bool() && !fixed;
    let varying = source.spec.sql.starts_with("VAR");
    let (sql, expression, ty) = match &source.spec.ty {
        // Nothing may be computed from a column that counts, or in MySQL from a vector.
        _ if source.auto_increment || matches!(source.spec.ty, Type::Vector(_)) => {
            ("INT".to_owned(), "(1 + 1)".to_owned(), Type::Year)
        }
        Type::Integer { .. } => ("BIGINT".to_owned(), format!("({name} % 7)"), Type::Year),
        Type::Text { .. } if varying => {
            let (_, charset) = source.spec.sql.split_once(" CHARACTER SET ").unwrap();
            let sql = format!("VARCHAR(5) CHARACTER SET {charset}");
            (sql, format!("left({name}, 5)"), Type::Year)
        }
        Type::Bytes { .. } if varying => (
            "VARCHAR(20)".to_owned(),
            format!("left(hex({name}), 20)"),
            Type::Year,
        ),
        _ => (
            "TINYINT".to_owned(),
            format!("({name} IS NULL)"),
            Type::Year,
        ),
    };
    let key = if stored || innodb && !fixed {
        InKey::Whole
    } else {
        InKey::Never
    };
    Column {
        name: format!("g{number}"),
        spec: Spec { sql, ty, key },
        not_null: false,
        auto_increment: false,
        generated: Some((expression, stored)),
    }
}

impl Column {
    fn sql(&self, rng: &mut Rng, may_hide: bool) -> String {
        let mut sql = format!("{} {}", quote(&self.name), self.spec.sql);
        if let Some((expression, stored)) = &self.generated {
            let kind = if *stored { "STORED" } else { "VIRTUAL" };
            sql.push_str(&format!(" GENERATED ALWAYS AS ({expression}) {kind}"));
        } else if self.not_null {
            sql.push_str(" NOT NULL");
        } else {
            sql.push_str(" NULL");
        }
        if self.auto_increment {
            sql.push_str(" AUTO_INCREMENT");
        }
        if may_hide && !self.not_null && one_in(rng, 8) {
            sql.push_str(" INVISIBLE");
        }
        if one_in(rng, 8) {
            sql.push_str(" COMMENT 'it''s \\\\ \"a\" `b` %s ö'");
        }
        sql
    }

    fn in_key(&self, rng: &mut Rng, descending: bool) -> String {
        let order = if descending && one_in(rng, 6) {
            " DESC"
        } else {
            ""
        };
        let prefix = match self.spec.key {
            InKey::Prefix(length) => format!("({length})"),
            _ => String::new(),
        };
        format!("{}{prefix}{order}", quote(&self.name))
    }
}

/// An identifier in SQL.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
