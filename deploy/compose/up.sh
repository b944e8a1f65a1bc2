# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT
# `./up --compose`: passwords for compose.yaml, made once, and the stack started. Sourced by ./up, which has say, die, url.

# The address of the default route's interface: what devices on the network reach this machine by.
machine_address() {
	local address
	address=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p') || true
	[ -n "$address" ] || address=$(hostname -I 2>/dev/null | cut -d ' ' -f 1) || true
	say "${address:-127.0.0.1}"
}

random_word() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }

# .env, where it is not there yet: nobody else may read it, and no password is anybody's default.
compose_env() {
	local env=$1
	[ ! -e "$env" ] || return 0
	(
		umask 077
		cat >"$env.new" <<-END
			# Made by ./up --compose; compose.yaml reads it. Keep it: the database knows these passwords.
			OTA_API_KEY=$(random_word)
			POSTGRES_PASSWORD=$(random_word)
			MQTT_PASSWORD=$(random_word)
			GRAFANA_PASSWORD=$(random_word)
			GRAFANA_DB_PASSWORD=$(random_word)
			# What download URLs begin with: devices have to reach it.
			OTA_PUBLIC_URL=http://$(machine_address):$port
			PORT=$port
			MQTT_PORT=$mqtt_port
		END
	)
	mv "$env.new" "$env"
	say "made $env: the API key (OTA_API_KEY) and the passwords are there, and nowhere else"
}

compose() {
	local command waited=0
	compose_env .env
	port=$(sed -n 's/^PORT=//p' .env)
	if docker compose version >/dev/null 2>&1; then
		command=(docker compose)
	elif command -v docker-compose >/dev/null; then
		command=(docker-compose)
	else
		die "there is no docker compose here; install Docker (https://docs.docker.com/engine/install/debian/), then this again"
	fi
	"${command[@]}" up -d --build || die "the stack does not start (see above)"
	until healthy; do
		waited=$((waited + 1))
		[ "$waited" -lt 600 ] || die "the service does not answer at $(url): docker logs paku_ota_service"
		sleep 0.1
	done
	say "OTA service: $(url)   Grafana: http://127.0.0.1:$(sed -n 's/^GRAFANA_PORT=//p' .env | grep . || say 3000) (admin, GRAFANA_PASSWORD of .env)"
}
