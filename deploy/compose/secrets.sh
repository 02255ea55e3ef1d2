#!/bin/sh
# Makes what is missing of the system's secrets, and gives each container the files that it needs in a volume of its own,
# readable by its user alone. May be repeated: what is there stays, and a secret that was made anew is handed out again.
set -eu
umask 077
closectl secrets make --directory /secrets

# give CONSUMER USER NAME=FILE...
give() {
    to=/consumers/$1 user=$2; shift 2
    chmod 0755 "$to"
    for one in "$@"; do
        cp "/secrets/${one#*=}" "$to/.new"; chmod 0400 "$to/.new"; chown "$user:$user" "$to/.new"
        mv -f "$to/.new" "$to/${one%%=*}"
    done
}
# The same for a service of ours: everyone's authority, and the password of its role.
service() { name=$1 role=$2; shift 2; give "$name" 10001 ca.pem=ca.pem "postgres-password=postgres/$role" "$@"; }
# All files of a directory, for those who prepare the system.
folder() { mkdir -p "/consumers/setup/$1"; chmod 0755 "/consumers/setup/$1"; for file in /secrets/"$1"/*; do give setup 10001 "$1/${file##*/}=$1/${file##*/}"; done; }

give postgres 999 tls.pem=postgres/tls.pem tls.key=postgres/tls.key admin-password=postgres/closeflow_admin
give kafka 1000 ca.pem=ca.pem keystore.pem=kafka/keystore.pem
give connect 10001 ca.pem=ca.pem keystore.p12=connect/keystore.p12 truststore.p12=connect/truststore.p12 \
    worker.properties=connect/worker.properties debezium.properties=connect/debezium.properties
give broker-simulator 10001 ca.pem=ca.pem tls.pem=broker-simulator/tls.pem tls.key=broker-simulator/tls.key secret-key=broker/secret-key
service close-api closeflow_close_api operator-password=postgres/closeflow_operator \
    tls.pem=close-api/tls.pem tls.key=close-api/tls.key jwks.json=token-key/jwks.json
service order-submitter closeflow_order_submitter kafka-password=kafka/order-submitter broker-secret-key=broker/secret-key
service broker-gateway closeflow_broker_gateway kafka-password=kafka/broker-gateway broker-secret-key=broker/secret-key
service fill-processor closeflow_fill_processor kafka-password=kafka/fill-processor
service reconciler closeflow_reconciler kafka-password=kafka/reconciler broker-secret-key=broker/secret-key \
    tls.pem=reconciler/tls.pem tls.key=reconciler/tls.key
give close-board 10001 ca.pem=ca.pem tls.pem=close-board/tls.pem tls.key=close-board/tls.key kafka-password=kafka/close-board
service closectl closeflow_operator tls.pem=closectl/tls.pem tls.key=closectl/tls.key broker-secret-key=broker/secret-key \
    private_key.pem=token-key/private_key.pem jwks.json=token-key/jwks.json
give prometheus 65534 ca.pem=ca.pem
give setup 10001 ca.pem=ca.pem tls.pem=closectl/tls.pem tls.key=closectl/tls.key
folder postgres
folder kafka
