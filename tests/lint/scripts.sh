#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every shell script passes shellcheck. SC2016 is off: a program for awk or jq in single quotes is meant so.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

cd "$tree" || exit 1
mapfile -t scripts < <(bash_files)
if [[ ${#scripts[@]} -gt 0 ]]; then
	violations_from < <(shellcheck --external-sources --source-path=SCRIPTDIR --exclude=SC1090,SC1091,SC2016 --format=gcc "${scripts[@]}")
fi
finish
