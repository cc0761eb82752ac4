//! What somebody has done to an encrypted backup who can write to it, and to every checksum in it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

/// Puts `bytes` into a file of the backup, and makes every checksum and size right again that can
/// be made right without the identity.
fn replace(backup: &Path, file: &str, bytes: &[u8]) {
    fs::write(backup.join(file), bytes).unwrap();
    let manifest = backup.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let (_, entry) = text.split_once(&format!("\"file\": \"{file}\",")).unwrap();
    let (entry, _) = entry.split_once('}').unwrap();
    let quoted = entry.rsplit('"').nth(1).unwrap();
    let size = entry.split_once("\"bytes\": ").unwrap().1;
    let size = size.split_once(',').unwrap().0;
    let changed =
        entry
            .replacen(quoted, &sha256(bytes), 1)
            .replacen(size, &bytes.len().to_string(), 1);
    let named = |entry: &str| format!("\"file\": \"{file}\",{entry}");
    let text = edited(&text, &named(entry), &named(&changed));
    fs::write(&manifest, text).unwrap();
    rewrite_sums(backup);
}

fn rewrite_sums(backup: &Path) {
    let sums = backup.join("SHA256SUMS");
    let text = fs::read_to_string(&sums).unwrap();
    let lines = text.lines().map(|line| {
        let file = line.split_once("  ").unwrap().1;
        format!(
            "{}  {file}\n",
            sha256(&fs::read(backup.join(file)).unwrap())
        )
    });
    let text: String = lines.collect();
    fs::write(&sums, text).unwrap();
}

/// Makes the private file agree with the edited manifest. That takes the identity to read it,
/// and stands for an attacker who knows all that is in it.
fn forge_private(fixture: &Fixture, backup: &Path) {
    let manifest = fs::read_to_string(backup.join("manifest.json")).unwrap();
    // As the program counts it: without white space, and without the entry of the private file.
    let counted = manifest.split(",\n  \"private\"").next().unwrap();
    let counted = counted
        .lines()
        .map(|line| line.trim_start().replacen("\": ", "\":", 1));
    let counted = counted.collect::<String>() + "}";
    let text = unage(&fixture.identity, &backup.join("private.json.age"));
    let text = String::from_utf8(text).unwrap();
    let private: Value = serde_json::from_str(&text).unwrap();
    let known = private["manifest"].as_str().unwrap();
    let forged = edited(&text, known, &sha256(counted.as_bytes()));
    replace(
        backup,
        "private.json.age",
        &age(&fixture.public, forged.as_bytes()),
    );
}

#[test]
fn a_file_with_right_checksums_and_another_content_is_found_by_its_authentication() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_tamper");
    let latest = fixture.site.latest();
    let files = data_files(&latest, "people");
    let victim = &files[1];
    let mut bytes = fs::read(latest.join(victim)).unwrap();
    let middle = bytes.len() - 100;
    bytes[middle] ^= 1;
    replace(&latest, victim, &bytes);

    // All checksums are right.
    fixture.verify(&[]).expect_code(0);
    assert_sums_hold(&latest);
    let outcome = fixture.verify(&fixture.identity()).expect_code(4);
    let outcome = outcome.expect_out(&format!("{victim}: cannot be decoded"));
    outcome.expect_out("private.json.age: damaged: it is of another manifest.json");
    drop_database(server, "enc_tamper_again");
    fixture
        .restore("enc_tamper_again", &fixture.identity())
        .expect_code(4)
        .expect_said("private.json.age")
        .expect_said("or that was edited");

    // Also where the private file was made to agree.
    forge_private(&fixture, &latest);
    let outcome = fixture.verify(&fixture.identity()).expect_code(4);
    assert!(!outcome.stdout.contains("private.json.age:"), "{outcome:?}");
    outcome.expect_out(&format!("{victim}: cannot be decoded"));
    fixture
        .restore("enc_tamper_again", &fixture.identity())
        .expect_code(4)
        .expect_said(victim)
        .expect_said("decrypt");
    // Nothing of the chunk is there.
    let mut connection = server.connect();
    let ranges: Vec<String> = {
        let private = unage(&fixture.identity, &latest.join("private.json.age"));
        let private: Value = serde_json::from_slice(&private).unwrap();
        let from = private["tables"]["people"]["from"].as_array().unwrap();
        let bound = |at: usize| from[at][0].as_str().unwrap().to_owned();
        vec![bound(1), bound(2)]
    };
    let count: Option<u64> = connection
        .query_first(format!(
            "SELECT COUNT(*) FROM enc_tamper_again.people WHERE name >= {} AND name < {}",
            ranges[0], ranges[1]
        ))
        .unwrap();
    assert_eq!(count, Some(0));
}

#[test]
fn files_that_changed_places_are_found_out() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_swap");
    let latest = fixture.site.latest();
    let files = data_files(&latest, "people");
    let [a, b] = [&files[0], &files[1]].map(|file| fs::read(latest.join(file)).unwrap());
    replace(&latest, &files[0], &b);
    replace(&latest, &files[1], &a);
    expect_swapped(&fixture);

    // Nor may a file come from an older backup.
    backup(&fixture.site);
    let newer = fixture.site.latest();
    let file = data_files(&newer, "one").remove(0);
    replace(&newer, &file, &fs::read(latest.join(&file)).unwrap());
    expect_swapped(&fixture);
}

#[track_caller]
fn expect_swapped(fixture: &Fixture) {
    fixture.verify(&[]).expect_code(0);
    fixture
        .verify(&fixture.identity())
        .expect_code(4)
        .expect_out("it is of another manifest.json");
    fixture
        .restore("enc_swap_again", &fixture.identity())
        .expect_code(4)
        .expect_said("or that was edited");
}

#[test]
fn damage_is_named_with_and_without_the_identity() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_damage");
    let latest = fixture.site.latest();
    let victim = data_files(&latest, "people").remove(0);
    let good = fs::read(latest.join(&victim)).unwrap();
    let private = fs::read(latest.join("private.json.age")).unwrap();
    let flip = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes
    };
    for arguments in [&[][..], &fixture.identity()[..]] {
        fs::write(latest.join(&victim), flip(&good)).unwrap();
        let outcome = fixture.verify(arguments).expect_code(4);
        outcome.expect_out(&format!("{victim}: checksum mismatch"));
        fs::write(latest.join(&victim), &good).unwrap();
        fs::write(latest.join("private.json.age"), flip(&private)).unwrap();
        let outcome = fixture.verify(arguments).expect_code(4);
        outcome.expect_out("private.json.age: checksum mismatch");
        fs::write(latest.join("private.json.age"), &private).unwrap();
    }
    // What is no file of age at all, with right checksums, needs no identity to be seen.
    replace(
        &latest,
        &victim,
        &good.iter().map(|_| b'x').collect::<Vec<_>>(),
    );
    fixture
        .verify(&[])
        .expect_code(4)
        .expect_out(&format!("{victim}: cannot be decoded"));
}
