{{/* What other operators of the cluster act on: each behind its flag. */}}
{{- define "closeflow.externalSecret" -}}
{{- $root := .root -}}{{- $from := .root.Values.secret.externalSecret -}}
{{- if $from.enabled }}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
spec:
  refreshInterval: {{ $from.refreshInterval }}
  secretStoreRef:
    kind: {{ $from.store.kind }}
    name: {{ required "secret.externalSecret.store.name: give the name of the store" $from.store.name }}
  target:
    name: {{ include "closeflow.secretName" $root }}
    creationPolicy: Owner
  data:
    {{- range include "closeflow.secretKeys" . | fromJsonArray }}
    - secretKey: {{ . }}
      remoteRef:
        key: {{ tpl ($from.remoteKey | default (printf "closeflow/%s" $root.Chart.Name)) $root }}
        property: {{ . }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "closeflow.monitoring" -}}
{{- $root := .root -}}{{- $monitoring := .root.Values.global.monitoring -}}
{{- if and $monitoring.serviceMonitor .spec.health }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
    {{- with $monitoring.labels }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  selector:
    matchLabels:
      {{- include "closeflow.selector" $root | nindent 6 }}
  endpoints:
    - port: health
      path: /metrics
      interval: {{ $monitoring.interval }}
{{- end }}
{{- if and $monitoring.prometheusRule .spec.health }}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
    {{- with $monitoring.labels }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  groups:
    - name: {{ $root.Chart.Name }}
      rules:
        - alert: CloseflowServiceDown
          expr: absent(up{namespace="{{ $root.Release.Namespace }}", service="{{ include "closeflow.fullname" $root }}"} == 1)
          for: 2m
          labels: {severity: critical}
          annotations:
            summary: No {{ $root.Chart.Name }} answers
        {{- with .spec.alerts }}{{ toYaml . | nindent 8 }}{{ end }}
{{- end }}
{{- end -}}

{{/* For consumers alone: one pod per partition at most, because a further one would have nothing to read. */}}
{{- define "closeflow.kedaScaler" -}}
{{- $root := .root -}}{{- $keda := .root.Values.keda -}}{{- $kafka := .root.Values.global.kafka -}}
{{- if $keda.enabled }}
{{- if gt (int $keda.maxReplicas) (int $kafka.partitions) }}
{{- fail (printf "keda.maxReplicas: %d is more than the %d partitions of %s; a further pod would have nothing to read" (int $keda.maxReplicas) (int $kafka.partitions) .topic) }}
{{- end }}
{{- $secret := include "closeflow.secretName" $root }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ include "closeflow.fullname" $root }}
  minReplicaCount: {{ $keda.minReplicas }}
  maxReplicaCount: {{ $keda.maxReplicas }}
  cooldownPeriod: {{ $keda.cooldownSeconds }}
  triggers:
    - type: kafka
      metadata:
        bootstrapServers: {{ tpl $kafka.bootstrapServers $root }}
        consumerGroup: {{ .group }}
        topic: {{ .topic }}
        lagThreshold: {{ $keda.lagPerReplica | quote }}
        allowIdleConsumers: "false"
        {{- if eq $kafka.securityProtocol "SASL_SSL" }}
        sasl: scram_sha512
        {{- end }}
        {{- if ne $kafka.securityProtocol "PLAINTEXT" }}
        tls: enable
      authenticationRef:
        name: {{ include "closeflow.fullname" $root }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
spec:
  {{- if eq $kafka.securityProtocol "SASL_SSL" }}
  env:
    - {parameter: username, name: {{ .prefix }}_KAFKA_USERNAME, containerName: {{ $root.Chart.Name }}}
  {{- end }}
  secretTargetRef:
    {{- $keys := ternary (dict "kafka-password" "password") (dict "kafka-certificate" "cert" "kafka-key" "key") (eq $kafka.securityProtocol "SASL_SSL") }}
    {{- range $key, $parameter := $keys }}
    {{- $from := index $root.Values.secret.entries $key | default dict }}
    - {parameter: {{ $parameter }}, name: {{ tpl ($from.secret | default $secret) $root }}, key: {{ $from.key | default $key }}}
    {{- end }}
    {{- if eq $root.Values.global.ca.kind "Secret" }}
    - {parameter: ca, name: {{ include "closeflow.caName" $root }}, key: {{ $root.Values.global.ca.key }}}
    {{- end }}
        {{- end }}
{{- end }}
{{- end -}}
