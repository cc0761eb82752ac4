//! Option files of the stock client (`my.cnf`), as far as they concern a connection.
//!
//! Reads what the stock client would read, quotes, escapes and comments included, so that
//! a file that works there works here. Unlike there, an included file that is missing, a
//! line outside any group and a broken value are errors; and a relative `!include` starts
//! at the directory of the file it stands in. Called by `connection`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;

use super::SslMode;
use super::connection::{Secret, Stated, TlsWish, read_named};
use crate::error::{Error, ErrorKind, Result};

/// The groups of a client. `[mariadb]`, for one, is the server's.
const GROUPS: [&[u8]; 6] = [
    b"client",
    b"client-server",
    b"client-mariadb",
    b"mariadb-client",
    b"mysql",
    b"schema_backup",
];

/// Files within files; also what ends a file that includes itself.
const MAX_DEPTH: usize = 8;

/// Reads an option file and what it includes. Of several entries the last one counts.
pub(super) fn read(path: &Path) -> Result<Stated> {
    let mut stated = Stated::default();
    read_into(path, 0, &mut stated)?;
    Ok(stated.without_empty())
}

fn read_into(path: &Path, depth: usize, stated: &mut Stated) -> Result<()> {
    parse(path, &read_named(path)?, depth, stated)
}

fn parse(path: &Path, content: &[u8], depth: usize, stated: &mut Stated) -> Result<()> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut group = Group::None;
    for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let at = Place {
            path,
            line: index + 1,
        };
        let line = line.trim_ascii();
        match line.first() {
            None | Some(b'#' | b';') => {}
            Some(b'!') => include(at, line, depth, stated)?,
            Some(b'[') => match line.iter().position(|&byte| byte == b']') {
                Some(end) if GROUPS.contains(&line[1..end].trim_ascii()) => group = Group::Ours,
                Some(_) => group = Group::Other,
                None => return Err(at.error("the name of a group does not end in `]`")),
            },
            Some(_) => match group {
                Group::Ours => entry(at, line, stated)?,
                Group::Other => {}
                Group::None => {
                    return Err(at
                        .error("an entry stands in front of the first group")
                        .hint("begin with [client]"));
                }
            },
        }
    }
    Ok(())
}

enum Group {
    None,
    Ours,
    Other,
}

#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    line: usize,
}

impl Place<'_> {
    /// `what` never holds a value of the file: it may be the password.
    fn error(self, what: &str) -> Error {
        Error::new(
            ErrorKind::Config,
            format!("{}: line {}: {what}", self.path.display(), self.line),
        )
    }
}

/// `!include FILE` or `!includedir DIRECTORY`; other words are ignored, as the stock client does.
fn include(at: Place<'_>, line: &[u8], depth: usize, stated: &mut Stated) -> Result<()> {
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    let (word, name) = line.split_at(end);
    let is_directory = match word {
        b"!include" => false,
        b"!includedir" => true,
        _ => return Ok(()),
    };
    let name = name.trim_ascii();
    if name.is_empty() {
        return Err(at.error("nothing is named to include"));
    }
    if depth == MAX_DEPTH {
        return Err(at
            .error("too many files within files")
            .hint("does the file include itself?"));
    }
    let target = at
        .path
        .parent()
        .unwrap_or(Path::new(""))
        .join(OsStr::from_bytes(name));
    let files = if is_directory {
        files_of(at, &target)?
    } else {
        vec![target]
    };
    let outer = format!("{}: line {}", at.path.display(), at.line);
    files.iter().try_for_each(|file| {
        read_into(file, depth + 1, stated).map_err(|error| error.within(&outer))
    })
}

/// The `*.cnf` of a directory, by name.
fn files_of(at: Place<'_>, directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| {
        at.error(&format!(
            "cannot read the directory {}",
            directory.display()
        ))
        .because(error)
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension() == Some(OsStr::new("cnf")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn entry(at: Place<'_>, line: &[u8], stated: &mut Stated) -> Result<()> {
    let Ok(line) = std::str::from_utf8(without_comment(line)) else {
        return Err(at.error("not UTF-8"));
    };
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (
            key,
            Some(Zeroizing::new(unescape(unquote(value.trim_ascii())))),
        ),
        None => (line, None),
    };
    let key = key.trim_ascii().replace('_', "-");
    let key = key.strip_prefix("loose-").unwrap_or(&key);
    let text = || {
        value
            .as_deref()
            .cloned()
            .ok_or_else(|| at.error(&format!("`{key}` has no value")))
    };
    match key {
        "host" => stated.host = Some(text()?),
        "port" => match text()?.parse() {
            Ok(port @ 1u16..) => stated.port = Some(port),
            _ => {
                return Err(at
                    .error("`port` is not a port")
                    .hint("a port is a number from 1 to 65535"));
            }
        },
        "socket" => stated.socket = Some(text()?.into()),
        "user" => stated.user = Some(text()?),
        "password" => match value {
            Some(mut value) => {
                stated.password = Some(Secret::new(std::mem::take(&mut value)));
                stated.password_from = Some(at.path.to_owned());
            }
            None => {
                return Err(at.error("`password` has no value").hint(
                    "write the password after `=`, or remove the line and ask for a prompt",
                ));
            }
        },
        "database" => stated.database = Some(text()?),
        "ssl-mode" => match text()?.parse() {
            Ok(mode) => stated.tls.push(TlsWish::Mode(mode)),
            Err(_) => {
                let names = SslMode::NAMES.map(|(name, _)| name).join(", ");
                return Err(at
                    .error("`ssl-mode` is not a mode")
                    .hint(format!("it is one of {names}")));
            }
        },
        "ssl-ca" => stated.ssl_ca = Some(text()?.into()),
        "ssl-cert" => stated.ssl_cert = Some(text()?.into()),
        "ssl-key" => stated.ssl_key = Some(text()?.into()),
        _ => {
            let (name, on) = match key.split_once('-') {
                Some(("skip" | "disable", name)) => (name, false),
                Some(("enable", name)) => (name, true),
                _ => (key, true),
            };
            let wish = |on| match (name, on) {
                ("ssl", true) => Some(TlsWish::Encrypt),
                ("ssl", false) => Some(TlsWish::Mode(SslMode::Disabled)),
                ("ssl-verify-server-cert", true) => Some(TlsWish::Verify),
                ("ssl-verify-server-cert", false) => Some(TlsWish::NoVerify),
                _ => None,
            };
            if wish(on).is_some() {
                let stated_on = match value
                    .as_ref()
                    .map(|text| text.to_ascii_lowercase())
                    .as_deref()
                {
                    None | Some("1" | "true" | "on") => true,
                    Some("0" | "false" | "off") => false,
                    Some(_) => return Err(at.error(&format!("`{name}` is neither on nor off"))),
                };
                stated.tls.extend(wish(on == stated_on));
            }
        }
    }
    Ok(())
}

/// A `#` outside quotes ends the line, whatever stands in front of it; inside quotes a
/// backslash protects a quote (`remove_end_comment` of the stock client).
fn without_comment(line: &[u8]) -> &[u8] {
    let mut quote = None;
    let mut escaped = false;
    for (i, &byte) in line.iter().enumerate() {
        if matches!(byte, b'\'' | b'"') && !escaped {
            match quote {
                None => quote = Some(byte),
                Some(open) if open == byte => quote = None,
                Some(_) => {}
            }
        }
        if quote.is_none() && byte == b'#' {
            return &line[..i];
        }
        escaped = quote.is_some() && byte == b'\\' && !escaped;
    }
    line
}

fn unquote(value: &str) -> &str {
    ['\'', '"']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

/// An unknown escape, and a backslash at the end, stay as they are.
fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('s') => text.push(' '),
            Some(c @ ('\\' | '\'' | '"')) => text.push(c),
            Some(c) => text.extend(['\\', c]),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(content: impl AsRef<[u8]>) -> Result<Stated> {
        let mut stated = Stated::default();
        parse(Path::new("my.cnf"), content.as_ref(), 0, &mut stated)?;
        Ok(stated.without_empty())
    }

    fn password(value: &str) -> String {
        let stated = parsed(format!("[client]\npassword{value}\n")).unwrap();
        stated.password.unwrap().expose().to_owned()
    }

    fn error(content: impl AsRef<[u8]>) -> String {
        let error = parsed(content).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn client_groups_count_and_the_last_entry_wins() {
        let stated = parsed(
            "# top\n; too\n!strange\n[mysqld]\nport=1\nuser = mysql\n[ client ] # ours\r\nloose_host = h1 \r\nport=3307\n\
             [mariadb]\nhost=server\n[mysql]\nhost=h2\nsocket=/s\ndatabase=csv2\nno_auto_rehash\n\
             [schema_backup]\nuser=backup\nssl_ca=/ca\nssl-cert=/c\nssl-key=/k\n[client]\nuser=\n",
        )
        .unwrap();
        assert_eq!(stated.host.as_deref(), Some("h2"));
        assert_eq!(stated.port, Some(3307));
        assert_eq!(stated.socket, Some("/s".into()));
        assert_eq!(stated.database.as_deref(), Some("csv2"));
        assert_eq!(stated.user, None, "stated as empty");
        assert_eq!(stated.ssl_ca, Some("/ca".into()));
        assert_eq!(stated.ssl_cert, Some("/c".into()));
        assert_eq!(stated.ssl_key, Some("/k".into()));
    }

    #[test]
    fn values_are_what_the_stock_client_makes_of_them() {
        // Each pair was compared with `my_print_defaults client`.
        for (written, read) in [
            ("=plain", "plain"),
            (" = spaced out ", "spaced out"),
            ("=a#b", "a"),
            ("=a #b", "a"),
            ("='a #b' # c", "a #b"),
            ("=\"it's\"", "it's"),
            ("=it's # kept", "it's # kept"),
            ("='a\\'#b'", "a'#b"),
            ("=a\\sb\\tc\\\\d\\ne\\rf\\bg", "a b\tc\\d\ne\rf\u{8}g"),
            ("=a\\qb", "a\\qb"),
            ("=end\\", "end\\"),
            ("=a=b", "a=b"),
            ("=;semi", ";semi"),
            ("=", ""),
            ("=''", ""),
            ("='", "'"),
            ("='a\"", "'a\""),
        ] {
            assert_eq!(password(written), read, "{written}");
        }
    }

    #[test]
    fn tls_switches() {
        use TlsWish::*;
        for (line, wish) in [
            ("ssl", Some(Encrypt)),
            ("ssl=ON", Some(Encrypt)),
            ("ssl=0", Some(Mode(SslMode::Disabled))),
            ("skip_ssl", Some(Mode(SslMode::Disabled))),
            ("disable-ssl", Some(Mode(SslMode::Disabled))),
            ("skip-ssl=0", Some(Encrypt)),
            ("ssl_mode=VERIFY_CA", Some(Mode(SslMode::VerifyCa))),
            ("ssl-verify-server-cert", Some(Verify)),
            ("loose-ssl-verify-server-cert=off", Some(NoVerify)),
            ("skip-ssl-verify-server-cert", Some(NoVerify)),
            ("skip-reconnect=perhaps", None),
        ] {
            let stated = parsed(format!("[client]\n{line}")).unwrap();
            assert_eq!(stated.tls, Vec::from_iter(wish), "{line}");
        }
    }

    #[test]
    fn errors_name_the_line_and_the_key_but_no_value() {
        for value in ["hunter2", "0", "65536", "-1", ""] {
            let message = error(format!("[client]\n\nport={value}"));
            assert_eq!(message, "my.cnf: line 3: `port` is not a port");
        }
        assert_eq!(
            error("[client]\nssl-mode=hunter2"),
            "my.cnf: line 2: `ssl-mode` is not a mode"
        );
        assert_eq!(
            error("[client]\nssl=hunter2"),
            "my.cnf: line 2: `ssl` is neither on nor off"
        );
        assert_eq!(
            error("[client]\npassword"),
            "my.cnf: line 2: `password` has no value"
        );
        assert_eq!(
            error("password=hunter2"),
            "my.cnf: line 1: an entry stands in front of the first group"
        );
        assert_eq!(
            error("[client"),
            "my.cnf: line 1: the name of a group does not end in `]`"
        );
    }

    #[test]
    fn only_what_is_read_has_to_be_utf8() {
        assert_eq!(
            error(b"[client]\npassword=\xff\n"),
            "my.cnf: line 2: not UTF-8"
        );
        let stated = parsed(b"# \xff\n[\xff]\na=\xff\n[client]\n;\xff\nhost=h # \xff\n").unwrap();
        assert_eq!(stated.host.as_deref(), Some("h"));
    }

    #[test]
    fn files_include_others_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        fs::create_dir_all(directory.path().join("d")).unwrap();
        file("d/2.cnf", "[client]\nhost=second\n");
        file("d/1.cnf", "[client]\nhost=first\nuser=one\n");
        file("d/3.conf", "[client]\nhost=not read\n");
        let inner = file("inner.cnf", "[client]\nport=1\n[mysqld]\nport=2\n");
        let main = file(
            "my.cnf",
            &format!(
                "!include {}\n[client]\nuser=x\n!includedir d\nport=7\n",
                inner.display()
            ),
        );
        let stated = read(&main).unwrap();
        assert_eq!(stated.host.as_deref(), Some("second"));
        assert_eq!(stated.user.as_deref(), Some("one"));
        assert_eq!(stated.port, Some(7), "the group of the outer file goes on");

        let missing = file("a.cnf", "\n!include gone.cnf\n");
        let message = read(&missing).unwrap_err().to_string();
        assert!(
            message.contains("a.cnf: line 2: cannot read ") && message.contains("gone.cnf"),
            "{message}"
        );
        let missing = file("b.cnf", "!includedir gone\n");
        assert!(
            read(&missing)
                .unwrap_err()
                .to_string()
                .contains("cannot read the directory")
        );
        let itself = file("itself.cnf", "!include itself.cnf\n!include itself.cnf\n");
        assert!(
            read(&itself)
                .unwrap_err()
                .to_string()
                .contains("too many files within files")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parsed(&bytes);
            let _ = parsed([b"[client]\n".as_slice(), &bytes].concat());
        }

        #[test]
        fn no_line_makes_it_panic(lines in proptest::collection::vec("[a-z_-]{0,12}[ =#'\"\\\\;é]{0,4}[^!]{0,10}", 0..6)) {
            let _ = parsed(format!("[client]\n{}", lines.join("\n")));
        }

        #[test]
        fn a_quoted_and_escaped_value_comes_back(value in "[^\\pC]{0,30}") {
            let written = value.replace('\\', "\\\\").replace('\'', "\\'");
            prop_assert_eq!(password(&format!("='{written}'")), value);
        }
    }
}
