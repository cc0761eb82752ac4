//! What a run did to the file system, in order, as `strace` saw it.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The system calls that change what lies on disk, or bring it to stable storage. One that is
/// not here and changes a file would show, because what follows would not fit.
pub(super) const CALLS: &str = "trace=open,openat,creat,close,write,writev,pwrite64,ftruncate,\
    fallocate,copy_file_range,fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
    mkdir,mkdirat,link,linkat,symlink,symlinkat";

/// The calls that count from their begin on, which end well.
const AT_ITS_BEGIN: [&str; 2] = ["close(", "syncfs("];

/// One change, or one sync. Paths are absolute.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op {
    Create(PathBuf),
    Truncate(PathBuf),
    Append(PathBuf, Vec<u8>),
    Sync(PathBuf),
    /// Everything, by way of a directory.
    SyncAll(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// The directory is there: made, or in use before the call that makes it has returned.
    MakeDir(PathBuf),
    Link(PathBuf, PathBuf),
    Symlink(String, PathBuf),
}

/// Reads the output of `strace -f -xx` for what happened below `root`.
pub(super) fn read(text: &str, root: &Path) -> Vec<Op> {
    let mut reader = Reader {
        root,
        files: HashMap::new(),
        making: HashMap::new(),
        ops: Vec::new(),
    };
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').expect("strace -f begins with the pid");
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            // Before a close returns, another thread may have its descriptor anew; what is written
            // before a sync of everything returns may not be part of it.
            if AT_ITS_BEGIN.iter().any(|call| begun.starts_with(call)) {
                reader.call(&format!("{begun}) = 0"));
            }
            if let Some((name @ ("mkdir" | "mkdirat"), arguments)) = begun.split_once('(') {
                reader.begin_to_make(pid, name, arguments);
            }
            unfinished.insert(pid, begun.to_owned());
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, end) = resumed.split_once(" resumed>").unwrap();
            let call = unfinished.remove(pid).unwrap() + end;
            reader.making.remove(pid);
            if !AT_ITS_BEGIN.iter().any(|begin| call.starts_with(begin)) {
                reader.call(&call);
            }
        } else {
            reader.call(rest);
        }
    }
    reader.ops
}

struct Reader<'a> {
    root: &'a Path,
    /// What descriptors stand for; a renamed file keeps its first name here.
    files: HashMap<i64, PathBuf>,
    /// The directories that threads are making, by their pids: they may be there already.
    making: HashMap<String, PathBuf>,
    ops: Vec<Op>,
}

impl Reader<'_> {
    fn begin_to_make(&mut self, pid: &str, name: &str, arguments: &str) {
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let path = match name {
            "mkdirat" => self.path(Some(arguments[0]), arguments[1]),
            _ => self.path(None, arguments[0]),
        };
        self.making.insert(pid.to_owned(), path);
    }

    fn call(&mut self, call: &str) {
        // Signals and exits.
        let (Some((name, rest)), Some((_, result))) =
            (call.split_once('('), call.rsplit_once(" = "))
        else {
            return;
        };
        let result: i64 = result.split(' ').next().unwrap().parse().unwrap_or(-1);
        if result < 0 {
            return;
        }
        let (arguments, _) = rest.rsplit_once(')').unwrap();
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let path =
            |dir: Option<usize>, at: usize| self.path(dir.map(|dir| arguments[dir]), arguments[at]);
        let op = match name {
            "open" | "openat" | "creat" => {
                let (path, flags) = match name {
                    "openat" => (path(Some(0), 1), arguments[2]),
                    "open" => (path(None, 0), arguments[1]),
                    _ => (path(None, 0), "O_CREAT|O_TRUNC"),
                };
                self.files.insert(result, path.clone());
                let mut ops = Vec::new();
                if flags.contains("O_CREAT") {
                    ops.push(Op::Create(path.clone()));
                }
                if flags.contains("O_TRUNC") {
                    ops.push(Op::Truncate(path));
                }
                ops
            }
            "close" => {
                self.files.remove(&arguments[0].parse().unwrap());
                return;
            }
            "write" | "fsync" | "fdatasync" | "syncfs" | "ftruncate" => {
                let Some(path) = self.files.get(&arguments[0].parse().unwrap()) else {
                    return;
                };
                let path = path.clone();
                vec![match name {
                    "write" => {
                        let mut bytes = unquote(arguments[1]);
                        bytes.truncate(usize::try_from(result).unwrap());
                        Op::Append(path, bytes)
                    }
                    "ftruncate" => {
                        assert_eq!(arguments[1], "0");
                        Op::Truncate(path)
                    }
                    "syncfs" => Op::SyncAll(path),
                    _ => Op::Sync(path),
                }]
            }
            "rename" => vec![Op::Rename(path(None, 0), path(None, 1))],
            "renameat" | "renameat2" => vec![Op::Rename(path(Some(0), 1), path(Some(2), 3))],
            "unlink" | "rmdir" => vec![Op::Remove(path(None, 0))],
            "unlinkat" => vec![Op::Remove(path(Some(0), 1))],
            "mkdir" => vec![Op::MakeDir(path(None, 0))],
            "mkdirat" => vec![Op::MakeDir(path(Some(0), 1))],
            "link" => vec![Op::Link(path(None, 0), path(None, 1))],
            "linkat" => vec![Op::Link(path(Some(0), 1), path(Some(2), 3))],
            "symlink" => vec![Op::Symlink(text(arguments[0]), path(None, 1))],
            "symlinkat" => vec![Op::Symlink(text(arguments[0]), path(Some(1), 2))],
            // Sockets, of which nothing is known here, are written to as well.
            "writev" | "pwrite64" if !self.files.contains_key(&arguments[0].parse().unwrap()) => {
                return;
            }
            _ => panic!("a call that this does not understand: {call}"),
        };
        for op in op {
            let parent = op.path().parent();
            let made = self
                .making
                .values()
                .find(|dir| Some(dir.as_path()) == parent);
            let made = made.map(|dir| Op::MakeDir(dir.clone()));
            let ops = made.into_iter().chain([op]);
            self.ops
                .extend(ops.filter(|op| op.path().starts_with(self.root)));
        }
    }

    fn path(&self, dir: Option<&str>, argument: &str) -> PathBuf {
        let path = PathBuf::from(text(argument));
        let path = match dir.and_then(|dir| self.files.get(&dir.parse().ok()?)) {
            Some(dir) => dir.join(path),
            None => path,
        };
        let parts = path.components();
        parts.filter(|part| *part != Component::CurDir).collect()
    }
}

impl Op {
    /// What it is done to.
    pub(super) fn path(&self) -> &Path {
        match self {
            Op::Create(path) | Op::Truncate(path) | Op::Append(path, _) => path,
            Op::Sync(path) | Op::SyncAll(path) => path,
            Op::Remove(path) | Op::MakeDir(path) => path,
            Op::Rename(_, to) | Op::Link(_, to) | Op::Symlink(_, to) => to,
        }
    }
}

fn text(argument: &str) -> String {
    String::from_utf8(unquote(argument)).unwrap()
}

/// The bytes of `"\x61\x62"`.
fn unquote(argument: &str) -> Vec<u8> {
    assert!(!argument.ends_with("..."), "strace cut a string short");
    let hex = argument.trim_matches('"');
    let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
    hex.split("\\x").skip(1).map(byte).collect()
}

#[test]
fn calls_become_changes_in_their_order() {
    let text = r#"7 openat(AT_FDCWD, "\x2f\x72\x2f\x61", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5
8 write(4, "\x7a", 1) = 1
7 write(5, "\x68\x69", 2 <unfinished ...>
8 mkdir("\x2f\x72\x2f\x62", 0755) = -1 ENOSPC (No space left on device)
7 <... write resumed>) = 2
7 fsync(5) = 0
7 mkdir("\x2f\x72\x2f\x64", 0755 <unfinished ...>
8 mkdir("\x2f\x72\x2f\x64", 0755) = -1 EEXIST (File exists)
8 openat(AT_FDCWD, "\x2f\x72\x2f\x64\x2f\x65", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 9
7 <... mkdir resumed>) = 0
7 close(5 <unfinished ...>
8 openat(AT_FDCWD, "\x2f\x72\x2f\x62", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5
7 <... close resumed>) = 0
7 rename("\x2f\x72\x2f\x61", "\x2f\x72\x2f\x63") = 0
7 mkdir("\x2f\x72\x2f\x66", 0755 <unfinished ...>
8 openat(AT_FDCWD, "\x2f\x72\x2f\x66\x2f\x65", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 9
7 <... mkdir resumed>) = 0
8 openat(AT_FDCWD, "\x2f\x72\x2f\x73\x74\x61\x67\x69\x6e\x67", O_RDONLY|O_CLOEXEC) = 6
8 syncfs(6 <unfinished ...>
7 write(5, "\x68\x6f", 2) = 2
8 <... syncfs resumed>) = 0
7 +++ exited with 0 +++
"#;
    let [a, b, c] = ["/r/a", "/r/b", "/r/c"].map(PathBuf::from);
    let [d, e, staging] = ["/r/d", "/r/d/e", "/r/staging"].map(PathBuf::from);
    let [f, in_f] = ["/r/f", "/r/f/e"].map(PathBuf::from);
    assert_eq!(
        read(text, Path::new("/r")),
        [
            Op::Create(a.clone()),
            Op::Append(a.clone(), b"hi".to_vec()),
            Op::Sync(a.clone()),
            Op::MakeDir(d.clone()),
            Op::Create(e),
            Op::MakeDir(d),
            Op::Create(b.clone()),
            Op::Rename(a, c),
            Op::MakeDir(f.clone()),
            Op::Create(in_f),
            Op::MakeDir(f),
            Op::SyncAll(staging),
            Op::Append(b, b"ho".to_vec()),
        ]
    );
}
