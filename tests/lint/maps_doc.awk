# SPDX-License-Identifier: Apache-2.0
# Brings docs/maps.md and `bpftool btf dump file OBJECT` (-v btf=1) into one form, to be compared line by line:
#   map NAME TYPE KEY VALUE CAPACITY
#   field STRUCT OFFSET NAME TYPE
# Of the BTF only structs that a key or value leads to are printed.

BEGIN {
	split("hash array prog_array perf_event_array percpu_hash percpu_array stack_trace cgroup_array lru_hash " \
	      "lru_percpu_hash lpm_trie", kinds, " ")
	kinds[27] = "ringbuf"
}

# docs/maps.md: the overview has seven columns, a struct's table four.
!btf && /^#+ struct / { name = $3; next }
!btf && /^#+ / { name = ""; next }
!btf && /^\| `/ {
	gsub(/`/, "")
	count = split($0, cell, / *\| */)
	if (count == 9)
		print "map", cell[2], cell[3], cell[4], cell[5], cell[6]
	else if (name)
		print "field", name, cell[4], cell[2], cell[3]
	next
}

# BTF: `[id] KIND 'name' ...`, then the members of a struct, indented.
btf && /^\[/ {
	id = $1
	gsub(/[][]/, "", id)
	kind[id] = $2
	label[id] = $3
	gsub(/'/, "", label[id])
	if (match($0, /type_id=[0-9]+/))
		target[id] = substr($0, RSTART + 8, RLENGTH - 8)
	if (match($0, /nr_elems=[0-9]+/))
		elements[id] = substr($0, RSTART + 9, RLENGTH - 9)
	members[id] = 0
	next
}
btf && /^\t'/ && kind[id] == "STRUCT" {
	n = ++members[id]
	member[id, n] = $1
	gsub(/'/, "", member[id, n])
	split($2, part, "=")
	member_type[id, n] = part[2]
	split($3, part, "=")
	offset[id, n] = part[2] / 8
	next
}
btf && /\(VAR 'tw_/ && kind[id] == "DATASEC" && label[id] == ".maps" {
	split($1, part, "=")
	maps[++map_count] = part[2]
}

function text(type) {
	if (kind[type] == "ARRAY")
		return text(target[type]) "[" elements[type] "]"
	if (kind[type] == "STRUCT" || kind[type] == "ENUM")
		return tolower(kind[type]) " " label[type]
	return label[type]
}

function show(type, n) {
	if (kind[type] == "ARRAY")
		show(target[type])
	if (kind[type] != "STRUCT" || seen[type]++)
		return
	for (n = 1; n <= members[type]; n++)
		print "field", label[type], offset[type, n], member[type, n], text(member_type[type, n])
	for (n = 1; n <= members[type]; n++)
		show(member_type[type, n])
}

# A map is a variable of an anonymous struct whose members point at what they mean.
function describe(variable, type, n, to, key, value, what, max) {
	type = target[variable]
	key = value = "-"
	for (n = 1; n <= members[type]; n++) {
		to = target[member_type[type, n]]
		if (member[type, n] == "key" || member[type, n] == "value")
			show(to)
		if (member[type, n] == "key")
			key = text(to)
		else if (member[type, n] == "value")
			value = text(to)
		else if (member[type, n] == "type")
			what = kinds[elements[to]]
		else if (member[type, n] == "max_entries")
			max = elements[to]
	}
	print "map", label[variable], what, key, value, max
}

END {
	for (n = 1; n <= map_count; n++)
		describe(maps[n])
}
