CREATE TABLE nothings (id INT PRIMARY KEY, v VARCHAR(20), c CHAR(20), b VARBINARY(20), t TEXT, d VARCHAR(20) DEFAULT 'NULL', e VARCHAR(20) NOT NULL DEFAULT '', f VARCHAR(50) DEFAULT 'it''s "a" \\ `b` \n');
INSERT INTO nothings VALUES (1, NULL, NULL, NULL, NULL, NULL, 'NULL', NULL), (2, '', '', '', '', '', '', ''), (3, 'NULL', 'NULL', 'NULL', 'NULL', 'NULL', 'NULL', 'NULL'),
  (4, '\\N', '\\N', '\\N', '\\N', '\\N', '\\N', '\\N'), (5, '0', ' ', '\0', 'null', 'a', 'b', 'c');
INSERT INTO nothings (id, v) VALUES (6, 'x');
CREATE TABLE spaces (id INT PRIMARY KEY, v VARCHAR(50), c CHAR(10), t TEXT, b BINARY(8), vb VARBINARY(50), tb BLOB);
INSERT INTO spaces VALUES (1, 'a  ', 'a', 'a  ', 'a', 'a  ', 'a  '), (2, '  a', '  a', '  a', 'a\0', 'a\0\0', 'a\0\0'), (3, '\ta\t\n', '\t', '\r\n', 'a ', ' \0', ' \0 '), (4, ' ', ' ', ' ', ' ', ' ', ' '), (5, '', '', '', '', '', '');
CREATE TABLE all_bytes (id INT PRIMARY KEY, b BINARY(255), vb VARBINARY(1000), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB);
SET @all = '';
INSERT INTO all_bytes WITH RECURSIVE n (n, s) AS (SELECT 0, CAST(X'00' AS CHAR(2000) CHARACTER SET binary) UNION ALL SELECT n + 1, CONCAT(s, CHAR(n + 1)) FROM n WHERE n < 255)
  SELECT n, LEFT(s, 255), s, LEFT(s, 255), CONCAT(s, s), CONCAT(s, s, s), REPEAT(s, 20) FROM n WHERE n IN (0, 10, 92, 255);
INSERT INTO all_bytes VALUES (1000, NULL, NULL, NULL, NULL, NULL, NULL), (1001, '', '', '', '', '', '');
CREATE TABLE texts (id INT PRIMARY KEY, a TINYTEXT, b TEXT, c MEDIUMTEXT, d LONGTEXT, e LONGTEXT CHARACTER SET latin1, n NCHAR(5), nv NVARCHAR(7)) DEFAULT CHARSET=utf8mb4;
INSERT INTO texts VALUES (1, 'é', REPEAT('ü\\''"\n', 1000), REPEAT('漢', 10000), REPEAT('a', 200000), REPEAT('é', 20000), 'n', 'nv'), (2, '-- no comment', '/* nor */ ; DELIMITER //', '#', '/*! 1 */', '\\', 'x', ';');
CREATE TABLE folded (k VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, v INT);
INSERT INTO folded VALUES ('a', 1), ('B', 2), ('ä', 3) ON DUPLICATE KEY UPDATE v = 9;
INSERT INTO folded VALUES ('', 0), (' x', 4), ('é', 5), ('Z', 6), ('ß', 7);
CREATE TABLE empty_table (id INT PRIMARY KEY, v TEXT);
CREATE TABLE no_key (a INT, b VARCHAR(10));
INSERT INTO no_key VALUES (1, 'x'), (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL), (2, '');
