# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Progress of scripts that people watch: one line a step, coloured on a terminal only. Sourced.

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
	SAY_BOLD=$'\e[1m' SAY_GREEN=$'\e[32m' SAY_RED=$'\e[31m' SAY_DIM=$'\e[2m' SAY_PLAIN=$'\e[0m'
else
	SAY_BOLD='' SAY_GREEN='' SAY_RED='' SAY_DIM='' SAY_PLAIN=''
fi

say_step() { printf '\n%s%s%s\n' "$SAY_BOLD" "$*" "$SAY_PLAIN"; }
say() { printf '  %s\n' "$*"; }
say_note() { printf '  %s%s%s\n' "$SAY_DIM" "$*" "$SAY_PLAIN"; }
say_ok() { printf '  %sok%s      %s\n' "$SAY_GREEN" "$SAY_PLAIN" "$*"; }
say_failed() { printf '  %sFAILED%s  %s\n' "$SAY_RED" "$SAY_PLAIN" "$*"; }
