//! The main verb: from a request to published directories. Read [`run`] as the table of
//! contents; the stages below it do the work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::Request;
use crate::config::{self, Category, Consistency};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Destination, Event, Observer, Phase, Summary};
use crate::interrupt::Interrupt;
use crate::plan::layout::Destinations;
use crate::server::catalog::{Catalog, Wanted};
use crate::server::consistency::SnapshotRequest;
use crate::server::line::Line;
use crate::server::snapshot::SnapshotPool;
use crate::service::{ServiceAction, Services, Systemctl};
use crate::store::manifest::{BackupKind, Manifest, RunRecord};
use crate::store::staging::{Access, Layout, Published, Staging, Target};
use crate::survey::Survey;

mod bounds;
mod contents;
mod data;
mod exchange;
mod json;
mod referring;
mod structure;

use contents::Contents;
use referring::Referring;

/// How long a restarted server may take to accept connections.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);

/// Backs up the database: consumers aside, one snapshot, structure, data, publication.
pub fn run(request: &Request, observer: &dyn Observer, interrupt: &Interrupt) -> Result<Summary> {
    let (began, started) = (Instant::now(), Timestamp::now());
    let report = Reporter::new(observer);
    let destinations = Destinations::of(request)?;

    report.phase(Phase::Catalog);
    let targets = targets(&destinations, request)?;
    // Whatever becomes of this run, an earlier one's backup shall be whole.
    for target in &targets {
        if let Some(warning) = Staging::complete_begun(target)? {
            report.warn(&warning);
        }
    }
    // A wrong password or configuration must not cost a service its uptime.
    let (mut survey, mut conn) = Survey::take(request, &destinations, interrupt)?;
    // Nor must a destination that cannot be had. What this makes goes again if the run fails.
    let stagings = Stagings::begin(targets, &report)?;
    let services = if request.services == ServiceAction::None {
        None
    } else {
        report.phase(Phase::Services);
        let (consumers, providers) = (&request.config.consumers, &request.config.providers);
        let manager = Systemctl::default();
        let guard = Services::prepare(request.services, consumers, providers, manager, observer)?;
        (survey, conn) = survey_restarted_server(request, &destinations, interrupt)?;
        Some(guard)
    };
    report.connected(&survey, request);
    for warning in &survey.warnings {
        report.warn(warning);
    }

    report.phase(Phase::Snapshot);
    let database = request.connection.database.as_str();
    let marks = exchange::marks(&mut conn, &survey.flavor, database)?;
    let referring = Referring::read(&mut conn, database);
    drop(conn);
    let threads = config::threads(request.config.threads);
    let tables = survey.data_tables(&destinations);
    let mut pool = SnapshotPool::open(
        &SnapshotRequest {
            connector: &survey.connector,
            flavor: &survey.flavor,
            privileges: &survey.privileges,
            threads,
            consistency: request.config.consistency,
            tables: &tables,
        },
        interrupt,
    )?;
    report.snapshot(&pool);
    let catalog = catalog_in_snapshot(&pool, &survey, &tables, &stagings, request)?;
    interrupt.check()?;

    report.phase(Phase::Structure);
    let mut contents = Contents::new(
        &survey,
        &catalog,
        &destinations,
        &marks,
        &referring,
        request,
    );
    contents.refuse_what_would_not_come_back()?;
    structure::save(&mut contents, &pool, &stagings, interrupt)?;
    json::warn_of_lost_types(&contents, &pool, &report, interrupt)?;
    let (data_began, threads_used) = (Instant::now(), pool.size());
    data::save(
        &mut contents,
        &mut pool,
        &stagings,
        request,
        &survey.listing,
        &report,
        interrupt,
    )?;
    let marks_now = exchange::marks(
        pool.session()?.results_in("utf8mb4")?,
        &survey.flavor,
        database,
    )?;
    exchange::check(&contents, &marks, &marks_now)?;
    let data_seconds = data_began.elapsed().as_secs_f64();

    report.phase(Phase::Publish);
    let snapshot = pool.info().clone();
    drop(pool);
    let run = RunRecord {
        program: env!("CARGO_PKG_VERSION").into(),
        started: started.to_string(),
        finished: Timestamp::now().to_string(),
        host: request.host_name.clone(),
        server: survey.flavor.to_string(),
        consistency: snapshot.way.to_string(),
        snapshot: snapshot.position.clone(),
        threads: threads_used,
        rows: 0,
        raw_bytes: 0,
        stored_bytes: 0,
        warnings: report.warnings(),
    };
    let mut summary = contents.summary();
    summary.destinations = stagings.publish(&contents, &run, interrupt)?;
    if let Some(services) = services {
        services.finish()?;
    }
    summary.seconds = began.elapsed().as_secs_f64();
    summary.data_seconds = data_seconds;
    summary.snapshot = snapshot.describe();
    summary.warnings = report.warnings();
    observer.event(&Event::Finished(Box::new(summary.clone())));
    Ok(summary)
}

/// A provider that was restarted may need a moment.
fn survey_restarted_server(
    request: &Request,
    destinations: &Destinations,
    interrupt: &Interrupt,
) -> Result<(Survey, Line)> {
    let deadline = Instant::now() + RESTART_PATIENCE;
    loop {
        interrupt.check()?;
        match Survey::take(request, destinations, interrupt) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == ErrorKind::Connect && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(500));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads the catalog inside the snapshot.
fn catalog_in_snapshot(
    pool: &SnapshotPool,
    survey: &Survey,
    data_tables: &BTreeMap<String, bool>,
    stagings: &Stagings,
    request: &Request,
) -> Result<Catalog> {
    let mut session = pool.session()?;
    let mut other = (pool.size() > 1).then(|| pool.session()).transpose()?;
    let conn = session.results_in("utf8mb4")?;
    let other = other.as_mut().map(|other| other.results_in("utf8mb4"));
    let read: BTreeSet<&str> = data_tables.keys().map(String::as_str).collect();
    let mut split = data::may_be_split(&survey.listing, stagings, request);
    split.retain(|table| read.contains(table));
    let wanted = Wanted {
        flavor: &survey.flavor,
        listing: &survey.listing,
        listed_before: true,
        skip: &request.config.skip_objects,
        ignored: &survey.classification.ignored(),
        read: &read,
        split: &split,
    };
    Catalog::read(conn, other.transpose()?, &wanted)
}

/// Tells the observer and keeps the warnings.
pub(crate) struct Reporter<'a> {
    observer: &'a dyn Observer,
    warnings: Mutex<Vec<String>>,
}

impl<'a> Reporter<'a> {
    fn new(observer: &'a dyn Observer) -> Self {
        Reporter {
            observer,
            warnings: Mutex::default(),
        }
    }

    fn phase(&self, phase: Phase) {
        self.observer.event(&Event::Phase { phase });
    }

    fn warn(&self, message: &str) {
        self.observer.event(&Event::Warning {
            message: message.to_owned(),
        });
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message.to_owned());
    }

    fn notice(&self, message: &str) {
        self.observer.event(&Event::Notice {
            message: message.to_owned(),
        });
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn connected(&self, survey: &Survey, request: &Request) {
        self.observer.event(&Event::Connected {
            server: survey.flavor.to_string(),
            database: request.connection.database.clone(),
        });
    }

    fn snapshot(&self, pool: &SnapshotPool) {
        let info = pool.info();
        self.observer.event(&Event::Snapshot {
            description: info.describe(),
        });
        if info.way == Consistency::None {
            self.warn("no consistent snapshot was taken: tables may not fit together (--consistency none)");
        }
    }
}

/// Where the backups of this run go.
fn targets(destinations: &Destinations, request: &Request) -> Result<Vec<Target>> {
    let encryption = &request.config.encryption;
    let kinds = [
        (BackupKind::Host, Layout::InPlace, Access::Public, None),
        (
            BackupKind::UserData,
            Layout::Timestamped,
            Access::Private,
            Some(Category::Local),
        ),
        (
            BackupKind::Ephemeral,
            Layout::InPlace,
            Access::Private,
            Some(Category::Ephemeral),
        ),
    ];
    let mut targets = Vec::new();
    for (kind, layout, access, encrypted) in kinds {
        let Some(root) = destinations.path(kind) else {
            continue;
        };
        let recipients = match encrypted {
            Some(category) => encryption.recipients(category)?,
            None => None,
        };
        targets.push(Target {
            root: root.to_owned(),
            layout,
            access,
            kind,
            database: request.connection.database.clone(),
            link_unchanged: request.config.link_unchanged,
            recipients,
        });
    }
    Ok(targets)
}

/// The staging areas of a run, by kind.
pub(crate) struct Stagings(BTreeMap<BackupKind, Staging>);

impl Stagings {
    fn begin(targets: Vec<Target>, report: &Reporter<'_>) -> Result<Stagings> {
        let mut stagings = BTreeMap::new();
        for target in targets {
            let kind = target.kind;
            let staging = Staging::begin(target)?;
            staging
                .warnings()
                .iter()
                .for_each(|warning| report.warn(warning));
            stagings.insert(kind, staging);
        }
        Ok(Stagings(stagings))
    }

    /// The previous backup in that directory, if its chunks can be told: bounds are rows' keys, which
    /// only the holders of an identity may read where it is encrypted.
    fn previous(&self, kind: BackupKind) -> Option<&Manifest> {
        let previous = self.0.get(&kind)?.previous()?;
        (!previous.is_encrypted()).then_some(previous)
    }

    /// The staging area of that kind; one that the plan uses exists.
    fn of(&self, kind: BackupKind) -> Result<&Staging> {
        self.0.get(&kind).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("no staging area for {}", kind.name()),
            )
        })
    }

    /// Seals all of them before the first is published: whatever can fail has then failed.
    /// Private data goes first, so that the host directory, whose structure the others need,
    /// is never newer than they are.
    fn publish(
        self,
        contents: &Contents<'_>,
        run: &RunRecord,
        interrupt: &Interrupt,
    ) -> Result<Vec<Destination>> {
        let mut sealed = Vec::new();
        for (kind, staging) in self.0.into_iter().rev() {
            interrupt.check()?;
            let manifest = contents.manifest(kind)?;
            let run = record_of(&manifest, run);
            let recipients = staging.recipients();
            sealed.push((kind, recipients, staging.seal(&manifest, &run)?));
        }
        interrupt.check()?;
        let mut published = Vec::new();
        for (kind, recipients, sealed) in sealed {
            let Published {
                path,
                files_written,
                files_unchanged,
            } = sealed.publish()?;
            let path = path.display().to_string();
            published.push(Destination {
                kind: kind.name().into(),
                path,
                files_written,
                files_unchanged,
                recipients,
            });
        }
        published.reverse();
        Ok(published)
    }
}

/// The run's record with the figures of one directory.
fn record_of(manifest: &Manifest, run: &RunRecord) -> RunRecord {
    let data = || {
        manifest
            .tables
            .values()
            .filter_map(|table| table.data.as_ref())
    };
    let chunks = || data().flat_map(|data| &data.chunks);
    RunRecord {
        rows: manifest.rows(),
        raw_bytes: chunks().map(|chunk| chunk.raw_bytes).sum(),
        stored_bytes: chunks().map(|chunk| chunk.file.bytes).sum(),
        ..run.clone()
    }
}
