#!/bin/sh
# SPDX-License-Identifier: MIT
# Once, when the database is made: Grafana reads with an account of its own, which can do nothing else.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$GRAFANA_DB_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE grafana LOGIN PASSWORD :'password' CONNECTION LIMIT 20;
GRANT pg_read_all_data TO grafana;
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '30s';
SQL
