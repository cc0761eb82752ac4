//! The name of this host, which names its directory of backups.

use crate::error::{Error, ErrorKind, Result};

/// `AI_CANONNAME` of `<netdb.h>`; the same on Linux, the BSDs and macOS.
const AI_CANONNAME: i32 = 2;
/// The longest file name, and more than the longest host name.
const MAX_LENGTH: usize = 255;

/// The fully qualified name of this host as `hostname -f` finds it, in lower case: the node
/// name if it has a dot, else its canonical name by the resolver, else the node name as it is.
/// May wait for the resolver. A canonical name `localhost…` is not used, because it would be
/// the same on every host. The result passes [`validate_host_name`].
pub fn fully_qualified_host_name() -> Result<String> {
    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name = choose(&node, canonical_name);
    validate_host_name(&name).map_err(|e| e.within("the name of this host"))?;
    Ok(name)
}

fn choose(node: &str, canonical: impl FnOnce(&str) -> Option<String>) -> String {
    let mut name = node.to_string();
    if !node.contains('.') && !node.is_empty() {
        let usable = |found: &String| {
            let found = found.trim_end_matches('.').to_ascii_lowercase();
            found.contains('.')
                && found.split('.').next() != Some("localhost")
                && validate_host_name(&found).is_ok()
        };
        if let Some(found) = canonical(node).filter(usable) {
            name = found;
        }
    }
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn canonical_name(node: &str) -> Option<String> {
    let hints = dns_lookup::AddrInfoHints {
        flags: AI_CANONNAME,
        socktype: dns_lookup::SockType::Stream.into(),
        ..Default::default()
    };
    let mut found = dns_lookup::getaddrinfo(Some(node), None, Some(hints)).ok()?;
    // Only the first result carries the name.
    found.next()?.ok()?.canonname
}

/// An error unless `name` is safe as one component of a path: ASCII letters, digits, `.`, `-`
/// and `_`, not beginning with `.` or `-`, 1 to 255 bytes.
pub fn validate_host_name(name: &str) -> Result<()> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_LENGTH {
        "is longer than 255 bytes"
    } else if name.starts_with(['.', '-']) {
        "begins with `.` or `-`"
    } else if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
    {
        "has characters other than ASCII letters, digits, `.`, `-` and `_`"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
    Err(
        Error::new(ErrorKind::Config, format!("host name `{shown}` {why}"))
            .hint("it names a directory; give a name such as host.example.org"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_name() {
        let name = fully_qualified_host_name().unwrap();
        assert_eq!(name, name.to_ascii_lowercase());
        validate_host_name(&name).unwrap();
    }

    #[test]
    fn a_dot_settles_it_and_the_resolver_helps() {
        let never = |_: &str| panic!("asked the resolver");
        assert_eq!(choose("A.Example.org", never), "a.example.org");
        let answer = |name: &'static str| move |_: &str| Some(name.to_string());
        assert_eq!(choose("a", answer("A.example.org.")), "a.example.org");
        assert_eq!(choose("a", answer("a")), "a");
        assert_eq!(choose("a", answer("localhost.localdomain")), "a");
        assert_eq!(choose("a", answer("../b.c")), "a");
        assert_eq!(choose("a", |_| None), "a");
    }

    #[test]
    fn only_a_path_component_is_a_host_name() {
        let longest = "a".repeat(255);
        for good in ["a", "a.b-c_d", "1.2", "A", &longest] {
            validate_host_name(good).unwrap();
        }
        let too_long = "a".repeat(256);
        for bad in [
            "", ".", "..", "-a", ".a", "a/b", "a b", "a\0", "a\n", "ä", &too_long,
        ] {
            let error = validate_host_name(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.hint_text().is_some());
        }
    }
}
