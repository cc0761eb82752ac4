//! A backup directory that somebody hands in: its manifest and what stands beside it, the paths
//! in it, and the bounds that would go into queries.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::literal::{Lexer, Literal};
use super::{Input, assert_readable};
use crate::config::{ConnectionSettings, TlsSettings};
use crate::plan::literals::{LiteralKind, is_literal};
use crate::restore::source::Source;
use crate::restore::{Content, Request};
use crate::store::inventory::{Found, parse_manifest};
use crate::store::manifest::{Manifest, RunRecord};
use crate::store::open::Backup;
use crate::store::{audit, checked_json};

/// Reads any bytes as files of a backup: as they are, and with a checksum that is right.
pub fn manifest(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 4 {
        0 => read(input.0),
        1 => {
            let mut text = input.0.to_vec();
            checked_json::seal(&mut text);
            read(&text);
            let _: Result<RunRecord, String> = checked_json::parse(&text);
        }
        2 => {
            for file in audit::parse_sums(input.0).into_iter().flatten() {
                assert_inside(&file.0);
            }
        }
        _ => bound(&mut input),
    }
}

fn read(text: &[u8]) {
    if let Found::Manifest(manifest) = parse_manifest(text) {
        manifest
            .files()
            .for_each(|entry| assert_inside(&entry.file));
        // These would overflow if the numbers were absurd.
        let bytes: u64 = manifest.files().map(|entry| entry.bytes).sum();
        assert!(manifest.rows() < u64::MAX / 2 && bytes < u64::MAX / 2);
        open(*manifest);
    }
}

/// Decides what is restored. Its files are nowhere, which must be what is said of them.
fn open(manifest: Manifest) {
    let backup = Backup::of(PathBuf::from("/nonexistent/backup"), manifest, None);
    let nothing = backup.manifest.files().next().is_none();
    match Source::of(vec![backup], &request()) {
        Ok(_) => assert!(nothing, "files were found that are not there"),
        Err(error) => assert_readable(&error),
    }
}

fn request() -> Request {
    Request {
        connection: ConnectionSettings {
            host: None,
            port: 0,
            socket: None,
            user: String::new(),
            password: None,
            database: String::new(),
            tls: TlsSettings::default(),
        },
        dirs: Vec::new(),
        identities: None,
        tables: Vec::new(),
        content: Content::All,
        overwrite: false,
        resume: false,
        skip_definer: false,
        dry_run: true,
        threads: None,
        lock_wait_timeout: Duration::from_secs(1),
    }
}

fn assert_inside(file: &str) {
    let path = Path::new(file);
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    assert!(inside && !file.is_empty(), "{file:?}");
    assert!(!file.contains('\0'), "{file:?}");
}

/// A text that is taken for a key value is one literal.
fn bound(input: &mut Input<'_>) {
    let kinds = [
        LiteralKind::Number,
        LiteralKind::Ordinal,
        LiteralKind::Float,
        LiteralKind::Quoted,
        LiteralKind::Text,
        LiteralKind::Binary,
    ];
    let kind = kinds[input.below(kinds.len())];
    let text = String::from_utf8_lossy(input.0).into_owned();
    if !is_literal(kind, Some("utf8mb4"), &text) {
        return;
    }
    let mut lexer = Lexer(text.as_bytes());
    let literal = lexer.literal();
    assert!(
        lexer.0.is_empty(),
        "something follows the literal in {text:?}"
    );
    match (kind, literal) {
        (LiteralKind::Text, Some(Literal::Text(Some(charset), _))) => {
            assert_eq!(charset, "utf8mb4");
        }
        (LiteralKind::Quoted | LiteralKind::Binary, Some(Literal::Text(None, _))) => {}
        (
            LiteralKind::Number | LiteralKind::Ordinal | LiteralKind::Float,
            Some(Literal::Number(_)),
        ) => {}
        (kind, other) => panic!("{text:?} is {other:?} and no {kind:?}"),
    }
}
