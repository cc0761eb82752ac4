//! Whether the user may do all that the restore will do, asked before anything is written: a
//! privilege that is missing for the last object would else be found after the last row.

use std::collections::BTreeSet;

use super::create::references;
use super::portable::create_statement;
use super::session::Session;
use super::source::{Source, SourceObject};
use super::statements::Statements;
use super::{Content, Request, definer};
use crate::error::{Error, ErrorKind, Result};
use crate::server::connect::query_error;
use crate::server::driver::Ask;
use crate::server::flavor::Flavor;
use crate::server::privileges::Privileges;
use crate::server::quote_identifier;

/// Refuses, naming the privileges, where the user lacks some.
pub(super) fn check(
    control: &mut Session<'_>,
    source: &Source,
    flavor: &Flavor,
    request: &Request,
) -> Result<()> {
    let database = request.connection.database.as_str();
    refuse_read_only(control, flavor)?;
    let privileges = Privileges::read(&mut control.conn, database)?;
    let wanted = wanted(source, flavor, request)?;
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|privilege| !privileges.on_database(privilege))
        .collect();
    if !missing.is_empty() {
        let list = missing.join(", ");
        let what = format!(
            "{} lacks privileges on database `{database}`: {list}",
            privileges.user()
        );
        let grant = format!(
            "GRANT {list} ON {}.* TO the user",
            quote_identifier(database)
        );
        return Err(Error::new(ErrorKind::Connect, what).hint(grant));
    }
    if !request.skip_definer && !may_name_definers(&privileges, flavor) {
        refuse_other_definers(source, privileges.user(), flavor)?;
    }
    refuse_distrust(control, source, &privileges)
}

/// MySQL has a mode in which nobody may write.
fn refuse_read_only(control: &mut Session<'_>, flavor: &Flavor) -> Result<()> {
    if flavor.is_mariadb() {
        return Ok(());
    }
    let read_only: Option<bool> = control
        .conn
        .query_first("SELECT @@super_read_only")
        .map_err(|e| query_error("cannot read the server's settings", e))?;
    if read_only != Some(true) {
        return Ok(());
    }
    let what = "the server takes no changes (super_read_only)";
    Err(Error::new(ErrorKind::Failed, what).hint("is it a replica? restore on its source"))
}

/// The privileges on the database that this restore needs.
fn wanted(source: &Source, flavor: &Flavor, request: &Request) -> Result<BTreeSet<&'static str>> {
    // The ledger is a table, and goes when all is done; what arrived is read.
    let mut wanted = BTreeSet::from(["CREATE", "DROP", "INSERT", "SELECT"]);
    let any_rows = source.tables.iter().any(|table| table.rows.is_some());
    if request.content != Content::Structure && any_rows {
        // Counters, and indexes that are built after the rows.
        wanted.insert("ALTER");
    }
    for object in &source.objects {
        wanted.insert(match object.kind.as_str() {
            "view" => "CREATE VIEW",
            "triggers" => "TRIGGER",
            "event" => "EVENT",
            _ => "CREATE ROUTINE",
        });
    }
    if request.content != Content::Data && !flavor.is_mariadb() {
        for table in &source.tables {
            let create = create_statement(&source.read(&table.structure)?);
            if create.is_some_and(|create| !references(&create).is_empty()) {
                wanted.insert("REFERENCES");
                break;
            }
        }
    }
    Ok(wanted)
}

/// Whether the user may create objects that belong to others.
fn may_name_definers(privileges: &Privileges, flavor: &Flavor) -> bool {
    let names: &[&str] = match flavor.is_mariadb() {
        true if flavor.version >= (11, 0, 0) => &["SET USER"],
        true => &["SET USER", "SUPER"],
        false => &["SET_ANY_DEFINER", "SET_USER_ID", "SUPER"],
    };
    names.iter().any(|name| privileges.globally(name))
}

fn refuse_other_definers(source: &Source, user: &str, flavor: &Flavor) -> Result<()> {
    for object in &source.objects {
        let file = source.read(&object.file)?;
        let mut statements = Statements::new(&file[..]);
        while let Ok(Some(statement)) = statements.next() {
            let Some(definer) = definer::of(statement).filter(|definer| definer != user) else {
                continue;
            };
            let what = format!(
                "{} `{}` belongs to {definer}, and {user} may not create what belongs to others",
                object.kind, object.name
            );
            let privilege = if flavor.is_mariadb() {
                "SET USER"
            } else {
                "SET_ANY_DEFINER"
            };
            return Err(Error::new(ErrorKind::Connect, what).hint(format!(
                "grant {privilege} ON *.*, or let everything belong to {user} with --skip-definer"
            )));
        }
    }
    Ok(())
}

/// A server with a binary log takes functions and triggers only from those it trusts, and from
/// nobody a function that does not say that it is safe to run once more.
fn refuse_distrust(
    control: &mut Session<'_>,
    source: &Source,
    privileges: &Privileges,
) -> Result<()> {
    let distrusts: Option<bool> = control
        .conn
        .query_first("SELECT @@log_bin AND NOT @@log_bin_trust_function_creators")
        .map_err(|e| query_error("cannot read the server's settings", e))?;
    if distrusts != Some(true) {
        return Ok(());
    }
    let refuse = |object: &SourceObject, why: &str| {
        let what = format!(
            "{} `{}`: a server with a binary log takes {why}",
            object.kind, object.name
        );
        Err(Error::new(ErrorKind::Connect, what)
            .hint("SET GLOBAL log_bin_trust_function_creators=1 on the server for the restore"))
    };
    let trusted = privileges.globally("SUPER");
    for object in &source.objects {
        let is_function = object.kind == "function";
        if !trusted && (is_function || object.kind == "triggers") {
            return refuse(object, "functions and triggers only from a user with SUPER");
        }
        if is_function && !says_it_is_safe(&source.read(&object.file)?) {
            return refuse(
                object,
                "no function that is not DETERMINISTIC, NO SQL or READS SQL DATA",
            );
        }
    }
    Ok(())
}

/// Whether a function has one of the characteristics that the server asks for, each of which it
/// states on a line of its own. (A line of the body that looks like one is taken for it.)
fn says_it_is_safe(file: &[u8]) -> bool {
    file.split(|byte| *byte == b'\n').any(|line| {
        matches!(
            line,
            b"    DETERMINISTIC" | b"    NO SQL" | b"    READS SQL DATA"
        )
    })
}
