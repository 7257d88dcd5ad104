/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Types and checks that C11, C++20 and clang -target bpf read alike. Every other header of this folder starts here.
 * offsetof is the builtin because bpf_helpers.h redefines the macro as a cast that _Static_assert refuses. */
#include <linux/types.h>

#ifdef __cplusplus
#define TW_STATIC_ASSERT static_assert
#else
#define TW_STATIC_ASSERT _Static_assert
#endif

#define TW_ASSERT_SIZE(type, bytes) TW_STATIC_ASSERT(sizeof(type) == (bytes), "size of " #type)
#define TW_ASSERT_OFF(type, field, bytes) \
	TW_STATIC_ASSERT(__builtin_offsetof(type, field) == (bytes), "offset of " #type "." #field)
