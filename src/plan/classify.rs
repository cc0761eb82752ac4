//! Which table is what, by the four lists of the configuration. Pure. What always holds: no
//! table's data is saved, and nothing is left out, unless a list says so by its exact name.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Category, TableLists};
use crate::error::{Error, ErrorKind, Result};

/// What a table is, and whether the configuration says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classified {
    /// Its category.
    pub category: Category,
    /// Whether it is on a list; an unlisted table is ephemeral.
    pub listed: bool,
}

/// What every table of the database is.
#[derive(Debug, Clone)]
pub struct Classification {
    /// Exactly the tables given, by name.
    pub tables: BTreeMap<String, Classified>,
    /// Names on the `ignore` list and on no other that are no tables: views, and what may yet come.
    pub ignored_others: BTreeSet<String>,
    /// What the user should know, one line each: tables on several lists, listed tables that do
    /// not exist (but for those to ignore), tables on no list; by name within each.
    pub warnings: Vec<String>,
}

impl Classification {
    /// The category of `table`; ephemeral if it is not known.
    pub fn category(&self, table: &str) -> Category {
        self.tables
            .get(table)
            .map_or(Category::Ephemeral, |classified| classified.category)
    }

    /// Whether `table` is on a list.
    pub fn is_listed(&self, table: &str) -> bool {
        self.tables
            .get(table)
            .is_some_and(|classified| classified.listed)
    }

    /// All names that are ignored.
    pub fn ignored(&self) -> BTreeSet<String> {
        let tables = self
            .tables
            .iter()
            .filter(|(_, table)| table.category == Category::Ignore);
        tables
            .map(|(name, _)| name)
            .chain(&self.ignored_others)
            .cloned()
            .collect()
    }
}

/// Sorts `tables` and `views`, which are all that exist, by `lists`. Names compare exactly.
/// On several lists, the first of global or local, ephemeral, ignore counts, with a warning;
/// global together with local is an error, even for a table that does not exist (yet).
pub fn classify(lists: &TableLists, tables: &[&str], views: &[&str]) -> Result<Classification> {
    let listed = by_name(lists);
    refuse_global_and_local(&listed)?;

    let tables: BTreeSet<&str> = tables.iter().copied().collect();
    let views: BTreeSet<&str> = views.iter().copied().collect();
    let mut result = Classification {
        tables: BTreeMap::new(),
        ignored_others: BTreeSet::new(),
        warnings: Vec::new(),
    };
    let (mut missing, mut unlisted) = (Vec::new(), Vec::new());

    for (&name, categories) in &listed {
        // `by_name` lists them in the order in which they count.
        let Some((&category, others)) = categories.split_first() else {
            continue;
        };
        if category == Category::Ignore && !tables.contains(name) {
            result.ignored_others.insert(name.to_string());
        }
        let kind = match (tables.contains(name), views.contains(name)) {
            (true, _) => "table",
            (false, true) => "view",
            (false, false) => {
                missing.extend(missing_warning(name, categories, &tables, &views));
                continue;
            }
        };
        if !others.is_empty() {
            let shown = one_line(name);
            result.warnings.push(format!(
                "{kind} `{shown}` is in {category} and also in {}: treated as {category}",
                join(others)
            ));
        }
    }
    for name in tables {
        let category = listed
            .get(name)
            .and_then(|categories| categories.first())
            .copied();
        if category.is_none() {
            unlisted.push(format!(
                "table `{}` is on no list: its structure is saved, its data is not",
                one_line(name)
            ));
        }
        let classified = Classified {
            category: category.unwrap_or(Category::Ephemeral),
            listed: category.is_some(),
        };
        result.tables.insert(name.to_string(), classified);
    }
    result.warnings.append(&mut missing);
    result.warnings.append(&mut unlisted);
    Ok(result)
}

/// The lists each name is on, the one that counts first.
fn by_name(lists: &TableLists) -> BTreeMap<&str, Vec<Category>> {
    let mut listed: BTreeMap<&str, Vec<Category>> = BTreeMap::new();
    for (category, list) in [
        (Category::Global, &lists.global),
        (Category::Local, &lists.local),
        (Category::Ephemeral, &lists.ephemeral),
        (Category::Ignore, &lists.ignore),
    ] {
        for name in list {
            let categories = listed.entry(name).or_default();
            if categories.last() != Some(&category) {
                categories.push(category);
            }
        }
    }
    listed
}

fn refuse_global_and_local(listed: &BTreeMap<&str, Vec<Category>>) -> Result<()> {
    let both: Vec<String> = listed
        .iter()
        .filter(|(_, on)| on.contains(&Category::Global) && on.contains(&Category::Local))
        .map(|(name, _)| format!("`{}`", one_line(name)))
        .collect();
    if both.is_empty() {
        return Ok(());
    }
    let context = format!("in global and also in local: {}", both.join(", "));
    Err(Error::new(ErrorKind::Config, context).hint(
        "would sensitive data become public? keep each table in one of the two lists; \
         local if in doubt",
    ))
}

/// What is on `ignore` only need not be there.
fn missing_warning(
    name: &str,
    on: &[Category],
    tables: &BTreeSet<&str>,
    views: &BTreeSet<&str>,
) -> Option<String> {
    let warning = format!(
        "table `{}`, listed in {}, does not exist",
        one_line(name),
        join(on)
    );
    let lower = name.to_lowercase();
    match tables
        .iter()
        .chain(views)
        .find(|other| other.to_lowercase() == lower)
    {
        Some(other) => Some(format!(
            "{warning}; `{}` does: case matters here",
            one_line(other)
        )),
        None => (on != [Category::Ignore]).then_some(warning),
    }
}

fn join(categories: &[Category]) -> String {
    categories
        .iter()
        .map(Category::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// A table name may hold a line break; a warning may not.
fn one_line(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lists(global: &[&str], local: &[&str], ephemeral: &[&str], ignore: &[&str]) -> TableLists {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        TableLists {
            global: owned(global),
            local: owned(local),
            ephemeral: owned(ephemeral),
            ignore: owned(ignore),
        }
    }

    #[test]
    fn each_list_gives_its_category() {
        let lists = lists(&["g"], &["l"], &["e"], &["i", "v"]);
        let found = classify(&lists, &["i", "e", "l", "g"], &["v", "w"]).unwrap();
        assert_eq!(found.warnings, Vec::<String>::new());
        let categories: Vec<_> = ["g", "l", "e", "i"].map(|t| found.category(t)).into();
        use Category::{Ephemeral, Global, Ignore, Local};
        assert_eq!(categories, [Global, Local, Ephemeral, Ignore]);
        assert!(found.is_listed("g") && !found.is_listed("w"));
        assert_eq!(
            found.ignored(),
            BTreeSet::from(["i".to_string(), "v".to_string()])
        );
        assert_eq!(found.ignored_others, BTreeSet::from(["v".to_string()]));
    }

    #[test]
    fn an_unlisted_table_does_not_leak() {
        let found = classify(&TableLists::default(), &["b", "a\n"], &[]).unwrap();
        assert_eq!(found.category("b"), Category::Ephemeral);
        assert!(!found.is_listed("b"));
        assert_eq!(
            found.warnings,
            [
                "table `a?` is on no list: its structure is saved, its data is not",
                "table `b` is on no list: its structure is saved, its data is not",
            ]
        );
    }

    #[test]
    fn global_and_local_is_refused_with_all_names() {
        let lists = lists(&["b", "a", "c"], &["c", "a", "d"], &[], &[]);
        let error = classify(&lists, &["a"], &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), "in global and also in local: `a`, `c`");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("public"))
        );
    }

    #[test]
    fn saving_wins_over_not_saving() {
        let lists = lists(&["g"], &["l"], &["l", "e"], &["g", "l", "e", "v", "e"]);
        let found = classify(&lists, &["g", "l", "e"], &["v"]).unwrap();
        assert_eq!(
            found.warnings,
            [
                "table `e` is in ephemeral and also in ignore: treated as ephemeral",
                "table `g` is in global and also in ignore: treated as global",
                "table `l` is in local and also in ephemeral and ignore: treated as local",
            ]
        );
        assert_eq!(found.category("e"), Category::Ephemeral);
        assert_eq!(found.category("l"), Category::Local);
        assert_eq!(found.ignored(), BTreeSet::from(["v".to_string()]));
    }

    #[test]
    fn a_missing_table_is_named_with_its_lists() {
        let lists = lists(&["Users"], &["gone"], &["gone"], &["w", "scratch", "W"]);
        let found = classify(&lists, &["users"], &["w"]).unwrap();
        assert_eq!(
            found.warnings,
            [
                "table `Users`, listed in global, does not exist; `users` does: case matters here",
                "table `W`, listed in ignore, does not exist; `w` does: case matters here",
                "table `gone`, listed in local and ephemeral, does not exist",
                "table `users` is on no list: its structure is saved, its data is not",
            ]
        );
        assert_eq!(found.tables.len(), 1);
    }

    proptest! {
        /// Only a list that names a table can have its data saved or the table left out.
        #[test]
        fn the_category_follows_from_the_lists(
            on in prop::collection::vec((0usize..4, "[a-d]"), 0..12),
            tables in prop::collection::btree_set("[a-d]", 0..4),
        ) {
            let of = |n: usize| on.iter().filter(|o| o.0 == n).map(|o| o.1.clone()).collect();
            let lists = TableLists { global: of(0), local: of(1), ephemeral: of(2), ignore: of(3) };
            let names: Vec<&str> = tables.iter().map(String::as_str).collect();
            let has = |n: usize, t: &str| on.iter().any(|o| o.0 == n && o.1 == t);
            match classify(&lists, &names, &[]) {
                Err(_) => prop_assert!(on.iter().any(|o| has(0, &o.1) && has(1, &o.1))),
                Ok(found) => {
                    prop_assert_eq!(found.tables.len(), tables.len());
                    for t in names {
                        let expected = match (has(0, t), has(1, t), has(2, t), has(3, t)) {
                            (true, ..) => Category::Global,
                            (_, true, ..) => Category::Local,
                            (_, _, false, true) => Category::Ignore,
                            _ => Category::Ephemeral,
                        };
                        prop_assert_eq!(found.category(t), expected);
                    }
                }
            }
        }
    }
}
