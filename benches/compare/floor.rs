//! The floor: reads the same rows as an export, over as many connections, looks at nothing but
//! where packets end, and throws them away. It asks as any client does: what schema_backup gains
//! by the binary protocol, and by making the server send in larger pieces, is not in it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use mysql::Conn;
use mysql::prelude::Queryable;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use schema_backup::server::socket::borrow_socket;

use crate::Result;
use crate::args::FloorArgs;
use crate::data::DATABASE;
use crate::server::connect;

/// Tables larger than this are read in pieces.
const LARGE: u64 = 1 << 20;

/// Reads everything, as a process of its own.
pub(crate) fn read(args: &FloorArgs) -> Result<()> {
    let pieces = pieces(
        &mut connect(&args.socket, Some(DATABASE))?,
        args.threads as u64,
    )?;
    let next = AtomicUsize::new(0);
    let worker = || -> std::result::Result<u64, String> {
        let mut conn = connect(&args.socket, Some(DATABASE)).map_err(|e| e.to_string())?;
        // As the program's sessions: values as they are stored.
        for setting in [
            "SET NAMES utf8mb4",
            "SET SESSION sql_mode='', character_set_results=NULL",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ] {
            conn.query_drop(setting).map_err(|e| e.to_string())?;
        }
        let mut answer = Answer::new(borrow_socket(&mut conn));
        let mut rows = 0;
        while let Some(query) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            rows += answer.discard(query).map_err(|e| format!("{query}: {e}"))?;
        }
        Ok(rows)
    };
    let rows = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
            .sum::<std::result::Result<u64, String>>()
    })?;
    if rows != args.rows {
        return Err(format!("the floor read {rows} rows of {}", args.rows).into());
    }
    Ok(())
}

/// The queries, the largest first. Tables with a primary key that begins with a number are split
/// into equal ranges of it, several for each worker.
fn pieces(conn: &mut Conn, threads: u64) -> Result<Vec<String>> {
    let tables: Vec<(String, u64, Option<String>)> = conn.query(
        "SELECT t.table_name, t.data_length, s.column_name FROM information_schema.tables t
         LEFT JOIN information_schema.statistics s ON s.table_schema = t.table_schema
             AND s.table_name = t.table_name AND s.index_name = 'PRIMARY' AND s.seq_in_index = 1
         WHERE t.table_schema = DATABASE()",
    )?;
    let mut pieces = Vec::new();
    for (table, bytes, key) in tables {
        let select = format!("SELECT SQL_NO_CACHE * FROM `{table}`");
        let key = key.filter(|_| bytes > LARGE);
        let ends: Option<(u64, u64)> = match &key {
            Some(key) => {
                conn.query_first(format!("SELECT MIN({key}), MAX({key}) FROM `{table}`"))?
            }
            None => None,
        };
        let (Some(key), Some((first, last))) = (key, ends) else {
            pieces.push((bytes, select));
            continue;
        };
        let count = 4 * threads;
        let bound = |n: u64| first + (last + 1 - first) * n / count;
        for n in 0..count {
            let range = format!("{key} >= {} AND {key} < {}", bound(n), bound(n + 1));
            pieces.push((bytes / count, format!("{select} WHERE {range}")));
        }
    }
    pieces.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    Ok(pieces.into_iter().map(|(_, query)| query).collect())
}

/// Answers on one connection.
struct Answer<'c> {
    socket: BorrowedFd<'c>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'c> Answer<'c> {
    fn new(socket: BorrowedFd<'c>) -> Answer<'c> {
        Answer {
            socket,
            buffer: vec![0; 256 << 10],
            start: 0,
            end: 0,
        }
    }

    /// Sends a query and reads its answer; how many rows came.
    fn discard(&mut self, query: &str) -> Result<u64> {
        let length = u32::try_from(query.len() + 1)?;
        let mut command = length.to_le_bytes().to_vec();
        // COM_QUERY
        command.push(3);
        command.extend_from_slice(query.as_bytes());
        let mut rest = &command[..];
        while !rest.is_empty() {
            rest = &rest[send(self.socket, rest, SendFlags::NOSIGNAL)?..];
        }
        // The column count, the columns, EOF, the rows, EOF.
        let (mut ends, mut rows) = (0, 0);
        while ends < 2 {
            match self.skip_packet()? {
                (0xff, _) => return Err("the server answered with an error".into()),
                (0xfe, 5) => ends += 1,
                _ => rows += ends,
            }
        }
        Ok(rows)
    }

    /// The first byte of the next packet and its length; none of the data's is as long as one
    /// that would be continued in the next.
    fn skip_packet(&mut self) -> Result<(u8, usize)> {
        const HEAD: usize = 5;
        while self.end - self.start < HEAD {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.receive()?;
        }
        let head = &self.buffer[self.start..self.start + HEAD];
        let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
        let first = head[4];
        let mut left = 4 + length;
        while left > self.end - self.start {
            left -= self.end - self.start;
            (self.start, self.end) = (0, 0);
            self.receive()?;
        }
        self.start += left;
        Ok((first, length))
    }

    fn receive(&mut self) -> Result<()> {
        let (received, _) = recv(
            self.socket,
            &mut self.buffer[self.end..],
            RecvFlags::empty(),
        )?;
        if received == 0 {
            return Err("the server closed the connection".into());
        }
        self.end += received;
        Ok(())
    }
}
