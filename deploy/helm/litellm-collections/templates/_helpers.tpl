{{- define "collections.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "collections.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "collections.selector" . }}
{{- end -}}

{{- define "collections.selector" -}}
app.kubernetes.io/name: litellm-collections
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "collections.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The files of a ConfigMap: litellm_config.yaml, config/ and the prompts. */}}
{{- define "collections.files" -}}
litellm_config.yaml: |
  {{- toYaml .Values.litellm | nindent 2 }}
{{- range $name, $content := .Values.config }}
{{- if $content }}
{{ $name }}.yaml: |
  {{- toYaml $content | nindent 2 }}
{{- end }}
{{- end }}
{{- range $path, $content := .Files.Glob "prompts/*.md" }}
{{ base $path }}: |
  {{- $content | toString | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "collections.pod" -}}
serviceAccountName: {{ include "collections.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What all containers share; the caller gives name, command and resources. */}}
{{- define "collections.container" -}}
image: {{ include "collections.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - secretRef: {name: {{ .secretName | default .Values.secretName }}}
env:
  - {name: COLLECTIONS_CONFIG, value: /app/config}
  - {name: DATA_DIR, value: /data}
  - {name: JSON_LOGS, value: "true"}
  {{- range $name, $value := .Values.env }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
volumeMounts:
  - {name: config, mountPath: /app/config, readOnly: true}
  - {name: litellm, mountPath: /etc/litellm, readOnly: true}
  - {name: data, mountPath: /data}
{{- end -}}

{{/* (list $ <the ConfigMap's name> <size of /data>) */}}
{{- define "collections.volumes" -}}
{{- $root := index . 0 -}}
- name: config
  configMap:
    name: {{ index . 1 }}
    items:
      {{- range $name, $content := $root.Values.config }}
      {{- if $content }}
      - {key: {{ $name }}.yaml, path: {{ $name }}.yaml}
      {{- end }}
      {{- end }}
      {{- range $path, $_ := $root.Files.Glob "prompts/*.md" }}
      - {key: {{ base $path }}, path: prompts/{{ base $path }}}
      {{- end }}
- name: litellm
  configMap:
    name: {{ index . 1 }}
    items: [{key: litellm_config.yaml, path: litellm_config.yaml}]
- name: data
  emptyDir: {sizeLimit: {{ index . 2 }}}
{{- end -}}
