//! Tables that exchange their names while a backup runs, and a partition that becomes a table:
//! nothing that a session reads tells one from the other.

use std::thread;
use std::time::Duration;

use super::{Fixture, apply};
use crate::compare::fingerprint;
use crate::faults::table::Row;
use crate::server::{Kind, on_each_kind};

/// How two tables exchange their names.
const EXCHANGES: [(&str, &str); 2] = [
    (
        "exchange of two tables of one definition",
        "RENAME TABLE T TO elsewhere, twin TO T, elsewhere TO twin",
    ),
    (
        "exchange of two tables of one definition, by ALTER",
        "ALTER TABLE T RENAME TO elsewhere; ALTER TABLE twin RENAME TO T; ALTER TABLE elsewhere RENAME TO twin",
    ),
];

/// `coming` with a partition that holds the rows of `twin`, and the other way round.
const PARTITION: &str = "ALTER TABLE T EXCHANGE PARTITION p0 WITH TABLE twin";

const RENAME_ELSEWHERE: &str =
    "CREATE TABLE mysql.t (id INT); RENAME TABLE mysql.t TO mysql.t2; DROP TABLE mysql.t2";

on_each_kind!(a_partition_that_is_exchanged_for_a_table_fails_the_run);

/// Neither definition shows it, nor the second of the last change.
fn a_partition_that_is_exchanged_for_a_table_fails_the_run(kind: Kind) {
    let Some(mut fixture) = Fixture::new(kind, "ddl_partition") else {
        return;
    };
    fixture.with_twin = true;
    let user = format!("u_{}", fixture.database);
    for grant in ["GRANT", "REVOKE"] {
        let to = if grant == "GRANT" { "TO" } else { "FROM" };
        let process = format!("{grant} PROCESS ON *.* {to} {user}");
        fixture.server.execute(&[&process]);
        let with = if grant == "GRANT" { "with" } else { "without" };
        for (what, ddl, code) in [
            ("exchange of a partition and a table", PARTITION, 3),
            ("rename elsewhere", RENAME_ELSEWHERE, 0),
        ] {
            fixture.anew();
            let partitions = "ALTER TABLE T PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN MAXVALUE)";
            apply(&mut fixture.connect(), partitions, "coming").unwrap();
            fixture.held = fingerprint(fixture.server, &fixture.database);
            thread::sleep(Duration::from_millis(2_100));
            let program = fixture.start();
            apply(&mut fixture.connect(), ddl, "coming").unwrap();
            // Without the engine's numbers a rename anywhere may have been of these.
            let code = if grant == "GRANT" { code } else { 3 };
            let outcome = fixture.finish(program).expect_code(code);
            let mut row = Row::new(format!("{what}, {with} PROCESS, {kind:?}")).first();
            if code == 0 {
                fixture.assert_snapshot();
                row = row.complete();
            } else {
                let named = ["`coming`", "`twin`"].map(|table| outcome.stderr.contains(table));
                assert!(named.contains(&true), "{}", outcome.stderr);
                fixture.assert_no_backup();
            }
            row.saw(&outcome);
        }
    }
}

on_each_kind!(tables_that_cannot_be_told_apart_and_exchange_names_fail_the_run);

/// `coming` and `twin` are of one definition. A user with `PROCESS` can see whether they were
/// exchanged; for another any rename on the server may be just that.
fn tables_that_cannot_be_told_apart_and_exchange_names_fail_the_run(kind: Kind) {
    let Some(mut fixture) = Fixture::new(kind, "ddl_exchange") else {
        return;
    };
    fixture.with_twin = true;
    let user = format!("u_{}", fixture.database);
    for grant in ["GRANT", "REVOKE"] {
        let to = if grant == "GRANT" { "TO" } else { "FROM" };
        let process = format!("{grant} PROCESS ON *.* {to} {user}");
        fixture.server.execute(&[&process]);
        for (what, ddl) in EXCHANGES {
            fixture.anew();
            let program = fixture.start();
            apply(&mut fixture.connect(), ddl, "coming").unwrap();
            let outcome = fixture.finish(program).expect_code(3);
            // Where the second of the exchange tells, the table that is looked at first is named.
            let named = ["`coming`", "`twin`"].map(|table| outcome.stderr.contains(table));
            assert!(named.contains(&true), "{}", outcome.stderr);
            fixture.assert_no_backup();
            let with = if grant == "GRANT" { "with" } else { "without" };
            let mut row = Row::new(format!("{what}, {with} PROCESS, {kind:?}")).first();
            row.saw(&outcome);
        }
        if grant == "GRANT" {
            fixture.anew();
            let program = fixture.start();
            apply(&mut fixture.connect(), RENAME_ELSEWHERE, "coming").unwrap();
            fixture.finish(program).expect_code(0);
            fixture.assert_snapshot();
        }
    }
    if kind.is_mysql() {
        return;
    }
    // Of tables that are a little older the second of an exchange tells, also without PROCESS.
    for (ddl, code) in [(RENAME_ELSEWHERE, 0), (EXCHANGES[0].1, 3)] {
        fixture.anew();
        thread::sleep(Duration::from_millis(2_100));
        let program = fixture.start();
        apply(&mut fixture.connect(), ddl, "coming").unwrap();
        fixture.finish(program).expect_code(code);
        if code == 0 {
            fixture.assert_snapshot();
        }
    }
}
