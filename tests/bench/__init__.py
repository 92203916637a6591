# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: speed and memory beside the peers that an operator would use instead, as ratios of one run.

Nothing here is part of `make test`. docs/performance.md says what the figures mean and what was measured.
"""
