{{- define "gateway.name" -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- end }}

{{- define "gateway.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "gateway.environment" -}}
- {name: APP_ENV, value: production}
- {name: SECRET_KEY_FILE, value: /run/secrets/gateway/secret_key}
- {name: ENCRYPTION_KEY_FILE, value: /run/secrets/gateway/encryption_key}
- {name: DB_PASSWORD_FILE, value: /run/secrets/gateway/db_password}
- {name: DB_HOST, value: {{ required "database.host is needed" .Values.database.host | quote }}}
- {name: DB_PORT, value: {{ .Values.database.port | quote }}}
- {name: DB_USER, value: {{ .Values.database.user | quote }}}
- {name: DB_NAME, value: {{ .Values.database.name | quote }}}
{{- if not .Values.settings.DEPLOYMENT_ID }}{{ fail "settings.DEPLOYMENT_ID is needed: openssl rand -hex 8" }}{{ end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "gateway.secrets" -}}
- name: secrets
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
    items:
      - {key: secret_key, path: secret_key}
      - {key: encryption_key, path: encryption_key}
      - {key: db_password, path: db_password}
{{- end }}

{{- define "gateway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
