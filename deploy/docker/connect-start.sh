#!/bin/bash
# Starts the worker with connect/worker.properties, with connect/secured.properties where /run/closeflow has the worker's
# secrets, and over both the environment: CONNECT_BOOTSTRAP_SERVERS is bootstrap.servers. A secret belongs into a file,
# and into the environment a reference to it: ${file:/path:key}.
set -euo pipefail
umask 077
settings=/tmp/connect-worker.properties
{
    cat /opt/closeflow/worker.properties
    echo 'listeners=http://0.0.0.0:8083,http://127.0.0.1:8084'
    if [ -e /run/closeflow/worker.properties ]; then cat /opt/closeflow/secured.properties; fi
    while IFS='=' read -r -d '' name value; do
        case $name in
            CONNECT_*) name=${name#CONNECT_}; name=${name,,}; printf '%s=%s\n' "${name//_/.}" "$value" ;;
        esac
    done < /proc/self/environ
} > "$settings"
read -r -a heap <<< "${KAFKA_HEAP_OPTS:--Xms128m -Xmx512m}"
exec java "${heap[@]}" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError \
    -Dlog4j2.configurationFile=/opt/closeflow/connect-log4j2.properties \
    -cp '/kafka/libs/*' org.apache.kafka.connect.cli.ConnectDistributed "$settings"
