//! The files that say what to do and who we are: `schema_backup.conf`, option files,
//! `cloudscheduler.yaml`, and the sizes and modes in them.

use std::path::Path;

use super::{Input, assert_readable};
use crate::config::{Config, credentials_file, file, option_file, parse_size};

/// Reads any bytes as each kind of file.
pub fn configuration(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte() % 4;
    let (path, content) = (Path::new("a/file"), input.0);
    match kind {
        0 => match file::config_of(path, content) {
            Ok(config) => sane(&config),
            Err(error) => {
                assert_readable(&error);
                assert!(error.to_string().contains("a/file"));
            }
        },
        1 => {
            if let Err(error) = option_file::without_includes(path, content) {
                assert_readable(&error);
                assert!(error.to_string().starts_with("a/file: line "));
            }
        }
        2 => {
            if let Err(error) = credentials_file::check(path, content) {
                assert_readable(&error);
                assert!(error.to_string().contains("a/file"));
            }
        }
        _ => {
            let _ = parse_size(&String::from_utf8_lossy(content));
        }
    }
}

fn sane(config: &Config) {
    assert!(config.chunk_size >= 4096);
    assert!(!config.lock_wait_timeout.is_zero());
    let lists = &config.lists;
    for list in [&lists.global, &lists.local, &lists.ephemeral, &lists.ignore] {
        assert!(list.iter().all(|name| !name.is_empty()));
    }
    for notice in &config.notices {
        assert!(notice.len() < 1000 && !notice.contains('\n'));
    }
}
