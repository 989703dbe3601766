{{- define "flotilla.labels" -}}
app.kubernetes.io/name: flotilla
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "flotilla.selector" -}}
app.kubernetes.io/name: flotilla
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "flotilla.name" -}}
{{- if contains "flotilla" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-flotilla{{ end }}-operator
{{- end -}}

{{- /* Like the ClusterRoles, it belongs to no namespace: its name must differ for releases in several namespaces. */ -}}
{{- define "flotilla.placeholderPriorityClass" -}}
{{ .Release.Namespace }}-{{ include "flotilla.name" . }}-placeholder
{{- end -}}

{{- define "flotilla.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end -}}

{{- /* The fields that every pod of the chart has beside its containers. */ -}}
{{- define "flotilla.podScheduling" -}}
{{- with .Values.images.pullSecrets -}}
imagePullSecrets: {{- range . }}{{ list (dict "name" .) | toYaml | nindent 2 }}{{ end }}
{{ end -}}
{{- with .Values.operator.priorityClassName -}}
priorityClassName: {{ . }}
{{ end -}}
{{- with .Values.operator.nodeSelector -}}
nodeSelector: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .Values.operator.tolerations -}}
tolerations: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .Values.operator.affinity -}}
affinity: {{- toYaml . | nindent 2 }}
{{ end -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "flotilla.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "flotilla.afterUninstall" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Who may scrape the metrics of the pods of all kinds; empty where everybody may. */}}
{{- define "flotilla.metricsPeers" -}}
{{- with .Values.monitoring.namespaceSelector }}
- namespaceSelector: {{- toYaml . | nindent 4 }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ $.Release.Namespace }}
  podSelector:
    matchLabels: {{- include "flotilla.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}
