//! Harnesses for input that nobody should trust: each takes any bytes, gives them to the readers
//! and writers that meet such bytes, and panics where a promise does not hold. `cargo fuzz` runs
//! them for long (`fuzz/`), the tests here briefly. No part of the program.

mod configuration;
mod encoder;
mod literal;
mod manifest;
mod packets;
mod statements;

pub use configuration::configuration;
pub use encoder::encoder;
pub use manifest::manifest;
pub use packets::packets;
pub use statements::statements;

/// Takes decisions and pieces from the front of the bytes that a fuzzer has made; once there are
/// none left, everything is zero and empty.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at most 256.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Up to 65535 bytes; most pieces are short.
    fn piece(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            255 => usize::from(self.byte()) << 8 | usize::from(self.byte()),
            short => usize::from(short),
        };
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An error is what a person reads: one line, and not the whole of what was wrong.
fn assert_readable(error: &crate::Error) {
    let line = error.to_string();
    assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
    assert!(line.len() < 4096, "{} bytes: {line:.200}", line.len());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    /// A harness with its seeds.
    type Harness = (&'static str, fn(&[u8]));

    const HARNESSES: [Harness; 5] = [
        ("packets", super::packets),
        ("encoder", super::encoder),
        ("manifest", super::manifest),
        ("configuration", super::configuration),
        ("statements", super::statements),
    ];

    /// The seeds in `fuzz/seeds`, findings of the past among them.
    fn seeds(harness: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(harness);
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// What fuzzers do to a seed: bytes are changed, taken out, put in, or cut off.
    fn mutated(mut bytes: Vec<u8>, changes: &[(u8, prop::sample::Index, Vec<u8>)]) -> Vec<u8> {
        for (kind, at, new) in changes {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + new.len());
            match kind % 4 {
                0 => drop(bytes.splice(at..end, new.iter().copied())),
                1 => drop(bytes.splice(at..at, new.iter().copied())),
                2 => drop(bytes.drain(at..end)),
                _ => bytes.truncate(at.max(bytes.len() / 2)),
            }
        }
        bytes
    }

    #[test]
    fn seeds_are_read() {
        for (name, harness) in HARNESSES {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "no seeds for {name}");
            seeds.iter().for_each(|seed| harness(seed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn what_is_near_a_seed_is_read(which in 0..HARNESSES.len(), seed: prop::sample::Index,
            changes in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(),
                prop::collection::vec(any::<u8>(), 0..6)), 1..6)) {
            let (name, harness) = HARNESSES[which];
            harness(&mutated(seed.get(&seeds(name)).clone(), &changes));
        }

        #[test]
        fn any_bytes_are_read(which in 0..HARNESSES.len(), bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            HARNESSES[which].1(&bytes);
        }
    }
}
