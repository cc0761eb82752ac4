//! Reading the small files that say what to do and who we are: bounded in size and in time,
//! whatever the name leads to. Pipes are taken, as of `<(pass show backup)`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use secrecy::zeroize::Zeroizing;

/// A larger file is not a configuration.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// How long a pipe may keep us waiting: somebody may have to type a passphrase at its other end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deeper brackets are refused unparsed: the parser's time grows with the square of the depth.
const MAX_DEPTH: usize = 128;

/// What a file holds, which is wiped when it is dropped, and who may see it.
pub(super) struct Content {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) mode: u32,
}

/// The whole file.
pub(super) fn read(path: &Path) -> io::Result<Content> {
    read_within(path, PATIENCE)
}

fn read_within(path: &Path, patience: Duration) -> io::Result<Content> {
    let error = |kind, why: &str| Err(io::Error::new(kind, why));
    // Opening a pipe would wait until somebody writes.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    // Of what is open, not of what the name leads to later.
    let meta = file.metadata()?;
    let kind = meta.file_type();
    if kind.is_dir() {
        return error(io::ErrorKind::IsADirectory, "it is a directory");
    }
    let deadline = Instant::now() + patience;
    // With room for all of it from the start: a buffer that grows leaves copies behind.
    let room = if kind.is_file() { meta.len() } else { 1 << 16 }.min(MAX_BYTES);
    let mut content = Zeroizing::new(Vec::with_capacity(room as usize + 1));
    loop {
        let left = MAX_BYTES + 1 - content.len() as u64;
        match Read::by_ref(&mut file).take(left).read_to_end(&mut content) {
            Ok(_) if content.len() as u64 > MAX_BYTES => {
                let why = "it is larger than 1 MiB, which no such file is";
                return error(io::ErrorKind::FileTooLarge, why);
            }
            Ok(_) if content.is_empty() && kind.is_fifo() => {
                return error(
                    io::ErrorKind::UnexpectedEof,
                    "nothing comes out of the pipe",
                );
            }
            Ok(_) => {
                return Ok(Content {
                    bytes: content,
                    mode: meta.mode(),
                });
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return error(io::ErrorKind::TimedOut, "it gives nothing");
                }
                let left = Timespec::try_from(left).map_err(io::Error::other)?;
                poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&left))?;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Whether there is something of that name. Not knowing, for want of permission, is an error.
pub(super) fn is_there(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

/// The text of a file; if it is none, the line that is not.
pub(super) fn text(content: &[u8]) -> Result<&str, usize> {
    let text = std::str::from_utf8(content).map_err(|e| line_of(content, e.valid_up_to()))?;
    let is_odd = |c: u8| c.is_ascii_control() && !matches!(c, b'\t' | b'\n' | b'\r');
    match content.iter().position(|byte| is_odd(*byte)) {
        Some(at) => Err(line_of(content, at)),
        None => Ok(text),
    }
}

/// The line of YAML at which brackets are nested too deeply, if there is one.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let at = text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    });
    at.map(|at| line_of(text.as_bytes(), at))
}

fn line_of(content: &[u8], at: usize) -> usize {
    1 + content[..at].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn why(path: &Path) -> io::ErrorKind {
        read_within(path, Duration::from_millis(50))
            .map(|content| content.bytes)
            .unwrap_err()
            .kind()
    }

    #[test]
    fn nothing_is_read_without_end() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(why(dir.path()), io::ErrorKind::IsADirectory);
        assert_eq!(why(Path::new("/dev/zero")), io::ErrorKind::FileTooLarge);
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(why(&pipe), io::ErrorKind::UnexpectedEof, "nobody writes");
        let mut writer = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&pipe)
            .unwrap();
        assert_eq!(why(&pipe), io::ErrorKind::TimedOut, "somebody might");
        writer.write_all(b"secret\n").unwrap();
        let waiting = std::thread::spawn({
            let pipe = pipe.clone();
            move || read_within(&pipe, Duration::from_secs(30)).unwrap().bytes
        });
        // Both ends are open here, so that the reader waits for the end of the writer.
        std::thread::sleep(Duration::from_millis(100));
        drop(writer);
        assert_eq!(&waiting.join().unwrap()[..], b"secret\n");
        assert!(read(Path::new("/dev/null")).unwrap().bytes.is_empty());
    }

    #[test]
    fn lines_are_told() {
        assert_eq!(text(b"a\nb\xff"), Err(2));
        assert_eq!(text(b"a\r\n\tb\n\0"), Err(3));
        assert_eq!(text("é".as_bytes()), Ok("é"));
        assert_eq!(too_deep(&format!("a\n\n{}", "[".repeat(129))), Some(3));
        assert_eq!(too_deep(&"[]".repeat(1000)), None);
    }
}
