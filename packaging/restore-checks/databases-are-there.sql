-- database: postgres
-- The databases that there must be, whatever else there is.
SELECT count(*) = 0, 'missing: ' || coalesce(string_agg(wanted.name, ', '), 'none')
  FROM (VALUES ('postgres'), ('shop')) AS wanted (name)
 WHERE NOT EXISTS (SELECT FROM pg_database AS d WHERE d.datname = wanted.name);
