{{/* Nothing goes in or out of a service's pods but what is named. Peers that are not named: any, on that port alone. */}}
{{- define "closeflow.networkPolicy" -}}
{{- $root := .root -}}{{- $net := .root.Values.global.networkPolicy -}}
{{- if $net.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "closeflow.selector" $root | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- if .spec.ports }}
    - ports:
        {{- range $name, $port := .spec.ports }}
        - {protocol: TCP, port: {{ $port }}}
        {{- end }}
      {{- with ($root.Values.networkPolicy | default dict).callers }}
      from:
        {{- tpl (toYaml .) $root | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- if .spec.health }}
    - ports:
        - {protocol: TCP, port: 8081}
      {{- with $net.monitoring }}
      from:
        {{- tpl (toYaml .) $root | nindent 8 }}
      {{- end }}
    {{- end }}
  egress:
    {{- include "closeflow.egress" (dict "root" $root "uses" .spec.uses) | nindent 4 }}
    {{- with ($root.Values.networkPolicy | default dict).egress }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Rules of egress for (dict "root" . "uses" list): DNS, and each of postgres, kafka, kafkaAdmin, broker, connect, otlp, closeApi. */}}
{{- define "closeflow.egress" -}}
{{- $root := .root -}}{{- $net := .root.Values.global.networkPolicy -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  {{- with $net.dns }}
  to:
    {{- tpl (toYaml .) $root | nindent 4 }}
  {{- end }}
{{- $uses := .uses -}}
{{- if $root.Values.global.otlpEndpoint }}{{ $uses = append $uses "otlp" }}{{ end }}
{{- range $name := $uses }}
{{- with index $net.targets $name }}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
  {{- with .to }}
  to:
    {{- tpl (toYaml .) $root | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}
