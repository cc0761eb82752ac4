-- A database in the shape of CloudScheduler v2's, for etc/demo: small stand-ins for its
-- tables with the features that real ones have. Table names match etc/schema_backup.conf.

SET FOREIGN_KEY_CHECKS = 0;

-- Global configuration: the same on every host, nothing sensitive.

CREATE TABLE csv2_attribute_mapping (
  csv2 VARCHAR(64) NOT NULL COMMENT 'our name for it',
  os_limits VARCHAR(64) DEFAULT NULL,
  os_flavors VARCHAR(64) DEFAULT NULL,
  os_servers VARCHAR(64) DEFAULT NULL,
  condor VARCHAR(64) DEFAULT NULL COMMENT 'HTCondor''s "ClassAd" attribute',
  PRIMARY KEY (csv2)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE csv2_configuration (
  category VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  config_key VARCHAR(64) CHARACTER SET latin1 NOT NULL,
  config_type ENUM('bool','int','float','str') NOT NULL DEFAULT 'str',
  config_value TEXT DEFAULT NULL,
  PRIMARY KEY (category, config_key)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_mime_types (
  id TINYINT UNSIGNED NOT NULL AUTO_INCREMENT,
  mime_type VARCHAR(96) NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY mime_type (mime_type)
) ENGINE=InnoDB DEFAULT CHARSET=latin1 COMMENT='what cloud-init calls the parts of its "multipart" data';

CREATE TABLE csv2_poller_settings (
  poller VARCHAR(32) NOT NULL,
  sleep_interval DECIMAL(8,3) NOT NULL DEFAULT 60.000,
  batch INT UNSIGNED NOT NULL DEFAULT 50,
  options LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(options)),
  PRIMARY KEY (poller),
  CONSTRAINT interval_is_positive CHECK (sleep_interval > 0)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_service_catalog (
  provider VARCHAR(32) NOT NULL,
  service VARCHAR(64) NOT NULL,
  requirement SET('database','network','condor','openstack') NOT NULL DEFAULT 'database',
  logfile VARCHAR(255) DEFAULT NULL,
  PRIMARY KEY (provider, service)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_yaml_schema (
  id INT NOT NULL AUTO_INCREMENT,
  name VARCHAR(64) NOT NULL,
  body MEDIUMTEXT NOT NULL,
  digest BINARY(32) GENERATED ALWAYS AS (unhex(sha2(body, 256))) STORED,
  PRIMARY KEY (id),
  UNIQUE KEY name (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Users, groups and clouds: sensitive, saved in the private directory.

CREATE TABLE csv2_groups (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  htcondor_fqdn VARCHAR(128) DEFAULT NULL,
  job_cpus INT DEFAULT 1,
  job_ram INT DEFAULT 2048,
  vm_keep_alive INT NOT NULL DEFAULT 0,
  public_visibility TINYINT(1) NOT NULL DEFAULT 0,
  PRIMARY KEY (group_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_user (
  username VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cert_cn VARCHAR(255) DEFAULT NULL COMMENT 'common name, e.g. "O''Neil"',
  password VARBINARY(128) NOT NULL,
  is_superuser TINYINT(1) NOT NULL DEFAULT 0,
  join_date DATE NOT NULL,
  last_login TIMESTAMP(3) NULL DEFAULT NULL,
  default_group VARCHAR(32) CHARACTER SET latin1 DEFAULT NULL,
  PRIMARY KEY (username),
  UNIQUE KEY cert_cn (cert_cn),
  KEY default_group (default_group),
  CONSTRAINT user_default_group FOREIGN KEY (default_group) REFERENCES csv2_groups (group_name)
    ON DELETE SET NULL ON UPDATE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_user_groups (
  username VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  PRIMARY KEY (username, group_name),
  KEY group_name (group_name),
  CONSTRAINT membership_user FOREIGN KEY (username) REFERENCES csv2_user (username) ON DELETE CASCADE,
  CONSTRAINT membership_group FOREIGN KEY (group_name) REFERENCES csv2_groups (group_name) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=latin1;

CREATE TABLE csv2_clouds (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  enabled TINYINT(1) NOT NULL DEFAULT 1,
  priority INT NOT NULL DEFAULT 0,
  cloud_type ENUM('openstack','amazon','azure','localhost') NOT NULL DEFAULT 'openstack',
  authurl VARCHAR(255) NOT NULL,
  project VARCHAR(128) NOT NULL,
  username VARCHAR(64) DEFAULT NULL,
  password VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  cores_ctl INT NOT NULL DEFAULT -1,
  ram_ctl BIGINT NOT NULL DEFAULT -1,
  spot_price DOUBLE DEFAULT NULL,
  location POINT DEFAULT NULL,
  ec2_options LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(ec2_options)),
  created DATETIME(6) NOT NULL DEFAULT current_timestamp(6),
  changed TIMESTAMP NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  PRIMARY KEY (group_name, cloud_name),
  CONSTRAINT cloud_group FOREIGN KEY (group_name) REFERENCES csv2_groups (group_name) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_cloud_aliases (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  alias_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL,
  PRIMARY KEY (group_name, cloud_name, alias_name),
  CONSTRAINT alias_cloud FOREIGN KEY (group_name, cloud_name)
    REFERENCES csv2_clouds (group_name, cloud_name) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_cloud_flavor_exclusions (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  flavor_name VARCHAR(128) NOT NULL,
  PRIMARY KEY (group_name, cloud_name, flavor_name)
) ENGINE=Aria TRANSACTIONAL=1 DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_group_metadata (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  metadata_name VARCHAR(64) NOT NULL,
  enabled TINYINT(1) NOT NULL DEFAULT 1,
  priority INT NOT NULL DEFAULT 0,
  mime_type VARCHAR(96) CHARACTER SET latin1 NOT NULL DEFAULT 'cloud-config',
  metadata LONGTEXT NOT NULL,
  checksum CHAR(32) CHARACTER SET latin1 GENERATED ALWAYS AS (md5(metadata)) VIRTUAL,
  PRIMARY KEY (group_name, metadata_name),
  CONSTRAINT metadata_mime FOREIGN KEY (mime_type) REFERENCES csv2_mime_types (mime_type)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_cloud_metadata (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  metadata_name VARCHAR(64) NOT NULL,
  enabled BIT(1) NOT NULL DEFAULT b'1',
  metadata LONGTEXT NOT NULL,
  PRIMARY KEY (group_name, cloud_name, metadata_name),
  FULLTEXT KEY words (metadata)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_x509_credentials (
  id UUID NOT NULL DEFAULT uuid(),
  username VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  proxy BLOB NOT NULL,
  expires DATETIME NOT NULL,
  PRIMARY KEY (id),
  KEY username (username)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;

CREATE TABLE csv2_keypairs (
  fingerprint CHAR(47) CHARACTER SET ascii NOT NULL,
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  key_name VARCHAR(64) NOT NULL DEFAULT 'default\\key',
  private_key VARBINARY(4096) DEFAULT NULL,
  PRIMARY KEY (fingerprint, group_name, cloud_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE csv2_user_preferences (
  username VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  preferences JSON DEFAULT NULL,
  PRIMARY KEY (username)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE apel_accounting (
  vm_id CHAR(36) CHARACTER SET ascii NOT NULL,
  start_time BIGINT NOT NULL COMMENT 'seconds since 1970',
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  hostname VARCHAR(128) NOT NULL,
  flavor_id VARCHAR(64) DEFAULT NULL,
  cpus INT UNSIGNED NOT NULL DEFAULT 1,
  hs06 FLOAT DEFAULT NULL,
  wall_seconds INT NOT NULL DEFAULT 0,
  charge DECIMAL(12,4) NOT NULL DEFAULT 0.0000,
  image_digest BINARY(16) DEFAULT NULL,
  status ENUM('active','finished','error') NOT NULL DEFAULT 'active',
  PRIMARY KEY (vm_id, start_time),
  KEY cloud (group_name, cloud_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
PARTITION BY RANGE (start_time) (
  PARTITION y2023 VALUES LESS THAN (1704067200),
  PARTITION y2024 VALUES LESS THAN (1735689600),
  PARTITION later VALUES LESS THAN MAXVALUE
);

-- Ephemeral state: what the pollers find again by themselves.

CREATE TABLE cloud_flavors (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  id VARCHAR(64) NOT NULL,
  name VARCHAR(128) NOT NULL,
  ram INT NOT NULL,
  cores INT NOT NULL,
  disk INT NOT NULL DEFAULT 0,
  last_updated BIGINT NOT NULL,
  PRIMARY KEY (group_name, cloud_name, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE cloud_images LIKE cloud_flavors;
ALTER TABLE cloud_images DROP COLUMN ram, DROP COLUMN cores, DROP COLUMN disk,
  ADD COLUMN size BIGINT UNSIGNED DEFAULT NULL, ADD COLUMN visibility ENUM('public','private','shared') DEFAULT 'private',
  ADD COLUMN checksum BINARY(16) DEFAULT NULL;
CREATE TABLE cloud_limits (
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  max_total_cores INT DEFAULT NULL,
  cores_used INT DEFAULT NULL,
  cores_free INT AS (max_total_cores - cores_used) VIRTUAL,
  last_updated BIGINT NOT NULL,
  PRIMARY KEY (group_name, cloud_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE cloud_networks (
  id UUID NOT NULL, group_name VARCHAR(32) NOT NULL, cloud_name VARCHAR(32) NOT NULL,
  subnet INET6 DEFAULT NULL, is_external TINYINT(1) NOT NULL DEFAULT 0, PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE cloud_security_groups (
  id UUID NOT NULL, group_name VARCHAR(32) NOT NULL, cloud_name VARCHAR(32) NOT NULL,
  rules JSON DEFAULT NULL, PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE cloud_volumes (
  id UUID NOT NULL, group_name VARCHAR(32) NOT NULL, cloud_name VARCHAR(32) NOT NULL,
  size_gb INT UNSIGNED NOT NULL, bootable BIT(1) NOT NULL DEFAULT b'0', PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;

CREATE TABLE condor_jobs (
  global_job_id VARCHAR(96) CHARACTER SET ascii NOT NULL,
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  job_status TINYINT NOT NULL,
  request_cpus INT NOT NULL DEFAULT 1,
  request_ram INT NOT NULL DEFAULT 0,
  requirements VARCHAR(512) DEFAULT NULL,
  user VARCHAR(64) DEFAULT NULL,
  entered_current_status DATETIME NOT NULL,
  hold_reason TEXT DEFAULT NULL,
  PRIMARY KEY (global_job_id),
  KEY by_status (group_name, job_status)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE condor_machines (
  name VARCHAR(96) CHARACTER SET ascii NOT NULL,
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  state VARCHAR(16) NOT NULL, activity VARCHAR(16) NOT NULL,
  total_slots INT NOT NULL DEFAULT 1, disk BIGINT UNSIGNED DEFAULT NULL, my_current_time INT NOT NULL,
  PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE condor_worker_gsi (
  htcondor_fqdn VARCHAR(128) NOT NULL, worker_dn VARCHAR(255) DEFAULT NULL, worker_eol INT DEFAULT NULL,
  worker_cert BLOB DEFAULT NULL, PRIMARY KEY (htcondor_fqdn)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE csv2_system_status (
  id INT NOT NULL DEFAULT 0, load_avg_1 DOUBLE DEFAULT NULL, ram_used DECIMAL(10,1) DEFAULT NULL,
  PRIMARY KEY (id), CONSTRAINT one_row CHECK (id = 0)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE csv2_timestamps (
  entity VARCHAR(64) NOT NULL, last_updated TIMESTAMP(6) NOT NULL DEFAULT current_timestamp(6), PRIMARY KEY (entity)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE csv2_vms (
  vmid VARCHAR(64) CHARACTER SET ascii NOT NULL,
  group_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  cloud_name VARCHAR(32) CHARACTER SET latin1 NOT NULL,
  hostname VARCHAR(128) NOT NULL, status VARCHAR(32) NOT NULL,
  power_status TINYINT UNSIGNED NOT NULL DEFAULT 0, terminate TINYINT NOT NULL DEFAULT 0,
  spot_instance BIT(1) NOT NULL DEFAULT b'0', retire_time INT DEFAULT NULL, boot_seconds TIME(2) DEFAULT NULL,
  PRIMARY KEY (vmid), KEY by_cloud (group_name, cloud_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE csv2_sessions (
  session_key CHAR(32) CHARACTER SET ascii NOT NULL, username VARCHAR(32) NOT NULL, expires INT NOT NULL,
  PRIMARY KEY (session_key) USING HASH
) ENGINE=MEMORY DEFAULT CHARSET=latin1;
CREATE TABLE csv2_service_status (
  alias VARCHAR(32) NOT NULL, state ENUM('up','down','unknown') NOT NULL DEFAULT 'unknown', plotted YEAR DEFAULT NULL,
  PRIMARY KEY (alias)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE csv2_image_cache (
  checksum BINARY(16) NOT NULL, size BIGINT UNSIGNED NOT NULL, downloaded DATETIME DEFAULT NULL, PRIMARY KEY (checksum)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE csv2_image_transactions (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, checksum BINARY(16) NOT NULL,
  status ENUM('pending','claimed','complete','error') NOT NULL, message TEXT DEFAULT NULL, PRIMARY KEY (id),
  CONSTRAINT transaction_image FOREIGN KEY (checksum) REFERENCES csv2_image_cache (checksum)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE csv2_job_schedulers (
  fqdn VARCHAR(128) NOT NULL, kind VARCHAR(16) NOT NULL DEFAULT 'htcondor', agent_status TINYINT NOT NULL DEFAULT 0,
  PRIMARY KEY (fqdn)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- The web framework's own tables: ignored.

CREATE TABLE auth_group (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(150) NOT NULL UNIQUE) ENGINE=InnoDB;
CREATE TABLE auth_permission (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, codename VARCHAR(100) NOT NULL) ENGINE=InnoDB;
CREATE TABLE django_content_type (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, model VARCHAR(100) NOT NULL) ENGINE=InnoDB;
CREATE TABLE django_migrations (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, app VARCHAR(255) NOT NULL) ENGINE=InnoDB;
CREATE TABLE django_session (session_key VARCHAR(40) NOT NULL PRIMARY KEY, session_data LONGTEXT NOT NULL) ENGINE=InnoDB;

-- A table that a developer added and nobody has put on a list yet: the backup warns of it.

CREATE TABLE csv2_new_feature (id INT NOT NULL PRIMARY KEY, note VARCHAR(100) DEFAULT NULL) ENGINE=InnoDB;

-- A sequence, views on views, routines, triggers and events.

CREATE SEQUENCE csv2_request_ids START WITH 1000 INCREMENT BY 10 CACHE 50;


CREATE VIEW view_clouds AS
  SELECT c.group_name, c.cloud_name, c.cloud_type, c.enabled, l.max_total_cores, l.cores_used
    FROM csv2_clouds c LEFT JOIN cloud_limits l USING (group_name, cloud_name);
-- Named so that it sorts before the view it reads.
CREATE VIEW available_cores AS
  SELECT group_name, sum(coalesce(max_total_cores, 0) - coalesce(cores_used, 0)) AS cores
    FROM view_clouds WHERE enabled = 1 GROUP BY group_name;
CREATE SQL SECURITY INVOKER VIEW view_condor_jobs AS
  SELECT group_name, job_status, count(*) AS jobs FROM condor_jobs GROUP BY group_name, job_status;
CREATE VIEW view_active_groups AS
  SELECT group_name FROM csv2_groups WHERE public_visibility = 1 WITH CHECK OPTION;

DELIMITER //

CREATE FUNCTION job_status_name(status INT) RETURNS VARCHAR(16) CHARSET latin1
  DETERMINISTIC NO SQL COMMENT 'HTCondor''s numbers in words'
BEGIN
  RETURN CASE status WHEN 1 THEN 'idle' WHEN 2 THEN 'running' WHEN 5 THEN 'held' ELSE 'other' END;
END//

CREATE PROCEDURE retire_cloud(IN the_group VARCHAR(32), IN the_cloud VARCHAR(32))
  MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
  -- the pollers' own "garbage collection" does the rest; it's safe to call twice
  UPDATE csv2_clouds SET enabled = 0 WHERE group_name = the_group AND cloud_name = the_cloud;
  UPDATE csv2_vms SET terminate = 1 WHERE group_name = the_group AND cloud_name = the_cloud;
END//

CREATE TRIGGER csv2_clouds_touch AFTER UPDATE ON csv2_clouds FOR EACH ROW
BEGIN
  INSERT INTO csv2_timestamps (entity) VALUES (concat('cloud:', NEW.cloud_name))
    ON DUPLICATE KEY UPDATE last_updated = current_timestamp(6);
END//
CREATE TRIGGER csv2_clouds_name BEFORE INSERT ON csv2_clouds FOR EACH ROW
  SET NEW.cloud_name = lower(NEW.cloud_name)//
CREATE TRIGGER csv2_clouds_name_again BEFORE INSERT ON csv2_clouds FOR EACH ROW FOLLOWS csv2_clouds_name
  SET NEW.cloud_name = trim(NEW.cloud_name)//

CREATE EVENT csv2_expire_sessions ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01 00:00:00'
  COMMENT 'sessions don''t outlive their users' DO
BEGIN
  DELETE FROM csv2_sessions WHERE expires < unix_timestamp();
END//
CREATE EVENT csv2_purge_transactions ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 03:00:00' DISABLE DO
  DELETE FROM csv2_image_transactions WHERE status = 'complete'//

DELIMITER ;
