{{/* A Job that runs closectl once. (dict "root" . "name" n "weight" w "uses" egress "args" list "env" dict "secrets" keys) */}}
{{- define "closeflow-platform.job" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}
{{- $plain := and (eq $v.jobs.install "job") $root.Release.IsInstall }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $root.Release.Name }}-{{ .name }}
  labels:
    {{- include "closeflow.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  {{- if not $plain }}
  annotations:
    helm.sh/hook: {{ ternary "pre-install,pre-upgrade" "pre-upgrade" (eq $v.jobs.install "hook") }}
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- end }}
spec:
  backoffLimit: {{ $v.jobs.retries }}
  activeDeadlineSeconds: {{ $v.jobs.deadlineSeconds }}
  template:
    metadata:
      labels:
        {{- include "closeflow.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
    spec:
      restartPolicy: OnFailure
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- include "closeflow.pullSecrets" $root | nindent 6 }}
      securityContext:
        {{- include "closeflow.podSecurity" $root | nindent 8 }}
      containers:
        - name: closectl
          image: {{ include "closeflow.image" (dict "root" $root "image" $v.image) }}
          imagePullPolicy: {{ $v.global.image.pullPolicy }}
          args: {{ toJson .args }}
          env:
            {{- range $name, $value := .env }}
            - {name: {{ $name }}, value: {{ $value | quote }}}
            {{- end }}
          resources:
            {{- toYaml $v.resources | nindent 12 }}
          securityContext:
            {{- include "closeflow.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: secrets, mountPath: /etc/closeflow/platform, readOnly: true}
            - {name: ca, mountPath: /etc/closeflow/ca, readOnly: true}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        - name: secrets
          secret:
            secretName: {{ $v.existingSecret | default (include "closeflow.fullname" $root) }}
            defaultMode: 0440
            items:
              {{- range .secrets }}
              - {key: {{ . }}, path: {{ splitList "." . | first }}/{{ trimPrefix (print (splitList "." . | first) ".") . }}}
              {{- end }}
        {{- include "closeflow.caVolume" $root | nindent 8 }}
{{- end -}}

{{- define "closeflow-platform.common" -}}
{{- if .Values.global.allowPlaintext }}
CLOSECTL_ALLOW_PLAINTEXT: "true"
{{- end }}
{{- end -}}

{{/* The login of the owner of the database. */}}
{{- define "closeflow-platform.database" -}}
CLOSECTL_POSTGRES_DSN: {{ include "closeflow.dsn" (dict "root" . "user" .Values.database.owner) | quote }}
CLOSECTL_POSTGRES_PASSWORD_FILE: /etc/closeflow/platform/postgres/closeflow_admin
{{- include "closeflow-platform.common" . }}
{{- end -}}

{{- define "closeflow-platform.certificate" -}}
{{- if ne .root.Values.global.kafka.securityProtocol "PLAINTEXT" }}
CLOSECTL_{{ .for }}_CA_PATH: /etc/closeflow/ca/ca.pem
CLOSECTL_{{ .for }}_CERTIFICATE_PATH: /etc/closeflow/platform/closectl/tls.pem
CLOSECTL_{{ .for }}_KEY_PATH: /etc/closeflow/platform/closectl/tls.key
{{- end }}
{{- end -}}
