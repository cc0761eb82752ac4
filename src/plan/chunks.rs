//! How a table is read: by which key, in which order, in which key ranges. Ranges are
//! half-open over a whole tuple of columns, the first and the last open-ended, so that
//! wherever the bounds lie every row falls into exactly one of them. Bounds are SQL literals
//! taken from the data; only the server ever compares them.

use crate::server::catalog::{Column, Table};
use crate::server::{quote_identifier, quote_list};

/// The key that orders and splits a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkKey {
    /// Name of the index.
    pub index: String,
    /// All columns of the index, which order the rows.
    pub order: Vec<String>,
    /// The leading columns whose literals are safe to compare; empty if the first is not.
    pub split: Vec<String>,
    /// Whether the one split column may be NULL, whose rows are then a chunk of their own.
    pub nullable: bool,
}

/// Which rows of a table a chunk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// The whole table.
    All,
    /// Rows whose key is NULL.
    Null,
    /// Rows from one bound (inclusive) to another (exclusive); `None` is open-ended.
    Between(Option<Vec<String>>, Option<Vec<String>>),
}

impl ChunkKey {
    /// The key to read `table` by: the primary key, else the unique NOT NULL key of fewest
    /// columns, else a nullable unique one. `None` for a table without a unique key.
    pub fn choose(table: &Table) -> Option<ChunkKey> {
        let nullable = |column: &String| table.column(column).is_none_or(|c| c.nullable);
        let not_null = table
            .keys
            .iter()
            .filter(|key| !key.columns.iter().any(nullable));
        let best = not_null.min_by_key(|key| (key.name != "PRIMARY", key.columns.len()));
        if let Some(key) = best {
            let split = key
                .columns
                .iter()
                .take_while(|name| table.column(name).is_some_and(is_splittable));
            return Some(ChunkKey {
                index: key.name.clone(),
                order: key.columns.clone(),
                split: split.cloned().collect(),
                nullable: false,
            });
        }
        let splittable = |name: &String| table.column(name).is_some_and(is_splittable);
        let key = table
            .keys
            .iter()
            .filter(|key| splittable(&key.columns[0]))
            .min_by_key(|key| key.columns.len())?;
        Some(ChunkKey {
            index: key.name.clone(),
            order: key.columns.clone(),
            split: key.columns[..1].to_vec(),
            nullable: nullable(&key.columns[0]),
        })
    }

    /// The `ORDER BY` list.
    pub fn order_by(&self) -> String {
        quote_list(self.order.iter().map(String::as_str))
    }

    /// The condition for `range`, with a leading ` WHERE `; empty for a whole table.
    pub fn where_clause(&self, range: &Range) -> String {
        let conditions: Vec<String> = match range {
            Range::All => Vec::new(),
            Range::Null => vec![format!("{} IS NULL", quote_identifier(&self.split[0]))],
            Range::Between(from, to) => {
                let from = from.as_ref().map(|bound| self.at_least(bound));
                let to = to.as_ref().map(|bound| self.below(bound));
                let mut conditions: Vec<_> = from.into_iter().chain(to).collect();
                if self.nullable && conditions.is_empty() {
                    conditions.push(format!("{} IS NOT NULL", quote_identifier(&self.split[0])));
                }
                conditions
            }
        };
        if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        }
    }

    /// `(a,b,c) >= bound`, nested so that an index on (a,b,c) serves it.
    fn at_least(&self, bound: &[String]) -> String {
        compare(&self.split, bound, '>', ">=")
    }

    /// `(a,b,c) > bound`.
    pub fn above(&self, bound: &[String]) -> String {
        compare(&self.split, bound, '>', ">")
    }

    fn below(&self, bound: &[String]) -> String {
        compare(&self.split, bound, '<', "<")
    }
}

/// `(a op= x AND (a op x OR (b op= y AND (b op y OR c last z))))`.
fn compare(columns: &[String], bound: &[String], op: char, last: &str) -> String {
    match (columns, bound) {
        ([column], [value, ..]) => format!("{}{last}{value}", quote_identifier(column)),
        ([column, columns @ ..], [value, bound @ ..]) => {
            let column = quote_identifier(column);
            let rest = compare(columns, bound, op, last);
            format!("({column}{op}={value} AND ({column}{op}{value} OR {rest}))")
        }
        // No column left: nothing is above or below itself.
        _ => "TRUE".to_owned(),
    }
}

/// Types whose values can be written as a literal that the server compares with the column
/// in the order in which it sorts the column. ENUM and SET sort by number and compare by
/// name; floats do not compare equal to their own text; BIT, TIME and YEAR have surprises.
fn is_splittable(column: &Column) -> bool {
    literal_kind(column).is_some()
}

/// How a key value is written as a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    /// As the server states it.
    Number,
    /// In quotes.
    Quoted,
    /// In hexadecimal, after an introducer.
    Text,
    /// In hexadecimal.
    Binary,
}

/// How values of the column are written as literals in a comparison, if they can be.
pub fn literal_kind(column: &Column) -> Option<LiteralKind> {
    if column.generated {
        return None;
    }
    Some(match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" => LiteralKind::Number,
        "date" | "datetime" | "timestamp" | "uuid" => LiteralKind::Quoted,
        "char" | "varchar" if column.charset.is_some() => LiteralKind::Text,
        "binary" | "varbinary" => LiteralKind::Binary,
        _ => return None,
    })
}

/// The ranges between consecutive `bounds`, and one for NULLs where the key has them.
pub fn ranges(key: &ChunkKey, bounds: &[Vec<String>]) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(bounds.len() + 2);
    if key.nullable {
        ranges.push(Range::Null);
    }
    let mut from = None;
    for bound in bounds {
        ranges.push(Range::Between(from.take(), Some(bound.clone())));
        from = Some(bound.clone());
    }
    ranges.push(Range::Between(from, None));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::catalog::Key;
    use crate::store::manifest::TableKind;

    fn column(name: &str, data_type: &str, nullable: bool) -> Column {
        let charset = (data_type == "varchar").then(|| "utf8mb4".to_owned());
        Column {
            name: name.into(),
            data_type: data_type.into(),
            charset,
            nullable,
            generated: false,
        }
    }

    fn table(columns: Vec<Column>, keys: &[(&str, &[&str])]) -> Table {
        let keys = keys
            .iter()
            .map(|(name, columns)| Key {
                name: (*name).into(),
                columns: columns.iter().map(|c| (*c).into()).collect(),
            })
            .collect();
        Table {
            name: "t".into(),
            kind: TableKind::Table,
            engine: "InnoDB".into(),
            transactional: true,
            rows: 0,
            data_bytes: 0,
            auto_increment: None,
            columns,
            keys,
        }
    }

    #[test]
    fn the_primary_key_wins_then_not_null_then_nullable() {
        let columns = vec![
            column("a", "int", false),
            column("b", "int", true),
            column("e", "enum", false),
        ];
        let t = table(columns.clone(), &[("PRIMARY", &["a", "e"]), ("u", &["a"])]);
        let key = ChunkKey::choose(&t).unwrap();
        assert_eq!(
            (key.index.as_str(), key.split.len(), key.order.len()),
            ("PRIMARY", 1, 2)
        );
        let t = table(columns.clone(), &[("u", &["b"]), ("v", &["a"])]);
        assert_eq!(ChunkKey::choose(&t).unwrap().index, "v");
        let t = table(columns.clone(), &[("u", &["b"])]);
        assert!(ChunkKey::choose(&t).unwrap().nullable);
        assert_eq!(ChunkKey::choose(&table(columns, &[])), None);
    }

    #[test]
    fn conditions_nest_so_that_an_index_serves_them() {
        let key = ChunkKey {
            index: "PRIMARY".into(),
            order: vec!["a".into(), "b".into()],
            split: vec!["a".into(), "b".into()],
            nullable: false,
        };
        let range = Range::Between(
            Some(vec!["1".into(), "2".into()]),
            Some(vec!["3".into(), "4".into()]),
        );
        assert_eq!(
            key.where_clause(&range),
            " WHERE (`a`>=1 AND (`a`>1 OR `b`>=2)) AND (`a`<=3 AND (`a`<3 OR `b`<4))"
        );
        assert_eq!(key.where_clause(&Range::Between(None, None)), "");
    }

    /// Evaluates the conditions as the server would, on tuples of small integers.
    fn in_range(row: &[i32], range: &Range) -> bool {
        let bound = |b: &Vec<String>| b.iter().map(|v| v.parse().unwrap()).collect::<Vec<i32>>();
        match range {
            Range::All => true,
            Range::Null => false,
            Range::Between(from, to) => {
                from.as_ref().is_none_or(|b| row >= &bound(b)[..])
                    && to.as_ref().is_none_or(|b| row < &bound(b)[..])
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn ranges_tile_the_key_space(
            mut bounds in proptest::collection::btree_set((0..6i32, 0..6i32), 0..8),
            row in (0..6i32, 0..6i32),
        ) {
            let key = ChunkKey { index: "k".into(), order: vec!["a".into(), "b".into()], split: vec!["a".into(), "b".into()], nullable: false };
            let bounds: Vec<Vec<String>> = std::mem::take(&mut bounds).into_iter().map(|(a, b)| vec![a.to_string(), b.to_string()]).collect();
            let holding = ranges(&key, &bounds).iter().filter(|range| in_range(&[row.0, row.1], range)).count();
            proptest::prop_assert_eq!(holding, 1);
        }
    }
}
