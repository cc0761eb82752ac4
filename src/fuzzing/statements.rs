//! The files of a backup as `restore` and `verify` take them apart: into statements, and these
//! into what is created first and later, by whom, and with which rows.

use std::collections::BTreeSet;

use crate::encode::{body, script};
use crate::restore::insert::Inserts;
use crate::restore::statements::Statements;
use crate::restore::{create, definer, portable};
use crate::server::bulk::Bulk;

/// Enough rows to make a table be created in several steps.
const MANY_BYTES: u64 = 1 << 40;

/// Takes any bytes apart as a file of a backup.
pub fn statements(data: &[u8]) {
    let mut statements = Statements::new(data);
    let mut length = 0;
    while let Ok(Some(statement)) = statements.next() {
        length += statement.len();
        assert!(length <= data.len(), "more came out than went in");
        one(statement);
    }
    if let Some(text) = portable::create_statement(data) {
        create_table(&text);
    }
    if let Some(found) = body::statements(data) {
        assert!(found.len() < data.len());
    }
    definer::without_any(data.to_vec());
}

fn one(statement: &[u8]) {
    let mut rows = Bulk::default();
    if let Some(insert) = Inserts::default().take(statement, &mut rows) {
        let (_, marks) = insert.rsplit_once(" VALUES (").unwrap_or_default();
        assert!(marks.starts_with('?') && rows.len() > marks.matches('?').count());
    }
    if let Some(without) = definer::without(statement) {
        assert!(without.len() < statement.len() && definer::of(statement).is_some());
    }
    let without = script::without_auto_increment(statement);
    assert!(without.len() <= statement.len());
}

/// Whatever is left for later is taken out of the statement, and no more.
fn create_table(text: &str) {
    create::references(text);
    let staged = create::stage("t", text, MANY_BYTES, &BTreeSet::new());
    let later = |addition: &Option<create::Addition>| addition.is_some();
    if !later(&staged.keys) {
        assert_eq!(staged.create, text);
        assert!(!later(&staged.foreign_keys));
    }
}
