# The Connect worker with one plugin, at one version, and the settings of connect/worker.properties. From the root:
#
#   docker build -f deploy/docker/connect.Dockerfile -t closeflow/connect .
ARG CONNECT_IMAGE=quay.io/debezium/connect:3.6.1.Final
FROM ${CONNECT_IMAGE}
ARG DEBEZIUM=3.6.1.Final
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="closeflow connect" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="connect" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 0
# Of the plugins the one for PostgreSQL stays; another version than this code was tried with stops the build.
RUN find /kafka/connect -mindepth 1 -maxdepth 1 ! -name debezium-connector-postgres -exec rm -rf {} + \
 && test -f /kafka/connect/debezium-connector-postgres/debezium-connector-postgres-${DEBEZIUM}.jar \
 && find /kafka/connect /kafka/libs '(' ! -perm -o=r -o -type d ! -perm -o=x ')' -exec chmod a+rX {} + \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY connect/worker.properties connect/secured.properties deploy/docker/connect-log4j2.properties /opt/closeflow/
COPY deploy/docker/connect-start.sh /opt/closeflow/bin/connect
RUN chmod 0755 /opt/closeflow/bin/connect
ENV CONNECT_PLUGIN_PATH=/kafka/connect CONNECT_GROUP_ID=closeflow-connect
# It writes to /tmp alone, so that it runs on a read-only root file system.
USER 10001:10001
WORKDIR /
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=10s --start-period=300s --retries=5 \
    CMD ["curl", "--fail", "--silent", "--insecure", "--max-time", "4", "--output", "/dev/null", "http://127.0.0.1:8084/health"]
ENTRYPOINT ["/opt/closeflow/bin/connect"]
