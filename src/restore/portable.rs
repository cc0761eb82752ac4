//! Whether the target takes what the backup holds, where that is not a matter of course: on the
//! other product, and on a version older than the source's. The server itself is asked: every
//! definition is tried in a scratch database, which is dropped again, before anything is written
//! to the target. What the other product would skip without a word is found in the text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::crew::is_frame;
use super::session::Session;
use super::source::{Source, SourceFile};
use super::statements::Statements;
use super::{Content, Request, definer, lock_name};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::server::connect::Connector;
use crate::server::flavor::Flavor;
use crate::server::quote_identifier;

/// Refuses, by name, what would not come back as it was.
pub(super) fn check(
    server: &Connector,
    source: &Source,
    target: &Flavor,
    request: &Request,
    interrupt: &Interrupt,
) -> Result<()> {
    let foreign = source.flavor != target.name();
    // Older than the server that was saved, as far as that is on record.
    let older = source.version() > Some((target.version.0, target.version.1));
    if !foreign && !older {
        return Ok(());
    }
    let mut refused = if foreign && request.content != Content::Data {
        skipped_silently(source, target)?
    } else {
        BTreeMap::new()
    };
    if request.content != Content::Data && !request.dry_run {
        let mut scratch = Scratch::make(server, foreign, request, interrupt)?;
        let tried = scratch.try_all(source);
        let dropped = scratch.drop();
        for (what, why) in tried? {
            refused.entry(what).or_insert(why);
        }
        dropped?;
    }
    let Some((what, why)) = refused.first_key_value() else {
        return Ok(());
    };
    let names: Vec<_> = refused.keys().skip(1).cloned().collect();
    let more = if names.is_empty() {
        String::new()
    } else {
        format!("; nor are: {}", names.join(", "))
    };
    let message = format!("{what} is not portable to {target}: {why}{more}");
    Err(Error::new(ErrorKind::Config, message)
        .hint("nothing was written; --tables restores what is named and leaves out the rest"))
}

/// The `CREATE TABLE` statement of a structure file.
pub(crate) fn create_statement(file: &[u8]) -> Option<String> {
    let mut statements = Statements::new(file);
    while let Ok(Some(statement)) = statements.next() {
        if statement.starts_with(b"CREATE TABLE ") {
            return String::from_utf8(statement.to_vec()).ok();
        }
    }
    None
}

/// Every definition, by what it is of.
fn definitions(source: &Source) -> impl Iterator<Item = (String, &SourceFile)> {
    let tables = source
        .tables
        .iter()
        .map(|t| (format!("table `{}`", t.name), &t.structure));
    let objects = source
        .objects
        .iter()
        .map(|o| (format!("{} `{}`", o.kind, o.name), &o.file));
    tables.chain(objects)
}

/// Comments that only one product, or one version on, reads as SQL: to the other they are
/// comments, and what stands in them would be lost without a word.
fn skipped_silently(source: &Source, target: &Flavor) -> Result<BTreeMap<String, String>> {
    let mut refused = BTreeMap::new();
    for (what, file) in definitions(source) {
        let text = source.read(file)?;
        if let Some(comment) = conditional_comment(&text, target.is_mariadb()) {
            refused.insert(what, format!("it would lose {comment}"));
        }
    }
    Ok(refused)
}

/// The first conditional comment outside quotes that the target would skip: MariaDB skips what
/// is for MySQL from 5.7 on, and MySQL what is for MariaDB or for versions that it will not have.
fn conditional_comment(text: &[u8], on_mariadb: bool) -> Option<String> {
    let mut quote = None;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        match quote {
            Some(q) if byte == b'\\' && q != b'`' => at += 1,
            Some(q) if byte == q => quote = None,
            None if matches!(byte, b'\'' | b'"' | b'`') => quote = Some(byte),
            None if text[at..].starts_with(b"/*M!") && !on_mariadb => {
                return Some(excerpt(&text[at..]));
            }
            None if text[at..].starts_with(b"/*!") => {
                let digits = text[at + 3..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit());
                let number = digits.fold(0u32, |n, d| n.saturating_mul(10) + u32::from(d - b'0'));
                let skipped = if on_mariadb {
                    (50_700..100_000).contains(&number)
                } else {
                    number >= 100_000
                };
                if skipped {
                    return Some(excerpt(&text[at..]));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn excerpt(comment: &[u8]) -> String {
    let end = memchr::memmem::find(comment, b"*/").map_or(comment.len(), |at| at + 2);
    String::from_utf8_lossy(&comment[..end.min(80)]).into_owned()
}

/// A database to try definitions in.
struct Scratch<'a> {
    session: Session<'a>,
    name: String,
    server: &'a Connector,
    foreign: bool,
    skip_definer: bool,
    interrupt: &'a Interrupt,
}

impl<'a> Scratch<'a> {
    /// Makes the database, anew where a run that was killed has left it: the caller holds the
    /// lock on restoring into `database`.
    fn make(
        server: &'a Connector,
        foreign: bool,
        request: &Request,
        interrupt: &'a Interrupt,
    ) -> Result<Scratch<'a>> {
        let name = format!("_schema_backup_{}", lock_name(&request.connection.database));
        let mut session = Session::open(server, interrupt)?;
        let quoted = quote_identifier(&name);
        for statement in [
            format!("DROP DATABASE IF EXISTS {quoted}"),
            format!("CREATE DATABASE {quoted}"),
            format!("USE {quoted}"),
        ] {
            session.execute(statement.as_bytes()).map_err(|e| {
                e.within("cannot make a scratch database to try the definitions in")
            })?;
        }
        Ok(Scratch {
            session,
            name,
            server,
            foreign,
            skip_definer: request.skip_definer,
            interrupt,
        })
    }

    /// What the server refuses, with its words.
    fn try_all(&mut self, source: &Source) -> Result<BTreeMap<String, String>> {
        let mut refused = BTreeMap::new();
        for (what, file) in definitions(source) {
            let text = source.read(file)?;
            match self.try_file(&text) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
                Err(e) => {
                    refused.insert(what, e.to_string());
                }
            }
        }
        Ok(refused)
    }

    fn try_file(&mut self, text: &[u8]) -> Result<()> {
        self.session.make_settings()?;
        let mut statements = Statements::new(text);
        let broken = |e| Error::new(ErrorKind::Differs, "the file cannot be read").because(e);
        while let Some(statement) = statements.next().map_err(broken)? {
            if self.foreign && is_frame(statement) {
                continue;
            }
            let mut statement = Cow::Borrowed(statement);
            if let Some(changed) = definer::without(&statement).filter(|_| self.skip_definer) {
                statement = changed.into();
            }
            if let Some(changed) = inactive(&statement) {
                statement = changed.into();
            }
            self.session.execute(&statement)?;
        }
        Ok(())
    }

    fn drop(mut self) -> Result<()> {
        // An interrupted statement has left the connection unusable.
        let calm = Interrupt::new();
        let server = self.server.apart();
        let mut session = if self.interrupt.is_raised() {
            Session::open(&server, &calm)?
        } else {
            self.session.make_settings()?;
            self.session
        };
        let drop = format!("DROP DATABASE {}", quote_identifier(&self.name));
        let done = session.execute(drop.as_bytes());
        done.map_err(|e| e.within("cannot drop the scratch database"))
    }
}

/// The statement that creates an event, if it would be active, with the event switched off: it
/// must not run where it is only tried.
fn inactive(statement: &[u8]) -> Option<Vec<u8>> {
    const ACTIVE: &[u8] = b" PRESERVE ENABLE";
    let at = memchr::memmem::find(statement, ACTIVE)?;
    let (before, after) = (&statement[..at], &statement[at + ACTIVE.len()..]);
    Some([before, b" PRESERVE DISABLE", after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_tried_switched_off() {
        let event = |state| {
            format!(
                "CREATE EVENT `e` ON SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE {state} DO SELECT 1"
            )
        };
        let tried = inactive(event("ENABLE").as_bytes()).unwrap();
        assert_eq!(String::from_utf8(tried).unwrap(), event("DISABLE"));
        assert_eq!(inactive(event("DISABLE ON SLAVE").as_bytes()), None);
    }

    #[test]
    fn what_the_other_product_would_skip_is_seen_outside_quotes_only() {
        let on = |text: &str, mariadb| conditional_comment(text.as_bytes(), mariadb);
        let invisible = "`a` int /*!80023 INVISIBLE */";
        assert_eq!(on(invisible, true).unwrap(), "/*!80023 INVISIBLE */");
        assert_eq!(on(invisible, false), None);
        assert_eq!(on("x /*!50100 PARTITION BY HASH (`a`) */", true), None);
        assert_eq!(on("COMMENT '/*!80023 x */'", true), None);
        assert!(on("`a` text /*M!100301 COMPRESSED*/", false).is_some());
        assert_eq!(on("`a` text /*M!100301 COMPRESSED*/", true), None);
    }
}
