//! Where connection settings come from, and which of several wins.

use tempfile::TempDir;

use super::*;

/// A home, a system file and sockets, all in a temporary directory.
struct Machine {
    directory: TempDir,
    environment: Environment,
    flags: ConnectionOverrides,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let environment = Environment {
            home: Some(path("")),
            password: None,
            system_credentials: path("system.yaml"),
            user: "me".to_owned(),
            sockets: vec![path("no.sock"), path("server.sock")],
        };
        let flags = ConnectionOverrides {
            database: Some("csv2".to_owned()),
            ..Default::default()
        };
        Machine {
            directory,
            environment,
            flags,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Option<PathBuf> {
        fs::write(self.path(name), content).unwrap();
        self.chmod(name, 0o600);
        Some(self.path(name))
    }

    fn chmod(&self, name: &str, mode: u32) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn resolve(&self) -> ConnectionSettings {
        ConnectionSettings::resolve(&self.flags, &self.environment).unwrap()
    }

    fn address(&self) -> (Option<String>, Option<PathBuf>) {
        let settings = self.resolve();
        (settings.host, settings.socket)
    }

    fn password(&self) -> Option<String> {
        self.resolve().password.map(|p| p.expose().to_owned())
    }

    fn error(&self) -> Error {
        let error = ConnectionSettings::resolve(&self.flags, &self.environment).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error
    }
}

fn host(name: &str) -> (Option<String>, Option<PathBuf>) {
    (Some(name.to_owned()), None)
}

#[test]
fn a_secret_does_not_print() {
    let mut flags = ConnectionOverrides {
        password: Some(Secret::new("hunter2".into())),
        ..Default::default()
    };
    assert!(!format!("{flags:#?}").contains("hunter2"));
    flags.database = Some("d".into());
    let settings = ConnectionSettings::resolve(&flags, &Machine::new().environment).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert_eq!(settings.password.unwrap().clone().expose(), "hunter2");
}

#[test]
fn modes_of_tls_have_two_spellings() {
    for (name, mode) in SslMode::NAMES {
        assert_eq!(mode.to_string(), name);
        assert_eq!(name.parse(), Ok(mode));
        assert_eq!(name.to_uppercase().replace('-', "_").parse(), Ok(mode));
    }
    assert!("verify".parse::<SslMode>().is_err());
    assert_eq!(SslMode::default(), SslMode::Preferred);
}

#[test]
fn nothing_said_means_the_defaults() {
    let machine = Machine::new();
    let settings = machine.resolve();
    assert_eq!(
        (
            settings.port,
            settings.user.as_str(),
            settings.database.as_str()
        ),
        (3306, "me", "csv2")
    );
    assert!(settings.password.is_none() && settings.host.is_none() && settings.socket.is_none());
    assert_eq!(settings.tls.mode, SslMode::Preferred);
}

#[test]
fn each_setting_comes_from_the_strongest_source() {
    let mut machine = Machine::new();
    machine.flags.database = None;
    machine.file(".my.cnf", "[client]\nuser=home\ndatabase=home\n");
    assert_eq!(machine.resolve().user, "home");
    machine.file(
        "system.yaml",
        "general: {a: 1}\ndatabase:\n  db_user: system\n  db_name: csv2\n  db_port: '3307'\n",
    );
    assert_eq!(machine.resolve().user, "system");
    machine.flags.db_config = machine.file(
        "db.yaml",
        "database: {db_user: named, db_port: 3308, other: [1]}\n",
    );
    assert_eq!(machine.resolve().user, "named");
    assert_eq!(machine.resolve().port, 3308);
    machine.flags.defaults_file = machine.file("defaults.cnf", "[client]\nuser=defaults\n");
    assert_eq!(machine.resolve().user, "defaults");
    machine.flags.defaults_extra_file = machine.file("extra.cnf", "[client]\nuser=extra\n");
    assert_eq!(machine.resolve().user, "extra");
    machine.flags.user = Some("flag".into());
    assert_eq!(machine.resolve().user, "flag");
    assert_eq!(machine.resolve().database, "csv2");
}

#[test]
fn a_defaults_file_replaces_the_one_at_home() {
    let mut machine = Machine::new();
    machine.file(".my.cnf", "[client]\nport=hunter2\n");
    assert!(
        machine
            .error()
            .to_string()
            .ends_with(".my.cnf: line 2: `port` is not a port")
    );
    machine.flags.defaults_file = machine.file("defaults.cnf", "");
    assert_eq!(machine.resolve().port, 3306);
}

#[test]
fn a_missing_database_says_where_to_name_one() {
    let mut machine = Machine::new();
    machine.flags.database = None;
    let error = machine.error();
    let hint = error.hint_text().unwrap();
    for word in ["--database", "db_name", "database=", "system.yaml"] {
        assert!(hint.contains(word), "{hint}");
    }
}

#[test]
fn a_named_file_has_to_be_there() {
    let set: [fn(&mut ConnectionOverrides, PathBuf); 4] = [
        |flags, path| flags.defaults_file = Some(path),
        |flags, path| flags.defaults_extra_file = Some(path),
        |flags, path| flags.db_config = Some(path),
        |flags, path| flags.password_file = Some(path),
    ];
    for set in set {
        let mut machine = Machine::new();
        let path = machine.path("gone");
        set(&mut machine.flags, path.clone());
        let error = machine.error();
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot read {}", path.display())),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_exists_but_cannot_be_read_is_an_error() {
    let machine = Machine::new();
    fs::create_dir(machine.path("system.yaml")).unwrap();
    assert!(machine.error().to_string().contains("system.yaml"));
    let machine = Machine::new();
    fs::create_dir(machine.path(".my.cnf")).unwrap();
    assert!(machine.error().to_string().contains(".my.cnf"));
}

#[test]
fn the_system_file_need_not_be_readable_for_who_names_another() {
    let mut machine = Machine::new();
    fs::create_dir(machine.path("system.yaml")).unwrap();
    machine.error();
    machine.flags.db_config = machine.file("own.yaml", "database: {db_user: other}\n");
    assert_eq!(machine.resolve().user, "other");
}

#[test]
fn passwords_in_order() {
    let mut machine = Machine::new();
    machine.file(".my.cnf", "[client]\npassword=home\n");
    assert_eq!(machine.password().as_deref(), Some("home"));
    machine.file("system.yaml", "database: {db_password: ''}");
    assert_eq!(machine.password(), None, "stated as none");
    machine.file("system.yaml", "database: {db_password: }");
    assert_eq!(machine.password().as_deref(), Some("home"), "not stated");
    machine.file("system.yaml", "database: {db_password: '0123'}");
    assert_eq!(machine.password().as_deref(), Some("0123"));
    machine.environment.password = Some(Secret::new("environment".into()));
    assert_eq!(machine.password().as_deref(), Some("environment"));
    machine.flags.password_file = machine.file("password", "  file \r\nmore\n");
    assert_eq!(machine.password().as_deref(), Some("  file "));
    machine.flags.password = Some(Secret::new("prompt".into()));
    assert_eq!(machine.password().as_deref(), Some("prompt"));
    machine.flags.password = Some(Secret::new(String::new()));
    assert_eq!(machine.password(), None);
}

#[test]
fn a_password_file_without_password_is_an_error() {
    for content in [b"".as_slice(), b"\n", b"\r\nsecond\n", b"\xff"] {
        let mut machine = Machine::new();
        machine.flags.password_file = machine.file("password", content);
        assert!(machine.error().to_string().contains("password: line 1: "));
    }
}

#[test]
fn localhost_is_the_socket() {
    let mut machine = Machine::new();
    assert_eq!(machine.address(), (None, None), "no socket exists");
    machine.flags.host = Some("localhost".into());
    assert_eq!(machine.address(), host("localhost"));
    machine.file("server.sock", "");
    let found = Some(machine.path("server.sock"));
    assert_eq!(machine.address(), (Some("localhost".into()), found.clone()));
    machine.flags.host = None;
    assert_eq!(machine.address(), (None, found));
    machine.file(".my.cnf", "[client]\nsocket=/home.sock\n");
    assert_eq!(machine.address(), (None, Some("/home.sock".into())));
    machine.file("system.yaml", "database: {db_host: LocalHost}");
    assert_eq!(
        machine.address(),
        (Some("LocalHost".into()), Some("/home.sock".into()))
    );
}

#[test]
fn the_strongest_that_names_host_or_socket_decides() {
    let mut machine = Machine::new();
    machine.file("server.sock", "");
    machine.file(".my.cnf", "[client]\nsocket=/home.sock\n");
    machine.file("system.yaml", "database: {db_host: db.example}");
    assert_eq!(machine.address(), host("db.example"));
    machine.flags.defaults_extra_file = machine.file("extra.cnf", "[client]\nsocket=/extra.sock\n");
    assert_eq!(machine.address(), (None, Some("/extra.sock".into())));
    machine.flags.host = Some("127.0.0.1".into());
    assert_eq!(machine.address(), host("127.0.0.1"));
    machine.flags.socket = Some("/flag.sock".into());
    assert_eq!(
        machine.error().to_string(),
        "--socket and --host name two different servers"
    );
    for name in [None, Some(String::new()), Some("localhost".to_owned())] {
        machine.flags.host = name;
        assert_eq!(machine.address().1, Some("/flag.sock".into()));
    }
}

#[test]
fn what_only_tcp_has_makes_localhost_tcp() {
    let mut machine = Machine::new();
    machine.file("server.sock", "");
    machine.file(".my.cnf", "[client]\nport=3307\n");
    assert!(
        machine.address().1.is_some(),
        "a port in a file is only a default"
    );
    machine.flags.port = Some(3308);
    assert_eq!(machine.address(), host("localhost"));
    machine.flags.port = None;
    for mode in [
        SslMode::Required,
        SslMode::VerifyCa,
        SslMode::VerifyIdentity,
    ] {
        machine.flags.ssl_mode = Some(mode);
        assert_eq!(machine.address(), host("localhost"));
    }
    machine.flags.socket = Some("/flag.sock".into());
    assert_eq!(machine.address(), (None, Some("/flag.sock".into())));
    machine.flags.port = Some(0);
    assert_eq!(machine.error().to_string(), "port 0 is not a port");
}

#[test]
fn switches_move_the_mode_of_weaker_sources() {
    let mut machine = Machine::new();
    let mode = |machine: &Machine| machine.resolve().tls.mode;
    machine.file(".my.cnf", "[client]\nssl-verify-server-cert\nssl-ca=/ca\n");
    machine.flags.defaults_extra_file = machine.file("extra.cnf", "[client]\nssl\n");
    assert_eq!(mode(&machine), SslMode::VerifyIdentity);
    machine.file("extra.cnf", "[client]\nssl-verify-server-cert=0\n");
    assert_eq!(mode(&machine), SslMode::Required);
    machine.file("extra.cnf", "[client]\nssl-mode=verify-ca\n");
    assert_eq!(mode(&machine), SslMode::VerifyCa);
    machine.file("extra.cnf", "[client]\nskip-ssl\n");
    assert_eq!(mode(&machine), SslMode::Disabled);
    machine.flags.ssl_mode = Some(SslMode::Preferred);
    assert_eq!(mode(&machine), SslMode::Preferred);
    assert_eq!(machine.resolve().tls.ca, Some("/ca".into()));
}

#[test]
fn certificate_and_key_belong_together() {
    let mut machine = Machine::new();
    machine.flags.ssl_cert = Some("/cert".into());
    assert!(machine.error().to_string().contains("without its key"));
    machine.file(".my.cnf", "[client]\nssl-key=/key\n");
    assert_eq!(machine.resolve().tls.key, Some("/key".into()));
    machine.flags.ssl_cert = None;
    assert!(
        machine
            .error()
            .to_string()
            .contains("without its certificate")
    );
}

#[test]
fn errors_in_yaml_name_the_place_and_no_value() {
    let cases = [
        (
            "database:\n  db_port: hunter2 secret\n",
            ": line 2: `db_port` is not a port",
        ),
        (
            "database:\n  db_port: \"hunter2 secret\"\n",
            ": line 2: `db_port` is not a port",
        ),
        (
            "database:\n  db_port: 65536\n",
            ": line 2: `db_port` is not a port",
        ),
        (
            "database:\n  db_port: 0\n",
            ": line 2: `db_port` is not a port",
        ),
        (
            "database:\n  db_host: h\n  db_password: 13579\n",
            ": line 3: the value of `db_password` must be quoted",
        ),
        (
            "database:\n  db_password: 1.5e3\n",
            ": line 2: the value of `db_password` must be quoted",
        ),
        (
            "database:\n  db_password: true\n",
            ": line 2: the value of `db_password` must be quoted",
        ),
        (
            "database:\n  db_password: [hunter2]\n",
            ": line 2: the value of `db_password` must be quoted",
        ),
        ("database:\n  db_password: !hunter2 x\n", ": line 2"),
        ("database:\n  db_password: *hunter2\n", ": line 2"),
        ("database:\n  db_password: @hunter2\n", ": line 2"),
        ("database:\n  db_password:\thunter2: x\n", ": line 2"),
        ("database:\n\tdb_password: hunter2\n", ": line 2"),
        ("database:\n  db_password: 'hunter2\n", ": line "),
        ("database:\n  db_password: \"\\hunter2\"\n", ": line 2"),
        ("database: hunter2\n", ": line 1"),
        ("database: {db_user: a, db_user: hunter2}\n", ": line 1"),
        ("hunter2\n", ""),
        (
            "database: {}\n---\nhunter2: 1\n",
            "not valid YAML, or not the form",
        ),
        ("", ": no `database:` section"),
        ("# nothing\n", ": no `database:` section"),
        ("database:\n", ": no `database:` section"),
        ("general: {hunter2: x}\n", ": no `database:` section"),
    ];
    for (content, expected) in cases {
        let mut machine = Machine::new();
        machine.file("system.yaml", content);
        let system = machine.error();
        fs::remove_file(machine.path("system.yaml")).unwrap();
        machine.flags.db_config = machine.file("db.yaml", content);
        let named = machine.error();
        for (error, name) in [(system, "system.yaml"), (named, "db.yaml")] {
            let message = error.to_string();
            assert!(
                message.contains(name) && message.contains(expected),
                "{content:?}: {message}"
            );
            for secret in ["hunter2", "13579", "1.5e3", "1500", "secret"] {
                let shown = format!("{message} {:?} {error:?}", error.hint_text());
                assert!(!shown.contains(secret), "{content:?}: {shown}");
            }
        }
    }
    let machine = Machine::new();
    machine.file("system.yaml", b"database:\n  db_password: hunter2\xff\n");
    assert!(!machine.error().to_string().contains("hunter2"));
}

#[test]
fn a_user_is_found_by_number() {
    let passwd = "root:x:0:0::/root:/bin/sh\nshort\nbackup:x:34:34::/:/bin/sh\n";
    assert_eq!(user_of(passwd, 34).as_deref(), Some("backup"));
    assert_eq!(user_of(passwd, 35), None);
    assert!(!Environment::from_process().user.is_empty());
}

#[test]
fn a_file_with_the_password_that_others_can_read_is_refused_unless_told_so() {
    let yaml = "database: {db_user: u, db_password: hunter2}\n";
    let options = "[client]\nuser=u\npassword=hunter2\n";
    type Name = fn(&mut ConnectionOverrides, Option<PathBuf>);
    let kinds: [(&str, &str, Name); 6] = [
        ("system.yaml", yaml, |_, _| {}),
        (".my.cnf", options, |_, _| {}),
        ("db.yaml", yaml, |flags, file| flags.db_config = file),
        ("my.cnf", options, |flags, file| flags.defaults_file = file),
        ("x.cnf", options, |flags, file| {
            flags.defaults_extra_file = file
        }),
        ("pw", "hunter2\n", |flags, file| flags.password_file = file),
    ];
    for (name, content, set) in kinds {
        let mut machine = Machine::new();
        let file = machine.file(name, content);
        set(&mut machine.flags, file);
        assert_eq!(machine.password().as_deref(), Some("hunter2"), "{name}");
        for mode in [0o640, 0o604, 0o620, 0o602] {
            machine.chmod(name, mode);
            let error = machine.error();
            let said = error.to_string();
            assert!(
                said.contains(name) && said.contains(&format!("{mode:04o}")),
                "{said}"
            );
            assert!(!said.contains("hunter2"), "{said}");
            let hint = error.hint_text().unwrap();
            assert!(
                hint.contains("chmod 600") && hint.contains("--allow-readable"),
                "{hint}"
            );
        }
        machine.flags.exposure = Exposure::Allowed;
        assert_eq!(machine.password().as_deref(), Some("hunter2"), "{name}");
    }
}

#[test]
fn a_file_that_others_can_read_may_say_everything_but_the_password_that_is_used() {
    let mut machine = Machine::new();
    machine.file("system.yaml", "database: {db_host: h, db_password: old}\n");
    machine.file(".my.cnf", "[client]\nuser=u\n");
    machine.chmod("system.yaml", 0o644);
    machine.chmod(".my.cnf", 0o644);
    machine.error();
    machine.flags.password_file = machine.file("pw", "new\n");
    assert_eq!(machine.password().as_deref(), Some("new"));
    assert_eq!(machine.resolve().user, "u");

    // An included file is looked at by itself.
    let machine = Machine::new();
    machine.file("more.cnf", "[client]\npassword=hunter2\n");
    machine.file(".my.cnf", "!include more.cnf\n");
    machine.chmod(".my.cnf", 0o644);
    assert_eq!(machine.password().as_deref(), Some("hunter2"));
    machine.chmod("more.cnf", 0o644);
    assert!(machine.error().to_string().contains("more.cnf"));
}
