CREATE TABLE `back``tick` (`col``umn` INT PRIMARY KEY, `a"b` INT, `a'b` INT, KEY `k``y` (`a"b`)); INSERT INTO `back``tick` VALUES (1, 2, 3);
CREATE TABLE `quo"te'd` (`a.b` INT PRIMARY KEY, `a/b` INT, `a%b` INT, `a\\b` INT, `a b` INT); INSERT INTO `quo"te'd` VALUES (1, 2, 3, 4, 5);
CREATE TABLE `dotted.name` (id INT PRIMARY KEY); INSERT INTO `dotted.name` VALUES (1);
CREATE TABLE `sla/sh` (id INT PRIMARY KEY); INSERT INTO `sla/sh` VALUES (2);
CREATE TABLE `per%cent` (id INT PRIMARY KEY); INSERT INTO `per%cent` VALUES (3);
CREATE TABLE ` leading space` (` a` INT PRIMARY KEY); INSERT INTO ` leading space` VALUES (4);
CREATE TABLE `back\\slash` (id INT PRIMARY KEY, `x\\` INT); INSERT INTO `back\\slash` VALUES (5, 6);
CREATE TABLE `new
line` (`co
l` INT PRIMARY KEY); INSERT INTO `new
line` VALUES (1);
CREATE TABLE `..` (`.` INT); INSERT INTO `..` VALUES (1);
CREATE TABLE `#sql-temp` (id INT PRIMARY KEY); INSERT INTO `#sql-temp` VALUES (1);
CREATE TABLE `tmp_table#1` (id INT); CREATE TABLE `-rf` (id INT); CREATE TABLE `$HOME;ls` (id INT); CREATE TABLE `--help` (id INT); CREATE TABLE `a*b?` (id INT);
CREATE TABLE `select` (`from` INT PRIMARY KEY, `where` INT, `order` INT, KEY `group` (`where`)); INSERT INTO `select` VALUES (1, 2, 3);
CREATE TABLE CaseDiffers (id INT); CREATE TABLE casediffers (id INT); CREATE TABLE CASEDIFFERS (id INT); INSERT INTO CaseDiffers VALUES (1); INSERT INTO casediffers VALUES (2);
CREATE TABLE `ẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅ` (`字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字字` INT PRIMARY KEY) COMMENT='名';
INSERT INTO `ẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅẅ` VALUES (1);
CREATE TABLE `Ünïcödé` (`é` INT); INSERT INTO `Ünïcödé` VALUES (1); CREATE TABLE `1234` (`5` INT); INSERT INTO `1234` VALUES (6); CREATE TABLE `1e5` (`2e5` INT);
CREATE TABLE `; DROP TABLE x; --` (id INT); CREATE TABLE `/*!50000 x */` (id INT);
CREATE VIEW `vi``ew "x" 'y'` AS SELECT `col``umn` AS `a``b`, `a"b` FROM `back``tick`; CREATE VIEW `view\\` AS SELECT 'a\\b' AS `c\\d`; CREATE VIEW `v/漢字` AS SELECT 1 AS `漢`;
DELIMITER //
CREATE PROCEDURE `pro``c "x"` (`p``1` INT) BEGIN SELECT `p``1`; END//
CREATE FUNCTION `fu/nc 漢` () RETURNS INT DETERMINISTIC RETURN 1//
CREATE TRIGGER `tri``gger` BEFORE INSERT ON `back``tick` FOR EACH ROW BEGIN SET NEW.`a"b` = 1; END//
CREATE EVENT `ev``ent é` ON SCHEDULE EVERY 1 DAY DISABLE DO BEGIN SELECT 1; END//
CREATE EVENT `событие` ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1//
CREATE TRIGGER `триггер` AFTER DELETE ON `select` FOR EACH ROW SET @x = 1//
DELIMITER ;
