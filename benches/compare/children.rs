//! The processes that this one has started and waits for. A signal ends them all; with that,
//! every wait ends, and what is waiting fails and cleans up.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use wait4::Wait4;

use crate::Result;

/// All children; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Children(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Descriptors, which unlike a process's number never come to mean another process.
    living: Mutex<Vec<Arc<OwnedFd>>>,
    stopped: AtomicBool,
}

/// A child that has not been waited for.
pub(crate) struct Running {
    child: Child,
    pidfd: Arc<OwnedFd>,
    children: Children,
}

/// What a child used, descendants that it waited for included.
pub(crate) struct Used {
    pub(crate) status: ExitStatus,
    pub(crate) cpu: Duration,
    pub(crate) peak_bytes: u64,
}

impl Children {
    /// From now on SIGINT, SIGTERM and SIGHUP end all children, and no more can be started.
    pub(crate) fn end_on_signals(&self) -> Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let children = self.clone();
        std::thread::Builder::new().spawn(move || {
            for _ in signals.forever() {
                let living = children.living();
                children.0.stopped.store(true, Ordering::SeqCst);
                for pidfd in living.iter() {
                    // One that has just ended is fine.
                    let _ = pidfd_send_signal(pidfd, Signal::TERM);
                }
            }
        })?;
        Ok(())
    }

    /// Whether a signal has come.
    pub(crate) fn are_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Running> {
        let mut living = self.living();
        if self.are_stopped() {
            return Err("interrupted".into());
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .map_err(|e| format!("cannot run {name}: {e}"))?;
        let pidfd = Arc::new(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?);
        living.push(Arc::clone(&pidfd));
        Ok(Running {
            child,
            pidfd,
            children: self.clone(),
        })
    }

    fn living(&self) -> MutexGuard<'_, Vec<Arc<OwnedFd>>> {
        self.0.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The read end of its standard output, if that is a pipe.
    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // One that has just ended is fine.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it ends within this time.
    pub(crate) fn ends_within(&self, bound: Duration) -> bool {
        let bound = Timespec::try_from(bound).ok();
        let mut ended = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        poll(&mut ended, bound.as_ref()).is_ok_and(|ready| ready > 0)
    }

    pub(crate) fn wait(self) -> Result<Used> {
        let used = self.child.wait4()?;
        self.children
            .living()
            .retain(|pidfd| !Arc::ptr_eq(pidfd, &self.pidfd));
        Ok(Used {
            status: used.status,
            cpu: used.rusage.utime + used.rusage.stime,
            peak_bytes: used.rusage.maxrss,
        })
    }
}
