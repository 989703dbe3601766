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

{{- define "flotilla.gatewayRole" -}}
{{ .Release.Namespace }}-{{ include "flotilla.name" . }}-gateway
{{- end -}}

{{- /* Like the ClusterRoles, it belongs to no namespace: its name must differ for releases in several namespaces. */ -}}
{{- define "flotilla.placeholderPriorityClass" -}}
{{ .Release.Namespace }}-{{ include "flotilla.name" . }}-placeholder
{{- end -}}

{{- /*
An image of the values by its name: in the registry of global.imageRegistry, if that is set. The first part of a
repository is a host if it contains a dot or a colon, or is localhost, as for docker.
*/ -}}
{{- define "flotilla.image" -}}
{{- $image := index .root.Values.images .name -}}
{{- $repository := $image.repository -}}
{{- with (.root.Values.global | default dict).imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- $host := first $parts -}}
{{- if and (gt (len $parts) 1) (or (contains "." $host) (contains ":" $host) (eq $host "localhost")) -}}
{{- $parts = rest $parts -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) -}}
{{- end -}}
{{- if not $image.repository -}}
{{- else if $image.digest }}{{ $repository }}@{{ $image.digest }}{{ else }}{{ $repository }}:{{ $image.tag }}{{ end }}
{{- end -}}

{{- /* Fails if an image that the chart cannot be without has no repository. */ -}}
{{- define "flotilla.requireImages" -}}
{{- $missing := list -}}
{{- range $name := list "operator" "runtime" -}}
{{- if not (index $.Values.images $name).repository -}}
{{- $missing = append $missing (printf "images.%s.repository" $name) -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- fail (printf "\n\nNo public registry has Flotilla's own images. Build and push them (docs/install.md), then set %s.\n" (join " and " $missing)) -}}
{{- end -}}
{{- end -}}

{{- /* The proxies as JSON. A wrong one may contain a password, so it is not quoted. */ -}}
{{- define "flotilla.proxy" -}}
{{- $proxy := .Values.proxy | default dict -}}
{{- range $name := list "httpProxy" "httpsProxy" -}}
{{- if not (regexMatch "^(https?://[^\\s/]\\S*)?$" (get $proxy $name)) -}}
{{- fail (printf "proxy.%s must begin with http:// or https:// and name a host" $name) -}}
{{- end -}}
{{- end -}}
{{- $proxy | toJson -}}
{{- end -}}

{{- /* The names of all pull secrets, each once, as a JSON list. */ -}}
{{- define "flotilla.pullSecrets" -}}
{{- $names := .Values.images.pullSecrets | default list -}}
{{- range (.Values.global | default dict).imagePullSecrets -}}
{{- $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end -}}

{{- /* The fields that every pod of the chart has beside its containers. */ -}}
{{- define "flotilla.podScheduling" -}}
{{- with include "flotilla.pullSecrets" . | fromJsonArray -}}
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
{{- with (.Values.monitoring | default dict).namespaceSelector }}
- namespaceSelector: {{- toYaml . | nindent 4 }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ $.Release.Namespace }}
  podSelector:
    matchLabels: {{- include "flotilla.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}
