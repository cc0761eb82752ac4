//! Who is measured, and how each is called.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mysql::prelude::Queryable;

use crate::Result;
use crate::args::Args;
use crate::children::Children;
use crate::data::{DATABASE, Filled};
use crate::measure::{Run, measure};
use crate::server::{PASSWORD, Server, find};

/// The database that is restored into.
const COPY: &str = "copy";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Floor,
    Plain,
    Zstd,
    Mydumper,
    Dump,
    DumpZstd,
    Restore,
    Myloader,
}

impl Contender {
    /// Those that can run here, in the order in which they do; names those that cannot.
    pub(crate) fn installed(restore: bool) -> Vec<Contender> {
        use Contender::{Dump, DumpZstd, Floor, Mydumper, Myloader, Plain, Restore, Zstd};
        let all: &[Contender] = if restore {
            &[Restore, Myloader]
        } else {
            &[Floor, Plain, Zstd, Mydumper, Dump, DumpZstd]
        };
        let installed = |contender: &Contender| {
            let missing = contender.tools().iter().find(|tool| find(tool).is_none());
            if let Some(tool) = missing {
                println!("{} is left out: {tool} is not installed", contender.name());
            }
            missing.is_none()
        };
        all.iter().copied().filter(installed).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Floor => "the floor",
            Contender::Plain => "schema_backup, plain",
            Contender::Zstd => "schema_backup, zstd:1",
            Contender::Mydumper => "mydumper, plain",
            Contender::Dump => "mariadb-dump",
            Contender::DumpZstd => "mariadb-dump | zstd -1 -T0",
            Contender::Restore => "schema_backup restore",
            Contender::Myloader => "myloader",
        }
    }

    /// Whether it is this program.
    pub(crate) fn is_ours(self) -> bool {
        matches!(
            self,
            Contender::Plain | Contender::Zstd | Contender::Restore
        )
    }

    /// Whether the others are stated as multiples of it.
    pub(crate) fn is_reference(self) -> bool {
        matches!(self, Contender::Floor | Contender::Myloader)
    }

    fn tools(self) -> &'static [&'static str] {
        match self {
            Contender::Mydumper => &["mydumper"],
            Contender::Dump => &["mariadb-dump"],
            Contender::DumpZstd => &["mariadb-dump", "zstd"],
            Contender::Myloader => &["mydumper", "myloader"],
            _ => &[],
        }
    }

    fn restores(self) -> bool {
        matches!(self, Contender::Restore | Contender::Myloader)
    }
}

/// Everything that a run needs.
pub(crate) struct Bench<'a> {
    args: &'a Args,
    server: &'a Server,
    children: &'a Children,
    filled: &'a Filled,
    /// Where an export goes; empty before each.
    out: PathBuf,
    /// What is restored: an export by each contender's own tool.
    backups: PathBuf,
}

impl<'a> Bench<'a> {
    pub(crate) fn prepare(
        args: &'a Args,
        server: &'a Server,
        children: &'a Children,
        filled: &'a Filled,
    ) -> Result<Bench<'a>> {
        let work = server.work();
        let bench = Bench {
            args,
            server,
            children,
            filled,
            out: work.join("out"),
            backups: work.join("backups"),
        };
        fs::write(work.join("password"), PASSWORD)?;
        // Others could read it otherwise, and then it would be refused.
        fs::set_permissions(work.join("password"), fs::Permissions::from_mode(0o600))?;
        let tables = serde_json::to_string(&filled.tables)?;
        fs::write(work.join("bench.conf"), format!("local: {tables}\n"))?;
        if args.restore {
            fs::create_dir(&bench.backups)?;
            bench.measure(&[bench.export(Contender::Zstd, &bench.backups.join("ours"))])?;
            if find("mydumper").is_some() {
                let theirs = bench.backups.join("mydumper");
                bench.measure(&[bench.export(Contender::Mydumper, &theirs)])?;
            }
        }
        Ok(bench)
    }

    /// Runs a contender once.
    pub(crate) fn run(&self, contender: Contender) -> Result<Run> {
        if contender.restores() {
            self.server
                .connect(None)?
                .query_drop(format!("DROP DATABASE IF EXISTS {COPY}"))?;
        } else {
            fs::create_dir(&self.out)?;
        }
        let mut run = match contender {
            Contender::Floor => self.measure(&[self.floor()?]),
            Contender::Plain | Contender::Zstd | Contender::Mydumper => {
                self.measure(&[self.export(contender, &self.out)])
            }
            Contender::Dump => {
                let mut dump = self.dump();
                dump.push(concat("--result-file=", &self.out.join("bench.sql")));
                self.measure(&[dump])
            }
            Contender::DumpZstd => {
                let mut zstd = strings(&["zstd", "-1", "-T0", "-q", "-o"]);
                zstd.push(self.out.join("bench.sql.zst").into());
                self.measure(&[self.dump(), zstd])
            }
            Contender::Restore => self.measure(&[self.restore()]),
            Contender::Myloader => self.measure(&[self.myloader()]),
        }
        .map_err(|e| format!("{}: {e}", contender.name()))?;
        let stored = match contender {
            Contender::Restore => &self.backups.join("ours"),
            Contender::Myloader => &self.backups.join("mydumper"),
            _ => &self.out,
        };
        run.disk_bytes = bytes_below(stored)?;
        if !contender.restores() {
            self.put_away()?;
        }
        Ok(run)
    }

    /// Whether a restore has brought back every row; not all tools fail when one is missing.
    pub(crate) fn check(&self, contender: Contender) -> Result<()> {
        if !contender.restores() {
            return Ok(());
        }
        let mut conn = self.server.connect(None)?;
        let mut rows = 0;
        for table in &self.filled.tables {
            let count = format!("SELECT COUNT(*) FROM {COPY}.{table}");
            rows += conn.query_first::<u64, _>(count)?.unwrap_or_default();
        }
        if rows != self.filled.rows {
            let (name, all) = (contender.name(), self.filled.rows);
            return Err(format!("{name} brought back {rows} rows of {all}").into());
        }
        Ok(())
    }

    /// Gives back the space of an export, but not its files until the end: an ext4 without
    /// a journal searches long for an inode that was not freed within the last minutes, and the
    /// next contender would pay for what this one left.
    fn put_away(&self) -> Result<()> {
        let kept = self.server.work().join("kept");
        fs::create_dir_all(&kept)?;
        let place = tempfile::tempdir_in(kept)?.keep();
        empty_files_below(&self.out)?;
        Ok(fs::rename(&self.out, place)?)
    }

    fn measure(&self, pipeline: &[Vec<OsString>]) -> Result<Run> {
        measure(self.server, self.children, pipeline)
    }

    fn floor(&self) -> Result<Vec<OsString>> {
        let mut argv = vec![std::env::current_exe()?.into()];
        argv.extend(strings(&["floor", "--socket"]));
        argv.push(self.server.socket().into());
        argv.extend(strings(&["--threads", &self.threads(), "--rows"]));
        argv.push(self.filled.rows.to_string().into());
        Ok(argv)
    }

    fn export(&self, contender: Contender, out: &Path) -> Vec<OsString> {
        let method = match contender {
            Contender::Mydumper => {
                let mut argv = self.login("mydumper");
                argv.extend(strings(&["-B", DATABASE, "-o"]));
                argv.push(out.into());
                return argv;
            }
            Contender::Plain => "none",
            _ => "zstd:1",
        };
        let mut argv = vec![self.args.program.clone().into()];
        argv.extend(strings(&[
            "--database",
            DATABASE,
            "--host-name",
            "bench",
            "--config",
        ]));
        argv.push(self.server.work().join("bench.conf").into());
        argv.extend(strings(&["--compress", method, "--backup-dir"]));
        argv.push(out.join("schema").into());
        argv.extend(strings(&["--user-data-dir"]));
        argv.push(out.join("data").into());
        argv.extend(self.common());
        argv
    }

    fn restore(&self) -> Vec<OsString> {
        let ours = self.backups.join("ours");
        let mut argv = vec![self.args.program.clone().into()];
        argv.extend(strings(&["restore", "--into", COPY]));
        argv.push(ours.join("schema/bench").into());
        argv.push(ours.join("data/latest").into());
        argv.extend(self.common());
        argv
    }

    /// How the program connects, and says nothing.
    fn common(&self) -> Vec<OsString> {
        let mut argv = strings(&["--user", "root", "--socket"]);
        argv.push(self.server.socket().into());
        argv.push("--password-file".into());
        argv.push(self.server.work().join("password").into());
        argv.extend(strings(&[
            "-j",
            &self.threads(),
            "--progress",
            "none",
            "-q",
        ]));
        argv
    }

    fn myloader(&self) -> Vec<OsString> {
        let mut argv = self.login("myloader");
        argv.extend(strings(&["-B", COPY, "-d"]));
        argv.push(self.backups.join("mydumper").into());
        argv
    }

    /// How mydumper and myloader connect, and say nothing but errors.
    fn login(&self, tool: &str) -> Vec<OsString> {
        let mut argv = strings(&[tool, "-S"]);
        argv.push(self.server.socket().into());
        argv.extend(strings(&[
            "-u",
            "root",
            "-p",
            PASSWORD,
            "-v",
            "1",
            "-t",
            &self.threads(),
        ]));
        argv
    }

    fn dump(&self) -> Vec<OsString> {
        let mut argv = strings(&["mariadb-dump", "--no-defaults", "--user=root"]);
        argv.push(concat("--socket=", &self.server.socket()));
        argv.push(format!("--password={PASSWORD}").into());
        argv.extend(strings(&[
            "--default-character-set=utf8mb4",
            "--single-transaction",
            DATABASE,
        ]));
        argv
    }

    fn threads(&self) -> String {
        self.args.threads.to_string()
    }
}

fn strings(arguments: &[&str]) -> Vec<OsString> {
    arguments.iter().map(OsString::from).collect()
}

fn concat(flag: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(flag);
    argument.push(path);
    argument
}

/// The length of all files below a directory.
fn bytes_below(dir: &Path) -> Result<u64> {
    files_below(dir)?
        .iter()
        .map(|file| Ok(fs::metadata(file)?.len()))
        .sum()
}

fn empty_files_below(dir: &Path) -> Result<()> {
    for file in files_below(dir)? {
        fs::File::create(file)?;
    }
    Ok(())
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}
