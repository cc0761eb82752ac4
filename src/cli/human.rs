//! Numbers, times and names as people read them.

/// Bytes in powers of 1024, three significant digits: `123 B`, `1.10 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        [" B", " KiB", " MiB", " GiB", " TiB", " PiB"],
    )
}

/// Bytes per second.
pub(crate) fn byte_rate(per_second: f64) -> String {
    format!("{}/s", bytes(per_second.max(0.0) as u64))
}

/// A count in powers of 1000, three significant digits: `820`, `1.20M`.
pub(crate) fn count(count: u64) -> String {
    scaled(count as f64, 1000.0, ["", "k", "M", "G", "T", "P"])
}

/// A count with all its digits, in groups: `12,345,678`.
pub(crate) fn exact(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// What is said behind a directory whose rows are encrypted.
pub(crate) fn encrypted_for(recipients: usize) -> String {
    match recipients {
        0 => String::new(),
        1 => " (encrypted for 1 recipient)".to_owned(),
        n => format!(" (encrypted for {n} recipients)"),
    }
}

fn scaled(mut value: f64, base: f64, units: [&str; 6]) -> String {
    let mut unit = 0;
    // 999.7 would print as 1000: it belongs to the next unit.
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", units[unit])
}

/// Seconds as on a clock: `0:42`, `1:05:09`.
pub(crate) fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// Seconds in words: `0.42 s`, `42.1 s`, `2 min 05 s`, `1 h 05 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 9.995 => format!("{:.2} s", seconds.max(0.0)),
        _ if seconds < 99.95 => format!("{seconds:.1} s"),
        0..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// At most `width` characters: the middle of a longer text gives way, because table names
/// tend to differ at the end.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head: String = text.chars().take(kept.div_ceil(2)).collect();
    let tail: String = text.chars().skip(length - kept / 2).collect();
    if width == 0 {
        String::new()
    } else {
        format!("{head}…{tail}")
    }
}

/// The text on one line, without characters that would steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_significant_digits() {
        let sizes = [
            0,
            1023,
            1024,
            1536,
            10 << 10,
            1_048_575,
            75 << 20,
            1_181_116_006,
        ];
        let shown = [
            "0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 KiB", "1.00 MiB", "75.0 MiB", "1.10 GiB",
        ];
        assert_eq!(sizes.map(bytes), shown);
        assert_eq!(
            [7, 999, 1000, 999_700, 12_345_678].map(count),
            ["7", "999", "1.00k", "1.00M", "12.3M"]
        );
        assert_eq!(
            [0, 999, 1000, 12_345_678].map(exact),
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn times() {
        assert_eq!(
            [0.0, 59.9, 61.0, 3909.0].map(clock),
            ["0:00", "0:59", "1:01", "1:05:09"]
        );
        assert_eq!(
            [0.42, 42.13, 125.0, 3909.0].map(duration),
            ["0.42 s", "42.1 s", "2 min 05 s", "1 h 05 min"]
        );
    }

    #[test]
    fn the_middle_gives_way() {
        assert_eq!(shorten("csv2_clouds", 11), "csv2_clouds");
        assert_eq!(shorten("csv2_group_metadata_yaml", 11), "csv2_…_yaml");
        assert_eq!(shorten("größer", 3), "g…r");
        assert_eq!(shorten("ab", 0), "");
    }
}
