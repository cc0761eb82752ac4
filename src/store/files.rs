//! Small, careful operations on files and directories that the rest of the store is made of:
//! modes from the first moment, paths that stay inside, comparison and syncing.

use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};

/// Makes a directory with `mode` (the umask applies). One that exists is left as it is;
/// something else of that name, a symbolic link among them, is an error.
pub(super) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path) {
                Ok(meta) if !meta.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
                // Gone again is for the caller's next step to find.
                _ => Ok(()),
            }
        }
        other => other,
    }
}

/// Makes the directories between `base` and the file `base/relative`, each with `mode`.
pub(super) fn make_parents(base: &Path, relative: &str, mode: u32) -> Result<()> {
    for dir in parents(relative) {
        let path = base.join(dir);
        make_dir(&path, mode).map_err(|e| Error::write(&path, "create the directory", e))?;
    }
    Ok(())
}

/// The directories above a relative path, outermost first: `a/b/c` has `a` and `a/b`.
pub(super) fn parents(relative: &str) -> impl Iterator<Item = &str> {
    relative.match_indices('/').map(|(at, _)| &relative[..at])
}

/// Whether `relative` names something strictly below a backup directory, as we name files: no
/// absolute path, no `..`, no doubled or trailing slash, nothing `sha256sum` would escape.
pub(super) fn is_safe(relative: &str) -> bool {
    !relative.is_empty()
        && !relative.contains(['\\', '\0', '\n', '\r'])
        && relative.split('/').all(|part| !part.is_empty())
        && Path::new(relative)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        && relative.split('/').all(|part| part != ".")
}

/// Whether every directory above `root/relative` is a directory, not a symbolic link.
pub(super) fn parents_are_real(root: &Path, relative: &str) -> bool {
    parents(relative)
        .all(|dir| fs::symlink_metadata(root.join(dir)).is_ok_and(|meta| meta.is_dir()))
}

/// Whether two files have the same bytes. `false` where `live` is no regular file, or not
/// readable.
pub(super) fn same_bytes(live: &Path, staged: &Path) -> io::Result<bool> {
    let Ok(a) = fs::symlink_metadata(live) else {
        return Ok(false);
    };
    if !a.is_file() || a.len() != fs::metadata(staged)?.len() {
        return Ok(false);
    }
    let (Ok(mut a), mut b) = (File::open(live), File::open(staged)?) else {
        return Ok(false);
    };
    let (mut from_a, mut from_b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = b.read(&mut from_b)?;
        if n == 0 {
            return Ok(true);
        }
        if a.read_exact(&mut from_a[..n]).is_err() || from_a[..n] != from_b[..n] {
            return Ok(false);
        }
    }
}

/// A tree of regular files.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Files by relative path, with their sizes.
    pub(super) files: Vec<(String, u64)>,
    /// Directories by relative path, parents before children.
    pub(super) dirs: Vec<String>,
}

/// What lies under `base`.
pub(super) fn walk(base: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        let path = base.join(&dir);
        let failed = |e| cannot_read(&path, e);
        let entries: Vec<DirEntry> = fs::read_dir(&path)
            .and_then(Iterator::collect)
            .map_err(failed)?;
        // There may be thousands of files in it.
        let metas: Vec<_> = entries.par_iter().map(DirEntry::metadata).collect();
        for (entry, meta) in entries.iter().zip(metas) {
            let (name, meta) = (entry.file_name(), meta.map_err(failed)?);
            let name = name.to_str().ok_or_else(|| {
                Error::new(
                    ErrorKind::Internal,
                    format!("a file name in {} is not UTF-8", path.display()),
                )
            })?;
            let relative = if dir.is_empty() {
                name.to_owned()
            } else {
                format!("{dir}/{name}")
            };
            if meta.is_dir() {
                tree.dirs.push(relative.clone());
                todo.push(relative);
            } else {
                tree.files.push((relative, meta.len()));
            }
        }
    }
    Ok(tree)
}

/// Brings one file or directory to stable storage.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::write(path, "sync", e))
}

/// Makes `root` and the directories above it that do not exist, each with `mode`, durably.
/// Returns what it made, the innermost first.
pub(super) fn make_root(root: &Path, mode: u32) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::write(root, "create the directory", e);
    match fs::metadata(root) {
        Ok(meta) if meta.is_dir() => return Ok(Vec::new()),
        Ok(_) => return Err(failed(io::ErrorKind::NotADirectory.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let missing: Vec<&Path> = root.ancestors().take_while(|dir| !dir.exists()).collect();
    DirBuilder::new()
        .mode(mode)
        .recursive(true)
        .create(root)
        .map_err(failed)?;
    for parent in missing.iter().filter_map(|dir| dir.parent()) {
        // A directory that may be searched and written but not read cannot be synced.
        let _ = sync(if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        });
    }
    Ok(missing.into_iter().map(Path::to_owned).collect())
}

/// Removes a file or a whole directory; nothing there is fine.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether something is mounted on `path`. Nothing can be renamed into it or out of it, even
/// where it is the same file system once more.
pub(super) fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether group or others may do anything with `path`.
pub(super) fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 != 0)
}

/// A file or directory that cannot be read.
pub(super) fn cannot_read(path: &Path, cause: io::Error) -> Error {
    Error::new(ErrorKind::Failed, format!("cannot read {}", path.display())).because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_below_are_safe() {
        for good in ["a", "structure/tables/a%2e.sql", "..a/b.."] {
            assert!(is_safe(good), "{good}");
        }
        for bad in [
            "", "/a", "..", "a/../b", "../a", "./a", "a/.", "a//b", "a/", "a\nb", "a\\b",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
        assert_eq!(parents("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
    }

    #[test]
    fn files_are_compared_to_the_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let mut bytes = vec![7; 200_000];
        let (a, b) = (file("a", &bytes), file("b", &bytes));
        bytes[199_999] = 8;
        let c = file("c", &bytes);
        assert!(same_bytes(&a, &b).unwrap());
        assert!(!same_bytes(&a, &c).unwrap());
        assert!(!same_bytes(&dir.path().join("none"), &a).unwrap());
        assert!(!same_bytes(dir.path(), &a).unwrap());
        std::os::unix::fs::symlink(&a, dir.path().join("link")).unwrap();
        assert!(!same_bytes(&dir.path().join("link"), &a).unwrap());
    }
}
