//! What a server sends in answer to a query: the packets, the head of the result, its rows by
//! either protocol, up to the SQL that they become.

use std::io::{self, Read};

use mysql::Column;
use mysql::consts::{ColumnFlags, ColumnType};

use super::Input;
use crate::encode::cell::{CellKind, write_row};
use crate::server::binary::Decoder;
use crate::server::wire::{PacketReader, read_ok, read_result_head, read_row};

const TYPES: [ColumnType; 14] = [
    ColumnType::MYSQL_TYPE_TINY,
    ColumnType::MYSQL_TYPE_SHORT,
    ColumnType::MYSQL_TYPE_INT24,
    ColumnType::MYSQL_TYPE_LONG,
    ColumnType::MYSQL_TYPE_LONGLONG,
    ColumnType::MYSQL_TYPE_YEAR,
    ColumnType::MYSQL_TYPE_FLOAT,
    ColumnType::MYSQL_TYPE_DOUBLE,
    ColumnType::MYSQL_TYPE_DATE,
    ColumnType::MYSQL_TYPE_DATETIME,
    ColumnType::MYSQL_TYPE_TIMESTAMP,
    ColumnType::MYSQL_TYPE_TIME,
    ColumnType::MYSQL_TYPE_VAR_STRING,
    ColumnType::MYSQL_TYPE_NEWDECIMAL,
];

/// Bytes that come as a socket gives them: some at a time.
struct Trickle<'a> {
    rest: &'a [u8],
    step: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let take = buffer.len().min(self.step);
        self.rest.read(&mut buffer[..take])
    }
}

/// Reads an answer that is either the bytes themselves, or packets whose payloads they are.
pub fn packets(data: &[u8]) {
    let mut input = Input(data);
    let (mode, step) = (input.byte(), usize::from(input.byte()) + 1);
    // There is no result without a column.
    let columns = input.below(8).max(1);
    let columns: Vec<Column> = (0..columns).map(|_| column(&mut input)).collect();
    let stream = if mode & 1 == 0 {
        input.0.to_vec()
    } else {
        framed(&mut input, columns.len())
    };
    let source = || Trickle {
        rest: &stream,
        step,
    };
    let _ = read_ok(&mut PacketReader::new(source(), 1));
    let by_text = mode & 2 == 0;
    let mut packets = PacketReader::new(source(), 1);
    let Ok(count) = read_result_head(&mut packets) else {
        return;
    };
    let kind = [CellKind::Binary, CellKind::Number, CellKind::Quoted];
    let kinds = vec![kind[usize::from(mode >> 2) % kind.len()].clone(); count];
    let mut decoder = Decoder::new(&columns);
    let (mut received, mut sql) = (0, Vec::new());
    while let Ok(Some(packet)) = read_row(&mut packets) {
        received += packet.len();
        assert!(received <= stream.len(), "more came out than went in");
        sql.clear();
        if by_text {
            let _ = write_row(&kinds, packet, &mut sql);
        } else if let Some(row) = decoder.decode(packet) {
            // What the decoder states is a row of the text protocol with these columns.
            let kinds = vec![CellKind::Binary; columns.len()];
            write_row(&kinds, row, &mut sql).expect("a decoded row is well formed");
        }
    }
}

fn column(input: &mut Input<'_>) -> Column {
    let flags = if input.byte() & 1 == 0 {
        ColumnFlags::empty()
    } else {
        ColumnFlags::UNSIGNED_FLAG
    };
    Column::new(TYPES[input.below(TYPES.len())])
        .with_flags(flags)
        .with_decimals(input.byte())
}

/// A well-formed head of a result, and pieces of the input as its rows.
fn framed(input: &mut Input<'_>, columns: usize) -> Vec<u8> {
    let (mut stream, mut sequence) = (Vec::new(), 1u8);
    let mut packet = |payload: &[u8]| {
        stream.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        stream.push(sequence);
        stream.extend_from_slice(payload);
        sequence = sequence.wrapping_add(1);
    };
    let end = [0xfe, 0, 0, 2, 0];
    packet(&[columns as u8]);
    (0..columns).for_each(|_| packet(b"a definition"));
    packet(&end);
    while !input.is_empty() {
        packet(input.piece());
    }
    packet(&end);
    stream
}
