//! Keys in configurations and in files, good and bad.

use std::io::Write;
use std::iter;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use secrecy::ExposeSecret;

use super::super::load_config;
use super::*;

const KEY: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

fn load(text: &str) -> Result<EncryptionByCategory> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("schema_backup.conf");
    std::fs::write(&path, text).unwrap();
    load_config(&path).map(|config| config.encryption)
}

fn private_file(dir: &Path, content: &[u8]) -> PathBuf {
    let path = dir.join("keys");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    file.write_all(content).unwrap();
    path
}

#[test]
fn recipients_come_from_the_configuration_and_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let other = age::x25519::Identity::generate().to_public();
    let file = private_file(dir.path(), format!("# us\n\n{other}\r\n{KEY}\n").as_bytes());
    let text = format!(
        "encryption:\n  local:\n    recipients: [{KEY}]\n    recipients_file: {}\n",
        file.display()
    );
    let by = load(&text).unwrap();
    let local = by.recipients(Category::Local).unwrap().unwrap();
    assert_eq!(local.count(), 2, "one of them twice");
    assert!(by.recipients(Category::Ephemeral).unwrap().is_none());
    assert!(by.recipients(Category::Global).unwrap().is_none());

    std::fs::write(&file, "# nobody\n").unwrap();
    let error = by.recipients(Category::Local).unwrap_err().to_string();
    assert!(error.contains("no public key"), "{error}");
    std::fs::write(&file, format!("{KEY}\nage1x\n")).unwrap();
    let error = by.recipients(Category::Local).unwrap_err().to_string();
    assert!(error.contains("line 2: `age1x`"), "{error}");
    std::fs::remove_file(&file).unwrap();
    assert!(by.recipients(Category::Local).is_err());
}

#[test]
fn no_more_recipients_are_taken_than_can_be_read_again() {
    let keys = iter::repeat_with(|| age::x25519::Identity::generate().to_public());
    let keys = keys.take(MAX_RECIPIENTS).collect();
    let mut source = RecipientSource { keys, file: None };
    assert_eq!(source.read().unwrap().count(), MAX_RECIPIENTS);
    source
        .keys
        .push(age::x25519::Identity::generate().to_public());
    let error = source.read().unwrap_err();
    assert!(error.to_string().contains("1001 recipients"), "{error}");
}

#[test]
fn what_would_leave_data_unencrypted_is_refused() {
    let secret = age::x25519::Identity::generate().to_string();
    let secret = secret.expose_secret();
    for (text, part) in [
        ("encryption: true", "recipients for local"),
        ("encryption: {local: }", "recipients_file"),
        ("encryption: {local: {}}", "nobody is named"),
        ("encryption: {local: {recipients: []}}", "nobody is named"),
        ("encryption: {local: {recipients: [age1x]}}", "`age1x`"),
        ("encryption: {local: {recipients: [ssh-rsa]}}", "age-keygen"),
        ("encryption: {local: {recipients_file: keys}}", "full path"),
        ("encryption: {local: {recipient: [x]}}", "`recipient`"),
        ("encryption: {global: {recipients: [x]}}", "git repository"),
        ("encryption: {all: {recipients: [x]}}", "`all`"),
        ("encrypt: {local: {recipients: [x]}}", "`encryption`"),
        ("Encryption: {local: {recipients: [x]}}", "`encryption`"),
    ] {
        let error = load(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Config);
        let error = error.to_string();
        assert!(error.contains(part) && error.contains("line 1"), "{error}");
    }
    let text = format!("encryption:\n  local: {{recipients: [{secret}]}}\n");
    let error = load(&text).unwrap_err().to_string();
    assert!(
        error.contains("secret key") && !error.contains(&secret[20..]),
        "{error}"
    );
    assert_eq!(
        load("encryption:\n").unwrap(),
        EncryptionByCategory::default()
    );
}

fn identities(content: &[u8], exposure: Exposure, mode: u32) -> Result<Identities> {
    let dir = tempfile::tempdir().unwrap();
    let path = private_file(dir.path(), content);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    let ask = |_: &Path| Ok(Secret::new("sesame".into()));
    Identities::read(&[path], exposure, ask)
}

fn under_passphrase(text: &str, passphrase: &str) -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase));
    recipient.set_work_factor(2);
    let encryptor = Encryptor::with_recipients(iter::once(&recipient as _)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish().unwrap()
}

#[test]
fn identities_are_read_also_from_under_a_passphrase() {
    let secret = age::x25519::Identity::generate().to_string();
    let text = format!("# created\n{}\n", secret.expose_secret());
    let read = identities(text.as_bytes(), Exposure::Refused, 0o600).unwrap();
    assert_eq!(read.iter().count(), 1);
    assert_eq!(format!("{read:?}"), "Identities([hidden])");
    let wrapped = under_passphrase(&text, "sesame");
    let read = identities(&wrapped, Exposure::Refused, 0o600).unwrap();
    assert_eq!(read.iter().count(), 1);
    let wrapped = under_passphrase(&text, "another");
    let error = identities(&wrapped, Exposure::Refused, 0o600).unwrap_err();
    assert!(error.to_string().contains("passphrase does not fit"));
}

#[test]
fn what_is_no_identity_says_so_and_shows_nothing() {
    let for_a_key = age::encrypt(&KEY.parse::<Recipient>().unwrap(), b"x").unwrap();
    for (content, part) in [
        (KEY.as_bytes(), "line 1"),
        (b"s3cret-text\n", "line 1"),
        (b"# nothing\n", "no identity"),
        (b"age-encryption.org/v1\n-> x\n", "damaged"),
        (for_a_key.as_slice(), "not with a passphrase"),
    ] {
        // Whoever names a file of the system by mistake must not be told to hide it.
        for mode in [0o600, 0o644] {
            let error = identities(content, Exposure::Refused, mode).unwrap_err();
            let line = error.to_string();
            let encrypted = mode != 0o600 && is_encrypted(content);
            let part = if encrypted { "mode 0644" } else { part };
            assert!(line.contains(part) && !line.contains("s3cret"), "{line}");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}

#[test]
fn an_identity_that_others_can_read_is_refused_unless_told_so() {
    let secret = age::x25519::Identity::generate().to_string();
    let text = format!("{}\n", secret.expose_secret());
    for mode in [0o640, 0o604, 0o620] {
        let error = identities(text.as_bytes(), Exposure::Refused, mode).unwrap_err();
        assert!(
            error.to_string().contains(&format!("mode {mode:04o}")),
            "{error}"
        );
        assert!(error.hint_text().unwrap().contains("chmod 600"));
        identities(text.as_bytes(), Exposure::Allowed, mode).unwrap();
    }
}
