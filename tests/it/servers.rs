//! Each kind of server that the tests run on: it starts, is what it is taken for, and the
//! program backs it up so that the kind's own stock client loads the backup.

use mysql::prelude::Queryable;

use crate::compare::load;
use crate::compare::{assert_same, fingerprint};
use crate::server::{Kind, Server, free_port, shared};
use crate::site::{Lists, Site, contents, run};

fn lists() -> Lists<'static> {
    Lists {
        global: vec!["settings"],
        local: vec!["people", "bytes"],
        ..Lists::default()
    }
}

fn fill(server: &Server, database: &str) {
    server.create_database(database);
    server.feed(
        database,
        "the tables",
        "SET NAMES utf8mb4;
         CREATE TABLE settings (id INT PRIMARY KEY, v VARCHAR(30));
         INSERT INTO settings VALUES (1, 'ö🙂'), (2, NULL), (3, '');
         CREATE TABLE people (id INT PRIMARY KEY, f FLOAT, b BLOB, t TIMESTAMP(6) NULL);
         INSERT INTO people VALUES (1, 0.1, X'00275C0AFF', '2024-02-29 12:00:00.000001'),
                                   (2, -1e30, '', NULL);
         DELIMITER //
         CREATE TRIGGER trimmed BEFORE INSERT ON settings FOR EACH ROW
         BEGIN /* kept; whole */ SET NEW.v = trim(NEW.v); END//"
            .as_bytes(),
    );
}

/// All that the tables of [`fill`] hold, as the server states it.
fn held(server: &Server, database: &str) -> Vec<String> {
    let mut connection = server.connect();
    connection.query_drop(format!("USE `{database}`")).unwrap();
    let mut held = Vec::new();
    for query in [
        "SELECT concat_ws('/', id, coalesce(hex(v), 'NULL')) FROM settings ORDER BY id",
        "SELECT concat_ws('/', id, cast(f AS DOUBLE), hex(b), coalesce(t, 'NULL')) FROM people ORDER BY id",
        "SELECT action_statement FROM information_schema.triggers WHERE trigger_schema = database()",
    ] {
        held.extend(connection.query::<String, _>(query).unwrap());
    }
    held
}

/// Starts, answers, states the version that the kind promises, and goes there and back.
fn is_what_it_is_taken_for(kind: Kind, version: &str) {
    let Some(server) = shared(kind) else {
        return;
    };
    assert_eq!(server.kind(), kind);
    let stated: Option<String> = server.connect().query_first("SELECT version()").unwrap();
    let stated = stated.unwrap();
    assert!(
        stated.starts_with(version),
        "{kind:?} states version {stated}"
    );
    assert_eq!(
        stated.to_lowercase().contains("mariadb"),
        !kind.is_mysql(),
        "{kind:?} states version {stated}"
    );

    fill(server, "kind_from");
    let site = Site::new(server, "kind_from", &lists());
    let planned = run(site.command("plan", &["--json"])).expect_code(0);
    assert!(planned.stdout.contains("people"), "{}", planned.stdout);
    site.backup_ok(&[]);

    server.create_database("kind_to");
    load(server, "kind_to", &[&site.host(), &site.latest()]);
    let expected = held(server, "kind_from");
    assert_eq!(expected.len(), 6, "{expected:?}");
    assert_eq!(expected, held(server, "kind_to"));
}

#[test]
fn the_installed_server_is_mariadb_10_11() {
    is_what_it_is_taken_for(Kind::MariaDb10, "10.11.");
}

#[test]
fn the_unpacked_mariadb_is_11_8() {
    is_what_it_is_taken_for(Kind::MariaDb11, "11.8.");
}

#[test]
fn the_unpacked_mysql_is_9() {
    is_what_it_is_taken_for(Kind::MySql9, "9.");
}

#[test]
fn each_kind_comes_with_the_binary_log_that_its_product_comes_with() {
    for server in Kind::ALL.into_iter().filter_map(shared) {
        let log: Option<bool> = server.connect().query_first("SELECT @@log_bin").unwrap();
        assert_eq!(log, Some(server.kind().is_mysql()), "{:?}", server.kind());
    }
}

/// A MySQL that is reached over TCP, by a user who must come with TLS. It makes certificates of
/// its own, and its users' passwords are `caching_sha2_password`.
pub(crate) struct Secure {
    pub(crate) server: Server,
    port: String,
    password: String,
}

impl Secure {
    /// `None` after saying that the test is skipped.
    pub(crate) fn start() -> Option<Secure> {
        let port = format!("--port={}", free_port());
        let server = Server::start_kind(Kind::MySql9, &[&port])?;
        let password = server.create_user("secure", &["ALL ON *.*"]);
        server.execute(&["ALTER USER secure REQUIRE SSL"]);
        let plugin: Option<String> = server
            .connect()
            .query_first("SELECT plugin FROM mysql.user WHERE user = 'secure'")
            .unwrap();
        assert_eq!(plugin.as_deref(), Some("caching_sha2_password"));
        Some(Secure {
            server,
            port,
            password,
        })
    }

    /// A site that comes to it this way, with the given `--ssl-mode`.
    pub(crate) fn site(&self, database: &str, mode: &str, lists: &Lists) -> Site {
        let site = Site::offline(lists);
        let password = site.write_private("password", &self.password);
        site.connect_by(&[
            "--host=127.0.0.1",
            &self.port,
            "--user=secure",
            &format!("--database={database}"),
            &format!("--password-file={}", password.display()),
            &format!("--ssl-mode={mode}"),
            &format!("--ssl-ca={}", self.server.ca().display()),
        ])
    }
}

/// Over TLS the driver sends statements, which takes text only, and rows have bytes of all kinds.
#[test]
fn mysql_over_tcp_with_tls_gives_the_same_files_as_its_socket_and_both_restore() {
    let Some(secure) = Secure::start() else {
        return;
    };
    let server = &secure.server;
    fill(server, "tls");
    server.feed(
        "tls",
        "bytes of all kinds",
        b"CREATE TABLE bytes (id INT PRIMARY KEY, l VARCHAR(40) CHARACTER SET latin1, b BLOB, g TEXT CHARACTER SET gbk);
          INSERT INTO bytes VALUES (1, X'E9FF27', X'00FF0A275C1A80', X'815CC4E3'), (2, NULL, '', 'x');",
    );
    let by_socket = Site::new(server, "tls", &lists());
    by_socket.backup_ok(&[]);
    let files = |site: &Site| {
        let data = contents(&site.latest().join("data"));
        assert!(!data.is_empty());
        (contents(&site.host().join("structure")), data)
    };
    for mode in ["required", "verify-ca"] {
        let by_tcp = secure.site("tls", mode, &lists());
        by_tcp.backup_ok(&[]);
        assert!(files(&by_socket) == files(&by_tcp), "{mode}: other files");
        for (site, other) in [(&by_socket, &by_tcp), (&by_tcp, &by_socket)] {
            let mut verify = site.command("verify", &[other.host(), other.latest()]);
            verify.arg("--against");
            run(verify).expect_code(0);
            server.execute(&["DROP DATABASE IF EXISTS tls_again"]);
            let dirs = [site.host(), site.latest()];
            let dirs: Vec<_> = dirs.iter().map(|dir| dir.as_path()).collect();
            run(site.restore_command(&dirs, "tls_again", &[])).expect_code(0);
            let restored = fingerprint(server, "tls_again");
            assert_same(&fingerprint(server, "tls"), &restored);
        }
    }
}
