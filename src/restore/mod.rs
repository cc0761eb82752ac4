//! The way back: from backup directories to a database. Read [`run`] as the table of contents.
//!
//! Nothing is written before everything that can be known has been looked at: the directories
//! are complete and fit together, the server takes what they hold, and nothing that is there is
//! in the way. From then on a ledger in the target (`ledger.rs`) says what has been done, so that
//! a restore that was interrupted can be taken up again (`--resume`).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::driver::Ask;
use sha2::{Digest, Sha256};

use crate::config::{ConnectionSettings, Identities};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Phase, RestoreSummary};
use crate::interrupt::Interrupt;
use crate::live::Difference;
use crate::server::bulk::Bulk;
use crate::server::catalog::Listing;
use crate::server::connect::{Connector, query_error};
use crate::server::flavor::Flavor;
use crate::server::{quote_identifier, quote_string};
use crate::store::manifest::TableKind;

mod compare;
pub(crate) mod create;
mod crew;
pub(crate) mod definer;
pub(crate) mod insert;
mod ledger;
mod load;
pub(crate) mod portable;
mod queue;
mod rights;
mod session;
pub(crate) mod source;
pub(crate) mod statements;
mod target;

use create::Staged;
use crew::{Change, Crew, Worker};
use ledger::Ledger;
use load::chunk_item;
use session::Session;
use source::{Source, SourceObject, SourceTable};
use target::Target;

/// What to restore of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Content {
    /// Structure and rows.
    #[default]
    All,
    /// Structure only.
    Structure,
    /// Rows only, into tables that are there.
    Data,
}

/// What a restore needs to know.
#[derive(Debug)]
pub struct Request {
    /// The server, and the database to restore into.
    pub connection: ConnectionSettings,
    /// The backup directories.
    pub dirs: Vec<PathBuf>,
    /// Patterns of the tables to restore; empty for everything.
    pub tables: Vec<String>,
    /// What of them.
    pub content: Content,
    /// Whether what is in the way may be dropped.
    pub overwrite: bool,
    /// Whether to go on where an earlier restore was interrupted.
    pub resume: bool,
    /// Whether objects belong to the restoring user instead of their definer.
    pub skip_definer: bool,
    /// Whether to stop before anything is written.
    pub dry_run: bool,
    /// What encrypted backups are read with, where that was named.
    pub identities: Option<Arc<Identities>>,
    /// Connections; `None` lets the program choose.
    pub threads: Option<NonZeroUsize>,
    /// The longest wait for a lock of tables or of the server. For rows the connections wait up to
    /// an hour: they wait for each other.
    pub lock_wait_timeout: Duration,
}

/// Restores.
pub fn run(
    request: &Request,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<RestoreSummary> {
    let began = Instant::now();
    observer.event(&Event::Phase {
        phase: Phase::Examine,
    });
    let source = Source::open(request)?;
    for message in &source.warnings {
        let message = message.clone();
        observer.event(&Event::Warning { message });
    }
    let (server, mut control) =
        Connector::open_server(&request.connection, request.lock_wait_timeout, interrupt)?;
    let flavor = Flavor::detect(&mut control)?;
    let database = request.connection.database.as_str();
    observer.event(&Event::Connected {
        server: flavor.to_string(),
        database: database.to_owned(),
    });
    let restore = Restore {
        request,
        source: &source,
        flavor,
        connector: server.at(database),
        observer,
        interrupt,
    };
    let mut control = Session::new(control, &server, interrupt)?;
    lock(&mut control, database)?;
    refuse_system_schema(database)?;
    let target = Target::read(&mut control.conn, database)?;
    target.refuse_other_default(&source, database)?;
    let left = ledger::Ledger::left_behind(&mut control.conn, database)?;
    let resuming = restore.check_resume(left.as_deref())?;
    if target.exists {
        enter_database(&mut control, database)?;
    }
    if !resuming && target.exists {
        target.refuse_conflicts(&mut control.conn, &source, request)?;
    }
    let foreign = source.flavor != restore.flavor.name();
    rights::check(&mut control, &source, &restore.flavor, request)?;
    portable::check(&server, &source, &restore.flavor, request, interrupt)?;
    interrupt.check()?;
    let mut summary = restore.summary(&target);
    if request.dry_run {
        summary.seconds = began.elapsed().as_secs_f64();
        return Ok(summary);
    }

    if !target.exists {
        restore.create_database(&mut control)?;
    }
    let mut ledger = if resuming {
        Ledger::resume(&mut control.conn)?
    } else {
        Ledger::begin(&mut control, &restore.identity())?
    };
    let bulk = restore.takes_bulk()?;
    let crew = restore.crew(foreign, bulk);
    observer.event(&Event::Phase {
        phase: Phase::CreateTables,
    });
    let staged = restore.create_tables(&crew, &ledger)?;
    let unsafe_tables = restore.redo_unsafe_tables(&mut control, &mut ledger)?;
    observer.event(&Event::Phase { phase: Phase::Load });
    load::load(&crew, &ledger, &staged, &unsafe_tables)?;
    observer.event(&Event::Phase {
        phase: Phase::CreateObjects,
    });
    restore.create_objects(&crew, &ledger, &staged)?;

    observer.event(&Event::Phase {
        phase: Phase::Compare,
    });
    let mut differences = restore.compare_rows()?;
    // From here on events may change rows.
    restore.create_events(&crew, &ledger)?;
    let definitions = restore.compare_definitions()?;
    Ledger::end(&mut control)?;
    differences.extend(definitions.differences);
    if !differences.is_empty() {
        return Err(not_the_same(&differences));
    }
    summary.warnings.extend(definitions.warnings);
    summary.compared = source.tables.iter().filter(|t| t.rows.is_some()).count();
    summary.seconds = began.elapsed().as_secs_f64();
    observer.event(&Event::Restored(Box::new(summary.clone())));
    Ok(summary)
}

/// A restore under way.
struct Restore<'a> {
    request: &'a Request,
    source: &'a Source,
    flavor: Flavor,
    /// Opens connections in the target database.
    connector: Connector,
    observer: &'a dyn Observer,
    interrupt: &'a Interrupt,
}

/// A name for what there is once for each database that is restored into.
fn lock_name(database: &str) -> String {
    format!("restore_{}", &hex(database.as_bytes())[..32])
}

/// Only one restore at a time writes into a database.
fn lock(control: &mut Session<'_>, database: &str) -> Result<()> {
    let name = format!("schema_backup.{}", lock_name(database));
    let got: Option<Option<u8>> = control
        .conn
        .query_first(format!("SELECT GET_LOCK({}, 2)", quote_string(&name)))
        .map_err(|e| query_error("cannot lock the target", e))?;
    if got == Some(Some(1)) {
        return Ok(());
    }
    let what = format!("another restore into database `{database}` is running");
    Err(Error::new(ErrorKind::Write, what).hint("wait for its end; see SHOW PROCESSLIST"))
}

/// What belongs to the server is not for us to write into.
fn refuse_system_schema(database: &str) -> Result<()> {
    let system = ["mysql", "information_schema", "performance_schema", "sys"];
    if !system.contains(&database.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    let what = format!("`{database}` is a database of the server's own");
    Err(Error::new(ErrorKind::Config, what).hint("name another one with --into"))
}

fn enter_database(control: &mut Session<'_>, database: &str) -> Result<()> {
    let done = control.execute(format!("USE {}", quote_identifier(database)).as_bytes());
    done.map_err(|e| e.within(format_args!("database `{database}`")))
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn not_the_same(differences: &[Difference]) -> Error {
    let list: Vec<_> = differences
        .iter()
        .take(5)
        .map(Difference::to_string)
        .collect();
    let more = match differences.len().saturating_sub(list.len()) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let what = format!("restored, but not the same: {}{more}", list.join("; "));
    Error::new(ErrorKind::Differs, what).hint(
        "did something else write to the database meanwhile? `verify --against` compares again",
    )
}

impl<'a> Restore<'a> {
    /// What tells one restore from another: a ledger of another one must not be taken up.
    fn identity(&self) -> String {
        let request = self.request;
        let mut text = format!(
            "{:?} {} {:?}",
            request.content, request.overwrite, request.tables
        );
        for backup in &self.source.backups {
            let files: Vec<&str> = backup.manifest.files().map(|f| f.sha256.as_str()).collect();
            text.push_str(&files.join(" "));
        }
        format!("schema_backup restore {}", hex(text.as_bytes()))
    }

    /// Whether this run goes on with what an earlier one began.
    fn check_resume(&self, left: Option<&str>) -> Result<bool> {
        let database = &self.request.connection.database;
        let refuse = |what: String, hint: &str| {
            Err(Error::new(ErrorKind::Config, format!("database `{database}`: {what}")).hint(hint))
        };
        match (left, self.request.resume) {
            (None, false) => Ok(false),
            (None, true) => refuse(
                "there is no restore to resume".into(),
                "run it without --resume",
            ),
            (Some(_), false) => refuse(
                "an earlier restore was interrupted".into(),
                &format!(
                    "--resume goes on with it; to begin anew, drop the table `{}` and use --overwrite",
                    ledger::TABLE
                ),
            ),
            (Some(identity), true) if identity == self.identity() => Ok(true),
            (Some(_), true) => refuse(
                "the interrupted restore was of other backups, or with other flags".into(),
                "resume with the directories and flags that it was begun with",
            ),
        }
    }

    fn threads(&self) -> usize {
        crate::config::threads(self.request.threads)
    }

    /// Whether rows can be sent in bulk; there is a ledger to try it with.
    fn takes_bulk(&self) -> Result<bool> {
        let rows = self.source.tables.iter().any(|table| table.rows.is_some());
        if !rows || !Bulk::is_possible(&self.flavor, &self.connector) {
            return Ok(false);
        }
        // A proxy may end the connection over it.
        let mut session = Session::open(&self.connector, self.interrupt)?;
        let taken = session.takes_bulk(ledger::TABLE);
        self.interrupt.check()?;
        Ok(taken)
    }

    fn crew(&self, foreign: bool, bulk: bool) -> Crew<'_> {
        Crew {
            source: self.source,
            connector: &self.connector,
            threads: self.threads(),
            foreign,
            bulk,
            observer: self.observer,
            interrupt: self.interrupt,
        }
    }

    fn summary(&self, target: &Target) -> RestoreSummary {
        let data = || {
            self.source
                .tables
                .iter()
                .filter_map(|table| table.rows.as_ref())
        };
        let chunks = data().flat_map(|(_, data)| &data.chunks);
        RestoreSummary {
            database: self.request.connection.database.clone(),
            server: self.flavor.to_string(),
            creates_database: !target.exists,
            tables: self.source.tables.len(),
            objects: self.source.objects.len(),
            rows: data().map(|(_, data)| data.rows).sum(),
            raw_bytes: chunks.map(|chunk| chunk.raw_bytes).sum(),
            compared: 0,
            seconds: 0.0,
            warnings: self.source.warnings.clone(),
        }
    }

    /// Makes the database, with the character set and collation that the source had.
    fn create_database(&self, control: &mut Session<'_>) -> Result<()> {
        let name = &self.request.connection.database;
        let from = &self.source.database;
        let create = format!(
            "CREATE DATABASE {} CHARACTER SET {} COLLATE {}",
            quote_identifier(name),
            quote_identifier(&from.charset),
            quote_identifier(&from.collation)
        );
        let done = control.execute(create.as_bytes());
        done.map_err(|e| e.within(format_args!("cannot create database `{name}`")))?;
        enter_database(control, name)
    }

    /// Creates sequences, then tables, or empties tables that stay. Returns what is to be built
    /// after the rows of each.
    fn create_tables(&self, crew: &Crew<'_>, ledger: &Ledger) -> Result<BTreeMap<String, Staged>> {
        if self.request.content == Content::Data {
            crew.each_table(self.source.tables.iter().collect(), |worker, table| {
                self.once(worker, ledger, &format!("table {}", table.name), |worker| {
                    if self.request.overwrite {
                        target::empty_table(&mut worker.session, table)?;
                    }
                    Ok(())
                })
            })?;
            return Ok(BTreeMap::new());
        }
        let (sequences, tables): (Vec<&SourceTable>, Vec<&SourceTable>) = self
            .source
            .tables
            .iter()
            .partition(|table| table.kind == TableKind::Sequence);
        let staged = self.stage(&tables)?;
        for group in [sequences, tables] {
            crew.each_table(group, |worker, table| {
                self.once(worker, ledger, &format!("table {}", table.name), |worker| {
                    target::drop_table(&mut worker.session, table)?;
                    let file = self.source.read(&table.structure)?;
                    worker.before_file()?;
                    worker.run_file(&file[..], |statement| match staged.get(&table.name) {
                        Some(staged) if statement.starts_with(b"CREATE ") => {
                            Change::Instead(staged.create.clone().into_bytes())
                        }
                        _ => Change::Keep,
                    })
                })
            })?;
        }
        Ok(staged)
    }

    /// Does `work` unless an earlier run has done it.
    fn once(
        &self,
        worker: &mut Worker<'_>,
        ledger: &Ledger,
        item: &str,
        work: impl FnOnce(&mut Worker<'_>) -> Result<()>,
    ) -> Result<()> {
        if ledger.has(item) {
            return Ok(());
        }
        work(worker)?;
        ledger::enter(&mut worker.session, item).map(drop)
    }

    /// Which tables are created in several steps.
    fn stage(&self, tables: &[&SourceTable]) -> Result<BTreeMap<String, Staged>> {
        let mut creates = BTreeMap::new();
        for table in tables {
            let file = self.source.read(&table.structure)?;
            if let Some(create) = portable::create_statement(&file) {
                creates.insert(table.name.as_str(), create);
            }
        }
        let referenced: BTreeSet<String> = creates
            .values()
            .flat_map(|create| create::references(create))
            .collect();
        let bytes_of = |table: &SourceTable| {
            let data = table.rows.as_ref().map(|(_, data)| data);
            let chunks = data.into_iter().flat_map(|data| &data.chunks);
            chunks.map(|chunk| chunk.raw_bytes).sum()
        };
        let mut staged = BTreeMap::new();
        for table in tables {
            if let Some(create) = creates.get(table.name.as_str()) {
                let plan = create::stage(&table.name, create, bytes_of(table), &referenced);
                if plan.keys.is_some() {
                    staged.insert(table.name.clone(), plan);
                }
            }
        }
        Ok(staged)
    }

    /// Finds the tables without transactions. One of them may hold part of a chunk that an
    /// earlier run was loading: it is emptied, and loaded from its beginning.
    fn redo_unsafe_tables(
        &self,
        control: &mut Session<'_>,
        ledger: &mut Ledger,
    ) -> Result<BTreeSet<String>> {
        let listing = Listing::at_hand(&mut control.conn)?;
        let mut found = BTreeSet::new();
        for table in &self.source.tables {
            let Some((_, data)) = &table.rows else {
                continue;
            };
            let listed = listing.tables.get(&table.name);
            if table.kind == TableKind::Sequence || listed.is_none_or(|l| l.transactional) {
                continue;
            }
            let items: Vec<_> = (0..data.chunks.len())
                .map(|n| chunk_item(&table.name, n))
                .collect();
            if self.request.resume && !items.iter().all(|item| ledger.has(item)) {
                target::empty_table(control, table)
                    .map_err(|e| e.within(format_args!("table `{}`", table.name)))?;
                ledger.forget(&mut control.conn, &items)?;
            }
            found.insert(table.name.clone());
        }
        Ok(found)
    }

    /// Foreign keys, then everything that stands on tables but events, in the order of the
    /// manifest.
    fn create_objects(
        &self,
        crew: &Crew<'_>,
        ledger: &Ledger,
        staged: &BTreeMap<String, Staged>,
    ) -> Result<()> {
        let with_keys = |table: &&SourceTable| {
            let plan = staged.get(&table.name);
            plan.is_some_and(|plan| plan.foreign_keys.is_some())
        };
        let tables: Vec<_> = self.source.tables.iter().filter(with_keys).collect();
        crew.each_table(tables, |worker, table| {
            match staged
                .get(&table.name)
                .and_then(|plan| plan.foreign_keys.as_ref())
            {
                Some(keys) => load::add_foreign_keys(worker, &table.name, keys),
                None => Ok(()),
            }
        })?;
        self.create_each(crew, ledger, |object| object.kind != "event")
    }

    fn create_events(&self, crew: &Crew<'_>, ledger: &Ledger) -> Result<()> {
        self.create_each(crew, ledger, |object| object.kind == "event")
    }

    fn create_each(
        &self,
        crew: &Crew<'_>,
        ledger: &Ledger,
        chosen: impl Fn(&SourceObject) -> bool,
    ) -> Result<()> {
        let objects = self.source.objects.iter();
        let objects: Vec<&SourceObject> = objects.filter(|object| chosen(object)).collect();
        crew.one_by_one(&objects, |worker, object| {
            self.once(
                worker,
                ledger,
                &format!("{} {}", object.kind, object.name),
                |worker| self.create_object(worker, object),
            )
            .map_err(|e| e.within(format_args!("{} `{}`", object.kind, object.name)))
        })
    }

    fn create_object(&self, worker: &mut Worker<'_>, object: &SourceObject) -> Result<()> {
        // Otherwise nothing is there that was found, or has come since, and might be dropped.
        if self.request.overwrite || self.request.resume {
            target::drop_object(&mut worker.session, &object.kind, &object.name)?;
        }
        let file = self.source.read(&object.file)?;
        worker.before_file()?;
        worker.run_file(&file[..], |statement| {
            if !self.request.skip_definer {
                return Change::Keep;
            }
            match definer::without(statement) {
                Some(text) => Change::Instead(text),
                None => Change::Keep,
            }
        })
    }
}
