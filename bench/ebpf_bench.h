// bench/ebpf_bench.h - the parts of ebpf_bench; each makes namespaces of its own and prints its figures, or ends the
// program (3) where packets were not judged.
#pragma once

namespace tierlog::bench {

// The whole way of packets through a node: first and established ones, by both data planes and conntrack alone.
// False: packets or messages were lost.
bool beside_nftables(int rounds);
// One pod's change of labels, and what many endpoints with many rules take.
void membership_and_memory();
// Connections a second and bytes a second between two pods, by both data planes and without any.
void tcp_between_pods(int rounds);

}  // namespace tierlog::bench
