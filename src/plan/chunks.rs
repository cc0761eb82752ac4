//! How a table is read: by which key, in which order, in which key ranges. Ranges are
//! half-open over a whole tuple of columns, the first and the last open-ended, so that
//! wherever the bounds lie every row falls into exactly one of them. Bounds are SQL literals
//! taken from the data; only the server ever compares them.

use super::literals::literal_kind;
use crate::server::catalog::{Column, Key, Table};
use crate::server::{quote_identifier, quote_list};

/// More members than that in a leading ENUM make its conditions too long.
const MAX_MEMBERS: usize = 1000;

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
    /// How many members the first column has if it is an ENUM, else 0.
    pub members: usize,
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
    /// columns, else a nullable unique one. `None` for a table without a unique key, and for one
    /// that has a clustered key only, which is not known to be sorted upwards.
    pub fn choose(table: &Table) -> Option<ChunkKey> {
        let nullable = |column: &String| table.column(column).is_none_or(|c| c.nullable);
        // Read in one piece, rows come in the order of a clustered key anyway.
        let of_use = |key: &&Key| key.ordered || !table.is_clustered_by(&key.name);
        let keys = || table.keys.iter().filter(of_use);
        let not_null = keys().filter(|key| !key.columns.iter().any(nullable));
        let best = not_null.min_by_key(|key| (key.name != "PRIMARY", key.columns.len()));
        if let Some(key) = best {
            let split = if leads(table, key) {
                let splittable = |name: &&String| table.column(name).is_some_and(is_splittable);
                key.columns.iter().take_while(splittable).cloned().collect()
            } else {
                Vec::new()
            };
            return Some(ChunkKey::of(table, key, split, false));
        }
        let key = keys()
            .filter(|key| leads(table, key))
            .min_by_key(|key| key.columns.len())?;
        let first = key.columns[..1].to_vec();
        Some(ChunkKey::of(table, key, first, nullable(&key.columns[0])))
    }

    fn of(table: &Table, key: &Key, split: Vec<String>, nullable: bool) -> ChunkKey {
        let mut order = key.columns.clone();
        // Rows that came and went share a key; the server keeps them apart by their end.
        if let Some(end) = table.row_end().filter(|end| !order.contains(&end.name)) {
            order.push(end.name.clone());
        }
        let first = split.first().and_then(|name| table.column(name));
        ChunkKey {
            index: key.name.clone(),
            order,
            members: first.map_or(0, |column| column.members),
            split,
            nullable,
        }
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
                let mut conditions = self.between(from.as_deref(), to.as_deref());
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

    /// The condition for rows above `bound`, with a leading ` WHERE `.
    pub fn above(&self, bound: &[String]) -> String {
        let conditions = match self.member(Some(bound)) {
            Some(member) => self.by_members(Some((member, &bound[1..], ">")), None),
            None => compare(&self.split, bound, '>', ">"),
        };
        format!(" WHERE {conditions}")
    }

    fn between(&self, from: Option<&[String]>, to: Option<&[String]>) -> Vec<String> {
        let (lower, upper) = (self.member(from), self.member(to));
        if lower.is_some() || upper.is_some() {
            let lower = lower
                .zip(from)
                .map(|(member, from)| (member, &from[1..], ">="));
            let upper = upper.zip(to).map(|(member, to)| (member, &to[1..]));
            return vec![self.by_members(lower, upper)];
        }
        // Nested so that an index on (a,b,c) serves them.
        let from = from.map(|bound| compare(&self.split, bound, '>', ">="));
        let to = to.map(|bound| compare(&self.split, bound, '<', "<"));
        from.into_iter().chain(to).collect()
    }

    /// The number of the member at which a key that begins with an ENUM is cut.
    fn member(&self, bound: Option<&[String]>) -> Option<usize> {
        bound?.first()?.parse().ok().filter(|_| self.members > 0)
    }

    /// The rows between two bounds of a key that begins with an ENUM. An index is sorted by
    /// the members' numbers, but servers do not look up a range of numbers in it, only single
    /// ones: so all of them are named. 0 is the error value.
    fn by_members(
        &self,
        from: Option<(usize, &[String], &str)>,
        to: Option<(usize, &[String])>,
    ) -> String {
        let (column, rest) = (quote_identifier(&self.split[0]), &self.split[1..]);
        let above = |bound: &[String], last: &str| compare(rest, bound, '>', last);
        let below = |bound: &[String]| compare(rest, bound, '<', "<");
        let mut cases = Vec::new();
        let (mut first, mut end) = (0, self.members + 1);
        match (from, to) {
            (Some((lower, from, last)), Some((upper, to)))
                if lower == upper && !rest.is_empty() =>
            {
                let (above, below) = (above(from, last), below(to));
                return format!("({column}={lower} AND {above} AND {below})");
            }
            _ => {}
        }
        if let Some((member, bound, last)) = from {
            first = member + usize::from(!rest.is_empty() || last == ">");
            if !rest.is_empty() {
                cases.push(format!("({column}={member} AND {})", above(bound, last)));
            }
        }
        if let Some((member, bound)) = to {
            end = member;
            if !rest.is_empty() {
                cases.push(format!("({column}={member} AND {})", below(bound)));
            }
        }
        let whole: Vec<_> = (first..end).map(|member| member.to_string()).collect();
        if !whole.is_empty() {
            cases.push(format!("{column} IN ({})", whole.join(",")));
        }
        if cases.is_empty() {
            "FALSE".to_owned()
        } else {
            format!("({})", cases.join(" OR "))
        }
    }
}

/// `(a op x OR (a=x AND (b op y OR (b=y AND c last z))))`: of this form servers find the place in
/// an index by all columns, where many rows share the first, too. They look at every row that
/// they have found with it again: for most, the first comparison tells.
fn compare(columns: &[String], bound: &[String], op: char, last: &str) -> String {
    match (columns, bound) {
        ([column], [value, ..]) => format!("{}{last}{value}", quote_identifier(column)),
        ([column, columns @ ..], [value, bound @ ..]) => {
            let column = quote_identifier(column);
            let rest = compare(columns, bound, op, last);
            format!("({column}{op}{value} OR ({column}={value} AND {rest}))")
        }
        // No column left: nothing is above or below itself.
        _ => "TRUE".to_owned(),
    }
}

/// Whether the key can be walked along and split at values of its first column.
fn leads(table: &Table, key: &Key) -> bool {
    let first = key.columns.first().and_then(|name| table.column(name));
    first
        .is_some_and(|column| key.ordered && is_splittable(column) && column.members <= MAX_MEMBERS)
}

/// Types whose values can be written as a literal that the server compares with the column
/// in the order in which it sorts the column.
fn is_splittable(column: &Column) -> bool {
    literal_kind(column).is_some()
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
            charset,
            nullable,
            members: if data_type == "enum" { 3 } else { 0 },
            ..Column::plain(name, data_type)
        }
    }

    fn table(columns: Vec<Column>, keys: &[(&str, &[&str])]) -> Table {
        let keys = keys
            .iter()
            .map(|(name, columns)| Key {
                name: (*name).into(),
                columns: columns.iter().map(|c| (*c).into()).collect(),
                ordered: true,
            })
            .collect();
        Table {
            name: "t".into(),
            kind: TableKind::Table,
            engine: "InnoDB".into(),
            transactional: true,
            rows: 0,
            data_bytes: 0,
            partitioned: false,
            auto_increment: None,
            columns,
            keys,
            versioned: false,
            lax_foreign_keys: false,
        }
    }

    #[test]
    fn the_primary_key_wins_then_not_null_then_nullable() {
        let columns = vec![
            column("a", "int", false),
            column("b", "int", true),
            column("e", "enum", false),
            column("s", "set", false),
            column("j", "json", false),
        ];
        let t = table(columns.clone(), &[("PRIMARY", &["a", "j"]), ("u", &["a"])]);
        let key = ChunkKey::choose(&t).unwrap();
        assert_eq!(
            (key.index.as_str(), key.split.len(), key.order.len()),
            ("PRIMARY", 1, 2)
        );
        let t = table(columns.clone(), &[("u", &["b"]), ("v", &["a"])]);
        assert_eq!(ChunkKey::choose(&t).unwrap().index, "v");
        let t = table(columns.clone(), &[("u", &["b"])]);
        assert!(ChunkKey::choose(&t).unwrap().nullable);
        for (keyed, split) in [("s", 0), ("e", 1)] {
            let t = table(columns.clone(), &[("PRIMARY", &[keyed])]);
            assert_eq!(ChunkKey::choose(&t).unwrap().split.len(), split);
        }
        let mut t = table(columns.clone(), &[("PRIMARY", &["a"]), ("u", &["b"])]);
        t.keys[0].ordered = false;
        assert_eq!(ChunkKey::choose(&t).unwrap().index, "u");
        t.keys.truncate(1);
        assert_eq!(ChunkKey::choose(&t), None);
        assert_eq!(ChunkKey::choose(&table(columns, &[])), None);
    }

    #[test]
    fn the_members_of_a_leading_enum_are_named() {
        let key = |split: &[&str]| ChunkKey {
            index: "k".into(),
            order: Vec::new(),
            split: split.iter().map(|name| (*name).into()).collect(),
            nullable: false,
            members: 4,
        };
        let bound = |values: &[&str]| Some(values.iter().map(|v| (*v).into()).collect());
        let alone = key(&["e"]);
        let range = Range::Between(bound(&["1"]), bound(&["3"]));
        assert_eq!(alone.where_clause(&range), " WHERE (`e` IN (1,2))");
        let range = Range::Between(bound(&["3"]), None);
        assert_eq!(alone.where_clause(&range), " WHERE (`e` IN (3,4))");
        assert_eq!(alone.above(&["4".into()]), " WHERE FALSE");
        let first = key(&["e", "b"]);
        let range = Range::Between(bound(&["1", "7"]), bound(&["3", "9"]));
        assert_eq!(
            first.where_clause(&range),
            " WHERE ((`e`=1 AND `b`>=7) OR (`e`=3 AND `b`<9) OR `e` IN (2))"
        );
        let range = Range::Between(bound(&["1", "7"]), bound(&["1", "9"]));
        assert_eq!(
            first.where_clause(&range),
            " WHERE (`e`=1 AND `b`>=7 AND `b`<9)"
        );
        let range = Range::Between(None, bound(&["1", "9"]));
        assert_eq!(
            first.where_clause(&range),
            " WHERE ((`e`=1 AND `b`<9) OR `e` IN (0))"
        );
    }

    #[test]
    fn conditions_nest_so_that_an_index_serves_them() {
        let key = ChunkKey {
            index: "PRIMARY".into(),
            order: vec!["a".into(), "b".into()],
            split: vec!["a".into(), "b".into()],
            nullable: false,
            members: 0,
        };
        let range = Range::Between(
            Some(vec!["1".into(), "2".into()]),
            Some(vec!["3".into(), "4".into()]),
        );
        assert_eq!(
            key.where_clause(&range),
            " WHERE (`a`>1 OR (`a`=1 AND `b`>=2)) AND (`a`<3 OR (`a`=3 AND `b`<4))"
        );
        assert_eq!(key.where_clause(&Range::Between(None, None)), "");
        let columns = ["a", "b", "c"].map(str::to_owned);
        let bound = ["1", "2", "3"].map(str::to_owned);
        assert_eq!(
            compare(&columns, &bound, '<', "<"),
            "(`a`<1 OR (`a`=1 AND (`b`<2 OR (`b`=2 AND `c`<3))))"
        );
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
            let key = ChunkKey { index: "k".into(), order: vec!["a".into(), "b".into()], split: vec!["a".into(), "b".into()], nullable: false, members: 0 };
            let bounds: Vec<Vec<String>> = std::mem::take(&mut bounds).into_iter().map(|(a, b)| vec![a.to_string(), b.to_string()]).collect();
            let holding = ranges(&key, &bounds).iter().filter(|range| in_range(&[row.0, row.1], range)).count();
            proptest::prop_assert_eq!(holding, 1);
        }
    }
}
