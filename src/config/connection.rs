//! Where the server is and who we are to it: command-line flags, option files and
//! `cloudscheduler.yaml` become one [`ConnectionSettings`].
//!
//! Each setting is decided by the first of these that states it: flags,
//! `--defaults-extra-file`, `--defaults-file`, `--db-config`, the system's
//! `cloudscheduler.yaml`, `~/.my.cnf`. Nothing here contacts the server, and no error
//! repeats a value read from a file: any of them may be the password in the wrong place.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretString};

use super::credentials_file::parse as parse_credentials;
use super::option_file;
use super::secret_file::{self, Exposure, unreadable};
use crate::error::{Error, ErrorKind, Result};

/// The environment variable with the password.
pub const PASSWORD_VARIABLE: &str = "SCHEMA_BACKUP_PASSWORD";
/// A larger file is none with connection settings.
const MAX_SIZE: u64 = 16 << 20;

/// A password: wiped when dropped, and hidden by `Debug`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text over, and wipes where it was.
    pub fn new(mut text: String) -> Self {
        let secret = SecretString::from(Box::from(text.as_str()));
        text.zeroize();
        Secret(secret)
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([hidden])")
    }
}

/// How much TLS a connection needs; each demands more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SslMode {
    /// Never.
    Disabled,
    /// If the server offers it; nothing is verified.
    #[default]
    Preferred,
    /// Encrypted or not at all; nothing is verified.
    Required,
    /// The certificate must come from a trusted authority.
    VerifyCa,
    /// The certificate must also be for the host connected to.
    VerifyIdentity,
}

impl SslMode {
    /// The values a user may write, in the spelling that is printed.
    pub const NAMES: [(&'static str, SslMode); 5] = [
        ("disabled", SslMode::Disabled),
        ("preferred", SslMode::Preferred),
        ("required", SslMode::Required),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-identity", SslMode::VerifyIdentity),
    ];
}

impl FromStr for SslMode {
    type Err = String;

    /// Also takes the server's own spelling, such as `VERIFY_IDENTITY`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase().replace('_', "-");
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, mode)| *mode)
            .ok_or_else(|| {
                let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                format!("`{text}` is not one of {}", names.join(", "))
            })
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SslMode::Disabled => "disabled",
            SslMode::Preferred => "preferred",
            SslMode::Required => "required",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyIdentity => "verify-identity",
        })
    }
}

/// TLS of a connection.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// How much of it is needed.
    pub mode: SslMode,
    /// Trusted authorities, PEM; `None` means those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM; given exactly if `key` is.
    pub cert: Option<PathBuf>,
    /// The key of `cert`, PEM.
    pub key: Option<PathBuf>,
}

/// All that is needed to open a connection.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// The host as named, also what its certificate must be for; `None` is 127.0.0.1.
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
    /// If there is one, it is used and `host` and `port` are not.
    pub socket: Option<PathBuf>,
    /// Account name.
    pub user: String,
    /// Never empty; an account without password has `None`.
    pub password: Option<Secret>,
    /// The one database of the run.
    pub database: String,
    /// TLS.
    pub tls: TlsSettings,
}

/// The command-line flags about the connection, as given.
#[derive(Debug, Clone, Default)]
pub struct ConnectionOverrides {
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--user`.
    pub user: Option<String>,
    /// `--database`.
    pub database: Option<String>,
    /// Typed at a prompt; empty means none, whatever the files say.
    pub password: Option<Secret>,
    /// `--password-file`: its first line.
    pub password_file: Option<PathBuf>,
    /// `--defaults-file`: instead of `~/.my.cnf`.
    pub defaults_file: Option<PathBuf>,
    /// `--defaults-extra-file`: above the other files.
    pub defaults_extra_file: Option<PathBuf>,
    /// `--db-config`: a file like `cloudscheduler.yaml`.
    pub db_config: Option<PathBuf>,
    /// `--ssl-mode`.
    pub ssl_mode: Option<SslMode>,
    /// `--ssl-ca`.
    pub ssl_ca: Option<PathBuf>,
    /// `--ssl-cert`.
    pub ssl_cert: Option<PathBuf>,
    /// `--ssl-key`.
    pub ssl_key: Option<PathBuf>,
    /// `--allow-readable-credentials`.
    pub exposure: Exposure,
}

/// What is taken from the surroundings of the process.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Where `.my.cnf` may lie.
    pub home: Option<PathBuf>,
    /// `SCHEMA_BACKUP_PASSWORD`; unset and empty are the same.
    pub password: Option<Secret>,
    /// The installation's `cloudscheduler.yaml`, read if it exists.
    pub system_credentials: PathBuf,
    /// The account if no one names one.
    pub user: String,
    /// Where servers put their socket; the first that exists stands for `localhost`.
    pub sockets: Vec<PathBuf>,
}

impl Environment {
    /// That of this process. The account is the owner of the process, as the stock client
    /// has it.
    pub fn from_process() -> Self {
        let password = std::env::var_os(PASSWORD_VARIABLE).filter(|text| !text.is_empty());
        Environment {
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            password: password.map(|text| {
                Secret::new(text.into_string().unwrap_or_else(|text| {
                    let bytes = Zeroizing::new(text.into_encoded_bytes());
                    String::from_utf8_lossy(&bytes).into_owned()
                }))
            }),
            system_credentials: PathBuf::from("/etc/cloudscheduler/cloudscheduler.yaml"),
            user: process_user(),
            sockets: [
                "/run/mysqld/mysqld.sock",
                "/var/run/mysqld/mysqld.sock",
                "/tmp/mysql.sock",
            ]
            .map(PathBuf::from)
            .into(),
        }
    }
}

/// Services run without `USER`, and `su` may keep the wrong one, so the user id comes first.
fn process_user() -> String {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "root".to_owned();
    }
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    user_of(&String::from_utf8_lossy(&passwd), uid.as_raw())
        .or_else(|| {
            ["USER", "LOGNAME"]
                .iter()
                .find_map(|name| std::env::var(name).ok())
        })
        .unwrap_or_else(|| "UNKNOWN_USER".to_owned())
}

fn user_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// What one source states. Empty host, socket, user and database count as not stated.
#[derive(Debug, Default)]
pub(super) struct Stated {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) socket: Option<PathBuf>,
    pub(super) user: Option<String>,
    /// May be empty: that is the statement that there is none.
    pub(super) password: Option<Secret>,
    /// The file that the password stands in.
    pub(super) password_from: Option<PathBuf>,
    pub(super) database: Option<String>,
    /// In the order they were made; see [`TlsWish::apply`].
    pub(super) tls: Vec<TlsWish>,
    pub(super) ssl_ca: Option<PathBuf>,
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
}

/// A statement about TLS. Option files know switches besides the mode, and a switch only
/// moves the mode that weaker sources and earlier lines arrived at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsWish {
    /// `ssl-mode`.
    Mode(SslMode),
    /// `ssl`.
    Encrypt,
    /// `ssl-verify-server-cert`.
    Verify,
    /// `skip-ssl-verify-server-cert`.
    NoVerify,
}

impl TlsWish {
    fn apply(self, mode: SslMode) -> SslMode {
        match self {
            TlsWish::Mode(mode) => mode,
            TlsWish::Encrypt => mode.max(SslMode::Required),
            TlsWish::Verify => mode.max(SslMode::VerifyIdentity),
            TlsWish::NoVerify => mode.min(SslMode::Required),
        }
    }
}

impl Stated {
    fn by_flags(flags: &ConnectionOverrides) -> Self {
        Stated {
            host: flags.host.clone(),
            port: flags.port,
            socket: flags.socket.clone(),
            user: flags.user.clone(),
            password: None,
            password_from: None,
            database: flags.database.clone(),
            tls: flags.ssl_mode.map(TlsWish::Mode).into_iter().collect(),
            ssl_ca: flags.ssl_ca.clone(),
            ssl_cert: flags.ssl_cert.clone(),
            ssl_key: flags.ssl_key.clone(),
        }
        .without_empty()
    }

    /// Drops what is stated as empty, except the password.
    pub(super) fn without_empty(mut self) -> Self {
        for text in [&mut self.host, &mut self.user, &mut self.database] {
            text.take_if(|text| text.is_empty());
        }
        for path in [
            &mut self.socket,
            &mut self.ssl_ca,
            &mut self.ssl_cert,
            &mut self.ssl_key,
        ] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
        self
    }
}

impl ConnectionSettings {
    /// Reads the files there are and decides each setting. All errors are of kind
    /// [`ErrorKind::Config`].
    pub fn resolve(overrides: &ConnectionOverrides, environment: &Environment) -> Result<Self> {
        let sources = read_sources(overrides, environment)?;
        let mode = sources
            .iter()
            .rev()
            .flat_map(|source| &source.tls)
            .fold(SslMode::default(), |mode, wish| wish.apply(mode));
        let tls = TlsSettings {
            mode,
            ca: first(&sources, |s| &s.ssl_ca),
            cert: first(&sources, |s| &s.ssl_cert),
            key: first(&sources, |s| &s.ssl_key),
        };
        match (&tls.cert, &tls.key) {
            (Some(_), None) => {
                return Err(
                    config("a TLS certificate is given without its key").hint("add --ssl-key")
                );
            }
            (None, Some(_)) => {
                return Err(
                    config("a TLS key is given without its certificate").hint("add --ssl-cert")
                );
            }
            _ => {}
        }
        let port = first(&sources, |s| &s.port).unwrap_or(3306);
        if port == 0 {
            return Err(config("port 0 is not a port").hint("give --port a number from 1 to 65535"));
        }
        let (host, socket) = address(&sources, overrides, mode, environment)?;
        let password_file = overrides
            .password_file
            .as_deref()
            .map(|path| read_password_file(path, overrides.exposure))
            .transpose()?;
        let password = overrides
            .password
            .clone()
            .or(password_file)
            .or_else(|| environment.password.clone().filter(|p| !p.is_empty()));
        let password = match password {
            Some(password) => Some(password),
            None => password_of(&sources, overrides.exposure)?,
        };
        let password = password.filter(|p| !p.is_empty());
        if let Some(key) = tls.key.as_ref().filter(|key| key.exists()) {
            secret_file::refuse_exposed(key, overrides.exposure)?;
        }
        let database = first(&sources, |s| &s.database).ok_or_else(|| {
            config("no database is named").hint(format!(
                "give --database NAME, db_name in {} or a --db-config file, or database= in a [client] option file",
                environment.system_credentials.display()
            ))
        })?;
        Ok(ConnectionSettings {
            host,
            port,
            socket,
            user: first(&sources, |s| &s.user).unwrap_or_else(|| environment.user.clone()),
            password,
            database,
            tls,
        })
    }
}

pub(super) fn config(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, context)
}

/// The value of the strongest source that states one.
fn first<T: Clone>(sources: &[Stated], of: impl Fn(&Stated) -> &Option<T>) -> Option<T> {
    sources.iter().find_map(|source| of(source).clone())
}

/// The password of the strongest source that states one. The file is refused if it is open to
/// others; one whose password is not used is no concern of ours.
fn password_of(sources: &[Stated], exposure: Exposure) -> Result<Option<Secret>> {
    let Some(source) = sources.iter().find(|source| source.password.is_some()) else {
        return Ok(None);
    };
    let password = source.password.clone().filter(|p| !p.is_empty());
    if let (Some(_), Some(file)) = (&password, &source.password_from) {
        secret_file::refuse_exposed(file, exposure)?;
    }
    Ok(password)
}

/// All sources, strongest first.
fn read_sources(flags: &ConnectionOverrides, environment: &Environment) -> Result<Vec<Stated>> {
    let mut sources = vec![Stated::by_flags(flags)];
    for file in [&flags.defaults_extra_file, &flags.defaults_file]
        .into_iter()
        .flatten()
    {
        sources.push(option_file::read(file)?);
    }
    if let Some(file) = &flags.db_config {
        sources.push(parse_credentials(file, &read_named(file)?)?);
    }
    let system = &environment.system_credentials;
    let named = flags.db_config.is_some() || flags.defaults_file.is_some();
    match read_if_there(system) {
        Ok(Some(content)) => sources.push(parse_credentials(system, &content)?),
        Ok(None) => {}
        // Whoever names a file of their own need not be able to read this one.
        Err(_) if named => {}
        Err(error) => return Err(error),
    }
    if flags.defaults_file.is_none()
        && let Some(home) = &environment.home
    {
        let file = home.join(".my.cnf");
        if is_there(&file)? {
            sources.push(option_file::read(&file)?);
        }
    }
    Ok(sources)
}

/// Host and socket of the connection. `localhost` means the socket, as with the stock
/// client, unless something was asked for that only TCP has.
fn address(
    sources: &[Stated],
    flags: &ConnectionOverrides,
    mode: SslMode,
    environment: &Environment,
) -> Result<(Option<String>, Option<PathBuf>)> {
    let is_local = |host: &String| host.eq_ignore_ascii_case("localhost");
    let flag = sources.first();
    let socket_flag = flag.and_then(|s| s.socket.clone());
    if socket_flag.is_some()
        && flag
            .and_then(|s| s.host.as_ref())
            .is_some_and(|host| !is_local(host))
    {
        return Err(config("--socket and --host name two different servers")
            .hint("a socket is always on this host: leave one of the two out"));
    }
    let decider = sources
        .iter()
        .find(|source| source.host.is_some() || source.socket.is_some());
    let host = decider.and_then(|source| source.host.clone());
    if let Some(host) = host.as_ref().filter(|host| !is_local(host)) {
        return Ok((Some(host.clone()), None));
    }
    if socket_flag.is_some() {
        return Ok((host, socket_flag));
    }
    if flags.port.is_some() || mode >= SslMode::Required {
        return Ok((host.or_else(|| Some("localhost".to_owned())), None));
    }
    // A source that names a socket but no host comes first here too: it is the decider, and
    // no stronger one names a socket.
    let socket = first(sources, |s| &s.socket).or_else(|| {
        environment
            .sockets
            .iter()
            .find(|socket| socket.exists())
            .cloned()
    });
    Ok((host, socket))
}

/// A file the user named: it has to be there.
pub(super) fn read_named(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    secret_file::read(path, MAX_SIZE).map(|file| file.content)
}

fn read_if_there(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    if is_there(path)? {
        read_named(path).map(Some)
    } else {
        Ok(None)
    }
}

/// Not knowing, for want of permission, is an error: the file may say what server to use.
fn is_there(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(unreadable(path, error)),
    }
}

fn read_password_file(path: &Path, exposure: Exposure) -> Result<Secret> {
    let file = secret_file::read(path, MAX_SIZE)?;
    file.refuse_exposed(path, exposure)?;
    let line = file
        .content
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err(
            config(format!("{}: line 1: no password there", path.display()))
                .hint("the password is the whole first line of a password file"),
        ),
        Ok(text) => Ok(Secret::new(text.to_owned())),
        Err(_) => Err(config(format!("{}: line 1: not UTF-8", path.display()))),
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
