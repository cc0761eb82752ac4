//! The command line program `schema_backup`. Everything that talks to a person lies in
//! `cli`; the work is done by the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
