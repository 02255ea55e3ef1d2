{{/* All objects of a service. (dict "root" . "spec" spec), where spec has:
  prefix       of its environment variables
  role         in PostgreSQL
  uses         some of postgres, kafka, broker, stream, marketData, connect
  health       whether it serves /healthz, /readyz and /metrics on 8081
  ports        name: port of what it serves besides
  settings, env, secretKeys, volumes, mounts   more of each
  surge        more pods than replicas while rolling (1, or 0 where a limit holds for all together)
  kind         Deployment, or StatefulSet with a volume (.Values.state)
*/}}
{{- define "closeflow.service" -}}
{{ include "closeflow.configMap" . }}
---
{{ include "closeflow.workload" . }}
---
{{ include "closeflow.serviceObject" . }}
---
{{ include "closeflow.disruptionBudget" .root }}
{{- include "closeflow.networkPolicy" . }}
{{- include "closeflow.externalSecret" . }}
{{- include "closeflow.monitoring" . }}
{{- end -}}

{{- define "closeflow.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "closeflow.fullname" .root }}
  labels:
    {{- include "closeflow.labels" .root | nindent 4 }}
data:
  {{- include "closeflow.settings" . | nindent 2 }}
{{- end -}}

{{- define "closeflow.workload" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $kind := .spec.kind | default "Deployment" -}}
{{- $scaled := or (and $v.autoscaling $v.autoscaling.enabled) (and $v.keda $v.keda.enabled) -}}
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $v.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "closeflow.selector" $root | nindent 6 }}
  {{- if eq $kind "Deployment" }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      {{- if eq (int (.spec.surge | default 0)) 0 }}
      maxSurge: 0
      maxUnavailable: 1
      {{- else }}
      maxSurge: {{ .spec.surge }}
      maxUnavailable: 0
      {{- end }}
  {{- else }}
  serviceName: {{ include "closeflow.fullname" $root }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "closeflow.labels" $root | nindent 8 }}
        {{- with $v.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        checksum/config: {{ include "closeflow.settings" . | sha256sum }}
        {{- with $v.secret.revision }}
        closeflow/secret-revision: {{ . | quote }}
        {{- end }}
        {{- with $v.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      {{- include "closeflow.podSpec" . | nindent 6 }}
  {{- if eq $kind "StatefulSet" }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: state
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $v.state.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $v.state.size }}
  {{- end }}
{{- end -}}

{{- define "closeflow.podSpec" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $spec := .spec -}}{{- $keys := include "closeflow.secretKeys" . | fromJsonArray -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "closeflow.pullSecrets" $root }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- include "closeflow.podSecurity" $root | nindent 2 }}
terminationGracePeriodSeconds: {{ include "closeflow.graceSeconds" $root }}
topologySpreadConstraints:
  {{- include "closeflow.spread" $root | nindent 2 }}
{{- with $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ $root.Chart.Name }}
    image: {{ include "closeflow.image" (dict "root" $root "image" $v.image) }}
    imagePullPolicy: {{ $v.global.image.pullPolicy }}
    envFrom:
      - configMapRef:
          name: {{ include "closeflow.fullname" $root }}
    {{- with $spec.env }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      {{- if $spec.health }}
      - {name: health, containerPort: 8081}
      {{- end }}
      {{- range $name, $port := $spec.ports }}
      - {name: {{ $name }}, containerPort: {{ $port }}}
      {{- end }}
    {{- include "closeflow.probes" . | nindent 4 }}
    lifecycle:
      preStop:
        sleep:
          seconds: {{ $v.drain.preStopSeconds }}
    resources:
      {{- toYaml $v.resources | nindent 6 }}
    securityContext:
      {{- include "closeflow.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if $keys }}
      - {name: secrets, mountPath: /etc/closeflow/secrets, readOnly: true}
      {{- end }}
      - {name: ca, mountPath: /etc/closeflow/ca, readOnly: true}
      {{- with $spec.mounts }}{{ toYaml . | nindent 6 }}{{ end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  {{- if $keys }}
  {{- include "closeflow.secretVolume" (dict "root" $root "keys" $keys) | nindent 2 }}
  {{- end }}
  {{- include "closeflow.caVolume" $root | nindent 2 }}
  {{- with $spec.volumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{- define "closeflow.serviceObject" -}}
{{- $root := .root -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "closeflow.fullname" $root }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
  {{- with ($root.Values.service | default dict).annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if .spec.ports }}
  type: {{ ($root.Values.service | default dict).type | default "ClusterIP" }}
  {{- else }}
  clusterIP: None
  {{- end }}
  selector:
    {{- include "closeflow.selector" $root | nindent 4 }}
  ports:
    {{- range $name, $port := .spec.ports }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name }}}
    {{- end }}
    {{- if .spec.health }}
    - {name: health, port: 8081, targetPort: health}
    {{- end }}
{{- end -}}

{{- define "closeflow.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "closeflow.fullname" . }}
  labels:
    {{- include "closeflow.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "closeflow.selector" . | nindent 6 }}
{{- end -}}
