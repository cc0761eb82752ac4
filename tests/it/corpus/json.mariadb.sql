INSERT INTO docs VALUES (20, '  { "spaces" :  1 , "dup": 1, "dup": 2 }', '[1,2 , 3]');
CREATE TABLE texts_that_are_json (id INT PRIMARY KEY, j LONGTEXT CHARACTER SET latin1 CHECK (json_valid(j)));
INSERT INTO texts_that_are_json VALUES (1, '{"a": "é"}'), (2, NULL);
