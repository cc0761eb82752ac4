//! MySQL's JSON holds scalars that JSON text has no form for: dates, decimals, unsigned
//! integers, bytes. What is saved is the text, so tables with such documents are named.

use super::Reporter;
use super::contents::Contents;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::server::catalog::Table;
use crate::server::connect::query_error;
use crate::server::driver::Ask;
use crate::server::quote_identifier;
use crate::server::snapshot::SnapshotPool;

/// Types that come back from text as they were.
const TEXTUAL: &str = "'OBJECT','ARRAY','STRING','INTEGER','DOUBLE','BOOLEAN','NULL'";

/// Warns of every table whose JSON documents will come back with other types inside. Looks
/// through all documents of a table until it finds one: some 50 µs each.
pub(super) fn warn_of_lost_types(
    contents: &Contents<'_>,
    pool: &SnapshotPool,
    report: &Reporter<'_>,
    interrupt: &Interrupt,
) -> Result<()> {
    if contents.flavor.is_mariadb() {
        return Ok(());
    }
    let saved = contents
        .items
        .iter()
        .filter(|item| item.data_kind.is_some());
    let columns: Vec<(&Table, &str)> = saved
        .flat_map(|item| {
            let json = item
                .table
                .stored_columns()
                .filter(|c| c.data_type == "json");
            json.map(|column| (item.table, column.name.as_str()))
        })
        .collect();
    let found = pool.map(&columns, interrupt, |session, (table, column)| {
        let query = find_lost_type(&table.name, column);
        let found: Option<u8> = session
            .query_first(query)
            .map_err(|e| query_error(&format!("table `{}`", table.name), e))?;
        Ok(found.is_some())
    })?;
    for ((table, column), _) in columns.iter().zip(found).filter(|(_, found)| *found) {
        report.warn(&format!(
            "table `{}`: JSON column `{column}` holds dates, decimals, unsigned integers or bytes: \
             they come back as JSON text has them, as strings and plain numbers",
            table.name
        ));
    }
    Ok(())
}

/// Finds a value, at whatever depth, whose type its text does not tell. A large unsigned
/// integer is one again when it is read.
fn find_lost_type(table: &str, column: &str) -> String {
    let (table, column) = (quote_identifier(table), quote_identifier(column));
    format!(
        "SELECT 1 FROM (SELECT {column} AS j FROM {table}) t, JSON_TABLE(JSON_ARRAY(j), '$' COLUMNS(\
         NESTED PATH '$**.*' COLUMNS(a JSON PATH '$'), NESTED PATH '$**[*]' COLUMNS(b JSON PATH '$'))) v \
         WHERE JSON_TYPE(COALESCE(a, b)) NOT IN ({TEXTUAL}) \
         AND NOT (JSON_TYPE(COALESCE(a, b)) = 'UNSIGNED INTEGER' AND COALESCE(a, b) > 9223372036854775807) \
         LIMIT 1"
    )
}
