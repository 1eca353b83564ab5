{{/*
The parts that the pods of operator and gateway share, so that neither is less safe than the other.
*/}}

{{- define "hookstream.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# the key ring's file belongs to root and this group
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "hookstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "hookstream.env" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef: {{ include "hookstream.databaseSecretRef" . }}
{{- if .Values.database.ca.name }}
- {name: PGSSLROOTCERT, value: /etc/hookstream/database-ca/ca.crt}
{{- end }}
- {name: HOOKSTREAM_KEYRING, value: /etc/hookstream/keyring/keyring}
- {name: HOOKSTREAM_PUBLIC_URL, value: {{ include "hookstream.publicUrl" . | quote }}}
- {name: HOOKSTREAM_LOG, value: {{ .Values.log.level | quote }}}
- {name: HOOKSTREAM_LOG_FORMAT, value: {{ .Values.log.format }}}
- {name: HOOKSTREAM_ADMIN_LISTEN, value: "0.0.0.0:9090"}
- {name: HOOKSTREAM_SHARDS, value: {{ .Values.database.shards | quote }}}
{{- end -}}

{{- define "hookstream.volumes" -}}
- name: keyring
  secret: {secretName: {{ include "hookstream.keyringSecret" . }}, defaultMode: 0440}
{{- with .Values.database.ca }}
{{- if .name }}
- name: database-ca
  configMap: {name: {{ .name }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end -}}

{{- define "hookstream.volumeMounts" -}}
# the folder, not the file: a rotated ring then appears in running pods
- {name: keyring, mountPath: /etc/hookstream/keyring, readOnly: true}
{{- if .Values.database.ca.name }}
- {name: database-ca, mountPath: /etc/hookstream/database-ca, readOnly: true}
{{- end }}
{{- end -}}

{{/* Staleness, a lost database or a lost API server never fail /livez: a restart would mend none of them. */}}
{{- define "hookstream.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{/* Where pods go: include "hookstream.placement" (list $ "gateway") */}}
{{- define "hookstream.placement" -}}
{{- $selector := include "hookstream.selector" . | fromYaml -}}
{{- with index (index . 0).Values (index . 1) -}}
terminationGracePeriodSeconds: {{ .terminationGracePeriodSeconds }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
- {{ merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" $selector) "matchLabelKeys" (list "pod-template-hash")) | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
