{{/* The prefix of every name.  52 bytes leave room for what StatefulSets and suffixes add below 63. */}}
{{- define "hookstream.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Selectors: include "hookstream.selector" (list $ "gateway").  Immutable on Deployments: never add to them. */}}
{{- define "hookstream.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of a resource: include "hookstream.labels" (list $ "gateway") */}}
{{- define "hookstream.labels" -}}
{{- $root := index . 0 -}}
{{ include "hookstream.selector" . }}
app.kubernetes.io/part-of: hookstream
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: no chart version among them, or every new chart would restart them all. */}}
{{- define "hookstream.podLabels" -}}
{{- $root := index . 0 -}}
{{- merge (include "hookstream.selector" . | fromYaml) $root.Values.commonLabels (dig (index . 1) "podLabels" dict (omit $root.Values "global")) | toYaml -}}
{{- end -}}

{{- define "hookstream.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The service account's name: include "hookstream.serviceAccount" (list $ "gateway") */}}
{{- define "hookstream.serviceAccount" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $account := (index $root.Values $component).serviceAccount -}}
{{- if $account.create -}}
{{- default (printf "%s-%s" (include "hookstream.fullname" $root) $component) $account.name -}}
{{- else -}}
{{- default "default" $account.name -}}
{{- end -}}
{{- end -}}

{{/* Where DATABASE_URL comes from.  Exactly one way must be chosen: a guess here would be a database too many. */}}
{{- define "hookstream.databaseSecretRef" -}}
{{- $given := list -}}
{{- with .Values.database.existingSecret.name }}{{ $given = append $given "database.existingSecret.name" }}{{ end -}}
{{- with .Values.database.url }}{{ $given = append $given "database.url" }}{{ end -}}
{{- if .Values.postgres.enabled }}{{ $given = append $given "postgres.enabled" }}{{ end -}}
{{- if not $given -}}
{{- fail "\n\nhookstream keeps its events in Postgres and none is set. Set one of:\n  --set database.existingSecret.name=NAME   a Secret in this namespace whose key `url` holds postgres://user:password@host/database\n  --set database.url=postgres://...         the same as a value\n  --set postgres.enabled=true               a single Postgres pod, to try hookstream with\n" -}}
{{- end -}}
{{- if gt (len $given) 1 -}}
{{- fail (printf "\n\nset only one of %s: hookstream has one database\n" (join ", " $given)) -}}
{{- end -}}
{{- $prefix := include "hookstream.fullname" . -}}
{{- if .Values.database.existingSecret.name -}}
{name: {{ .Values.database.existingSecret.name }}, key: {{ .Values.database.existingSecret.key }}}
{{- else if .Values.database.url -}}
{name: {{ $prefix }}-database, key: url}
{{- else -}}
{name: {{ $prefix }}-postgres, key: url}
{{- end -}}
{{- end -}}

{{- define "hookstream.keyringSecret" -}}
{{- default (printf "%s-keyring" (include "hookstream.fullname" .)) .Values.keyring.existingSecret -}}
{{- end -}}

{{/* Seconds that a gateway has for its requests and attempts in flight, once it is told to stop. */}}
{{- define "hookstream.gatewayGrace" -}}
{{- $grace := sub .Values.gateway.terminationGracePeriodSeconds (add .Values.gateway.preStopSleepSeconds 10) -}}
{{- if lt $grace 1 -}}
{{- fail "\n\ngateway.terminationGracePeriodSeconds must be more than gateway.preStopSleepSeconds and ten seconds for the hand-over\n" -}}
{{- end -}}
{{- $grace -}}
{{- end -}}

{{/* What senders put before /v1/ingest */}}
{{- define "hookstream.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl | trimSuffix "/" -}}
{{- else if and .Values.ingress.enabled .Values.ingress.hosts -}}
{{- printf "%s://%s" (ternary "https" "http" (not (empty .Values.ingress.tls))) (first .Values.ingress.hosts) -}}
{{- else -}}
{{- printf "http://%s-gateway.%s.svc:%d" (include "hookstream.fullname" .) .Release.Namespace (int .Values.gateway.service.port) -}}
{{- end -}}
{{- end -}}
