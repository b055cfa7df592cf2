{{/* The release's name; with the chart's name when that is not in it already. At most 63 characters, as DNS asks. */}}
{{- define "parley.fullname" -}}
{{- if contains "parley" .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-parley" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What finds the pods; never changes in a release's life. */}}
{{- define "parley.selectorLabels" -}}
app.kubernetes.io/name: parley
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "parley.labels" -}}
{{ include "parley.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "parley.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "parley.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "parley.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The key for a container, or nothing: an item of `env`. */}}
{{- define "parley.apiKeyEnv" -}}
{{- if .Values.apiKey.existingSecret -}}
- name: PARLEY_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.apiKey.existingSecret | quote }}
      key: {{ .Values.apiKey.key | quote }}
{{- end -}}
{{- end -}}

{{/* The container's resources, its GPUs among the limits; Kubernetes asks for as many by itself. */}}
{{- define "parley.resources" -}}
{{- $limits := .Values.resources.limits | default dict -}}
{{- if gt (int .Values.gpu.count) 0 -}}
{{- $limits = merge (dict "nvidia.com/gpu" (int .Values.gpu.count)) $limits -}}
{{- end -}}
{{- toYaml (merge (dict "limits" $limits) .Values.resources) -}}
{{- end -}}

{{- define "parley.tolerations" -}}
{{- if gt (int .Values.gpu.count) 0 }}
- key: nvidia.com/gpu
  operator: Exists
  effect: NoSchedule
{{- end }}
{{- with .Values.tolerations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "parley.podAnnotations" -}}
{{- if and .Values.metrics.scrapeAnnotations (not .Values.apiKey.existingSecret) }}
prometheus.io/scrape: "true"
prometheus.io/path: /metrics
prometheus.io/port: "8000"
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Pod Security "restricted", for the pod and for its container. */}}
{{- define "parley.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "parley.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
