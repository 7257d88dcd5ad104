#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# EtcdStore against a real etcd on loopback: run.sh [doctest options]
set -euo pipefail
for program in etcd etcdctl openssl; do
	command -v "$program" >/dev/null || {
		echo "skipped: no $program (Debian: etcd-server, etcd-client, openssl)"
		exit 77
	}
done
exec "${TWILL_BIN:?}/tw-interop-etcd" "$@"
