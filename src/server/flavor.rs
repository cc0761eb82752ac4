//! Which product and version the server is.

use std::fmt;

use mysql::Conn;

use super::connect::query_error;
use super::driver::Ask;
use crate::error::{Error, ErrorKind, Result};

/// The two products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// MariaDB.
    MariaDb,
    /// MySQL and what keeps to its dialect.
    MySql,
}

/// Product and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// Which product.
    pub product: Product,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
}

impl Flavor {
    /// Asks the server.
    pub fn detect(conn: &mut Conn) -> Result<Flavor> {
        let text: Option<String> = conn
            .query_first("SELECT VERSION()")
            .map_err(|e| query_error("cannot read the server's version", e))?;
        let text = text.unwrap_or_default();
        Flavor::parse(&text).ok_or_else(|| {
            Error::new(
                ErrorKind::Failed,
                format!("the server states no usable version: `{text}`"),
            )
        })
    }

    fn parse(text: &str) -> Option<Flavor> {
        let product = if text.to_ascii_lowercase().contains("mariadb") {
            Product::MariaDb
        } else {
            Product::MySql
        };
        // Some MariaDB servers and proxies put a fake 5.5.5- in front.
        let text = text.strip_prefix("5.5.5-").unwrap_or(text);
        let mut parts = text
            .split(['.', '-', '+'])
            .map_while(|part| part.parse::<u32>().ok());
        let version = (parts.next()?, parts.next()?, parts.next().unwrap_or(0));
        Some(Flavor { product, version })
    }

    /// Whether this is MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.product == Product::MariaDb
    }

    /// Whether rows of system-versioned tables can be written with their period, so that it is
    /// worth saving (`system_versioning_insert_history`).
    pub fn takes_history(&self) -> bool {
        self.is_mariadb() && self.version >= (10, 11, 0)
    }

    /// `mariadb` or `mysql`, for manifests.
    pub fn name(&self) -> &'static str {
        match self.product {
            Product::MariaDb => "mariadb",
            Product::MySql => "mysql",
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = match self.product {
            Product::MariaDb => "MariaDB",
            Product::MySql => "MySQL",
        };
        let (major, minor, patch) = self.version;
        write!(f, "{product} {major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_servers_state_them() {
        let mariadb = Flavor::parse("10.11.6-MariaDB-0+deb12u1-log").unwrap();
        assert_eq!(mariadb.to_string(), "MariaDB 10.11.6");
        assert_eq!(
            Flavor::parse("5.5.5-10.6.1-MariaDB").unwrap().version,
            (10, 6, 1)
        );
        assert_eq!(Flavor::parse("9.7.0").unwrap().product, Product::MySql);
        assert_eq!(
            Flavor::parse("8.0.36-0ubuntu0.22.04.1").unwrap().version,
            (8, 0, 36)
        );
        assert!(Flavor::parse("nonsense").is_none());
    }
}
