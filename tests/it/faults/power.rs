//! Loss of power, as far as it can be simulated: a run is traced, and what it did to the file
//! system is done again in a model that knows what has been synced. After every single change
//! the model is asked what could lie on disk if the power failed now, the files are laid out
//! like that, and the program has to find a whole backup among them.
//!
//! Three answers are tried each time. *Strict*: of a file only what was synced, of a directory
//! only the entries that it had when it was synced. *Ordered*, as journaling file systems do it:
//! all entries, but of files only what was synced, so that others are empty. *Mixed*: all
//! entries, and of each file what was synced or what was written, by chance. That a rename
//! between two directories is there in both or in neither is taken for granted.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::killed::soak;
use super::pair::{Aftermath, Holds, Pair};
use super::table::Table;
use super::trace::{self, Op};
use crate::server::with_binlog;
use crate::site::{Lists, Outcome, PROGRAM, Site, contents, run};

/// States of a traced run that are looked at, unless all are.
const SOME: usize = 24;
/// The same of a completed publication, of which there are several.
#[cfg(feature = "failpoints")]
const FEW: usize = 8;

#[derive(Clone)]
enum Node {
    File {
        now: Vec<u8>,
        synced: Rc<Vec<u8>>,
    },
    Dir {
        now: BTreeMap<String, usize>,
        synced: BTreeMap<String, usize>,
    },
    Link(String),
}

/// What could lie at a path.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Leaf {
    File(Rc<Vec<u8>>),
    Dir,
    Link(String),
}

/// What could lie below the root, by path.
type State = BTreeMap<PathBuf, Leaf>;

/// Files and directories below a root, with what of them is on stable storage.
struct Model {
    root: PathBuf,
    nodes: Vec<Node>,
    /// What files that are being written to are, by the name under which they were opened.
    open: BTreeMap<PathBuf, usize>,
}

impl Model {
    /// What lies on disk now, all of it on stable storage.
    fn of(root: &Path, dirs: &[PathBuf]) -> Model {
        let mut model = Model {
            root: root.to_owned(),
            nodes: vec![dir()],
            open: BTreeMap::new(),
        };
        for dir in dirs {
            model.read(dir);
        }
        for node in &mut model.nodes {
            node.sync();
        }
        model
    }

    fn read(&mut self, path: &Path) {
        let meta = fs::symlink_metadata(path).unwrap();
        if meta.is_dir() {
            self.add(path, dir());
            for entry in fs::read_dir(path).unwrap() {
                self.read(&entry.unwrap().path());
            }
        } else if meta.is_symlink() {
            let to = fs::read_link(path).unwrap().to_str().unwrap().to_owned();
            self.add(path, Node::Link(to));
        } else {
            let now = fs::read(path).unwrap();
            let synced = Rc::default();
            self.add(path, Node::File { now, synced });
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let mut at = 0;
        for part in path.strip_prefix(&self.root).unwrap() {
            let Node::Dir { now, .. } = &self.nodes[at] else {
                return None;
            };
            at = *now.get(part.to_str().unwrap())?;
        }
        Some(at)
    }

    /// The entries of the directory that `path` lies in, and its name there.
    fn entries(&mut self, path: &Path) -> (&mut BTreeMap<String, usize>, String) {
        let parent = self.find(path.parent().unwrap());
        let parent = parent.unwrap_or_else(|| panic!("{} has no parent", path.display()));
        let Node::Dir { now, .. } = &mut self.nodes[parent] else {
            panic!("{} lies in no directory", path.display());
        };
        (now, path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn place(&mut self, path: &Path, node: usize) {
        let (entries, name) = self.entries(path);
        entries.insert(name, node);
    }

    fn take(&mut self, path: &Path) -> usize {
        let (entries, name) = self.entries(path);
        entries
            .remove(&name)
            .unwrap_or_else(|| panic!("{} is not there", path.display()))
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        self.place(path, self.nodes.len() - 1);
    }

    fn file(&mut self, path: &Path) -> &mut Vec<u8> {
        match &mut self.nodes[self.open[path]] {
            Node::File { now, .. } => now,
            _ => panic!("{} is no file", path.display()),
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path) => {
                if self.find(path).is_none() {
                    let (now, synced) = (Vec::new(), Rc::default());
                    self.add(path, Node::File { now, synced });
                }
                let node = self.find(path).unwrap();
                self.open.insert(path.clone(), node);
            }
            Op::Truncate(path) => self.file(path).clear(),
            Op::Append(path, bytes) => self.file(path).extend_from_slice(bytes),
            Op::Sync(path) => {
                // A file may have another name by now; one opened to be synced has this one.
                let node = self.find(path).or_else(|| self.open.get(path).copied());
                self.nodes[node.unwrap()].sync();
            }
            // What it does to directories is not relied on.
            Op::SyncAll(_) => {
                let files = |node: &&mut Node| matches!(node, Node::File { .. });
                self.nodes.iter_mut().filter(files).for_each(Node::sync);
            }
            Op::Rename(from, to) => {
                let node = self.take(from);
                self.place(to, node);
            }
            Op::Remove(path) => {
                self.take(path);
            }
            Op::MakeDir(path) => {
                if self.find(path).is_none() {
                    self.add(path, dir());
                }
            }
            Op::Link(from, to) => {
                let node = self.find(from).unwrap();
                self.place(to, node);
            }
            Op::Symlink(to, path) => self.add(path, Node::Link(to.clone())),
        }
    }

    /// What could lie there after a loss of power, with only the synced entries of directories
    /// if it is `strict`; `lucky` says of each file whether all of it was written in time.
    fn state(&self, strict: bool, mut lucky: impl FnMut() -> bool) -> State {
        let mut state = State::new();
        let mut todo = vec![(PathBuf::new(), 0)];
        while let Some((path, at)) = todo.pop() {
            let leaf = match &self.nodes[at] {
                Node::File { now, synced } if now != &**synced && lucky() => {
                    Leaf::File(Rc::new(now.clone()))
                }
                Node::File { synced, .. } => Leaf::File(Rc::clone(synced)),
                Node::Link(to) => Leaf::Link(to.clone()),
                Node::Dir { now, synced } => {
                    let entries = if strict { synced } else { now };
                    todo.extend(entries.iter().map(|(name, node)| (path.join(name), *node)));
                    Leaf::Dir
                }
            };
            state.insert(path, leaf);
        }
        state
    }
}

fn dir() -> Node {
    Node::Dir {
        now: BTreeMap::new(),
        synced: BTreeMap::new(),
    }
}

impl Node {
    fn sync(&mut self) {
        match self {
            Node::File { now, synced } => *synced = Rc::new(now.clone()),
            Node::Dir { now, synced } => synced.clone_from(now),
            Node::Link(_) => {}
        }
    }
}

/// Puts a state in place of what the site's two directories hold.
fn lay_out(state: &State, site: &Site) {
    for root in [site.backup_dir(), site.user_data_dir()] {
        fs::remove_dir_all(&root).ok();
    }
    // Parents sort before what is in them.
    for (path, leaf) in state.iter().skip(1) {
        let path = site.path("").join(path);
        match leaf {
            Leaf::Dir => fs::DirBuilder::new().mode(0o700).create(&path).unwrap(),
            Leaf::Link(to) => symlink(to, &path).unwrap(),
            Leaf::File(bytes) => {
                let mut options = fs::OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&path);
                std::io::Write::write_all(&mut file.unwrap(), bytes).unwrap();
            }
        }
    }
}

/// Runs `command` under `strace`; what it did to the site's directories, and how it ended.
fn traced(site: &Site, command: &Command) -> (Vec<Op>, Outcome) {
    let log = site.path("strace");
    let mut wrapped = Command::new("strace");
    wrapped.args([
        "-f",
        "-qq",
        "-xx",
        "-s",
        "33554432",
        "-e",
        trace::CALLS,
        "-o",
    ]);
    wrapped.arg(&log).arg(PROGRAM).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped.current_dir(command.get_current_dir().unwrap());
    let outcome = run(wrapped);
    let text = fs::read_to_string(&log).unwrap();
    let roots = [site.backup_dir(), site.user_data_dir()];
    let mut ops = trace::read(&text, &site.path(""));
    ops.retain(|op| roots.iter().any(|root| op.path().starts_with(root)));
    (ops, outcome)
}

/// Every different state that a loss of power during `ops` could leave, in their order.
fn states(mut model: Model, ops: &[Op], random: &mut fastrand::Rng) -> Vec<State> {
    let mut seen = HashSet::new();
    let mut states = Vec::new();
    let mut add = |state: State| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        if seen.insert(hasher.finish()) {
            states.push(state);
        }
    };
    for op in ops {
        model.apply(op);
        add(model.state(true, || false));
        add(model.state(false, || false));
        add(model.state(false, || random.bool()));
    }
    states
}

fn strace() -> bool {
    let there = Command::new("strace").arg("-V").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "no strace here, and CI is set"
    );
    if !there {
        let line = "SKIPPED loss of power: no strace here; see tests/run\n";
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).ok();
    }
    there
}

/// Looks at what each of the states is found to be.
fn examine(
    pair: &Pair,
    states: &[State],
    most: usize,
    table: &mut Table,
    when: &str,
    outcome: &Outcome,
) {
    let all = soak() || states.len() <= most;
    for (at, state) in states.iter().enumerate() {
        // Spread over all of them.
        if !all && at * most / states.len() == (at + 1) * most / states.len() {
            continue;
        }
        lay_out(state, &pair.site);
        let aftermath = pair.look();
        table.note(&pair.site, when, outcome, aftermath.words());
    }
}

#[test]
fn after_a_loss_of_power_at_any_moment_there_is_a_whole_backup() {
    if !strace() {
        return;
    }
    let Some(mut pair) = Pair::new("faults_power") else {
        return;
    };
    let mut table = Table::new("loss of power, simulated: what was not synced is gone");
    pair.change();
    let roots = [pair.site.backup_dir(), pair.site.user_data_dir()];
    let model = Model::of(&pair.site.path(""), &roots);
    let (ops, outcome) = traced(&pair.site, &pair.command());
    let outcome = outcome.expect_code(0);
    pair.assert_new();

    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut last = Model::of(&pair.site.path(""), &[]);
    (last.nodes, last.open) = (model.nodes.clone(), model.open.clone());
    ops.iter().for_each(|op| last.apply(op));
    let states = states(model, &ops, &mut random);
    examine(
        &pair,
        &states,
        SOME,
        &mut table,
        "after any change of a run",
        &outcome,
    );

    // What has said that it is complete stays.
    lay_out(&last.state(true, || false), &pair.site);
    let new = Aftermath {
        host: Holds::New,
        user: Holds::New,
    };
    assert_eq!(pair.look(), new);
    table.note(&pair.site, "after the end of a run", &outcome, new.words());
    table.remark(format!(
        "seed {seed}; {} changes and syncs, {} different states",
        ops.len(),
        states.len()
    ));
}

/// Many small files are brought to stable storage at once, where the file system is known to say
/// what becomes of that, and one by one elsewhere.
#[test]
fn many_small_files_of_a_complete_run_stay_after_a_loss_of_power() {
    if !strace() {
        return;
    }
    let Some(server) = with_binlog() else { return };
    let database = "faults_power_many";
    server.create_database(database);
    let table = |n: u32| format!("CREATE TABLE t{n} (id INT); INSERT INTO t{n} VALUES ({n});");
    let tables: String = (0..80).map(table).collect();
    server.feed(database, "the tables", tables.as_bytes());
    let names: Vec<String> = (0..80).map(|n| format!("t{n}")).collect();
    let lists = Lists {
        local: names.iter().map(String::as_str).collect(),
        ..Lists::default()
    };
    let site = Site::new(server, database, &lists);
    many_small_files_stay(&site, &site.command("backup", &super::pair::QUIET), 2);
    #[cfg(feature = "failpoints")]
    {
        let site = Site::new(server, database, &lists);
        let mut command = site.command("backup", &super::pair::QUIET);
        // A kernel that has no such call, as far as the first directory, user data, can see.
        command.env(schema_backup::FAILPOINT_VARIABLE, "sync-volume=38");
        many_small_files_stay(&site, &command, 1);
    }
}

/// So many of the two directories, the host's last, may be synced at once.
fn many_small_files_stay(site: &Site, command: &Command, at_once_at_most: usize) {
    let roots = [site.backup_dir(), site.user_data_dir()];
    for root in &roots {
        fs::DirBuilder::new().mode(0o700).create(root).unwrap();
    }
    let mut model = Model::of(&site.path(""), &roots);
    let (mut ops, outcome) = traced(site, command);
    outcome.expect_code(0);
    let at_once = ops.iter().filter(|op| matches!(op, Op::SyncAll(_)));
    let at_once = at_once.count();
    let syncs = ops.iter().filter(|op| matches!(op, Op::Sync(_))).count();
    match at_once {
        0 => assert!(syncs > 240, "{syncs} syncs"),
        1 => assert!(syncs > 160, "{syncs} syncs"),
        _ => assert!(syncs < 80, "{syncs} syncs"),
    }
    let stat = ["-f", "-c", "%T"];
    let system = Command::new("stat").args(stat).arg(site.path("")).output();
    let system = String::from_utf8(system.unwrap().stdout).unwrap();
    // The kernel is taken to be no older than Linux 5.8.
    if ["ext2/ext3", "xfs", "btrfs"].contains(&system.trim()) {
        assert_eq!(at_once, at_once_at_most);
    } else {
        assert_eq!(at_once, 0, "{system}");
    }
    if at_once == 1 {
        // The other directory does not live by it.
        ops.retain(|op| !matches!(op, Op::SyncAll(_)));
    }

    ops.iter().for_each(|op| model.apply(op));
    let before = [contents(&site.host()), contents(&site.latest())];
    assert_eq!(before[1].len(), 80 + 80 + 3, "structure, rows, marks");
    lay_out(&model.state(true, || false), site);
    let after = [contents(&site.host()), contents(&site.latest())];
    for (before, after) in before.iter().zip(&after).skip(usize::from(at_once == 1)) {
        let lost = before
            .iter()
            .filter(|(file, bytes)| after.get(*file) != Some(bytes));
        assert_eq!(lost.map(|(file, _)| file).collect::<Vec<_>>(), [""; 0]);
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn power_lost_while_a_publication_is_completed_leaves_a_whole_backup() {
    if !strace() {
        return;
    }
    let Some(mut pair) = Pair::new("faults_power_again") else {
        return;
    };
    let mut table = Table::new("loss of power while a begun publication is completed");
    for (point, time) in [("rename", 1), ("hide-manifest", 1), ("move", 2)] {
        pair.change();
        let program = pair.stopped_at(point, time).expect("a publication");
        super::pair::kill(program);
        let roots = [pair.site.backup_dir(), pair.site.user_data_dir()];
        let model = Model::of(&pair.site.path(""), &roots);
        let completing = pair.site.command_without_server(&super::pair::QUIET);
        let (ops, outcome) = traced(&pair.site, &completing);
        let outcome = outcome.expect_code(10);
        let states = states(model, &ops, &mut fastrand::Rng::with_seed(1));
        examine(
            &pair,
            &states,
            FEW,
            &mut table,
            &format!("killed at {point}"),
            &outcome,
        );
        pair.next_run();
    }
}
