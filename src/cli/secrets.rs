//! What keeps secrets in: passwords and keys on the command line are refused before clap sees them
//! (every user of the machine can read arguments, and clap would repeat the value in its message),
//! and the process leaves no core dump.

use std::ffi::OsString;

use clap::CommandFactory;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use schema_backup::{Error, ErrorKind, Result};

use super::args::Args;

/// From now on the kernel writes no core dump of this process, by neither of its ways: into a file,
/// which the limit ends, or to a program such as systemd's, which does not heed it. Nor may other
/// processes of the user attach to it.
pub(crate) fn refuse_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Both only give something up, which is always allowed.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Refuses arguments that carry an identity or a password, or look like one who is used to
/// `mysql -pSECRET`.
/// The message never contains the argument.
pub(crate) fn refuse(arguments: &[OsString]) -> Result<()> {
    let command = Args::command();
    let takes_value = |short: char| {
        command
            .get_arguments()
            .any(|a| a.get_short() == Some(short) && a.get_action().takes_values())
    };
    let is_verb = |text: &str| {
        command
            .get_subcommands()
            .any(|verb| verb.get_name() == text)
    };

    let mut after_ask = false;
    for argument in arguments.iter().skip(1) {
        let text = argument.to_string_lossy();
        if text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
            return Err(Error::new(
                ErrorKind::Config,
                "an identity cannot be given as an argument",
            )
            .hint("name a file that holds it: --identity FILE"));
        }
        let authority = text
            .split_once("://")
            .and_then(|(_, at)| at.split_once('@'));
        if authority.is_some_and(|(user, _)| user.contains(':')) {
            return Err(refusal("the password cannot be given as an argument"));
        }
        if text == "--" {
            break;
        }
        // `-p secret`: clap would call the word an unknown command, and repeat it.
        if after_ask && !text.starts_with('-') && !is_verb(&text) {
            return Err(refusal(
                "the password cannot be given as an argument, -p takes no value",
            ));
        }
        after_ask = text == "--ask-password";
        if let Some(long) = text.strip_prefix("--") {
            let name = long.split('=').next().unwrap_or(long);
            let with_value = long.contains('=');
            let names_password = name.starts_with("pass") || name.starts_with("pwd");
            if (names_password && name != "password-file") || (name == "ask-password" && with_value)
            {
                return Err(refusal("the password cannot be given as an argument"));
            }
        } else if let Some(cluster) = text.strip_prefix('-') {
            let up_to_value = cluster.find(|short| short == 'p' || takes_value(short));
            if let Some(at) = up_to_value.filter(|at| cluster[*at..].starts_with('p')) {
                if cluster.len() > at + 1 {
                    return Err(refusal(
                        "the password cannot be given as an argument, -p takes no value",
                    ));
                }
                after_ask = true;
            }
        }
    }
    Ok(())
}

fn refusal(context: &str) -> Error {
    Error::new(ErrorKind::Config, context)
        .hint("use --password-file FILE, the environment variable SCHEMA_BACKUP_PASSWORD, or -p to be asked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<()> {
        refuse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn passwords_are_refused_and_not_repeated() {
        for line in [
            "x --password=s3cret",
            "x --password s3cret",
            "x --passwords3cret",
            "x --passwd=s3cret",
            "x --ask-password=s3cret",
            "x --ask-password s3cret",
            "x -ps3cret",
            "x -qps3cret",
            "x -p=s3cret",
            "x -p s3cret",
            "x -qp s3cret",
            "x plan -pq",
            "x mysql://me:s3cret@host/csv2",
            "x --host=mysql://me:s3cret@host",
        ] {
            let error = check(line).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{line}");
            assert!(!error.to_string().contains("s3cret"), "{line}");
            assert!(error.hint_text().unwrap().contains("--password-file"));
        }
    }

    #[test]
    fn identities_are_refused_and_not_repeated() {
        for line in [
            "x verify d --identity AGE-SECRET-KEY-1S3CRET",
            "x verify d --identity=age-secret-key-1s3cret",
            "x AGE-SECRET-KEY-1S3CRET",
        ] {
            let error = check(line).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{line}");
            assert!(!error.to_string().to_lowercase().contains("s3cret"));
            assert!(error.hint_text().unwrap().contains("--identity FILE"));
        }
    }

    #[test]
    fn other_arguments_pass() {
        for line in [
            "x",
            "x -p",
            "x -p plan",
            "x -qp list -v",
            "x -p -q",
            "x --ask-password backup",
            "x --password-file=secret",
            "x --password-file /p",
            "x -uapple -epop",
            "x -u pat",
            "x -- -pfoo",
            "x --backup-dir http://a:1/b",
        ] {
            assert!(check(line).is_ok(), "{line}");
        }
    }
}
