-- Rows for etc/demo.sql; @rows says how many the largest table gets.

SET SESSION sql_log_bin = 0, foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00';

INSERT INTO csv2_attribute_mapping VALUES
  ('cores', 'maxTotalCores', 'vcpus', NULL, 'RequestCpus'), ('ram', 'maxTotalRAMSize', 'ram', NULL, 'RequestMemory'),
  ('vmid', NULL, NULL, 'id', NULL);
INSERT INTO csv2_configuration
  SELECT concat('poller-', seq DIV 10), concat('option_', seq), elt(1 + seq % 4, 'bool', 'int', 'float', 'str'),
         concat('value ', seq, ' — “quoted”') FROM seq_1_to_80;
INSERT INTO csv2_mime_types (mime_type) VALUES ('cloud-config'), ('ucernvm-config'), ('text/x-shellscript');
INSERT INTO csv2_poller_settings SELECT concat('poller-', seq), seq * 7.5, seq * 10, json_object('retries', seq) FROM seq_1_to_9;
INSERT INTO csv2_service_catalog VALUES
  ('csv2-main', 'mariadb', 'database', '/var/log/mariadb/mariadb.log'), ('csv2-main', 'condor', 'condor,network', NULL);
INSERT INTO csv2_yaml_schema (name, body) VALUES ('cloud', 'type: object\nrequired: [name, "authurl"]\n'), ('group', 'it''s: fine\\n');

INSERT INTO csv2_groups (group_name, htcondor_fqdn, public_visibility)
  SELECT concat('group', seq), concat('condor', seq, '.example.org'), seq % 2 FROM seq_1_to_20;
INSERT INTO csv2_user (username, cert_cn, password, is_superuser, join_date, last_login, default_group)
  SELECT concat('user', seq), concat('CN=User ', seq), unhex(sha2(seq, 512)), seq = 1, '2020-02-29' + INTERVAL seq DAY,
         '2024-01-01' + INTERVAL seq * 997 SECOND, concat('group', 1 + seq % 20) FROM seq_1_to_500;
INSERT INTO csv2_user_groups SELECT username, default_group FROM csv2_user;
INSERT INTO csv2_clouds (group_name, cloud_name, cloud_type, authurl, project, username, password, spot_price, location, ec2_options)
  SELECT concat('group', 1 + seq % 20), concat(' Cloud', seq), elt(1 + seq % 3, 'openstack', 'amazon', 'azure'),
         concat('https://cloud', seq, '.example.org:5000/v3'), 'project', 'robot', 'it''s "s3cret" \\ ☁', rand(seq),
         point(seq, -seq / 3), json_object('zone', seq) FROM seq_1_to_60;
INSERT INTO csv2_cloud_aliases SELECT group_name, cloud_name, concat('alias-', cloud_name) FROM csv2_clouds;
INSERT INTO csv2_cloud_flavor_exclusions SELECT group_name, cloud_name, 'm1.tiny' FROM csv2_clouds;
INSERT INTO csv2_group_metadata (group_name, metadata_name, metadata)
  SELECT group_name, 'default.yaml', concat('#cloud-config\nwrite_files:\n- content: |\n    ', repeat('x509\t', 200)) FROM csv2_groups;
INSERT INTO csv2_cloud_metadata (group_name, cloud_name, metadata_name, metadata)
  SELECT group_name, cloud_name, 'site.yaml', concat('site: ', cloud_name, '\r\n') FROM csv2_clouds;
INSERT INTO csv2_x509_credentials (username, proxy, expires)
  SELECT username, unhex(repeat(sha2(username, 256), 20)), '2030-12-31' FROM csv2_user;
INSERT INTO csv2_keypairs (fingerprint, group_name, cloud_name, private_key)
  SELECT md5(cloud_name), group_name, cloud_name, unhex(sha2(cloud_name, 512)) FROM csv2_clouds;
INSERT INTO csv2_user_preferences SELECT username, '{"theme": "dark", "rows": 50}' FROM csv2_user;

INSERT INTO apel_accounting
  SELECT concat(md5(seq), '-', lpad(seq % 1000, 3, '0')), 1690000000 + (seq * 7919) % 90000000,
         concat('group', 1 + seq % 20), concat('cloud', 1 + seq % 60), concat('csv2-worker-', seq, '.example.org'),
         concat('flavor-', seq % 40), 1 << (seq % 6), seq / 3, seq % 86400, seq * 1.2345,
         unhex(md5(seq + 1)), elt(1 + seq % 3, 'active', 'finished', 'error')
    FROM seq_1_to_1000000000 WHERE seq <= @rows;

INSERT INTO cloud_flavors SELECT group_name, cloud_name, 'f1', 'm1.large', 8192, 4, 80, 1700000000 FROM csv2_clouds;
INSERT INTO cloud_limits (group_name, cloud_name, max_total_cores, cores_used, last_updated)
  SELECT group_name, cloud_name, 400, 17, 1700000000 FROM csv2_clouds;
INSERT INTO condor_jobs
  SELECT concat('condor.example.org#', seq, '.0#1700000000'), concat('group', 1 + seq % 20), 1 + seq % 5, 1 + seq % 8, 4000,
         'VirtualMachine.Arch == "x86_64"', concat('user', seq % 500), '2024-01-01' + INTERVAL seq SECOND,
         if(seq % 50 = 0, 'Error from slot1: it''s gone', NULL)
    FROM seq_1_to_1000000000 WHERE seq <= @rows DIV 4;
INSERT INTO condor_machines SELECT concat('slot1@worker', seq), concat('group', 1 + seq % 20), 'Claimed', 'Busy', 8, seq << 20, 1700000000
    FROM seq_1_to_1000000000 WHERE seq <= @rows DIV 20;
INSERT INTO csv2_vms (vmid, group_name, cloud_name, hostname, status)
  SELECT uuid(), concat('group', 1 + seq % 20), concat('cloud', seq % 60), concat('worker', seq), 'ACTIVE'
    FROM seq_1_to_1000000000 WHERE seq <= @rows DIV 20;
INSERT INTO csv2_system_status VALUES (0, 1.5, 8123.4);
INSERT INTO csv2_sessions VALUES (md5(1), 'user1', 1700000000);
INSERT INTO csv2_new_feature VALUES (1, 'nobody has said where this belongs');
INSERT INTO django_migrations (app) VALUES ('auth'), ('sessions');
DO nextval(csv2_request_ids);
