-- A role for xdb that is no superuser. It is enough for the checks (but for `sequences`), the daemon and `xdb status`. Base backups, dumps and restore
-- tests need more: see README.md.
--
--   psql -v ON_ERROR_STOP=1 -f grants.sql -v password="$(cat /root/xdb_monitor.password)" postgres
--
-- Then set user = "xdb_monitor" and its password in [postgres] of /etc/xdb/xdb.toml.
CREATE ROLE xdb_monitor LOGIN CONNECTION LIMIT 8 PASSWORD :'password';
GRANT pg_monitor TO xdb_monitor;

-- Logins when applications have taken every other connection (reserved_connections), from PostgreSQL 16 on.
SELECT 'GRANT pg_use_reserved_connections TO xdb_monitor'
 WHERE EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pg_use_reserved_connections') \gexec

-- The check `sequences` reads the sequences of each database, which pg_monitor may not: without this it is unknown. In each database,
-- for each schema, and by the role that owns what is made later:
--   GRANT USAGE ON SCHEMA public TO xdb_monitor;
--   GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO xdb_monitor;
--   ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO xdb_monitor;
