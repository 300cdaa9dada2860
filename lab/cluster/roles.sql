-- The roles of the cluster, and the application's table. Passwords come from the environment: they stand in no command line and no log.
\getenv postgres LAB_POSTGRES_PASSWORD
\getenv replication LAB_REPLICATION_PASSWORD
\getenv pgbouncer LAB_PGBOUNCER_PASSWORD
\getenv monitor LAB_MONITOR_PASSWORD
\getenv app LAB_APP_PASSWORD

ALTER ROLE postgres PASSWORD :'postgres';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication';

CREATE ROLE xdb_monitor LOGIN CONNECTION LIMIT 5 PASSWORD :'monitor';
GRANT pg_monitor, pg_use_reserved_connections TO xdb_monitor;

CREATE ROLE app LOGIN PASSWORD :'app';
CREATE DATABASE app OWNER app;

-- PgBouncer looks passwords up: on the replica too, as the function is replicated.
CREATE ROLE pgbouncer_auth LOGIN CONNECTION LIMIT 10 PASSWORD :'pgbouncer';
CREATE SCHEMA pgbouncer AUTHORIZATION postgres;
CREATE FUNCTION pgbouncer.secret(name text) RETURNS TABLE (usename name, passwd text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS $$ SELECT rolname, rolpassword FROM pg_authid WHERE rolname = name AND rolcanlogin $$;
REVOKE ALL ON FUNCTION pgbouncer.secret(text) FROM public;
GRANT USAGE ON SCHEMA pgbouncer TO pgbouncer_auth;
GRANT EXECUTE ON FUNCTION pgbouncer.secret(text) TO pgbouncer_auth;

SELECT pg_create_physical_replication_slot('db2');

\connect app
SET ROLE app;
CREATE TABLE public.ticks (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());
