//! Memory is bounded by configuration, not by data: a table larger than the bound goes
//! through, with peak memory below it. With `SCHEMA_BACKUP_SOAK=1` at full scale.

use std::fs;
use std::time::Duration;

use crate::server::{Server, with_binlog};
use crate::site::{Lists, Site, run_with_timeout};

const BOUND_KIB: u64 = 128 << 10;
const ROW_BYTES: u64 = 1000;

pub(crate) fn soak() -> bool {
    std::env::var_os("SCHEMA_BACKUP_SOAK").is_some_and(|value| value == "1")
}

/// Peak resident memory, in KiB, of exporting `megabytes` at `-j 8`.
fn peak(server: &Server, megabytes: u64) -> u64 {
    server.create_database("memory");
    let rows = (megabytes << 20) / ROW_BYTES;
    server.execute(&[
        "CREATE TABLE memory.big (id BIGINT PRIMARY KEY, a VARCHAR(700), b VARBINARY(300)) CHARSET=latin1",
        // Neither constant nor random: text and binary data that compress like real ones.
        &format!(
            "INSERT INTO memory.big SELECT seq, concat(repeat(md5(seq), 10), repeat('abc', 120)),
                    unhex(repeat(sha2(seq, 256), 9)) FROM memory.seq_1_to_{rows}"
        ),
        "ANALYZE TABLE memory.big",
    ]);
    let site = Site::new(
        server,
        "memory",
        &Lists {
            local: vec!["big"],
            ..Lists::default()
        },
    );
    let report = site.path("peak");
    let time = ["/usr/bin/time", "-f", "%M", "-o", report.to_str().unwrap()];
    let command = site.wrapped(&time, "", &["-j", "8", "--progress", "none"]);
    run_with_timeout(command, Duration::from_secs(60 + megabytes)).expect_code(0);
    let stored: u64 = crate::site::json(site.latest().join("run.json"))["raw_bytes"]
        .as_u64()
        .unwrap();
    assert!(
        stored > (megabytes << 20) * 95 / 100,
        "the export is smaller than the table: {stored}"
    );
    fs::read_to_string(report).unwrap().trim().parse().unwrap()
}

#[test]
fn peak_memory_stays_below_the_bound_and_does_not_grow_with_the_table() {
    let Some(server) = with_binlog() else { return };
    let megabytes = if soak() { 1024 } else { 200 };
    let once = peak(server, megabytes);
    assert!(
        once < BOUND_KIB,
        "exporting {megabytes} MiB took {once} KiB"
    );
    if soak() {
        let more = peak(server, megabytes * 4);
        assert!(
            more < BOUND_KIB,
            "exporting {} MiB took {more} KiB",
            megabytes * 4
        );
    }
    server.execute(&["DROP DATABASE memory"]);
}
