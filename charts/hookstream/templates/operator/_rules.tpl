{{/*
What the operator may do in a namespace that it watches: read the resources, write their statuses (server-side
apply is a patch), read Secrets, record Events.  It writes no spec, label, annotation or finalizer of anyone.

Secrets: it watches their metadata everywhere and fetches only those that resources name; RBAC cannot say "those".
*/}}
{{- define "hookstream.kinds" -}}
[sources, destinations, connections, topics, subscriptions, alertrules, notificationchannels, collections]
{{- end -}}

{{- define "hookstream.namespaceRules" -}}
{{- $kinds := include "hookstream.kinds" . | fromYamlArray -}}
- apiGroups: [hookstream.io]
  resources:
  {{- range $kinds }}
  - {{ . }}
  {{- end }}
  verbs: [get, list, watch]
- apiGroups: [hookstream.io]
  resources:
  {{- range $kinds }}
  - {{ . }}/status
  {{- end }}
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
{{ include "hookstream.eventRules" . }}
{{- end -}}

{{/* Where it does not watch but runs: Events about itself, nothing else */}}
{{- define "hookstream.eventRules" -}}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
