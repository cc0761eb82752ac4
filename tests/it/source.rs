//! Where printing and exiting are allowed: `main.rs` and `cli/`, and nowhere else. The library
//! knows neither the command line nor progress bars (`.ci/run` also builds it without them).

use std::fs;
use std::path::Path;

use crate::site::walk;

const FORBIDDEN: [&str; 10] = [
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "dbg!",
    "process::exit",
    "process::abort",
    "clap",
    "indicatif",
    "std::env::args",
];

#[test]
fn nothing_outside_main_and_cli_prints_exits_or_knows_the_command_line() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked = 0;
    for path in walk(&source)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
    {
        let inside = path.strip_prefix(&source).unwrap();
        if inside == Path::new("main.rs") || inside.starts_with("cli") {
            continue;
        }
        looked += 1;
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            // What a comment says is not what the code does.
            let code = line.split("//").next().unwrap();
            let found = FORBIDDEN.iter().find(|word| contains_word(code, word));
            assert_eq!(
                found,
                None,
                "src/{}:{}: {line}",
                inside.display(),
                number + 1
            );
        }
    }
    assert!(
        looked > 5,
        "the test found only {looked} files under {}",
        source.display()
    );
}

/// Whether `word` occurs other than as the tail or the head of a longer word.
fn contains_word(code: &str, word: &str) -> bool {
    let of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        !before.ends_with(of_a_word) && (word.ends_with('!') || !after.starts_with(of_a_word))
    })
}
