{{/* What PodSecurity "restricted" asks of a pod. 10001 is the user of our images. */}}
{{- define "closeflow.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "closeflow.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "closeflow.pullSecrets" -}}
{{- with .Values.global.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* One replica more or less of a node or a zone is no reason to wait: spreading is wished, not demanded. */}}
{{- define "closeflow.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "closeflow.selector" $ | nindent 6 }}
  {{- if not (hasKey $.Values "state") }}
  matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* Startup and liveness ask only whether the event loop turns; what else is needed is readiness's to ask. */}}
{{- define "closeflow.probes" -}}
{{- $port := .spec.probePort | default "health" -}}
{{- $scheme := .spec.probeScheme | default "HTTP" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ $port }}, scheme: {{ $scheme }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /healthz, port: {{ $port }}, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: {{ .spec.readinessPath | default "/readyz" }}, port: {{ $port }}, scheme: {{ $scheme }}}
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* SIGTERM comes after the sleep, in which the pod leaves the endpoints; then a service ends within 45 s by itself. */}}
{{- define "closeflow.graceSeconds" -}}
{{- add .Values.drain.preStopSeconds .Values.drain.deadlineSeconds 10 -}}
{{- end -}}

{{/* Files of secrets: from the service's Secret, or from another one that .Values.secret.entries names. */}}
{{- define "closeflow.secretVolume" -}}
{{- $root := .root -}}
{{- $own := include "closeflow.secretName" $root -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range .keys }}
      {{- $from := index $root.Values.secret.entries . | default dict }}
      - secret:
          name: {{ tpl ($from.secret | default $own) $root }}
          items:
            - {key: {{ $from.key | default . }}, path: {{ . }}}
      {{- end }}
{{- end -}}

{{- define "closeflow.caVolume" -}}
- name: ca
  {{- if eq .Values.global.ca.kind "ConfigMap" }}
  configMap:
    name: {{ include "closeflow.caName" . }}
  {{- else }}
  secret:
    secretName: {{ include "closeflow.caName" . }}
    defaultMode: 0444
  {{- end }}
    items:
      - {key: {{ .Values.global.ca.key }}, path: ca.pem}
{{- end -}}
