//! Makes the data, from row numbers alone, by the server itself: the same scale gives the same
//! rows everywhere.

use std::time::{Duration, Instant};

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::Result;
use crate::args::DataSet;

/// The database that is exported.
pub(crate) const DATABASE: &str = "bench";

/// What was made.
pub(crate) struct Filled {
    pub(crate) tables: Vec<String>,
    pub(crate) rows: u64,
    /// Data and indexes, as the server says.
    pub(crate) mib: u64,
}

struct Table {
    name: String,
    rows: u64,
    /// Between the parentheses of CREATE TABLE.
    columns: String,
    /// What to select for row number `seq`, which begins at 1.
    values: String,
}

pub(crate) fn fill(conn: &mut Conn, set: DataSet, scale: f64) -> Result<Filled> {
    let of = |full: f64| ((full * scale).round() as u64).max(1);
    let tables = match set {
        DataSet::Default => vec![
            oltp(of(4e6)),
            lineitem(of(4e6)),
            documents(of(1e5)),
            events(of(1e6)),
        ],
        DataSet::Doubles => vec![doubles(of(2e6))],
        DataSet::Tiny => (1..=of(5e3)).map(tiny).collect(),
    };
    conn.query_drop(format!("CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4"))?;
    conn.query_drop(format!("USE {DATABASE}"))?;
    conn.query_drop("SET SESSION foreign_key_checks=0, unique_checks=0")?;
    for Table {
        name,
        rows,
        columns,
        values,
    } in &tables
    {
        conn.query_drop(format!("CREATE TABLE {name} ({columns})"))?;
        conn.query_drop(format!(
            "INSERT INTO {name} SELECT {values} FROM seq_1_to_{rows}"
        ))?;
        conn.query_drop(format!("ANALYZE TABLE {name}"))?;
    }
    write_changed_pages(conn)?;
    let size = format!(
        "SELECT CAST(SUM(data_length + index_length) / 1048576 AS UNSIGNED)
         FROM information_schema.tables WHERE table_schema = '{DATABASE}'"
    );
    Ok(Filled {
        rows: tables.iter().map(|table| table.rows).sum(),
        tables: tables.into_iter().map(|table| table.name).collect(),
        mib: conn.query_first(size)?.unwrap_or_default(),
    })
}

/// Waits until the server has written what it changed, which would otherwise go on while others
/// are measured.
fn write_changed_pages(conn: &mut Conn) -> Result<()> {
    const BOUND: Duration = Duration::from_secs(300);
    /// The server itself changes some all the time.
    const FEW: u64 = 100;
    let begun = Instant::now();
    conn.query_drop("SET GLOBAL innodb_max_dirty_pages_pct = 0")?;
    loop {
        let status = "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'";
        let dirty: Option<(String, u64)> = conn.query_first(status)?;
        let (_, dirty) = dirty.ok_or("the server does not count changed pages")?;
        if dirty <= FEW {
            break;
        }
        if begun.elapsed() > BOUND {
            return Err(format!("{dirty} changed pages are still not written").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(conn.query_drop("SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT")?)
}

fn oltp(rows: u64) -> Table {
    // Groups of eleven digits as sysbench has them.
    let digits = |first: u64, last: u64| {
        let groups: Vec<String> = (first..=last)
            .step_by(3_141_592_653)
            .map(|factor| format!("lpad(seq * {factor} % 99999999977, 11, 0)"))
            .collect();
        format!("concat_ws('-', {})", groups.join(", "))
    };
    Table {
        name: "oltp".into(),
        rows,
        columns: "id int AUTO_INCREMENT PRIMARY KEY, k int NOT NULL, c char(120) NOT NULL, \
                  pad char(60) NOT NULL, KEY (k)"
            .into(),
        values: format!(
            "seq, 1 + crc32(seq) % {rows}, {}, {}",
            digits(21_803_398_875, 51_000_000_000),
            digits(71_803_398_875, 85_000_000_000)
        ),
    }
}

fn lineitem(rows: u64) -> Table {
    Table {
        name: "lineitem".into(),
        rows,
        columns: "orderkey bigint, partkey int NOT NULL, suppkey int NOT NULL, linenumber int, \
                  quantity decimal(15,2) NOT NULL, extendedprice decimal(15,2) NOT NULL, \
                  discount decimal(15,2) NOT NULL, tax decimal(15,2) NOT NULL, \
                  returnflag char(1) NOT NULL, linestatus char(1) NOT NULL, \
                  shipdate date NOT NULL, commitdate date NOT NULL, receiptdate date NOT NULL, \
                  shipinstruct char(25) NOT NULL, shipmode char(10) NOT NULL, \
                  comment varchar(44) NOT NULL, PRIMARY KEY (orderkey, linenumber)"
            .into(),
        values: "seq DIV 4, crc32(seq) % 200000, crc32(-seq) % 10000, 1 + seq % 4, \
                 1 + seq * 31 % 50, 900 + crc32(seq) % 10000000 / 100, seq % 11 / 100, \
                 seq % 9 / 100, substr('ANR', 1 + seq % 3, 1), substr('FO', 1 + seq % 2, 1), \
                 '1992-01-02' + INTERVAL crc32(seq) % 2400 DAY, \
                 '1992-01-31' + INTERVAL crc32(seq) % 2405 DAY, \
                 '1992-01-04' + INTERVAL crc32(seq) % 2411 DAY, \
                 elt(1 + seq % 4, 'DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'), \
                 elt(1 + seq % 5, 'REG AIR', 'AIR', 'RAIL', 'TRUCK', 'FOB'), \
                 concat('carefully ', left(md5(seq), 2 + seq % 31))"
            .into(),
    }
}

fn documents(rows: u64) -> Table {
    Table {
        name: "documents".into(),
        rows,
        columns: "id int PRIMARY KEY, body text NOT NULL, content blob, meta json NOT NULL".into(),
        values: "seq, repeat(concat('It''s line ', md5(seq), ' — “quoted”\\n'), 10 + seq % 40), \
                 if(seq % 10, unhex(concat(repeat(sha2(seq, 512), 8), md5(seq))), NULL), \
                 json_object('id', seq, 'name', concat('document ', seq), \
                             'tags', json_array(md5(seq), 'a \"b\"', NULL))"
            .into(),
    }
}

fn events(rows: u64) -> Table {
    Table {
        name: "events".into(),
        rows,
        columns: "at datetime(6) NOT NULL, value double, source varchar(40) NOT NULL".into(),
        values: "'2024-01-01' + INTERVAL seq * 997331 MICROSECOND, \
                 if(seq % 50, crc32(seq) / 7919e0, NULL), concat('sensor-', seq % 1000)"
            .into(),
    }
}

fn doubles(rows: u64) -> Table {
    Table {
        name: "numbers".into(),
        rows,
        columns: "id int PRIMARY KEY, a double NOT NULL, b double NOT NULL, c double NOT NULL, \
                  d double NOT NULL"
            .into(),
        values: "seq, crc32(seq) / 7919e0, sin(seq) * 1e-7, sqrt(seq) * 1e12, -exp(seq % 600)"
            .into(),
    }
}

fn tiny(number: u64) -> Table {
    Table {
        name: format!("t{number:05}"),
        rows: 10,
        columns: "id int PRIMARY KEY, name varchar(40) NOT NULL, at datetime NOT NULL".into(),
        values: format!(
            "seq, concat('row ', seq, ' of table {number}'), '2024-01-01' + INTERVAL seq HOUR"
        ),
    }
}
