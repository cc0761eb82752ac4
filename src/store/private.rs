//! What a manifest says of rows, where these are encrypted: keys at which tables are split,
//! digests that tell whether a table holds what somebody guesses, counters. It lies beside the
//! manifest in a file that is encrypted for the same recipients, and comes back into the
//! manifest when the backup is unlocked. It also says which manifest it belongs to, so that
//! whoever changes a checksum there, or takes files from elsewhere, is found out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::names::hex;
use crate::error::{Error, ErrorKind, Result};

/// File name of what only the holders of a key may know.
pub const PRIVATE_FILE: &str = "private.json.age";

/// The file's content.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Private {
    /// SHA-256 of the manifest, without its entry for this file.
    manifest: String,
    tables: BTreeMap<String, PrivateTable>,
}

/// Of a table whose rows are saved.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PrivateTable {
    digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auto_increment: Option<u64>,
    /// The lower bound of each chunk.
    from: Vec<Vec<String>>,
}

impl Private {
    /// Takes out of `manifest` what is private.
    pub(super) fn take(manifest: &mut Manifest) -> Result<Private> {
        let mut tables = BTreeMap::new();
        for (name, table) in &mut manifest.tables {
            let Some(data) = &mut table.data else {
                continue;
            };
            let from = data.chunks.iter_mut().map(|c| std::mem::take(&mut c.from));
            let private = PrivateTable {
                from: from.collect(),
                digest: std::mem::take(&mut data.digest),
                auto_increment: table.auto_increment.take(),
            };
            tables.insert(name.clone(), private);
        }
        Ok(Private {
            manifest: fingerprint(manifest)?,
            tables,
        })
    }

    /// Puts it back; `false`, and nothing is changed, where it is not of this manifest.
    pub(super) fn put_back(self, manifest: &mut Manifest) -> Result<bool> {
        if fingerprint(manifest)? != self.manifest {
            return Ok(false);
        }
        for (name, private) in self.tables {
            let Some(table) = manifest.tables.get_mut(&name) else {
                continue;
            };
            table.auto_increment = private.auto_increment;
            if let Some(data) = &mut table.data {
                data.digest = private.digest;
                for (chunk, from) in data.chunks.iter_mut().zip(private.from) {
                    chunk.from = from;
                }
            }
        }
        Ok(true)
    }
}

/// What tells a manifest from every other.
fn fingerprint(manifest: &Manifest) -> Result<String> {
    let mut manifest = manifest.clone();
    manifest.private = None;
    let text = serde_json::to_vec(&manifest)
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot serialize").because(e))?;
    Ok(hex(&Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use age::x25519::Identity;

    use super::super::checked_json;
    use super::super::manifest::MANIFEST_FILE;
    use super::super::open::Backup;
    use super::super::staging::tests::{begin, fill, run_record, user_data};
    use super::*;
    use crate::config::testing::{identities, recipients};

    #[test]
    fn what_is_taken_out_comes_back_with_the_key_into_the_same_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let key = Identity::generate();
        let mut target = user_data(&dir.path().join("user"));
        target.recipients = Some(recipients(&key));
        let staging = begin(&target);
        let mut whole = fill(&staging, target.kind, &[("a", "1"), ("b", "22")]);
        whole.tables.get_mut("b").unwrap().auto_increment = Some(77);
        let path = staging.seal(&whole, &run_record()).unwrap();
        let path = path.publish().unwrap().path;

        let mut backup = Backup::open(&path).unwrap();
        assert!(backup.is_locked() && backup.require_unlocked().is_err());
        let b = &backup.manifest.tables["b"];
        assert_eq!(b.auto_increment, None);
        assert_eq!(b.data.as_ref().unwrap().digest, "");
        assert!(
            backup
                .unlock(&Arc::new(identities(&Identity::generate())))
                .is_err()
        );
        assert!(backup.is_locked());

        let identities = Arc::new(identities(&key));
        backup.unlock(&identities).unwrap();
        backup.require_unlocked().unwrap();
        whole.private.clone_from(&backup.manifest.private);
        assert_eq!(backup.manifest, whole);

        let mut edited = Backup::open(&path).unwrap().manifest;
        edited.tables.get_mut("a").unwrap().structure.sha256 = "0".repeat(64);
        let edited = checked_json::render(&edited).unwrap();
        fs::write(path.join(MANIFEST_FILE), edited).unwrap();
        let mut backup = Backup::open(&path).unwrap();
        backup.unlock(&identities).unwrap();
        let error = backup.require_unlocked().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Differs);
        assert!(error.to_string().contains(PRIVATE_FILE), "{error}");
    }
}
