//! Rows are sent in bulk where the server has that, and as they stand in the files where not.

use mysql::prelude::Queryable;

use super::restore;
use crate::compare::{assert_same, fingerprint};
use crate::proxy::{Fate, Proxy};
use crate::server::{Kind, ROOT_PASSWORD, Server, with_binlog};
use crate::site::{Lists, Site};

/// Rows of the table.
const ROWS: usize = 2000;

/// A table in several statements, one of which holds a text that is not sent in bulk.
fn fill(server: &Server, database: &str) -> Site {
    server.create_database(database);
    server.feed(
        database,
        "the table",
        b"CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(120), d DOUBLE, n DECIMAL(20,5), b BLOB,
                          l TEXT CHARACTER SET latin1) CHARACTER SET utf8mb4;
          INSERT INTO t SELECT seq, repeat(md5(seq), 3), seq / 7, seq / 8, unhex(sha2(seq, 512)),
                               if(seq = 3, _utf8mb4 0xC3A9, 'e') FROM seq_1_to_2000;",
    );
    let lists = Lists {
        local: vec!["t"],
        ..Lists::default()
    };
    let site = Site::new(server, database, &lists);
    site.backup_ok(&["--progress", "none"]);
    site
}

/// Restores `site`; how many times rows came in bulk, and how many times as an INSERT.
fn insertions(server: &Server, site: &Site, source: &str) -> (u64, u64) {
    let again = format!("{source}_again");
    server.execute(&[
        &format!("DROP DATABASE IF EXISTS {again}"),
        "SET GLOBAL log_output='TABLE', GLOBAL general_log=1",
        "TRUNCATE mysql.general_log",
    ]);
    restore(site, &again, &["--progress", "none"]).expect_code(0);
    server.execute(&["SET GLOBAL general_log=0"]);
    assert_same(&fingerprint(server, source), &fingerprint(server, &again));
    let counts = server.connect().query_first(
        "SELECT SUM(command_type NOT IN ('Query', 'Prepare')), SUM(command_type='Query')
         FROM mysql.general_log WHERE argument LIKE 'INSERT INTO `t`%'",
    );
    counts.unwrap().unwrap()
}

/// The names of the events in the newest binary log, and what each says.
fn logged(server: &Server) -> Vec<(String, String)> {
    let mut connection = server.connect();
    let logs: Vec<mysql::Row> = connection.query("SHOW BINARY LOGS").unwrap();
    let newest: String = logs.last().unwrap().get("Log_name").unwrap();
    let events: Vec<mysql::Row> = connection
        .query(format!("SHOW BINLOG EVENTS IN '{newest}'"))
        .unwrap();
    events
        .into_iter()
        .map(|row| {
            let info: Vec<u8> = row.get("Info").unwrap();
            let info = String::from_utf8_lossy(&info).into_owned();
            (row.get("Event_type").unwrap(), info)
        })
        .collect()
}

#[test]
fn rows_go_in_bulk_but_where_a_literal_is_no_parameter() {
    for kind in [Kind::MariaDb10, Kind::MariaDb11] {
        let Some(server) = Server::start_kind(kind, &[]) else {
            continue;
        };
        let site = fill(&server, "bulk");
        let (bulk, text) = insertions(&server, &site, "bulk");
        assert!(bulk > 2 && text == 1, "{kind:?}: {bulk} {text}");
        // Other engines take the rows of one statement together.
        server.execute(&["ALTER TABLE bulk.t ENGINE=MyISAM"]);
        site.backup_ok(&["--progress", "none"]);
        let (bulk, text) = insertions(&server, &site, "bulk");
        assert!(bulk == 0 && text > 2, "{kind:?}, MyISAM: {bulk} {text}");
    }
}

#[test]
fn a_binary_log_of_statements_has_all_of_them_and_others_hold_rows() {
    for kind in [Kind::MariaDb10, Kind::MariaDb11] {
        for format in ["STATEMENT", "MIXED", "ROW"] {
            let options = [
                "--log-bin=binlog",
                "--server-id=1",
                &format!("--binlog-format={format}"),
            ];
            let Some(server) = Server::start_kind(kind, &options) else {
                continue;
            };
            let site = fill(&server, "bulk_log");
            server.execute(&["FLUSH BINARY LOGS"]);
            let (bulk, text) = insertions(&server, &site, "bulk_log");
            let events = logged(&server);
            let inserted = events
                .iter()
                .filter(|(event, info)| event == "Query" && info.contains("INSERT INTO `t`"));
            let rows: usize = inserted.map(|(_, info)| info.matches("\n(").count()).sum();
            let of_rows = events
                .iter()
                .any(|(event, _)| event.starts_with("Write_rows"));
            if format == "STATEMENT" {
                assert!(bulk == 0 && text > 2, "{kind:?}: {bulk} {text}");
                assert!(rows == ROWS && !of_rows, "{kind:?}: {rows}");
            } else {
                assert!(bulk > 2 && of_rows, "{kind:?} {format}: {bulk}");
            }
        }
    }
}

/// A server may state a version of its own when it greets, and then bulk execution is not agreed
/// upon; and something between may not know the command.
#[test]
fn what_stands_between_and_knows_no_bulk_gets_text() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let mut site = fill(&server, "bulk_proxy");
    for hides in [true, false] {
        let proxy = Proxy::start(&server, move |packet| {
            let name = memchr::memmem::find(packet.payload, b"-MariaDB");
            match name {
                Some(at) if hides && packet.statement.is_empty() && packet.number == 0 => {
                    let mut payload = packet.payload.to_vec();
                    payload[at..at + 8].copy_from_slice(b"-OurOwn.");
                    Fate::Instead(crate::proxy::packet(packet.sequence, &payload))
                }
                _ if packet.statement == b"BULK" && !hides => Fate::Last(Vec::new()),
                _ => Fate::Pass,
            }
        });
        site = behind(site, &proxy, "bulk_proxy");
        let (bulk, text) = insertions(&server, &site, "bulk_proxy");
        assert!(bulk == 0 && text > 2, "{hides}: {bulk} {text}");
    }
}

/// The same site, with the server behind a proxy.
fn behind(site: Site, proxy: &Proxy, database: &str) -> Site {
    let password = site.write_private("password", ROOT_PASSWORD);
    site.connect_by(&[
        &format!("--socket={}", proxy.socket().display()),
        "--user=root",
        &format!("--password-file={}", password.display()),
        &format!("--database={database}"),
    ])
}

#[test]
fn a_server_that_counts_other_rows_than_it_was_given_fails_the_restore() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "bulk_count");
    let proxy = Proxy::start(server, |packet| {
        // The trial with two rows is right. In an OK packet the count comes first.
        if packet.statement != b"BULK" || packet.payload[..2] == [0, 2] {
            return Fate::Pass;
        }
        let payload = [&[0, 2], packet.payload.split_at(4).1].concat();
        Fate::Instead(crate::proxy::packet(packet.sequence, &payload))
    });
    let site = behind(site, &proxy, "bulk_count");
    server.execute(&["DROP DATABASE IF EXISTS bulk_count_again"]);
    restore(&site, "bulk_count_again", &["--progress", "none"])
        .expect_code(3)
        .expect_said("table `t`")
        .expect_said("rows the server says it has inserted 2");
}
