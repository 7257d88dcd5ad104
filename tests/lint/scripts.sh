#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every shell script passes shellcheck. SC2016 is off: a program for awk or jq in single quotes is meant so.
# And no pipe ends in `grep -q`: it stops reading at the first match, the writer may get SIGPIPE, and under pipefail a match
# then counts as a failure, now and then.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

cd "$tree" || exit 1
mapfile -t scripts < <(bash_files)
if [[ ${#scripts[@]} -gt 0 ]]; then
	violations_from < <(shellcheck --external-sources --source-path=SCRIPTDIR --exclude=SC1090,SC1091,SC2016 --format=gcc "${scripts[@]}")
	violations_from < <(grep -HnE '\|[[:space:]]*grep -[[:alpha:]]*q' "${scripts[@]}" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*#' |
		sed -E 's/^([^:]+:[0-9]+):.*/\1: no pipe into grep -q, write grep >\/dev\/null/')
fi
finish
