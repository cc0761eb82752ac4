CREATE TABLE places (id INT PRIMARY KEY, p POINT REF_SYSTEM_ID=101 NOT NULL, g GEOMETRY NOT NULL, SPATIAL KEY (p), SPATIAL INDEX named (g) COMMENT 'where');
INSERT INTO places SELECT seq, ST_GeomFromText(CONCAT('POINT(', seq, ' ', seq * 0.1, ')'), 101), ST_GeomFromText('POINT(1 1)') FROM seq_1_to_50;
