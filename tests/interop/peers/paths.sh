# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Which peers there are and where their binaries are; sourced.
#   flannel          flanneld, the newest release
#   flannel-old      flanneld, the oldest release that can be had whole from the module proxy
#   kube-apiserver   the API server of a current Kubernetes
#   kube-proxy       of the same release

PEERS_DIR_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # for who sources this
PEERS=(flannel flannel-old kube-apiserver kube-proxy)
PEERS_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/twill/peers
PEERS_GO=$(command -v go || { [[ ! -x /usr/local/go/bin/go ]] || echo /usr/local/go/bin/go; })

peer_module() {
	case $1 in
	flannel*) echo github.com/flannel-io/flannel ;;
	kube-*) echo k8s.io/kubernetes ;;
	esac
}

peer_package() {
	case $1 in
	flannel*) peer_module "$1" ;;
	kube-*) echo "k8s.io/kubernetes/cmd/$1" ;;
	esac
}

peer_version() { sed -n "s|^\(require\)\?[[:space:]]*$(peer_module "$1") \(v[^ ]*\).*|\2|p" "$PEERS_DIR_HERE/$1/go.mod"; }
peer_go_version() { "$PEERS_GO" env GOVERSION; }

# What a release's own build writes into it: kube-apiserver refuses some things when it does not know its version.
peer_ldflags() {
	local version rest
	version=$(peer_version "$1")
	rest=${version#v*.}
	case $1 in
	flannel*) echo "-X $(peer_module "$1")/pkg/version.Version=$version" ;;
	kube-*)
		echo "-X k8s.io/component-base/version.gitVersion=$version" \
			"-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${rest%%.*}"
		;;
	esac
}

# Where a peer's binary is once it was built; nothing without Go, which is part of the name.
peer_path() {
	local sum
	[[ -n $PEERS_GO ]] || return 0
	sum=$(cat "$PEERS_DIR_HERE/$1/go.mod" "$PEERS_DIR_HERE/$1/go.sum" "$PEERS_DIR_HERE/tencent-vpc/v20170312/vpc.go" | sha256sum)
	echo "$PEERS_CACHE/$1-$(peer_version "$1")-$(peer_go_version)-${sum:0:8}"
}
