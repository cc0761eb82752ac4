//! Whom data is encrypted for, and with what it is read again: the public and the secret keys of
//! age. Recipients come from `schema_backup.conf`, or from a file that it names; identities from
//! files that are named on the command line of `restore` and `verify`, and nowhere else.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use age::x25519::Recipient;
use age::{Decryptor, Encryptor, IdentityFile};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use super::Category;
use super::connection::{Secret, config};
use super::file::{PATH, path_value};
use super::secret_file::{self, Exposure};
use super::yaml::{List, Twice, one_line, scalar};
use crate::error::{Error, ErrorKind, Result};

/// How hard a passphrase may have been made to try, as a power of two: what a machine of today
/// works through in seconds, with some 4 GiB of memory.
const MAX_WORK_FACTOR: u8 = 22;

/// More recipients are refused: each takes some 100 bytes of the header of every file, and a long
/// header is not read again.
const MAX_RECIPIENTS: usize = 1000;

/// Public keys that data is encrypted for. Never empty, and never more than can be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// The beginning of an encrypted file, with a key of its own.
    pub fn encryptor(&self) -> Result<Encryptor> {
        let recipients = self.0.iter().map(|recipient| recipient as _);
        Encryptor::with_recipients(recipients)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot encrypt").because(e))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// What the configuration says of one category: keys, a file of keys, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecipientSource {
    keys: Vec<Recipient>,
    file: Option<PathBuf>,
}

/// Which data is encrypted, and for whom. Global data never is: it is for a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionByCategory {
    /// User data.
    pub local: Option<RecipientSource>,
    /// What `-e` writes.
    pub ephemeral: Option<RecipientSource>,
}

impl EncryptionByCategory {
    /// Whom data of this category is encrypted for; `None` where it is not. Reads the file of
    /// recipients.
    pub fn recipients(&self, category: Category) -> Result<Option<Recipients>> {
        let source = match category {
            Category::Local => &self.local,
            Category::Ephemeral => &self.ephemeral,
            Category::Global | Category::Ignore => &None,
        };
        source.as_ref().map(RecipientSource::read).transpose()
    }
}

impl RecipientSource {
    fn read(&self) -> Result<Recipients> {
        let mut keys = self.keys.clone();
        if let Some(path) = &self.file {
            keys.extend(read_recipients(path)?);
        }
        let mut seen = HashSet::new();
        keys.retain(|key| seen.insert(key.clone()));
        if keys.len() > MAX_RECIPIENTS {
            let what = format!("data cannot be encrypted for {} recipients", keys.len());
            return Err(config(what).hint(format!("give at most {MAX_RECIPIENTS}")));
        }
        Ok(Recipients(keys))
    }
}

/// The keys of a file: one a line, with comments and empty lines between them.
fn read_recipients(path: &Path) -> Result<Vec<Recipient>> {
    let hint = "it holds one public key (age1…) a line; lines that begin with # are comments";
    let content = secret_file::read(path)?.content;
    let mut keys = Vec::new();
    for (number, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line.trim_ascii());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refused =
            |why| config(format!("{}: line {}: {why}", path.display(), number + 1)).hint(hint);
        keys.push(recipient(&line).map_err(refused)?);
    }
    if keys.is_empty() {
        return Err(config(format!("{}: no public key there", path.display())).hint(hint));
    }
    Ok(keys)
}

/// A public key as it is written. What is none is repeated only if it cannot be a secret.
fn recipient(text: &str) -> Result<Recipient, String> {
    if let Ok(recipient) = text.parse() {
        return Ok(recipient);
    }
    Err(if text.starts_with("age1") {
        format!("`{}` is not a public key of age", one_line(text))
    } else if text.starts_with("ssh-") {
        "keys of ssh are not taken; make one with age-keygen".to_owned()
    } else if text
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("AGE-"))
    {
        "a secret key stands where a public key (age1…) is wanted: take it out of this file"
            .to_owned()
    } else {
        "not a public key of age (age1…)".to_owned()
    })
}

/// Secret keys. They wipe themselves, and are hidden by `Debug`.
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities([hidden])")
    }
}

impl Identities {
    /// Reads files as `age-keygen` writes them, which nobody else may read unless `exposure`
    /// allows it. `ask` is called for the passphrase of one that has one.
    pub fn read(
        files: &[PathBuf],
        exposure: Exposure,
        mut ask: impl FnMut(&Path) -> Result<Secret>,
    ) -> Result<Identities> {
        let mut all = Vec::new();
        for path in files {
            let file = secret_file::read(path)?;
            let parsed = if is_encrypted(&file.content) {
                // Not worth a passphrase otherwise.
                file.refuse_exposed(path, exposure)?;
                parse_identities(path, &decrypt(path, &file.content, ask(path)?)?)?
            } else {
                parse_identities(path, &file.content)?
            };
            // Only of a file that holds a secret can it be said that it should be hidden.
            file.refuse_exposed(path, exposure)?;
            all.extend(parsed);
        }
        Ok(Identities(all))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| &**identity as _)
    }
}

fn is_encrypted(content: &[u8]) -> bool {
    content.starts_with(b"age-encryption.org/") || content.starts_with(b"-----BEGIN AGE ")
}

/// An identity file under a passphrase.
fn decrypt(path: &Path, content: &[u8], passphrase: Secret) -> Result<Zeroizing<Vec<u8>>> {
    let refused = |why: &str| config(format!("{}: {why}", path.display()));
    let broken = |e| refused("a damaged encrypted file").because(e);
    let decryptor =
        Decryptor::new_buffered(age::armor::ArmoredReader::new(content)).map_err(broken)?;
    if !decryptor.is_scrypt() {
        let hint = "an identity begins with AGE-SECRET-KEY-1; age -d gets it out of this file";
        return Err(refused("encrypted for a key, and not with a passphrase").hint(hint));
    }
    let mut key = age::scrypt::Identity::new(SecretString::from(passphrase.expose()));
    key.set_max_work_factor(MAX_WORK_FACTOR);
    let mut reader = decryptor
        .decrypt(std::iter::once(&key as _))
        .map_err(|e| match e {
            age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed => {
                refused("the passphrase does not fit")
            }
            e => broken(e),
        })?;
    // What is decrypted is shorter, so nothing is left behind by growing.
    let mut text = Zeroizing::new(Vec::with_capacity(content.len()));
    std::io::Read::read_to_end(&mut reader, &mut text).map_err(|e| broken(e.into()))?;
    Ok(text)
}

fn parse_identities(path: &Path, text: &[u8]) -> Result<Vec<Box<dyn age::Identity + Send + Sync>>> {
    let refused = |why: &str| config(format!("{}: {why}", path.display()));
    let line = |begins: &[u8]| {
        let mut lines = text.split(|&byte| byte == b'\n');
        lines.any(|line| line.starts_with(begins))
    };
    // Says the number of a line and never what stands there.
    let parsed = IdentityFile::from_buffer(text).map_err(|e| {
        let error = refused("not an identity file of age").because(e);
        if line(b"age1") {
            error.hint("this is a public key; the identity begins with AGE-SECRET-KEY-1")
        } else if line(b"-----BEGIN ") {
            error.hint("keys of ssh are not taken; an identity begins with AGE-SECRET-KEY-1")
        } else {
            error.hint("an identity, as age-keygen writes it, begins with AGE-SECRET-KEY-1")
        }
    })?;
    let identities = parsed
        .into_identities()
        .map_err(|e| refused("not an identity file of age").because(e))?;
    if identities.is_empty() {
        return Err(refused("no identity there")
            .hint("an identity, as age-keygen writes it, begins with AGE-SECRET-KEY-1"));
    }
    Ok(identities)
}

/// A map of the categories that are encrypted; null for none.
pub(super) struct EncryptionSeed;

impl<'de> DeserializeSeed<'de> for EncryptionSeed {
    type Value = EncryptionByCategory;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EncryptionSeed {
    type Value = EncryptionByCategory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with recipients for local, ephemeral or both")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(EncryptionByCategory::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut by = EncryptionByCategory::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let slot = match key.as_str() {
                "local" => &mut by.local,
                "ephemeral" => &mut by.ephemeral,
                "global" => {
                    return Err(A::Error::custom(
                        "global data is for a git repository and is not encrypted; put a table that needs it on `local`",
                    ));
                }
                other => {
                    return Err(A::Error::custom(format!(
                        "`{}` is not one of local, ephemeral",
                        one_line(other)
                    )));
                }
            };
            if !seen.insert(key) {
                map.next_value_seed(Twice)?;
            } else {
                *slot = Some(map.next_value_seed(SourceSeed)?);
            }
        }
        Ok(by)
    }
}

/// The recipients of one category. Whoever names a category wants it encrypted: none at all is
/// an error.
struct SourceSeed;

impl<'de> DeserializeSeed<'de> for SourceSeed {
    type Value = RecipientSource;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SourceSeed {
    type Value = RecipientSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`recipients: [age1…]`, `recipients_file: PATH` or both")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut source = RecipientSource::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                map.next_value_seed(Twice)?;
                continue;
            }
            match key.as_str() {
                "recipients" => source.keys = map.next_value_seed(List { parse: recipient })?,
                "recipients_file" => source.file = map.next_value_seed(scalar(PATH, path_value))?,
                other => {
                    return Err(A::Error::custom(format!(
                        "`{}` is not one of recipients, recipients_file",
                        one_line(other)
                    )));
                }
            }
        }
        if source == RecipientSource::default() {
            return Err(A::Error::custom(
                "nobody is named to encrypt for: give recipients or recipients_file",
            ));
        }
        Ok(source)
    }
}

/// Keys for the tests of what is encrypted with them.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Identities, MAX_RECIPIENTS, Recipients};
    use age::x25519::Identity;

    pub(crate) fn recipients(key: &Identity) -> Recipients {
        Recipients(vec![key.to_public()])
    }

    /// As many as there may be, `key` the last of them.
    pub(crate) fn most_recipients(key: &Identity) -> Recipients {
        let others = std::iter::repeat_with(|| Identity::generate().to_public());
        let all = others.take(MAX_RECIPIENTS - 1).chain([key.to_public()]);
        Recipients(all.collect())
    }

    pub(crate) fn identities(key: &Identity) -> Identities {
        Identities(vec![Box::new(key.clone())])
    }
}

#[cfg(test)]
#[path = "encryption_tests.rs"]
mod tests;
