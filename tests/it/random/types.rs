//! Random column types, and random values of theirs as SQL literals.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

/// The name of a character set of the server, and its collations.
pub(super) type Charset = (String, Vec<String>);

/// A type as far as its values depend on it.
#[derive(Debug, Clone)]
pub(super) enum Type {
    Integer { bits: u32, unsigned: bool },
    Decimal { digits: usize, scale: usize },
    Float,
    Double,
    Bit(u32),
    Year,
    Date,
    DateTime,
    Timestamp,
    Time,
    Text { charset: String, length: usize },
    Enum(usize),
    Set(usize),
    Bytes { length: usize },
    Json,
    Geometry,
    Inet4,
    Inet6,
    Uuid,
    Vector(usize),
}

/// How a column can be part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InKey {
    Whole,
    /// Its first so many characters or bytes.
    Prefix(usize),
    Never,
}

/// A type with its SQL.
pub(super) struct Spec {
    pub(super) sql: String,
    pub(super) ty: Type,
    pub(super) key: InKey,
}

/// What a server's types are picked from.
pub(super) struct Palette {
    pub(super) mariadb: bool,
    pub(super) vectors: bool,
    /// Each as often as any other, however many collations it has.
    pub(super) charsets: Vec<Charset>,
}

/// One of `all`.
pub(super) fn pick<'a, T>(rng: &mut Rng, all: &'a [T]) -> &'a T {
    &all[rng.usize(..all.len())]
}

/// One in `n`.
pub(super) fn one_in(rng: &mut Rng, n: usize) -> bool {
    rng.usize(..n) == 0
}

impl Palette {
    /// A random type.
    pub(super) fn spec(&self, rng: &mut Rng) -> Spec {
        let whole = |sql: String, ty| Spec {
            sql,
            ty,
            key: InKey::Whole,
        };
        match rng.usize(..if self.mariadb { 32 } else { 27 }) {
            0..=5 => integer(rng),
            6 | 7 => {
                let digits = *pick(rng, &[1, 5, 9, 10, 18, 19, 38, 65]);
                let scale = rng.usize(..=digits.min(30));
                let unsigned = *pick(rng, &["", "", " UNSIGNED", " ZEROFILL"]);
                let sql = format!("DECIMAL({digits},{scale}){unsigned}");
                whole(sql, Type::Decimal { digits, scale })
            }
            8 => {
                let sql = *pick(rng, &["FLOAT", "FLOAT UNSIGNED", "FLOAT(9,3)"]);
                whole(sql.into(), Type::Float)
            }
            9 | 10 => {
                let sql = *pick(
                    rng,
                    &["DOUBLE", "DOUBLE", "DOUBLE UNSIGNED", "DOUBLE(30,5)"],
                );
                whole(sql.into(), Type::Double)
            }
            11 => {
                let width = rng.u32(1..=64);
                whole(format!("BIT({width})"), Type::Bit(width))
            }
            12 => whole("YEAR".into(), Type::Year),
            13 => whole("DATE".into(), Type::Date),
            14 => whole(fraction(rng, "DATETIME"), Type::DateTime),
            15 => whole(fraction(rng, "TIMESTAMP"), Type::Timestamp),
            16 => whole(fraction(rng, "TIME"), Type::Time),
            17..=20 => self.text(rng),
            21 => self.members(rng),
            22 | 23 => self.bytes(rng),
            24 => Spec {
                sql: "JSON".into(),
                ty: Type::Json,
                key: InKey::Never,
            },
            25 => Spec {
                sql: (*pick(rng, &["GEOMETRY", "POINT"])).into(),
                ty: Type::Geometry,
                key: InKey::Never,
            },
            26 if self.vectors => {
                let width = rng.usize(1..9);
                Spec {
                    sql: format!("VECTOR({width})"),
                    ty: Type::Vector(width),
                    key: InKey::Never,
                }
            }
            27 => whole("INET4".into(), Type::Inet4),
            28 | 29 => whole("INET6".into(), Type::Inet6),
            30 | 31 => whole("UUID".into(), Type::Uuid),
            _ => self.text(rng),
        }
    }

    fn text(&self, rng: &mut Rng) -> Spec {
        let (charset, collations) = pick(rng, &self.charsets);
        let name = pick(rng, collations);
        let length = rng.usize(1..=40);
        let (base, length, key) = match rng.usize(..8) {
            0 | 1 => (format!("CHAR({length})"), length, InKey::Whole),
            2..=4 => (format!("VARCHAR({length})"), length, InKey::Whole),
            5 => ("TINYTEXT".into(), 60, InKey::Prefix(length)),
            6 => ("TEXT".into(), 300, InKey::Prefix(length)),
            _ => {
                let base = *pick(rng, &["MEDIUMTEXT", "LONGTEXT"]);
                (base.into(), 2000, InKey::Prefix(length))
            }
        };
        let base = self.compressed(rng, base, key);
        Spec {
            sql: format!("{} CHARACTER SET {charset} COLLATE {name}", base.0),
            ty: Type::Text {
                charset: charset.clone(),
                length,
            },
            key: base.1,
        }
    }

    fn bytes(&self, rng: &mut Rng) -> Spec {
        let length = rng.usize(1..=40);
        let (sql, length, key) = match rng.usize(..6) {
            0 | 1 => (format!("BINARY({length})"), length, InKey::Whole),
            2 | 3 => (format!("VARBINARY({length})"), length, InKey::Whole),
            4 => ("TINYBLOB".into(), 255, InKey::Prefix(length)),
            _ => {
                let base = *pick(rng, &["BLOB", "MEDIUMBLOB", "LONGBLOB"]);
                (base.into(), 2000, InKey::Prefix(length))
            }
        };
        let (sql, key) = self.compressed(rng, sql, key);
        let ty = Type::Bytes { length };
        Spec { sql, ty, key }
    }

    /// MariaDB compresses some columns, which then are in no key.
    fn compressed(&self, rng: &mut Rng, sql: String, key: InKey) -> (String, InKey) {
        let can = sql.starts_with("VAR") || key != InKey::Whole;
        if self.mariadb && can && one_in(rng, 8) {
            (format!("{sql} COMPRESSED"), InKey::Never)
        } else {
            (sql, key)
        }
    }

    fn members(&self, rng: &mut Rng) -> Spec {
        let (charset, collations) = pick(rng, &self.charsets);
        let name = pick(rng, collations);
        let set = rng.bool();
        let count = *pick(rng, &[1, 2, 7, 8, 9, 16, 33, 64]);
        // The comma separates a SET's members; the number keeps them apart in any collation.
        let odd = [
            "", "a b", "it''s", "\"", "`", "x.y", "\\\\", "\\n", "NULL", "é",
        ];
        let ends = if set {
            &odd[..]
        } else {
            &[&odd[..], &[","]].concat()
        };
        let mut members = String::new();
        for n in 0..count {
            let end = if one_in(rng, 3) { pick(rng, ends) } else { "" };
            write!(members, "{}'m{n}{end}x'", if n > 0 { "," } else { "" }).unwrap();
        }
        let (word, ty) = if set {
            ("SET", Type::Set(count))
        } else {
            ("ENUM", Type::Enum(count))
        };
        Spec {
            sql: format!("{word}({members}) CHARACTER SET {charset} COLLATE {name}"),
            ty,
            key: InKey::Whole,
        }
    }
}

fn integer(rng: &mut Rng) -> Spec {
    let widths = [
        ("TINYINT", 8),
        ("SMALLINT", 16),
        ("MEDIUMINT", 24),
        ("INT", 32),
        ("BIGINT", 64),
    ];
    let &(word, bits) = pick(rng, &widths);
    let sign = *pick(rng, &["", "", " UNSIGNED", " ZEROFILL", "(7) ZEROFILL"]);
    Spec {
        sql: format!("{word}{sign}"),
        ty: Type::Integer {
            bits,
            unsigned: !sign.is_empty(),
        },
        key: InKey::Whole,
    }
}

fn fraction(rng: &mut Rng, word: &str) -> String {
    format!("{word}({})", rng.u8(0..=6))
}

impl Type {
    /// A random value, as a literal that the server takes under `INSERT IGNORE` and a lenient
    /// sql_mode, perhaps after bending it to the type.
    pub(super) fn value(&self, rng: &mut Rng) -> String {
        match self {
            Type::Integer { bits, unsigned } => integer_value(rng, *bits, *unsigned),
            Type::Decimal { digits, scale } => decimal_value(rng, *digits, *scale),
            Type::Float => {
                let odd = [
                    "0",
                    "-0",
                    "1e-45",
                    "-1.17549435e-38",
                    "3.40282347e38",
                    "0.1",
                    "16777217",
                ];
                let bits = f32::from_bits(rng.u32(..));
                float_value(rng, &odd, bits.is_finite().then(|| format!("{bits:e}")))
            }
            Type::Double => {
                let odd = [
                    "0",
                    "-0",
                    "5e-324",
                    "-2.2250738585072014e-308",
                    "1.7976931348623157e308",
                    "0.1",
                    "9007199254740993",
                ];
                let bits = f64::from_bits(rng.u64(..));
                float_value(rng, &odd, bits.is_finite().then(|| format!("{bits:e}")))
            }
            Type::Bit(width) => {
                let value = *pick(
                    rng,
                    &[0, 1, u64::MAX, rng.clone().u64(..), rng.clone().u64(..300)],
                );
                format!("{}", value >> (64 - width))
            }
            Type::Year => match rng.u32(..5) {
                0 => "0".into(),
                1 => (*pick(rng, &["1901", "2155"])).into(),
                _ => rng.u32(1901..=2155).to_string(),
            },
            Type::Date => format!("'{}'", date(rng)),
            Type::DateTime => date_time(rng),
            Type::Timestamp => match rng.u32(..5) {
                0 => "'0000-00-00 00:00:00'".into(),
                1 => (*pick(
                    rng,
                    &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07.499999'"],
                ))
                .into(),
                _ => format!(
                    "'{}-{:02}-{:02} {}'",
                    rng.u32(1971..2038),
                    rng.u32(1..=12),
                    rng.u32(1..=28),
                    clock(rng)
                ),
            },
            Type::Time => match rng.u32(..5) {
                0 => (*pick(
                    rng,
                    &[
                        "'838:59:59'",
                        "'-838:59:59'",
                        "'00:00:00'",
                        "'-00:00:00.000001'",
                    ],
                ))
                .into(),
                _ => format!(
                    "'{}{}'",
                    if rng.bool() { "-" } else { "" },
                    clock(rng).replacen("00:", &format!("{}:", rng.u32(24..838)), 1)
                ),
            },
            Type::Text { charset, length } => text_value(rng, charset, *length),
            Type::Enum(members) => rng.usize(..=*members).to_string(),
            Type::Set(members) => match rng.u32(..4) {
                0 => (*pick(rng, &[0, u64::MAX >> (64 - members)])).to_string(),
                _ => (rng.u64(..) >> (64 - members)).to_string(),
            },
            Type::Bytes { length } => format!("X'{}'", hex(&some_bytes(rng, *length))),
            Type::Json => format!("_utf8mb4 X'{}'", hex(json_value(rng, 3).as_bytes())),
            Type::Geometry => geometry_value(rng),
            Type::Inet4 => format!(
                "'{}'",
                Ipv4Addr::from_bits(*pick(rng, &[0, u32::MAX, rng.clone().u32(..)]))
            ),
            Type::Inet6 => format!(
                "'{}'",
                Ipv6Addr::from_bits(*pick(rng, &[0, 1, u128::MAX, rng.clone().u128(..)]))
            ),
            Type::Uuid => format!(
                "'{:032x}'",
                pick(
                    rng,
                    &[0, u128::MAX, rng.clone().u128(..), rng.clone().u128(..)]
                )
            ),
            Type::Vector(width) => {
                let floats: Vec<u8> = (0..*width)
                    .flat_map(|_| (rng.f32() - 0.5).to_le_bytes())
                    .collect();
                format!("X'{}'", hex(&floats))
            }
        }
    }
}

fn integer_value(rng: &mut Rng, bits: u32, unsigned: bool) -> String {
    let (least, most) = if unsigned {
        (0, u64::MAX as i128 >> (64 - bits))
    } else {
        (
            i64::MIN as i128 >> (64 - bits),
            i64::MAX as i128 >> (64 - bits),
        )
    };
    match rng.u32(..6) {
        0 => (*pick(rng, &[least, most, least + 1, most - 1, 0, 1])).to_string(),
        1 | 2 => rng.i128(least..=most).to_string(),
        _ => rng.i128(least.max(-50)..=most.min(1000)).to_string(),
    }
}

fn decimal_value(rng: &mut Rng, digits: usize, scale: usize) -> String {
    let sign = if rng.bool() { "-" } else { "" };
    let count = match rng.u32(..4) {
        0 => digits,
        _ => rng.usize(1..=digits),
    };
    let nines = one_in(rng, 6);
    let digit = |rng: &mut Rng| if nines { '9' } else { rng.digit(10) };
    let mut text: String = (0..count).map(|_| digit(rng)).collect();
    // Right-aligned at the last place of the scale.
    while text.len() <= scale {
        text.insert(0, '0');
    }
    text.insert(text.len() - scale, '.');
    format!("'{sign}{text}'")
}

fn float_value(rng: &mut Rng, odd: &[&str], random: Option<String>) -> String {
    let small = format!("{}", rng.i32(-4000..4000) as f32 / 8.0);
    match (rng.u32(..4), random) {
        (0, _) => format!("'{}'", pick(rng, odd)),
        (1 | 2, Some(random)) => format!("'{random}'"),
        _ => format!("'{small}'"),
    }
}

fn date(rng: &mut Rng) -> String {
    match rng.u32(..6) {
        0 => "0000-00-00".into(),
        1 => (*pick(
            rng,
            &[
                "2024-00-00",
                "2024-05-00",
                "0000-05-06",
                "1000-01-01",
                "9999-12-31",
                "0001-01-01",
            ],
        ))
        .into(),
        _ => format!(
            "{:04}-{:02}-{:02}",
            rng.u32(1..10000),
            rng.u32(1..=12),
            rng.u32(1..=28)
        ),
    }
}

fn date_time(rng: &mut Rng) -> String {
    if one_in(rng, 10) {
        return "'9999-12-31 23:59:59.999999'".into();
    }
    match date(rng) {
        zero if zero == "0000-00-00" => format!("'{zero} 00:00:00'"),
        date => format!("'{date} {}'", clock(rng)),
    }
}

fn clock(rng: &mut Rng) -> String {
    let hour = if one_in(rng, 3) { 0 } else { rng.u32(..24) };
    format!(
        "{hour:02}:{:02}:{:02}.{:06}",
        rng.u32(..60),
        rng.u32(..60),
        rng.u32(..1_000_000)
    )
}

/// Raw bytes in the shape of the character set or out of shape, or characters of any script.
fn text_value(rng: &mut Rng, charset: &str, length: usize) -> String {
    let count = match rng.u32(..6) {
        0 => 0,
        1 => length,
        _ => rng.usize(..=length.min(12)),
    };
    match rng.u32(..4) {
        0 => format!("X'{}'", hex(&some_bytes(rng, count))),
        1 if !charset.starts_with('u') => {
            // Lead and tail bytes of the East Asian sets; two characters each in the others.
            let pairs =
                (0..count.div_ceil(2)).flat_map(|_| [rng.u8(0x81..=0xfe), rng.u8(0x40..=0xfe)]);
            format!("X'{}'", hex(&pairs.collect::<Vec<_>>()))
        }
        _ => {
            let text: String = (0..count).map(|_| character(rng)).collect();
            format!(
                "CONVERT(_utf8mb4 X'{}' USING {charset})",
                hex(text.as_bytes())
            )
        }
    }
}

fn character(rng: &mut Rng) -> char {
    let odd = [
        '\0', '\'', '"', '\\', '`', '\n', '\r', '\u{1a}', '\t', '%', '_', ' ', ' ', '~', '\u{7f}',
    ];
    match rng.u32(..8) {
        0 => *pick(rng, &odd),
        1 => rng.char('\u{80}'..='\u{52f}'),
        2 => rng.char('\u{4e00}'..='\u{9fff}'),
        3 => *pick(
            rng,
            &[
                '\u{fffd}',
                '\u{ffff}',
                '\u{1f600}',
                '\u{10ffff}',
                'ß',
                'İ',
                'ー',
                'ｱ',
                '한',
            ],
        ),
        4 => *pick(rng, &['a', 'A', 'á', 'Á', 'b', 'B']),
        _ => rng.char(' '..='~'),
    }
}

fn some_bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let count = if one_in(rng, 5) {
        most
    } else {
        rng.usize(..=most.min(20))
    };
    let few = one_in(rng, 3);
    let odd = [0, b'\'', b'\\', b' ', b'"', b'\n', 0x1a, 0xff];
    (0..count)
        .map(|_| if few { *pick(rng, &odd) } else { rng.u8(..) })
        .collect()
}

fn json_value(rng: &mut Rng, depth: usize) -> String {
    match rng.usize(..if depth > 0 { 9 } else { 7 }) {
        0 => (*pick(rng, &["null", "true", "false", "\"\"", "[]", "{}"])).into(),
        1 => rng.i64(..).to_string(),
        2 => rng.u64(..).to_string(),
        3 => format!("{:e}", (rng.f64() - 0.5) * 10f64.powi(rng.i32(-200..200))),
        4..=6 => {
            let text: String = (0..rng.usize(..20)).map(|_| character(rng)).collect();
            serde_json::to_string(&text).unwrap()
        }
        7 => {
            let items: Vec<_> = (0..rng.usize(..5))
                .map(|_| json_value(rng, depth - 1))
                .collect();
            format!("[{}]", items.join(", "))
        }
        _ => {
            let members =
                (0..rng.usize(..5)).map(|n| format!("\"k{n}\": {}", json_value(rng, depth - 1)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

fn geometry_value(rng: &mut Rng) -> String {
    let number = |rng: &mut Rng| match rng.u32(..4) {
        0 => *pick(rng, &[0.0, -0.0, 1e300, 5e-324]),
        _ => rng.f64() * 180.0 - 90.0,
    };
    let (x, y) = (number(rng), number(rng));
    let srid = pick(rng, &["", ", 0", ", 4326"]);
    if srid.ends_with("4326") {
        let (x, y) = (x.clamp(-90.0, 90.0), y.clamp(-90.0, 90.0));
        return format!("ST_GeomFromText('POINT({x:e} {y:e})'{srid})");
    }
    format!("ST_GeomFromText('POINT({x:e} {y:e})'{srid})")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02X}").unwrap();
        text
    })
}
