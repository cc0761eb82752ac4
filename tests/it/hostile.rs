//! A server that lies and a line that breaks: whatever comes over the connection, the program
//! neither panics nor takes memory without bound, and what it cannot read fails by name.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use crate::faults::create_big;
use crate::proxy::{Fate, Packet, Proxy, packet};
use crate::server::{ROOT_PASSWORD, Server, with_binlog};
use crate::site::{Lists, Outcome, Site, start, wait_until};

/// What a run that reads rows of a few KiB may take, in KiB.
const BOUND_KIB: u64 = 160 << 10;
/// Bounds what a broken run may take, which is not much.
const RUN_BOUND: Duration = Duration::from_secs(60);
/// One stream, so that the rows of `big` come in one answer.
const ONE_STREAM: [&str; 6] = ["-j", "1", "--chunk-size", "1G", "--progress", "none"];

/// A database with a table `big`, which is read as text whatever the statistics say of it, and one,
/// `doubles`, that is read by the binary protocol.
fn fill(server: &Server, database: &str) {
    server.create_database(database);
    create_big(server, database);
    server.feed(
        database,
        "a table of doubles",
        b"ALTER TABLE big MODIFY v TEXT;
          CREATE TABLE doubles (id INT PRIMARY KEY, a DOUBLE, b DATETIME, v VARCHAR(40));
          INSERT INTO doubles SELECT seq, seq / 7, '2024-02-29 12:00:00', md5(seq) FROM seq_1_to_20000;",
    );
}

fn lists() -> Lists<'static> {
    Lists {
        local: vec!["big", "doubles"],
        ..Lists::default()
    }
}

/// A site that reaches the server through the proxy.
fn behind(server: &Server, proxy: &Proxy, database: &str) -> Site {
    let site = Site::new(server, database, &lists());
    let password = site.write_private("password", ROOT_PASSWORD);
    let (socket, password) = (proxy.socket(), password.display().to_string());
    site.connect_by(&[
        &format!("--socket={}", socket.display()),
        "--user=root",
        &format!("--password-file={password}"),
        &format!("--database={database}"),
    ])
}

/// Whether a statement reads the rows of `table`, and not something about them.
fn reads(packet: &Packet<'_>, table: &str) -> bool {
    let statement = String::from_utf8_lossy(packet.statement);
    statement.starts_with("SELECT ")
        && statement.contains(&format!("FROM `{table}`"))
        && statement.contains("`v`")
}

/// Runs a backup; how it ended, and its peak memory in KiB.
fn measured(site: &Site, arguments: &[&str]) -> (Outcome, u64) {
    let report = site.path("peak");
    let time = ["/usr/bin/time", "-f", "%M", "-o", report.to_str().unwrap()];
    let outcome = start(site.wrapped(&time, "", arguments)).finish(RUN_BOUND);
    let report = fs::read_to_string(report).unwrap();
    let peak = report.lines().last().unwrap().trim().parse().unwrap();
    (outcome, peak)
}

#[track_caller]
fn assert_sane(outcome: &Outcome, what: &str) {
    let said = &outcome.stderr;
    assert!(!said.contains("panic"), "{what}: {said}");
    let code = outcome.code.unwrap_or(-1);
    assert!(
        [0, 3, 10, 11].contains(&code),
        "{what}: exit {code}: {said}"
    );
}

/// Damage to the rows of a table: what is done to packet number 40 of the answer that has them.
type Damage = (&'static str, fn(&Packet<'_>) -> Fate);

fn with_header(packet: &Packet<'_>, length: usize, sequence: u8) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes[..3].copy_from_slice(&(length as u32).to_le_bytes()[..3]);
    bytes[3] = sequence;
    bytes
}

const DAMAGE: [Damage; 15] = [
    ("closed between packets", |_| Fate::Last(Vec::new())),
    ("closed in a header", |p| {
        Fate::Last(p.bytes()[..2].to_vec())
    }),
    ("closed in a row", |p| {
        let bytes = p.bytes();
        Fate::Last(bytes[..bytes.len() / 2].to_vec())
    }),
    ("an absurd length, and closed", |p| {
        Fate::Last(with_header(p, 0xff_fffe, p.sequence))
    }),
    ("a length of a continued packet, and closed", |p| {
        Fate::Last(with_header(p, 0xff_ffff, p.sequence))
    }),
    ("a length that is too small", |p| {
        Fate::Last(with_header(p, p.payload.len() / 2, p.sequence))
    }),
    ("no payload", |p| Fate::Last(packet(p.sequence, b""))),
    ("another sequence number", |p| {
        Fate::Last(with_header(p, p.payload.len(), p.sequence.wrapping_add(3)))
    }),
    ("a cell of 2^64 - 1 bytes", |p| {
        let cell = [&[0xfe][..], &[0xff; 8], b"x"].concat();
        Fate::Last(packet(p.sequence, &cell))
    }),
    ("one cell too many", |p| {
        Fate::Last(packet(p.sequence, &[p.payload, b"\x01x"].concat()))
    }),
    ("one cell too few", |p| {
        let bytes = packet(p.sequence, &p.payload[..2]);
        Fate::Last(bytes)
    }),
    ("bytes without a meaning", |p| {
        let mut random = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = (0..5000).map(|_| random.u8(..)).collect();
        Fate::Last(packet(p.sequence, &bytes))
    }),
    ("an error", |p| {
        Fate::Last(packet(
            p.sequence,
            b"\xff\x84\x05#HY000gone\n\n\x1b[31mand away",
        ))
    }),
    ("half an error", |p| {
        Fate::Last(packet(p.sequence, b"\xff\x84"))
    }),
    ("an answer without rows", |p| {
        Fate::Last(packet(p.sequence, b"\0\0\0\x02\0\0\0"))
    }),
];

#[test]
fn damage_to_rows_fails_the_run_and_names_the_table() {
    let Some(server) = with_binlog() else { return };
    fill(server, "hostile_rows");
    for table in ["big", "doubles"] {
        for (what, damage) in DAMAGE {
            let proxy = Proxy::start(server, move |packet| {
                if packet.number == 40 && reads(packet, table) {
                    damage(packet)
                } else {
                    Fate::Pass
                }
            });
            let site = behind(server, &proxy, "hostile_rows");
            let (outcome, peak) = measured(&site, &ONE_STREAM);
            let outcome = outcome
                .expect_code(3)
                .expect_said(&format!("table `{table}`"));
            assert_sane(&outcome, what);
            assert!(
                !outcome.stderr.contains('\x1b'),
                "{what}: {}",
                outcome.stderr
            );
            assert!(peak < BOUND_KIB, "{table}, {what}: {peak} KiB");
        }
    }
}

/// What a server may say in place of the head of a result.
const HEADS: [(&str, &[u8]); 7] = [
    ("no columns", b"\0"),
    ("65535 columns", b"\xfc\xff\xff"),
    ("2^64 - 1 columns", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("half a number", b"\xfe\xff"),
    ("NULL columns", b"\xfb"),
    ("one column of two", b"\x01"),
    ("nothing", b""),
];

#[test]
fn heads_of_results_that_are_wrong_fail_the_run() {
    let Some(server) = with_binlog() else { return };
    fill(server, "hostile_heads");
    for table in ["big", "doubles"] {
        for (what, head) in HEADS {
            let proxy = Proxy::start(server, move |packet| {
                if packet.number == 0 && reads(packet, table) {
                    Fate::Instead(self::packet(packet.sequence, head))
                } else {
                    Fate::Pass
                }
            });
            let site = behind(server, &proxy, "hostile_heads");
            let (outcome, peak) = measured(&site, &ONE_STREAM);
            let outcome = outcome
                .expect_code(3)
                .expect_said(&format!("table `{table}`"));
            assert_sane(&outcome, what);
            assert!(peak < BOUND_KIB, "{table}, {what}: {peak} KiB");
        }
    }
}

#[test]
fn what_is_no_number_or_time_does_not_get_into_the_sql() {
    let Some(server) = with_binlog() else { return };
    fill(server, "hostile_cells");
    let proxy = Proxy::start(server, |packet| {
        if packet.number == 40 && reads(packet, "big") {
            let evil = b"1,1); DROP TABLE big; -- ";
            let row = [&[evil.len() as u8], &evil[..], b"\x01v"].concat();
            Fate::Instead(self::packet(packet.sequence, &row))
        } else {
            Fate::Pass
        }
    });
    let site = behind(server, &proxy, "hostile_cells");
    let outcome = site.backup(&ONE_STREAM).expect_code(3);
    outcome.expect_said("table `big`").expect_said("number");
}

#[test]
fn rows_without_end_take_no_memory_and_an_interrupt_ends_them() {
    let Some(server) = with_binlog() else { return };
    fill(server, "hostile_endless");
    for (table, row) in [
        ("big", [&b"\x017\xfc\xe8\x03"[..], &[b'v'; 1000]].concat()),
        (
            "doubles",
            [
                &[0, 0, 7, 0, 0, 0][..],
                &[0; 8],
                &[4, 0xe8, 7, 2, 28],
                b"\x02vv",
            ]
            .concat(),
        ),
    ] {
        let proxy = Proxy::start(server, move |packet| {
            if packet.number == 40 && reads(packet, table) {
                Fate::Endless(row.clone())
            } else {
                Fate::Pass
            }
        });
        let site = behind(server, &proxy, "hostile_endless");
        site.configure(&lists(), "compression: none\n");
        let mut program = start(site.command("", &ONE_STREAM));
        let status = format!("/proc/{}/status", program.pid().as_raw_nonzero());
        let written = || {
            let files = crate::site::walk(&site.user_data_dir());
            files
                .iter()
                .filter_map(|file| fs::metadata(file).ok())
                .map(|meta| meta.len())
                .max()
        };
        wait_until("far more rows are written than there are", || {
            assert!(!program.ended(), "the program ended");
            written() > Some(300 << 10)
        });
        std::thread::sleep(Duration::from_secs(2));
        let status = fs::read_to_string(status).unwrap();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < BOUND_KIB, "{table}: {peak} KiB");
        program.signal(Signal::INT);
        program.finish(Duration::from_secs(20)).expect_code(130);
    }
}

#[test]
fn an_interrupt_ends_the_wait_for_a_server_that_falls_silent() {
    let Some(server) = with_binlog() else { return };
    fill(server, "hostile_silence");
    for table in ["big", "doubles"] {
        let silent = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&silent);
        let proxy = Proxy::start(server, move |packet| {
            if packet.number == 40 && reads(packet, table) {
                now.store(true, Ordering::SeqCst);
                Fate::Silence
            } else {
                Fate::Pass
            }
        });
        let site = behind(server, &proxy, "hostile_silence");
        let mut program = start(site.command("", &ONE_STREAM));
        wait_until("the server falls silent", || {
            assert!(!program.ended(), "the program ended");
            silent.load(Ordering::SeqCst)
        });
        program.signal(Signal::INT);
        program.finish(Duration::from_secs(20)).expect_code(130);
    }
}

#[test]
fn a_catalog_without_end_is_refused_before_it_fills_the_memory() {
    let Some(server) = with_binlog() else { return };
    fill(server, "hostile_catalog");
    // Long rows, so that a GiB of them, which is noticed, soon comes together.
    let row = [&b"\xfc\x60\xea"[..], &[b'x'; 60_000]].concat();
    let proxy = Proxy::start(server, move |packet| {
        // The column count, the definition and its end stand before the rows.
        if packet.statement == b"SHOW GRANTS" && packet.number == 3 {
            Fate::Endless(row.clone())
        } else {
            Fate::Pass
        }
    });
    let site = behind(server, &proxy, "hostile_catalog");
    let (outcome, peak) = measured(&site, &ONE_STREAM);
    let outcome = outcome.expect_said("more than any catalog");
    assert_sane(&outcome, "SHOW GRANTS");
    assert!(peak < 3 << 20, "{peak} KiB");
}

/// One packet of any answer, the handshake's among them, is another: a row of a catalog, the
/// head of a result, what a server says of itself.
#[test]
fn random_damage_never_makes_it_panic() {
    let Some(server) = with_binlog() else { return };
    fill(server, "hostile_random");
    let rounds = if crate::site::soak() { 2000 } else { 60 };
    for seed in 0..rounds {
        let mut random = fastrand::Rng::with_seed(seed);
        let state = Mutex::new((random.usize(0..330), random));
        let proxy = Proxy::start(server, move |packet| {
            let mut state = state.lock().unwrap();
            let (left, random) = &mut *state;
            match left.checked_sub(1) {
                Some(less) => {
                    *left = less;
                    Fate::Pass
                }
                None => {
                    *left = usize::MAX;
                    // What a length that is too large would make anybody wait for never comes.
                    Fate::Last(damaged(packet, random))
                }
            }
        });
        let site = behind(server, &proxy, "hostile_random");
        let (outcome, peak) = measured(&site, &ONE_STREAM);
        assert_sane(&outcome, &format!("seed {seed}"));
        assert!(peak < BOUND_KIB, "seed {seed}: {peak} KiB");
    }
}

fn damaged(packet: &Packet<'_>, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut payload = packet.payload.to_vec();
    match random.u8(0..4) {
        0 => payload.truncate(random.usize(0..=payload.len())),
        1 => payload.extend((0..random.usize(1..20)).map(|_| random.u8(..))),
        _ => {
            for _ in 0..random.usize(1..6) {
                if let Some(at) = random.usize(0..1 + payload.len()).checked_sub(1) {
                    let any = random.u8(..);
                    let likely = [0, 1, 0xfb, 0xfc, 0xfe, 0xff, any];
                    payload[at] = random.choice(likely).unwrap_or(any);
                }
            }
        }
    }
    self::packet(packet.sequence, &payload)
}
