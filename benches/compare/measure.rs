//! One run of one contender: how long it took, and what it and the server used for it.

use std::ffi::OsString;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::children::Children;
use crate::server::Server;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) wall: Duration,
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Duration,
    /// Of the largest process. The kernel counts from before the program was loaded, so that
    /// it is never less than what this process holds, which is little.
    pub(crate) peak_bytes: u64,
    pub(crate) disk_bytes: u64,
}

/// Runs the stages of a pipeline side by side. What came before is on disk when it begins; what
/// it writes itself need not be when it ends.
pub(crate) fn measure(
    server: &Server,
    children: &Children,
    pipeline: &[Vec<OsString>],
) -> Result<Run> {
    server.settle()?;
    let log_file = server.work().join("log");
    let log = File::create(&log_file)?;
    let server_before = server.cpu()?;
    let begun = Instant::now();
    let mut running = Vec::new();
    let mut input = Stdio::null();
    for (stage, argv) in pipeline.iter().enumerate() {
        let (program, arguments) = argv.split_first().ok_or("no program")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(input)
            .stderr(log.try_clone()?);
        if stage + 1 < pipeline.len() {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(log.try_clone()?);
        }
        let mut child = children.spawn(&mut command)?;
        input = child.take_stdout().map_or_else(Stdio::null, Stdio::from);
        running.push(child);
    }
    let (mut client_cpu, mut peak_bytes, mut failed) = (Duration::ZERO, 0, None);
    for child in running {
        let used = child.wait()?;
        client_cpu += used.cpu;
        peak_bytes = peak_bytes.max(used.peak_bytes);
        failed = failed.or((!used.status.success()).then_some(used.status));
    }
    let wall = begun.elapsed();
    let server_cpu = server.cpu()? - server_before;
    if let Some(status) = failed {
        let said = String::from_utf8_lossy(&std::fs::read(log_file)?).into_owned();
        return Err(format!("{status}\n{said}").into());
    }
    Ok(Run {
        wall,
        client_cpu,
        server_cpu,
        peak_bytes,
        disk_bytes: 0,
    })
}
