-- A flow index as schema version 5 made it: as version 4, with its sums by minute and hour.
BEGIN TRANSACTION;
CREATE TABLE counter(
  rule_id INTEGER PRIMARY KEY, now_packets INTEGER NOT NULL, now_bytes INTEGER NOT NULL,
  before_packets INTEGER NOT NULL DEFAULT 0, before_bytes INTEGER NOT NULL DEFAULT 0, grown_ns INTEGER) STRICT;
INSERT INTO counter VALUES(258,10,600,0,0,1795292052000000123);
CREATE TABLE denied_told(
  rule_id INTEGER NOT NULL, src BLOB NOT NULL, dst BLOB NOT NULL, proto INTEGER NOT NULL,
  port_or_icmp INTEGER NOT NULL, packets INTEGER NOT NULL, bytes INTEGER NOT NULL,
  last_packet_ns INTEGER NOT NULL, PRIMARY KEY(src, dst, port_or_icmp, proto, rule_id)) STRICT, WITHOUT ROWID;
INSERT INTO denied_told VALUES(258,X'0af40107',X'0af40109',6,5432,1,60,1795292047000000123);
CREATE TABLE endpoint(
  namespace TEXT NOT NULL, name TEXT NOT NULL, node TEXT NOT NULL, interface TEXT NOT NULL,
  workload TEXT NOT NULL, labels TEXT NOT NULL, addresses TEXT NOT NULL, enforced INTEGER NOT NULL,
  ingress_policies TEXT NOT NULL, egress_policies TEXT NOT NULL) STRICT;
INSERT INTO endpoint VALUES('tenant-01','db-0','node-1','veth1','db','{"app":"db"}','["10.244.1.9","fd00:244::9"]',1,'["security//quarantine","platform/tenant-01/tenant-01-restrict"]','[]');
CREATE TABLE lost(
  cause TEXT NOT NULL, rule_id INTEGER NOT NULL, now_packets INTEGER NOT NULL,
  before_packets INTEGER NOT NULL DEFAULT 0, changed_ns INTEGER, PRIMARY KEY(cause, rule_id)) STRICT, WITHOUT ROWID;
INSERT INTO lost VALUES('nflog-gap',0,4,0,1795292052000000123);
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('catalog_revision','19');
INSERT INTO meta VALUES('catalog_since_ns','1795288447000000123');
INSERT INTO meta VALUES('cluster','bench');
INSERT INTO meta VALUES('eroded_ns','-1');
INSERT INTO meta VALUES('last_sequence','3');
INSERT INTO meta VALUES('longest_span_ns','5000000000');
INSERT INTO meta VALUES('node','node-1');
INSERT INTO meta VALUES('rolled_sequence','3');
CREATE TABLE open_connection(
  handle INTEGER PRIMARY KEY, src BLOB NOT NULL, dst BLOB NOT NULL, proto INTEGER NOT NULL,
  src_port INTEGER NOT NULL, dst_port INTEGER NOT NULL, icmp_type INTEGER NOT NULL, icmp_code INTEGER NOT NULL,
  icmp_id INTEGER NOT NULL, conntrack_id INTEGER NOT NULL, started_ns INTEGER NOT NULL, told_ns INTEGER NOT NULL,
  egress_rule INTEGER NOT NULL, egress_packets_out INTEGER NOT NULL, egress_bytes_out INTEGER NOT NULL,
  egress_packets_in INTEGER NOT NULL, egress_bytes_in INTEGER NOT NULL,
  ingress_rule INTEGER NOT NULL, ingress_packets_out INTEGER NOT NULL, ingress_bytes_out INTEGER NOT NULL,
  ingress_packets_in INTEGER NOT NULL, ingress_bytes_in INTEGER NOT NULL) STRICT;
INSERT INTO open_connection VALUES(1,X'0af40107',X'0af40109',6,41122,5432,0,0,0,77,1795292047000000123,1795292047000000123,0,0,0,0,0,260,5,300,4,240);
CREATE TABLE peer(
  id INTEGER PRIMARY KEY AUTOINCREMENT, ip TEXT NOT NULL, kind INTEGER NOT NULL, namespace TEXT NOT NULL,
  name TEXT NOT NULL, workload TEXT NOT NULL, labels TEXT NOT NULL, uses INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO peer VALUES(1,'10.244.1.7',0,'tenant-02','web-7c9f','web','{"app":"web","tier":"front"}',1);
INSERT INTO peer VALUES(2,'10.244.1.9',0,'tenant-01','db-0','db','{"app":"db"}',3);
INSERT INTO peer VALUES(3,'10.244.1.8',0,'tenant-01','api-5d4c','api','{"app":"api","role":"api"}',2);
CREATE TABLE policy(
  position INTEGER NOT NULL, display TEXT NOT NULL, tier TEXT NOT NULL, kind TEXT NOT NULL,
  short_kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, policy_order REAL,
  revision INTEGER NOT NULL, endpoints_selected INTEGER NOT NULL, staged INTEGER NOT NULL,
  selector TEXT NOT NULL, source TEXT NOT NULL) STRICT;
INSERT INTO policy VALUES(0,'security//quarantine','security','GlobalNetworkPolicy','GNP','','quarantine',10.0,3,2,0,'all()','policies/30-platform.yaml:1');
INSERT INTO policy VALUES(1,'platform/tenant-01/isolate','platform','NetworkPolicy','NP','tenant-01','isolate',5.0,3,2,0,'all()','policies/30-platform.yaml:1');
INSERT INTO policy VALUES(2,'platform/tenant-01/tenant-01-restrict','platform','NetworkPolicy','NP','tenant-01','tenant-01-restrict',20.0,3,2,0,'all()','policies/30-platform.yaml:1');
INSERT INTO policy VALUES(3,'platform/tenant-01/tighten-db','platform','StagedNetworkPolicy','SNP','tenant-01','tighten-db',NULL,3,2,1,'all()','policies/30-platform.yaml:1');
CREATE TABLE recorded(
  rule_id INTEGER PRIMARY KEY, packets INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
  connections INTEGER NOT NULL DEFAULT 0, denied_packets INTEGER NOT NULL DEFAULT 0,
  suppressed INTEGER NOT NULL DEFAULT 0, last_ns INTEGER) STRICT;
INSERT INTO recorded VALUES(258,1,60,0,1,0,1795292047000000123);
INSERT INTO recorded VALUES(260,1,0,1,0,0,1795292052000000123);
CREATE TABLE rule(
  rule_id INTEGER PRIMARY KEY, policy TEXT NOT NULL, policy_kind TEXT NOT NULL, tier TEXT NOT NULL,
  policy_namespace TEXT NOT NULL, policy_name TEXT NOT NULL, direction INTEGER NOT NULL, rule_index INTEGER,
  action TEXT NOT NULL, reason TEXT NOT NULL, revision INTEGER NOT NULL, text TEXT NOT NULL,
  source TEXT NOT NULL, also_policies TEXT NOT NULL, live INTEGER NOT NULL, gone_ns INTEGER) STRICT;
INSERT INTO rule VALUES(1,'','','','','',0,NULL,'Allow','no-policy',0,'no policy selects the endpoint','','[]',1,NULL);
INSERT INTO rule VALUES(256,'security//quarantine','GlobalNetworkPolicy','security','','quarantine',0,0,'Pass','policy',3,'Pass rule','policies/30-platform.yaml:18:5','[]',1,NULL);
INSERT INTO rule VALUES(257,'platform/tenant-01/tenant-01-restrict','NetworkPolicy','platform','tenant-01','tenant-01-restrict',0,0,'Log','policy',3,'Log rule','policies/30-platform.yaml:18:5','[]',1,NULL);
INSERT INTO rule VALUES(258,'platform/tenant-01/tenant-01-restrict','NetworkPolicy','platform','tenant-01','tenant-01-restrict',0,2,'Deny','policy',3,'Deny rule','policies/30-platform.yaml:18:5','[]',1,NULL);
INSERT INTO rule VALUES(259,'platform/tenant-01/tenant-01-restrict','NetworkPolicy','platform','tenant-01','tenant-01-restrict',0,-1,'Deny','end-of-tier',3,'Deny rule','policies/30-platform.yaml:18:5','["platform/tenant-01/isolate","platform/tenant-01/tenant-01-restrict"]',1,NULL);
INSERT INTO rule VALUES(260,'platform/tenant-01/tenant-01-restrict','NetworkPolicy','platform','tenant-01','tenant-01-restrict',0,1,'Allow','policy',3,'Allow rule','policies/30-platform.yaml:18:5','[]',1,NULL);
CREATE TABLE rule_also(rule_id INTEGER NOT NULL, policy TEXT NOT NULL, PRIMARY KEY(policy, rule_id))
  STRICT, WITHOUT ROWID;
INSERT INTO rule_also VALUES(259,'platform/tenant-01/isolate');
INSERT INTO rule_also VALUES(259,'platform/tenant-01/tenant-01-restrict');
CREATE TABLE rule_revision(
  id INTEGER PRIMARY KEY AUTOINCREMENT, rule_id INTEGER NOT NULL, tier TEXT NOT NULL, policy TEXT NOT NULL,
  policy_kind TEXT NOT NULL, policy_namespace TEXT NOT NULL, policy_name TEXT NOT NULL, rule_index INTEGER,
  policy_revision INTEGER NOT NULL) STRICT;
INSERT INTO rule_revision VALUES(1,258,'platform','platform/tenant-01/tenant-01-restrict','NetworkPolicy','tenant-01','tenant-01-restrict',2,3);
INSERT INTO rule_revision VALUES(2,260,'platform','platform/tenant-01/tenant-01-restrict','NetworkPolicy','tenant-01','tenant-01-restrict',1,3);
CREATE TABLE staged_recorded(
  policy TEXT PRIMARY KEY, denied_packets INTEGER NOT NULL DEFAULT 0, last_ns INTEGER) STRICT, WITHOUT ROWID;
INSERT INTO staged_recorded VALUES('platform/tenant-01/tighten-db',1,1795292047000000123);
CREATE TABLE text(id INTEGER PRIMARY KEY AUTOINCREMENT, hash INTEGER NOT NULL, value TEXT NOT NULL, uses INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO text VALUES(1,0,'[]',7);
INSERT INTO text VALUES(2,-1129903588649868883,'[{"policy":"platform/tenant-01/tenant-01-restrict","rule_index":0,"rule_id":257,"label":null,"suppressed":0}]',1);
INSERT INTO text VALUES(3,2571731791581006601,'[{"policy":"platform/tenant-01/tighten-db","action":"deny","rule_index":0}]',1);
CREATE TABLE tier(position INTEGER NOT NULL, name TEXT NOT NULL, tier_order REAL, default_action TEXT NOT NULL) STRICT;
INSERT INTO tier VALUES(0,'security',100.0,'Pass');
INSERT INTO tier VALUES(1,'platform',200.50000000000000001,'Deny');
INSERT INTO tier VALUES(2,'default',NULL,'Deny');
CREATE TABLE policy_text(id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, value TEXT NOT NULL) STRICT;
INSERT INTO policy_text VALUES(1,-1739921421109996161,replace('# nothing\n','\n',char(10)));
CREATE TABLE policy_set(
  id INTEGER PRIMARY KEY, since_ns INTEGER NOT NULL, revision INTEGER NOT NULL, ready INTEGER NOT NULL,
  host_addresses TEXT NOT NULL, files TEXT NOT NULL) STRICT;
INSERT INTO policy_set VALUES(1,1795292047000000123,19,1,'["192.0.2.1"]','[["policies/30-platform.yaml",1]]');
CREATE TABLE object_history(
  id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL, since_ns INTEGER NOT NULL, until_ns INTEGER,
  value TEXT NOT NULL) STRICT;
CREATE TABLE rule_key(
  hash INTEGER PRIMARY KEY, rule_id INTEGER NOT NULL, revision INTEGER NOT NULL) STRICT;
INSERT INTO rule_key VALUES(42,258,3);
CREATE TABLE flow(
  seq INTEGER PRIMARY KEY, id ANY NOT NULL, end_ns INTEGER NOT NULL, span_ns INTEGER NOT NULL,
  reporter INTEGER NOT NULL, direction INTEGER NOT NULL, action INTEGER NOT NULL, reason INTEGER NOT NULL,
  rule INTEGER NOT NULL, src INTEGER NOT NULL, dst INTEGER NOT NULL, proto INTEGER NOT NULL,
  src_port INTEGER, dst_port INTEGER, icmp_type INTEGER, icmp_code INTEGER,
  logged_by INTEGER NOT NULL, trace INTEGER NOT NULL, staged INTEGER NOT NULL, dst_service TEXT,
  connections INTEGER, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER, packets_in INTEGER, bytes_out INTEGER, bytes_in INTEGER,
  tcp_flags TEXT, ct_state TEXT,
  end_reason INTEGER, dst_nat_ip TEXT, dst_nat_port INTEGER, src_nat_ip TEXT, src_nat_port INTEGER,
  start_ns INTEGER GENERATED ALWAYS AS (end_ns - span_ns) VIRTUAL) STRICT;
INSERT INTO flow VALUES(1,X'018fabcdef0171238456000000000001',1795292047000000123,0,1,0,1,0,1,1,2,6,41122,5432,NULL,NULL,2,1,3,NULL,NULL,1,1,0,60,0,'s','new',NULL,NULL,NULL,NULL,NULL);
INSERT INTO flow VALUES(2,X'018fabcdef0171238456000000000002',1795292047000000123,0,1,0,0,0,2,3,2,6,41122,5432,NULL,NULL,1,1,1,'tenant-01/db',1,1,NULL,NULL,NULL,NULL,'s','new',NULL,NULL,NULL,NULL,NULL);
INSERT INTO flow VALUES(3,X'018fabcdef0171238456000000000003',1795292052000000123,5000000000,1,0,0,0,2,3,2,6,41122,5432,NULL,NULL,1,1,1,'tenant-01/db',0,0,5,4,300,5000,'s','new',1,'10.96.0.1',80,NULL,NULL);
CREATE TABLE activity_minute(
  action INTEGER NOT NULL, bucket INTEGER NOT NULL, rule INTEGER NOT NULL, reporter INTEGER NOT NULL,
  records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY(action, bucket, rule, reporter)) STRICT, WITHOUT ROWID;
INSERT INTO activity_minute VALUES(0,29921534,2,1,2,1,1,5,4,300,5000,1795292047000000123,1795292052000000123);
INSERT INTO activity_minute VALUES(1,29921534,1,1,1,0,1,1,0,60,0,1795292047000000123,1795292047000000123);
CREATE TABLE activity_hour(
  action INTEGER NOT NULL, bucket INTEGER NOT NULL, rule INTEGER NOT NULL, reporter INTEGER NOT NULL,
  records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY(action, bucket, rule, reporter)) STRICT, WITHOUT ROWID;
INSERT INTO activity_hour VALUES(0,498692,2,1,2,1,1,5,4,300,5000,1795292047000000123,1795292052000000123);
INSERT INTO activity_hour VALUES(1,498692,1,1,1,0,1,1,0,60,0,1795292047000000123,1795292047000000123);
CREATE TABLE source_minute(
  action INTEGER NOT NULL, bucket INTEGER NOT NULL, peer INTEGER NOT NULL, rule INTEGER NOT NULL, reporter INTEGER NOT NULL,
  records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY(action, bucket, peer, rule, reporter)) STRICT, WITHOUT ROWID;
INSERT INTO source_minute VALUES(0,29921534,3,2,1,2,1,1,5,4,300,5000,1795292047000000123,1795292052000000123);
INSERT INTO source_minute VALUES(1,29921534,1,1,1,1,0,1,1,0,60,0,1795292047000000123,1795292047000000123);
CREATE TABLE source_hour(
  action INTEGER NOT NULL, bucket INTEGER NOT NULL, peer INTEGER NOT NULL, rule INTEGER NOT NULL, reporter INTEGER NOT NULL,
  records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY(action, bucket, peer, rule, reporter)) STRICT, WITHOUT ROWID;
INSERT INTO source_hour VALUES(0,498692,3,2,1,2,1,1,5,4,300,5000,1795292047000000123,1795292052000000123);
INSERT INTO source_hour VALUES(1,498692,1,1,1,1,0,1,1,0,60,0,1795292047000000123,1795292047000000123);
CREATE TABLE target_minute(
  action INTEGER NOT NULL, bucket INTEGER NOT NULL, peer INTEGER NOT NULL, rule INTEGER NOT NULL, reporter INTEGER NOT NULL,
  records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY(action, bucket, peer, rule, reporter)) STRICT, WITHOUT ROWID;
INSERT INTO target_minute VALUES(0,29921534,2,2,1,2,1,1,5,4,300,5000,1795292047000000123,1795292052000000123);
INSERT INTO target_minute VALUES(1,29921534,2,1,1,1,0,1,1,0,60,0,1795292047000000123,1795292047000000123);
CREATE TABLE target_hour(
  action INTEGER NOT NULL, bucket INTEGER NOT NULL, peer INTEGER NOT NULL, rule INTEGER NOT NULL, reporter INTEGER NOT NULL,
  records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY(action, bucket, peer, rule, reporter)) STRICT, WITHOUT ROWID;
INSERT INTO target_hour VALUES(0,498692,2,2,1,2,1,1,5,4,300,5000,1795292047000000123,1795292052000000123);
INSERT INTO target_hour VALUES(1,498692,2,1,1,1,0,1,1,0,60,0,1795292047000000123,1795292047000000123);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('text',3);
INSERT INTO sqlite_sequence VALUES('rule_revision',2);
INSERT INTO sqlite_sequence VALUES('peer',3);
CREATE INDEX text_hash ON text(hash);
CREATE INDEX peer_ip ON peer(ip);
CREATE INDEX rule_revision_rule ON rule_revision(rule_id);
CREATE INDEX rule_revision_policy ON rule_revision(policy);
CREATE INDEX policy_text_hash ON policy_text(hash);
CREATE INDEX object_history_until ON object_history(until_ns);
CREATE INDEX flow_end ON flow(end_ns);
CREATE INDEX flow_denied_rule ON flow(
  rule, end_ns, src, dst, reporter, direction, proto, dst_port, icmp_type, icmp_code, verdict_packets, bytes_out,
  span_ns, action) WHERE action = 1;
CREATE INDEX flow_denied_end ON flow(end_ns) WHERE action = 1;
CREATE INDEX peer_unused ON peer(id) WHERE uses = 0;
CREATE INDEX text_unused ON text(id) WHERE uses = 0;
CREATE VIEW policy_activity AS
WITH decided AS (
  SELECT n.policy AS policy, sum(s.connections) AS allowed, sum(s.denied_packets) AS denied, max(s.last_ns) AS last_ns
  FROM recorded AS s JOIN (SELECT DISTINCT rule_id, policy FROM rule_revision WHERE policy <> '') AS n
    ON n.rule_id = s.rule_id GROUP BY n.policy),
counted AS (
  SELECT rule.policy AS policy,
    sum(CASE action WHEN 'Pass' THEN now_packets + before_packets ELSE 0 END) AS passed,
    sum(CASE action WHEN 'Log' THEN now_packets + before_packets ELSE 0 END) AS logged, max(grown_ns) AS last_ns
  FROM counter JOIN rule ON rule.rule_id = counter.rule_id
  WHERE action IN ('Pass', 'Log') AND rule_index >= 0 GROUP BY rule.policy),
summed AS (
  SELECT p.*, coalesce(d.allowed, 0) AS allowed, coalesce(d.denied, 0) AS denied,
    coalesce(c.passed, 0) AS passed, coalesce(c.logged, 0) AS logged,
    coalesce(s.denied_packets, 0) AS staged_denied,
    nullif(max(coalesce(d.last_ns, 0), coalesce(c.last_ns, 0), coalesce(s.last_ns, 0)), 0) AS last_hit_ns
  FROM policy AS p LEFT JOIN decided AS d ON d.policy = p.display LEFT JOIN counted AS c ON c.policy = p.display
    LEFT JOIN staged_recorded AS s ON s.policy = p.display)
SELECT position, nullif(tier, '') AS tier, (SELECT tier_order FROM tier WHERE tier.name = summed.tier) AS tier_order,
  display AS policy, kind AS policy_kind, short_kind, nullif(namespace, '') AS policy_namespace, name AS policy_name,
  policy_order, revision AS policy_revision, staged, selector, source, endpoints_selected, allowed, denied, passed,
  logged, staged_denied, last_hit_ns, strftime('%Y-%m-%dT%H:%M:%S', last_hit_ns / 1000000000, 'unixepoch') || printf('.%09dZ', last_hit_ns % 1000000000) AS last_hit_time
FROM summed ORDER BY position;
CREATE VIEW rules AS SELECT
  rule.rule_id AS rule_id, printf('%x', rule.rule_id) AS rule_hex, nullif(tier, '') AS tier,
  nullif(policy, '') AS policy, nullif(policy_kind, '') AS policy_kind,
  nullif(policy_namespace, '') AS policy_namespace, nullif(policy_name, '') AS policy_name, also_policies,
  CASE direction WHEN 0 THEN 'ingress' ELSE 'egress' END AS direction, rule_index, action, reason,
  nullif(revision, 0) AS policy_revision, text, nullif(source, '') AS source, live,
  coalesce(now_packets + before_packets, 0) AS kernel_packets, coalesce(now_bytes + before_bytes, 0) AS kernel_bytes,
  coalesce(recorded.packets, 0) AS recorded_packets,
  (SELECT coalesce(sum(now_packets + before_packets), 0) FROM lost WHERE lost.rule_id = rule.rule_id) AS unattributed,
  coalesce(recorded.suppressed, 0) AS suppressed
FROM rule LEFT JOIN counter ON counter.rule_id = rule.rule_id LEFT JOIN recorded ON recorded.rule_id = rule.rule_id;
CREATE VIEW endpoints AS SELECT
  nullif(namespace, '') AS namespace, name, nullif(node, '') AS node, nullif(interface, '') AS interface,
  nullif(workload, '') AS workload, labels, addresses, enforced, ingress_policies, egress_policies FROM endpoint;
CREATE VIEW loss AS SELECT
  (SELECT nullif(value, '') FROM meta WHERE key = 'node') AS node, strftime('%Y-%m-%dT%H:%M:%S', changed_ns / 1000000000, 'unixepoch') || printf('.%09dZ', changed_ns % 1000000000) AS time,
  cause, nullif(lost.rule_id, 0) AS rule_id, nullif(rule.policy, '') AS policy, rule.rule_index AS rule_index,
  now_packets + before_packets AS packets, changed_ns, strftime('%Y-%m-%dT%H:%M:%S', changed_ns / 1000000000, 'unixepoch') || printf('.%09dZ', changed_ns % 1000000000) AS changed_time
FROM lost LEFT JOIN rule ON rule.rule_id = lost.rule_id;
CREATE VIEW flows AS SELECT
  CASE typeof(f.id) WHEN 'blob' THEN lower(substr(hex(f.id), 1, 8) || '-' || substr(hex(f.id), 9, 4) || '-'
    || substr(hex(f.id), 13, 4) || '-' || substr(hex(f.id), 17, 4) || '-' || substr(hex(f.id), 21))
    ELSE f.id END AS id,
  strftime('%Y-%m-%dT%H:%M:%S', f.start_ns / 1000000000, 'unixepoch') || printf('.%09dZ', f.start_ns % 1000000000) AS start_time, strftime('%Y-%m-%dT%H:%M:%S', f.end_ns / 1000000000, 'unixepoch') || printf('.%09dZ', f.end_ns % 1000000000) AS end_time,
  f.start_ns AS start_ns, f.end_ns AS end_ns,
  (SELECT nullif(value, '') FROM meta WHERE key = 'cluster') AS cluster,
  (SELECT nullif(value, '') FROM meta WHERE key = 'node') AS node,
  CASE f.reporter WHEN 0 THEN 'src' ELSE 'dst' END AS reporter,
  CASE f.direction WHEN 0 THEN 'ingress' ELSE 'egress' END AS direction,
  CASE f.action WHEN 0 THEN 'allow' ELSE 'deny' END AS action,
  CASE f.reason WHEN 0 THEN 'policy' WHEN 1 THEN 'end-of-tier' WHEN 2 THEN 'no-policy' WHEN 3 THEN 'profile' WHEN 4 THEN 'host' WHEN 5 THEN 'self' WHEN 6 THEN 'failsafe' WHEN 7 THEN 'mid-stream' WHEN 8 THEN 'cut' WHEN 9 THEN 'invalid' WHEN 10 THEN 'spoofed' WHEN 11 THEN 'vlan' WHEN 12 THEN 'ethertype' WHEN 13 THEN 'fragment' WHEN 14 THEN 'no-verdict' WHEN 15 THEN 'not-ready' WHEN 16 THEN 'preexisting' WHEN 17 THEN 'audit' WHEN 18 THEN 'service-backends-differ' WHEN 19 THEN 'source-rewritten' WHEN 20 THEN 'dropped-later' WHEN 21 THEN 'other' END AS reason,
  nullif(r.tier, '') AS tier, nullif(r.policy, '') AS policy, nullif(r.policy_kind, '') AS policy_kind,
  nullif(r.policy_namespace, '') AS policy_namespace, nullif(r.policy_name, '') AS policy_name,
  r.rule_index AS rule_index, nullif(r.rule_id, 0) AS rule_id, nullif(r.policy_revision, 0) AS policy_revision,
  (SELECT value FROM text WHERE text.id = f.logged_by) AS logged_by,
  (SELECT value FROM text WHERE text.id = f.trace) AS trace,
  (SELECT value FROM text WHERE text.id = f.staged) AS staged,
  CASE f.proto WHEN 1 THEN 'icmp' WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 58 THEN 'icmpv6' WHEN 132 THEN 'sctp' WHEN 136 THEN 'udplite' ELSE CAST(f.proto AS TEXT) END AS proto, src_peer.ip AS src_ip, f.src_port AS src_port, CASE src_peer.kind WHEN 0 THEN 'pod' WHEN 1 THEN 'node' WHEN 2 THEN 'networkset' WHEN 3 THEN 'private' ELSE 'public' END AS src_kind, nullif(src_peer.namespace, '') AS src_namespace, nullif(src_peer.name, '') AS src_pod, nullif(src_peer.workload, '') AS src_workload, src_peer.labels AS src_labels, dst_peer.ip AS dst_ip, f.dst_port AS dst_port, CASE dst_peer.kind WHEN 0 THEN 'pod' WHEN 1 THEN 'node' WHEN 2 THEN 'networkset' WHEN 3 THEN 'private' ELSE 'public' END AS dst_kind, nullif(dst_peer.namespace, '') AS dst_namespace, nullif(dst_peer.name, '') AS dst_pod, nullif(dst_peer.workload, '') AS dst_workload, dst_peer.labels AS dst_labels,
  f.dst_service AS dst_service, f.icmp_type AS icmp_type, f.icmp_code AS icmp_code,
  f.connections AS connections, f.verdict_packets AS verdict_packets,
  f.packets_out AS packets_out, f.packets_in AS packets_in, f.bytes_out AS bytes_out, f.bytes_in AS bytes_in,
  f.tcp_flags AS tcp_flags, f.ct_state AS ct_state, CASE f.end_reason WHEN 1 THEN 'finished' WHEN 2 THEN 'reset' WHEN 3 THEN 'timed-out' WHEN 4 THEN 'unanswered' END AS end_reason, f.dst_nat_ip AS dst_nat_ip, f.dst_nat_port AS dst_nat_port, f.src_nat_ip AS src_nat_ip, f.src_nat_port AS src_nat_port, f.seq AS sequence
FROM flow AS f JOIN rule_revision AS r ON r.id = f.rule JOIN peer AS src_peer ON src_peer.id = f.src
  JOIN peer AS dst_peer ON dst_peer.id = f.dst;
CREATE VIEW denied_flows AS SELECT
  CASE typeof(f.id) WHEN 'blob' THEN lower(substr(hex(f.id), 1, 8) || '-' || substr(hex(f.id), 9, 4) || '-'
    || substr(hex(f.id), 13, 4) || '-' || substr(hex(f.id), 17, 4) || '-' || substr(hex(f.id), 21))
    ELSE f.id END AS id,
  strftime('%Y-%m-%dT%H:%M:%S', f.start_ns / 1000000000, 'unixepoch') || printf('.%09dZ', f.start_ns % 1000000000) AS start_time, strftime('%Y-%m-%dT%H:%M:%S', f.end_ns / 1000000000, 'unixepoch') || printf('.%09dZ', f.end_ns % 1000000000) AS end_time,
  f.start_ns AS start_ns, f.end_ns AS end_ns,
  (SELECT nullif(value, '') FROM meta WHERE key = 'cluster') AS cluster,
  (SELECT nullif(value, '') FROM meta WHERE key = 'node') AS node,
  CASE f.reporter WHEN 0 THEN 'src' ELSE 'dst' END AS reporter,
  CASE f.direction WHEN 0 THEN 'ingress' ELSE 'egress' END AS direction,
  CASE f.action WHEN 0 THEN 'allow' ELSE 'deny' END AS action,
  CASE f.reason WHEN 0 THEN 'policy' WHEN 1 THEN 'end-of-tier' WHEN 2 THEN 'no-policy' WHEN 3 THEN 'profile' WHEN 4 THEN 'host' WHEN 5 THEN 'self' WHEN 6 THEN 'failsafe' WHEN 7 THEN 'mid-stream' WHEN 8 THEN 'cut' WHEN 9 THEN 'invalid' WHEN 10 THEN 'spoofed' WHEN 11 THEN 'vlan' WHEN 12 THEN 'ethertype' WHEN 13 THEN 'fragment' WHEN 14 THEN 'no-verdict' WHEN 15 THEN 'not-ready' WHEN 16 THEN 'preexisting' WHEN 17 THEN 'audit' WHEN 18 THEN 'service-backends-differ' WHEN 19 THEN 'source-rewritten' WHEN 20 THEN 'dropped-later' WHEN 21 THEN 'other' END AS reason,
  nullif(r.tier, '') AS tier, nullif(r.policy, '') AS policy, nullif(r.policy_kind, '') AS policy_kind,
  nullif(r.policy_namespace, '') AS policy_namespace, nullif(r.policy_name, '') AS policy_name,
  r.rule_index AS rule_index, nullif(r.rule_id, 0) AS rule_id, nullif(r.policy_revision, 0) AS policy_revision,
  (SELECT value FROM text WHERE text.id = f.logged_by) AS logged_by,
  (SELECT value FROM text WHERE text.id = f.trace) AS trace,
  (SELECT value FROM text WHERE text.id = f.staged) AS staged,
  CASE f.proto WHEN 1 THEN 'icmp' WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 58 THEN 'icmpv6' WHEN 132 THEN 'sctp' WHEN 136 THEN 'udplite' ELSE CAST(f.proto AS TEXT) END AS proto, src_peer.ip AS src_ip, f.src_port AS src_port, CASE src_peer.kind WHEN 0 THEN 'pod' WHEN 1 THEN 'node' WHEN 2 THEN 'networkset' WHEN 3 THEN 'private' ELSE 'public' END AS src_kind, nullif(src_peer.namespace, '') AS src_namespace, nullif(src_peer.name, '') AS src_pod, nullif(src_peer.workload, '') AS src_workload, src_peer.labels AS src_labels, dst_peer.ip AS dst_ip, f.dst_port AS dst_port, CASE dst_peer.kind WHEN 0 THEN 'pod' WHEN 1 THEN 'node' WHEN 2 THEN 'networkset' WHEN 3 THEN 'private' ELSE 'public' END AS dst_kind, nullif(dst_peer.namespace, '') AS dst_namespace, nullif(dst_peer.name, '') AS dst_pod, nullif(dst_peer.workload, '') AS dst_workload, dst_peer.labels AS dst_labels,
  f.dst_service AS dst_service, f.icmp_type AS icmp_type, f.icmp_code AS icmp_code,
  f.connections AS connections, f.verdict_packets AS verdict_packets,
  f.packets_out AS packets_out, f.packets_in AS packets_in, f.bytes_out AS bytes_out, f.bytes_in AS bytes_in,
  f.tcp_flags AS tcp_flags, f.ct_state AS ct_state, CASE f.end_reason WHEN 1 THEN 'finished' WHEN 2 THEN 'reset' WHEN 3 THEN 'timed-out' WHEN 4 THEN 'unanswered' END AS end_reason, f.dst_nat_ip AS dst_nat_ip, f.dst_nat_port AS dst_nat_port, f.src_nat_ip AS src_nat_ip, f.src_nat_port AS src_nat_port, f.seq AS sequence
FROM flow AS f JOIN rule_revision AS r ON r.id = f.rule JOIN peer AS src_peer ON src_peer.id = f.src
  JOIN peer AS dst_peer ON dst_peer.id = f.dst WHERE f.action = 1;
PRAGMA application_id = 1416392551;
PRAGMA user_version = 5;
COMMIT;
