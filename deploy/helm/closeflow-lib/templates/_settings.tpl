{{/* The environment of a service, without secrets: name: value, one a line. What is a secret is the path of a file. */}}
{{- define "closeflow.settings" -}}
{{- $root := .root -}}{{- $p := .spec.prefix -}}{{- $uses := .spec.uses -}}{{- $g := .root.Values.global -}}
{{ $p }}_LOG_FORMAT: json
{{- if .spec.health }}
{{ $p }}_HEALTH_HOST: "0.0.0.0"
{{ $p }}_HEALTH_PORT: "8081"
{{- end }}
{{- if $g.allowPlaintext }}
{{ $p }}_ALLOW_PLAINTEXT: "true"
{{- end }}
{{- with $g.otlpEndpoint }}{{ if $.spec.health }}
{{ $p }}_OTLP_ENDPOINT: {{ include "closeflow.text" (dict "root" $root "text" .) | quote }}
{{ $p }}_OTLP_SAMPLE_RATIO: {{ $g.otlpSampleRatio | quote }}
{{- end }}{{ end }}
{{- if has "postgres" $uses }}
{{ $p }}_POSTGRES_DSN: {{ include "closeflow.dsn" (dict "root" $root "user" .spec.role) | quote }}
{{ $p }}_POSTGRES_PASSWORD_FILE: /etc/closeflow/secrets/postgres-password
{{- end }}
{{- if has "kafka" $uses }}
{{ include "closeflow.kafkaSettings" (dict "root" $root "prefix" $p "username" $root.Chart.Name) }}
{{- end }}
{{- if has "broker" $uses }}
{{ $p }}_BROKER_URL: {{ include "closeflow.brokerUrl" (dict "root" $root "name" "url") | quote }}
{{ $p }}_BROKER_ACCOUNT_ID: {{ required "global.broker.accountId: give the broker's account" $g.broker.accountId | quote }}
{{ $p }}_BROKER_KEY_ID_FILE: /etc/closeflow/secrets/broker-key-id
{{ $p }}_BROKER_SECRET_KEY_FILE: /etc/closeflow/secrets/broker-secret-key
{{ $p }}_RATE_PER_S: {{ divf $root.Values.ratePerSecond (include "closeflow.mostReplicas" $root) | quote }}
{{- if $g.broker.privateAuthority }}
{{ $p }}_BROKER_CA_PATH: /etc/closeflow/ca/ca.pem
{{- end }}
{{- end }}
{{- if has "stream" $uses }}
{{ $p }}_BROKER_STREAM_URL: {{ include "closeflow.brokerUrl" (dict "root" $root "name" "streamUrl") | quote }}
{{- end }}
{{- if has "marketData" $uses }}
{{ $p }}_MARKET_DATA_URL: {{ include "closeflow.brokerUrl" (dict "root" $root "name" "marketDataUrl") | quote }}
{{- end }}
{{- with .spec.settings }}
{{ toYaml . }}
{{- end }}
{{- range $name, $value := $root.Values.settings }}
{{ $p }}_{{ $name }}: {{ include "closeflow.text" (dict "root" $root "text" $value) | quote }}
{{- end }}
{{- end -}}

{{/* A DSN is no secret: its password is in a file. (dict "root" . "user" role) */}}
{{- define "closeflow.dsn" -}}
{{- $at := .root.Values.global.postgres -}}
{{- $host := tpl (required "global.postgres.host: give the name of the database server" $at.host) .root -}}
{{- $parameters := deepCopy ($at.parameters | default dict) -}}
{{- if $at.tls -}}
{{- $_ := set $parameters "sslmode" "verify-full" -}}{{- $_ := set $parameters "sslrootcert" "/etc/closeflow/ca/ca.pem" -}}
{{- end -}}
{{- $pairs := list -}}{{- range $name, $value := $parameters -}}{{- $pairs = append $pairs (printf "%s=%v" $name $value) -}}{{- end -}}
postgresql://{{ .user }}@{{ $host }}:{{ int $at.port }}/{{ $at.database }}{{ if $pairs }}?{{ join "&" $pairs }}{{ end }}
{{- end -}}

{{- define "closeflow.kafkaSettings" -}}
{{- $at := .root.Values.global.kafka -}}
{{ .prefix }}_KAFKA_BOOTSTRAP_SERVERS: {{ tpl (required "global.kafka.bootstrapServers: give host:port of Kafka" $at.bootstrapServers) .root | quote }}
{{ .prefix }}_KAFKA_SECURITY_PROTOCOL: {{ $at.securityProtocol }}
{{- if ne $at.securityProtocol "PLAINTEXT" }}
{{ .prefix }}_KAFKA_CA_PATH: /etc/closeflow/ca/ca.pem
{{- end }}
{{- if eq $at.securityProtocol "SASL_SSL" }}
{{ .prefix }}_KAFKA_USERNAME: {{ .username }}
{{ .prefix }}_KAFKA_PASSWORD_FILE: /etc/closeflow/secrets/kafka-password
{{- else if eq $at.securityProtocol "SSL" }}
{{ .prefix }}_KAFKA_CERTIFICATE_PATH: /etc/closeflow/secrets/kafka-certificate
{{ .prefix }}_KAFKA_KEY_PATH: /etc/closeflow/secrets/kafka-key
{{- end }}
{{- end -}}

{{- define "closeflow.brokerUrl" -}}
{{- $found := index .root.Values.global.broker .name -}}
{{- tpl (required (printf "global.broker.%s: give the broker's address" .name) $found) .root -}}
{{- end -}}

{{/* The keys that a service's Secret has, as a JSON list. */}}
{{- define "closeflow.secretKeys" -}}
{{- $keys := list -}}{{- $uses := .spec.uses -}}{{- $protocol := .root.Values.global.kafka.securityProtocol -}}
{{- if has "postgres" $uses -}}{{- $keys = append $keys "postgres-password" -}}{{- end -}}
{{- if and (has "kafka" $uses) (eq $protocol "SASL_SSL") -}}{{- $keys = append $keys "kafka-password" -}}{{- end -}}
{{- if and (has "kafka" $uses) (eq $protocol "SSL") -}}{{- $keys = concat $keys (list "kafka-certificate" "kafka-key") -}}{{- end -}}
{{- if has "broker" $uses -}}{{- $keys = concat $keys (list "broker-key-id" "broker-secret-key") -}}{{- end -}}
{{- concat $keys (.spec.secretKeys | default list) | toJson -}}
{{- end -}}
