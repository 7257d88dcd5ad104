# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# twilld and flanneld on a real API server; sourced after peers/lib.sh.
#
#   VARS=(NAME=VALUE...)            environment of what is started next; its node's name is in there
#   start_twilld NODE FLAGS...      as agent_start, but without a store and a node's name of the lab's
#   in_pod DIR COMMAND...           COMMAND as in a pod whose service account's files are in DIR
VARS=()

start_twilld() {
	local node=$1 dir
	dir=$(node_dir "$node")
	lab_spawn "$node" env "${VARS[@]}" "${IN_POD[@]}" "$TWILL_BIN/twilld" -subnet-file "$dir/subnet.env" -socket "$dir/twill.sock" \
		-cni-state-dir "$dir/cni" -bpf-root "$LAB_PINS/$node" "${@:2}" >>"$dir/log" 2>&1 </dev/null 9>&-
	disown "$LAB_PID"
	tail -n 1 "$LAB_DIR/.lab/pids" >"$dir/agent.pid"
}

IN_POD=()
# in_pod DIR: what is started next finds DIR where a pod has its service account's token and CA. A /var of its own: nothing of the
# host's is touched.
in_pod() {
	# shellcheck disable=SC2016 # expands in the inner shell
	IN_POD=(unshare --mount --propagation private bash -c 'mount -t tmpfs none /var &&
		mkdir -p /var/run/secrets/kubernetes.io/serviceaccount &&
		mount --bind "$0" /var/run/secrets/kubernetes.io/serviceaccount && exec "$@"' "$1")
}

# annotations_of NODE: flannel's and twill's, sorted, one "name value" a line; $ANNOTATIONS is their prefix with / or -.
annotations_of() {
	node_object "$1" ".metadata.annotations // {} | to_entries[] | select(.key | startswith(\"$ANNOTATIONS\")) | \"\(.key) \(.value)\""
}
condition_of() {
	node_object "$1" '.status.conditions[]? | select(.type == "NetworkUnavailable") | "condition \(.status) \(.reason) \(.message)"'
}
# annotate NODE JQ-OBJECT: null takes one away.
annotate() {
	kube_do PATCH "/api/v1/nodes/$1" "$(jq -nc "{metadata: {annotations: $2}}")" application/merge-patch+json >"$(peers_dir)/annotate.log"
}
# What flannel's user was refused, one "verb uri" a line.
refused_of() {
	jq -r 'select(.user.username == "flannel" and .responseStatus.code == 403) | "\(.verb) \(.requestURI)"' "$(peers_dir)/audit.log"
}
