//! What a backup and a plan both need to know before anything is written: the server, what
//! the user may do there, which tables exist and what the configuration makes of them.

use std::collections::BTreeMap;

use crate::Request;
use crate::config::{Category, ObjectKind};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::plan::classify::{Classification, classify};
use crate::plan::layout::Destinations;
use crate::server::catalog::Listing;
use crate::server::connect::{Connector, query_error};
use crate::server::driver::Ask;
use crate::server::flavor::Flavor;
use crate::server::line::Line;
use crate::server::privileges::Privileges;

/// The state of things before a run.
#[derive(Debug)]
pub struct Survey {
    /// Opens connections.
    pub connector: Connector,
    /// The server.
    pub flavor: Flavor,
    /// What the user may do.
    pub privileges: Privileges,
    /// Tables and views, and how tables are stored.
    pub listing: Listing,
    /// What the configuration makes of them.
    pub classification: Classification,
    /// The longest statement the server takes.
    pub max_allowed_packet: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Survey {
    /// Connects and looks around. Refuses where a missing privilege would hide something that
    /// belongs into the backup. The connection is returned for further use.
    pub fn take(
        request: &Request,
        destinations: &Destinations,
        interrupt: &Interrupt,
    ) -> Result<(Survey, Line)> {
        let patience = request.config.lock_wait_timeout;
        let (connector, mut conn) = Connector::open(&request.connection, patience, interrupt)?;
        let flavor = Flavor::detect(&mut conn)?;
        let privileges = Privileges::read(&mut conn, &request.connection.database)?;
        privileges.require_reading()?;
        let listing = Listing::read_by_halves(&mut conn, &connector)?;
        for (_, kind) in ObjectKind::NAMES {
            let needed = kind != ObjectKind::Views || !listing.views.is_empty();
            if needed && !request.config.skip_objects.contains(&kind) {
                privileges.require_objects(kind, &flavor)?;
            }
        }
        let tables: Vec<&str> = listing.tables.keys().map(String::as_str).collect();
        let views: Vec<&str> = listing.views.iter().map(String::as_str).collect();
        let classification = classify(&request.config.lists, &tables, &views)?;
        let max_allowed_packet = conn
            .query_first("SELECT @@max_allowed_packet")
            .map_err(|e| query_error("cannot read the server's settings", e))?
            .unwrap_or(1 << 20);
        let mut survey = Survey {
            warnings: classification.warnings.clone(),
            connector,
            flavor,
            privileges,
            listing,
            classification,
            max_allowed_packet,
        };
        survey.warn(request, destinations);
        Ok((survey, conn))
    }

    fn warn(&mut self, request: &Request, destinations: &Destinations) {
        if destinations.user_data.is_none() && self.tables_of(Category::Local) > 0 {
            self.warnings.push(format!(
                "the data of {} local tables is not backed up: user_data_backup_dir is not set",
                self.tables_of(Category::Local)
            ));
        }
        for dir in destinations.private_in_git() {
            self.warnings.push(format!(
                "{} lies in a git work tree and will hold sensitive data",
                dir.display()
            ));
        }
        for kind in &request.config.skip_objects {
            self.warnings.push(format!("{kind} are left out, as asked"));
        }
        let unsafe_tables: Vec<_> = self
            .data_tables(destinations)
            .into_iter()
            .filter(|(_, transactional)| !transactional)
            .collect();
        if !unsafe_tables.is_empty() {
            let names: Vec<_> = unsafe_tables
                .iter()
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            self.warnings.push(format!(
                "tables without transactions are read first, under a lock: {}",
                names.join(", ")
            ));
        }
    }

    fn tables_of(&self, category: Category) -> usize {
        self.listing
            .tables
            .keys()
            .filter(|name| self.category(name) == category)
            .count()
    }

    /// The category of a table.
    pub fn category(&self, table: &str) -> Category {
        self.classification.category(table)
    }

    /// The tables whose data the run saves, with whether they have transactions.
    pub fn data_tables(&self, destinations: &Destinations) -> BTreeMap<String, bool> {
        let tables = self.listing.tables.iter();
        let saved = tables.filter(|(name, listed)| {
            listed.holds_rows() && destinations.of_data(self.category(name)).is_some()
        });
        saved
            .map(|(name, listed)| (name.clone(), listed.transactional))
            .collect()
    }
}
