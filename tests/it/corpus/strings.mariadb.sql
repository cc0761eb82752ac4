CREATE TABLE addresses (id INT PRIMARY KEY, u UUID, i4 INET4, i6 INET6, k UUID DEFAULT '00000000-0000-0000-0000-000000000001', UNIQUE (u));
INSERT INTO addresses VALUES (1, '123e4567-e89b-12d3-a456-426655440000', '1.2.3.4', '::1', UUID()), (2, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '255.255.255.255', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', UUID()),
  (3, '00000000-0000-0000-0000-000000000000', '0.0.0.0', '::', UUID()), (4, NULL, NULL, '::ffff:1.2.3.4', NULL), (5, UUID(), '127.0.0.1', '2001:db8::ff00:42:8329', UUID());
CREATE TABLE squeezed (id INT PRIMARY KEY, t TEXT COMPRESSED, b BLOB COMPRESSED, v VARCHAR(1000) COMPRESSED, vb VARBINARY(1000) COMPRESSED=zlib, l LONGTEXT COMPRESSED CHARACTER SET latin2);
INSERT INTO squeezed VALUES (1, REPEAT('abc', 10000), REPEAT('\0é', 1000), REPEAT('v', 1000), REPEAT('\\', 999), REPEAT('ł', 500)), (2, '', '', '', '', ''), (3, NULL, NULL, NULL, NULL, NULL), (4, 'x', 'y', 'z', 'w', 'ž');
