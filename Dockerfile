# SPDX-License-Identifier: MIT
# The service as an image: the Debian package, built and installed. `./up --compose` starts it with all that belongs to it.
FROM debian:12-slim AS build
COPY . /src
RUN cd /src && ./package

FROM debian:12-slim
COPY --from=build /src/dist/ /tmp/dist/
RUN apt-get update && \
    apt-get install -y --no-install-recommends /tmp/dist/paku-ota_*.deb && \
    rm -rf /tmp/dist /var/lib/apt/lists/* /var/cache/apt/* /var/lib/paku-ota/api-key.sha256
# Nothing but the data folder is written to: the rest may be read-only.
USER paku-ota
ENV OTA_DATA_DIR=/var/lib/paku-ota
VOLUME /var/lib/paku-ota
EXPOSE 8080 1883
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["paku-ota", "status", "--server", "http://127.0.0.1:8080"]
# SIGTERM lets downloads end: `docker stop --time 60`.
ENTRYPOINT ["/usr/bin/paku-otad"]
