{{/* Labels of a part of the trial: (dict "root" . "part" name). */}}
{{- define "closeflow.trialLabels" -}}
{{ include "closeflow.labels" .root }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "closeflow.trialSelector" -}}
{{ include "closeflow.selector" .root }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "closeflow.trialSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "closeflow.trialVolume" -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .root.Values.trial.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .size }}
{{- end -}}

{{/* A Service and a policy: (dict "root" . "part" name "ports" (dict name port) "egress" list of parts with all ports). */}}
{{- define "closeflow.trialService" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .root.Release.Name }}-{{ .part }}
  labels:
    {{- include "closeflow.trialLabels" . | nindent 4 }}
spec:
  selector:
    {{- include "closeflow.trialSelector" . | nindent 4 }}
  ports:
    {{- range $name, $port := .ports }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $port }}}
    {{- end }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .root.Release.Name }}-{{ .part }}
  labels:
    {{- include "closeflow.trialLabels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "closeflow.trialSelector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        {{- range $name, $port := .ports }}
        - {protocol: TCP, port: {{ $port }}}
        {{- end }}
      from:
        - podSelector:
            matchLabels:
              app.kubernetes.io/instance: {{ .root.Release.Name }}
              app.kubernetes.io/part-of: closeflow
  egress:
    {{- include "closeflow.egress" (dict "root" .root "uses" .egress) | nindent 4 }}
{{- end -}}
