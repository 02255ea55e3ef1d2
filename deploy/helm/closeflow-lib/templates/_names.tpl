{{/* Every template takes the chart's root context, or (dict "root" . "spec" spec) where a service is described. */}}

{{- define "closeflow.fullname" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "closeflow.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "closeflow.labels" -}}
{{ include "closeflow.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: closeflow
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The image of (dict "root" . "image" values): its own tag, else that of all, else the version of the application. */}}
{{- define "closeflow.image" -}}
{{- $all := .root.Values.global.image -}}
{{- with $all.registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default $all.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* A value that may be written with templates in it, such as "{{ .Release.Name }}-postgres". */}}
{{- define "closeflow.text" -}}
{{- tpl (toString .text) .root -}}
{{- end -}}

{{/* The Secret of a service: the one that is named, else <release>-<chart>. */}}
{{- define "closeflow.secretName" -}}
{{- .Values.secret.existingSecret | default (include "closeflow.fullname" .) -}}
{{- end -}}

{{- define "closeflow.caName" -}}
{{- with .Values.global.ca.name }}{{ tpl . $ }}{{ else }}{{ .Release.Name }}-ca{{ end -}}
{{- end -}}

{{/* The most pods that run at once; limits that hold for all of them together are divided by it. */}}
{{- define "closeflow.mostReplicas" -}}
{{- $most := int .Values.replicas -}}
{{- if and .Values.autoscaling .Values.autoscaling.enabled -}}{{- $most = int .Values.autoscaling.maxReplicas -}}{{- end -}}
{{- if and .Values.keda .Values.keda.enabled -}}{{- $most = int .Values.keda.maxReplicas -}}{{- end -}}
{{- max 1 $most -}}
{{- end -}}
