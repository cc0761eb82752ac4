//! The ways to the server: TCP with TLS gives the same backup as the socket, option files are
//! read, and a refusal is told from other failures.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::{Server, free_port, with_binlog};
use crate::site::{Lists, Site, contents};

fn lists() -> Lists<'static> {
    Lists {
        global: vec!["settings"],
        local: vec!["people"],
        ..Lists::default()
    }
}

fn fill(server: &Server, database: &str) {
    server.create_database(database);
    server.feed(
        database,
        "the tables",
        b"CREATE TABLE settings (id INT PRIMARY KEY, f FLOAT, d DOUBLE, t TIMESTAMP(6) NULL, b BIT(9));
          INSERT INTO settings SELECT seq, 16777217 / seq, pi() * seq, '2024-02-29' + INTERVAL seq SECOND, seq
            FROM seq_1_to_400;
          CREATE TABLE people (a INT, b VARCHAR(40), c LONGBLOB, PRIMARY KEY (a, b));
          INSERT INTO people SELECT seq % 9, md5(seq), if(seq % 4, unhex(sha2(seq, 512)), NULL) FROM seq_1_to_20000;
          ANALYZE TABLE settings, people;",
    );
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output();
    let output = output.unwrap_or_else(|e| panic!("cannot run openssl: {e}"));
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A certificate authority, a certificate of the server for 127.0.0.1 by it, and a stranger's.
pub(crate) fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let new = "req -x509 -newkey rsa:2048 -nodes -days 3";
    for name in ["ca", "stranger"] {
        openssl(
            dir.path(),
            &format!("{new} -keyout {name}.key -out {name}.pem -subj /CN={name}"),
        );
    }
    openssl(
        dir.path(),
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
    );
    std::fs::write(
        dir.path().join("names"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n",
    )
    .unwrap();
    openssl(
        dir.path(),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile names -out server.pem",
    );
    dir
}

/// A server that offers TLS on a port of 127.0.0.1, with [`certificates`].
pub(crate) fn start_secure(certificates: &tempfile::TempDir, more: &[&str]) -> Option<Server> {
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let own = [
        format!("--port={}", free_port()),
        format!("--ssl-ca={}", file("ca.pem")),
        format!("--ssl-cert={}", file("server.pem")),
        format!("--ssl-key={}", file("server.key")),
    ];
    let options: Vec<_> = own
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    Server::start(&options)
}

#[test]
fn tls_over_tcp_gives_the_same_files_as_the_socket() {
    let certificates = certificates();
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let Some(server) = start_secure(&certificates, &["--log-bin=binlog"]) else {
        return;
    };
    fill(&server, "tls");
    // Rows at and above the size at which the protocol continues a row in a further packet.
    let around =
        "SELECT seq, 'around 16 MiB', repeat('x', 16777211 - 24 + seq) FROM tls.seq_1_to_14";
    server.execute(&[&format!("INSERT INTO tls.people {around}")]);
    let password = server.create_user("secure", &["ALL ON *.*"]);
    server.execute(&["ALTER USER secure REQUIRE SSL"]);

    let by_socket = Site::new(&server, "tls", &lists());
    by_socket.backup_ok(&["--chunk-size", "512K"]);

    let over_tcp = |mode: &str, ca: &str| {
        let site = Site::offline(&lists());
        let password_file = site.write_private("password", &password);
        let port = server.port.unwrap();
        let flags = [
            "--host=127.0.0.1".to_owned(),
            format!("--port={port}"),
            "--user=secure".to_owned(),
            "--database=tls".to_owned(),
            format!("--password-file={}", password_file.display()),
            format!("--ssl-mode={mode}"),
            format!("--ssl-ca={}", file(ca)),
        ];
        let without_ca = if ca.is_empty() { 6 } else { 7 };
        site.connect_by(
            &flags[..without_ca]
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
    };
    for (mode, ca) in [
        ("required", ""),
        ("verify-ca", "ca.pem"),
        ("verify-identity", "ca.pem"),
    ] {
        let site = over_tcp(mode, ca);
        site.backup_ok(&["--chunk-size", "512K"]);
        for part in ["data", "structure"] {
            assert!(
                contents(&site.host().join(part)) == contents(&by_socket.host().join(part)),
                "{mode}: host {part}"
            );
            assert!(
                contents(&site.latest().join(part)) == contents(&by_socket.latest().join(part)),
                "{mode}: user {part}"
            );
        }
    }
    // A server that a stranger vouches for is not ours; without TLS this user may not enter.
    over_tcp("verify-ca", "stranger.pem")
        .backup(&[])
        .expect_code(10);
    over_tcp("disabled", "").backup(&[]).expect_code(10);
}

#[test]
fn option_files_say_where_the_server_is_and_flags_win() {
    let Some(server) = with_binlog() else { return };
    fill(server, "option_files");
    let password = server.create_user("from_file", &["ALL ON *.*"]);
    let content = format!(
        "[mysqld]\nuser = somebody\n[client]\nsocket = {}\nuser = from_file\npassword = '{password}' # quoted\n",
        server.socket().display()
    );
    let in_file = |name: &str, content: &str| {
        let site = Site::offline(&lists());
        let path: PathBuf = site.write_private(name, content);
        (site, path)
    };
    let (site, path) = in_file("my.cnf", &content);
    let defaults = format!("--defaults-file={}", path.display());
    site.connect_by(&[&defaults, "--database=option_files"])
        .backup_ok(&[]);

    // The user's own, without any flag for it.
    let (site, _) = in_file(".my.cnf", &content);
    site.connect_by(&["--database=option_files"]).backup_ok(&[]);

    let (site, path) = in_file(
        "my.cnf",
        &content.replace("user = from_file", "user = nobody"),
    );
    let defaults = format!("--defaults-file={}", path.display());
    site.connect_by(&[&defaults, "--database=option_files", "--user=from_file"])
        .backup_ok(&[]);
}

#[test]
fn the_configuration_of_cloudscheduler_says_where_the_server_is() {
    let port = free_port();
    let Some(server) = Server::start(&[&format!("--port={port}"), "--log-bin=binlog"]) else {
        return;
    };
    fill(&server, "cloudscheduler");
    let password = server.create_user("csv2", &["ALL ON *.*"]);
    let site = Site::offline(&lists());
    let content = format!(
        "database:\n  db_host: 127.0.0.1\n  db_port: \"{port}\"\n  db_user: csv2\n  db_password: {password}\n  \
         db_name: cloudscheduler\nweb:\n  anything: [1, 2]\n"
    );
    let file = site.write_private("cloudscheduler.yaml", &content);
    site.connect_by(&[&format!("--db-config={}", file.display())])
        .backup_ok(&[]);
}

#[test]
fn wrong_credentials_and_absent_servers_end_with_10() {
    let Some(server) = with_binlog() else { return };
    fill(server, "refused");
    let site = Site::offline(&lists()).connect_as(server, "refused", "root", "not the password");
    site.backup(&[]).expect_code(10).expect_said("1045");
    let site = Site::new(server, "no_such_database", &lists());
    site.backup(&[])
        .expect_code(10)
        .expect_said("no_such_database");
    let site = Site::offline(&lists());
    let nowhere = format!("--socket={}", site.path("nobody.sock").display());
    site.connect_by(&[&nowhere, "--user=root", "--database=d"])
        .backup(&[])
        .expect_code(10)
        .expect_said("nobody.sock");
}
