# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Certificates for a test's servers and clients, made by openssl; sourced.

# certs_make DIR SERVER-IP: ca, server, and the clients root and flannel, whose CN is their name.
certs_make() {
	local dir=$1 name
	[[ ! -e $dir/flannel.crt ]] || return 0
	_certs_quietly "$dir" openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=twill-test-ca -keyout "$dir/ca.key" -out "$dir/ca.crt" \
		-addext basicConstraints=critical,CA:TRUE
	# etcd also shows its server certificate as a client, to itself.
	cert_issue "$dir" server /O=twill-test "subjectAltName=IP:$2,IP:127.0.0.1,DNS:localhost" serverAuth,clientAuth
	for name in root flannel; do cert_issue "$dir" "$name" "/CN=$name" "subjectAltName=DNS:$name" clientAuth; done
}

# cert_issue DIR NAME SUBJECT ALT-NAMES USAGE [openssl x509 flags]: NAME.crt and NAME.key, signed by DIR's ca.
cert_issue() {
	local dir=$1 name=$2
	_certs_quietly "$dir" openssl req -newkey rsa:2048 -nodes -subj "$3" -keyout "$dir/$name.key" -out "$dir/$name.csr"
	_certs_quietly "$dir" openssl x509 -req -in "$dir/$name.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
		-out "$dir/$name.crt.new" -extfile <(printf '%s\n' "$4" "extendedKeyUsage=$5") "${@:6}"
	mv "$dir/$name.crt.new" "$dir/$name.crt"
}

_certs_quietly() {
	"${@:2}" >>"$1/openssl.log" 2>&1 || lab_die "openssl: $(tail -n 3 "$1/openssl.log")"
}
