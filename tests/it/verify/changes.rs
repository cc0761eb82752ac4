//! What may happen to the database of these tests after its backup, and what is to be found then.

/// A change, its undoing, and what is to be found in between.
pub(super) type Change = (&'static str, &'static str, &'static [&'static str]);

/// Those that a server of the product takes.
pub(super) fn changes(mysql: bool) -> impl Iterator<Item = &'static Change> {
    let of_sequences = if mysql { &[][..] } else { SEQUENCES };
    CHANGES.iter().chain(of_sequences)
}

const CHANGES: &[Change] = &[
    // Rows, in the first, a middle and the last chunk.
    (
        "UPDATE settings SET v = concat(v, '!') WHERE id = 1",
        "UPDATE settings SET v = left(v, length(v) - 1) WHERE id = 1",
        &["table settings content"],
    ),
    (
        "UPDATE settings SET v = upper(v) WHERE id = 200",
        "UPDATE settings SET v = lower(v) WHERE id = 200",
        &["table settings content"],
    ),
    (
        "UPDATE users SET b = unhex(concat('00', hex(b))) WHERE n = 600",
        "UPDATE users SET b = substr(b, 2) WHERE n = 600",
        &["table users content"],
    ),
    (
        "DELETE FROM users WHERE n = 300",
        "INSERT INTO users VALUES ('u42', 299, unhex(sha2(300, 256)))",
        &["table users rows"],
    ),
    (
        "INSERT INTO users VALUES ('a', 0, NULL)",
        "DELETE FROM users WHERE name = 'a'",
        &["table users rows"],
    ),
    (
        "INSERT INTO users VALUES ('zz', 0, NULL)",
        "DELETE FROM users WHERE name = 'zz'",
        &["table users rows"],
    ),
    (
        // A key that moves to another chunk.
        "UPDATE nullable SET k = 1000 WHERE k = 1",
        "UPDATE nullable SET k = 1 WHERE k = 1000",
        &["table nullable content"],
    ),
    (
        "UPDATE nullable SET v = -1 WHERE v = 50",
        "UPDATE nullable SET v = 50 WHERE v = -1",
        &["table nullable content"],
    ),
    (
        "INSERT INTO nullable VALUES (NULL, 0)",
        "DELETE FROM nullable WHERE v = 0",
        &["table nullable rows"],
    ),
    // One bit of a float.
    (
        "UPDATE floats SET f = 1.00000012 WHERE id = 1",
        "UPDATE floats SET f = 1 WHERE id = 1",
        &["table floats content"],
    ),
    (
        "UPDATE floats SET d = 0.10000000000000002 WHERE id = 1",
        "UPDATE floats SET d = 0.1 WHERE id = 1",
        &["table floats content"],
    ),
    (
        "UPDATE floats SET d = 0 WHERE id = 2",
        "UPDATE floats SET d = 5e-324 WHERE id = 2",
        &["table floats content"],
    ),
    // Rows that occur more than once, and what is nearly nothing.
    (
        "INSERT INTO keyless VALUES (1, 'x')",
        "DELETE FROM keyless WHERE b = 'x' LIMIT 1",
        &["table keyless rows"],
    ),
    (
        "UPDATE keyless SET b = NULL WHERE a = 2",
        "UPDATE keyless SET b = '' WHERE a = 2 LIMIT 1",
        &["table keyless content"],
    ),
    (
        "DELETE FROM myisam WHERE id = 2",
        "INSERT INTO myisam VALUES (2)",
        &["table myisam rows"],
    ),
    (
        "ALTER TABLE nothing AUTO_INCREMENT = 78",
        "ALTER TABLE nothing AUTO_INCREMENT = 77",
        &["table nothing auto_increment"],
    ),
    // Structure.
    (
        "ALTER TABLE floats ADD COLUMN more INT",
        "ALTER TABLE floats DROP COLUMN more",
        &["table floats definition", "table floats columns"],
    ),
    (
        "ALTER TABLE passing COMMENT = 'x'",
        "ALTER TABLE passing COMMENT = ''",
        &["table passing definition"],
    ),
    (
        "INSERT INTO passing VALUES (2)",
        "DELETE FROM passing WHERE id = 2",
        &[],
    ),
    (
        "RENAME TABLE `odd name/.%` TO aside",
        "RENAME TABLE aside TO `odd name/.%`",
        &["table odd name/.% missing"],
    ),
    (
        "DROP TABLE passing",
        "CREATE TABLE passing (id INT PRIMARY KEY)",
        &["table passing missing"],
    ),
    (
        "CREATE TABLE unheard_of (id INT)",
        "DROP TABLE unheard_of",
        &[],
    ),
    // Other objects.
    (
        "CREATE OR REPLACE VIEW a_on_z AS SELECT count(*) + 1 AS n FROM z_base",
        "CREATE OR REPLACE VIEW a_on_z AS SELECT count(*) AS n FROM z_base",
        &["view a_on_z definition"],
    ),
    (
        "DROP VIEW a_on_z",
        "CREATE VIEW a_on_z AS SELECT count(*) AS n FROM z_base",
        &["view a_on_z missing"],
    ),
    (
        "DROP TRIGGER second",
        "CREATE TRIGGER second BEFORE INSERT ON users FOR EACH ROW SET @x = 1",
        &["triggers users definition"],
    ),
    (
        "CREATE TRIGGER third AFTER DELETE ON floats FOR EACH ROW SET @x = 1",
        "DROP TRIGGER third",
        &["triggers floats added"],
    ),
    (
        "ALTER FUNCTION plus_one SQL SECURITY INVOKER",
        "ALTER FUNCTION plus_one SQL SECURITY DEFINER",
        &["function plus_one definition"],
    ),
    (
        "CREATE PROCEDURE more() SELECT 1",
        "DROP PROCEDURE more",
        &["procedure more added"],
    ),
    (
        "ALTER EVENT nightly DISABLE",
        "ALTER EVENT nightly ENABLE",
        &["event nightly definition"],
    ),
    (
        "CREATE EVENT more ON SCHEDULE EVERY 1 DAY DO SET @x = 1",
        "DROP EVENT more",
        &["event more added"],
    ),
];

/// MySQL has no sequences.
const SEQUENCES: &[Change] = &[(
    "DO nextval(numbers)",
    "ALTER SEQUENCE numbers RESTART WITH 3005",
    &["sequence numbers state"],
)];
